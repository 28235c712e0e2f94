"""Plans a run on TPUs without one: `python -m maskjax.plan --config=FILE --topology=v5e:16x16`.

Compiles the training step for the slice with libtpu (`pip install 'maskjax[plan]'`), on a CPU, and
prints memory, FLOPs, collectives and how long a step should take. The data set is not needed.
"""

import json
import sys
from pathlib import Path

from absl import flags

from maskjax import cli
from maskjax.planning import compiling, planner, program, report, topology

CONFIG = cli.define_config()
TOPOLOGY = flags.DEFINE_string(
    "topology", None, "Slice of a TPU pod, e.g. v5e:4x4 or v5p:4x4x8.", required=True
)
EXAMPLES = flags.DEFINE_integer(
    "examples", None, "Training examples; default: of the data source, or of ImageNet-1k."
)
WINDOWED = flags.DEFINE_bool(
    "windowed_einsum", True, "Whether FSDP's collectives may be cut up to overlap with compute."
)
JSON = flags.DEFINE_string("json", None, "A file for the plan as JSON.")
CACHE = flags.DEFINE_string(
    "cache", None, "Directory of compiled programs; default: in the user's cache; '': none."
)


def main() -> None:
    """Runs the command."""
    slice_ = topology.parse(TOPOLOGY.value)
    topology.prepare_environment()
    config = cli.parsed_config(CONFIG)
    examples, source = EXAMPLES.value, "as given"
    if examples is None:
        examples, source = program.number_of_examples(config)
    cache = compiling.default_cache() if CACHE.value is None else CACHE.value
    settings = planner.Settings(
        slice=slice_,
        examples=examples,
        examples_from=source,
        windowed_einsum=WINDOWED.value,
        cache=Path(cache) if cache else None,
        say=lambda sentence: print(sentence, file=sys.stderr, flush=True),
    )
    plan = planner.plan(config, settings)
    print(report.text(plan))
    if JSON.value:
        Path(JSON.value).write_text(json.dumps(report.as_json(plan), indent=2) + "\n")


if __name__ == "__main__":
    cli.run(main)
