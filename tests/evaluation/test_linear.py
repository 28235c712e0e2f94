import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from maskjax.errors import UserError
from maskjax.evaluation import linear
from maskjax.evaluation.features import Features
from maskjax.evaluation.linear import LinearProbe, moments, prepare, solve
from maskjax.evaluation.validation import stratified_split


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    values, labels = data.data.astype(np.float32), data.target.astype(np.int32)
    return Features(values[:1200], labels[:1200]), Features(values[1200:], labels[1200:])


def standardised(features):
    mean, std = moments(features.values)
    return (features.values - mean[None, :]) / std[None, :]


def objective(x, y, weights, bias, l2):
    """Loss and gradients in float64."""
    x, weights, bias = (np.asarray(a, np.float64) for a in (x, weights, bias))
    logits = x @ weights + bias[None, :]
    logits -= logits.max(axis=1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    error = (np.exp(log_p) - np.eye(len(bias))[y]) / len(x)
    loss = -log_p[np.arange(len(x)), y].mean() + l2 / 2 * (weights**2).sum()
    return loss, x.T @ error + l2 * weights, error.sum(axis=0)


@pytest.mark.parametrize("l2", [1e-4, 1e-2, 1.0])
@pytest.mark.parametrize("rotate", [True, False])
def test_agrees_with_scikit_learn(digits, l2, rotate, monkeypatch):
    if not rotate:
        monkeypatch.setattr(linear, "_MAX_ROTATION", 0)
    train, test = digits
    x, y = standardised(train), train.labels
    fit = solve(prepare(x, y), l2, tolerance=1e-5)
    reference = LogisticRegression(C=1 / (len(x) * l2), tol=1e-7, max_iter=5000).fit(
        x.astype(np.float64), y
    )
    loss, *_ = objective(x, y, fit.weights, fit.bias, l2)
    expected, *_ = objective(x, y, reference.coef_.T, reference.intercept_, l2)
    assert loss == pytest.approx(expected, rel=1e-4)
    assert float(fit.loss) == pytest.approx(expected, rel=1e-4)
    mean, std = moments(train.values)
    x_test = (test.values - mean[None, :]) / std[None, :]
    predicted = np.argmax(x_test @ np.asarray(fit.weights) + np.asarray(fit.bias)[None, :], axis=1)
    assert np.mean(predicted == reference.predict(x_test)) >= 1 - 2 / len(x_test)


@pytest.mark.parametrize("l2", [1e-5, 1e-2])
def test_gradient_at_the_solution_is_below_the_tolerance(digits, l2):
    x, y = standardised(digits[0]), digits[0].labels
    fit = solve(prepare(x, y), l2, tolerance=1e-5)
    _, weights, bias = objective(x, y, fit.weights, fit.bias, l2)
    # What was measured in float32 is what is there in float64.
    assert max(np.abs(weights).max(), np.abs(bias).max()) < 1.1e-5
    assert float(fit.gradient) < 1e-5


def test_opposite_classes_have_opposite_weights():
    rng = np.random.default_rng(0)
    half = rng.normal(size=(10, 3)).astype(np.float32) + np.float32([1, 0, 0])[None, :]
    x, y = np.concatenate([half, -half]), np.repeat(np.int32([0, 1]), 10)
    fit = solve(prepare(x, y), 0.01, tolerance=1e-6)
    weights = np.asarray(fit.weights)
    np.testing.assert_allclose(weights[:, 0], -weights[:, 1], atol=1e-5)
    np.testing.assert_allclose(np.asarray(fit.bias), 0, atol=1e-5)
    assert weights[0, 0] > 0.5


def test_any_rotation_gives_the_same_solution(digits):
    x, y = standardised(digits[0]), digits[0].labels
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(64, 64)))
    rotated = solve(prepare(x, y, rotation=rotation.astype(np.float32)), 0.01)
    usual = solve(prepare(x, y), 0.01)
    np.testing.assert_allclose(np.asarray(rotated.weights), np.asarray(usual.weights), atol=2e-3)
    assert float(rotated.loss) == pytest.approx(float(usual.loss), rel=1e-6)


def test_left_out_rows_do_not_count(digits):
    x, y = standardised(digits[0]), digits[0].labels
    rows = np.arange(len(x)) % 3 > 0
    rows[:100] = True
    part, whole = solve(prepare(x, y, rows), 0.01), solve(prepare(x[rows], y[rows]), 0.01)
    assert float(part.loss) == pytest.approx(float(whole.loss), rel=1e-5)
    np.testing.assert_allclose(np.asarray(part.weights), np.asarray(whole.weights), atol=2e-3)


def test_a_fit_that_starts_at_the_solution_stays_there(digits):
    problem = prepare(standardised(digits[0]), digits[0].labels)
    fit = solve(problem, 0.01)
    again = solve(problem, 0.01, fit, tolerance=2e-5)
    assert int(fit.iterations) > 5
    assert int(again.iterations) == 0


def test_solver_is_compiled_once_for_all_regularisations(digits):
    before = linear._solve._cache_size()
    train = Features(digits[0].values[:301, :17], digits[0].labels[:301])
    LinearProbe(max_iterations=20).score(train, train)
    assert linear._solve._cache_size() == before + 1


def test_probe_on_digits(digits):
    result = LinearProbe().score(*digits)
    assert result["accuracy"] > 0.9
    assert result["validation_accuracy"] > 0.93
    assert result["converged"] == 1.0
    assert 0 < result["iterations"] < 1000
    assert 1e-6 < result["regularisation"] < 1
    assert set(map(type, result.values())) == {float}
    assert LinearProbe().score(*digits) == result


def test_scale_of_the_features_does_not_matter(digits):
    train, test = digits
    scale = np.logspace(-3, 3, 64, dtype=np.float32)[None, :]
    scaled = [Features(f.values * scale + scale, f.labels) for f in digits]
    probe = LinearProbe(regularisations=(1e-2,))
    assert probe.score(*scaled)["accuracy"] == pytest.approx(
        probe.score(train, test)["accuracy"], abs=0.004
    )


def test_the_regularisation_is_chosen_by_validation():
    # One informative feature among many of noise, and wrong labels: weak regularisation overfits.
    rng = np.random.default_rng(0)
    values = rng.normal(size=(300, 170)).astype(np.float32)
    truth = (values[:, 0] > 0).astype(np.int32)
    train = Features(values, np.where(rng.random(300) < 0.3, 1 - truth, truth).astype(np.int32))
    values = rng.normal(size=(1000, 170)).astype(np.float32)
    test = Features(values, (values[:, 0] > 0).astype(np.int32))
    chosen = LinearProbe(regularisations=(1e-6, 1.0), validation_share=0.4).score(train, test)
    weak = LinearProbe(regularisations=(1e-6,), validation_share=0.4).score(train, test)
    assert chosen["regularisation"] == 1.0
    assert chosen["validation_accuracy"] > weak["validation_accuracy"]
    assert chosen["accuracy"] > weak["accuracy"]


def test_iterations_run_out_honestly(digits):
    result = LinearProbe(max_iterations=2, regularisations=(1e-4,)).score(*digits)
    assert (result["iterations"], result["converged"]) == (2.0, 0.0)


def test_an_unreachable_tolerance_ends_the_fit_early(digits):
    x, y = standardised(digits[0])[:200], digits[0].labels[:200]
    fit = solve(prepare(x, y), 0.01, tolerance=0.0, max_iterations=100_000)
    assert int(fit.iterations) < 1000
    assert float(fit.gradient) < 1e-6


def test_classes_need_not_be_consecutive(digits):
    train, test = digits
    renamed = [Features(f.values, f.labels * 100 + 7) for f in (train, test)]
    probe = LinearProbe(regularisations=(1e-2,))
    assert probe.score(*renamed)["accuracy"] == probe.score(train, test)["accuracy"]


def test_a_class_unseen_in_training_counts_as_wrong():
    x = np.repeat(np.float32([[-1] * 3, [1] * 3]), 10, axis=0)
    train = Features(x, np.repeat(np.int32([0, 1]), 10))
    test = Features(np.float32([[-1] * 3, [1] * 3, [1] * 3]), np.int32([0, 1, 2]))
    result = LinearProbe().score(train, test)
    assert result["accuracy"] == pytest.approx(2 / 3)


def test_constant_features_are_harmless():
    x = np.full((20, 3), 0.1, np.float32)
    x[10:, 1] = 0.2
    train = Features(x, np.repeat(np.int32([0, 1]), 10))
    result = LinearProbe().score(train, train)
    assert result["accuracy"] == 1.0
    assert result["converged"] == 1.0
    # Separable classes converge at any regularisation, from a cold and from a warm start.
    mean, std = moments(x)
    problem = prepare((x - mean[None, :]) / std[None, :], train.labels)
    for start in (None, solve(problem, 1e-4)):
        assert float(solve(problem, 1e-7, start).gradient) < 1e-5
    useless = Features(np.zeros((20, 3), np.float32), train.labels)
    assert LinearProbe().score(useless, useless)["accuracy"] == 0.5


def test_moments_are_those_of_the_rows_and_constants_get_one():
    rng = np.random.default_rng(0)
    values = rng.normal(1000, 0.1, size=(40000, 3)).astype(np.float32)
    values[:, 1] = 1234.567
    rows = np.arange(40000) % 2 == 0
    mean, std = moments(values, rows)
    expected = values[rows].astype(np.float64)
    np.testing.assert_allclose(mean, expected.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(std[[0, 2]], expected.std(axis=0)[[0, 2]], rtol=1e-4)
    assert std[1] == 1
    assert not np.array_equal(mean, moments(values)[0])


def test_split_is_stratified_and_decided_by_its_seed():
    labels = np.repeat(np.arange(4), [1, 2, 10, 100]).astype(np.int32)
    held_out = stratified_split(labels, 0.1, seed=0)
    assert np.bincount(labels[held_out], minlength=4).tolist() == [0, 1, 1, 10]
    np.testing.assert_array_equal(held_out, stratified_split(labels, 0.1, seed=0))
    assert not np.array_equal(held_out, stratified_split(labels, 0.1, seed=1))
    assert np.bincount(labels[stratified_split(labels, 0.99, 0)]).tolist() == [0, 1, 9, 99]


def test_one_class_is_one_sentence():
    train = Features(np.ones((5, 2), np.float32), np.full(5, 3, np.int32))
    with pytest.raises(UserError, match="of class 3.*two classes"):
        LinearProbe().score(train, train)


def test_one_example_per_class():
    train = Features(np.eye(3, dtype=np.float32), np.arange(3, dtype=np.int32))
    with pytest.raises(UserError, match="held out"):
        LinearProbe().score(train, train)
    result = LinearProbe(validation_share=0, regularisations=(0.01,)).score(train, train)
    assert result["accuracy"] == 1.0
    assert "validation_accuracy" not in result


@pytest.mark.parametrize(
    "arguments,message",
    [
        ({"validation_share": 1.0}, "validation_share"),
        ({"validation_share": 0}, "several regularisations"),
        ({"regularisations": ()}, "above 0"),
        ({"regularisations": (0.0, 1.0)}, "above 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(UserError, match=message):
        LinearProbe(**arguments)
