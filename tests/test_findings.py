"""What the report says first, on predictions whose mistakes are known."""

import numpy as np
import pytest

from cifar100.dataset.samples import Samples
from stages.render.findings import confusions, learned_nothing, next_steps, trust
from stages.render.training import numbers_of
from tests.test_figures import HISTORY, of_predictions

PARAMS = numbers_of({"lr": 0.1, "epochs": 10, "width": 16, "weight_decay": 5e-4})


def sure(predicted: np.ndarray, logit: float = 20.0) -> np.ndarray:
    """Logits (N, 100) of a network that says these classes (N,)."""
    logits = np.zeros((len(predicted), 100), np.float32)
    logits[np.arange(len(predicted)), predicted] = logit
    return logits


def commands(results, **params) -> list[str]:
    return [step.command for step in next_steps(results, PARAMS | params)]


@pytest.fixture
def many(classes) -> Samples:
    """50 images of each class."""
    labels = np.repeat(np.arange(100), 50)
    images = np.zeros((5000, 3, 32, 32), np.uint8)
    return Samples(images, labels, np.array(classes.coarse_of_fine)[labels], labels.astype("S"))


def test_confusions_name_pairs_with_their_direction_and_what_relates_them(many, classes):
    predicted = many.fine.copy()
    predicted[np.flatnonzero(many.fine == 7)[:20]] = 27  # of the same superclass; one way
    predicted[np.flatnonzero(many.fine == 3)[:6]] = 4  # of another one; both ways
    predicted[np.flatnonzero(many.fine == 4)[:5]] = 3
    told = " ".join(confusions(of_predictions(sure(predicted), many, classes)))
    assert "class 07 taken for class 27 (20 images); class 03 and class 04 (11 images)." in told
    assert "65% of the 31 errors stay inside the superclass, by chance it would be 4%" in told
    assert "Between superclasses most often: superclass 03 and superclass 04 (11 images)." in told
    predicted[np.flatnonzero(many.fine == 27)[:2]] = 7
    told = confusions(of_predictions(sure(predicted), many, classes))[0]
    assert "class 07 taken for class 27 (20 images, 2 the other way)" in told


def test_trust_names_the_probabilities_that_promise_too_much(many, classes):
    """Of the first 1,000 images, which get 61 %, 20 % are correct; all others 95 %, as they say."""
    predicted = many.fine.copy()
    predicted[:1000][np.arange(1000) % 5 > 0] = 99
    predicted[1000::20] += 1
    logits = sure(predicted % 100, 7.54)  # 95 %
    logits[:1000] *= 5.04 / 7.54  # 61 %
    told = trust(of_predictions(logits, many, classes, temperature=1.0))
    expected = "Above all between 60% and 67%: it says 61% on average and is correct on 20%"
    assert told[0] == f"{expected} (1,000 images)."
    assert told[1].startswith("200 of its 4,000 predictions above 90% are wrong, most often class ")
    assert " taken for class " in told[1]


def test_trust_claims_nothing_that_chance_explains(many, classes):
    predicted = many.fine.copy()
    predicted[np.arange(5000) % 20 == 0] += 1
    results = of_predictions(sure(predicted % 100, 7.54), many, classes, temperature=1.0)
    assert trust(results)[0] == "Nowhere by more than chance explains, after calibration."


def test_run_without_errors_has_no_confusions_and_is_told_to_save_time(many, classes):
    perfect = of_predictions(sure(many.fine), many, classes)
    assert confusions(perfect) == []
    assert "All of its 5,000 predictions above 90% are correct." in trust(perfect)
    assert commands(perfect) == ["dvc exp run -S width=8 -S epochs=5"]
    assert commands(perfect, width=1, epochs=1) == ["dvc exp run -S width=1 -S epochs=1"]


def test_run_that_learned_nothing_is_told_to_find_a_learning_rate(many, classes):
    results = of_predictions(sure(np.full(5000, 7), 0.1), many, classes)
    assert learned_nothing(results)
    assert confusions(results) == ["100% of the images are taken for class 07."]
    assert trust(results)[-1] == "It is never sure: its highest probability is 1%."
    assert commands(results) == ["python -m tools.lr_range", "dvc exp run -S lr=0.01"]


def test_next_steps_follow_the_curves(many, classes):
    predicted = many.fine.copy()
    predicted[::10] += 1
    results = of_predictions(sure(predicted % 100), many, classes)

    def after(train_top1: float, val_top1: float, **params) -> list[str]:
        last = HISTORY.assign(train_top1=train_top1, val_top1=val_top1)
        object.__setattr__(results, "history", last)
        return commands(results, **params)

    rates = "dvc exp run --queue -S 'lr=0.05,0.1,0.2' && dvc queue start"
    always = [rates, "python -m tools.seeds --count 3"]
    longer = ["dvc exp run -S epochs=20", "dvc exp run -S width=32"]
    assert after(0.9, 0.6) == ["dvc exp run -S epochs=20 -S cutmix=0.5", *always]
    assert after(0.9, 0.6, cutmix=0.5) == ["dvc exp run -S cutmix=0.75", *always]
    assert after(0.9, 0.6, cutmix=0.2, mixup=0.4) == ["dvc exp run -S cutmix=0.4", *always]
    assert after(0.6, 0.6, cutmix=0.5) == [*longer, *always]
    assert after(0.7, 0.65) == [*longer, *always]
    assert after(0.99, 0.98) == always
