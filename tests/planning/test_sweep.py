"""Choices that are compared: how they are written, and their table."""

import dataclasses
import runpy
from pathlib import Path

import pytest

from maskjax.errors import UserError
from maskjax.planning import planner, roofline, sweep, topology
from maskjax.planning.memory import Memory

MAE = Path(__file__).parents[2] / "configs" / "mae.py"
GIB = 2**30


@pytest.fixture(scope="module")
def config():
    return runpy.run_path(str(MAE))["get_config"]("tiny")


def test_choices_have_the_types_of_the_configuration(config):
    text = "fsdp=1,4; remat=none,full;windowed_einsum=true,False;system.mask.ratio=.5"
    choices = sweep.parse(text, config)
    assert choices["system.mask.ratio"] == [0.5]
    assert choices["fsdp"] == [1, 4]
    assert choices["remat"] == ["none", "full"]
    assert choices["windowed_einsum"] == [True, False]
    assert len(list(sweep.combinations(choices, config))) == 8


def test_a_combination_reaches_every_network(config):
    choices = sweep.parse("remat=full;batch=128", config)
    [(row, each, windowed)] = sweep.combinations(choices, config)
    assert row == {"remat": "full", "batch": 128}
    assert each.system.encoder.remat == each.system.decoder.remat == "full"
    assert each.train.batch_size == 128
    assert config.train.batch_size != 128
    assert windowed is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "--sweep is empty"),
        ("fsdp", "write NAME=VALUE"),
        ("fsdp=", "write NAME=VALUE"),
        ("fspd=2", "fspd"),
        ("fsdp=two", "fsdp cannot be 'two'"),
        ("windowed_einsum=maybe", "give true or false"),
    ],
)
def test_mistakes(config, text, sentence):
    with pytest.raises(UserError, match=sentence):
        sweep.parse(text, config)


def made(config, settings):
    """Returns a plan as the planner would, from numbers: full remat fits, other does not."""
    if config.parallel.mesh.fsdp == 3:
        raise UserError("A mesh of 3 does not fit.\nSecond line.")
    fits = config.system.encoder.remat == "full"
    return planner.Plan(
        config=config,
        settings=settings,
        versions="",
        mesh={"data": 1, "fsdp": 4, "tensor": 1},
        steps=10,
        steps_per_epoch=5,
        parameters=1,
        memory=Memory(
            *(GIB, 2 * GIB, 0, None, None, None),
            peak=8 * GIB if fits else None,
            needed=None if fits else 20 * GIB,
            capacity=15.75 * GIB,
        ),
        model_flops=1,
        hardware_flops=1,
        peak_flops=1.0,
        collectives={"all-reduce": dict(ops=1, runs=1, bytes=1e6, wire=2e6)} if fits else None,
        loops=(0, 0),
        traffic=1.0,
        parts={},
        without_estimate={},
        times=roofline.Times(0.001, 0.002, 0.004, 0.008) if fits else None,
        compile_seconds=0.0,
        warnings=("Leaf a stays whole.",) if fits else ("Leaf a stays whole.", "No remat."),
    )


def test_table(config):
    """Facts and predictions side by side; reasons and warnings below, each once."""
    settings = planner.Settings(topology.parse("v5e:2x2"), 100, say=lambda sentence: None)
    choices = sweep.parse("fsdp=4,3;remat=full,none", config)
    text, plans = sweep.table(choices, config, settings, made)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    batch = config.train.batch_size
    assert lines[0].startswith("fsdp remat fits state GiB peak GiB sent MB bound ms expected ms")
    assert lines[1] == (f"4 full yes 3 8 2 4 8 - 12 {batch / 0.012:,.0f} - {batch / 0.008:,.0f} 1")
    assert lines[2] == "4 none NO 3 20 1,2"
    assert lines[3] == "3 full - - - - - - - 3"
    assert text.count("Leaf a stays whole.") == 1
    assert "[3] A mesh of 3 does not fit." in text
    assert "Second line" not in text
    assert "15.75 GiB" in text
    assert [plan.get("error", "")[:6] for plan in plans] == ["", "", "A mesh", "A mesh"]
    assert plans[0]["sweep"] == {"fsdp": 4, "remat": "full"}


def test_what_bounds_kernels_is_no_expectation(config):
    settings = planner.Settings(topology.parse("h200:4"), 100, say=lambda sentence: None)
    text, plans = sweep.table({"remat": ["full"]}, config, settings, made)
    assert "kernels ms" in text
    assert f"< {config.train.batch_size / 0.008:,.0f}" in text
    assert "expected" not in plans[0]["predictions"]
    assert "kernels" in plans[0]["predictions"]


def test_settings_of_a_sweep(config):
    """Windowed einsum is a setting of the compiler and no key of the configuration."""
    seen = []

    def make(each, settings):
        seen.append(settings.windowed_einsum)
        return made(each, settings)

    settings = planner.Settings(topology.parse("v5e:2x2"), 100, say=lambda sentence: None)
    sweep.table({"remat": ["full"], "windowed_einsum": [True, False]}, config, settings, make)
    assert seen == [True, False]
    assert dataclasses.replace(settings, windowed_einsum=False).options
