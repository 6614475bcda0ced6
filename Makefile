# Every target works on a fresh clone with Python 3.10 to 3.13, git and make. `make help` lists them.
SHELL := /bin/sh
PYTHON ?= python3
PADDLE ?= cpu

VENV := .venv
BENCH := .venv-bench
export PATH_OF_CALLER := $(PATH)
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export SHELL  # DVC starts the stages in it
# What would have Python or pip look, or install, elsewhere than in the environment
unexport PYTHONHOME PYTHONPATH PYTHONSAFEPATH PYTHONINSPECT PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT

# The demo trains a small network on synthetic images.
DEMO := .demo
DEMO_PARAMS := dataset=synthetic val_per_class=10 depth=20 width=16 epochs=6 batch_size=64 lr=0.2 \
	progressive_sizes=[16] progressive_fraction=0.5

# In a larger repository the project is a folder of the clone.
IN_DEMO = cd "$(DEMO)/$$(git rev-parse --show-prefix 2> /dev/null)"

# Where Paddle's own wheels with CUDA lie; they are not on PyPI.
PADDLE_VERSION = $(shell sed -n 's/^paddlepaddle==\([0-9.]*\).*/\1/p' requirements.txt)
PADDLE_GPU_INDEX ?= https://www.paddlepaddle.org.cn/packages/stable/cu126/

# PyTorch without GPU libraries, which only the benchmarks use; PyPI has it for macOS alone.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

# Two processes run the tests, each with one thread. The one that is done first takes tests from the
# end of what the other has still to do.
SIDE_BY_SIDE := -n 2 --dist worksteal

# One version of each package for all supported versions of Python and all systems, with hashes.
COMPILE := --quiet --no-header --universal --generate-hashes --fork-strategy fewest --python-version 3.10

PIP := python -m pip --disable-pip-version-check --quiet

.PHONY: help setup repro demo lr-range compare plots test-fast test test-all lint format bench time-to-accuracy check-gpu check-lock verify audit lock clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

setup: $(VENV)/ready-$(PADDLE)  ## create .venv with exact versions (PADDLE=gpu: the GPU build)

repro: $(VENV)/ready  ## run all stages whose inputs changed, and print the scores
	@python -m tools.check_params
	@python -m tools.repository
	@python -m tools.restore --quiet
	python -m dvc repro || { code=$$?; python -m tools.restore --quiet; exit $$code; }
	@python -m dvc metrics show

demo: $(VENV)/ready  ## run everything on synthetic images in .demo, in a few minutes
	@rm -rf $(DEMO)
	@python -m tools.repository $(DEMO)
	@$(IN_DEMO) && python -m dvc exp run --name demo $(addprefix -S ,$(DEMO_PARAMS))
	@$(IN_DEMO) && python -m dvc metrics show && echo "Open $$PWD/reports/index.html"

lr-range: $(VENV)/ready  ## find a learning rate to try, in a few minutes
	@python -m tools.check_params
	@python -m tools.repository
	@python -m dvc repro --quiet preprocess
	python -m tools.lr_range

compare: $(VENV)/ready  ## compare revisions or experiments: make compare REV="main exp-a exp-b"
	@test -n "$(REV)" || { echo 'error: compare: name what to compare: make compare REV="main exp-a"' >&2; exit 1; }
	@python -m tools.restore --quiet
	@python -m tools.compare $(REV)

plots: $(VENV)/ready  ## draw DVC's plots on a page that needs no network: make plots REV="main exp-a"
	@python -m tools.restore --quiet
	@python -m tools.plots dvc_plots/template.html $(REV)
	@python -m dvc plots $(if $(REV),diff,show) --html-template dvc_plots/template.html $(REV)

test-fast: $(VENV)/ready-dev  ## run the quick tests only (no DVC, no processes), within a minute
	python -m pytest $(SIDE_BY_SIDE) -m "not slow" --fast

test: $(VENV)/ready-dev  ## run the tests, in less than 6 minutes on 2 cores
	python -m pytest $(SIDE_BY_SIDE) -m "not slow"

test-all: test  ## run the slow tests as well, which need both cores
	python -m pytest -m slow

lint: $(VENV)/ready-dev  ## check style and types
	ruff check .
	ruff format --check .
	mypy

format: $(VENV)/ready-dev  ## fix what ruff can fix
	ruff check --fix .
	ruff format .

bench: $(VENV)/ready $(BENCH)/ready  ## measure images/s of this project, stock Paddle and PyTorch, in half an hour
	python -m benchmarks.throughput

time-to-accuracy: $(VENV)/ready $(BENCH)/ready  ## train the default recipe, and a PyTorch one for the same time
	python -m benchmarks.time_to_accuracy

check-gpu: $(VENV)/ready  ## test a training on this machine's GPU; prints a table for an issue
	@python -m tools.check_gpu

check-lock: $(VENV)/ready  ## check that dvc.lock, code, params and reports agree; needs no data
	@python -m tools.check_lock

verify: $(VENV)/ready  ## run the committed pipeline in a fresh clone and compare all hashes (QUICK=1: a small one)
	@python -m tools.verify $(if $(QUICK),--quick)

audit: $(VENV)/ready-dev  ## check the locked packages for known vulnerabilities (needs the internet)
	pip-audit --disable-pip --require-hashes -r requirements.txt

lock: $(VENV)/ready-dev  ## resolve the dependencies in pyproject.toml again and write the lock files
	uv pip compile $(COMPILE) pyproject.toml --output-file requirements.txt
	uv pip compile $(COMPILE) --group dev --constraint requirements.txt --output-file requirements-dev.txt
	uv pip compile $(COMPILE) --constraint requirements.txt --index-strategy unsafe-best-match \
	  $(addprefix --extra-index-url ,$(TORCH_INDEX)) benchmarks/requirements.in \
	  --output-file benchmarks/requirements.txt

clean:  ## delete the environments and the demo
	rm -rf $(VENV) $(BENCH) $(DEMO)

# Looked at by each call, and left alone if it is whole and no other Python is asked for.
$(VENV)/pyvenv.cfg $(BENCH)/pyvenv.cfg: FORCE
	@sh tools/environment.sh $(@D) "$(PYTHON)" $(if $(filter command environment,$(origin PYTHON)),wanted)

.PHONY: FORCE
FORCE:

# A stamp is newer than its lock file while nothing is to be installed.
$(VENV)/ready: requirements.txt tools/activated.py $(VENV)/pyvenv.cfg
	@! $(PIP) show paddlepaddle-gpu > /dev/null 2>&1 || { $(PIP) uninstall --yes paddlepaddle-gpu && echo \
	  "setup: the GPU build goes, as the locked packages changed; \`make setup PADDLE=gpu\` installs it again"; }
	$(PIP) install --require-hashes -r requirements.txt
	@site=$$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && \
	  cp tools/activated.py "$$site/activated.py" && echo 'import activated' > "$$site/activated.pth"
	@rm -f $(VENV)/ready-gpu && touch $@

$(VENV)/ready-dev: requirements-dev.txt $(VENV)/ready
	$(PIP) install --require-hashes -r requirements-dev.txt
	@touch $@

$(BENCH)/ready: benchmarks/requirements.txt $(BENCH)/pyvenv.cfg
	$(BENCH)/bin/$(PIP) install --require-hashes $(addprefix --extra-index-url ,$(TORCH_INDEX)) \
	  -r benchmarks/requirements.txt
	@touch $@

# Both builds own the same files, so one is taken away before the other comes; what is installed,
# and not a stamp, says which one that is: a failed installation leaves neither.
$(VENV)/ready-cpu: $(VENV)/ready
	@rm -f $(VENV)/ready-gpu
	@$(PIP) show paddlepaddle > /dev/null 2>&1 || { $(PIP) uninstall --yes paddlepaddle-gpu && \
	  $(PIP) install --require-hashes -r requirements.txt; }
	@touch $@

# The CPU build goes only once the GPU build is here: a failed download leaves a working environment.
$(VENV)/ready-gpu: $(VENV)/ready
	@$(PIP) download --dest $(VENV)/gpu --extra-index-url $(PADDLE_GPU_INDEX) \
	  paddlepaddle-gpu==$(PADDLE_VERSION) || { echo "error: setup: paddlepaddle-gpu $(PADDLE_VERSION) \
	cannot be fetched from $(PADDLE_GPU_INDEX); the CPU build stays installed. Name the index for your \
	CUDA version with PADDLE_GPU_INDEX=, see https://www.paddlepaddle.org.cn/install/quick" >&2; exit 1; }
	@rm -f $(VENV)/ready-cpu
	$(PIP) uninstall --yes paddlepaddle paddlepaddle-gpu
	$(PIP) install --no-index --find-links $(VENV)/gpu paddlepaddle-gpu==$(PADDLE_VERSION)
	@rm -rf $(VENV)/gpu && touch $@
