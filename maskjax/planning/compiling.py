"""Compiling for devices that are not there, and keeping what came out of it.

JAX's own cache of compiled programs cannot be read back here, so the text of the program and its
memory statistics are kept, by a hash of everything that they depend on.
"""

import dataclasses
import gzip
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from maskjax.errors import UserError
from maskjax.files import replace_file

# Of `memory_analysis()`; bytes per device. "alias" is the part of the arguments that is donated.
_STATISTICS = ("argument", "output", "alias", "temp", "generated_code")


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What is known of a compiled program.

    Attributes:
      memory: bytes per device: `peak`, which decides whether it fits, and `argument`, `output`,
        `alias`, `temp`, `generated_code`, which need not add up to it; of a quick plan `assigned`
        alone. Empty if it does not fit.
      text: the optimised program; empty if it does not fit.
      seconds: that the compiler took, when it ran.
      needed: bytes, if it does not fit; else None.
      available: bytes, if it does not fit; else None.
    """

    memory: Mapping[str, int]
    text: str
    seconds: float
    needed: float | None = None
    available: float | None = None

    @property
    def fits(self) -> bool:
        """Whether the compiler accepted it."""
        return self.needed is None


def compile_lowered(lowered: Any, options: Mapping[str, Any]) -> Compiled:
    """Compiles a program.

    Args:
      lowered: of `jit(...).lower(...)`.
      options: of the compiler.

    Raises:
      UserError: the compiler does not know an option.
      jax.errors.JaxRuntimeError: it fails for another reason than memory.
    """
    began = time.perf_counter()
    try:
        compiled = lowered.compile(compiler_options=dict(options))
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" in str(error):
            reason = str(error).splitlines()[0]
            raise UserError(f"The compiler refuses an option: {reason}") from None
        found = out_of_memory(str(error))
        if found is None:
            raise
        return Compiled({}, "", time.perf_counter() - began, *found)
    statistics = compiled.memory_analysis()
    memory = {n: getattr(statistics, f"{n}_size_in_bytes") for n in _STATISTICS}
    memory["peak"] = statistics.peak_memory_in_bytes  # an attribute that its repr leaves out
    return Compiled(memory, compiled.as_text(), time.perf_counter() - began)


def cached(cache: Path | None, key: str, make: Callable[[], Compiled]) -> Compiled:
    """Returns what is kept under a key, or makes it and keeps it.

    Args:
      cache: directory; None: nothing is read or kept.
      key: of the program.
      make: compiles.

    Raises:
      UserError: the directory cannot be written.
    """
    if cache is None:
        return make()
    file = cache / f"{key}.json.gz"
    found = _read(file)
    if found is None:
        found = make()
        _write(file, found)
    return found


def program_key(lowered: Any, options: Mapping[str, Any], versions: str) -> str:
    """Returns a hash of everything that the result of a compilation depends on."""
    content = json.dumps([lowered.as_text(), sorted(options.items()), versions])
    return hashlib.sha256(content.encode()).hexdigest()[:32]


_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_EXCEEDS = re.compile(
    r"\(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)", re.IGNORECASE
)
_USED = re.compile(r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm", re.IGNORECASE)


def out_of_memory(message: str) -> tuple[float, float] | None:
    """Returns bytes (needed, available) per device from the compiler's message, or None.

    The first number includes arguments and results, though the message speaks of temporaries.
    """
    match = _EXCEEDS.search(message) or _USED.search(message)
    if not match:
        return None
    needed, unit, available, other = match.groups()
    return float(needed) * _UNITS[unit.upper()], float(available) * _UNITS[other.upper()]


def default_cache() -> Path:
    """Returns the directory of the cache: `maskjax/plans` in that of the user."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "maskjax" / "plans"


def _read(file: Path) -> Compiled | None:
    try:
        with gzip.open(file, "rt") as stream:
            return Compiled(**json.load(stream))
    except (OSError, EOFError, ValueError, TypeError):  # not there, or cut off
        return None


def _write(file: Path, result: Compiled) -> None:
    try:
        replace_file(file, gzip.compress(json.dumps(dataclasses.asdict(result)).encode()))
    except OSError as error:
        raise UserError(
            f"The cache {file.parent} cannot be written ({error.strerror}): choose another with "
            "--cache=DIR."
        ) from None
