"""launch/local.py with commands that are no training: output, exit codes, signals."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

LOCAL = Path(__file__).parents[2] / "launch" / "local.py"
# `process` is the number; `me` what each does.
PROGRAM = """
import os, signal, sys, time
flags = dict(a.lstrip("-").split("=", 1) for a in sys.argv[1:] if a.startswith("--"))
process = int(flags["process"])
{}
"""


def command(me, *options):
    program = [sys.executable, "-c", PROGRAM.format(me), "--own=a b"]
    return [sys.executable, str(LOCAL), "--processes=3", *options, "--", *program]


def run(me, *options):
    return subprocess.run(command(me, *options), capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("own", [None, "glibc.malloc.check=0"])
def test_simulated_devices_get_huge_pages_unless_the_user_says_otherwise(own, monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    if own is not None:
        monkeypatch.setenv("GLIBC_TUNABLES", own)
    me = "print(os.environ.get('GLIBC_TUNABLES'))"
    lines = run(me, "--devices=1").stdout.split()
    assert lines[1::2] == [own or "glibc.malloc.hugetlb=1"] * 3
    assert run(me).stdout.split()[1::2] == [str(own)] * 3


def test_all_succeed():
    me = "print(flags, os.environ['JAX_NUM_CPU_DEVICES'], os.environ['MASKJAX_RUN_ID'])"
    done = run(me, "--devices=4")
    assert done.returncode == 0, done.stderr
    lines = sorted(done.stdout.splitlines())
    assert [line[:3] for line in lines] == ["[0]", "[1]", "[2]"]
    assert all("'own': 'a b'" in line and "'processes': '3'" in line for line in lines)
    assert all(" 4 " in line for line in lines)
    # One coordinator and one start, of which all know.
    assert len({line.split("'coordinator': ")[1].split(",")[0] for line in lines}) == 1
    assert len({line.split()[-1] for line in lines}) == 1


@pytest.mark.parametrize(
    ("me", "code", "sentence"),
    [
        ("sys.exit(75)", 75, ""),
        ("sys.exit(75 if process else 0)", 75, ""),
        ("sys.exit(3 if process == 1 else 75)", 3, "process 1 failed with code 3"),
        ("sys.exit(2) if process == 2 else time.sleep(99)", 2, "process 2 failed with code 2"),
        (
            "os.kill(os.getpid(), 9) if process == 0 else time.sleep(99)",
            137,
            "process 0 was ended by SIGKILL",
        ),
        # Not the one that the loss of another has made end.
        (
            "os.kill(os.getpid(), 6) if process == 0 else os.kill(os.getpid(), 9)",
            137,
            "was ended by SIGKILL",
        ),
    ],
)
def test_exit_codes(me, code, sentence):
    began = time.monotonic()
    done = run(me, "--grace=0.5")
    assert done.returncode == code
    assert sentence in done.stderr
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_passed_on(number, tmp_path):
    me = (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75)); "
        f"open(r'{tmp_path}/' + str(process), 'w'); time.sleep(99)"
    )
    launcher = subprocess.Popen(command(me), stdout=subprocess.DEVNULL)
    until = time.monotonic() + 30
    while len(os.listdir(tmp_path)) < 3:
        assert time.monotonic() < until
        time.sleep(0.05)
    launcher.send_signal(number)
    assert launcher.wait(timeout=30) == 75


def test_mistakes():
    for options in (["--processes=0", "--", "x"], ["--processes=2"], ["--", "x"]):
        done = subprocess.run([sys.executable, str(LOCAL), *options], capture_output=True)
        assert done.returncode == 2
