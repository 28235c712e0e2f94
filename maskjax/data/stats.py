"""Mean and standard deviation of the pixels of a data set."""

import numpy as np

from maskjax.data.pipeline import eval_batches
from maskjax.data.records import Records
from maskjax.data.spec import ImageSpec
from maskjax.errors import UserError


def channel_statistics(
    records: Records, image_size: tuple[int, int], channels: int, *, threads: int = 8
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Computes what `data.mean` and `data.std` of a configuration want.

    One pass over all records, each fitted to the size first. Unreadable records are left out. The
    sums are of integers, so the result does not depend on the order.

    Args:
      records: a split.
      image_size: height and width.
      channels: number of channels.
      threads: that decode.

    Returns:
      (mean, std), one float per channel, of pixels in [0, 1]; std is that of the population.

    Raises:
      UserError: no record can be read, or the channels cannot be converted.
    """
    spec = ImageSpec(tuple(image_size), channels, (0.0,) * channels, (1.0,) * channels)
    count = 0
    total = np.zeros(channels, np.int64)
    squares = np.zeros(channels, np.int64)
    batches = eval_batches(records, spec, batch_size=64, threads=threads, prefetch=128)
    with batches:
        for batch in batches:
            images = batch["image"][batch["_mask"]].reshape(-1, channels)
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
