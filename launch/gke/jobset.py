#!/usr/bin/env python3
"""Writes a JobSet for GKE, to be given to kubectl: TPU slices, or nodes with GPUs.

    python launch/gke/jobset.py NAME --image=IMAGE --claim=PVC \\
        --tpu=tpu-v5-lite-podslice --topology=4x4 [--slices=2] [--spot] \\
        -- --config=configs/mae.py:B/16 --workdir=/shared/run | kubectl apply -f -

    python launch/gke/jobset.py NAME --image=IMAGE --claim=PVC --gpus=8 --nodes=4 -- ...

    kubectl logs -f -l jobset.sigs.k8s.io/jobset-name=NAME --prefix    # follow
    kubectl delete jobset NAME                                         # delete; files stay

The image has maskjax installed (with the extra `tpu` or `cuda`). The claim names a volume that all
pods may write (ReadWriteMany); it appears as /shared. A pod that is to be taken away gets SIGTERM,
the run is saved on all of them, and the JobSet starts again from there; that does not count as one
of --restarts. Needs Python alone; the manifest is JSON, which is YAML.
"""

import argparse
import json
import math
import re
import sys
from typing import Any

EXIT_PREEMPTED = 75
PORT = 12345  # of process 0; pods have addresses of their own, so nothing else can have taken it
CHIPS = 4  # of one machine, on slices of several machines
INDEX = "metadata.annotations['batch.kubernetes.io/job-completion-index']"


def jobset(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the manifest."""
    command = ["python", "-u", "-m", "maskjax.train"]  # no shell: SIGTERM has to reach Python
    environment: list[dict[str, Any]] = []
    if options.gpus:
        # JAX needs the package `kubernetes` and a role to find the others; the names are known.
        first = f"{options.name}-workers-0-0.{options.name}"
        command += [f"--coordinator={first}:{PORT}", f"--processes={options.nodes}"]
        command += ["--process=$(PROCESS)"]
        environment.append({"name": "PROCESS", "valueFrom": {"fieldRef": {"fieldPath": INDEX}}})
        replicas, pods = 1, options.nodes
        device, selector = {"nvidia.com/gpu": options.gpus}, {}
        tolerations = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    else:
        # GKE tells each pod of a slice its number and the names of the others; JAX reads them.
        chips = math.prod(map(int, options.topology.split("x")))
        each = min(chips, options.chips)
        replicas, pods = options.slices, chips // each
        device = {"google.com/tpu": each}
        selector = {
            "cloud.google.com/gke-tpu-accelerator": options.tpu,
            "cloud.google.com/gke-tpu-topology": options.topology,
        }
        tolerations = [{"key": "google.com/tpu", "operator": "Exists", "effect": "NoSchedule"}]
    if options.spot:
        selector["cloud.google.com/gke-spot"] = "true"
        tolerations.append(
            {"key": "cloud.google.com/gke-spot", "operator": "Exists", "effect": "NoSchedule"}
        )
    container = {
        "name": "train",
        "image": options.image,
        # What looks like $(NAME) in an argument would be replaced; $$ is a dollar.
        "command": [*command, *(a.replace("$", "$$") for a in options.arguments)],
        "env": environment,
        "resources": {"limits": device, "requests": device},
        "volumeMounts": [
            {"name": "shared", "mountPath": "/shared"},
            {"name": "memory", "mountPath": "/dev/shm"},  # workers that decode hand over in it
        ],
    }
    pod = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": options.grace,
        "nodeSelector": selector,
        "tolerations": tolerations,
        "containers": [container],
        "volumes": [
            {"name": "shared", "persistentVolumeClaim": {"claimName": options.claim}},
            {"name": "memory", "emptyDir": {"medium": "Memory"}},
        ],
    }
    stopped = [
        {
            "action": "FailJob",
            "onExitCodes": {
                "containerName": "train",
                "operator": "In",
                "values": [EXIT_PREEMPTED],
            },
        },
        {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]
    job = {
        "parallelism": pods,
        "completions": pods,
        "completionMode": "Indexed",
        "backoffLimit": 0,  # a pod alone cannot join again: the JobSet starts all of them anew
        "podFailurePolicy": {"rules": stopped},
        "template": {"spec": pod},
    }
    metadata: dict[str, Any] = {"name": options.name, "namespace": options.namespace}
    if not options.gpus:  # a slice is a node pool
        exclusive = "alpha.jobset.sigs.k8s.io/exclusive-topology"
        metadata["annotations"] = {exclusive: "cloud.google.com/gke-nodepool"}
    again = {
        "name": "stopped",
        "action": "RestartJobSetAndIgnoreMaxRestarts",
        "onJobFailureReasons": ["PodFailurePolicy"],
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": metadata,
        "spec": {
            "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
            "failurePolicy": {"maxRestarts": options.restarts, "rules": [again]},
            "replicatedJobs": [
                {"name": "workers", "replicas": replicas, "template": {"spec": job}},
            ],
        },
    }


def main(arguments: list[str] | None = None) -> int:
    """Prints the manifest; returns the exit code."""
    print(json.dumps(jobset(_parse(arguments)), indent=2))
    return 0


def _name(text: str) -> str:
    # Pods are called NAME-workers-SLICE-NUMBER, which must not exceed 63 letters.
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,40}[a-z0-9])?", text):
        raise argparse.ArgumentTypeError(
            f"'{text}' is no name: at most 42 small letters, digits and hyphens, a letter first"
        )
    return text


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("name", type=_name, help="of the JobSet")
    parser.add_argument("--image", required=True, help="with maskjax installed")
    parser.add_argument("--claim", required=True, help="PersistentVolumeClaim, appears as /shared")
    parser.add_argument("--namespace", default="default")
    parser.add_argument("--tpu", help="node label gke-tpu-accelerator, e.g. tpu-v5-lite-podslice")
    parser.add_argument("--topology", help="of a slice, e.g. 4x4 or 2x2x2")
    parser.add_argument("--chips", type=int, default=CHIPS, help="of one machine; default: 4")
    parser.add_argument("--slices", type=int, default=1, help="more than 1: multislice")
    parser.add_argument("--gpus", type=int, default=0, help="of one node")
    parser.add_argument("--nodes", type=int, default=1, help="with GPUs")
    parser.add_argument("--spot", action="store_true", help="nodes that may be taken away")
    parser.add_argument("--restarts", type=int, default=5, help="after failures, at most")
    parser.add_argument("--grace", type=int, default=60, help="seconds from SIGTERM to SIGKILL")
    parser.add_argument("arguments", nargs="+", help="of maskjax.train, after --")
    options = parser.parse_args(arguments)
    if bool(options.gpus) == bool(options.tpu):
        parser.error("give either --tpu and --topology, or --gpus and --nodes")
    if options.tpu and not re.fullmatch(r"\d+x\d+(x\d+)?", options.topology or ""):
        parser.error("--tpu needs --topology, such as 4x4")
    if min(options.slices, options.nodes, options.chips) < 1:
        parser.error("--slices, --nodes and --chips are 1 or more")
    if not any(re.match(r"--?workdir=/shared/.", a) for a in options.arguments):
        parser.error("give --workdir=/shared/DIRECTORY after --: only that outlives the pods")
    return options


if __name__ == "__main__":
    sys.exit(main())
