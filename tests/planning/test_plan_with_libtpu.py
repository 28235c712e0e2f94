"""The compiler itself, on the smallest programs; left out where libtpu is not installed."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed"
)
REPOSITORY = Path(__file__).parents[2]
# In a process of its own: here JAX has simulated devices, and other flags of the compiler.
ENV = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}


def plan(tmp_path, *flags):
    command = [sys.executable, "-m", "maskjax.plan", f"--cache={tmp_path / 'cache'}", *flags]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=REPOSITORY, timeout=600, env=ENV
    )


TINY = ("--config=configs/mae.py:tiny", "--topology=v5e:2x2")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Returns the report of a tiny MAE on four chips, with FSDP, and the plan as JSON."""
    folder = tmp_path_factory.mktemp("plan")
    result = plan(folder, *TINY, "--config.parallel.mesh.fsdp=4", f"--json={folder / 'plan.json'}")
    assert result.returncode == 0, result.stderr
    return result.stdout, json.loads((folder / "plan.json").read_text()), folder


def test_report(tiny):
    text, made, _ = tiny
    for part in ("FACTS", "It fits", "PREDICTION", "chip-hours", "all-reduce"):
        assert part in text
    facts = made["facts"]
    assert facts["memory"]["peak"] < facts["memory"]["capacity"] == 15.75 * 2**30
    assert facts["collectives"]["all-reduce"]["wire"] > 0
    assert made["examples"] == 1442
    bound, expected = made["predictions"]["bound"], made["predictions"]["expected"]
    assert 0 < bound["step_seconds"] <= expected[0]["step_seconds"] <= expected[1]["step_seconds"]


def test_sweep(tiny):
    """What was compiled before is found again; what is not possible says why."""
    _, made, folder = tiny
    result = plan(folder, *TINY, "--sweep=fsdp=3,4", f"--json={folder / 'sweep.json'}")
    assert result.returncode == 0, result.stderr
    impossible, again = json.loads((folder / "sweep.json").read_text())
    assert "does not fit 4 devices" in impossible["error"]
    assert again["sweep"] == {"fsdp": 4}
    for key in ("facts", "predictions", "compile_seconds"):  # these seconds, so from the cache
        assert again[key] == made[key]
    lines = result.stdout.splitlines()
    assert lines[0].split()[:2] == ["fsdp", "fits"]
    assert lines[1].split()[:2] == ["3", "-"]
    assert lines[2].split()[:2] == ["4", "yes"]
    assert "[1] A mesh of data=-1, fsdp=3" in result.stdout
    assert "compiling mae_tiny, batch 64, mesh fsdp 4 for v5e:2x2 ..." in result.stderr


def test_a_plan_that_is_not_possible(tmp_path):
    result = plan(
        tmp_path,
        "--config=configs/mae.py:tiny",
        "--topology=v5e:4x4",
        "--config.train.batch_size=24",
    )
    assert result.returncode == 1
    assert (
        result.stderr.strip().splitlines()[-1].startswith("error: A batch of 24 is not divisible")
    )


# The capacity stands nowhere but in the message of a program that does not fit.
PROBE = """
from maskjax.planning import chips, compiling, topology
topology.prepare_environment(chips.find("v5e"))
import jax, jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
for name in ("v3:2x2", "v4:2x2x1", "v5e:2x2", "v5p:2x2x1", "v6e:2x2", "tpu7x:2x2x1"):
    slice_ = topology.parse(name)
    device = topology.describe(slice_).devices[0]
    place = NamedSharding(Mesh([device], "x"), PartitionSpec())
    huge = jax.ShapeDtypeStruct((10**11,), jnp.float32, sharding=place)
    compiled = compiling.compile_lowered(jax.jit(lambda x: x + 1).lower(huge), {})
    print(name, compiled.available / slice_.chip.capacity, device.device_kind == slice_.chip.kind)
"""


def test_capacities_are_those_of_the_compiler():
    result = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, cwd=REPOSITORY, env=ENV
    )
    lines = [line.split() for line in result.stdout.strip().splitlines()]
    assert len(lines) == 6, result.stderr
    for name, ratio, kind in lines:
        assert float(ratio) == pytest.approx(1, abs=1e-3), name
        assert kind == "True", name
