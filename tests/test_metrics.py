import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

from cifar100.results.predictions import (
    Predictions,
    load_predictions,
    probabilities_of,
    save_predictions,
)
from cifar100.results.scores import METRICS, read_metrics, read_scores, write_scores
from cifar100.results.tables import confusion_counts
from cifar100.running.errors import PipelineError
from stages.evaluate import metrics
from stages.evaluate.confusion import confused_pairs, superclass_matrix
from stages.evaluate.confusion import confusion_matrix as counts_of
from stages.evaluate.intervals import bootstrap_interval, interval_table
from stages.evaluate.scoring import score


@pytest.fixture
def scored() -> tuple[np.ndarray, np.ndarray]:
    """Logits of 2,000 images, about half of them predicted correctly, and their labels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 100, 2000)
    logits = rng.normal(0, 1, (2000, 100)).astype(np.float32)
    logits[np.arange(2000), labels] += rng.choice([0, 4], 2000)
    return logits, labels


def test_scores_equal_scikit_learns(scored, classes):
    logits, labels = scored
    coarse = np.array(classes.coarse_of_fine)
    scores = metrics.scores_per_image(logits, labels, coarse)
    found = {name: values.mean() for name, values in scores.items()}
    predicted = logits.argmax(1)
    names = np.arange(100)
    probabilities = probabilities_of(logits, 1)
    assert found["top1"] == pytest.approx(accuracy_score(labels, predicted))
    assert found["top5"] == pytest.approx(top_k_accuracy_score(labels, logits, k=5, labels=names))
    superclass = accuracy_score(coarse[labels], coarse[predicted])
    assert found["superclass_top1"] == pytest.approx(superclass)
    assert found["loss"] == pytest.approx(log_loss(labels, probabilities, labels=names))
    summed = np.stack([probabilities[:, coarse == i].sum(1) for i in range(20)], axis=1)
    expected = top_k_accuracy_score(coarse[labels], summed, k=1, labels=np.arange(20))
    assert found["superclass_top1_summed"] == pytest.approx(expected)
    errors = predicted != labels
    assert metrics.errors_in_superclass(scores) == pytest.approx(
        accuracy_score(coarse[labels[errors]], coarse[predicted[errors]])
    )


def test_reliability_equals_scikit_learns(scored):
    logits, labels = scored
    probabilities = probabilities_of(logits, 1)
    correct = probabilities.argmax(1) == labels
    expected = calibration_curve(correct, probabilities.max(1), n_bins=15)
    table = metrics.reliability(probabilities, labels, 15)
    assert table["images"].sum() == len(labels)
    filled = table[table["images"] > 0]
    np.testing.assert_allclose(filled["top1"], expected[0])
    np.testing.assert_allclose(filled["confidence"], expected[1])


def test_bootstrap_interval_is_that_of_the_binomial_distribution():
    """With 0 and 1 the resampled mean is a binomial share."""
    values = np.repeat([1.0, 0.0], [700, 300])
    expected = np.array(binom.interval(0.95, 1000, 0.7)) / 1000
    np.testing.assert_allclose(bootstrap_interval(values, resamples=4000), expected, atol=0.003)
    assert bootstrap_interval(np.ones(50)) == (1, 1)


def test_intervals_have_a_row_per_metric(scored, classes):
    scores = metrics.scores_per_image(*scored, np.array(classes.coarse_of_fine))
    table = interval_table(scores)
    assert list(table["metric"]) == list(scores)
    assert (table["low"] < table["value"]).all()
    assert (table["value"] < table["high"]).all()


def test_confusion_matrices_equal_scikit_learns(scored, classes):
    logits, labels = scored
    predicted = logits.argmax(1)
    found = counts_of(labels, predicted, 100)
    np.testing.assert_array_equal(found, confusion_matrix(labels, predicted))
    coarse = np.array(classes.coarse_of_fine)
    expected = confusion_matrix(coarse[labels], coarse[predicted])
    np.testing.assert_array_equal(superclass_matrix(found, classes), expected)


def test_calibration_error_of_a_case_computed_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    labels = np.array([0, 1, 0, 0])
    # The bin around 0.9 is half correct (gap 0.4), the bin around 0.6 is all correct (gap 0.4).
    table = metrics.reliability(probabilities, labels, bins=10)
    assert metrics.expected_calibration_error(table) == pytest.approx(0.4)
    certain = metrics.reliability(np.array([[1.0, 0.0]]), np.array([0]), bins=10)
    assert metrics.expected_calibration_error(certain) == 0


def test_huge_logits_give_finite_scores():
    logits = np.array([[1e4, -1e4], [-1e4, 1e4]], np.float32)
    labels = np.array([0, 0])
    np.testing.assert_allclose(metrics.losses(logits, labels), [0, 2e4])
    np.testing.assert_array_equal(probabilities_of(logits, 1), [[1, 0], [0, 1]])


def test_no_error_at_all_is_no_division_by_zero(classes):
    logits = np.eye(100, dtype=np.float32)
    scores = metrics.scores_per_image(logits, np.arange(100), np.array(classes.coarse_of_fine))
    assert (scores["top1"].mean(), metrics.errors_in_superclass(scores)) == (1, 0)


@pytest.fixture
def lopsided(scored) -> Predictions:
    """Predictions in which class 3 is never predicted, and class 7 is never correct."""
    logits, labels = scored[0].copy(), scored[1]
    logits[:, 3] = -100
    logits[labels == 7, 7] = -100
    return Predictions(logits, labels, 0.8)


def test_per_class_scores_equal_scikit_learns(lopsided, classes):
    labels, predicted = lopsided.labels, lopsided.predicted
    found = score(lopsided, classes, 15)
    table = found.per_class
    precision, recall, f1, images = precision_recall_fscore_support(
        labels, predicted, labels=range(100), zero_division=0
    )
    assert (predicted == 3).sum() == 0
    assert table["precision"][3] == table["f1"][3] == table["f1"][7] == 0
    np.testing.assert_allclose(table["precision"], precision)
    np.testing.assert_allclose(table["recall"], recall)
    np.testing.assert_allclose(table["top1"], recall)
    np.testing.assert_allclose(table["f1"], f1)
    np.testing.assert_array_equal(table["images"], images)
    expected = f1_score(labels, predicted, labels=range(100), average="macro", zero_division=0)
    assert found.metrics["macro_f1"] == pytest.approx(expected)


def test_class_table_has_a_row_per_class(scored, classes):
    logits, labels = scored
    table = score(Predictions(logits, labels, 1.0), classes, 15).per_class
    assert list(table["class"]) == classes.fine
    assert table["images"].sum() == 2000
    row = table.iloc[42]
    mine = labels == 42
    predicted = logits.argmax(1)[mine]
    assert row["top1"] == pytest.approx((predicted == 42).mean())
    in_top5 = (np.argsort(-logits[mine], axis=1)[:, :5] == 42).any(axis=1)
    assert row["top5"] == pytest.approx(in_top5.mean())
    assert row["superclass_top1"] == pytest.approx((predicted % 20 == 2).mean())
    assert row["superclass"] == "superclass 02"
    others = np.bincount(predicted[predicted != 42], minlength=100)
    assert row["taken_for_images"] == others.max()
    assert row["taken_for"] == classes.fine[others.argmax()]


def test_class_without_errors_is_taken_for_nothing(classes):
    perfect = Predictions(np.eye(100, dtype=np.float32), np.arange(100), 1.0)
    found = score(perfect, classes, 15)
    assert (found.per_class["taken_for"] == "").all()
    assert (found.per_class[["precision", "recall", "f1"]] == 1).all(axis=None)
    assert found.confused_pairs.empty


def test_every_score_comes_from_the_same_predictions(lopsided, classes):
    """Metrics, both confusions, pairs and reliability agree with what the logits say."""
    found = score(lopsided, classes, 15)
    labels, predicted = lopsided.labels, lopsided.predicted
    counts = confusion_counts(found.class_confusion, classes.fine)
    np.testing.assert_array_equal(counts, confusion_matrix(labels, predicted, labels=range(100)))
    superclasses = confusion_counts(found.superclass_confusion, classes.coarse)
    np.testing.assert_array_equal(superclasses, superclass_matrix(counts, classes))
    assert found.metrics["top1"] == pytest.approx(np.trace(counts) / 2000)
    assert found.metrics["superclass_top1"] == pytest.approx(np.trace(superclasses) / 2000)
    worst = counts + counts.T - 2 * np.diag(np.diag(counts))
    assert found.confused_pairs["images"][0] == worst.max()
    assert found.confused_pairs["images"].is_monotonic_decreasing
    for calibrated, name in ((False, "calibration_error"), (True, "calibrated_error")):
        rows = found.reliability[found.reliability["calibrated"] == calibrated]
        assert len(rows) == 15
        assert found.metrics[name] == metrics.expected_calibration_error(rows)
    sure = lopsided.probabilities.max(1) > 0.9
    expected = 1 - accuracy_score(labels[sure], predicted[sure])
    assert found.metrics["confident_errors"] == pytest.approx(expected * sure.mean())


def test_scores_survive_a_round_trip(tmp_path, lopsided, classes):
    for name in ("one", "two"):
        write_scores(score(lopsided, classes, 15), tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    written, found = score(lopsided, classes, 15), read_scores(tmp_path / "one")
    assert tuple(found.metrics) == METRICS
    assert found.metrics == pytest.approx(written.metrics, abs=5e-6)
    for field in vars(found).keys() - {"metrics"}:
        pd.testing.assert_frame_equal(
            getattr(found, field), getattr(written, field), check_exact=False, atol=5e-5, rtol=0
        )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "not the metrics of a run"),
        ("[]", "not the metrics of a run"),
        ("[" * 100_000, "not the metrics of a run"),
        ('{"top1": 0.7}', "has no metric top5"),
        (json.dumps(dict.fromkeys(METRICS, "much")), "not the metrics of a run"),
        (json.dumps(dict.fromkeys(METRICS)), "not the metrics of a run"),
        (json.dumps(dict.fromkeys(METRICS, float("nan"))), "expected finite metrics"),
    ],
)
def test_damaged_metrics_are_refused_in_one_line(tmp_path, content, reason):
    with pytest.raises(PipelineError, match=r"metrics\.json: not found; run `dvc repro`"):
        read_metrics(tmp_path)
    (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(PipelineError, match=rf"^\S+metrics\.json: {reason}.*$"):
        read_metrics(tmp_path)


def test_pairs_are_those_with_the_most_errors(classes):
    counts = np.diag(np.full(100, 50))
    counts[3, 7], counts[7, 3], counts[0, 20], counts[9, 8] = 4, 5, 6, 1
    found = confused_pairs(counts, classes, max_pairs=2).to_dict("list")
    assert found == {
        "pair": ["class 03 / class 07", "class 00 / class 20"],
        "class_a": ["class 03", "class 00"],
        "class_b": ["class 07", "class 20"],
        "a_as_b": [4, 6],
        "b_as_a": [5, 0],
        "images": [9, 6],
        "same_superclass": [False, True],
    }
    assert len(confused_pairs(counts, classes, max_pairs=20)) == 3
    assert confused_pairs(np.diag(np.full(100, 50)), classes, max_pairs=20).empty


def test_predictions_survive_a_round_trip(tmp_path, scored):
    path = tmp_path / "test.npz"
    save_predictions(path, Predictions(*scored, 0.8))
    found = load_predictions(path)
    np.testing.assert_array_equal(found.logits, scored[0])
    np.testing.assert_array_equal(found.labels, scored[1])
    assert found.temperature == 0.8


def test_damaged_predictions_are_refused(tmp_path, scored):
    path = tmp_path / "test.npz"
    with pytest.raises(PipelineError, match="not found"):
        load_predictions(path)
    path.write_bytes(b"broken")
    with pytest.raises(PipelineError, match="not predictions"):
        load_predictions(path)
    logits, labels = scored
    for bad, reason in [
        (Predictions(np.full_like(logits, np.nan), labels, 1.0), "finite"),
        (Predictions(logits[:, :99], labels, 1.0), "of shape"),
        (Predictions(logits, labels + 1, 1.0), "labels from 0 to 99"),
        (Predictions(logits, labels, -1.0), "temperature"),
    ]:
        save_predictions(path, bad)
        with pytest.raises(PipelineError, match=reason):
            load_predictions(path)


@pytest.mark.parametrize("kind", ["compressed", "objects", "missing"])
def test_arrays_of_other_kinds_are_refused(tmp_path, kind):
    """A file that would grow when it is unpacked, one that would run code, and a part of one."""
    path, trace = tmp_path / "test.npz", tmp_path / "trace"

    class Hostile:
        def __reduce__(self):
            return trace.touch, ()

    if kind == "compressed":
        np.savez_compressed(path, logits=np.zeros((10_000, 100), np.float32))
    elif kind == "objects":
        np.savez(path, logits=np.array([Hostile()], dtype=object), labels=np.zeros(1))
    else:
        np.savez(path, labels=np.zeros(1))
    with pytest.raises(
        PipelineError, match=r"test\.npz: not predictions of this pipeline \("
    ) as caught:
        load_predictions(path)
    assert "\n" not in str(caught.value)
    assert not trace.exists()
