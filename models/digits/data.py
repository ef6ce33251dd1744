"""The 1797 handwritten digits that ship inside scikit-learn, in a fixed split."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pyserve.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HELD_OUT_FRACTION = 0.2
_SPLIT_SEED = 0


class DigitsSplit(NamedTuple):
    """Images are FP32 [n, 1, 8, 8] from 0 to 1, labels INT64 [n] from 0 to 9."""

    train_images: NDArray[np.float32]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.float32]
    test_labels: NDArray[np.int64]


def load_digits_split() -> DigitsSplit:
    """The digits, a fifth of each class held out; the same split on every machine.

    Raises ConfigError where scikit-learn is not installed.
    """
    try:
        import numpy as np
        from sklearn.datasets import load_digits
    except ImportError:
        raise ConfigError(
            "the digits come with scikit-learn: pip install scikit-learn, then try again"
        ) from None
    pixels, labels = load_digits(return_X_y=True)
    images = (np.asarray(pixels, dtype=np.float32) / 16.0).reshape(-1, 1, 8, 8)
    labels = np.asarray(labels, dtype=np.int64)

    random = np.random.Generator(np.random.PCG64(_SPLIT_SEED))
    held_out = np.zeros(len(labels), dtype=bool)
    for digit in range(10):
        members = np.flatnonzero(labels == digit)
        count = round(len(members) * HELD_OUT_FRACTION)
        held_out[random.permutation(members)[:count]] = True
    return DigitsSplit(images[~held_out], labels[~held_out], images[held_out], labels[held_out])
