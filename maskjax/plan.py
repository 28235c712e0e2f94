"""Plans a run without its devices: `python -m maskjax.plan --config=FILE --topology=v5e:16x16`.

Compiles the training step on a CPU, for a slice of TPUs with libtpu (`pip install 'maskjax[plan]'`)
or for GPUs with CUDA's plug-in of JAX (`pip install 'maskjax[plan-gpu]'`), and prints memory,
FLOPs, collectives and how long a step should take. The data set is not needed.
"""

import json
import sys
from pathlib import Path

from absl import flags

from maskjax import cli
from maskjax.planning import compiling, planner, program, report, search, sweep, topology

CONFIG = cli.define_config()
TOPOLOGY = flags.DEFINE_string(
    "topology", None, "Slice of a TPU pod, v5e:4x4 or v5p:4x4x8, or GPUs, h200:8.", required=True
)
EXAMPLES = flags.DEFINE_integer(
    "examples", None, "Training examples; default: of the data source, or of ImageNet-1k."
)
SWEEP = flags.DEFINE_string(
    "sweep", None, "Choices to compare, e.g. 'fsdp=1,16;remat=dots,full;windowed_einsum=true,false'"
)
SEARCH = flags.DEFINE_bool("search", True, "Whether to look for what fits, if the plan does not.")
QUICK = flags.DEFINE_bool(
    "quick", False, "Seconds instead of minutes: no machine code, so no peak and no expected time."
)
WINDOWED = flags.DEFINE_bool(
    "windowed_einsum",
    True,
    "Whether FSDP's collectives may be cut up to overlap with compute (TPUs).",
)
JSON = flags.DEFINE_string("json", None, "A file for the plan as JSON.")
CACHE = flags.DEFINE_string(
    "cache", None, "Directory of compiled programs; default: in the user's cache; '': none."
)


def main() -> None:
    """Runs the command."""
    slice_ = topology.parse(TOPOLOGY.value)
    topology.prepare_environment(slice_.chip)
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
        quick=QUICK.value,
        cache=Path(cache) if cache else None,
        say=lambda sentence: print(sentence, file=sys.stderr, flush=True),
    )
    if SWEEP.value is not None:
        choices = sweep.parse(SWEEP.value, config)
        text, result = sweep.table(choices, config, settings, planner.plan)
        print(text, flush=True)
    else:
        plan = planner.plan(config, settings)
        print(report.text(plan), flush=True)
        result = report.as_json(plan)
        if SEARCH.value and not plan.memory.fits:
            found = search.changes(
                config, plan.mesh, lambda each: planner.fits(each, settings), settings.say
            )
            print("\n" + report.changes(found))
            result["fits_with"] = [dict(change.keys) for change in found]
    if JSON.value:
        Path(JSON.value).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    cli.run(main)
