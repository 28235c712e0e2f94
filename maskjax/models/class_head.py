"""The head of a classifier: pooling, a norm, a linear layer."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from maskjax.errors import UserError
from maskjax.models.batch_norm import BatchNorm
from maskjax.models.layers import Dense, layer_norm, torch_default
from maskjax.paths import get_path

NORMS = ("layer", "batch", "none")


class ClassHead(nn.Module):
    """Logits of the mean of the patch tokens, or of a vector such as the class token.

    Everything is computed in float32.

    Attributes:
      classes: number of classes V.
      source: path of what it reads in the outputs of the system: tokens [B, S, D], of which the
        patches are the last, or a vector [B, D]. MAE fine-tunes from "encoder.output", before the
        encoder's own norm, which is thereby left out, and probes "encoder.cls".
      norm: of the vector: "layer"; "batch", without scale and bias, as MAE's linear probe has it;
        or "none".
      std: of the initial weights, normally distributed. The published codes cut at +-2, which is
        nowhere. 2e-5 for fine-tuning, 0.01 for the linear probe.
      dropout: share of the values behind the norm that are dropped in training, as in VideoMAE's
        code for ViT-H.
    """

    classes: int
    source: str = "encoder.output"
    norm: str = "layer"
    std: float = 2e-5
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self,
        out: Any,
        patches: int,
        real: jax.Array | None = None,
    ) -> dict[str, jax.Array]:
        """Classifies.

        Args:
          out: outputs of the system so far.
          patches: how many the encoder saw; of no influence on a vector.
          real: bool [B], False where there is no example: it does not count in batch statistics.

        Returns:
          `features` float32 [B, D], what the linear layer reads, with nothing dropped; `logits`
          float32 [B, V], and `probabilities`, their softmax, which some average over views.

        Raises:
          UserError: an unknown norm, a dropout outside [0, 1), or a source that is neither tokens
            nor a vector.
        """
        if not 0 <= self.dropout < 1:
            raise UserError(f"system.head.dropout is {self.dropout}: give 0 to 1, without 1.")
        x = _vector(out, self.source, patches)
        if self.norm == "layer":
            x = layer_norm(jnp.float32, "norm")(x)
        elif self.norm == "batch":
            active = None if real is None else real[:, None]
            x = BatchNorm(epsilon=1e-6, affine=False, name="norm")(x, active)
        elif self.norm != "none":
            raise UserError(f"norm must be one of {', '.join(NORMS)}, not '{self.norm}'.")
        linear = Dense(self.classes, kernel_init=nn.initializers.normal(self.std), name="linear")
        seen = nn.Dropout(self.dropout, deterministic=not self.has_rng("dropout"))(x)
        logits = linear(seen)
        return outputs(x, logits)


class MLPHead(nn.Module):
    """Logits of a vector by an MLP with BatchNorm and dropout, as Point-MAE fine-tunes.

    Every hidden layer is followed by BatchNorm, ReLU and dropout. Computed in float32.

    Attributes:
      classes: number of classes V.
      source: path of what it reads, see `ClassHead`.
      hidden: widths of the hidden layers.
      dropout: share of the hidden values that are dropped in training.
    """

    classes: int
    source: str = "encoder.pooled"
    hidden: tuple[int, ...] = (256, 256)
    dropout: float = 0.5

    @nn.compact
    def __call__(
        self,
        out: Any,
        patches: int,
        real: jax.Array | None = None,
    ) -> dict[str, jax.Array]:
        """Classifies; arguments and result as those of `ClassHead`."""
        x = features = _vector(out, self.source, patches)
        active = None if real is None else real[:, None]
        for i, width in enumerate(self.hidden):
            x = Dense(width, kernel_init=torch_default, name=f"hidden_{i}")(x)
            x = nn.relu(BatchNorm(name=f"norm_{i}")(x, active))
            x = nn.Dropout(self.dropout, deterministic=not self.has_rng("dropout"))(x)
        logits = Dense(self.classes, kernel_init=torch_default, name="linear")(x)
        return outputs(features, logits)


def _vector(out: Any, source: str, patches: int) -> jax.Array:
    """Returns what a head reads, float32 [B, D]: a vector, or the mean of the patch tokens.

    Raises:
      UserError: a source that is neither tokens nor a vector.
    """
    return tokens(out, source, patches).mean(axis=1)


def tokens(out: Any, source: str, patches: int) -> jax.Array:
    """Returns the patch tokens among what a head reads, float32 [B, N, D]; a vector is one token.

    Raises:
      UserError: a source that is neither tokens nor a vector.
    """
    x = get_path(out, source)
    if not hasattr(x, "ndim") or x.ndim not in (2, 3):
        raise UserError(
            f"system.head.source '{source}' is neither tokens nor a vector: choose e.g. "
            "encoder.output or encoder.cls."
        )
    x = x.astype(jnp.float32)
    return x[:, None] if x.ndim == 2 else x[:, -patches:]


def outputs(features: jax.Array, logits: jax.Array) -> dict[str, jax.Array]:
    """Returns what every head does: [B, D] that its last layer reads, and [B, V] of that."""
    return {"features": features, "logits": logits, "probabilities": nn.softmax(logits)}
