"""The pairs of classes that are confused most often."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stages.dataset.samples import ClassNames


def confused_pairs(counts: NDArray[np.int64], classes: ClassNames, most: int) -> pd.DataFrame:
    """The up to `most` pairs with the most mistakes, from a confusion matrix (100, 100).

    Columns: pair, class_a, class_b, a_as_b and b_as_a (images of one taken for the other), images
    (the sum of both), same_superclass. Pairs without a mistake are left out.
    """
    both = np.triu(counts + counts.T, k=1)
    order = np.argsort(-both, axis=None, kind="stable")[:most]
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
