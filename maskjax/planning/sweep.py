"""Plans of several choices side by side."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax

from maskjax.config import ConfigDict, flatten, unknown_key
from maskjax.errors import UserError
from maskjax.planning import report, roofline
from maskjax.planning.chips import GIB
from maskjax.planning.planner import Plan, Settings
from maskjax.planning.search import changed, of_networks
from maskjax.planning.topology import Slice

# Short names of what is compared most; others are keys of the configuration.
SHORT = {
    "batch": "train.batch_size",
    "accumulate": "train.accumulate",
    "fsdp": "parallel.mesh.fsdp",
    "data": "parallel.mesh.data",
    "tensor": "parallel.mesh.tensor",
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
    """Plans every combination; returns a table and the plans as JSON.

    What a plan warns of, and why one is not possible, stands below the table by number. One
    combination that fails does not end the others.
    """
    rows, plans = [], []
    notes: dict[str, int] = {}
    combined = list(combinations(choices, config))
    for number, (row, each, windowed) in enumerate(combined, 1):
        chosen = ", ".join(f"{name} {value}" for name, value in row.items())
        settings.say(f"{number} of {len(combined)}: {chosen}")
        own = settings
        if windowed is not None:
            own = dataclasses.replace(settings, windowed_einsum=windowed)
        try:
            plan = make(each, own)
        except (UserError, jax.errors.JaxRuntimeError) as error:
            sentences, cells = [str(error).splitlines()[0]], ["-"] * len(_HEAD)
            plans.append({"sweep": row, "error": str(error)})
        else:
            sentences, cells = plan.warnings, _cells(plan)
            plans.append({"sweep": row} | report.as_json(plan))
        marks = [notes.setdefault(sentence, len(notes) + 1) for sentence in sentences]
        values = [str(value) for value in row.values()]
        rows.append([*values, *cells, ",".join(map(str, marks))])
    return _text(choices, rows, notes, settings.slice), plans


_HEAD = ("fits", "state GiB", "peak GiB", "sent MB", "bound ms", "{} ms", "examples/s")


def _text(
    choices: Iterable[str], rows: list[list[str]], notes: Mapping[str, int], slice_: Slice
) -> str:
    kernels = roofline.name_of_kernels(slice_.chip)
    head = [*choices, *(name.format(kernels) for name in _HEAD), "notes"]
    capacity = f"{slice_.chip.capacity / GIB:,.2f} GiB"
    legend = (
        f"{slice_.name}, of {capacity} a device. FACTS: fits, state (without padding), peak (of "
        "what does not fit: what it needs), sent. PREDICTIONS, of which nothing was run: the bound"
        f", {kernels}, examples/s over all devices."
    )
    lines = [f"[{number}] {sentence}" for sentence, number in notes.items()]
    return "\n\n".join(filter(None, (report.table(head, rows), "\n".join(lines), legend)))


def _cells(plan: Plan) -> list[str]:
    found, times = plan.memory, plan.times
    used = found.peak if found.fits else found.needed
    cells = [
        "yes" if found.fits else "NO",
        _figure(found.by_hand / GIB),
        "" if used is None else _figure(used / GIB),
    ]
    if times is None or plan.collectives is None:
        return [*cells, *[""] * (len(_HEAD) - len(cells))]
    sent = sum(row["wire"] for row in plan.collectives.values())
    cells += [_figure(sent / 1e6), _figure(times.bound * 1e3)]
    batch, expected = plan.config.train.batch_size, times.expected
    if expected is None:
        return [*cells, "", f"< {batch / times.bound:,.0f}"]
    fast, slow = (f"{batch / seconds:,.0f}" for seconds in expected)
    is_bound = roofline.name_of_kernels(plan.settings.slice.chip) == roofline.KERNELS
    return [
        *cells,
        " - ".join(_figure(seconds * 1e3) for seconds in expected),
        f"< {fast}" if is_bound else f"{slow} - {fast}",
    ]


def _figure(value: float) -> str:
    """Returns a number with about three digits that say something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


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
