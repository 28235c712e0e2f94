"""Mean and standard deviation of the values of an input."""

import numpy as np

from maskjax.data.inputs import Input
from maskjax.data.pipeline import eval_batches
from maskjax.data.records import Records
from maskjax.errors import UserError


def channel_statistics(
    records: Records, name: str, each: Input, *, threads: int = 8
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Computes what `mean` and `std` of an input of pixels want.

    One pass over all records, each fitted to the size first. Unreadable records are left out. The
    sums are of integers, so the result does not depend on the order.

    Args:
      records: a split.
      name: of the input.
      each: the input; its batches are uint8 [B, ..., C]. Its own mean and std have no influence.
      threads: that decode.

    Returns:
      (mean, std), one float per channel, of pixels in [0, 1]; std is that of the population.

    Raises:
      UserError: no record can be read, the channels cannot be converted, or it has no pixels.
    """
    if each.dtype != np.uint8:
        raise UserError(f"The input '{name}' has no pixels, so there are no statistics of them.")
    channels = each.channels
    count = 0
    total = np.zeros(channels, np.int64)
    squares = np.zeros(channels, np.int64)
    batches = eval_batches(records, {name: each}, batch_size=64, threads=threads, prefetch=128)
    with batches:
        for batch in batches:
            images = batch[name][batch["_mask"]].reshape(-1, channels)
            count += len(images)
            for channel in range(channels):
                levels = np.bincount(images[:, channel], minlength=256)
                total[channel] += levels @ np.arange(256)
                squares[channel] += levels @ np.arange(256) ** 2
    if not count:
        raise UserError("No record of the data set can be read, so there are no statistics of it.")
    mean = total / count
    # Integers of Python: the numerator exceeds 64 bits for large data sets and would cancel in
    # floating point.
    variance = [
        (int(s) * count - int(t) ** 2) / count**2 for t, s in zip(total, squares, strict=True)
    ]
    return tuple((mean / 255).tolist()), tuple((np.sqrt(variance) / 255).tolist())
