"""Fills the template of reports/index.html: one page that needs no other file and no network."""

import base64
from pathlib import Path

import jinja2
import pandas as pd

TEMPLATE = Path(__file__).with_name("report.html.j2")


def render_report(
    metrics: dict[str, float],
    figures: list[tuple[str, str, Path]],
    per_class: pd.DataFrame,
    history: pd.DataFrame,
) -> str:
    """The page as HTML; `figures` are (title, how to read it, PNG file)."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        metrics=metrics,
        figures=[
            (title, hint, base64.b64encode(path.read_bytes()).decode("ascii"))
            for title, hint, path in figures
        ],
        classes=per_class.sort_values("top1", kind="stable").to_dict("records"),
        images=int(per_class["images"].sum()),
        last=history.iloc[-1].to_dict(),
    )
