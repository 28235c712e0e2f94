"""Fine-tuning on recordings of several classes, as on AudioSet."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from maskjax.config import ConfigDict, part
from maskjax.data import train_batches
from maskjax.errors import UserError
from maskjax.evaluation import Evaluation
from maskjax.loading import Loaded
from maskjax.objectives import BinaryCrossEntropy
from maskjax.parallel.sharding import place_batch
from maskjax.systems import build_system
from maskjax.training.run import prepare
from test_configs import load

CLASSES, RATE = 6, 8000


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Each class is a tone; a recording has any number of them."""
    path = tmp_path_factory.mktemp("data") / "tones.npz"
    rng = np.random.default_rng(0)
    labels = rng.random((400, CLASSES)) < 0.4
    times = np.arange(2048) / RATE
    tones = np.sin(2 * np.pi * 300.0 * 1.5 ** np.arange(CLASSES)[:, None] * times[None, :])
    audio = (4000 * labels @ tones + 200 * rng.normal(size=(400, 2048))).astype(np.int16)
    np.savez(path, audio=audio, classes=labels, is_test=np.arange(400) >= 320)
    config = load("finetune_audio:tiny")
    with config.unlocked():
        fields = dict(audio="audio", labels="classes")
        config.data.source = part("data.Arrays", path=str(path), fields=fields)
        config.data.inputs.labels = part("data.ClassSet", classes=CLASSES)
        config.system.terms = ConfigDict(dict(labels=part("objectives.BinaryCrossEntropy")))
        config.system.head.classes = CLASSES
        config.system.mask = part("masking.TimeFrequency", time=0.25, frequency=0.25)
        config.eval.evaluators = ConfigDict(
            dict(
                precision=part("evaluation.MeanAveragePrecision"),
                probe=part("evaluation.LabelSetProbe", regularisations=(1e-2, 1.0)),
            )
        )
        config.eval.baselines = ("raw",)
        config.eval.batch_size = 80
        config.train.duration = "100 steps"
        config.train.batch_size = 32
    return config


def changed(config, **system):
    config = config.copy_and_resolve_references()
    with config.unlocked():
        for name, value in system.items():
            config.system[name] = value
    return config


def batch_of(count=6):
    rng = np.random.default_rng(0)
    return {
        "audio": jnp.asarray(rng.integers(-9000, 9000, (count, 2048)), jnp.int16),
        "labels": jnp.asarray(rng.integers(0, 2, (count, CLASSES)), jnp.uint8),
        "_mask": jnp.arange(count) != 2,
    }


def test_training_tells_the_classes(config):
    run = prepare(config, jax.devices()[:1])
    evaluation = Evaluation(config, run.system, run.mesh)
    with (
        jax.set_mesh(run.mesh),
        train_batches(run.records, run.system.inputs, batch_size=32, seed=0, stop=100) as batches,
    ):
        state, step = run.init_state(), run.jitted_step
        before = evaluation(state.variables)
        for batch in batches:
            state, _ = step(state, place_batch(run.mesh, batch))
        metrics = evaluation(state.variables, baselines=True)
    assert metrics["eval/precision/classes"] == metrics["eval/probe/classes"] == CLASSES
    assert before["eval/precision/map"] < 0.6  # 40 % of the recordings are of a class
    assert metrics["eval/precision/map"] > 0.9
    assert metrics["eval/probe/map"] > 0.95
    assert metrics["eval/raw/probe/map"] > 0.95
    assert "eval/raw/precision/map" not in metrics
    # Who has a sound need not know its classes.
    loaded = Loaded(config, run.system, state.variables, 100)
    assert loaded.encode(np.zeros((1, 2048), np.int16))["head"]["logits"].shape == (1, CLASSES)
    assert loaded.read([np.ones(2048, np.int16)])["audio"].shape == (1, 2048)
    assert set(loaded.read(most=2)) == {"audio", "labels", "label"}


def test_the_loss_is_the_mean_over_classes_and_real_examples():
    batch, logits = batch_of(), jnp.linspace(-3.0, 3.0, 36).reshape(6, CLASSES)
    value = BinaryCrossEntropy()({"head": {"logits": logits}}, batch)
    p, y = jax.nn.sigmoid(logits), batch["labels"]
    each = -(y * jnp.log(p) + (1 - y) * jnp.log(1 - p)).mean(axis=1)
    np.testing.assert_allclose(value.total / value.count, jnp.delete(each, 2).mean(), rtol=1e-5)
    assert value.count == 5


def test_labels_are_mixed_as_the_waveforms_are(config):
    system = build_system(config)
    batch = batch_of()
    augment = jax.jit(system.augment)
    for seed in range(8):
        mixed = augment(jax.random.key(seed), batch)
        share = np.asarray(mixed["_share"])
        if share[0] != 1:
            break
    assert 0 < share[0] < 1
    assert share[2] == share[3] == 1  # one of this pair cannot be read
    own = np.asarray(batch["labels"], np.float32)
    expected = share[:, None] * own + (1 - share[:, None]) * own[::-1]
    np.testing.assert_allclose(mixed["labels"], expected, atol=1e-6)
    assert "_partner" not in mixed


def test_a_mask_hides_patches_in_training_alone(config):
    system = build_system(config)
    variables, batch = jax.jit(system.init)(jax.random.key(0)), batch_of()
    masks = system.sample_masks(jax.random.key(1), variables, batch)
    out = jax.jit(system.forward)(variables, batch, masks)
    seen = 4 * 3  # of 6 times and 4 frequencies
    assert out["encoder"]["patches"].shape[1] == seen < system.grid.num_tokens
    # The head reads the mean of the patches that were seen, without the class token.
    tokens = out["encoder"]["output"]
    assert tokens.shape[1] == seen + 1
    pooled = tokens[:, 1:].astype(jnp.float32).mean(axis=1)
    pooled = (pooled - pooled.mean(axis=1, keepdims=True)) / jnp.sqrt(
        pooled.var(axis=1, keepdims=True) + 1e-6
    )
    np.testing.assert_allclose(out["head"]["features"], pooled, atol=1e-4)
    whole = jax.eval_shape(system.encode, variables, batch)["encoder"]["patches"]
    assert whole.shape[1] == system.grid.num_tokens


def test_bands_are_zero_in_training_alone(config):
    bands = part("data.Bands", frames=8, frequencies=6)
    plain, system = (build_system(changed(config, mask=None, bands=b)) for b in (None, bands))
    batch = batch_of()

    @jax.jit
    def all_at_once():
        key = jax.random.key(0)  # that of `reconstruct`
        augmented = [each.augment(key, batch) for each in (plain, system)]
        view = plain.input("audio").denormalise(
            plain.input("audio").normalise(augmented[0]["audio"])
        )
        variables = system.init(key)
        patches = [system.forward(variables, each, {})["encoder"]["patches"] for each in augmented]
        return augmented, view, system.reconstruct(variables, batch, {}), patches

    augmented, view, drawn, patches = jax.device_get(all_at_once())
    # They change nothing else that is drawn.
    assert augmented[1].keys() - augmented[0].keys() == {"_bands"}
    for name in augmented[0]:
        np.testing.assert_array_equal(augmented[0][name], augmented[1][name])
    expected = np.clip(view, 0, 1)
    for row, ((first, last), (low, high)) in zip(expected, augmented[1]["_bands"], strict=True):
        row[first:last] = row[:, low:high] = 0.5 + 4.4 / 6.8 / 6  # mean and deviation of `tiny`
    np.testing.assert_allclose(drawn["augmented"], expected, atol=1e-5)
    changes = (expected != np.clip(view, 0, 1)).any(axis=(1, 2, 3))
    assert changes.sum() >= 4
    np.testing.assert_array_equal((patches[0] != patches[1]).any(axis=(1, 2)), changes)
    without = jax.make_jaxpr(plain.encode)(system.shapes, batch)
    assert str(jax.make_jaxpr(system.encode)(system.shapes, batch)) == str(without)


@pytest.mark.parametrize(
    ("system", "words"),
    [
        (dict(head=part("models.ClassHead", classes=9)), "has 6 classes, but system.head.classes"),
        (dict(mask=part("masking.Uniform", ratio=1.0)), "masks all"),
        (dict(bands=part("data.Bands")), "up to 192 frames and 48 frequencies, but .* 24 and 16"),
        (dict(mask=part("masking.MultiBlock", min_keep=1)), "MultiBlock does not say"),
        (
            dict(terms=dict(labels=part("objectives.BinaryCrossEntropy", labels="batch.tags"))),
            "'batch.tags' is no array of the batch",
        ),
    ],
)
def test_what_does_not_fit(config, system, words):
    with pytest.raises(UserError, match=words):
        build_system(changed(config, **system))
