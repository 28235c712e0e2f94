"""Attentive probe: a learned query reads the frozen tokens, a linear layer tells the class."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from maskjax.errors import UserError
from maskjax.evaluation.features import Features, OfOneFeature, check_pair
from maskjax.evaluation.validation import check_choice, hold_out
from maskjax.models.attentive_head import POOLINGS, AttentiveHead

_SOURCE = "tokens"
_HEAD_WIDTH = 64
_WARMUP = 0.1  # share of the steps


@dataclasses.dataclass(frozen=True)
class AttentiveProbe(OfOneFeature):
    """Cross-attention of one learned query over frozen tokens, trained by AdamW.

    Several learning rates are trained side by side on all but a class-stratified share of the
    training examples; the one with the highest accuracy on this share (of equals, the smallest) is
    tested. The course of each is a linear warm-up over a tenth of the steps, then half a cosine.

    Attributes:
      feature: path of tokens in the output of `encode`, [B, N, D]; a vector [B, D] is one token.
      pooling: of `models.AttentiveHead`. "query": one cross-attention without residual, then a
        BatchNorm without parameters, as in CAE (Chen et al., 2022, arXiv 2202.03026). "block":
        cross-attention and MLP, each added to its input, as in V-JEPA (Bardes et al., 2024, arXiv
        2404.08471).
      heads: of the attention; 0: one for every 64 values of a token, and at least one.
      epochs: over the training examples.
      batch_size: examples a step.
      learning_rates: peaks to choose from.
      weight_decay: per unit of learning rate, of all parameters but biases and norms.
      validation_share: of the examples of each class, held out to choose. 0 needs a single
        learning rate.
      seed: of split, parameters and order.
    """

    feature: str = "encoder.patches"
    pooling: str = "query"
    heads: int = 0
    epochs: int = 20
    batch_size: int = 256
    learning_rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    weight_decay: float = 0.01
    validation_share: float = 0.1
    seed: int = 0

    tokens = True

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise UserError(
                f"The pooling of an AttentiveProbe is one of {', '.join(POOLINGS)}, not "
                f"'{self.pooling}'."
            )
        if not self.learning_rates or min(self.learning_rates) <= 0:
            raise UserError(
                f"AttentiveProbe needs learning_rates above 0, not {self.learning_rates}."
            )
        check_choice(self, "learning_rates")
        if self.epochs < 1 or self.batch_size < 2:
            raise UserError("AttentiveProbe needs at least one epoch and batches of two examples.")

    def score(self, train: Features, test: Features) -> dict[str, float]:
        """Trains on `train` and returns the accuracy on `test`.

        Returns:
          accuracy: on `test`, in [0, 1]; an example of a class that `train` lacks counts as wrong.
          learning_rate: the chosen one.
          validation_accuracy: that it was chosen by; absent if `validation_share` is 0.

        Raises:
          UserError: a single class, nothing to validate on, or features that do not fit together.
        """
        check_pair(train, test)
        classes, labels = np.unique(train.known_labels(), return_inverse=True)
        if len(classes) < 2:
            raise UserError("AttentiveProbe needs training examples of at least two classes.")
        labels = labels.astype(np.int32)
        held_out = np.zeros(len(labels), bool)
        if self.validation_share > 0:
            held_out = hold_out(labels, self.validation_share, self.seed, "learning rate")
        rates = np.array(sorted(self.learning_rates), np.float32)
        head = self._head(train.values.shape[-1], len(classes))
        fitted = self._fit(head, train.values, labels, np.flatnonzero(~held_out), rates)
        best, result = 0, {}
        if held_out.any():
            guesses = self._predict(head, fitted, train.values[held_out])
            accuracies = (guesses == labels[held_out]).mean(axis=1)
            best = int(accuracies.argmax())  # the first of equals
            result["validation_accuracy"] = float(accuracies[best])
        predicted = classes[self._predict(head, fitted, test.values)[best]]
        return {
            "accuracy": float(np.mean(predicted == test.labels)),
            "learning_rate": float(rates[best]),
            **result,
        }

    def _head(self, width: int, classes: int) -> AttentiveHead:
        heads = self.heads or max(1, width // _HEAD_WIDTH)
        if width % heads:
            # Raw data have any width; one head fits every one.
            if self.heads:
                raise UserError(
                    f"Tokens of {width} values cannot be split among {heads} heads: choose another "
                    "number of heads for the AttentiveProbe."
                )
            heads = 1
        return AttentiveHead(classes, _SOURCE, self.pooling, heads)

    def _fit(
        self,
        head: AttentiveHead,
        values: np.ndarray,
        labels: np.ndarray,
        rows: np.ndarray,
        rates: np.ndarray,
    ) -> Any:
        """Returns the variables after the last step, with a leading axis of learning rates."""
        size = min(self.batch_size, len(rows))
        per_epoch = len(rows) // size
        total = per_epoch * self.epochs
        course = optax.warmup_cosine_decay_schedule(0.0, 1.0, max(1, int(_WARMUP * total)), total)
        direction = optax.chain(
            optax.scale_by_adam(),
            optax.add_decayed_weights(
                self.weight_decay, lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
            ),
        )
        variables = head.init(jax.random.key(self.seed), *_read(values[rows[:1]]))
        variables = jax.tree.map(lambda x: jnp.stack([x] * len(rates)), variables)
        moments = jax.vmap(direction.init)(variables["params"])

        @partial(jax.jit, donate_argnums=0)
        def step(carry: Any, count: jax.Array, batch: jax.Array, label: jax.Array) -> Any:
            def one(variables: Any, moments: Any, rate: jax.Array) -> Any:
                def loss(params: Any) -> tuple[jax.Array, Any]:
                    out, moved = head.apply(
                        {**variables, "params": params}, *_read(batch), mutable=["batch_stats"]
                    )
                    losses = optax.softmax_cross_entropy_with_integer_labels(out["logits"], label)
                    return losses.mean(), moved

                grads, moved = jax.grad(loss, has_aux=True)(variables["params"])
                update, moments = direction.update(grads, moments, variables["params"])
                update = jax.tree.map(lambda u: -rate * course(count) * u, update)
                params = optax.apply_updates(variables["params"], update)
                return {**variables, **moved, "params": params}, moments

            return jax.vmap(one)(*carry, jnp.asarray(rates))

        carry, rng, count = (variables, moments), np.random.default_rng(self.seed), 0
        for _ in range(self.epochs):
            order = rng.permutation(rows)
            for chosen in order[: per_epoch * size].reshape(per_epoch, size):
                carry = step(carry, np.int32(count), values[chosen], labels[chosen])
                count += 1
        return carry[0]

    def _predict(self, head: AttentiveHead, variables: Any, values: np.ndarray) -> np.ndarray:
        """Returns class numbers, int [learning rates, n]."""
        pieces = []
        for start in range(0, len(values), self.batch_size):
            piece = values[start : start + self.batch_size]
            full = np.zeros((self.batch_size, *piece.shape[1:]), piece.dtype)
            full[: len(piece)] = piece
            pieces.append(np.asarray(_classes(head, variables, full))[:, : len(piece)])
        return np.concatenate(pieces, axis=1)


@partial(jax.jit, static_argnums=0)
def _classes(head: AttentiveHead, variables: Any, batch: jax.Array) -> jax.Array:
    def predicted(variables: Any) -> jax.Array:
        out: Any = head.apply(variables, *_read(batch))
        return out["logits"].argmax(axis=-1)

    return jax.vmap(predicted)(variables)


def _read(values: Any) -> tuple[dict[str, Any], int]:
    """Returns what a head takes: outputs with the tokens, and the number of tokens."""
    return {_SOURCE: values}, values.shape[1] if values.ndim == 3 else 1
