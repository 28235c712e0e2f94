"""What a run is, in a few lines: what was trained, on what, for how long, and where."""

from collections.abc import Mapping
from typing import Any

from maskjax.report.history import History
from maskjax.training.stopwatch import shares

# Arguments of a network that say how large it is, and what a reader calls them.
_SIZES = {"patch_size": "patch", "width": "width", "depth": "depth", "heads": "heads"}


def summary(
    config: Mapping[str, Any], history: History, start: Mapping[str, str]
) -> dict[str, str]:
    """Returns {what it is about: text}, of what is known.

    Args:
      config: of the run, as plain dicts; {} if it is not known.
      history: its metrics.
      start: rows of its start-up report, {} if there is none.
    """
    rows = {
        "method": _method(config, start),
        "data": _data(config, start),
        "training": _training(config, history, start),
        "time": _time(history),
        "machine": "; ".join(start[key] for key in ("devices", "versions") if key in start),
    }
    return {name: text for name, text in rows.items() if text}


def training_seconds(history: History, batch_size: int) -> float | None:
    """Returns how long the steps took, without compilation, evaluation and pauses.

    Every logged rate belongs to the steps since the log before it.

    Args:
      history: with `train/examples_per_second`.
      batch_size: examples a step.
    """
    seconds, before = 0.0, 0
    for step, rate in history.series.get("train/examples_per_second", ()):
        if rate > 0:
            seconds += (step - before) * batch_size / rate
        before = step
    return seconds or None


def duration(seconds: float) -> str:
    """Says a duration in its two largest units, e.g. "3 h 5 min"."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    if not hours:
        return f"{minutes} min {rest} s"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if days else f"{hours} h {minutes} min"


def _method(config: Mapping[str, Any], start: Mapping[str, str]) -> str:
    system = config.get("system")
    if not isinstance(system, Mapping):
        return ""
    parts = [_name(system)]
    # The encoder first; a configuration is ordered by name.
    for name, part in sorted(system.items(), key=lambda item: item[0] != "encoder"):
        if not isinstance(part, Mapping) or "kind" not in part:
            continue
        if str(part["kind"]).startswith("models."):
            sizes = [
                f"{word} {_extent(part[key])}" for key, word in _SIZES.items() if part.get(key)
            ]
            parts.append(f"{name} {_name(part)}" + (f" ({', '.join(sizes)})" if sizes else ""))
        elif name == "mask":
            ratio = part.get("ratio")
            share = f" ({100 * ratio:g} %)" if isinstance(ratio, int | float) else ""
            parts.append(f"masks {_name(part)}{share}")
    if "parameters" in start:
        parts.append(f"{start['parameters'].split(' (')[0]} parameters")
    return ", ".join(filter(None, parts))


def _data(config: Mapping[str, Any], start: Mapping[str, str]) -> str:
    data = config.get("data")
    if not isinstance(data, Mapping) or not isinstance(data.get("source"), Mapping):
        return ""
    source = data["source"]
    which = source.get("name") or source.get("path")
    parts = [f"{_name(source)} {which}" if which else _name(source)]
    if "data" in start:
        parts.append(start["data"].split(",  ")[0])
    inputs = data.get("inputs")
    for name, each in inputs.items() if isinstance(inputs, Mapping) else ():
        if isinstance(each, Mapping) and each.get("size"):
            parts.append(f"{name} {_extent(each['size'])}")
    return ", ".join(filter(None, parts))


def _training(config: Mapping[str, Any], history: History, start: Mapping[str, str]) -> str:
    train = config.get("train")
    batch_size = train.get("batch_size") if isinstance(train, Mapping) else None
    if history.step is None:
        return ""
    planned = start.get("duration", "").split(" steps")[0]
    parts = [f"{history.step:,}" + (f" of {planned}" if planned else "") + " steps"]
    if isinstance(batch_size, int):
        parts[0] += f" of {batch_size:,} examples"
    if epochs := history.last.get("train/epoch"):
        parts.append(f"{epochs:.4g} epochs")
    if isinstance(batch_size, int) and (seconds := training_seconds(history, batch_size)):
        parts.append(f"{duration(seconds)} of training")
    return ", ".join(parts)


def _time(history: History) -> str:
    total = sum(history.spent.values())
    if not total:
        return ""
    starts = f"{history.starts} starts" if history.starts > 1 else "one start"
    return f"{duration(total)} in {starts}: {shares(history.spent)}"


def _name(part: Mapping[str, Any]) -> str:
    return str(part.get("kind") or "").rpartition(".")[2]


def _extent(value: Any) -> str:
    return " x ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
