"""DVC's plots of a training: one definition for the command line, the page and the extension."""

import json

import pandas as pd
import pytest

CURVES = {"Loss": ["train_loss", "val_loss"], "Top-1": ["train_top1", "val_top1"]}


def shown(workspace, *command: str) -> dict[str, list[dict]]:
    """The points of each plot of data that DVC draws, by the name of the plot."""
    output = workspace.run("dvc", "plots", *command, "--json", "--out", "dvc_plots")
    plots = json.loads(output[output.index("{") :])
    assert "errors" not in plots
    return {
        name: content["content"]["data"]["values"]
        for name, (content, *_) in plots["data"].items()
        if content["type"] == "vega"
    }


def check_curves(points: list[dict], columns: list[str], history: pd.DataFrame) -> None:
    table = pd.DataFrame(points).astype({"epoch": int, "dvc_inferred_y_value": float})
    found = table.pivot(index="epoch", columns="field", values="dvc_inferred_y_value")
    expected = history.set_index("epoch")[columns]
    pd.testing.assert_frame_equal(found, expected, check_names=False, check_index_type=False)


def test_training_and_validation_are_drawn_in_one_plot(workspace):
    plots = shown(workspace, "show")
    history = pd.read_csv(workspace.path / "reports/history.csv")
    for name, columns in CURVES.items():
        check_curves(plots[name], columns, history)
    (rates,) = (points for name, points in plots.items() if name.endswith("history.csv"))
    assert [float(point["lr"]) for point in rates] == pytest.approx(history["lr"].tolist())


@pytest.mark.slow
def test_curves_are_drawn_while_a_training_runs_beside_those_of_the_last_commit(workspace):
    workspace.set_params(epochs="40")
    before = pd.read_csv(workspace.path / "reports/history.csv")
    with workspace.training() as running:
        plots = shown(workspace, "diff", "HEAD", "workspace")
        assert running.poll() is None
    for name, columns in CURVES.items():
        of = {rev: [p for p in plots[name] if p["rev"] == rev] for rev in ("HEAD", "workspace")}
        check_curves(of["HEAD"], columns, before)
        epochs = {int(point["epoch"]) for point in of["workspace"]}
        assert 1 in epochs
        assert max(epochs) < 40
