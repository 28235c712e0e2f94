"""The table of evaluation results, for the terminal and for the report."""

from collections.abc import Iterable, Mapping, Sequence

REPRESENTATIONS = {"raw": "raw data", "random": "random-init encoder"}
PRETRAINED = "pretrained encoder"
CLASSIFIER = "classifier"  # the whole network, if nothing but its own predictions is judged
EVALUATORS = {"knn": "kNN", "linear": "linear probe", "few_shot": "linear"}
EVALUATORS |= {"segmentation": "linear", "knn_segmentation": "kNN"}
# Metrics that are shown, all shares of 1; others are in metrics.jsonl and in the curves.
METRICS = {"accuracy": "", "recall_at_1": "R@1", "recall_at_5": "R@5", "recall_at_10": "R@10"}
PREDICTIONS = {"top_1": "top-1", "top_5": "top-5"}
METRICS |= PREDICTIONS | {"spearman": "Spearman", "ndcg_at_10": "nDCG@10"}
METRICS["miou"] = "mIoU"
METRICS |= {f"accuracy_{shots}_shot": f"{shots}-shot" for shots in (1, 5, 10)}
MISSING = "\N{EM DASH}"


def evaluation_table(metrics: Mapping[str, float]) -> list[list[str]]:
    """Returns the headline metrics as rows of text, the first row being the headings.

    Args:
      metrics: the last value of each metric. `eval/EVALUATOR/METRIC` belongs to the pretrained
        encoder, `eval/BASELINE/EVALUATOR/METRIC` to a baseline; metrics that are not in `METRICS`
        are ignored.

    Returns:
      One row per representation (baselines first), one column per evaluator that has a value;
      percentages with one decimal, an em dash where there is none. [] without any accuracy.
    """
    found: dict[tuple[str, str], float] = {}
    representation = False  # whether one is judged, and not only predictions
    for name, value in metrics.items():
        levels = name.split("/")
        if levels[0] == "eval" and levels[-1] in METRICS and len(levels) in (3, 4):
            row = levels[1] if len(levels) == 4 else ""
            evaluator = EVALUATORS.get(levels[-2], levels[-2])
            representation |= levels[-1] not in PREDICTIONS
            found[row, f"{evaluator} {METRICS[levels[-1]]}".strip()] = value
    if not found:
        return []
    usual = [*EVALUATORS.values(), *(column for _, column in found)]
    columns = _ordered({column for _, column in found}, usual)
    # The rows of interest are always there, so that a missing comparison is seen to be missing.
    expected = set(REPRESENTATIONS) if representation else set()
    baselines = _ordered({row for row, _ in found if row} | expected, REPRESENTATIONS)
    trained = PRETRAINED if representation else CLASSIFIER
    table = [["representation" if representation else "network", *columns]]
    for row in (*baselines, ""):
        title = REPRESENTATIONS.get(row, row) if row else trained
        table.append([title, *(_percent(found.get((row, column))) for column in columns)])
    return table


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Returns rows of text as aligned columns: the first to the left, the others to the right."""
    if not rows:
        return ""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _ordered(names: set[str], known: Iterable[str]) -> list[str]:
    """Known names in their usual order, then the others by name."""
    return [n for n in dict.fromkeys(known) if n in names] + sorted(names - set(known))


def _percent(value: float | None) -> str:
    # A value that is not a number says no more than a missing one.
    return MISSING if value is None or value != value else f"{100 * value:.1f} %"
