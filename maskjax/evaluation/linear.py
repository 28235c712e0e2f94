"""Linear probe: multinomial logistic regression on frozen features, solved to convergence."""

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from maskjax.errors import UserError
from maskjax.evaluation.features import Features, OfOneFeature, check_pair
from maskjax.evaluation.validation import check_choice, hold_out

# Above this width the eigenvectors cost more than the iterations that they save.
_MAX_ROTATION = 4096
# Iterations of L-BFGS between two measurements of the curvature.
_ROUND = 25
# Iterations in a row that improve neither loss nor gradient: float32 has no more to give.
_PATIENCE = 10


@dataclasses.dataclass(frozen=True)
class LinearProbe(OfOneFeature):
    """Logistic regression on standardised features, with a regularisation chosen by validation.

    The objective is the mean cross-entropy + l2 / 2 * ||weights||^2, the bias being free. Every
    regularisation is fitted to all but a class-stratified share of the training examples, from
    the strongest to the weakest, each starting at the solution of the one before and with ten
    times the tolerance: enough to rank them. The one with the highest validation accuracy (of
    equals, the lowest cross-entropy) is fitted again to all training examples, to `tolerance`.
    Features are standardised with the mean and deviation of the examples that are fitted.

    Nothing is random but the split: two runs give the same number, and no learning rate, number of
    epochs or augmentation can favour a method.

    Attributes:
      feature: path of the features in the output of `encode`, [B, D].
      validation_share: of the examples of each class, held out to choose the regularisation; at
        least one example of each class that has two. 0 needs a single regularisation.
      regularisations: the values of l2 to choose from.
      max_iterations: of L-BFGS, for each fit.
      tolerance: a fit has converged when the gradient with respect to the weights of each class is
        shorter than this (which bounds its largest element, too).
      seed: of the validation split.
    """

    feature: str = "encoder.mean"
    validation_share: float = 0.1
    regularisations: tuple[float, ...] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1e0, 1e1)
    max_iterations: int = 1000
    tolerance: float = 1e-5
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.regularisations or min(self.regularisations) <= 0:
            raise UserError(
                f"LinearProbe needs regularisations above 0, not {self.regularisations}: "
                "without any, separable classes have no solution."
            )
        check_choice(self, "regularisations")

    def score(self, train: Features, test: Features) -> dict[str, float]:
        """Fits on `train` and returns the accuracy on `test`.

        Returns:
          accuracy: on `test`, in [0, 1]; an example of a class that `train` lacks counts as wrong.
          regularisation: the chosen l2.
          validation_accuracy: that it was chosen by; absent if `validation_share` is 0.
          iterations: of the final fit.
          converged: 1.0 if the final fit reached the tolerance, else 0.0.

        Raises:
          UserError: a single class, nothing to validate on, or features that do not fit together.
        """
        check_pair(train, test)
        # Absent classes would drive their bias to minus infinity, and the fit would never end.
        classes, labels = np.unique(train.known_labels(), return_inverse=True)
        if len(classes) < 2:
            raise UserError(
                f"All training examples are of class {classes[0]}: a linear probe needs at least "
                "two classes, so use more or shuffled examples."
            )
        labels = labels.astype(np.int32)
        l2, start, rotation, result = self.regularisations[0], None, None, {}
        if self.validation_share > 0:
            held_out = hold_out(labels, self.validation_share, self.seed, "regularisation")
            l2, start, accuracy, rotation = self._choose(train.values, labels, held_out)
            result["validation_accuracy"] = accuracy
        mean, std = moments(train.values)
        problem = prepare(standardise(train.values, mean, std), labels, rotation=rotation)
        fit = solve(problem, l2, start, self.tolerance, self.max_iterations)
        logits = _logits(fit.weights, fit.bias, standardise(test.values, mean, std))
        predicted = classes[np.argmax(np.asarray(logits), axis=-1)]
        return {
            "accuracy": float(np.mean(predicted == test.labels)),
            "regularisation": float(l2),
            **result,
            "iterations": float(fit.iterations),
            "converged": float(fit.gradient < self.tolerance),
        }

    def _choose(
        self, values: np.ndarray, labels: np.ndarray, held_out: np.ndarray
    ) -> tuple[float, "Fit", float, jax.Array | None]:
        """Returns the best regularisation, its fit and validation accuracy, and the rotation."""
        mean, std = moments(values, ~held_out)
        # Held-out rows stay in place with weight 0: the final fit then has the same shapes, and
        # the solver is compiled once.
        problem = prepare(standardise(values, mean, std), labels, ~held_out)
        validation = standardise(values[held_out], mean, std)
        fit, best = None, None
        for l2 in sorted(set(self.regularisations), reverse=True):
            fit = solve(problem, l2, fit, 10 * self.tolerance, self.max_iterations)
            accuracy, loss = _score(fit.weights, fit.bias, validation, labels[held_out])
            key = (float(accuracy), -float(loss))
            if best is None or key > best[0]:
                best = (key, l2, fit)
        assert best is not None  # there is a regularisation
        (accuracy, _), l2, fit = best
        return l2, fit, accuracy, problem.rotation


class Fit(NamedTuple):
    """A solution, in the coordinates of the features given to `prepare`.

    Attributes:
      weights: float32 [D, C].
      bias: float32 [C].
      loss: value of the objective.
      gradient: largest, over the classes, of the lengths of the gradients of weights and bias.
      iterations: of L-BFGS.
    """

    weights: jax.Array
    bias: jax.Array
    loss: jax.Array
    gradient: jax.Array
    iterations: jax.Array | int


class Problem(NamedTuple):
    """The data of a logistic regression, rotated to principal axes.

    The penalty does not see the rotation, so the problem is the same; but the curvature is then
    nearly diagonal, and dividing by its diagonal saves most of the iterations. Too wide features
    are left as they are.
    """

    values: jax.Array  # [n, D] rotated features
    labels: jax.Array  # int32 [n]
    shares: jax.Array  # [n] weights of the rows, with sum 1
    rotation: jax.Array | None  # [D, D] from features to `values`
    classes: int


def prepare(
    values: np.ndarray | jax.Array,
    labels: np.ndarray,
    rows: np.ndarray | None = None,
    rotation: jax.Array | None = None,
) -> Problem:
    """Prepares features for `solve`.

    Args:
      values: float32 [n, D], better standardised.
      labels: int32 [n] in 0..C-1, all present.
      rows: bool [n], those to be fitted; all if None.
      rotation: orthogonal [D, D], of a problem with nearly the same features; it is only computed
        if None.
    """
    n, width = values.shape
    shares = np.ones(n) if rows is None else np.asarray(rows, np.float64)
    shares = jnp.asarray(shares / shares.sum(), jnp.float32)
    values = jnp.asarray(values)
    if rotation is None and width <= _MAX_ROTATION:
        _, directions = np.linalg.eigh(np.asarray(_second_moments(values, shares)))
        rotation = jnp.asarray(directions, jnp.float32)
    if rotation is not None:
        values = _matmul(values, rotation)
    return Problem(
        values=values,
        labels=jnp.asarray(labels, jnp.int32),
        shares=shares,
        rotation=rotation,
        classes=int(np.max(labels)) + 1,
    )


def solve(
    problem: Problem,
    l2: float,
    start: Fit | None = None,
    tolerance: float = 1e-5,
    max_iterations: int = 1000,
) -> Fit:
    """Minimises mean cross-entropy + l2 / 2 * ||weights||^2 by L-BFGS with a zoom line search.

    Works in rounds: each measures the curvature anew where it starts, and forgets what L-BFGS has
    learned far away. Compiled once per shape: the numbers are arguments of the program.

    Args:
      problem: from `prepare`.
      l2: regularisation, above 0.
      start: a fit to features in the same coordinates, for example with another l2.
      tolerance: of `Fit.gradient`.
      max_iterations: over all rounds. The fit ends earlier if a round improves nothing, because
        float32 has no more to give.
    """
    width, classes = problem.values.shape[1], problem.classes
    if start is None:
        weights, bias = jnp.zeros((width, classes)), jnp.zeros(classes)
    else:
        weights, bias = start.weights, start.bias
        if problem.rotation is not None:
            weights = _matmul(problem.rotation.T, weights)
    iterations, gradient, loss, fit = 0, np.inf, np.inf, None
    while fit is None or iterations < max_iterations:
        limit = min(_ROUND, max_iterations - iterations)
        fit = _solve(problem[:3], weights, bias, l2, tolerance, limit)
        iterations += int(fit.iterations)
        if fit.gradient < tolerance or not (fit.gradient < gradient or fit.loss < loss):
            break
        weights, bias, gradient, loss = (*fit[:2], float(fit.gradient), float(fit.loss))
    fit = fit._replace(iterations=iterations)
    if problem.rotation is not None:
        fit = fit._replace(weights=_matmul(problem.rotation, fit.weights))
    return fit


@jax.jit
def _solve(
    data: tuple[jax.Array, jax.Array, jax.Array],
    weights: jax.Array,
    bias: jax.Array,
    l2: jax.Array,
    tolerance: jax.Array,
    max_iterations: jax.Array,
) -> Fit:
    """One round of `solve`, in rotated coordinates."""
    values, labels, shares = data
    # p (1 - p) of each row, a mean over the classes that is exact where all are equally probable.
    # Without it, classes that are already told apart give first steps too short for float32.
    squares = jnp.sum(jax.nn.softmax(_logits(weights, bias, values)) ** 2, axis=-1)
    curvature = shares * (1 - squares) / (bias.shape[0] - 1)
    scale = {
        "weights": lax.rsqrt(_matmul(curvature[None, :], values**2)[0] + l2)[:, None],
        "bias": lax.rsqrt(jnp.maximum(jnp.sum(curvature), 1e-6)),
    }

    def objective(scaled: dict[str, jax.Array]) -> jax.Array:
        params = jax.tree.map(jnp.multiply, scale, scaled)
        logits = _logits(params["weights"], params["bias"], values)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.sum(shares * losses) + l2 / 2 * jnp.sum(params["weights"] ** 2)

    def length(gradient: dict[str, jax.Array]) -> jax.Array:
        gradient = jax.tree.map(jnp.divide, gradient, scale)
        squares = jnp.sum(gradient["weights"] ** 2, axis=0) + gradient["bias"] ** 2
        return jnp.sqrt(jnp.max(squares))

    solver = optax.lbfgs(memory_size=10)
    value_and_grad = optax.value_and_grad_from_state(objective)

    def step(carry: tuple) -> tuple:
        params, state, count, shortest, stalled = carry
        value, grad = value_and_grad(params, state=state)
        updates, state = solver.update(
            grad, state, params, value=value, grad=grad, value_fn=objective
        )
        params = optax.apply_updates(params, updates)
        gradient = length(optax.tree.get(state, "grad"))
        progress = (optax.tree.get(state, "value") < value) | (gradient < shortest)
        stalled = jnp.where(progress, 0, stalled + 1)
        return params, state, count + 1, jnp.minimum(gradient, shortest), stalled

    def unfinished(carry: tuple) -> jax.Array:
        _, state, count, _, stalled = carry
        gradient = length(optax.tree.get(state, "grad"))
        return (gradient >= tolerance) & (count < max_iterations) & (stalled < _PATIENCE)

    params = jax.tree.map(jnp.divide, {"weights": weights, "bias": bias}, scale)
    value, grad = jax.value_and_grad(objective)(params)
    state = optax.tree.set(solver.init(params), value=value, grad=grad)
    carry = (params, state, jnp.int32(0), length(grad), jnp.int32(0))
    params, state, count, _, _ = lax.while_loop(unfinished, step, carry)
    gradient = length(optax.tree.get(state, "grad"))
    loss = optax.tree.get(state, "value")
    params = jax.tree.map(jnp.multiply, scale, params)
    return Fit(params["weights"], params["bias"], loss, gradient, count)


def moments(values: np.ndarray, rows: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and standard deviation of each feature, float32 [D]; constant ones get 1.

    Args:
      values: float32 [n, D].
      rows: bool [n], those to look at; all if None.
    """
    total, squares = np.zeros((2, values.shape[1]))
    count = len(values) if rows is None else int(rows.sum())
    # Twice over the data and in float64, in pieces: a constant column must come out as constant.
    pieces = [slice(i, i + 16384) for i in range(0, len(values), 16384)]
    for piece in pieces:
        block = values[piece] if rows is None else values[piece][rows[piece]]
        total += block.sum(axis=0, dtype=np.float64)
    mean = total / count
    for piece in pieces:
        block = values[piece] if rows is None else values[piece][rows[piece]]
        squares += np.square(block - mean).sum(axis=0)
    std = np.sqrt(squares / count)
    std = np.where(std > 1e-6 * np.abs(mean), std, 1)
    return mean.astype(np.float32), std.astype(np.float32)


def standardise(values: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Returns values [n, D] in units of `moments`."""
    return (values - mean[None, :]) / std[None, :]


@jax.jit
def _score(
    weights: jax.Array, bias: jax.Array, values: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns accuracy and mean cross-entropy."""
    logits = _logits(weights, bias, values)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.mean(jnp.argmax(logits, axis=-1) == labels), jnp.mean(losses)


@jax.jit
def _logits(weights: jax.Array, bias: jax.Array, values: jax.Array) -> jax.Array:
    return _matmul(values, weights) + bias[None, :]


# Accelerators multiply in lower precision by default, too coarse to converge.
_matmul = jax.jit(partial(jnp.matmul, precision="highest"))


@jax.jit
def _second_moments(values: jax.Array, shares: jax.Array) -> jax.Array:
    return _matmul((values * shares[:, None]).T, values)
