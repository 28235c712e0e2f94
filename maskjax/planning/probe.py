"""A plan in seconds instead of minutes, without what only machine code tells.

The compiler optimises a program and assigns memory early; most of its time goes into machine code
afterwards. XLA can write down the program as soon as memory is assigned, so the compiler runs in a
process of its own, which is ended then. `python -m maskjax.planning.probe` is that process; it
reads its task from standard input.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from maskjax.config import ConfigDict, from_json, to_json
from maskjax.errors import UserError
from maskjax.planning import topology
from maskjax.planning.compiling import Compiled, compile_lowered
from maskjax.planning.program import lower

# Names that XLA gives: the program with memory assigned, on TPUs and on GPUs, and what is written
# after it.
_ASSIGNED = (
    "*.jit_train_step.*after_optimizations_after_buffer_assignment.txt",
    "*.jit_train_step.*gpu_after_optimizations.txt",
)
_NEXT = "*.jit_train_step.*debug_options"
_USAGE = "*.jit_train_step.*after_optimizations-memory-usage-report.txt"
_POLL = 0.2  # seconds


def quick(
    config: ConfigDict, slice_: topology.Slice, examples: int, options: dict[str, bool]
) -> Compiled:
    """Compiles the step of a configuration until memory is assigned.

    Args:
      config: resolved.
      slice_: the devices.
      examples: of the training split.
      options: of the compiler.

    Returns:
      The program, without cycles; of its memory "assigned", which the compiler compares with what
      there is. Or how much memory it needs, if the compiler refuses it.

    Raises:
      UserError: the configuration is not possible on the slice, or the compiler fails.
    """
    began = time.perf_counter()
    task = {
        "config": to_json(config),
        "slice": slice_.name,
        "examples": examples,
        "options": options,
    }
    with tempfile.TemporaryDirectory() as folder:
        flags = f"--xla_dump_to={folder} --xla_dump_hlo_as_text"
        environment = os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}"}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, map(os.path.abspath, sys.path)))
        log = Path(folder) / "stderr"
        with log.open("w") as stderr:
            child = subprocess.Popen(
                [sys.executable, "-m", "maskjax.planning.probe"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment,
                text=True,
            )
        assert child.stdin is not None and child.stdout is not None  # both are pipes
        answer: dict[str, Any] = {"needed": None}  # if it is ended before it says anything
        program = ""
        with child:
            try:
                child.stdin.write(json.dumps(task))
                child.stdin.close()
                while child.poll() is None:
                    # Which of the files comes last, and which is written twice, differs between
                    # the compilers.
                    there = any(Path(folder).glob(_NEXT)) and _assigned(folder)
                    if there and _is_whole(program := _written(folder)):
                        break
                    time.sleep(_POLL)
                else:
                    answer = json.loads(child.stdout.read() or "{}")
                    program = _written(folder)
                seconds = time.perf_counter() - began
                if program and answer.get("needed", 0) is None:
                    return Compiled(_assigned(folder), program, seconds)
            finally:
                child.kill()
        if "error" in answer:
            raise UserError(answer["error"])
        if "needed" not in answer:
            last = log.read_text().strip().splitlines() or ["it says nothing"]
            raise UserError(
                f"The compiler fails: {last[-1][:300]}; plan without --quick to see more."
            )
    return Compiled({}, "", seconds, answer["needed"], answer["available"])


def _written(folder: str) -> str:
    """Returns what has been written of the program with memory assigned; '' before that."""
    files = [file for name in _ASSIGNED for file in Path(folder).glob(name)]
    return files[0].read_text() if files else ""


def _is_whole(program: str) -> bool:
    """Whether a program is written to its end: its last computation is the entry."""
    return "\nENTRY " in program and program.rstrip().endswith("\n}")


def _assigned(folder: str) -> dict[str, int]:
    """Reads the bytes that the compiler assigned in the main memory, from its report."""
    for file in Path(folder).glob(_USAGE):
        if found := re.search(r"Memory Space: default.*\s+Total bytes: (\d+)", file.read_text()):
            return {"assigned": int(found[1])}
    return {}


def main() -> None:
    """Compiles what standard input describes; prints {"needed", "available"} or {"error"}."""
    task = json.load(sys.stdin)
    try:
        compiled = _compile(task)
        print(json.dumps({"needed": compiled.needed, "available": compiled.available}))
    except UserError as error:
        print(json.dumps({"error": str(error)}))


def _compile(task: dict[str, Any]) -> Compiled:
    slice_ = topology.parse(task["slice"])
    devices = list(topology.describe(slice_).devices)
    lowered = lower(from_json(task["config"]), devices, task["examples"]).lowered
    return compile_lowered(lowered, task["options"])


if __name__ == "__main__":
    main()
