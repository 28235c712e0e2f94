"""Fine-tuning and probing: whose weights, which of them learn, and the numbers of the reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import maskjax
import torch_names
from maskjax.config import build, part
from maskjax.data import Digits, Image
from maskjax.errors import UserError
from maskjax.models import ClassHead, ViT, fixed_positions
from maskjax.objectives import LabelCrossEntropy
from maskjax.paths import named_leaves
from maskjax.systems import Classifier, build_system
from maskjax.tokens import TokenGrid, resize_table
from maskjax.training.durations import Clock
from maskjax.training.pretrained import restore_part
from maskjax.training.run import prepare
from maskjax.training.step import make_train_step
from maskjax.training.streams import stream
from test_configs import load

KEY = jax.random.key(0)
IDENTITY = dict(mean=(0.0,) * 3, std=(1 / 255,) * 3)  # of pixels in [0, 255]


@pytest.fixture(scope="module")
def reference(golden):
    return golden("mae_recipes")


@pytest.mark.parametrize("pooled", ["gap", "cls"])
def test_features_and_logits_are_those_of_the_reference(reference, pooled):
    get = {
        k.removeprefix("param/vit/"): v for k, v in reference.items() if k.startswith("param/vit/")
    }
    only = "param/vit_cls_only/"
    get |= {k.removeprefix(only): v for k, v in reference.items() if k.startswith(only)}
    if pooled == "gap":  # its head is another one
        get |= {k: reference[f"param/vit/{k}"] for k in ("head.weight", "head.bias")}
    encoder = {
        "embed": torch_names.patch_embed(get),
        # The reference adds the first row of its table to the class token.
        "cls": get["cls_token"].reshape(-1) + get["pos_embed"][0, 0],
        "positions": get["pos_embed"][0, 1:],
        "stack": {"blocks": torch_names.blocks(get, "blocks.")},
        "norm": torch_names.norm(get, "norm"),
    }
    head = {"linear": torch_names.dense(get, "head")}
    if pooled == "gap":
        head["norm"] = torch_names.norm(get, "fc_norm")
    source = {"gap": dict(), "cls": dict(source="encoder.cls", norm="none")}[pooled]
    system = Classifier(
        encoder=ViT((8, 8), 32, 2, 2, dtype="float32"),
        head=ClassHead(5, **source),
        train_positions=True,
        terms={"labels": LabelCrossEntropy()},
        inputs={"image": Image((32, 32), 3, **IDENTITY)},
    )
    variables = {"params": jax.tree.map(jnp.asarray, {"encoder": encoder, "head": head})}
    shapes = jax.tree.map(lambda x: x.shape, (variables["params"], system.shapes["params"]))
    assert shapes[0] == shapes[1]
    images = jnp.asarray(reference["in/imgs_nchw"].transpose(0, 2, 3, 1))
    out = jax.jit(system.encode)(variables, {"image": images})["head"]
    for name in ("features", "logits"):
        expected = reference[f"out/vit_{pooled}/{name}"]
        np.testing.assert_allclose(out[name], expected, atol=1e-5 * np.abs(expected).max())


def tiny(variant="tiny", **system):
    config = load(f"finetune:{variant}")
    with config.unlocked():
        config.system.update(system)
    return config


@pytest.mark.parametrize("variant", ["tiny", "linear-tiny", "attentive-tiny"])
def test_the_encoder_of_a_run_arrives(tiny_run, variant):
    run = prepare(tiny(variant, run=str(tiny_run)), jax.devices()[:1])
    variables = run.init_state().variables
    trained = variables["params" if variant == "tiny" else "teacher"]["encoder"]
    before = maskjax.load(tiny_run).variables["params"]["encoder"]
    if variant == "tiny":
        trained = dict(trained)
        table = fixed_positions("sincos", TokenGrid((4, 4), (2, 2), 1), 16)
        np.testing.assert_array_equal(trained.pop("positions"), table)
    jax.tree.map(np.testing.assert_array_equal, trained, before)
    assert len(jax.tree.leaves(before)) == 21
    scratch = prepare(tiny(variant), jax.devices()[:1]).init_state().variables
    same = jax.tree.map(np.array_equal, scratch["params"]["head"], variables["params"]["head"])
    assert all(jax.tree.leaves(same))  # only the encoder is taken over


def test_its_features_are_those_of_the_run(tiny_run):
    """Pretraining adds fixed positions, fine-tuning starts with the same as parameters."""
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1)).astype(np.uint8)
    expected = maskjax.load(tiny_run).encode(images)["encoder"]["tokens"]
    run = prepare(tiny(run=str(tiny_run)), jax.devices()[:1])
    encode = jax.jit(run.system.encode)
    found = encode(run.init_state().variables, {"image": jnp.asarray(images)})
    np.testing.assert_allclose(found["encoder"]["tokens"], expected, atol=1e-5)


@pytest.mark.parametrize("train_positions", [True, False])
def test_another_size_resizes_the_positions(tiny_run, train_positions):
    config = tiny(run=str(tiny_run), pretrained_size=(8, 8), train_positions=train_positions)
    config.data.inputs.image.size = (12, 8)
    system = build_system(config)
    variables = system.load_pretrained(jax.jit(system.init)(jax.random.key(0)), restore_part)
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 12, 8, 1)), jnp.uint8)
    mae = maskjax.load(tiny_run)  # resizes its table, too
    expected = mae.encode(images)["encoder"]["tokens"]
    found = jax.jit(system.encode)(variables, {"image": images})["encoder"]["tokens"]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    if train_positions:
        table = resize_table(fixed_positions("sincos", mae.system.grid, 16), (4, 4), (6, 4))
        np.testing.assert_allclose(variables["params"]["encoder"]["positions"], table, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(width=32), "has width 16, here it is 32"),
        (dict(depth=3), "has depth 2, here it is 3"),
        (dict(patch_size=(4, 4)), "has patch_size"),
    ],
)
def test_another_encoder_than_that_of_the_run_is_refused(tiny_run, change, words):
    config = tiny(run=str(tiny_run))
    config.system.encoder.update(change)
    system = build_system(config)
    with pytest.raises(UserError, match=words):
        system.load_pretrained(system.shapes, restore_part)


@pytest.mark.parametrize("variant", ["linear-tiny", "attentive-tiny"])
def test_a_frozen_encoder_stays_bit_for_bit_and_the_head_learns(variant):
    config = tiny(variant)
    system = build_system(config)
    run = prepare(config, jax.devices()[:1])
    state = run.init_state()
    first = jax.device_get(state.variables)
    assert not any("encoder" in name for name in named_leaves(state.opt_state))
    rng = np.random.default_rng(0)
    batch = {
        "image": jnp.asarray(rng.integers(0, 256, (32, 8, 8, 1)), jnp.uint8),
        "label": jnp.arange(32) % 10,
        "_mask": jnp.arange(32) != 3,
    }
    step = jax.jit(make_train_step(system, run.optimizer, lambda step: 1.0, 10, 1))
    losses = []
    for _ in range(5):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    last = jax.device_get(state.variables)
    jax.tree.map(np.testing.assert_array_equal, last["teacher"], first["teacher"])
    for tree, name in (("params", "head"), ("stats", "head")):
        pairs = [named_leaves(each[tree][name]) for each in (first, last)]
        assert all((pairs[0][leaf] != pairs[1][leaf]).any() for leaf in pairs[0])
    assert losses[-1] < losses[0]

    def loss(encoder):
        variables = {**last, "teacher": {"encoder": encoder}}
        return system.term_values(variables, batch, {}, stream_keys)[0]["labels"].total

    stream_keys = {"dropout": jax.random.key(0)}
    gradient = jax.jit(jax.grad(loss))(last["teacher"]["encoder"])
    assert not any(jnp.any(leaf) for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize(("variant", "heads"), [("B/16", 12), ("L/16", 16)])
def test_the_attentive_probe_as_published(variant, heads):
    config = load(f"finetune:attentive-{variant}")
    assert config.system.head.heads == heads
    assert config.train.batch_size == 8192
    rate = build(config.schedule).build(Clock(8192, 100, 9000))
    np.testing.assert_allclose([rate(500), rate(1000), rate(9000)], [0.2, 0.4, 0], atol=1e-6)


def test_a_head_drops_values_in_training_alone():
    config = tiny()
    config.system.mixing = None
    config.system.head.update(classes=16, dropout=0.25)
    system = build_system(config)
    variables = system.init(jax.random.key(0))
    # With this layer the logits are what it reads.
    variables["params"]["head"]["linear"]["kernel"] = jnp.eye(16)
    images = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 1)).astype(np.uint8)
    batch = {"image": jnp.asarray(images), "label": jnp.zeros(64, int)}

    @jax.jit
    def evaluated():
        return system.forward(variables, batch, {})["head"], system.encode(variables, batch)["head"]

    quiet = evaluated()[0]
    for out in evaluated():
        np.testing.assert_allclose(out["logits"], out["features"], atol=1e-6)

    @jax.jit
    def trained(step):
        return system.forward(variables, batch, {}, {"dropout": stream(KEY, "dropout", step)})

    first, second = (trained(step)["head"] for step in (0, 1))
    for out in (first, second):
        kept = np.asarray(out["logits"] != 0)
        assert abs(kept.mean() - 0.75) < 0.05  # of 1,024 values; 3.7 deviations
        expected = np.where(kept, out["features"] / 0.75, 0)
        np.testing.assert_allclose(out["logits"], expected, rtol=1e-5)
        np.testing.assert_allclose(out["features"], quiet["features"], atol=1e-4)
    assert ((first["logits"] != 0) != (second["logits"] != 0)).any()


def test_every_step_mixes_anew_and_labels_keep_their_mass():
    config = tiny()
    config.data.inputs.image.size = (64, 64)
    config.data.inputs.image.erase.probability = 0.0
    system = build_system(config)
    images = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 1)).astype(np.uint8)
    labels = jnp.arange(6)

    @jax.jit
    def mixed(step):
        key = stream(jax.random.key(0), "augment", step)
        batch = {"image": jnp.asarray(images), "label": labels, "_mask": labels != 1}
        return system.augment(key, batch)

    steps = [mixed(step) for step in range(12)]
    assert len({float(out["_share"][0]) for out in steps}) == 12
    assert len({np.asarray(out["image"]).tobytes() for out in steps}) == 12
    for out in steps:
        np.testing.assert_array_equal(out["_partner"], labels[::-1])
        share = np.asarray(out["_share"])
        assert (share >= 0).all() and (share <= 1).all()
        # Both of a pair whose one image could not be read stay alone.
        np.testing.assert_array_equal(share[[1, 4]], 1.0)


def test_examples_are_mixed_before_the_batch_is_cut():
    """So that two micro-batches are one batch, although partners may be in different ones."""
    config = tiny()
    system, run = build_system(config), prepare(config, jax.devices()[:1])
    rng = np.random.default_rng(0)
    batch = {
        "image": jnp.asarray(rng.integers(0, 256, (8, 8, 8, 1)), jnp.uint8),
        "label": jnp.arange(8),
        "_mask": jnp.arange(8) != 6,
    }
    fresh, results = run.init_state(), []
    for accumulate in (1, 2):
        step = make_train_step(system, run.optimizer, lambda step: 1e-2, 10, accumulate)
        state, metrics = jax.jit(step)(fresh, batch)
        results.append((metrics["loss"], metrics["gradient_norm"], state.variables["params"]))
    for one, two in zip(*results, strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), one, two)


def test_mixed_labels_make_the_loss():
    """Logits that only know the first image are wrong by what the second one has of the label."""
    term = LabelCrossEntropy("logits")
    logits = jnp.log(jnp.array([[0.5, 0.25, 0.25]]))
    batch = {"label": jnp.array([0]), "_partner": jnp.array([2]), "_share": jnp.array([0.75])}
    value = term({"logits": logits}, batch)
    assert float(value.total) == pytest.approx(-0.75 * np.log(0.5) - 0.25 * np.log(0.25))
    assert float(value.metrics["accuracy"]) == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.system.head.update(classes=7), "10 classes, but system.head.classes is 7"),
        (lambda c: c.system.head.update(source="encoder.clss"), "did you mean 'encoder.cls'"),
        (lambda c: c.system.head.update(source="encoder.blocks"), "neither tokens nor a vector"),
        (lambda c: c.system.head.update(norm="group"), "one of layer, batch, none"),
        (lambda c: c.system.head.update(dropout=1.0), "head.dropout is 1.0"),
        (lambda c: c.system.update(bands=part("data.Bands")), "those of a spectrogram"),
        (lambda c: c.system.update(frozen=True), "Nothing is trained in a frozen encoder"),
        (lambda c: c.system.encoder.update(positions="none"), "needs an encoder with a fixed"),
        (lambda c: c.system.mixing.update(mixup=0.0, cutmix=0.0), "positive mixup or cutmix"),
        (lambda c: c.optimizer.update(stacked="^nowhere"), "there is none"),
        (lambda c: c.data.inputs.image.augment.update(place="device"), "on the host"),
    ],
)
def test_what_does_not_fit_is_one_sentence(change, words):
    config = tiny()
    change(config)
    with pytest.raises(UserError, match=words):
        prepare(config, jax.devices()[:1])


def test_unlabelled_records_are_refused():
    records = Digits().open("train")
    object.__setattr__(records, "num_classes", None)
    with pytest.raises(UserError, match="have no labels"):
        build_system(tiny()).check_records(records)


def test_the_encoders_are_those_of_the_pretrainings():
    for variant in ("cifar10", "tiny", "L/16"):
        there = load(f"mae:{variant}").system.encoder
        for recipe in ("", "linear-", "attentive-"):
            here = load(f"finetune:{recipe}{variant}")
            same = {k: v for k, v in here.system.encoder.items() if k not in ("drop_path", "remat")}
            assert same == {k: there[k] for k in same}
            inputs = (here, load(f"mae:{variant}"))
            first, second = (c.data.inputs.image for c in inputs)
            assert all(first[k] == second[k] for k in ("size", "channels", "mean", "std"))
