"""Intersection over union of predicted and true maps of classes."""

import numpy as np


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts pixels by true and predicted class.

    Args:
      truth: integers of any shape; those that are not in [0, classes) do not count.
      predicted: integers of the same shape in [0, classes).
      classes: C.

    Returns:
      int64 [C, C], [true, predicted].
    """
    counts = (truth >= 0) & (truth < classes)
    pairs = truth[counts].astype(np.int64) * classes + predicted[counts]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def overlap(counts: np.ndarray) -> dict[str, float]:
    """Returns the usual figures of segmentation, over all pixels of all images together.

    Args:
      counts: int [C, C] from `confusion`, of at least one pixel.

    Returns:
      miou: mean over the classes of pixels in both truth and prediction, divided by those in
        either (PASCAL VOC); classes that occur in neither are left out.
      pixel_accuracy: share of the pixels that are right.
      class_accuracy: mean over the classes that occur of the share of their pixels that is right.
    """
    both, true, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    either = true + predicted - both
    return {
        "miou": float((both[either > 0] / either[either > 0]).mean()),
        "pixel_accuracy": float(both.sum() / counts.sum()),
        "class_accuracy": float((both[true > 0] / true[true > 0]).mean()),
    }
