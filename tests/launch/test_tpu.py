"""launch/tpu/pod.py: what it would run, and how it brings a run back, with a false gcloud."""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
POD = ROOT / "launch" / "tpu" / "pod.py"
MACHINES = ["--accelerator=v5litepod-16", "--version=v2"]
# Writes down how it was called; answers with the next of the prepared lines.
GCLOUD = """#!/bin/sh
cd "$(dirname "$0")"
echo "$@" >> calls
case "$*" in
  *describe*|*"then cat"*|*checkpoints*) head -n 1 answers; sed -i 1d answers ;;
esac
"""


def pod(*arguments, code=0, path=None):
    """Runs the program; returns the commands it showed, or its complaint."""
    environment = os.environ | ({"PATH": f"{path}:{os.environ['PATH']}"} if path else {})
    done = subprocess.run(
        [sys.executable, POD, *arguments], capture_output=True, text=True, env=environment
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def shown(*arguments):
    commands = pod(*arguments[:2], "--zone=z", "--dry-run", *arguments[2:])
    return [shlex.split(line[2:]) for line in commands.splitlines()]


def test_create():
    assert shown("create", "a", *MACHINES, "--spot", "--project=p") == [
        [
            *["gcloud", "compute", "tpus", "queued-resources", "create", "a", "--node-id=a"],
            *["--accelerator-type=v5litepod-16", "--runtime-version=v2"],
            *["--spot", "--zone=z", "--project=p"],
        ]
    ]
    (several,) = shown("create", "a", *MACHINES, "--slices=2")
    assert {"--node-count=2", "--node-prefix=a"} < set(several)
    assert "--spot" not in several


def test_install_follow_stop_delete():
    archive, copy, install = shown("install", "a", "--setup=mount it")
    assert archive[:2] == ["git", "-C"] and archive[-1] == "HEAD"
    assert copy[4] == "scp" and {"--node=all", "--worker=all"} < set(copy)
    assert install[-2].endswith("&& (mount it)")
    (follow,) = shown("follow", "a")
    assert {"--node=0", "--worker=0"} < set(follow) and "tail" in follow[-2]
    (stop,) = shown("stop", "a")
    assert {"--node=all", "--worker=all"} < set(stop) and "-TERM" in stop[-2]
    (delete,) = shown("delete", "a")
    assert delete[4:] == ["delete", "a", "--force", "--zone=z"]  # and gcloud asks
    assert "--quiet" in shown("delete", "a", "--yes")[0]


def test_nothing_without_a_name():
    for verb in ("delete", "stop", "create"):
        assert "name" in pod(verb, "--zone=z", code=2)
    for name in ("", "*", "a b", "-a", "A", "a;b", "--all"):
        assert "name" in pod("delete", name, "--zone=z", "--dry-run", code=2)
    assert "--zone" in pod("delete", "a", "--dry-run", code=2)


def test_workdir_is_absolute():
    for flags in ([], ["--workdir=runs/x"], ["--workdir="]):
        complaint = pod("run", "a", "--zone=z", "--dry-run", "--", "--config=c", *flags, code=2)
        assert "Give --workdir=/DIRECTORY" in complaint


@pytest.fixture
def machine(tmp_path):
    """Returns a function that runs a command as on a machine, whose Python is an `echo`."""
    python = tmp_path / "maskjax-env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nprintf "<%s>" "$@"\n[ -z "$SLEEP" ] || exec sleep 60\nexit 75\n')
    python.chmod(0o755)
    (tmp_path / "maskjax-code").mkdir()

    def run(command, **variables):
        script = command[-2].removeprefix("--command=")
        environment = os.environ | {"HOME": str(tmp_path)} | variables
        return subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True
        )

    return run


def test_run_on_a_machine(machine, tmp_path):
    """The command keeps its arguments through all shells, is detached, and notes how it ended."""
    arguments = ["--config=a b.py:x", "--workdir=/w/$(touch pwned) 'q' \"d\"", "--config.name=*;&"]
    (command,) = shown("run", "a", "--", *arguments)
    assert machine(command).returncode == 0
    wait(lambda: (tmp_path / "maskjax-result").exists())
    expected = "".join(f"<{a}>" for a in ["-u", "-m", "maskjax.train", *arguments])
    assert (tmp_path / "maskjax-log").read_text() == expected
    assert (tmp_path / "maskjax-result").read_text() == "75\n"


def test_stop_on_a_machine(machine, tmp_path):
    (run,), (stop,) = shown("run", "a", "--", "--workdir=/w"), shown("stop", "a")
    assert machine(run, SLEEP="1").returncode == 0
    wait((tmp_path / "maskjax-log").exists)
    again = machine(run)
    assert again.returncode == 1 and "a run is going on here" in again.stderr
    time.sleep(0.5)  # until the shell has become `sleep`
    assert machine(stop).returncode == 0
    wait(lambda: (tmp_path / "maskjax-result").exists())
    assert (tmp_path / "maskjax-result").read_text() == "143\n"


def wait(condition):
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("answers", "verbs", "code"),
    [
        # Complete.
        (["ACTIVE", "0"], ["describe", "ssh"], 0),
        # Going on; stopped; complete.
        (
            ["ACTIVE", "running", "ACTIVE", "75", "100", "ACTIVE", "0"],
            ["describe", "ssh", "describe", "ssh", "ssh", "ssh", "describe", "ssh"],
            0,
        ),
        # Taken away, made anew, complete.
        (
            ["SUSPENDED", "ACTIVE", "ACTIVE", "0"],
            ["describe", "delete", "create", "describe", "scp", "ssh", "ssh", "describe", "ssh"],
            0,
        ),
        # Fails twice at the same checkpoint.
        (
            ["ACTIVE", "1", "100", "ACTIVE", "1", "100"],
            ["describe", "ssh", "ssh", "ssh", "describe", "ssh", "ssh"],
            1,
        ),
    ],
)
def test_resume(tmp_path, answers, verbs, code):
    (tmp_path / "gcloud").write_text(GCLOUD)
    (tmp_path / "gcloud").chmod(0o755)
    (tmp_path / "answers").write_text("".join(f"{line}\n" for line in answers))
    flags = ["--zone=z", *MACHINES, "--watch=0.01", "--yes", "--", "--workdir=/w"]
    printed = pod("resume", "a", *flags, code=code, path=tmp_path)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [call.split()[3] for call in calls] == verbs
    expected = "still cost money" if code == 0 else "got no further than checkpoint 100"
    assert expected in printed
    assert (tmp_path / "answers").read_text() == ""
