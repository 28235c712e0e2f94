"""Configuration files, read from Python as the commands read them."""

import runpy
from pathlib import Path

from maskjax.config import ConfigDict, validate
from maskjax.errors import UserError


def load_config(file: str | Path) -> ConfigDict:
    """Returns the configuration of a file, to be changed and trained.

    Args:
      file: FILE or FILE:ARGUMENT, as `--config` of the commands, e.g. "configs/mae.py:cifar10".

    Raises:
      UserError: there is no such file, it has no `get_config`, or it sets unknown keys.
    """
    path, separator, argument = str(file).partition(":")
    if not Path(path).is_file():
        raise UserError(f"There is no file '{path}': give FILE.py, e.g. configs/quickstart.py.")
    get_config = runpy.run_path(path).get("get_config")
    if get_config is None:
        raise UserError(f"{path} has no function get_config: it is no configuration.")
    config = get_config(argument) if separator else get_config()
    validate(config)
    return config
