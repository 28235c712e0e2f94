"""The section `data` of the two data sets on which configurations are tried."""

from typing import Any

from maskjax.config import ConfigDict, part

# Of pixels, for inputs of images and of clips made of them.
DIGITS = dict(channels=1, mean=(0.305,), std=(0.376,))
CIFAR10 = dict(channels=3, mean=(0.491, 0.482, 0.447), std=(0.247, 0.243, 0.262))


def use_digits(c: ConfigDict, **image: Any) -> None:
    """Lets a configuration read the handwritten digits that scikit-learn has: 8 x 8 grey pixels.

    Args:
      c: the configuration; its `data` is changed.
      **image: arguments of `data.Image` besides size, channels, mean and std.

    Raises:
      UserError: `data.Image` has no such argument.
    """
    c.data.source = part("data.Digits")
    c.data.test_split = "test"
    c.data.inputs.image = part("data.Image", size=(8, 8), **DIGITS, **image)


def use_cifar10(c: ConfigDict, flip: bool = True) -> None:
    """Lets a configuration read CIFAR-10 from TFDS: 32 x 32 pixels, shifted by up to 4 of them.

    Args:
      c: the configuration; its `data` is changed.
      flip: whether half of the training images are mirrored.
    """
    c.data.source = part("data.TFDS", name="cifar10")
    c.data.test_split = "test"
    augment = part("data.Augment", crop="shift", shift=4, flip=flip)
    c.data.inputs.image = part("data.Image", size=(32, 32), augment=augment, **CIFAR10)
