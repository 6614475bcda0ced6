"""One look for all figures, and how they are written: the same input gives the same bytes."""

from pathlib import Path

import matplotlib

matplotlib.use("agg")
# In the place of the user's own style; `rcdefaults` would read the other styles in his folder.
matplotlib.rcParams.update({k: v for k, v in matplotlib.rcParamsDefault.items() if k != "backend"})

from matplotlib.figure import Figure

from cifar100.running.outputs import replacing

# Okabe and Ito's palette, which stays distinct for all common kinds of colour blindness.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"

RULES = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches."""
    with matplotlib.rc_context(RULES):
        return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, path: Path, dpi: int) -> None:
    """Write `figure` as PNG, without the date and the program version in it."""
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=dpi, metadata={"Software": None})
