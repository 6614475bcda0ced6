"""Compares revisions or experiments: `python -m tools.compare main exp-a exp-b`."""

import argparse
from pathlib import Path

import numpy as np

from cifar100.running.errors import PipelineError
from cifar100.running.guard import run_command
from stages.render.curves import compared_curves
from stages.render.style import save_figure
from tools.comparison.param_curve import (
    SCORES,
    curve_figure,
    curve_over,
    differing_params,
    verdict,
    why_no_curve,
)
from tools.comparison.revisions import WORKSPACE, Revision, load_class_names, load_revision
from tools.comparison.tables import class_differences, metric_differences

OUTPUT = Path("comparison")
SHOWN_CLASSES = 5  # that gained most, and that lost most


def main() -> None:
    """Print a table for each revision against the first one; draw the curves of all.

    If they differ in one number alone, draw a score over it too, and name the best value.
    """
    parser = argparse.ArgumentParser(prog="python -m tools.compare", description=__doc__)
    parser.add_argument("base", help="a branch, tag, commit or experiment")
    parser.add_argument(
        "others", nargs="*", default=[WORKSPACE], help=f"more of them; default: {WORKSPACE}"
    )
    parser.add_argument(
        "--score", choices=SCORES, default="top1", help="to draw over a param; default: top1"
    )
    options = parser.parse_args()
    classes = load_class_names(options.base)
    base, *others = (load_revision(name, classes) for name in (options.base, *options.others))
    for other in others:
        if not np.array_equal(base.predictions.labels, other.predictions.labels):
            raise PipelineError(f"{other.name}: was scored on other test images than {base.name}")
        table = metric_differences(base, other)
        print(f"\n{other.name} against {base.name}")
        print(table.to_string(index=False, na_rep="", float_format="{:.4f}".format))
        changed = class_differences(base, other, classes)
        print(f"\nclasses that gained or lost most in {other.name}")
        print(
            changed.iloc[[*range(SHOWN_CLASSES), *range(-SHOWN_CLASSES, 0)]].to_string(
                index=False,
                float_format="{:.2f}".format,
                formatters={"difference": "{:+.2f}".format},
            )
        )
    runs = [base, *others]
    path = OUTPUT / "curves.png"
    save_figure(compared_curves({run.name: run.history for run in runs}), path, dpi=110)
    print(f"\ncurves: {path}")
    show_score_over_param(runs, options.score)
    if different := [run.name for run in others if run.code != base.code]:
        print(f"made by other code than {base.name}: {', '.join(different)}")


def show_score_over_param(runs: list[Revision], score: str) -> None:
    """Print and draw the score over the param that makes the difference, or say why not."""
    names = differing_params(runs)
    reason = why_no_curve(names, runs)
    if reason:
        print(f"no chart of {score} over a param: {reason}")
        return
    curve = curve_over(names[0], score, runs)
    path = OUTPUT / f"{score}_over_{names[0]}.png"
    save_figure(curve_figure(curve), path, dpi=110)
    print(f"\n{score} over {names[0]}, and how much worse than the best one (95 % interval)")
    print(curve.to_string(index=False, formatters={names[0]: "{:g}".format}, float_format="%.4f"))
    print(f"{verdict(curve)}\nchart: {path}")


if __name__ == "__main__":
    run_command("compare", main)
