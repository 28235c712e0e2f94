"""Plans of several choices side by side."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from maskjax.config import ConfigDict, flatten, unknown_key
from maskjax.errors import UserError
from maskjax.planning import report, roofline
from maskjax.planning.chips import GIB
from maskjax.planning.planner import Plan, Settings
from maskjax.planning.search import changed, of_networks

# Short names of what is compared most; others are keys of the configuration.
SHORT = {
    "batch": "train.batch_size",
    "accumulate": "train.accumulate",
    "fsdp": "parallel.mesh.fsdp",
    "data": "parallel.mesh.data",
}
_OF_NETWORKS = ("remat", "scan")  # of all networks of the system
_WINDOWED = "windowed_einsum"


def parse(text: str, config: ConfigDict) -> dict[str, list[Any]]:
    """Reads `fsdp=1,16;remat=dots,full`: {name: values}, in the types of the configuration.

    Raises:
      UserError: another form, an unknown key, or a value of another type.
    """
    choices: dict[str, list[Any]] = {}
    known = flatten(config)
    for part in filter(None, (p.strip() for p in text.split(";"))):
        name, equals, values = part.partition("=")
        if not equals or not values:
            raise UserError(
                f"--sweep has '{part}': write NAME=VALUE,VALUE;NAME=VALUE,VALUE, e.g. "
                "fsdp=1,16;remat=dots,full."
            )
        if name == _WINDOWED:
            choices[name] = [_boolean(name, value) for value in values.split(",")]
            continue
        keys = keys_of(name, config)
        if not keys or any(key not in known for key in keys):
            raise UserError(unknown_key(f"config.{name}", [f"config.{key}" for key in known]))
        choices[name] = [_value(name, value, known[keys[0]]) for value in values.split(",")]
    if not choices:
        raise UserError("--sweep is empty: write for example --sweep='fsdp=1,16;remat=dots,full'.")
    return choices


def keys_of(name: str, config: ConfigDict) -> list[str]:
    """Returns the keys of the configuration that a name of a sweep stands for."""
    return of_networks(config, name) if name in _OF_NETWORKS else [SHORT.get(name, name)]


def combinations(
    choices: Mapping[str, Sequence[Any]], config: ConfigDict
) -> Iterator[tuple[dict[str, Any], ConfigDict, bool | None]]:
    """Yields ({name: value}, configuration, windowed einsum or None) for every combination."""
    for values in itertools.product(*choices.values()):
        row = dict(zip(choices, values, strict=True))
        keys = {
            key: value
            for name, value in row.items()
            if name != _WINDOWED
            for key in keys_of(name, config)
        }
        yield row, changed(config, keys), row.get(_WINDOWED)


def table(
    choices: Mapping[str, Sequence[Any]],
    config: ConfigDict,
    settings: Settings,
    make: Callable[[ConfigDict, Settings], Plan],
) -> tuple[str, list[dict[str, Any]]]:
    """Plans every combination; returns a table and the plans as JSON."""
    rows, plans = [], []
    for row, each, windowed in combinations(choices, config):
        own = settings
        if windowed is not None:
            own = dataclasses.replace(settings, windowed_einsum=windowed)
        names = [str(value) for value in row.values()]
        try:
            plan = make(each, own)
        except UserError as error:
            rows.append([*names, "-", "", "", "", "", ""])
            plans.append({"sweep": row, "error": str(error)})
            continue
        rows.append([*names, *_columns(plan)])
        plans.append({"sweep": row} | report.as_json(plan))
    kernels = roofline.name_of_kernels(settings.slice.chip)
    head = [*choices, "fits", "peak GiB", "sent MB", "bound ms", f"{kernels} ms", "examples/s"]
    return report.table(head, rows), plans


def _columns(plan: Plan) -> list[str]:
    used = plan.memory.peak if plan.memory.fits else plan.memory.needed
    peak = "" if used is None else f"{used / GIB:.2f}"
    if plan.times is None or plan.collectives is None:
        return ["yes" if plan.memory.fits else "no", peak, "", "", "", ""]
    sent = sum(row["wire"] for row in plan.collectives.values())
    expected = plan.times.expected
    rates = [plan.config.train.batch_size / seconds for seconds in expected or (plan.times.bound,)]
    return [
        "yes",
        peak,
        f"{sent / 1e6:,.0f}",
        f"{plan.times.bound * 1e3:,.1f}",
        f"{expected[0] * 1e3:,.1f} - {expected[1] * 1e3:,.1f}" if expected else "",
        f"{rates[1]:,.0f} - {rates[0]:,.0f}" if expected else f"< {rates[0]:,.0f}",
    ]


def _value(name: str, text: str, example: Any) -> Any:
    if isinstance(example, bool):
        return _boolean(name, text)
    try:
        return type(example)(text) if isinstance(example, (int, float)) else text
    except ValueError:
        raise UserError(
            f"--sweep: {name} cannot be '{text}': give a value such as {example!r}."
        ) from None


def _boolean(name: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise UserError(f"--sweep: {name} cannot be '{text}': give true or false.")
    return text.lower() == "true"
