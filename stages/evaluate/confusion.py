"""Confusion matrices, and the tables of classes and of pairs of classes that follow from them."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cifar100.dataset.samples import ClassNames


def confusion_matrix(
    actual: NDArray[np.int64], predicted: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """Counts (classes, classes): rows are the actual, columns the predicted classes."""
    return np.bincount(actual * classes + predicted, minlength=classes**2).reshape(classes, classes)


def superclass_matrix(counts: NDArray[np.int64], classes: ClassNames) -> NDArray[np.int64]:
    """Confusion (20, 20) of the superclasses, from that of the classes (100, 100)."""
    members = np.eye(len(classes.coarse), dtype=np.int64)[classes.coarse_of_fine]
    superclass_counts: NDArray[np.int64] = members.T @ counts @ members
    return superclass_counts


def class_table(
    counts: NDArray[np.int64], top5: NDArray[np.bool_], labels: NDArray[np.int64], names: ClassNames
) -> pd.DataFrame:
    """One row per class in the order of the labels, with the columns of `PER_CLASS`.

    `counts` is the confusion matrix (100, 100), `top5` (N,) says whether each of the labels (N,) is
    among the five best. recall is top1 by another name. precision is 0 for a class that is never
    predicted, f1 is 0 where precision and recall are. taken_for is the class that it is most often
    taken for, with the number of such images ('' and 0 without errors).
    """
    coarse_of_fine = np.array(names.coarse_of_fine)
    images, predictions, correct = counts.sum(axis=1), counts.sum(axis=0), np.diag(counts)
    relatives = coarse_of_fine[:, None] == coarse_of_fine
    errors = counts - np.diag(correct)
    rivals = errors.argmax(axis=1)
    recall = correct / np.maximum(images, 1)
    return pd.DataFrame(
        {
            "class": names.fine,
            "superclass": [names.coarse[i] for i in names.coarse_of_fine],
            "images": images,
            "top1": recall,
            "top5": np.bincount(labels, top5, len(images)) / np.maximum(images, 1),
            "superclass_top1": (counts * relatives).sum(axis=1) / np.maximum(images, 1),
            "precision": correct / np.maximum(predictions, 1),
            "recall": recall,
            "f1": 2 * correct / np.maximum(images + predictions, 1),
            "taken_for": [
                names.fine[rival] if errors[row, rival] else "" for row, rival in enumerate(rivals)
            ],
            "taken_for_images": errors.max(axis=1),
        }
    )


def confused_pairs(
    counts: NDArray[np.int64], classes: ClassNames, max_pairs: int = 20
) -> pd.DataFrame:
    """The pairs with the most errors, from a confusion matrix (100, 100), the worst first.

    Columns: pair, class_a, class_b, a_as_b and b_as_a (images of one taken for the other), images
    (the sum of both), same_superclass. Pairs without an error are left out.
    """
    both = np.triu(counts + counts.T, k=1)
    order = np.argsort(-both, axis=None, kind="stable")[:max_pairs]
    a, b = np.unravel_index(order[both.ravel()[order] > 0], both.shape)
    names, coarse_of_fine = np.array(classes.fine), np.array(classes.coarse_of_fine)
    return pd.DataFrame(
        {
            "pair": [f"{one} / {other}" for one, other in zip(names[a], names[b], strict=True)],
            "class_a": names[a],
            "class_b": names[b],
            "a_as_b": counts[a, b],
            "b_as_a": counts[b, a],
            "images": both[a, b],
            "same_superclass": coarse_of_fine[a] == coarse_of_fine[b],
        }
    )
