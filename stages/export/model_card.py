"""The card of a trained model: what it is for, how it was made, how good it is, what it cannot do.

Mitchell et al., "Model Cards for Model Reporting", https://arxiv.org/abs/1810.03993.
"""

from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from cifar100.results.tables import readable

TEMPLATE = Path(__file__).with_name("model_card.md.j2")


def model_card(
    description: dict[str, Any],
    parameters: int,
    history: pd.DataFrame,
    metrics: dict[str, float],
    intervals: pd.DataFrame,
    per_class: pd.DataFrame,
    difference: float,
) -> str:
    """The card as Markdown, with the numbers of the run.

    `description` is that of models/model.json, `difference` the largest one between the logits of
    the network and of its ONNX form; the tables are those in reports/.
    """
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["readable"] = readable
    ranked = per_class.sort_values("top1", kind="stable")
    sizes = history.groupby("image_size", sort=False)["epoch"].count()
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        network=description["network"],
        training=description["training"],
        temperature=description["temperature"],
        parameters=parameters,
        sizes=sizes.to_dict(),
        metrics=metrics,
        interval=intervals.set_index("metric").loc["top1"].to_dict(),
        worst=ranked.head(5).to_dict("records"),
        difference=difference,
    )
