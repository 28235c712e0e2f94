"""How processes find each other, as far as it can be said without starting any."""

import importlib.util
import socket

import pytest

from maskjax.errors import UserError
from maskjax.parallel import processes
from maskjax.parallel.discovery import Plan, first_host, plan
from maskjax.parallel.processes import check_network, disagreement

SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_ID": "2",
    "SLURM_STEP_NODELIST": "r[1-2]n[07,09-15],h",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_NTASKS": "8",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}


@pytest.fixture
def kubernetes(monkeypatch):
    """Sets whether the package `kubernetes` is installed."""

    def set_installed(installed):
        find = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util,
            "find_spec",
            lambda name: installed or None if name == "kubernetes" else find(name),
        )

    return set_installed


def test_alone():
    assert plan(environ={}) is None
    assert plan(processes=1, environ=SLURM) is None
    assert plan(environ=SLURM | {"SLURM_STEP_NUM_TASKS": "1"}) is None
    assert plan(environ={"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1"}) is None
    assert plan(environ={"KUBERNETES_SERVICE_HOST": "10.0.0.1"}) is None  # any pod


def test_flags_come_first():
    assert plan("h:1234", 2, 1, SLURM) == Plan("flags", "h:1234", 2, 1)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("h:1234", None, None), "--processes and --process is missing"),
        ((None, 2, 0), "--coordinator is missing"),
        (("h:1234", 2, 2), "--process=2 is not possible with --processes=2"),
        (("h:1234", 2, -1), "numbered from 0 to 1"),
        (("h", 2, 0), "--coordinator is 'h': write it as HOST:PORT"),
        (("h:99999", 2, 0), "write it as HOST:PORT"),
    ],
)
def test_incomplete_flags(flags, sentence):
    with pytest.raises(UserError, match=sentence):
        plan(*flags, environ={})


def test_slurm():
    port = 20000 + 7 * 31 + 2
    assert plan(environ=SLURM) == Plan("slurm", f"r1n07:{port}", 4, 3)
    assert plan(environ=SLURM | {"JAX_COORDINATOR_PORT": "99"}).coordinator == "r1n07:99"
    assert plan(environ=SLURM | {"JAX_COORDINATOR_ADDRESS": "a:98"}).coordinator == "a:98"
    # Steps of one job that run at the same time do not share a port.
    assert plan(environ=SLURM | {"SLURM_STEP_ID": "3"}).coordinator == f"r1n07:{port + 1}"
    batch = {k: v for k, v in SLURM.items() if "STEP" not in k}
    with pytest.raises(UserError, match="8 tasks, but the command was not started by srun"):
        plan(environ=batch)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("n1", "n1"),
        ("n1,n3", "n1"),
        ("n[001-015],h2", "n001"),
        ("n[001,007-015],h2", "n001"),
        ("r[1-2]n[1-4]", "r1n1"),
        ("10.0.0.1,10.0.0.2", "10.0.0.1"),
        ("gpu-[3,5]-x,y", "gpu-3-x"),
    ],
)
def test_first_host(nodes, first):
    assert first_host(nodes) == first


@pytest.mark.parametrize(
    ("visible", "extra", "ids"),
    [
        (None, {}, None),
        ("0,1", {}, (1,)),  # --gpus-per-node=2: each task sees both
        ("1", {}, (0,)),  # --gpus-per-task=1: each sees its own
        ("0,1,2,3", {}, (2, 3)),
        ("0,1,2,3", {"SLURM_STEP_TASKS_PER_NODE": "1", "SLURM_LOCALID": "0"}, (0, 1, 2, 3)),
        ("0,1", {"JAX_LOCAL_DEVICE_IDS": "0"}, None),
        ("0,1", {"JAX_PLATFORMS": "cpu"}, None),
    ],
)
def test_gpus_of_a_task(visible, extra, ids):
    seen = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert plan(environ=SLURM | seen | extra).device_ids == ids


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"CUDA_VISIBLE_DEVICES": ""}, "Slurm shows no GPU to this task"),
        ({"CUDA_VISIBLE_DEVICES": "0,1,2"}, "3 GPUs cannot be shared evenly by 2 tasks"),
        ({"CUDA_VISIBLE_DEVICES": "0", "SLURM_GPUS_ON_NODE": "1"}, "2 tasks would share one GPU"),
    ],
)
def test_gpus_that_cannot_be_shared(environ, sentence):
    with pytest.raises(UserError, match=sentence):
        plan(environ=SLURM | environ)


def test_kubernetes(kubernetes):
    pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}
    kubernetes(False)
    with pytest.raises(UserError, match="give --coordinator=HOST:PORT"):
        plan(environ=pod)
    kubernetes(True)
    assert plan(environ=pod) == Plan("jax")


def test_tpu():
    tpu = {"TPU_WORKER_HOSTNAMES": "a,b"}
    assert plan(environ=tpu) == Plan("jax")
    assert plan(environ=tpu | {"JAX_PLATFORMS": "cpu"}) is None


def test_names_that_do_not_resolve(monkeypatch):
    with pytest.raises(UserError, match="'no.such.host.invalid' of the coordinator does not"):
        check_network(Plan("flags", "no.such.host.invalid:1234", 2, 1), {})
    known = {"a": "10.0.0.1", "debian": "127.0.1.1"}
    monkeypatch.setattr(processes, "_resolve", known.get)
    for own, sentence in (("debian", "stands for 127.0.1.1 there"), ("b", "does not resolve")):
        monkeypatch.setattr(socket, "gethostname", lambda own=own: own)
        check_network(Plan("flags", "a:1234", 2, 1), {"JAX_PLATFORMS": "cuda"})
        with pytest.raises(UserError, match=f"The name '{own}' of this machine {sentence}"):
            check_network(Plan("flags", "a:1234", 2, 1), {"JAX_PLATFORMS": "cpu"})


def test_port_in_use():
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # as gRPC's servers have it
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"Port {port} is in use"):
            check_network(Plan("flags", f"localhost:{port}", 2, 0), {})
        check_network(Plan("flags", f"localhost:{port}", 2, 1), {})  # the coordinator's, surely
    check_network(Plan("flags", f"localhost:{port}", 2, 0), {})


def test_who_differs():
    same, seed = {}, {"config.seed": ["1", "0"]}
    both = seed | {"jax": ["0.11", "0.10"]}
    assert disagreement([{"host": "a", "different": same}] * 3) is None
    hosts = [{"host": "a", "different": same}, {"host": "b", "different": both}]
    assert disagreement(hosts) == (
        "The processes differ from process 0 on a: process 1 on b has config.seed = 1, not 0 (and "
        "1 more); start all with the same command, installation and kind of machine."
    )
    many = [hosts[0], *[{"host": "b", "different": seed}] * 9]
    assert "process 3 on b has config.seed = 1, not 0, and so on for 9 of 10" in disagreement(many)


def test_timeouts():
    assert processes._timeouts(None) == processes.TIMEOUTS
    assert processes._timeouts("15,10,30") == (15, 10, 30)
    with pytest.raises(UserError, match="three numbers of seconds"):
        processes._timeouts("15")


def test_one_process_agrees_with_itself(tmp_path):
    assert not processes.joined() and processes.is_first()
    assert processes.from_first("a") == "a" and processes.gather("a") == ["a"]
    processes.agree({"a": 1})
    processes.check_shared(tmp_path / "anywhere")
    processes.leave()
    processes.abort(1)
