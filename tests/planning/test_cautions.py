"""What surprises is said in a sentence, and is not said where it does not hold."""

import dataclasses
import runpy
import types
from pathlib import Path

import jax
import pytest

from maskjax.planning import cautions, chips, hlo, memory, topology
from maskjax.planning.compiling import Compiled
from maskjax.planning.memory import Memory
from maskjax.planning.search import changed
from maskjax.training.run import prepare

MAE = Path(__file__).parents[2] / "configs" / "mae.py"
V5E, H200 = topology.parse("v5e:2x4"), topology.parse("h200:8")
TEXT = hlo.parse(
    "ENTRY %main (a: f32[512,64]) -> f32[512,64] {\n"
    '  %a = f32[512,64]{1,0:T(8,128)} parameter(0), metadata={op_name="state.kernel"}\n'
    "  ROOT %b = f32[512,64]{1,0:T(8,128)} copy(%a)\n}\n"
)


def program(**keys):
    config = runpy.run_path(str(MAE))["get_config"]("tiny")
    keys = {name.replace("__", "."): value for name, value in keys.items()}
    run = prepare(changed(config, keys), jax.devices(), records=range(1000))
    return types.SimpleNamespace(run=run)


@pytest.fixture(scope="module")
def split():
    """Returns a step with FSDP whose encoder is 20 wide, which 8 does not divide."""
    return program(
        parallel__mesh__fsdp=8,
        parallel__fsdp_min_size=100,
        system__encoder__width=20,
        system__encoder__heads=5,
        system__encoder__scan=True,
    )


@pytest.fixture(scope="module")
def plain():
    return program()


def of_peak(share):
    return Memory(0, 0, 0, None, None, None, peak=share * 100, needed=None, capacity=100)


def test_leaves_that_stay_whole_and_loops_without_remat(split, plain):
    text = " ".join(cautions.of_state(split, of_peak(0.5), V5E))
    assert "large leaves whole on every device" in text
    assert "divisible by 8" in text
    assert "attention/query/kernel" in text
    assert "system.encoder loops over its blocks (scan) without remat" in text
    assert "system.decoder" not in text
    assert cautions.of_state(plain, of_peak(0.5), V5E) == []


def test_devices_that_repeat_the_work_of_others():
    split = program(parallel__mesh__tensor=2)
    assert cautions.of_state(split, of_peak(0.5), V5E) == []
    whole = program(parallel__mesh__tensor=2, parallel__rules=(("", ()),))
    found = cautions.of_state(whole, of_peak(0.5), V5E)
    assert ["parallel.mesh.tensor=1" in sentence for sentence in found] == [True]


@pytest.mark.parametrize(
    ("slice_", "share", "sentence"),
    [
        (V5E, 0.95, "above 90% of the capacity"),
        (V5E, 0.8, None),
        (H200, 0.95, "NCCL"),
        (H200, 0.8, "XLA_PYTHON_CLIENT_MEM_FRACTION"),
        (H200, 0.6, None),
    ],
)
def test_a_peak_near_the_capacity(plain, slice_, share, sentence):
    found = cautions.of_state(plain, of_peak(share), slice_)
    assert len(found) == (sentence is not None)
    assert sentence is None or sentence in found[0]
    refused = dataclasses.replace(of_peak(share), peak=None, needed=200)
    assert cautions.of_state(plain, refused, slice_) == []


def test_padding_is_named(plain):
    by_hand = memory.shard_bytes(plain.run.abstract_state)
    for padded, count in ((1.5, 1), (1.05, 0)):
        compiled = Compiled({"alias": int(padded * by_hand)}, "", 0.0)
        found = cautions.of_compiled(TEXT, plain, compiled, {}, V5E)
        assert len(found) == count
        assert all("state.kernel 0.2 instead of 0.1 MiB" in sentence for sentence in found)


def test_collectives_of_fsdp_that_were_cut_up(split):
    table = {"collective-permute": dict(runs=4000, bytes=1e9)}
    [sentence] = cautions.of_compiled(TEXT, split, Compiled({}, "", 0.0), table, V5E)
    assert "became 4,000 permutes (windowed einsum)" in sentence
    assert all(name in sentence for name in cautions.WINDOWED_EINSUM)
    assert cautions.of_compiled(TEXT, split, Compiled({}, "", 0.0), table, H200) == []


def test_weights_that_are_split_too_thin():
    table = {"all-gather": dict(bytes=1e8), "all-reduce": dict(bytes=1e9)}
    [sentence] = cautions._of_fsdp(256, table, V5E)
    assert "try parallel.mesh.fsdp=16" in sentence
    assert cautions._of_fsdp(16, table, V5E) == []
    assert cautions._of_fsdp(256, table | {"reduce-scatter": dict(bytes=1e9)}, V5E) == []


def test_a_clock_that_nothing_has_confirmed(plain):
    for name in chips.UNPROVEN_CLOCKS:
        slice_ = topology.parse(f"{name}:{'2x2x1' if name == 'tpu7x' else '2x2'}")
        [sentence] = cautions.of_compiled(TEXT, plain, Compiled({}, "", 0.0), {}, slice_)
        assert "is not published" in sentence
