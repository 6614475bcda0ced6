"""Numbers in the pages for readers are those of the committed files that they come from."""

import json
import re

import pandas as pd
import pytest

from benchmarks.bandwidth import table as bandwidth_table
from benchmarks.throughput import RESULTS
from cifar100.results.tables import HISTORY, INTERVALS
from tests.conftest import ROOT
from tools.comparison.recipes import read_stages

NETWORKS = {
    "resnet18-w64": "ResNet-18, width 64",
    "resnet18-w32": "ResNet-18, width 32",
    "resnet20-w16": "ResNet-20, width 16",
    "resnet50-w64": "ResNet-50, width 64",
}
WITH_SEEDS = "AMD EPYC (Zen 4)"  # the machine of the committed run and of docs/seeds.csv
IN_README = [
    "project",
    "paddle-stock",
    "pytorch-channels-last",
    "pytorch-channels-last-bfloat16",
]
IN_PERFORMANCE = [
    *("project", "project-float32", "project-one-thread", "paddle-stock", "paddle-onednn"),
    *("pytorch-eager", "pytorch-channels-last", "pytorch-channels-last-bfloat16"),
    "pytorch-compiled-bfloat16",
]


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def results() -> dict:
    return json.loads(page(str(RESULTS)))


@pytest.fixture(params=["2 cores of an Intel Xeon with AMX", "2 cores of an AMD EPYC (Zen 4)"])
def measured(request) -> tuple[dict, str]:
    """What the benchmark found on one of the machines, and the part of a page that tells it."""
    file = RESULTS if "Intel" in request.param else RESULTS.with_name("results-zen4.json")
    text = page("docs/performance.md").split(f"\n### {request.param}\n")[1]
    return json.loads(page(str(file))), re.split(r"\n##+ ", text)[0]


@pytest.fixture(scope="module")
def run() -> dict[str, str]:
    """What the committed run says of itself, as the pages write it."""
    metrics = json.loads(page("reports/metrics.json"))
    timing = json.loads(page("reports/timing.json"))
    intervals = pd.read_csv(ROOT / "reports" / INTERVALS.name).set_index("metric")
    stages = read_stages((ROOT / "dvc.lock").read_bytes(), "dvc.lock")
    params = stages["train"]["params"]["params.yaml"]
    return {
        "minutes": f"{timing['train_seconds'] / 60:.1f}",
        "epochs": str(params["epochs"]),
        "network": f"ResNet-{params['depth']}",
        "top1": f"{metrics['top1']:.2%}".replace("%", " %"),
        "top5": f"{metrics['top5']:.2%}".replace("%", " %"),
        "superclass": f"{metrics['superclass_top1']:.2%}".replace("%", " %"),
        "low": f"{intervals.loc['top1', 'low']:.1%}".removesuffix("%"),
        "high": f"{intervals.loc['top1', 'high']:.1%}".removesuffix("%"),
    }


@pytest.fixture(scope="module")
def full_runs() -> pd.DataFrame:
    """Trainings on the real data, the committed one first."""
    return pd.read_csv(ROOT / "docs/full_runs.csv")


def speed(value: float | None) -> str:
    """Images per second as the tables have them."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def rows_of(text: str, start: str) -> list[list[str]]:
    """The cells of the lines of a Markdown table that begin with `start`."""
    lines = [line for line in text.splitlines() if line.startswith(f"| {start}")]
    return [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize(
    ("name", "start", "brackets"),
    [
        ("README.md", "**`make repro`", "({low} to {high})"),
        ("README.zh-CN.md", "**`make repro`", "（{low}～{high}）"),
        ("docs/experiments.md", "**default**", "({low} to {high})"),
    ],
)
def test_result_is_that_of_the_committed_run(name, start, brackets, run):
    ((*cells,),) = rows_of(page(name), start)
    line = " | ".join(cells)
    for value in (run["minutes"], run["top1"], brackets.format(**run)):
        assert value in line
    if name.startswith("README"):
        for value in (run["network"], run["epochs"], run["top5"], run["superclass"]):
            assert value in line
        assert f"{run['minutes']} min" in page(name) or f"{run['minutes']} 分钟" in page(name)


def test_scores_of_seeds_are_those_of_their_table_and_of_full_runs(full_runs):
    top1 = pd.read_csv(ROOT / "docs/seeds.csv").set_index("metric").loc["top1"]
    seeds = [name for name in top1.index if name.startswith("seed")]
    own, *others = [f"{top1[name]:.2%}".removesuffix("%") for name in seeds]
    runs = full_runs[full_runs["machine"] == WITH_SEEDS].drop_duplicates("params")
    of_params = runs.fillna({"params": "seed=0"}).set_index("params")["test_top1"]
    for name in seeds:
        assert of_params[name.replace(" ", "=")] == top1[name]
    for name in ("README.md", "docs/experiments.md", "docs/reproducibility.md"):
        assert f"{', '.join([own, *others[:-1]])} and {others[-1]} %" in page(name)
        deviation = rf"standard deviation (of )?{100 * top1['sd']:.2f} points"
        assert re.search(deviation, page(name))
    assert all(f"{score} %" in page("README.zh-CN.md") for score in (own, *others))
    assert f"标准差 {100 * top1['sd']:.2f} 个百分点" in page("README.zh-CN.md")
    mean = f"{top1['mean']:.2%}".replace("%", " %")
    for name in ("README.md", "README.zh-CN.md", "docs/experiments.md", "docs/recipe.md"):
        assert mean in page(name)


def test_full_runs_are_those_of_their_table_and_of_the_committed_run(run, full_runs):
    committed = full_runs.iloc[0]
    assert f"{committed['train_seconds'] / 60:.1f}" == run["minutes"]
    assert f"{committed['test_top1']:.2%}".replace("%", " %") == run["top1"]
    history = pd.read_csv(ROOT / "reports" / HISTORY.name)
    assert history["val_top1"].iloc[-1] == committed["val_top1"]
    text = page("docs/recipe.md").split("## Full runs")[1].split("\n## ")[0]
    for row in full_runs.itertuples():
        scores = [f"{100 * score:.1f}" for score in (row.val_top1, row.train_top1, row.test_top1)]
        (line,) = (line for line in text.splitlines() if f"{row.train_seconds:,}" in line)
        assert line.endswith(f"| {' | '.join(scores)} |")
    is_default = full_runs["params"].isna() | full_runs["params"].str.startswith("seed")
    of_default = full_runs[is_default]
    for _, of_machine in of_default.groupby("machine"):
        minutes = of_machine["train_seconds"] / 60
        assert f"{minutes.min():.1f} to {minutes.max():.1f}" in page("README.md")
        assert f"{minutes.min():.1f}～{minutes.max():.1f}" in page("README.zh-CN.md")
    of_any = of_default["train_seconds"] / 60
    assert f"{of_any.min():.0f} to {of_any.max():.0f} minutes" in page("README.md")
    assert f"{of_any.min():.0f}～{of_any.max():.0f} 分钟" in page("README.zh-CN.md")


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md", "docs/experiments.md"])
def test_recipes_of_other_lengths_are_those_of_the_table_of_full_runs(name, full_runs):
    shown = 0
    for row in full_runs.dropna(subset="params").itertuples():
        command = " ".join(["dvc exp run", *(f"-S {change}" for change in row.params.split())])
        for line in page(name).splitlines():
            if line.startswith("|") and f"`{command}`" in line:
                minutes, top1 = f"{row.train_seconds / 60:.1f}", f"{row.test_top1:.2%}"
                assert minutes in line
                assert top1.replace("%", " %") in line
                shown += 1
    assert shown >= 1


def test_time_to_accuracy_is_that_of_its_table_and_of_a_full_run(full_runs):
    table = pd.read_csv(ROOT / "benchmarks/time_to_accuracy.csv")
    ends = table[table["split"] == "test"].set_index("runner")
    own, peer = ends.loc["project"], ends.loc["pytorch-cifar100"]
    default = full_runs[full_runs["params"].isna()]
    assert (f"{own['minutes']:.1f}", own["top1"]) in [
        (f"{row.train_seconds / 60:.1f}", row.test_top1) for row in default.itertuples()
    ]
    for name in ("README.md", "README.zh-CN.md"):
        assert f"{peer['top1']:.2%}".replace("%", " %") in page(name)
    text = page("docs/performance.md").split("## Time to accuracy")[1].split("\n## ")[0]
    for words in (
        f"After {own['minutes']:.1f} minutes the default had **{own['top1']:.2%}**",
        f"the peer {peer['top1']:.2%}",
        f"of which {peer['epoch']:.1f} fitted",
        f"in {own['precision']}",
    ):
        assert words.replace("%", " %") in text
    assert own["precision"] == peer["precision"]


def assert_speeds(text: str, results: dict, networks: list[str], runners: list[str]) -> None:
    medians = {
        (row["network"], row["runner"]): row["images_per_second"]["median"]
        for row in results["throughput"]
    }
    for network in networks:
        ((_, *cells),) = rows_of(text, f"{NETWORKS[network]} |")
        assert cells == [speed(medians.get((network, runner))) for runner in runners]


def test_speeds_in_the_readme_are_the_medians_of_the_benchmark(results):
    assert_speeds(page("README.md"), results, [n for n in NETWORKS if "50" not in n], IN_README)


def test_speeds_of_each_machine_are_the_medians_of_its_benchmark(measured):
    results, text = measured
    assert_speeds(text, results, list(NETWORKS), IN_PERFORMANCE)


def test_other_measures_of_speed_are_those_of_the_benchmark(measured):
    results, text = measured
    ratios = [results["ratios"][network]["project-one-thread"] for network in NETWORKS]
    assert re.findall(r"×(\d\.\d\d)", rows_of(text, "one thread → two")[0][1]) == [
        f"{ratio:.2f}" for ratio in ratios
    ]
    for start, runner in (
        ("PyTorch, channels_last, bfloat16", "pytorch-channels-last-bfloat16"),
        ("the same, compiled", "pytorch-compiled-bfloat16"),
        ("stock Paddle", "paddle-stock"),
    ):
        ((_, *cells),) = rows_of(text, f"{start} |")
        assert cells == [f"{results['ratios'][network][runner]:.2f}" for network in NETWORKS]
    evaluation = [results["evaluation"][network]["images_per_second"] for network in NETWORKS]
    assert rows_of(text, "evaluation with the mirror image")[0][1] == " / ".join(
        f"{each['median']:,.0f}" for each in evaluation
    )
    memory = [results["peak_memory_mib"][network] / 1024 for network in NETWORKS]
    assert rows_of(text, "peak memory of a training")[0][1] == (
        " / ".join(f"{each:.1f}" for each in memory) + " GiB"
    )
    stages = f"{sum(results['stages'].values()):.0f} s, of which *evaluate* "
    assert rows_of(text, "all other stages together")[0][1] == (
        f"{stages}{results['stages']['evaluate']:.0f} s"
    )


def test_scale_is_calculated_from_the_benchmark(results):
    speeds = {
        row["network"]: row["images_per_second"]["median"]
        for row in results["throughput"]
        if row["runner"] == "project"
    }
    text = page("docs/scale.md")
    for line in bandwidth_table(speeds, 128):
        assert line in text
