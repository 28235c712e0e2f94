"""Cycles, traffic and times."""

import dataclasses

import pytest

from maskjax.planning import chips, costs, hlo, roofline

PROGRAM = """
%slice_of_stack (p: bf16[8,128,128], i: s32[]) -> bf16[1,128,128] {
  %p = bf16[8,128,128]{2,1,0} parameter(0)
  %i = s32[] parameter(1)
  ROOT %s = bf16[1,128,128]{2,1,0} dynamic-slice(%p, %i), dynamic_slice_sizes={1,128,128}
}

%update_stack (q: bf16[8,128,128], v: bf16[1,128,128], j: s32[]) -> bf16[8,128,128] {
  %q = bf16[8,128,128]{2,1,0} parameter(0)
  %v = bf16[1,128,128]{2,1,0} parameter(1)
  %j = s32[] parameter(2)
  ROOT %u = bf16[8,128,128]{2,1,0} dynamic-update-slice(%q, %v, %j)
}

%elementwise (x: f32[1024]) -> f32[1024] {
  %x = f32[1024]{0} parameter(0)
  ROOT %y = f32[1024]{0} negate(%x)
}

ENTRY %main (a: bf16[8,128,128], b: f32[1024], n: s32[]) -> f32[1024] {
  %a = bf16[8,128,128]{2,1,0} parameter(0)
  %b = f32[1024]{0} parameter(1)
  %n = s32[] parameter(2)
  %one = bf16[1,128,128]{2,1,0:T(8,128)S(1)} fusion(%a, %n), calls=%slice_of_stack, FORWARD
  %all = bf16[8,128,128]{2,1,0} fusion(%a, %one, %n), calls=%update_stack, BACKWARD
  %c = f32[1024]{0} fusion(%b), calls=%elementwise, CYCLES
  %start = (f32[1024]{0:S(1)}, f32[1024]{0}, u32[]) copy-start(%c)
  %done = f32[1024]{0:S(1)} copy-done(%start)
  %sorted = f32[1024]{0:S(1)} sort(%done), dimensions={0}
  ROOT %d = f32[1024]{0} copy(%sorted), backend_config={"estimated_cycles":"7"}
}
"""
IN_TERMS = "jvp(jit(term_values))"
FORWARD = (
    f'metadata={{op_name="jit(f)/{IN_TERMS}/ViT/dot"}}, backend_config={{"estimated_cycles":"100"}}'
)
PROGRAM = (
    PROGRAM.replace("FORWARD", FORWARD)
    .replace("BACKWARD", FORWARD.replace(IN_TERMS, f"transpose({IN_TERMS})").replace("100", "200"))
    .replace("CYCLES", 'backend_config={"estimated_cycles":"3"}')
)


def test_cycles_by_part():
    program = hlo.parse(PROGRAM)
    assert costs.cycles(program) == {"ViT backward": 200, "ViT forward": 100, "other": 10}
    assert costs.without_estimate(program) == {"copy-start": 1, "sort": 1}


def test_cycles_count_as_often_as_they_run():
    program = hlo.parse(PROGRAM)
    program.runs["main"] = 5
    assert sum(costs.cycles(program).values()) == 5 * 310


def test_traffic_is_what_touches_main_memory():
    """Slices count as such, updates in place as what they write, on-chip buffers not at all."""
    block, vector = 128 * 128 * 2, 1024 * 4
    read_slice = block + 4  # and the index
    update = block + 4  # what it writes; its other operand is on chip
    assert costs.traffic(hlo.parse(PROGRAM)) == (
        read_slice
        + update
        + 2 * vector  # read and written
        + vector  # the copy to the chip
        + vector  # and back
    )


def test_times():
    chip = chips.find("v5e")
    times = roofline.times(chip, 197e12, 197e9, 8.19e9, 0.004, 0.010)
    assert times.compute == pytest.approx(0.001)
    assert times.memory == pytest.approx(0.010)
    assert (times.limit, times.bound) == ("memory", times.memory)
    assert times.expected == pytest.approx((0.010, 0.014))
    assert dataclasses.replace(times, kernels=0.1).expected == pytest.approx((0.1, 0.104))
    assert roofline.times(chip, 1.0, 1.0, 1.0, None, None).expected is None


def test_a_device_of_half_a_chip_has_half_its_bandwidth():
    assert roofline.times(chips.find("v3"), 1e12, 0, 450e9, None, None).memory == 1.0


def test_rates():
    """800 epochs of 312 steps at 0.1 s on 64 chips."""
    rates = roofline.rates(0.1, 4096, 249_600, 500e12, 1e16, 64)
    assert rates["hours"] == pytest.approx(6.933, abs=1e-3)
    assert rates["chip_hours"] == pytest.approx(64 * rates["hours"])
    assert rates["examples_per_second"] == pytest.approx(40960)
    assert rates["mfu"] == pytest.approx(0.5)
