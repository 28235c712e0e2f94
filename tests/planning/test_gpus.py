"""GPUs: their description, what they hold, how they are wired, and bounds of their kernels."""

import importlib.util
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from maskjax.errors import UserError
from maskjax.planning import (
    chips,
    collectives,
    costs,
    gpus,
    hlo,
    kernels,
    planner,
    topology,
)
from maskjax.planning.compiling import Compiled
from maskjax.planning.interconnect import bandwidth

H200 = chips.find("h200")


@pytest.mark.parametrize("name", ["h200:1", "h100:8", "A100-40GB:3", "a100-80gb:64"])
def test_names(name):
    slice_ = topology.parse(name)
    assert slice_.name == name.lower()
    assert slice_.num_chips == int(name.partition(":")[2])


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("h200:12", "nodes have 8 GPUs"),
        ("h200:0", "not possible"),
        ("h200:2x4", "write their number"),
        ("h200:8192", "at most 4,096"),
        ("h300:8", "h100, h200"),
    ],
)
def test_other_names_are_refused(name, sentence):
    with pytest.raises(UserError, match=sentence):
        topology.parse(name)


def test_without_the_compiler(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'maskjax\[plan-gpu\]'"):
        topology.prepare_environment(H200)

    def parent_is_missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("importlib.util.find_spec", parent_is_missing)
    with pytest.raises(UserError, match="neither a GPU nor CUDA"):
        topology.prepare_environment(H200)


def test_every_gpu_is_described():
    for chip in chips.GPUS:
        text = gpus.target(chip)
        assert f"device_memory_size: {int(chip.capacity)}" in text
        assert text.count("{") == text.count("}")
    assert "{ major: 9 minor: 0 }" in gpus.target(H200)
    assert "{ major: 8 minor: 0 }" in gpus.target(chips.find("a100-40gb"))


def test_what_no_gpu_can_hold_is_refused():
    """The compiler accepts it. Temporaries lie side by side: the sum decides, not the peak."""
    given = dict(argument=40, output=30, alias=30, temp=100, generated_code=0, peak=120)
    size = H200.capacity / 150
    given = {name: value * size for name, value in given.items()}
    found = gpus.checked(Compiled(given, "text", 1.0), H200)
    assert found.fits
    assert found.memory["peak"] == pytest.approx(140 * size)
    refused = gpus.checked(Compiled(given | {"temp": 120 * size}, "text", 1.0), H200)
    assert not refused.fits
    assert (refused.needed, refused.available) == (pytest.approx(160 * size), H200.capacity)


def test_a_quick_plan_is_checked_as_well():
    assert gpus.checked(Compiled({"assigned": 1}, "", 1.0), H200).fits
    assert not gpus.checked(Compiled({"assigned": 200 * chips.GIB}, "", 1.0), H200).fits


def test_windowed_einsum_is_of_tpus():
    settings = planner.Settings(topology.parse("h200:8"), 100, windowed_einsum=False)
    with pytest.raises(UserError, match="leave --windowed_einsum out"):
        _ = settings.options


def test_bandwidth():
    """Within a node the switch; between nodes the network cards of the members of each node."""
    devices = [types.SimpleNamespace(id=i) for i in range(16)]
    of = bandwidth(topology.parse("h200:16"), devices)
    assert of(range(8)) == of((2, 3)) == 450e9
    assert of((0, 8)) == 50e9
    assert of((0, 1, 8, 9)) == 100e9
    assert of(range(16)) == of(()) == 400e9


# As the compiler of GPUs writes it: collectives of several arrays, library calls with workspace.
PROGRAM = """
%fused (x: f32[1000,1000]) -> f32[1000,1000] {
  %x = f32[1000,1000]{1,0} parameter(0)
  ROOT %y = f32[1000,1000]{1,0} negate(%x)
}

ENTRY %main (a: bf16[4096,1024], b: bf16[512,1024], c: f32[1000,1000]) -> f32[1000,1000] {
  %a = bf16[4096,1024]{1,0} parameter(0)
  %b = bf16[512,1024]{1,0} parameter(1)
  %c = f32[1000,1000]{1,0} parameter(2)
  %rs = ((bf16[4096,1024], bf16[512]), (bf16[512,1024], bf16[64])) reduce-scatter-start(%a), CH1
  %rsd = (bf16[512,1024], bf16[64]) reduce-scatter-done(%rs)
  %ag = (bf16[512,1024]{1,0}, bf16[4096,1024]{1,0}) all-gather-start(%b), CH2
  %agd = bf16[4096,1024]{1,0} all-gather-done(%ag)
  %mm = (bf16[4096,512], s8[4194304]) custom-call(%a, %b), TARGET, BF16
  %exact = (f32[1000,1000], s8[4194304]) custom-call(%c, %c), TARGET, HIGHEST
  %conv = (bf16[64], s8[0]) custom-call(%a), custom_call_target="__cudnn$convForward"
  ROOT %out = f32[1000,1000]{1,0} fusion(%c), kind=kLoop, calls=%fused
}
"""
_GROUPS = "channel_id={}, replica_groups=mesh['axis_0'=8] {{'axis_0'}}"
_CONTRACTED = (
    'backend_config={{"gemm_backend_config":{{"dot_dimension_numbers":'
    '{{"lhs_contracting_dimensions":["1"]}},"precision_config":{{"operand_precision":["{}"]}}}}}}'
)
PROGRAM = (
    PROGRAM.replace("CH1", _GROUPS.format(1))
    .replace("CH2", _GROUPS.format(2))
    .replace("TARGET", 'custom_call_target="__cublas$lt$matmul"')
    .replace("BF16", _CONTRACTED.format("DEFAULT"))
    .replace("HIGHEST", _CONTRACTED.format("HIGHEST"))
)


def test_collectives():
    table = collectives.table(collectives.collectives(hlo.parse(PROGRAM), 8))
    whole = 2 * (4096 * 1024 + 512)  # of the shares of 8 devices
    assert table["reduce-scatter"]["bytes"] == whole
    assert table["reduce-scatter"]["wire"] == whole * 7 / 8
    assert table["all-gather"]["bytes"] == 2 * 4096 * 1024


def test_kernels_take_what_bounds_them():
    """A product in bfloat16, one in full float32, and an elementwise kernel: its traffic."""
    text = hlo.parse(PROGRAM)
    matrix = text.computations["main"]["mm"]
    assert kernels.flops(text, text.computations["main"], matrix) == 2 * 4096 * 512 * 1024
    moved = 2 * (4096 * 1024 + 512 * 1024 + 4096 * 512)  # without the workspace
    assert costs.moved(text, text.computations["main"], matrix) == moved
    bandwidth_ = H200.bandwidth
    conv = 2 * (4096 * 1024 + 64)
    expected = (
        max(moved / bandwidth_, 2 * 4096 * 512 * 1024 / 989e12)
        + 2e9 / 67e12  # not the 989 TFLOP/s of the tensor cores
        + 2 * 4e6 / bandwidth_
        + conv / bandwidth_
    )
    assert sum(kernels.seconds(text, H200, 989e12).values()) == pytest.approx(expected)
    assert kernels.without_flops(text) == {"__cudnn$convForward": 1}


REPOSITORY = Path(__file__).parents[2]


def installed():
    try:
        return importlib.util.find_spec("jax_plugins.xla_cuda12") is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.skipif(not installed(), reason="the compiler of GPUs is not installed")
def test_a_plan_by_the_compiler_itself(tmp_path):
    """A tiny MAE on 8 GPUs; and one that no GPU holds is refused, though it compiles."""
    command = [
        *(sys.executable, "-m", "maskjax.plan", "--config=configs/mae.py:tiny"),
        *("--config.parallel.mesh.fsdp=4", "--search=false", "--quick"),
        *(f"--json={tmp_path / 'plan.json'}", "--cache="),
    ]
    env = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}

    def plan(*flags):
        result = subprocess.run(
            [*command, *flags], capture_output=True, text=True, cwd=REPOSITORY, env=env
        )
        assert result.returncode == 0, result.stderr
        return result.stdout, json.loads((tmp_path / "plan.json").read_text())

    text, made = plan("--topology=h200:8")
    assert "It fits" in text
    assert made["facts"]["collectives"]["all-reduce"]["wire"] > 0
    assert "expected" not in made["predictions"]
    assert made["predictions"]["kernels"][0]["step_seconds"] > 0
    assert "jax-cuda12-pjrt" in made["versions"]
    too_much = (f"--config.train.batch_size={2**25}", f"--examples={2**26}")
    text, made = plan("--topology=a100-40gb:8", *too_much)
    assert "It does NOT fit" in text
    memory = made["facts"]["memory"]
    assert memory["needed"] > memory["capacity"] == chips.find("a100-40gb").capacity
