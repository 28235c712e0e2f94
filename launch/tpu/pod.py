#!/usr/bin/env python3
"""Trains on Cloud TPU: a slice, or several (multislice), as a queued resource.

    python launch/tpu/pod.py create NAME --zone=Z --accelerator=v5litepod-16 --version=V [--spot]
    python launch/tpu/pod.py install NAME --zone=Z [--setup='COMMAND']
    python launch/tpu/pod.py run NAME --zone=Z -- --config=FILE --workdir=SHARED/DIR
    python launch/tpu/pod.py follow NAME --zone=Z
    python launch/tpu/pod.py stop NAME --zone=Z
    python launch/tpu/pod.py resume NAME (everything that create, install and run got)
    python launch/tpu/pod.py delete NAME --zone=Z

`run` starts maskjax.train on every machine, detached: it goes on when the connection ends. `stop`
sends SIGTERM, which saves. `resume` brings back a run that ended with code 75 or was lost with its
machines: it makes them anew, installs and runs; with --watch=SECONDS it does so until the run is
complete, at most --restarts times, and gives up where a restart got no further. `--dry-run` prints
every command instead of running it. Needs Python and gcloud.
"""

import argparse
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXIT_PREEMPTED = 75
GONE = ("SUSPENDING", "SUSPENDED", "FAILED", "")  # states from which a resource does not come back
# On the machines, in the home directory.
CODE, ENVIRONMENT, LOG, PID, RESULT = (
    f"maskjax-{name}" for name in ("code", "env", "log", "pid", "result")
)
ALIVE = f'{{ [ -f {PID} ] && kill -0 "$(cat {PID})" 2> /dev/null; }}'


class Failed(Exception):
    """What ends the program, as a sentence."""


class Shell:
    """Runs commands, or prints them."""

    def __init__(self, dry_run: bool) -> None:
        self.dry_run = dry_run

    def __call__(self, *command: str, capture: bool = False, check: bool = True) -> str:
        """Runs a command; returns what it printed if that is captured ('' in a dry run)."""
        print(f"$ {shlex.join(command)}", file=sys.stdout if self.dry_run else sys.stderr)
        if self.dry_run:
            return ""
        try:
            done = subprocess.run(command, text=True, stdout=subprocess.PIPE if capture else None)
        except FileNotFoundError:
            raise Failed(f"'{command[0]}' is not installed, or not on PATH.") from None
        if check and done.returncode:
            raise Failed(f"The command failed with code {done.returncode}: {shlex.join(command)}")
        return (done.stdout or "").strip()


class Pod:
    """A queued resource, by its name."""

    def __init__(self, options: argparse.Namespace, shell: Shell) -> None:
        self._options, self._shell = options, shell
        self._place = [f"--zone={options.zone}"]
        if options.project:
            self._place.append(f"--project={options.project}")

    def create(self) -> None:
        """Asks for the machines; returns when they are there."""
        options = self._options
        if options.slices > 1:  # JAX and libtpu read from the machines which slice they are
            nodes = [f"--node-count={options.slices}", f"--node-prefix={options.name}"]
        else:
            nodes = [f"--node-id={options.name}"]
        self._gcloud(
            "create",
            options.name,
            *nodes,
            f"--accelerator-type={options.accelerator}",
            f"--runtime-version={options.version}",
            *(["--spot"] if options.spot else []),
            *options.gcloud_flag,
        )
        self.wait()

    def wait(self) -> None:
        """Polls until the machines are there."""
        while not self._shell.dry_run and (state := self.state()) != "ACTIVE":
            if state in GONE:
                raise Failed(f"The queued resource {self._options.name} is {state or 'gone'}.")
            print(f"{self._options.name} is {state}", file=sys.stderr)
            time.sleep(30)

    def state(self) -> str:
        """Returns the state of the resource, '' if there is none."""
        return self._gcloud(
            "describe", self._options.name, "--format=value(state.state)", capture=True, check=False
        )

    def install(self) -> None:
        """Copies the committed code to all machines and installs it there."""
        with tempfile.TemporaryDirectory() as folder:
            archive = f"{folder}/{CODE}.tar.gz"
            self._shell("git", "-C", str(ROOT), "archive", "--format=tar.gz", "-o", archive, "HEAD")
            where = f"{self._options.name}:{CODE}.tar.gz"
            self._gcloud("scp", archive, where, "--node=all", "--worker=all")
        python = f"{ENVIRONMENT}/bin/python"
        steps = [
            f"rm -rf {CODE} && mkdir {CODE} && tar -xzf {CODE}.tar.gz -C {CODE}",
            f"([ -x {python} ] || python3 -m venv {ENVIRONMENT})",
            f"{python} -m pip install -q -e './{CODE}[tpu]'",
        ]
        if self._options.setup:
            steps.append(f"({self._options.setup})")
        self._ssh(" && ".join(steps))

    def run(self, patience: int = 0) -> None:
        """Starts the training on all machines, detached, after `patience` seconds at most."""
        python = f"$HOME/{ENVIRONMENT}/bin/python"
        command = f'"{python}" -u -m maskjax.train {shlex.join(self._options.arguments)}'
        inner = f'{command}; echo "$?" > "$HOME/{RESULT}"'
        self._ssh(
            f"for i in $(seq {patience}); do {ALIVE} || break; sleep 1; done; "
            f'if {ALIVE}; then echo "error: a run is going on here; stop it first." >&2; exit 1; '
            "fi; "
            f"rm -f {RESULT}; cd {CODE} && "
            f'(setsid nohup bash -c {shlex.quote(inner)} >> "$HOME/{LOG}" 2>&1 < /dev/null & '
            f'echo "$!" > "$HOME/{PID}")'
        )

    def follow(self) -> None:
        """Shows the log of the first machine, until interrupted."""
        self._ssh(f"tail -n 200 -F {LOG}", everywhere=False)

    def stop(self) -> None:
        """Sends SIGTERM to the training, which saves and ends."""
        # To Python itself: the shell around it writes down how it ended.
        self._ssh(f'if [ -f {PID} ]; then pkill -TERM -P "$(cat {PID})" || true; fi')

    def delete(self) -> None:
        """Deletes the machines; their disks go with them."""
        quiet = ["--quiet"] if self._options.yes else []
        self._gcloud("delete", self._options.name, "--force", *quiet)

    def resume(self) -> None:
        """Brings the run back, once, or until it is complete."""
        restarts, before = 0, None
        while True:
            state, result = self.state(), None
            if state == "ACTIVE":
                result = self._result()
                if result == "0":
                    print("The run is complete; the machines still cost money until `delete`.")
                    return
            if state in GONE or result not in (None, "running"):
                reached = self._checkpoint() if state == "ACTIVE" else None
                failed = result not in (None, "lost", str(EXIT_PREEMPTED))
                if failed and reached == before is not None:
                    raise Failed(
                        f"The run ended with code {result} and got no further than checkpoint "
                        f"{reached}: see `follow`."
                    )
                if restarts >= self._options.restarts:
                    raise Failed(f"The run was started again {restarts} times; see `follow`.")
                before, restarts = reached if reached is not None else before, restarts + 1
                if state in GONE:
                    if state or self._shell.dry_run:
                        self.delete()
                    self.create()
                    self.install()
                self.run(patience=90)  # what was left behind ends by itself within a minute
            if not self._options.watch or self._shell.dry_run:
                return
            time.sleep(self._options.watch)

    def _result(self) -> str:
        """Returns how the run ended on the first machine: its exit code, "running" or "lost"."""
        return self._ssh(
            f"if [ -f {RESULT} ]; then cat {RESULT}; "
            f"elif {ALIVE}; then echo running; else echo lost; fi",
            everywhere=False,
            read=True,
        )

    def _checkpoint(self) -> str:
        """Returns the newest checkpoint of the run, '' if there is none."""
        pattern = shlex.quote(f"{_workdir(self._options.arguments)}/checkpoints")
        listing = f"ls {pattern} 2>/dev/null | grep -E '^[0-9]+$' | sort -n | tail -n 1"
        return self._ssh(f"{listing} || true", everywhere=False, read=True)

    def _ssh(self, command: str, everywhere: bool = True, read: bool = False) -> str:
        who = "all" if everywhere else "0"
        return self._gcloud(
            "ssh",
            self._options.name,
            f"--node={who}",
            f"--worker={who}",
            f"--command={command}",
            capture=read,
        )

    def _gcloud(self, verb: str, *arguments: str, capture: bool = False, check: bool = True) -> str:
        command = ("gcloud", "compute", "tpus", "queued-resources", verb, *arguments, *self._place)
        return self._shell(*command, capture=capture, check=check)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    options = _parse(arguments)
    try:
        getattr(Pod(options, Shell(options.dry_run)), options.verb)()
    except Failed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _workdir(arguments: list[str]) -> str:
    found = [a.partition("=")[2] for a in arguments if re.match(r"--?workdir=/", a)]
    if not found:  # a relative one would lie in the code, which `install` replaces
        raise Failed("Give --workdir=/DIRECTORY after --, on a file system all machines share.")
    return found[-1]


def _name(text: str) -> str:
    # Also keeps anything that a shell or gcloud would read as more than one name from passing.
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,60}[a-z0-9])?", text):
        raise argparse.ArgumentTypeError(
            f"'{text}' is no name: small letters, digits and hyphens, a letter first"
        )
    return text


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    common = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    common.add_argument("name", type=_name, help="of the queued resource, and of its machines")
    common.add_argument("--zone", required=True, help="such as us-west4-a")
    common.add_argument("--project", help="default: that of gcloud's configuration")
    common.add_argument("--dry-run", action="store_true", help="print the commands, run nothing")
    machines = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    machines.add_argument("--accelerator", required=True, help="such as v5litepod-16")
    machines.add_argument("--version", required=True, help="of the machines' software")
    machines.add_argument("--slices", type=int, default=1, help="more than 1: multislice")
    machines.add_argument("--spot", action="store_true", help="cheaper, may be taken away")
    machines.add_argument(
        "--gcloud-flag", action="append", default=[], help="another flag of create; repeatable"
    )
    software = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    software.add_argument("--setup", help="run on every machine, e.g. to mount the shared files")
    training = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    training.add_argument("arguments", nargs="+", help="of maskjax.train, after --")
    consent = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    consent.add_argument("--yes", action="store_true", help="delete without asking")
    watching = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    watching.add_argument("--watch", type=float, default=0, help="seconds between looks; 0: once")
    watching.add_argument("--restarts", type=int, default=20, help="at most")

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, parents in (
        ("create", [machines]),
        ("install", [software]),
        ("run", [training]),
        ("follow", []),
        ("stop", []),
        ("resume", [machines, software, training, consent, watching]),
        ("delete", [consent]),
    ):
        verbs.add_parser(verb, parents=[common, *parents], allow_abbrev=False)
    # Everything after -- is maskjax's.
    given = sys.argv[1:] if arguments is None else arguments
    own, rest = given, []
    if "--" in given:
        own, rest = given[: given.index("--")], given[given.index("--") :]
    options = parser.parse_args([*own, *rest])
    if getattr(options, "slices", 1) < 1:
        parser.error("--slices is 1 or more")
    if options.verb in ("run", "resume"):
        try:
            _workdir(options.arguments)
        except Failed as error:
            parser.error(str(error))
    return options


if __name__ == "__main__":
    sys.exit(main())
