"""A Slurm of two nodes on one machine, for tests: no systemd, no munge, no cgroups."""

import fcntl
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "srun", "sbatch")
INSTALL = (
    ["apt-get", "update", "-q"],
    ["apt-get", "install", "-q", "-y", "--no-install-recommends", "slurm-wlm"],
)
CONFIG = """
ClusterName=maskjax
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
# A job that is queued again waits for as long as its credential lives.
AuthInfo=cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
ReturnToService=2
JobRequeue=1
KillWait=20
SlurmdTimeout=20
SlurmctldTimeout=30
GresTypes=gpu
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{port1}-{port2}] CPUs=8 \
RealMemory=1000 Gres=gpu:2 State=UNKNOWN
PartitionName=debug Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Installs Slurm if MASKJAX_SLURM asks for it; says why it cannot be used, or None."""
    if os.environ.get("MASKJAX_SLURM") != "1":
        return "MASKJAX_SLURM=1 asks for a Slurm of its own on this machine"
    if os.geteuid() != 0:
        return "Slurm's daemons need root"
    if all(map(shutil.which, PROGRAMS)):
        return None
    if not shutil.which("apt-get"):
        return "Slurm is not installed, and there is no apt-get"
    with open(Path(tempfile.gettempdir()) / "maskjax-slurm.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in two processes, apt only in one
        for command in INSTALL:
            environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=600
            )
            if done.returncode:
                last = done.stderr.strip().splitlines()[-1:]
                return f"{' '.join(command[:2])} failed: {''.join(last)}"
    return None


class Cluster:
    """Controller and two node daemons, n1 and n2, each with 8 CPUs and 2 GPUs that are none."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
        self._daemons: list[subprocess.Popen] = []

    def __enter__(self) -> "Cluster":
        folder, host = self._folder, socket.gethostname()
        (folder / "state").mkdir()
        folder.chmod(0o755)
        ports = dict(zip(("port", "port1", "port2"), _free_ports(), strict=True))
        config = CONFIG.format(host=host, folder=folder, **ports)
        (folder / "slurm.conf").write_text(config)
        for i in range(2):
            os.mknod(folder / f"gpu{i}", 0o600 | 0o020000, os.makedev(1, 3))  # like /dev/null
        (folder / "gres.conf").write_text(f"NodeName=n[1-2] Name=gpu File={folder}/gpu[0-1]\n")
        # Names of the nodes, for the daemons and all that they start; the machine keeps its own.
        (folder / "hosts").write_text(f"127.0.0.1 localhost {host}\n127.0.0.1 n1 n2\n")
        self._start("slurmctld", "-D", "-c")
        for node in ("n1", "n2"):
            hosts = f"mount --make-rprivate / && mount --bind {folder}/hosts /etc/hosts"
            self._start("unshare", "-m", "sh", "-c", f"{hosts} && exec slurmd -D -N {node}")
        try:
            self.wait(lambda: self("sinfo", "-h", "-N", "-o", "%T").split() == ["idle"] * 2, 60)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self, *command: str) -> None:
        self._daemons.append(
            subprocess.Popen(
                command,
                env=self._environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )

    def __exit__(self, *error: object) -> None:
        subprocess.run(["scancel", "-u", "root"], env=self._environment, timeout=30, check=False)
        time.sleep(2)
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            try:
                daemon.wait(timeout=20)
            except subprocess.TimeoutExpired:
                daemon.kill()

    def __call__(self, *command: str, **variables: str) -> str:
        """Runs a command of Slurm; returns what it printed."""
        done = subprocess.run(
            command,
            env=self._environment | variables,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def job(self, number: str) -> dict[str, str]:
        """Returns what Slurm knows of a job: JobState, Restarts, ExitCode, ..."""
        shown = self("scontrol", "show", "job", number)
        return dict(re.findall(r"(\w+)=(\S*)", shown))

    def wait(self, condition, seconds: float) -> None:
        """Polls until the condition holds."""
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until, self._logs()
            time.sleep(0.5)

    def _logs(self) -> str:
        logs = sorted(self._folder.glob("*.log"))
        return "\n".join(f"{log.name}:\n{log.read_text()[-2000:]}" for log in logs)


def _free_ports() -> tuple[int, int, int]:
    """Returns three free ports; the last two follow each other."""
    for first in range(17001 + os.getpid() % 1000, 20000, 3):
        try:
            for port in range(first, first + 3):
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("", port))
        except OSError:
            continue
        return first, first + 1, first + 2
    raise RuntimeError("there are no three free ports")
