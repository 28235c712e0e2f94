"""Curves as inline SVG that takes its colours from the page, in light as in dark."""

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Points = Sequence[tuple[int, float]]

# Colours that matplotlib writes, and what the page shows instead.
_TEXT, _GRID = "#010203", "#040506"
_LINES = ("#070809", "#0a0b0c", "#0d0e0f")
_PAGE_COLOURS = {_TEXT: "currentColor", _GRID: "var(--grid)"} | {
    colour: f"var(--line-{i})" for i, colour in enumerate(_LINES)
}
_MAX_POINTS = 400  # in one line; more are averaged


def curve(title: str, lines: Mapping[str, Points], *, percent: bool = False) -> str:
    """Draws one panel.

    A long line is averaged in equal intervals of the step, in a band from the smallest to the
    largest value of each, so that a spike stays visible. Positive values of which the largest is a
    hundred times the median get a logarithmic axis.

    Args:
      title: above the panel; also the text for those who do not see it.
      lines: {label: points}, at most three; the labels are shown if there are several.
      percent: values are shares, shown in percent.

    Returns:
      An <svg> element without fixed size.
    """
    # Not at the top: matplotlib takes long to import, and only the report needs it.
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, PercentFormatter

    style: Any = {
        "svg.fonttype": "none",  # text stays text: small, selectable, in the font of the page
        "svg.hashsalt": title,
        "font.size": 9,
        "axes.edgecolor": _GRID,
        "axes.titleweight": "bold",
        "text.color": _TEXT,
        "axes.labelcolor": _TEXT,
        "xtick.color": _GRID,
        "ytick.color": _GRID,
        "xtick.labelcolor": _TEXT,
        "ytick.labelcolor": _TEXT,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(4.6, 2.7), layout="constrained")
        axes = figure.subplots()
        for (label, points), colour in zip(lines.items(), _LINES, strict=False):
            _draw(axes, np.array(points, dtype=np.float64), label, colour, 100 if percent else 1)
        axes.set_title(title, loc="left", pad=10)
        axes.set_xlabel("step")
        if percent:
            axes.yaxis.set_major_formatter(PercentFormatter(decimals=None))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(length=0)
        axes.grid(axis="y", color=_GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        values = np.array([v for points in lines.values() for _, v in points])
        values = values[np.isfinite(values)]
        if (
            not percent
            and len(values)
            and 0 < values.min() <= np.median(values) < values.max() / 100
        ):
            axes.set_yscale("log")
            axes.minorticks_off()
        elif not percent:
            # Small numbers with a common power of ten, instead of a row of zeros.
            axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 5), useMathText=False)
        if len(lines) > 1:
            axes.legend(frameon=False, loc="best")
        figure.patch.set_alpha(0)
        axes.patch.set_alpha(0)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return _for_the_page(buffer.getvalue(), title)


def _draw(axes: Any, points: np.ndarray, label: str, colour: str, factor: float) -> None:
    """Adds a line of points [n, 2]."""
    steps, values = points[:, 0], points[:, 1] * factor
    values = np.where(np.isfinite(values), values, np.nan)
    if len(steps) > _MAX_POINTS:
        steps, values, low, high = _average(steps, values)
        axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
    marker = "o" if len(steps) < 20 else None
    axes.plot(steps, values, color=colour, linewidth=1.5, marker=marker, markersize=3, label=label)


def _average(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, ...]:
    """Returns mean step, mean, smallest and largest value [_MAX_POINTS or fewer] of intervals."""
    steps, values = steps[np.isfinite(values)], values[np.isfinite(values)]
    if not len(steps):
        return steps, values, values, values
    place = (steps - steps[0]) / max(steps[-1] - steps[0], 1) * _MAX_POINTS
    starts = np.flatnonzero(np.diff(np.minimum(place, _MAX_POINTS - 1).astype(int), prepend=-1))
    counts = np.diff(starts, append=len(steps))
    return (
        np.add.reduceat(steps, starts) / counts,
        np.add.reduceat(values, starts) / counts,
        np.minimum.reduceat(values, starts),
        np.maximum.reduceat(values, starts),
    )


def _for_the_page(svg: str, title: str) -> str:
    svg = svg[svg.index("<svg") :]
    for written, shown in _PAGE_COLOURS.items():
        svg = svg.replace(written, shown)
    # Matplotlib numbers its elements from 1 in each figure, but names are unique in a page.
    prefix = re.sub(r"\W+", "-", title).lower()
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", svg)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(
        r"(font(?:-family)?: [^;\"]*?)('[^\"]*?|DejaVu[^;\"]*)(?=[;\"])", r"\g<1>inherit", svg
    )
    view = svg.partition('viewBox="')[2].partition('"')[0]
    head = f'<svg role="img" viewBox="{view}" xmlns:xlink="http://www.w3.org/1999/xlink">'
    return head + svg[svg.index(">") + 1 :]


def drawable(points: Points) -> bool:
    """Whether there are at least two finite values to draw a line between."""
    return sum(math.isfinite(value) for _, value in points) > 1
