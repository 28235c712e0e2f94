"""One self-contained HTML page about a run."""

import base64
import datetime
import html
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from maskjax.config import default_config, differences, flatten, to_json
from maskjax.errors import UserError
from maskjax.files import replace_file
from maskjax.report.curves import curve, drawable
from maskjax.report.history import History, read_config, read_history, read_starts, start_rows
from maskjax.report.reconstructions import PICTURES, SEEN
from maskjax.report.style import CSS
from maskjax.report.summary import summary
from maskjax.report.table import EVALUATORS, MISSING, evaluation_table
from maskjax.training.startup import STARTUP_FILE

# What a training metric is called on the page; all others follow under their own names.
_CURVES = {
    "train/loss": "Loss",
    "train/learning_rate": "Learning rate",
    "train/gradient_norm": "Gradient norm",
    "train/examples_per_second": "Examples per second",
}
_MAX_THUMBNAILS = 24
_THUMBNAIL_WIDTH = 360


def write_report(workdir: str | Path) -> Path:
    """Writes `report.html` into a run folder, from what is there so far.

    Reads `config.json`, `metrics.jsonl`, `startup.txt`, `pictures/*.png` and `seen/*.png`; each may
    be missing or cut off. The page loads nothing: styles, curves and pictures are inside.

    Returns:
      The path of the page.

    Raises:
      UserError: the folder has no configuration, metrics or pictures.
    """
    workdir = Path(workdir)
    sources = [workdir / name for name in ("config.json", "metrics.jsonl", PICTURES)]
    if not any(source.exists() for source in sources):
        raise UserError(
            f"'{workdir}' is not a run folder: it has no config.json, metrics.jsonl or pictures."
        )
    config = read_config(sources[0])
    history = read_history(sources[1])
    starts = read_starts(workdir / STARTUP_FILE)
    name = str(config.get("name") or workdir.resolve().name)
    sections = [
        _header(name, summary(config, history, start_rows("".join(starts[-1:]))), history, sources),
        _section("Evaluation", _evaluation(history)),
        _section("Curves", _curves(history)),
        _section("Pictures over the training", _pictures(sources[2])),
        _section("Looked at afterwards", _seen(workdir / SEEN)),
        _section("Configuration", _configuration(config)),
        _section("Start", _starts(starts)),
    ]
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        # The browser enforces that nothing is loaded or run, whatever a metric is called.
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        f"<title>{_text(name)} \N{MIDDLE DOT} maskjax</title>\n<style>{CSS}</style>\n</head>\n"
        f"<body>\n<main>\n{''.join(sections)}</main>\n</body>\n</html>\n"
    )
    return replace_file(workdir / "report.html", page.encode())


def _header(name: str, about: Mapping[str, str], history: History, sources: Sequence[Path]) -> str:
    facts = {
        "steps": _number(history.step, ",d"),
        "last loss": _number(history.last.get("train/loss"), ".4f"),
        "examples/s": _number(history.last.get("train/examples_per_second"), ",.0f"),
        "last update (UTC)": _last_update(sources),
    }
    note = ""
    if history.unreadable:
        note = f'<p class="note">{history.unreadable} unreadable line(s) in metrics.jsonl.</p>\n'
    return (
        f"<header>\n<h1>{_text(name)}</h1>\n{_terms('about', about)}{_terms('facts', facts)}{note}"
        "</header>\n"
    )


def _terms(kind: str, rows: Mapping[str, str]) -> str:
    items = "".join(f"<div><dt>{k}</dt><dd>{_text(v)}</dd></div>\n" for k, v in rows.items())
    return f'<dl class="{kind}">{items}</dl>\n' if rows else ""


def _evaluation(history: History) -> str:
    table = evaluation_table(history.last)
    if not table:
        return ""
    return '<p class="note">On the test split, neither masked nor augmented.</p>\n' + _table(
        table, numeric=True, emphasis=len(table) - 1
    )


def _curves(history: History) -> str:
    series = {name: points for name, points in history.series.items() if drawable(points)}
    probes = {
        EVALUATORS.get(name.split("/")[1], name.split("/")[1]): series.pop(name)
        for name in [n for n in series if re.fullmatch(r"eval/[^/]+/(accuracy|top_1)", n)]
    }
    try:
        main = [curve(_CURVES[n], {n: series.pop(n)}) for n in _CURVES if n in series]
        if probes:
            main.append(curve("Accuracy", probes, percent=True))
        others = [curve(name, {name: points}) for name, points in sorted(series.items())]
    except ImportError:
        return (
            '<p class="note">Curves need matplotlib: install it and write the report again.</p>\n'
        )
    panels = _panels(main)
    if others:
        panels += f"<details><summary>{len(others)} more</summary>\n{_panels(others)}</details>\n"
    return panels


def _pictures(folder: Path) -> str:
    """The newest picture large, and others from the first to the last step beside it."""
    files = [path for path in sorted(folder.glob("*.png"), key=_by_number) if _opened(path)]
    if not files:
        return ""
    newest, earlier = files[-1], files[:-1]
    if len(earlier) > _MAX_THUMBNAILS:  # evenly, with the first and the last of them
        last = len(earlier) - 1
        steps = range(_MAX_THUMBNAILS)
        earlier = [earlier[round(i * last / (_MAX_THUMBNAILS - 1))] for i in steps]
    large = f'<div class="over">{_figure(newest, "sheet")}'
    if earlier:
        thumbnails = "".join(_figure(path, "", _THUMBNAIL_WIDTH) for path in earlier)
        large += f'<div class="thumbnails">{thumbnails}</div>'
    left_out = len(files) - 1 - len(earlier)
    more = f'<p class="note">{left_out} more in {_text(folder.name)}/.</p>\n' if left_out else ""
    return f"{large}</div>\n{more}"


def _seen(folder: Path) -> str:
    files = [path for path in sorted(folder.glob("*.png")) if _opened(path)]
    return "".join(_figure(path, "sheet") for path in files)


def _opened(path: Path) -> bool:
    """Whether a picture can be read to its end."""
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError, ValueError):  # cut off, or no picture at all
        return False
    return True


def _figure(path: Path, kind: str, width: int | None = None) -> str:
    """A picture with a caption; as a JPEG of at most `width` pixels where this is given."""
    content, form = path.read_bytes(), "png"
    if width is not None:
        with Image.open(path) as image:
            small = image.convert("RGB")
        small.thumbnail((width, 4 * width))
        buffer = io.BytesIO()
        small.save(buffer, format="JPEG", quality=88)
        content, form = buffer.getvalue(), "jpeg"
    data = base64.b64encode(content).decode()
    step = re.fullmatch(r"(?:\w+_)?(\d+)", path.stem)
    name = _text(f"step {int(step[1]):,}" if step else path.stem)
    image = f'<img alt="{name}" src="data:image/{form};base64,{data}">'
    attribute = f' class="{kind}"' if kind else ""
    return f"<figure{attribute}>{image}<figcaption>{name}</figcaption></figure>\n"


def _configuration(config: Mapping[str, Any]) -> str:
    if not config:
        return ""
    # Through JSON, so that tuples and lists compare equal.
    changed = differences(config, json.loads(to_json(default_config())))
    # What belongs to a part that this run does not have says nothing about it.
    known = flatten(config)
    changed = {key: values for key, values in changed.items() if key in known}
    rows = [["key", "this run", "default"]]
    rows += [[key, _value(here), _value(there)] for key, (here, there) in sorted(changed.items())]
    table = _table(rows, code=True) if changed else '<p class="note">All values are defaults.</p>\n'
    text = _text(json.dumps(config, indent=2, ensure_ascii=False))
    return (
        f'<p class="note">{len(changed)} values differ from the defaults.</p>\n{table}'
        f"<details><summary>config.json</summary>\n<pre>{text}</pre></details>\n"
    )


def _starts(starts: Sequence[str]) -> str:
    if not starts:
        return ""
    note = f", the last of {len(starts)}" if len(starts) > 1 else ""
    return (
        f"<details><summary>start-up report{note}</summary>\n<pre>{_text(starts[-1])}</pre>"
        "</details>\n"
    )


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{title}</h2>\n{content}</section>\n" if content else ""


def _panels(panels: Sequence[str]) -> str:
    figures = "".join(f"<figure>{panel}</figure>\n" for panel in panels)
    return f'<div class="panels">{figures}</div>\n' if panels else ""


def _table(
    rows: Sequence[Sequence[str]],
    *,
    numeric: bool = False,
    code: bool = False,
    emphasis: int | None = None,
) -> str:
    """The first row is the heading; `emphasis` is the number of a row to bring out."""
    classes = " ".join(name for name, on in (("numeric", numeric), ("code", code)) if on)
    head = "".join(f'<th scope="col">{_text(cell)}</th>' for cell in rows[0])
    body = ""
    for number, (title, *cells) in enumerate(rows[1:], start=1):
        mark = ' class="emphasis"' if number == emphasis else ""
        body += f'<tr{mark}><th scope="row">{_text(title)}</th>'
        body += "".join(f"<td>{_text(cell)}</td>" for cell in cells) + "</tr>\n"
    return (
        f'<div class="scroll"><table class="{classes}">\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}</tbody></table></div>\n"
    )


def _last_update(sources: Sequence[Path]) -> str:
    times = [source.stat().st_mtime for source in sources if source.exists()]
    newest = datetime.datetime.fromtimestamp(max(times), datetime.UTC)
    return newest.strftime("%Y-%m-%d %H:%M")


def _by_number(path: Path) -> tuple[list[int], str]:
    """The numbers in a name, so that step 1000 comes after step 500."""
    return [int(digits) for digits in re.findall(r"\d+", path.stem)], path.stem


def _number(value: float | None, form: str) -> str:
    return MISSING if value is None else format(value, form)


def _value(value: Any) -> str:
    return MISSING if value is None else json.dumps(value, ensure_ascii=False)


def _text(value: object) -> str:
    return html.escape(str(value), quote=True)
