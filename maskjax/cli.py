"""What the commands share: flags, the configuration, and how a command ends.

Exit codes: 0 done; 1 failure, with one sentence for a mistake of the user; 75 stopped by SIGTERM
after saving, to be started again (EX_TEMPFAIL, what schedulers requeue on).
"""

import atexit
import gc
import hashlib
import importlib.metadata
import os
import platform
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import jax
from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

import maskjax
from maskjax.config import ConfigDict, default_config, flatten, unknown_key, validate
from maskjax.errors import UserError
from maskjax.parallel import discovery, processes

EXIT_FAILURE = 1
EXIT_PREEMPTED = 75


def define_config() -> flags.FlagHolder:
    """Defines `--config FILE[:ARG]` and `--config.any.key=value`."""
    return config_flags.DEFINE_config_file(
        "config", None, "A file with get_config(), e.g. configs/quickstart.py.", lock_config=True
    )


def parsed_config(flag: flags.FlagHolder) -> ConfigDict:
    """Returns the configuration of the command line, validated.

    Raises:
      UserError: no configuration was given, or it has unknown keys.
    """
    if flag.value is None:
        raise UserError("Give a configuration: --config=FILE.py, e.g. configs/quickstart.py.")
    # On the command line None is a word, and a key that holds text takes it as such.
    empty = [key for key, value in flatten(flag.value).items() if value == "None"]
    flag.value.update_from_flattened_dict(dict.fromkeys(empty))
    validate(flag.value)
    return flag.value


def define_processes() -> None:
    """Defines the flags by which several processes find each other."""
    flags.DEFINE_string("coordinator", None, "HOST:PORT where process 0 listens to the others.")
    flags.DEFINE_integer("processes", None, "Number of processes that work together.")
    flags.DEFINE_integer("process", None, "Number of this process, from 0.")


def join_processes(command: Mapping[str, Any]) -> None:
    """Joins the other processes, if there are any, and checks that all do the same.

    Args:
      command: what was asked for, by name; the same in all processes.

    Raises:
      UserError: the processes cannot find each other, or differ in command, code, versions or
        devices.
    """
    given = flags.FLAGS
    processes.join(discovery.plan(given.coordinator, given.processes, given.process))
    if not processes.joined():
        return
    processes.agree({"start": processes.run_id()} | _versions() | dict(command))
    # Only now are devices touched: with different code this might never return.
    processes.agree({"devices": f"{jax.local_device_count()} x {jax.devices()[0].device_kind}"})


def _versions() -> dict[str, str]:
    """Returns what must not differ between the installations of several processes."""
    package = Path(__file__).parent
    code = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        code.update(str(path.relative_to(package)).encode() + path.read_bytes())
    libraries = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
    return {
        "Python": platform.python_version(),
        "maskjax": f"{maskjax.__version__} ({code.hexdigest()[:12]})",
        **{name: importlib.metadata.version(name) for name in libraries},
    }


def run(main: Callable[[], int | None]) -> None:
    """Runs a command: parses flags, calls `main`, turns a UserError into one sentence."""
    _spare_the_collector()

    def parse(argv: list[str]) -> list[str]:
        file = _config_file(argv)
        if file is not None and not os.path.isfile(file):
            _fail(f"There is no file '{file}': give --config=FILE.py, e.g. configs/quickstart.py.")
        try:
            return flags.FLAGS(argv)
        except Exception as error:
            _fail(_flag_error(error, argv))

    def guarded(argv: list[str]) -> int:
        if len(argv) > 1:
            _fail(f"Unexpected argument '{argv[1]}': flags are written --name=value.")
        absl_logging.set_verbosity(absl_logging.ERROR)
        try:
            code = main() or 0
            processes.leave()
            return code
        except UserError as error:
            _fail(str(error))
        except Exception as error:
            if processes.joined():
                if processes.is_loss(error):
                    _fail(
                        f"Another process of this run is gone ({str(error).splitlines()[0]}): its "
                        "own last lines say why; start all again to go on from the newest "
                        "checkpoint."
                    )
                traceback.print_exc()
                processes.abort(EXIT_FAILURE)
            raise

    app.run(guarded, flags_parser=parse)


def _spare_the_collector() -> None:
    """Keeps Python's garbage collector from looking through what is no garbage.

    Modules stay to the end. Python looks through all objects once more when it exits, which takes
    ten times as long as the rest of the exit: a second, for a command that fails in three.
    """
    gc.freeze()
    atexit.register(gc.freeze)


def _fail(sentence: str) -> NoReturn:
    sys.stdout.flush()
    print(f"error: {' '.join(sentence.split())}", file=sys.stderr)
    processes.abort(EXIT_FAILURE)
    sys.exit(EXIT_FAILURE)


def _flag_error(error: BaseException, argv: list[str]) -> str:
    """Finds the sentence in what absl and config_flags raise."""
    for cause in _causes(error):
        if isinstance(cause, UserError) and "Traceback" not in str(cause):
            return str(cause)
    if sentence := _mistake_in_file(error, _config_file(argv)):
        return sentence
    text = str(error)
    if match := re.search(r"Flag --(\w+) must have a value", text):
        meaning = flags.FLAGS[match[1]].help.rstrip(".")
        return f"Give --{match[1]}=VALUE: {meaning[:1].lower()}{meaning[1:]}."
    values = flatten(_loaded_config(argv))
    for argument in argv:
        match = re.match(r"--config\.([^=]+)(?:=(.*))?", argument, re.DOTALL)
        if match and match[1] not in _keys(values):
            return unknown_key(f"config.{match[1]}", [f"config.{key}" for key in _keys(values)])
        if match and match[1] in values and f"flag {argument}:" in text:
            kind = type(values[match[1]]).__name__
            return (
                f"config.{match[1]} cannot be '{match[2]}': give a value of the type {kind}, such "
                f"as the present {values[match[1]]!r}."
            )
    return text.strip().splitlines()[-1] if text.strip() else repr(error)


def _mistake_in_file(error: BaseException, file: str | None) -> str | None:
    """Returns the sentence about what went wrong while a configuration file was run, and where."""
    lines = [
        frame.lineno
        for cause in _causes(error)
        for frame in traceback.extract_tb(cause.__traceback__)
        if file and os.path.realpath(frame.filename) == os.path.realpath(file)
    ]
    if isinstance(error, SyntaxError):
        return f"{file}, line {error.lineno}: {error.msg}; correct the file."
    if not lines:
        return None
    close = re.search(r'Did you mean "([^"]+)" instead of "([^"]+)"', str(error))
    absent = re.search(r'Key "([^"]+)" does not exist', str(error))
    if isinstance(error, AttributeError | KeyError):
        where = f"{file}, line {lines[-1]}: the config has no key"
        if close:
            return f"{where} '{close[2]}'; did you mean '{close[1]}'?"
        if absent:
            return f"{where} '{absent[1]}'."
    return f"{file}, line {lines[-1]}: {type(error).__name__}: {error}; correct the file."


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _config_argument(argv: list[str]) -> str | None:
    """Returns FILE[:ARG] of the command line."""
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        if argument in ("--config", "-config"):
            return following
        if match := re.match(r"--?config=(.*)", argument):
            return match[1]
    return None


def _config_file(argv: list[str]) -> str | None:
    argument = _config_argument(argv)
    return argument and argument.partition(":")[0]


def _loaded_config(argv: list[str]) -> ConfigDict:
    """Returns the configuration of the file without what the command line changes."""
    try:
        flags.FLAGS["config"].parse(_config_argument(argv))
        return flags.FLAGS["config"].value or default_config()
    except Exception:  # the sentence is about another mistake
        return default_config()


def _keys(values: Mapping[str, Any]) -> list[str]:
    """Returns the keys of a flat configuration, and those of its sections."""
    sections = {leaf.rsplit(".", n)[0] for leaf in values for n in range(1, leaf.count(".") + 1)}
    return [*values, *sorted(sections)]
