"""What devices exchange, from the text of a program."""

import pytest

from maskjax.planning import collectives, hlo
from maskjax.planning.collectives import first_group

PROGRAM = """
%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %z = f32[] add(%x, %y)
}

%async_start (w: bf16[64]) -> (bf16[64], bf16[1024]) {
  %w = bf16[64]{0} parameter(0)
  ROOT %s = (bf16[64]{0}, bf16[1024]{0}) all-gather-start(%w), channel_id=5, GROUPS
}

%async_step (w.1: bf16[64]) -> (bf16[64], bf16[1024]) {
  %w.1 = bf16[64]{0} parameter(0)
  ROOT %s.1 = (bf16[64]{0}, bf16[1024]{0}) all-gather-start(%w.1), channel_id=5, GROUPS
}

%all-reduce-scatter.1 (g: f32[1024]) -> f32[64] {
  %g = f32[1024]{0} parameter(0)
  %r = f32[1024]{0} all-reduce(%g), channel_id=6, GROUPS
  %zero = s32[] constant(0)
  ROOT %d = f32[64]{0} dynamic-slice(%r, %zero), dynamic_slice_sizes={64}
}

%all-reduce-scatter.2 (g.1: f32[1024]) -> f32[64] {
  %g.1 = f32[1024]{0} parameter(0)
  %r.1 = f32[1024]{0} all-reduce(%g.1), channel_id=6, GROUPS
  %zero.1 = s32[] constant(0)
  ROOT %d.1 = f32[64]{0} dynamic-slice(%r.1, %zero.1), dynamic_slice_sizes={64}
}

ENTRY %main (a: bf16[64], b: f32[1024]) -> f32[64] {
  %a = bf16[64]{0} parameter(0)
  %b = f32[1024]{0} parameter(1)
  %f = (bf16[64]{0}, bf16[1024]{0}) fusion(%a), kind=kCustom, calls=%async_start
  %f.1 = (bf16[64]{0}, bf16[1024]{0}) fusion(%a), kind=kCustom, calls=%async_step
  %f.2 = (bf16[64]{0}, bf16[1024]{0}) fusion(%a), kind=kCustom, calls=%async_step
  %e = f32[64]{0} fusion(%b), kind=kCustom, calls=%all-reduce-scatter.1
  %e.1 = f32[64]{0} fusion(%b), kind=kCustom, calls=%all-reduce-scatter.2
  %ar = (f32[256]{0}, f32[256]{0}) all-reduce(%e, %e), channel_id=7, QUARTERS
  %cp = (bf16[64]{0}, bf16[64]{0}, u32[]) collective-permute-start(%a), channel_id=8, PAIRS
  %cpd = bf16[64]{0} collective-permute-done(%cp), channel_id=8
  ROOT %out = f32[64]{0} copy(%e)
}
"""
PROGRAM = PROGRAM.replace("GROUPS", "replica_groups=[1,16]<=[16]")
PROGRAM = PROGRAM.replace("QUARTERS", "replica_groups=mesh['axis_0'=4,'axis_1'=4] {'axis_1'}")
PROGRAM = PROGRAM.replace("PAIRS", "source_target_pairs={{0,1},{1,2},{2,3}}")


def test_kinds_bytes_and_channels():
    found = collectives.collectives(hlo.parse(PROGRAM), 16)
    table = collectives.table(found)
    assert set(table) == {"all-gather", "all-reduce", "reduce-scatter", "collective-permute"}
    # One channel in three fusions is one all-gather of 1,024 bfloat16 values.
    assert table["all-gather"] == dict(ops=1, runs=1, bytes=2048, wire=2048 * 15 / 16)
    # An all-reduce that is sliced sends half of what an all-reduce does. Two share a channel.
    assert table["reduce-scatter"] == dict(ops=2, runs=2, bytes=8192, wire=8192 * 15 / 16)
    assert table["all-reduce"] == dict(ops=1, runs=1, bytes=2048, wire=2 * 2048 * 3 / 4)
    assert table["collective-permute"] == dict(ops=1, runs=1, bytes=128, wire=128)


@pytest.mark.parametrize(
    ("text", "group", "size"),
    [
        ("replica_groups={{0,2},{1,3}}", (0, 2), 2),
        ("replica_groups=[2,4]<=[8]", (0, 1, 2, 3), 4),
        ("replica_groups=[4,2]<=[2,4]T(1,0)", (0, 4), 2),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0'}", (0, 4), 2),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0','axis_1'}", tuple(range(8)), 8),
        ("replica_groups=mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'b'}", (0, 2, 4, 6), 4),
        ("to_apply=%add", tuple(range(8)), 8),
        ("replica_groups={}", tuple(range(8)), 8),
    ],
)
def test_groups(text, group, size):
    assert first_group(text, 8) == (group, size)


def test_unknown_groups_are_an_error():
    with pytest.raises(hlo.HloError, match="groups"):
        first_group("replica_groups=<new form>", 8)


def test_seconds():
    found = collectives.collectives(hlo.parse(PROGRAM), 16)
    total = sum(one.wire for one in found)
    assert collectives.seconds(found, lambda group: 1e6) == pytest.approx(total / 1e6)
