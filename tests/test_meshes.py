"""Every system, at its `:tiny` size: the same training step on any mesh, in two processes."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from gradient_checks import one_step, same_step
from test_systems import TINY

pytestmark = pytest.mark.long
ROOT = Path(__file__).parents[1]
MESHES = {
    "data 8": dict(data=8),
    "fsdp 8": dict(fsdp=8),
    "fsdp 4, tensor 2": dict(fsdp=4, tensor=2),
}
HALVES = {"first half": TINY[::2], "second half": TINY[1::2]}
PROGRAM = """
import pickle, sys
from gradient_checks import one_step
from maskjax.parallel import discovery, processes

path, variants, *flags = sys.argv[1:]
given = dict(flag.lstrip("-").split("=") for flag in flags)
process = int(given["process"])
processes.join(discovery.plan(given["coordinator"], int(given["processes"]), process))
steps = {v: one_step(v, data=2, fsdp=2, tensor=2) for v in variants.split(",")}
if process == 0:
    with open(path, "wb") as file:
        pickle.dump({v: step._replace(start=None) for v, step in steps.items()}, file)
processes.leave()
"""


@pytest.mark.parametrize("variant", TINY)
def test_any_mesh_takes_the_same_step(variant):
    expected = one_step(variant, jax.devices()[:1])
    for mesh in MESHES.values():
        same_step(one_step(variant, start=expected.start, **mesh), expected, 1e-5)


@pytest.mark.parametrize("half", HALVES)
def test_two_processes_take_the_same_step(tmp_path, half):
    """They draw the state themselves, each what its devices hold."""
    program, result = tmp_path / "program.py", tmp_path / "steps"
    program.write_text(PROGRAM)
    launcher = [sys.executable, str(ROOT / "launch" / "local.py"), "--processes=2", "--devices=4"]
    done = subprocess.run(
        [*launcher, "--", sys.executable, str(program), str(result), ",".join(HALVES[half])],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout
    steps = pickle.loads(result.read_bytes())
    assert list(steps) == HALVES[half]
    for variant, step in steps.items():
        same_step(step, one_step(variant, jax.devices()[:1]), 1e-5)
