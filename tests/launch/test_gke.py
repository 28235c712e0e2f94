"""launch/gke/jobset.py: the manifests that it writes."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "launch" / "gke" / "jobset.py"
COMMON = ["--image=i:1", "--claim=files"]
TPU = ["--tpu=tpu-v5-lite-podslice", "--topology=4x4"]
TRAIN = ["--", "--config=c.py", "--workdir=/shared/run", "--config.name=$(HOME)"]


def render(*arguments, code=0):
    done = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if code == 0 else done.stderr


def parts(manifest):
    (workers,) = manifest["spec"]["replicatedJobs"]
    job = workers["template"]["spec"]
    pod = job["template"]["spec"]
    return workers, job, pod, pod["containers"][0]


def test_gpus():
    manifest = render("mae", *COMMON, "--gpus=8", "--nodes=4", *TRAIN)
    workers, job, pod, container = parts(manifest)
    assert (workers["replicas"], job["parallelism"], job["completions"]) == (1, 4, 4)
    assert job["completionMode"] == "Indexed" and pod["restartPolicy"] == "Never"
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 8}
    assert container["command"] == [
        *["python", "-u", "-m", "maskjax.train", "--coordinator=mae-workers-0-0.mae:12345"],
        *["--processes=4", "--process=$(PROCESS)", "--config=c.py", "--workdir=/shared/run"],
        "--config.name=$$(HOME)",
    ]
    # The coordinator is the pod 0 of the job 0 of `workers`, at the JobSet's own subdomain.
    assert workers["name"] == "workers" and manifest["spec"]["network"]["enableDNSHostnames"]
    assert container["env"][0]["name"] == "PROCESS"


def test_tpu():
    manifest = render("mae", *COMMON, *TPU, "--slices=2", "--spot", *TRAIN)
    workers, job, pod, container = parts(manifest)
    assert (workers["replicas"], job["parallelism"]) == (2, 4)  # 16 chips, 4 in each machine
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "4x4"
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    assert not [a for a in container["command"] if re.match("--(coordinator|process)", a)]
    _, job, _, container = parts(render("mae", *COMMON, *TPU[:1], "--topology=1x1", *TRAIN))
    assert job["parallelism"] == 1 and container["resources"]["limits"] == {"google.com/tpu": 1}


def test_stopped_is_not_failed():
    manifest = render("mae", *COMMON, *TPU, "--restarts=3", *TRAIN)
    _, job, _, _ = parts(manifest)
    assert job["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [75]
    policy = manifest["spec"]["failurePolicy"]
    assert policy["maxRestarts"] == 3
    assert policy["rules"][0]["action"] == "RestartJobSetAndIgnoreMaxRestarts"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["Mae", *COMMON, *TPU, *TRAIN], "'Mae' is no name"),
        ([*COMMON, *TPU, "--", "--workdir=/shared/x"], "is no name"),
        (["mae", *COMMON, *TRAIN], "give either --tpu and --topology, or --gpus and --nodes"),
        (["mae", *COMMON, *TPU, "--gpus=8", *TRAIN], "give either"),
        (["mae", *COMMON, "--tpu=t", "--topology=4", *TRAIN], "--tpu needs --topology"),
        (["mae", *COMMON, *TPU, "--", "--workdir=runs/x"], "give --workdir=/shared/DIRECTORY"),
    ],
)
def test_mistakes(arguments, sentence):
    assert sentence in render(*arguments, code=2)
