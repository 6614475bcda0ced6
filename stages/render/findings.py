"""What the report says first: which classes are confused, where it is too sure, what to try."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cifar100.results.scores import CONFIDENT
from cifar100.results.tables import readable
from stages.render.results import Results, images_in_words

SHOWN_PAIRS = 3
MANY = 20  # errors from which their shares say something
RELATED = 3  # times chance from which errors within superclasses say something
CHANCE = 4 / 99  # share of errors within the superclass of a network that guesses
ONE_SIDED = 3  # times as many errors one way as the other
ONE_PREDICTION = 0.1  # share of all predictions from which one class is too frequent
DEVIATIONS = 3  # standard ones, from which a gap is more than chance: there are many bins
MEMORISED = 0.15  # lead of the training accuracy from which a network learned images by heart
SOLVED = 0.97  # validation accuracy from which a longer training gains little


@dataclass(frozen=True)
class Step:
    """Something to try next: why, and the command."""

    reason: str
    command: str


def confusions(results: Results) -> list[str]:
    """Sentences about which classes are confused, and why; none for a run without errors."""
    if learned_nothing(results):
        return _frequent_prediction(results)
    pairs = results.scores.confused_pairs.head(SHOWN_PAIRS).to_dict("records")
    if not pairs:
        return []
    sentences = [f"Most often confused: {'; '.join(map(_pair, pairs))}."]
    share = results.scores.metrics["errors_in_superclass"]
    if results.errors >= MANY and share >= RELATED * CHANCE:
        sentences.append(
            f"{share:.0%} of the {results.errors:,} errors stay inside the superclass, by chance "
            f"it would be {CHANCE:.0%}: it confuses relatives."
        )
    between = _superclasses(results)
    if between:
        sentences.append(f"Between superclasses most often: {between}.")
    return sentences


def _frequent_prediction(results: Results) -> list[str]:
    """What a network says that learned nothing."""
    counts = results.class_counts.sum(axis=0)
    share = counts.max() / counts.sum()
    name = readable(results.classes.fine[counts.argmax()])
    return [f"{share:.0%} of the images are taken for {name}."] if share >= ONE_PREDICTION else []


def _pair(pair: dict[Any, Any]) -> str:
    a, b = readable(pair["class_a"]), readable(pair["class_b"])
    forth, back = pair["a_as_b"], pair["b_as_a"]
    if forth < back:
        a, b, forth, back = b, a, back, forth
    if forth >= ONE_SIDED * max(back, 1):
        other_way = f", {back} the other way" if back else ""
        return f"{a} taken for {b} ({images_in_words(forth)}{other_way})"
    return f"{a} and {b} ({images_in_words(forth + back)})"


def _superclasses(results: Results) -> str:
    """The pairs of superclasses with the most errors between them; '' if none has two."""
    both = np.triu(results.superclass_counts + results.superclass_counts.T, k=1)
    names = [*map(readable, results.classes.coarse)]
    found = []
    for place in np.argsort(-both, axis=None, kind="stable")[:SHOWN_PAIRS]:
        a, b = np.unravel_index(place, both.shape)
        count = int(both[a, b])
        if count > 1:
            found.append(f"{names[a]} and {names[b]} ({images_in_words(count)})")
    return "; ".join(found)


def trust(results: Results) -> list[str]:
    """Sentences about where the network is too sure, in its calibrated probabilities."""
    table = results.scores.reliability
    bins = table[table["calibrated"] & (table["images"] > 0)]
    spread = np.sqrt(bins["confidence"] * (1 - bins["confidence"]) / bins["images"])
    excess = bins["confidence"] - bins["top1"]
    bad = bins.assign(weight=excess * bins["images"])[excess > DEVIATIONS * spread]
    sentences = ["Nowhere by more than chance explains, after calibration."]
    if not bad.empty:
        worst = bad.loc[bad["weight"].idxmax()]
        sentences = [
            f"Above all between {worst['from']:.0%} and {worst['to']:.0%}: it says "
            f"{worst['confidence']:.0%} on average and is correct on {worst['top1']:.0%} "
            f"({images_in_words(int(worst['images']))})."
        ]
    sure = results.predictions.confidence > CONFIDENT
    wrong = np.flatnonzero(sure & results.wrong)
    if len(wrong):
        part = f"{len(wrong):,} of its {sure.sum():,} predictions above {CONFIDENT:.0%} are wrong"
        sentences.append(f"{part}{_habit(results, wrong)}.")
    elif sure.any():
        sentences.append(
            f"All of its {sure.sum():,} predictions above {CONFIDENT:.0%} are correct."
        )
    else:
        highest = results.predictions.confidence.max()
        sentences.append(f"It is never sure: its highest probability is {highest:.0%}.")
    return sentences


def _habit(results: Results, rows: NDArray[np.int64]) -> str:
    """The commonest of these errors, as the end of a sentence; '' if none happened twice."""
    predictions = results.predictions
    cells = Counter(zip(predictions.labels[rows], predictions.predicted[rows], strict=True))
    ((actual, predicted), count) = cells.most_common(1)[0]
    one, other = (readable(results.classes.fine[label]) for label in (actual, predicted))
    return f", most often {one} taken for {other} ({count})" if count > 1 else ""


def next_steps(results: Results, params: dict[str, int | float]) -> list[Step]:
    """What to try next, the most promising first.

    `params` are those of the training that are numbers.
    """
    lr, epochs, width = params["lr"], params["epochs"], params["width"]
    rates = Step(
        "The learning rate decides most: half and double of it, and a comparison with intervals.",
        f"dvc exp run --queue -S 'lr={lr / 2:g},{lr:g},{lr * 2:g}' && dvc queue start",
    )
    if learned_nothing(results):
        return [
            Step("It learned nothing: find a learning rate first.", "python -m tools.lr_range"),
            Step("Or try a tenth of it.", f"dvc exp run -S lr={lr / 10:g}"),
        ]
    if not results.errors:
        smaller = f"dvc exp run -S width={max(1, width // 2)} -S epochs={max(1, epochs // 2)}"
        return [Step("Nothing is left to gain: a smaller or shorter training may do.", smaller)]
    top1 = results.scores.intervals.set_index("metric").loc["top1"]
    half = 100 * (top1["high"] - top1["low"]) / 2
    seeds = Step(
        f"Differences below {half:.1f} points may be the choice of test images, and another seed "
        "changes the score too: see by how much.",
        "python -m tools.seeds --count 3",
    )
    return [*_after_training(results, params), rates, seeds]


def _after_training(results: Results, params: dict[str, int | float]) -> list[Step]:
    """What the accuracies on training and validation images suggest."""
    last = results.history.iloc[-1]
    mixed = params["mixup"] + params["cutmix"]  # share of the batches
    known = f"{last['train_top1']:.0%} of the training images"
    new = f"{last['val_top1']:.0%} of the validation images"
    longer = f"dvc exp run -S epochs={2 * params['epochs']}"
    if last["train_top1"] - last["val_top1"] > MEMORISED:
        by_heart = f"It is correct on {known} and on {new} only: it learned images by heart"
        if not mixed:
            reason = f"{by_heart}. CutMix works against that, and needs a longer training."
            return [Step(reason, f"{longer} -S cutmix=0.5")]
        if mixed >= 1:
            return []  # there is nothing more to mix
        reason = f"{by_heart}, although {mixed:.0%} of the batches are mixed: mix more of them."
        cutmix = params["cutmix"] + (1 - mixed) / 2
        return [Step(reason, f"dvc exp run -S cutmix={cutmix:g}")]
    if last["val_top1"] >= SOLVED:
        return []
    reason = f"It is correct on {known} and on {new}, so it did not learn them by heart"
    if mixed:
        reason = f"Mixed images keep it from learning by heart ({new})"
    return [
        Step(f"{reason}: a longer training may help.", longer),
        Step("So may a wider network.", f"dvc exp run -S width={2 * params['width']}"),
    ]


def learned_nothing(results: Results) -> bool:
    """Whether the network may be no better than chance."""
    top1 = results.scores.intervals.set_index("metric").loc["top1"]
    return bool(top1["low"] <= 1 / len(results.classes.fine))
