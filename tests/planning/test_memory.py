"""Hand counts, padding, leaves that stay whole, and messages about memory."""

import runpy
import types
from pathlib import Path

import jax
import pytest

from maskjax.errors import UserError
from maskjax.planning import hlo, memory
from maskjax.planning.compiling import Compiled, cached, out_of_memory
from maskjax.training.run import prepare

MAE = Path(__file__).parents[2] / "configs" / "mae.py"


@pytest.fixture(scope="module")
def run():
    config = runpy.run_path(str(MAE))["get_config"]("tiny")
    with config.unlocked():
        config.parallel.mesh.fsdp = 8
        config.parallel.fsdp_min_size = 100
        config.system.encoder.width = 20  # not divisible by 8
        config.system.encoder.heads = 5
    return prepare(config, jax.devices(), records=range(1000))


def test_no_records_are_needed(run):
    assert (len(run.records), run.clock.steps_per_epoch, run.total_steps) == (1000, 15, 30)


def test_state_by_hand(run):
    """AdamW keeps two moments: the optimiser has twice the bytes of the parameters."""
    params = run.abstract_state.variables["params"]
    counted = memory.memory(run, Compiled({}, "", 0.0, 1e9, 1e8), 1e8)
    assert counted.parameters == memory.shard_bytes(params)
    assert counted.parameters < 4 * sum(leaf.size for leaf in jax.tree.leaves(params))
    assert counted.optimiser == 2 * counted.parameters + 4  # and a counter
    assert not counted.fits
    assert counted.headroom < 0


def test_leaves_that_no_axis_splits_are_named(run):
    whole = memory.whole_leaves(run)
    # [2, 20, 20] has no axis that 8 divides; [2, 20, 80] has one.
    assert any("encoder/stack/blocks/attention/query/kernel" in name for name in whole)
    assert not any("mlp/up/kernel" in name for name in whole)


@pytest.mark.parametrize(
    ("type_", "size"),
    [
        ("f32[12,64]{1,0:T(8,128)}", 16 * 128 * 4),
        ("f32[64,12]{0,1:T(8,128)}", 16 * 128 * 4),
        ("bf16[3,8,128]{2,1,0:T(8,128)(2,1)}", 3 * 8 * 128 * 2),
        ("f32[]{:T(128)}", 512),
        ("f32[768]{0:T(1024)}", 4096),
        ("f32[5,7]", 140),
    ],
)
def test_padding_to_tiles(type_, size):
    assert memory.padded_bytes(type_) == size


def test_badly_padded_arguments_are_named():
    program = hlo.parse(
        "ENTRY %main (a: f32[512,64]) -> f32[512,64] {\n"
        '  %a = f32[512,64]{1,0:T(8,128)} parameter(0), metadata={op_name="state.kernel"}\n'
        "  ROOT %b = f32[512,64]{1,0:T(8,128)} copy(%a)\n}\n"
    )
    assert memory.badly_padded(program) == {"state.kernel": (512 * 64 * 4, 512 * 128 * 4)}


def test_activations_of_the_whole_batch_are_found(run):
    text = (
        "ENTRY %main (a: f32[64,1000,100]) -> f32[64,1000,100] {\n"
        "  %a = f32[64,1000,100]{2,1,0} parameter(0)\n"
        '  ROOT %b = f32[64,1000,100]{2,1,0} copy(%a), metadata={op_name="gathered"}\n}\n'
    )
    assert memory.unsplit_activations(hlo.parse(text), run) == {"gathered": 64 * 1000 * 100 * 4}
    split = text.replace("[64,", "[8,").replace("1000,", "8000,")
    assert memory.unsplit_activations(hlo.parse(split), run) == {}


def test_a_batch_as_large_as_a_width_is_no_activation():
    """[24, 4096, 64] may be a shard of a kernel; [4096, 197, 64] is not."""
    assert not memory._over_batch((24, 4096, 64), 4096, ambiguous=True)
    assert not memory._over_batch((4096, 1024), 4096, ambiguous=True)
    assert memory._over_batch((4096, 197, 64), 4096, ambiguous=True)
    assert memory._over_batch((24, 4096, 64), 4096, ambiguous=False)


def test_messages_about_memory():
    message = (
        "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space "
        "hbm: total memory required for HLO temporaries (29.55G) exceeds available HBM (15.75G)"
    )
    assert out_of_memory(message) == (29.55 * 2**30, 15.75 * 2**30)
    older = "Used 63.80G of 30.75G hbm. Exceeded hbm capacity by 33.05G."
    assert out_of_memory(older) == (63.80 * 2**30, 30.75 * 2**30)
    assert out_of_memory("(512.0M) exceeds available HBM (15.75G)")[0] == 512 * 2**20
    assert out_of_memory("INTERNAL: something else") is None


def test_peak_decides_and_not_the_sum(run):
    """With loops `temp` overstates: argument + temp may exceed the capacity of what fits."""
    given = dict(argument=2, alias=1, output=2, temp=17, generated_code=0, peak=14)
    found = memory.memory(run, Compiled(given, "", 0.0), 16)
    assert found.fits
    assert (found.state, found.batch, found.activations, found.headroom) == (1, 1, 12, 2)


def test_what_was_compiled_is_kept(tmp_path):
    result, made = Compiled({"peak": 5}, "text", 1.5), []

    def make():
        made.append(1)
        return result

    for _ in range(2):
        assert cached(tmp_path / "a", "key", make) == result
    assert len(made) == 1
    file = tmp_path / "a" / "key.json.gz"
    file.write_bytes(file.read_bytes()[:20])  # cut off: made again
    assert cached(tmp_path / "a", "key", make) == result
    assert cached(None, "key", make) == result
    assert len(made) == 3


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--cache=DIR"):
        cached(tmp_path / "file" / "below", "key", lambda: Compiled({}, "", 0.0))


def test_without_fsdp_nothing_is_named():
    mesh = types.SimpleNamespace(shape={"fsdp": 1})
    assert memory.whole_leaves(types.SimpleNamespace(mesh=mesh)) == {}
