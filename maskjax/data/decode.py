"""From the bytes of one image to an array, and from any array to the size and channels wanted."""

import io

import numpy as np
from PIL import Image

from maskjax.errors import UserError

# Value of the EXIF tag `Orientation` -> what turns the stored pixels upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112


def decode_image(data: bytes) -> np.ndarray:
    """Decodes a JPEG, PNG or WebP image (or whatever else Pillow reads).

    The image is turned upright by its EXIF orientation. Transparent images are laid on white: on
    black, which dropping the alpha channel often gives, dark drawings vanish. Grey images of 16
    bits are scaled to 8 bits; CMYK and palettes become RGB. Of an animation, the first frame.

    Args:
      data: content of the file.

    Returns:
      uint8 [h, w, 1] for grey images, [h, w, 3] for all others.

    Raises:
      Exception: of several kinds, if the data are not a complete image.
    """
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        orientation = _orientation(image)
        if image.mode.startswith("I;16") or image.mode == "I":
            wide = np.asarray(image).astype(np.uint32)
            image = Image.fromarray(np.round(wide.clip(0, 65535) / 257).astype(np.uint8))
        elif image.mode == "F":
            raise ValueError("floating-point images have no defined range of values")
        image = _opaque(image)
        if orientation in _UPRIGHT:
            image = image.transpose(_UPRIGHT[orientation])
        pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Pillow has no one error for damaged metadata; the pixels are still good
        return 1


def _opaque(image: Image.Image) -> Image.Image:
    """Converts to mode L or RGB, on a white ground where transparent."""
    grey = image.mode in ("1", "L", "LA", "La")
    if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(ground, image)
    mode = "L" if grey else "RGB"
    return image if image.mode == mode else image.convert(mode)  # which would copy


def to_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """Converts between grey and RGB.

    Args:
      image: uint8 [h, w, c].
      channels: wanted number; equal to c, or one of 1 and 3 with c the other.

    Returns:
      uint8 [h, w, channels]. RGB becomes luminance with the weights of ITU-R 601-2, rounded as
      Pillow does; grey is repeated.

    Raises:
      UserError: there is no conversion between these numbers of channels.
    """
    have = image.shape[-1]
    if have == channels:
        return image
    if (have, channels) == (1, 3):
        return np.repeat(image, 3, axis=-1)
    if (have, channels) == (3, 1):
        weights = np.array([19595, 38470, 7471], np.uint32)  # x 2**16; they sum to 2**16
        return ((image.astype(np.uint32) @ weights + 0x8000) >> 16).astype(np.uint8)[..., None]
    raise UserError(
        f"An image has {have} channels but the input has {channels}: set its channels to {have} "
        f"(and mean and std to as many values)."
    )


def central_box(size: tuple[int, ...], target: tuple[int, ...]) -> tuple[float, ...]:
    """Returns the largest central box of `size` with the aspect ratio of `target`.

    Args:
      size: height and width of the image.
      target: height and width whose ratio the box gets.

    Returns:
      (top, left, height, width) in pixels; not always integers.
    """
    scale = min(size[0] / target[0], size[1] / target[1])
    height, width = target[0] * scale, target[1] * scale
    return (size[0] - height) / 2, (size[1] - width) / 2, height, width


def resize(
    image: np.ndarray, size: tuple[int, ...], box: tuple[float, ...] | None = None
) -> np.ndarray:
    """Resizes (a box of) an image, bicubic and antialiased, as Pillow does.

    Args:
      image: uint8 [h, w, c].
      size: height and width of the result.
      box: (top, left, height, width) in pixels of `image`; None: all of it.

    Returns:
      uint8 [*size, c].
    """
    top, left, height, width = box or (0, 0, *image.shape[:2])
    corners = (left, top, left + width, top + height)
    # Channel by channel unless RGB: Pillow has modes for few channel counts, and treats a fourth
    # channel as transparency.
    planes = [image] if image.shape[-1] == 3 else np.moveaxis(image, -1, 0)
    resized = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(plane)).resize(
                (size[1], size[0]), Image.Resampling.BICUBIC, corners
            )
        )
        for plane in planes
    ]
    return resized[0] if image.shape[-1] == 3 else np.stack(resized, axis=-1)


def fit(image: np.ndarray, size: tuple[int, ...], channels: int) -> np.ndarray:
    """Brings an image to a size and a number of channels.

    The image is scaled so that it just covers `size`, and the centre is taken. An image that has
    the size already keeps its pixels.

    Args:
      image: uint8 [h, w, c].
      size: height and width of the result.
      channels: number of channels of the result.

    Returns:
      uint8 [*size, channels].

    Raises:
      UserError: the number of channels cannot be converted.
      ValueError: the image is not an array of this kind, or is empty.
    """
    check(image)
    image = to_channels(image, channels)
    if image.shape[:2] == tuple(size):
        return image
    return resize(image, size, central_box(image.shape[:2], size))


def check(image: np.ndarray) -> None:
    """Raises ValueError unless `image` is uint8 [h, w, c] with pixels in it."""
    if image.dtype != np.uint8 or image.ndim != 3 or not image.size:
        raise ValueError(f"an image has to be uint8 [h, w, c], not {image.dtype} {image.shape}")
