"""Mixup and cutmix: each image of a batch is mixed with another one, and so are their labels."""

import dataclasses

import jax
import jax.numpy as jnp

from maskjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Mixing:
    """Mixes every example with the one at the mirrored place of the batch.

    All examples of a batch are mixed alike, as in timm's "batch" mode: a coin decides between mixup
    (Zhang et al., 2018, arXiv 1710.09412), the weighted sum of two images, and cutmix (Yun et al.,
    2019, arXiv 1905.04899), a rectangle of the one in the other. The share s of the image itself is
    drawn from Beta(a, a); the rectangle has sides of sqrt(1 - s) times those of the image around a
    uniform centre, is cut off at the border, and s is then what really remains.

    Attributes:
      mixup: a of mixup; 0: no mixup.
      cutmix: a of cutmix; 0: no cutmix.
      switch: probability of cutmix, where there are both.
      probability: of mixing a batch at all.

    Raises:
      UserError: a value that has no meaning.
    """

    mixup: float = 0.8
    cutmix: float = 1.0
    switch: float = 0.5
    probability: float = 1.0

    def __post_init__(self) -> None:
        if min(self.mixup, self.cutmix) < 0 or max(self.mixup, self.cutmix) == 0:
            raise UserError(
                f"Mixing needs a positive mixup or cutmix, not {self.mixup} and {self.cutmix}: "
                "to mix nothing, set its probability to 0."
            )
        for name in ("switch", "probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} of a Mixing is {getattr(self, name)}: give 0 to 1.")

    def __call__(
        self, rng: jax.Array, images: jax.Array, real: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Mixes a batch; the partner of row i is row B - 1 - i.

        Args:
          rng: key; every draw follows from it.
          images: floating [B, H, W, C]; or clips [B, T, H, W, C], whose frames are all mixed alike;
            or, without cutmix, values of any shape [B, ...], such as waveforms.
          real: bool [B], False where there is no image; who would mix with it stays alone.

        Returns:
          The mixed images, and the share of each in itself, float32 [B].
        """
        switch_key, use_key, mixup_key, cutmix_key, box_key = jax.random.split(rng, 5)
        partners = images[::-1]
        pair = jnp.ones(len(images), bool) if real is None else real & real[::-1]
        used = jax.random.bernoulli(use_key, self.probability) & pair

        blend = _beta(mixup_key, self.mixup)
        blended = blend * images + (1.0 - blend) * partners
        mixed, share = blended, blend
        if self.cutmix:
            inside = _rectangle(box_key, images.shape[-3:-1], _beta(cutmix_key, self.cutmix))
            place = inside.reshape((1,) * (images.ndim - 3) + (*inside.shape, 1))
            probability = self.switch if self.mixup else 1.0
            cut = jax.random.bernoulli(switch_key, probability)
            share = jnp.where(cut, 1.0 - inside.mean(), blend)
            mixed = jnp.where(cut & place, partners, jnp.where(cut, images, blended))
        return (
            jnp.where(used.reshape(-1, *(1,) * (images.ndim - 1)), mixed, images),
            jnp.where(used, share, 1.0).astype(jnp.float32),
        )


def _beta(key: jax.Array, a: float) -> jax.Array:
    return jax.random.beta(key, a, a) if a else jnp.ones(())


def _rectangle(key: jax.Array, shape: tuple[int, ...], share: jax.Array) -> jax.Array:
    """Returns bool [H, W], True inside a random rectangle of about (1 - share) of the area."""
    spans = []
    for axis_key, size in zip(jax.random.split(key), shape, strict=True):
        extent = jnp.floor(size * jnp.sqrt(1.0 - share)).astype(jnp.int32)
        centre = jax.random.randint(axis_key, (), 0, size)
        start, stop = centre - extent // 2, centre + extent // 2
        pixels = jnp.arange(size)
        spans.append((pixels >= start) & (pixels < stop))
    return spans[0][:, None] & spans[1][None, :]
