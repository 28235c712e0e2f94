"""Whether there are other processes, and how to find them: flags, Slurm, Kubernetes, TPU pods.

Nothing here talks to another process or touches a device; `processes.join` does.
"""

import dataclasses
import importlib.util
import os
import re
from collections.abc import Mapping
from pathlib import Path

from maskjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Plan:
    """How this process joins the others.

    Attributes:
      how: "flags", "slurm", or "jax" (TPU and Kubernetes, which JAX knows how to ask).
      coordinator: HOST:PORT where process 0 listens; None: JAX finds it, and the rest.
      processes: how many.
      process: number of this one, from 0.
      device_ids: accelerators of this machine that are this process's; None: all that it sees.
    """

    how: str
    coordinator: str | None = None
    processes: int | None = None
    process: int | None = None
    device_ids: tuple[int, ...] | None = None


def plan(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Plan | None:
    """Decides whether there are other processes, and how to find them.

    Flags come first, then Slurm, then what JAX detects (TPU, Kubernetes).

    Args:
      coordinator: HOST:PORT of process 0.
      processes: how many there are; 1: this one is alone, whatever the environment says.
      process: number of this one.
      environ: the environment variables.

    Returns:
      None for a process that is alone.

    Raises:
      UserError: incomplete or impossible flags, Slurm without srun, GPUs that cannot be shared
        out, a Kubernetes job that JAX cannot ask about.
    """
    if processes == 1:
        return None
    if any(value is not None for value in (coordinator, processes, process)):
        return _from_flags(coordinator, processes, process)
    if "SLURM_JOB_ID" in environ:
        return _from_slurm(environ)
    if _on_tpu(environ):
        return Plan("jax")
    if "KUBERNETES_SERVICE_HOST" in environ and "JOB_COMPLETION_INDEX" in environ:
        if importlib.util.find_spec("kubernetes") is None:
            raise UserError(
                "This is a pod of an indexed Kubernetes job: give --coordinator=HOST:PORT, "
                "--processes and --process (as launch/gke does), --processes=1 if the pod is "
                "alone, or install the Python package 'kubernetes' for JAX to find out."
            )
        return Plan("jax")
    return None


def first_host(nodes: str) -> str:
    """Returns the first host of a list of Slurm: `r[1-2]n[07-15],h` gives `r1n07`."""
    match = re.match(r"(?:\[[^\]]*\]|[^,\[])*", nodes)
    first = match[0] if match else ""
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first)


def slurm_device_ids(environ: Mapping[str, str]) -> tuple[int, ...] | None:
    """Returns which of the GPUs that it sees belong to this task of Slurm, as indices.

    Slurm may show a task all GPUs of the machine or its own alone, depending on the options; the
    tasks of a machine share evenly what all of them see.

    Returns:
      None where there are no GPUs, or JAX_LOCAL_DEVICE_IDS says which.

    Raises:
      UserError: no GPU is visible, or they cannot be shared evenly.
    """
    seen = environ.get("CUDA_VISIBLE_DEVICES")
    if seen is None or "JAX_LOCAL_DEVICE_IDS" in environ or environ.get("JAX_PLATFORMS") == "cpu":
        return None
    count = len([name for name in seen.split(",") if name.strip()])
    match = re.match(r"\d+", environ.get("SLURM_STEP_TASKS_PER_NODE", "1"))
    tasks = int(match[0]) if match else 1
    local = int(environ["SLURM_LOCALID"])
    if count == 0:
        raise UserError(
            "Slurm shows no GPU to this task: ask for --gpus-per-node=N, without --gpu-bind=none."
        )
    if count == 1:  # its own: bound, or the only one of the machine
        if tasks > 1 and environ.get("SLURM_GPUS_ON_NODE") == "1":
            raise UserError(
                f"{tasks} tasks would share one GPU: ask for as many tasks as GPUs on each machine."
            )
        return (0,)
    if count % tasks:
        raise UserError(
            f"{count} GPUs cannot be shared evenly by {tasks} tasks: choose --ntasks-per-node=1 or "
            f"{count}."
        )
    each = count // tasks
    return tuple(range(local * each, (local + 1) * each))


def _from_flags(coordinator: str | None, processes: int | None, process: int | None) -> Plan:
    given = {"--coordinator": coordinator, "--processes": processes, "--process": process}
    lacking = [name for name, value in given.items() if value is None]
    if coordinator is None or processes is None or process is None:
        raise UserError(
            f"{' and '.join(lacking)} is missing: several processes need --coordinator=HOST:PORT, "
            "--processes=N, and --process=0 to N-1, another one in each."
        )
    if not 0 <= process < processes:
        raise UserError(
            f"--process={process} is not possible with --processes={processes}: they are numbered "
            f"from 0 to {processes - 1}."
        )
    _check_address(coordinator, "--coordinator")
    return Plan("flags", coordinator, processes, process)


def _from_slurm(environ: Mapping[str, str]) -> Plan | None:
    tasks = int(environ.get("SLURM_STEP_NUM_TASKS", environ.get("SLURM_NTASKS", "1")))
    if tasks == 1:
        return None
    if "SLURM_STEP_NODELIST" not in environ:
        raise UserError(
            f"This Slurm job has {tasks} tasks, but the command was not started by srun: put srun "
            "before it, as launch/slurm/train.sbatch does, or give --processes=1."
        )
    coordinator = environ.get("JAX_COORDINATOR_ADDRESS")
    if coordinator is None:
        # A port of each step, below those that systems give to outgoing connections.
        job, step = int(environ["SLURM_JOB_ID"]), int(environ.get("SLURM_STEP_ID", 0))
        port = environ.get("JAX_COORDINATOR_PORT") or 20000 + (31 * job + step) % 12000
        coordinator = f"{first_host(environ['SLURM_STEP_NODELIST'])}:{port}"
    _check_address(coordinator, "JAX_COORDINATOR_ADDRESS")
    process = int(environ["SLURM_PROCID"])
    return Plan("slurm", coordinator, tasks, process, slurm_device_ids(environ))


def _on_tpu(environ: Mapping[str, str]) -> bool:
    if environ.get("JAX_PLATFORMS", "tpu").split(",")[0] != "tpu":
        return False
    if "TPU_WORKER_HOSTNAMES" in environ or "TPU_PROCESS_ADDRESSES" in environ:
        return True
    devices = (Path("/dev/accel0"), Path("/dev/vfio/0"))
    return importlib.util.find_spec("libtpu") is not None and any(d.exists() for d in devices)


def _check_address(address: str, name: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UserError(f"{name} is '{address}': write it as HOST:PORT, such as node1:12345.")
