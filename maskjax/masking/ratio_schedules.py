"""What share of the tokens to hide, as a function of a number in [0, 1] or of chance."""

import math

import jax
import jax.numpy as jnp

from maskjax.errors import UserError

NAMES = ("linear", "cosine", "pow", "log", "exp")


def mask_ratio(
    schedule: str, r: jax.Array | float, tokens: int = 256, exponent: float = 2.0
) -> jax.Array:
    """Share of hidden tokens, falling from 1 at r = 0 to (about) 0 at r = 1.

    The concave and convex functions of MaskGIT (Chang et al., 2022, section 3.3), with the values
    of its code: clipped to [1e-6, 1].

    Args:
      schedule: "linear" 1 - r; "cosine" cos(pi r / 2); "pow" 1 - r^exponent;
        "log" -log2(r) / log2(tokens); "exp" 1 - 2^(-log2(tokens) (1 - r)).
      r: any shape, in [0, 1]: uniform in training, (t + 1) / T in step t of T when generating.
      tokens: number of unknown tokens, of "log" and "exp".
      exponent: of "pow"; 2 is the square, 3 the cube, 0.5 the square root of the paper.

    Returns:
      float32, the shape of `r`.

    Raises:
      UserError: there is no such schedule.
    """
    r = jnp.asarray(r, jnp.float32)
    bits = math.log2(tokens)
    if schedule == "linear":
        ratio = 1.0 - r
    elif schedule == "cosine":
        ratio = jnp.cos(math.pi / 2 * r)
    elif schedule == "pow":
        ratio = 1.0 - r**exponent
    elif schedule == "log":
        ratio = -jnp.log2(jnp.maximum(r, 1e-20)) / bits
    elif schedule == "exp":
        ratio = 1.0 - jnp.exp2(-bits * (1.0 - r))
    else:
        raise UserError(f"A mask schedule is one of {', '.join(NAMES)}, not '{schedule}'.")
    return jnp.clip(ratio, 1e-6, 1.0)


def truncated_normal_ratio(
    rng: jax.Array,
    mean: float,
    std: float,
    low: float,
    high: float,
    shape: tuple[int, ...] = (),
) -> jax.Array:
    """Share of hidden tokens drawn from a normal distribution that is cut to [low, high].

    MAGE (Li et al., 2023): mean 0.55, std 0.25 on [0.5, 1]; MAR (Li et al., 2024): mean 1, std 0.25
    on [0.7, 1]. Both draw one ratio for the whole batch (`shape` ()).

    Raises:
      UserError: not 0 <= low < high <= 1, or no positive `std`.
    """
    if not 0 <= low < high <= 1 or std <= 0:
        raise UserError(
            f"A random mask ratio needs 0 <= low < high <= 1 and std > 0, not low={low}, "
            f"high={high}, std={std}."
        )
    z = jax.random.truncated_normal(rng, (low - mean) / std, (high - mean) / std, shape)
    return jnp.clip(mean + std * z, low, high)
