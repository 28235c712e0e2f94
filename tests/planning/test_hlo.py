"""Reading compiled programs: trips of loops, runs of computations, sizes of types."""

import pytest

from maskjax.planning import hlo

# As libtpu writes it: no trip count, comments in tuples, copies of the counter.
LOOP = """
HloModule jit_step, is_scheduled=true

%fused_add (p: s32[]) -> s32[] {
  %p = s32[]{:T(128)} parameter(0)
  %two = s32[]{:T(128)} constant(STEP)
  ROOT %sum = s32[]{:T(128)} add(%p, %two)
}

%body (state: (s32[], f32[8,128], /*index=2*/f32[4])) -> (s32[], f32[8,128], f32[4]) {
  %state = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)S(1)}, /*index=2*/f32[4]{0}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%state), index=0
  %x = f32[8,128]{1,0:T(8,128)S(1)} get-tuple-element(%state), index=1
  %y = f32[4]{0} get-tuple-element(%state), index=2
  %i.copy = s32[]{:T(128)S(6)} copy(%i), backend_config={"flag_configs":[]}
  %next = NEXT
  ROOT %out = (s32[]{:T(128)}, f32[8,128]{1,0}, f32[4]{0}) tuple(%next, %x, %y)
}

%condition (state.1: (s32[], f32[8,128], f32[4])) -> pred[] {
  %state.1 = (s32[]{:T(128)}, f32[8,128]{1,0}, f32[4]{0}) parameter(0)
  %limit = s32[]{:T(128)} constant(LIMIT)
  %i.1 = s32[]{:T(128)} get-tuple-element(%state.1), index=0
  ROOT %less = pred[]{:T(512)} compare(%i.1, %limit), direction=LT, metadata={op_name="lt"}
}

ENTRY %main (a: f32[8,128], b: f32[4]) -> f32[8,128] {
  %a = f32[8,128]{1,0} parameter(0)
  %b = f32[4]{0} parameter(1)
  %zero = s32[]{:T(128)} constant(START)
  %zero.copy = s32[]{:T(128)} copy(%zero)
  %tuple = (s32[]{:T(128)}, f32[8,128]{1,0}, f32[4]{0}) tuple(%zero.copy, %a, %b)
  %loop = (s32[], f32[8,128], f32[4]) while(%tuple), condition=%condition, body=%body
  ROOT %result = f32[8,128]{1,0} get-tuple-element(%loop), index=1
}
"""
PLAIN = "s32[]{:T(128)} add(%i.copy, %step)\n  %step = s32[]{:T(128)} constant(STEP)"
FUSED = "s32[]{:T(128)} fusion(%i.copy), kind=kLoop, calls=%fused_add"


def program(start=0, limit=12, step=1, adding=PLAIN):
    text = LOOP.replace("NEXT", adding).replace("START", str(start))
    return text.replace("LIMIT", str(limit)).replace("STEP", str(step))


@pytest.mark.parametrize("adding", [PLAIN, FUSED])
@pytest.mark.parametrize(
    ("start", "limit", "step", "trips"), [(0, 12, 1, 12), (0, 8, 2, 4), (1, 8, 2, 4), (3, 3, 1, 0)]
)
def test_trips_follow_from_condition_body_and_start(adding, start, limit, step, trips):
    parsed = hlo.parse(program(start, limit, step, adding))
    assert parsed.loops == [("loop", trips)]
    assert parsed.runs["body"] == trips
    assert parsed.control == {"main", "body"}


def test_a_trip_count_that_is_written_is_taken():
    known = 'body=%body, backend_config={"known_trip_count":{"n":"7"}}'
    text = program().replace("body=%body", known)
    assert hlo.parse(text).loops == [("loop", 7)]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("direction=LT", "direction=GT"),
        ("%zero = s32[]{:T(128)} constant(0)", "%zero = s32[]{:T(128)} convert(%a)"),
        ("add(%i.copy, %step)", "multiply(%i.copy, %step)"),
    ],
)
def test_a_loop_of_another_form_is_an_error(old, new):
    assert old in program()
    with pytest.raises(hlo.HloError, match="loop"):
        hlo.parse(program().replace(old, new))


def test_no_program():
    with pytest.raises(hlo.HloError, match="no entry"):
        hlo.parse("HloModule empty")


NESTED = """
%inner (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  ROOT %q = f32[4]{0} negate(%p)
}

%callee (r: f32[4]) -> f32[4] {
  %r = f32[4]{0} parameter(0)
  %f = f32[4]{0} fusion(%r), kind=kLoop, calls=%inner
  ROOT %g = f32[4]{0} fusion(%f), kind=kLoop, calls=%inner
}

ENTRY %main (a: f32[4]) -> f32[4] {
  %a = f32[4]{0} parameter(0)
  %b = f32[4]{0} call(%a), to_apply=%callee
  ROOT %c = f32[4]{0} call(%b), to_apply=%callee
}
"""


def test_runs_add_up_over_all_callers():
    parsed = hlo.parse(NESTED)
    assert parsed.runs == {"main": 1, "callee": 2, "inner": 4}
    assert parsed.control == {"main", "callee"}


@pytest.mark.parametrize(
    ("type_", "size"),
    [
        ("f32[]", 4),
        ("bf16[2,3]{1,0:T(8,128)(2,1)S(1)}", 12),
        ("pred[5]", 5),
        ("s4[8]", 4),
        ("f8e4m3fn[16]", 16),
        ("(f32[2]{0}, (u8[3], s32[]))", 15),
    ],
)
def test_sizes(type_, size):
    assert hlo.size_in_bytes(type_) == size


def test_elements_of_tuples():
    assert hlo.elements("f32[2,3]{1,0}") == ["f32[2,3]{1,0}"]
    assert hlo.elements("((f32[2]{0:T(8,128)}), bf16[1,2]{1,0}, s32[])") == [
        "(f32[2]{0:T(8,128)})",
        "bf16[1,2]{1,0}",
        "s32[]",
    ]
