"""The model card beside exported weights: what they are, what they learned from, what was measured.

Nothing in it is written by hand, so nothing in it can be wrong about the run; the license is the
user's to choose.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import maskjax
from maskjax.config import to_json
from maskjax.errors import UserError
from maskjax.loading import Loaded
from maskjax.report.history import History

CARD = "README.md"


def model_card(run: Loaded, history: History, contents: Sequence[str]) -> str:
    """Returns the card of the weights of a checkpoint, in Markdown.

    Args:
      run: from `maskjax.load`.
      history: its metrics; of each, the last value up to the step of the checkpoint is shown.
      contents: lines on what lies beside the card.
    """
    data = json.loads(to_json(run.config))["data"]
    lines = [
        f"# {run.config.name}",
        "",
        f"Step {run.step} of a run of maskjax {maskjax.__version__}.",
        "",
        *contents,
        "",
        "## Data",
        "",
        f"`{json.dumps(data['source'])}`, split `{data['train_split']}`.",
        "",
        "## Measured",
        "",
        *_measured(history, run.step),
        "",
        "## License",
        "",
        "Not stated: whoever publishes these weights chooses it.",
        "",
        "## Configuration",
        "",
        "```json",
        to_json(run.config),
        "```",
    ]
    return "\n".join(lines) + "\n"


def write_card(out: Path, run: Loaded, history: History, contents: Sequence[str]) -> None:
    """Writes the card into a directory that exists.

    Raises:
      UserError: it cannot be written.
    """
    try:
        (out / CARD).write_text(model_card(run, history, contents))
    except OSError as error:
        raise UserError(
            f"{out / CARD} cannot be written ({error.strerror}): choose another --out."
        ) from None


def _measured(history: History, step: int) -> list[str]:
    """Returns the rows of losses and evaluations; later ones are of other weights."""
    rows = []
    for name, points in history.series.items():
        points = [point for point in points if point[0] <= step]
        if points and (name.startswith("eval/") or name.startswith("train/loss")):
            rows.append(f"| {name} | {points[-1][1]:.4g} | {points[-1][0]} |")
    if not rows:
        return ["Nothing was measured."]
    return ["| metric | value | step |", "|---|---|---|", *rows]
