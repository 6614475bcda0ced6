"""The card of a trained model: what it is for, how it was made, how good it is, what it cannot do.

Mitchell et al., "Model Cards for Model Reporting", https://arxiv.org/abs/1810.03993.
"""

import json
from pathlib import Path
from typing import Any

import jinja2
import yaml

from cifar100.results.scores import read_metrics
from cifar100.results.tables import (
    HISTORY,
    INTERVALS,
    PER_CLASS,
    SUMMARY,
    read_table,
    readable,
)

A_SUPERCLASS = "aquatic_mammals"  # of CIFAR-100; synthetic images have others
TEMPLATE = Path(__file__).with_name("model_card.md.j2")
FLOAT16 = "top-1 with float16 weights"


def model_card(
    models: Path,
    reports: Path,
    difference: float | None = None,
    float16_top1: float | None = None,
) -> str:
    """The card, as Markdown, of the network in `models` whose scores are in `reports`.

    It begins with a block of YAML that model hubs read. `difference`, the largest one between the
    logits of the network and of its ONNX form, is given for the card of `models`; `float16_top1`,
    measured on the test images with the weights of model.float16.safetensors, for that of
    `pretrained`, which has these alone.
    """
    description = json.loads((models / "model.json").read_text(encoding="utf-8"))
    network, training = description["network"], description["training"]
    name = f"ResNet-{network['depth']} of width {network['width']}"
    real = A_SUPERCLASS in description["classes"]["coarse"]
    metrics = read_metrics(reports)
    sizes = read_table(HISTORY, reports).groupby("image_size", sort=False)["epoch"].count()
    ranked = read_table(PER_CLASS, reports).sort_values("top1", kind="stable")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["readable"] = readable
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        front_matter=front_matter(name, network["depth"], real, metrics, float16_top1),
        name=name,
        real=real,
        network=network,
        training=training,
        temperature=description["temperature"],
        parameters=int(read_table(SUMMARY, models)["parameters"].iloc[-1]),
        sizes=sizes.to_dict(),
        metrics=metrics,
        interval=read_table(INTERVALS, reports).set_index("metric").loc["top1"].to_dict(),
        worst=ranked.head(5).to_dict("records"),
        difference=difference,
        float16_top1=float16_top1,
    )


def front_matter(
    name: str,
    depth: int,
    real: bool,
    metrics: dict[str, float],
    float16_top1: float | None,
) -> str:
    """What model hubs read, as YAML, with the fields of Hugging Face's.

    https://huggingface.co/docs/hub/model-cards#model-card-metadata
    """
    scores = {"top-1": metrics["top1"], "top-5": metrics["top5"]}
    if float16_top1 is not None:
        scores[FLOAT16] = float16_top1
    fields: dict[str, Any] = {
        "license": "apache-2.0",
        "library_name": "paddlepaddle",
        "pipeline_tag": "image-classification",
        "tags": ["paddlepaddle", "resnet", f"resnet{depth}", "cifar100" if real else "synthetic"],
        "datasets": ["cifar100"] if real else [],
        "metrics": ["accuracy"],
        "model-index": [
            {
                "name": name,
                "results": [
                    {
                        "task": {"type": "image-classification"},
                        "dataset": {
                            "name": "CIFAR-100" if real else "synthetic images",
                            "type": "cifar100" if real else "synthetic",
                            "split": "test",
                        },
                        "metrics": [
                            {"type": "accuracy", "name": title, "value": value}
                            for title, value in scores.items()
                        ],
                    }
                ],
            }
        ],
    }
    return yaml.safe_dump({key: value for key, value in fields.items() if value}, sort_keys=False)
