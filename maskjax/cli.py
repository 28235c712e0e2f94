"""What the commands share: flags, the configuration, and how a command ends.

Exit codes: 0 done; 1 failure, with one sentence for a mistake of the user; 75 stopped by SIGTERM
after saving, to be started again (EX_TEMPFAIL, what schedulers requeue on).
"""

import re
import sys
from collections.abc import Callable

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from maskjax.config import ConfigDict, flatten, unknown_key, validate
from maskjax.errors import UserError

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
    validate(flag.value)
    return flag.value


def run(main: Callable[[], int | None]) -> None:
    """Runs a command: parses flags, calls `main`, turns a UserError into one sentence."""

    def parse(argv: list[str]) -> list[str]:
        try:
            return flags.FLAGS(argv)
        except Exception as error:
            _fail(_flag_error(error, argv))

    def guarded(argv: list[str]) -> int:
        if len(argv) > 1:
            _fail(f"Unexpected argument '{argv[1]}': flags are written --name=value.")
        absl_logging.set_verbosity(absl_logging.ERROR)
        try:
            return main() or 0
        except UserError as error:
            _fail(str(error))

    app.run(guarded, flags_parser=parse)


def _fail(sentence: str) -> None:
    sys.stdout.flush()
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(EXIT_FAILURE)


def _flag_error(error: BaseException, argv: list[str]) -> str:
    """Finds the sentence in what absl and config_flags raise."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError) and "Traceback" not in str(cause):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    for argument in argv:
        # `--config.key=value` for a key that does not exist.
        match = re.match(r"--config\.([^=]+)", argument)
        config = _loaded_config()
        if match and config is not None and match[1] not in _keys(config):
            return unknown_key(f"config.{match[1]}", [f"config.{key}" for key in _keys(config)])
    return " ".join(str(error).strip().splitlines()[-1:]) or repr(error)


def _loaded_config() -> ConfigDict | None:
    try:
        return flags.FLAGS["config"].value
    except Exception:
        return None


def _keys(config: ConfigDict) -> list[str]:
    leaves = list(flatten(config))
    sections = {leaf.rsplit(".", n)[0] for leaf in leaves for n in range(1, leaf.count(".") + 1)}
    return leaves + sorted(sections)
