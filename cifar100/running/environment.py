"""Sets and clears what a caller's shell would bring into a process, before anything is imported.

The same params give the same bytes, whatever the shell holds for other programs. What the settings
of this project are stands in params.yaml.
"""

import atexit
import io
import os
import shutil
import sys
import tempfile
import warnings

# By the beginnings of their names: what Paddle, its libraries and NumPy read at their import.
ENGINES = (
    *("OMP_", "KMP_", "GOMP_", "MKL_", "OPENBLAS_", "GOTO_", "BLIS_", "NPY_"),  # threads and BLAS
    *("ONEDNN_", "DNNL_", "FLAGS_", "NVIDIA_TF32_OVERRIDE"),  # kernels and arithmetic
    # What a cluster or an earlier job leaves in a shell, and Paddle would take for its own.
    *("PADDLE_", "DISTRIBUTED_TRAINER_ENDPOINTS", "TRAINER_", "TRAINING_ROLE", "POD_IP"),
    *("MASTER_ADDR", "MASTER_PORT", "COLLECTIVE_MASTER_IP"),
)
# Limit the instruction set, for tests and comparisons: it is printed and stored with the model.
KEPT = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
# What a process of this project does not want besides: plotting styles, a foreign malloc's checks.
STYLES = ("MPL", "MATPLOTLIB", "MALLOC_")
# Paddle warns of a missing ccache and the like: nothing that a user of this pipeline can act on.
WARNINGS = "ignore::UserWarning"
# Where Paddle and matplotlib make their caches, or else fail or warn.
CACHES = ("~/.cache/paddle/dataset", "~/.cache/matplotlib", "~/.config/matplotlib")


def clear_environment() -> None:
    """Make this process, and those that it starts, as if they had been started from a bare shell.

    For programs of this project: where it is used as a library the caller's plots stay his own.
    """
    clear_engine_variables()
    for name in [name for name in os.environ if name.startswith(STYLES)]:
        del os.environ[name]
    os.environ["MATPLOTLIBRC"] = os.devnull  # in the place of one in the home folder
    os.environ["LC_ALL"] = "C"  # the caller's language may not be installed; texts stay UTF-8
    if os.environ.get("PYTHONWARNINGS", WARNINGS) != WARNINGS:  # `error`: a hint would end a stage
        os.environ["PYTHONWARNINGS"] = WARNINGS
        warnings.resetwarnings()
        warnings.simplefilter("ignore")
    if not _is_home_usable():
        _move_home()
    _open_streams()


def clear_engine_variables() -> None:
    """Forget settings of threads, kernels, arithmetic and clusters: the params decide them here.

    What Paddle's launcher says to the processes of a training has to be read before.
    """
    for name in [name for name in os.environ if name.startswith(ENGINES)]:
        if name not in KEPT:
            del os.environ[name]


def _open_streams() -> None:
    """Have each text be written, to a terminal that is no UTF-8 and to streams that are closed.

    Otherwise the first file that a stage opens takes the number of a closed standard output, and
    what Paddle prints goes there.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", errors="backslashreplace"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            # By the line: a pipe that nothing reads any more is noticed while that can be told.
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
    atexit.register(_drop_unread)


def _drop_unread() -> None:
    """Drop what standard output does not take, which Python would report in its own words."""
    try:
        sys.stdout.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _is_home_usable() -> bool:
    """Whether there is a home folder in which the caches can be written, or made."""
    places = [os.path.expanduser(folder) for folder in ("~", *CACHES)]
    if os.environ.get("HOME") == "" or not os.path.isdir(places[0]):
        return False
    for place in places:
        while not os.path.lexists(place):
            place = os.path.dirname(place)
        if not (os.path.isdir(place) and os.access(place, os.W_OK | os.X_OK)):
            return False
    return True


def _move_home() -> None:
    """Give this process an empty home, in the place of one that is missing or not its own."""
    try:
        home = tempfile.mkdtemp(prefix="cifar100-home-")
    except OSError:
        return  # what needs a home says so
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    os.environ["HOME"] = home
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        os.environ.pop(name, None)
