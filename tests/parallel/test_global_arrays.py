"""Arrays that lie on the devices of two processes."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Two devices in each process, taken in turns, as the wiring of a TPU slice may have it.
PROGRAM = """
import sys
import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from maskjax.parallel import discovery, processes
from maskjax.parallel.mesh import make_mesh
from maskjax.parallel.sharding import batch_rows, fetch, lay_out, place_batch, replicate

given = dict(flag.lstrip("-").split("=") for flag in sys.argv[1:])
process = int(given["process"])
processes.join(discovery.plan(given["coordinator"], int(given["processes"]), process))
assert processes.joined() and processes.is_first() == (process == 0)
assert processes.from_first(f"by {process}") == "by 0"
assert processes.gather(f"by {process}") == ["by 0", "by 1"]

a, b, c, d = jax.devices()
whole = np.arange(16, dtype=np.float32).reshape(8, 2)
for sizes, devices, expected in (
    (dict(data=4, fsdp=1, tensor=1), [a, b, c, d], ([0, 1, 2, 3], [4, 5, 6, 7])),
    (dict(data=2, fsdp=2, tensor=1), [a, c, b, d], ([0, 1, 4, 5], [2, 3, 6, 7])),
    (dict(data=1, fsdp=2, tensor=2), [a, c, b, d], ([*range(8)], [*range(8)])),
):
    mesh = make_mesh(sizes, devices)
    rows = batch_rows(mesh, 8)
    np.testing.assert_array_equal(rows, expected[process])
    placed = place_batch(mesh, {"x": whole[rows]})["x"]
    assert placed.shape == whole.shape
    np.testing.assert_array_equal(fetch(placed), whole)
    local = jax.device_put(whole, jax.local_devices()[0])
    split = lay_out({"x": local}, {"x": NamedSharding(mesh, PartitionSpec("fsdp"))})
    assert not split["x"].is_fully_addressable
    for tree in (split, replicate(mesh, {"x": local}), lay_out(split, {"x": split["x"].sharding})):
        np.testing.assert_array_equal(fetch(tree)["x"], whole)
processes.leave()
print("passed")
"""


def test_two_processes(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    launcher = [sys.executable, str(ROOT / "launch" / "local.py"), "--processes=2", "--devices=2"]
    done = subprocess.run(
        [*launcher, "--", sys.executable, str(tmp_path / "program.py")],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("passed") == 2
