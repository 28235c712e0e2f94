"""Crop and resize on the device: static shapes, any box.

Equal to Pillow's `image.crop(box).resize(size, BICUBIC)` for boxes of whole pixels: the cubic
convolution kernel of Keys (1981) with a = -1/2, widened by the scale when the image shrinks
(antialiasing), cut off at the border of the crop and renormalised. Both axes are matrix products.
"""

import jax
import jax.numpy as jnp


def cubic(x: jax.Array) -> jax.Array:
    """Returns the kernel of Keys with a = -1/2 at `x`; zero outside (-2, 2)."""
    x = jnp.abs(x)
    inner = (1.5 * x - 2.5) * x * x + 1.0
    outer = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return jnp.where(x < 1, inner, jnp.where(x < 2, outer, 0.0))


def weights(
    size_in: int, size_out: int, start: jax.Array, extent: jax.Array, *, cut: bool = True
) -> jax.Array:
    """Returns the matrix that resizes one axis.

    Args:
      size_in: pixels of the image along the axis.
      size_out: pixels of the result.
      start: where the box starts, in pixels; scalar in [0, size_in).
      extent: its length, in pixels; scalar > 0, with start + extent <= size_in.
      cut: whether pixels outside the box are left out, as if it had been cut out before.

    Returns:
      float32 [size_out, size_in]; rows sum to 1. A pixel that is only partly in the box counts
      as inside.
    """
    start, extent = jnp.float32(start), jnp.float32(extent)
    scale = extent / size_out
    widening = jnp.maximum(scale, 1.0)
    centres = start + (jnp.arange(size_out, dtype=jnp.float32) + 0.5) * scale
    pixels = jnp.arange(size_in, dtype=jnp.float32)
    kernel = cubic((pixels[None, :] + 0.5 - centres[:, None]) / widening)
    if cut:
        inside = (pixels >= jnp.floor(start)) & (pixels < jnp.ceil(start + extent))
        kernel = jnp.where(inside[None, :], kernel, 0.0)
    return kernel / kernel.sum(axis=1, keepdims=True)


def crop_resize(
    image: jax.Array, box: jax.Array, size: tuple[int, int], *, cut: bool = True
) -> jax.Array:
    """Resizes a box of one image; `jax.vmap` it over images and boxes.

    Args:
      image: uint8 or floating [H, W, C].
      box: floating or integer [4]: top, left, height, width in pixels, within the image.
      size: height and width of the result; static.
      cut: whether pixels outside the box are left out, as if it had been cut out before. Else it
        is the box of Pillow's `image.resize(size, box=box)`: resized with what is around it.

    Returns:
      float32 [*size, C], in the units of `image`, not clipped: cubic kernels overshoot.
    """
    height, width = image.shape[:2]
    top, left, box_height, box_width = box
    rows = weights(height, size[0], top, box_height, cut=cut)
    columns = weights(width, size[1], left, box_width, cut=cut)
    # Full precision: the fast modes of accelerators would cost whole grey levels.
    return jnp.einsum(
        "yh,hwc,xw->yxc",
        rows,
        jnp.asarray(image, jnp.float32),
        columns,
        precision=jax.lax.Precision.HIGHEST,
    )
