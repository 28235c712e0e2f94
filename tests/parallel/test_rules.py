"""Which dimension of which parameter is split, by rules and by FSDP."""

import math
import re

import jax
import jax.numpy as jnp
import pytest

from maskjax import models
from maskjax.config import build, from_json, to_json
from maskjax.errors import UserError
from maskjax.parallel.mesh import make_mesh
from maskjax.parallel.sharding import state_shardings, whole_leaves
from maskjax.paths import named_leaves
from maskjax.systems import build_system
from maskjax.training.run import prepare
from maskjax.training.state import abstract_state
from test_configs import load

# What Megatron splits: {end of the name: dimension from the end}; everything else is whole.
COLUMNS = ("query/kernel", "key/kernel", "value/kernel", "mlp/up/kernel")
ROWS = ("attention/out/kernel", "mlp/down/kernel")
VECTORS = ("query/bias", "key/bias", "value/bias", "mlp/up/bias")


def split_over(axis, leaves):
    """Returns {name: dimension, from the end, that is split over an axis}."""
    found = {}
    for name, leaf in leaves.items():
        spec = tuple(leaf.sharding.spec)
        if axis in spec:
            found[name] = spec.index(axis) - len(leaf.shape)
    return found


def state_of(variant, rules=(), min_size=2**16, **mesh):
    config = load(variant)
    system = build_system(config)
    optimizer = build(config.optimizer).build(10)
    return abstract_state(system, optimizer, make_mesh(mesh), min_size, rules)


@pytest.mark.parametrize(
    ("variant", "columns", "vectors", "count"),
    [
        ("mae:tiny", (), (), 20),  # stacked blocks of encoder and decoder
        ("retromae:tiny", (), (), 20),  # post-norm blocks; a decoder of one, not stacked
        # Windows: a small network gives a bias per head, and heads have temperatures.
        ("audio_mae:tiny", ("offsets_down/kernel",), ("offsets_down/bias", "attention/tau"), 23),
        ("beit:tiny", ("relative_bias/table",), (), 10),  # no bias of the keys
        ("multimae:tiny", (), (), 70),  # cross-attention
    ],
)
def test_tensor_splits_heads_and_hidden_layers(variant, columns, vectors, count):
    params = named_leaves(state_of(variant, data=4, tensor=2).variables["params"])
    split = split_over("tensor", params)
    expected = {}
    for name in params:
        if name.endswith((*COLUMNS, *columns)):
            expected[name] = -1
        elif name.endswith(ROWS):
            expected[name] = -2
        elif name.endswith((*VECTORS, *vectors)):
            expected[name] = -1
    assert split == expected
    assert len(split) == count
    for name in split:
        size = math.prod(params[name].sharding.shard_shape(params[name].shape))
        assert size * 2 == math.prod(params[name].shape)


def test_the_mlps_of_convnext():
    network = models.ConvNeXt(depths=(1, 1), widths=(8, 16))
    params = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)), None)
    shardings = state_shardings(make_mesh(dict(tensor=8)), {"variables": params}, 2**16)
    specs = {name: tuple(s.spec) for name, s in named_leaves(shardings).items()}
    start = "variables/params/stage1_block0/"
    assert {name: spec for name, spec in specs.items() if spec and name.startswith(start)} == {
        f"{start}up/kernel": (None, "tensor"),
        f"{start}up/bias": ("tensor",),
        f"{start}down/kernel": ("tensor",),
    }


def test_stacked_or_not():
    """A decoder of one block has the names of a stack, but no axis of depth."""
    params = named_leaves(state_of("retromae:tiny", tensor=8, data=1).variables)
    for name, spec in (("mlp/up/kernel", (None, "tensor")), ("mlp/down/kernel", ("tensor",))):
        assert tuple(params[f"params/decoder/{name}"].sharding.spec) == spec
        assert tuple(params[f"params/encoder/blocks/{name}"].sharding.spec) == (None, *spec)


def test_fsdp_takes_the_largest_dimension_that_is_left():
    params = state_of("mae:tiny", min_size=64, fsdp=4, tensor=2).variables["params"]
    blocks = params["encoder"]["stack"]["blocks"]
    up, down = blocks["mlp"]["up"], blocks["mlp"]["down"]
    assert up["kernel"].shape[1:] == (16, 64)
    assert tuple(up["kernel"].sharding.spec) == (None, "fsdp", "tensor")
    assert tuple(down["kernel"].sharding.spec) == (None, "tensor", "fsdp")
    assert tuple(down["bias"].sharding.spec) == ()
    assert tuple(params["encoder"]["embed"]["kernel"].sharding.spec) == (None, "fsdp")


@pytest.mark.parametrize("variant", ["mae:tiny", "ijepa:tiny", "hpm:tiny"])
def test_moments_and_teachers_follow(variant):
    """By their names: those that end as the name of a parameter lie as it does."""
    state = state_of(variant, min_size=64, data=2, fsdp=2, tensor=2)
    params = named_leaves(state.variables["params"])
    others = named_leaves({"moments": state.opt_state, "teacher": state.variables.get("teacher")})
    followers = [
        (name, theirs, leaf)
        for name, leaf in others.items()
        for theirs in params
        if name.endswith(f"/{theirs}")
    ]
    for name, theirs, leaf in followers:
        assert leaf.sharding == params[theirs].sharding, name
        assert leaf.shape == params[theirs].shape, name
    moments = [name for name, *_ in followers if name.startswith("moments")]
    assert len(moments) == 2 * len(params)
    if variant != "mae:tiny":
        assert any(name.startswith("teacher") for name, *_ in followers)
        assert len(split_over("tensor", named_leaves(state.variables["teacher"]))) >= 10


def test_a_teacher_that_is_another_network():
    """It has no names in common with the parameters but the ends."""
    state = state_of("dmae:tiny", min_size=64, data=2, fsdp=2, tensor=2)
    assert len(split_over("tensor", named_leaves(state.variables["teacher"]))) == 10


def test_rules_of_the_configuration_come_first():
    rules = (
        ("/encoder/.*/mlp/", ()),
        ("/decoder/embed/kernel$", ("tensor", "fsdp")),
        ("/embed/kernel$", (None, "tensor")),
    )
    config = load("mae:tiny")
    with config.unlocked():
        config.parallel.mesh.update(data=2, fsdp=2, tensor=2)
        config.parallel.rules = rules
    config = from_json(to_json(config))
    assert config.parallel.rules == rules
    params = prepare(config, None, range(1000)).abstract_state.variables["params"]
    split = split_over("tensor", named_leaves(params))
    assert not any(re.search("encoder/.*/mlp/", name) for name in split)
    assert any(re.search("decoder/.*/mlp/up", name) for name in split)
    assert tuple(params["decoder"]["embed"]["kernel"].sharding.spec) == ("tensor", "fsdp")
    assert tuple(params["encoder"]["embed"]["kernel"].sharding.spec) == (None, "tensor")


@pytest.mark.parametrize(
    ("rules", "sentence"),
    [
        ("tensor", "write a tuple of rules"),
        ((("/mlp/up/kernel$", "tensor"),), "write a tuple of rules"),
        (("/mlp/up/kernel$", ("tensor",)), "write a tuple of rules"),
        ((("/mlp/(up/kernel$", ("tensor",)),), "no regular expression: missing \\)"),
        ((("/mlp/up/kernel$", ("model",)),), "names the axis 'model'"),
        ((("/mlp/up/kernel$", ("data",)),), "split over fsdp and tensor"),
        ((("/mlp/up/kernel$", ("tensor", "tensor")),), "names an axis twice"),
        ((("/mlp/upper/kernel$", ("tensor",)),), "decides over nothing"),
        ((("^encoder/", ("tensor",)),), "for example, 'variables/params/decoder/embed/kernel'"),
        ((("/mlp/up/", ()), ("/mlp/up/kernel$", ("tensor",))), "kernel.*decides over nothing"),
        ((("/mlp/up/kernel$", (None,) * 4),), "decides over nothing"),
        (
            (("/decoder/norm/scale", ("tensor",)), ("/decoder/head/bias", ("tensor",))),
            r"params/decoder/head/bias \[4\] cannot be split over tensor=8.*not divide 4",
        ),
    ],
)
def test_rules_that_cannot_be_followed(rules, sentence):
    with pytest.raises(UserError, match=sentence):
        state_of("mae:tiny", rules, tensor=8)


def with_mesh(variant="mae:tiny", **settings):
    config = load(variant)
    with config.unlocked():
        config.update_from_flattened_dict({f"parallel.{k}": v for k, v in settings.items()})
    return prepare(config, None, range(1000))


def test_heads_that_cannot_be_shared_out():
    with pytest.raises(UserError, match=r"does not divide system\.\w+\.heads = 2"):
        with_mesh(**{"mesh.data": 2, "mesh.tensor": 4})


def test_the_limit_of_what_stays_whole():
    mesh = {"mesh.data": 1, "mesh.fsdp": 8, "fsdp_min_size": 64}
    params = with_mesh(**mesh, max_replicated=0.1).abstract_state.variables["params"]
    whole = whole_leaves(params)
    leaves = named_leaves(params)
    assert list(whole.values()) == sorted(whole.values(), reverse=True)
    for name, leaf in leaves.items():
        assert (name in whole) == (leaf.sharding.shard_shape(leaf.shape) == leaf.shape)
    share = sum(whole.values()) / sum(4 * math.prod(leaf.shape) for leaf in leaves.values())
    assert 0.02 < share < 0.1
    first = next(iter(whole))
    sentence = rf"\({share:.1%}\) of the parameters .*max_replicated = 0.02 .*{first}"
    with pytest.raises(UserError, match=sentence):
        with_mesh(**mesh, max_replicated=0.02)
    with pytest.raises(UserError, match=r"\(100\.0%\)"):
        with_mesh(max_replicated=0.5)
    with pytest.raises(UserError, match="between 0 and 1"):
        with_mesh(max_replicated=2.0)
