"""Reading a compiled program: its computations, and how often each of them runs.

XLA's text names every instruction and computation. Control computations (the entry, bodies of
loops) run one instruction after the other; fusions and reductions are called by them. libtpu does
not write how often a loop runs: that follows from its condition, its body and where it starts.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator


class HloError(Exception):
    """The text has a form that this reader does not know; what is derived from it is unknown."""


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name: unique in the program, without %.
      type: of the result, as written, with layout.
      op: e.g. "fusion", "all-reduce-start".
      operands: names.
      attributes: what follows the operands, as written.
      literal: what stands between the brackets, as written: the value of a constant.
    """

    name: str
    type: str
    op: str
    operands: tuple[str, ...]
    attributes: str
    literal: str

    def called(self, key: str) -> str | None:
        """Returns the computation of an attribute such as `body`, or None."""
        match = re.search(rf"\b{key}=%?([\w.\-]+)", self.attributes)
        return match and match[1]

    @property
    def op_name(self) -> str:
        """The place in the Python program that it comes from; may be empty."""
        match = re.search(r'op_name="([^"]*)"', self.attributes)
        return match[1] if match else ""


@dataclasses.dataclass
class Computation:
    """Instructions by name, in order, and the name of the result."""

    name: str
    instructions: dict[str, Instruction]
    root: str = ""

    def __getitem__(self, name: str) -> Instruction:
        return self.instructions[name]

    def __iter__(self) -> Iterator[Instruction]:
        return iter(self.instructions.values())


@dataclasses.dataclass
class Program:
    """A module.

    Attributes:
      entry: name of the computation that is run.
      computations: by name.
      runs: how often each computation runs in one call of the program; 0 if it is only applied to
        elements, as the function of a reduction.
      control: the computations that run instruction by instruction.
      loops: (name of the loop, trips) for all loops.
    """

    entry: str
    computations: dict[str, Computation]
    runs: dict[str, float] = dataclasses.field(default_factory=dict)
    control: set[str] = dataclasses.field(default_factory=set)
    loops: list[tuple[str, int]] = dataclasses.field(default_factory=list)

    def called(self, instruction: Instruction, key: str) -> Computation:
        """Returns the computation that an attribute such as `body` names.

        Raises:
          HloError: the instruction has no such attribute.
        """
        name = instruction.called(key)
        if name is None:
            raise HloError(f"'{instruction.name}' has no attribute '{key}'")
        return self.computations[name]


_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_COMMENT = re.compile(r"/\*.*?\*/")


def parse(text: str) -> Program:
    """Reads the text of a compiled module.

    Raises:
      HloError: it has no entry, or a loop whose trips cannot be found.
    """
    program, current = Program("", {}), None
    # Comments such as /*index=5*/ stand inside of tuples.
    for line in _COMMENT.sub("", text).splitlines():
        if current is None:
            if match := _HEADER.match(line):
                current = Computation(match[2], {})
                program.computations[current.name] = current
                program.entry = current.name if match[1] else program.entry
        elif line.startswith("}"):
            current = None
        elif match := _LINE.match(line):
            current.instructions[match[2]] = _instruction(match[2], match[3])
            current.root = match[2] if match[1] else current.root
    if not program.entry:
        raise HloError("the text has no entry computation")
    _count_runs(program)
    return program


def elements(type_: str) -> list[str]:
    """Splits the type of a tuple into those of its elements; another type is its only element."""
    if not type_.startswith("("):
        return [type_]
    parts, depth, start = [], 0, 1
    for i, character in enumerate(type_):
        depth += (character in "([{") - (character in ")]}")
        if depth == 0 or (depth == 1 and character == ","):
            parts.append(type_[start:i].strip())
            start = i + 1
    return [part for part in parts if part]


_ARRAY = re.compile(r"\b([a-z]\w*?)\[([\d,<= ]*)\]")
_BITS = {"pred": 8, "token": 0, "opaque": 0}


def size_in_bytes(type_: str) -> float:
    """Returns the bytes of a type, all elements of tuples together, without padding."""
    total = 0.0
    for dtype, dimensions in _ARRAY.findall(re.sub(r"\{[^{}]*\}", "", type_)):
        if dtype in _BITS:
            bits = _BITS[dtype]
        elif width := re.match(r"[a-z]+(\d+)", dtype):
            bits = int(width[1])
        else:
            raise HloError(f"the type {dtype} is not known")
        sizes = (int(size.strip("<= ")) for size in dimensions.split(",") if size)
        total += math.prod(sizes) * bits / 8
    return total


def _instruction(name: str, rest: str) -> Instruction:
    type_, rest = _split_type(rest)
    op, _, rest = rest.partition("(")
    depth, end = 1, len(rest)
    for i, character in enumerate(rest):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            end = i
            break
    inside = rest[:end]
    return Instruction(
        name, type_, op, tuple(re.findall(r"%([\w.\-]+)", inside)), rest[end + 1 :], inside
    )


def _split_type(text: str) -> tuple[str, str]:
    if not text.startswith("("):
        type_, _, rest = text.partition(" ")
        return type_, rest
    depth = 0
    for i, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return text[: i + 1], text[i + 2 :]
    raise HloError(f"the brackets of '{text[:60]}' do not close")


def _count_runs(program: Program) -> None:
    """Fills in `runs`, `control` and `loops`, from the entry down.

    A computation may be called from several places, so all callers come before what they call.
    """
    program.runs = dict.fromkeys(program.computations, 0.0)
    program.runs[program.entry] = 1.0
    program.control = {program.entry}
    callees, callers = {}, collections.Counter()
    for name in _reached(program, callees):
        callers.update(callee for callee, _, _ in callees[name])
    ready = [program.entry]
    while ready:
        name = ready.pop()
        for callee, times, control in callees[name]:
            program.runs[callee] += times * program.runs[name]
            if control and name in program.control:
                program.control.add(callee)
            callers[callee] -= 1
            if not callers[callee]:
                ready.append(callee)


def _reached(program: Program, callees: dict[str, list]) -> list[str]:
    """Fills in {computation: [(called, times, whether it is control)]} from the entry on."""
    order, waiting = [], [program.entry]
    while waiting:
        name = waiting.pop()
        if name in callees:
            continue
        order.append(name)
        callees[name] = list(_calls(program, program.computations[name]))
        waiting.extend(callee for callee, _, _ in callees[name])
    return order


def _calls(program: Program, caller: Computation) -> Iterator[tuple[str, float, bool]]:
    for instruction in caller:
        if instruction.op == "while":
            trips = _trips(program, caller, instruction)
            program.loops.append((instruction.name, trips))
            yield program.called(instruction, "body").name, trips, True
        elif instruction.op == "conditional":
            # Which branch runs is not known: all are counted, so the sum is an upper bound.
            branches = re.search(r"branch_computations=\{([^}]*)\}", instruction.attributes)
            names = branches[1].split(",") if branches else []
            names += [
                instruction.called(k) or "" for k in ("true_computation", "false_computation")
            ]
            for name in names:
                if name.strip(" %"):
                    yield name.strip(" %"), 1.0, True
        elif instruction.op == "call":
            yield program.called(instruction, "to_apply").name, 1.0, True
        elif callee := instruction.called("calls"):
            yield callee, 1.0, instruction.op not in ("fusion", "custom-call")


def _trips(program: Program, caller: Computation, loop: Instruction) -> int:
    """Returns how often the body of a loop runs.

    The condition compares element i of the state with a constant, the body adds a constant to it,
    and the caller starts it at a constant.
    """
    if known := re.search(r'known_trip_count"?:\{"?n"?:"?(\d+)', loop.attributes):
        return int(known[1])
    condition = program.called(loop, "condition")
    body = program.called(loop, "body")
    test = condition[condition.root]
    if test.op == "fusion":  # as on GPUs: compare is the only instruction of a fusion
        inner = program.called(test, "calls")
        outer, test = test, inner[inner.root]
        operands = [_outside(inner, name, condition, outer) for name in test.operands]
    else:
        operands = [(condition, name) for name in test.operands]
    if test.op != "compare" or "direction=LT" not in test.attributes:
        raise HloError(f"the loop {loop.name} does not end with a comparison: {test.op}")
    index, limit = _element(*operands[0]), _constant(*operands[1])
    start_of = _source(caller, loop.operands[0])
    start = None
    if start_of.op == "tuple" and index is not None:
        start = _constant(caller, start_of.operands[index])
    step = None if index is None else _step(program, body, index)
    if limit is None or start is None or not step:
        raise HloError(
            f"the trips of the loop {loop.name} are not constant: start {start}, end {limit}, "
            f"step {step}"
        )
    return max(0, math.ceil((limit - start) / step))


def _step(program: Program, body: Computation, index: int) -> int | None:
    """Returns the constant that the body adds to an element of its state, or None."""
    result = _source(body, body.root)
    if result.op != "tuple":
        return None
    add = _source(body, result.operands[index])
    home = body
    if add.op == "fusion":
        inner = program.called(add, "calls")
        outer, add = add, _source(inner, inner.root)
        operands = [_outside(inner, name, body, outer) for name in add.operands]
    else:
        operands = [(home, name) for name in add.operands]
    if add.op != "add" or len(operands) != 2:
        return None
    for one, other in (operands, operands[::-1]):
        if _element(*one) == index:
            return _constant(*other)
    return None


def _outside(
    inner: Computation, name: str, outer: Computation, fusion: Instruction
) -> tuple[Computation, str]:
    """Returns where a value of a fused computation comes from: its caller, if a parameter."""
    source = _source(inner, name)
    if source.op == "parameter":
        return outer, fusion.operands[int(source.literal)]
    return inner, source.name


def _source(computation: Computation, name: str) -> Instruction:
    """Follows copies back to the instruction that made the value."""
    instruction = computation[name]
    while instruction.op in ("copy", "bitcast", "copy-start", "copy-done", "reshape"):
        instruction = computation[instruction.operands[0]]
    return instruction


def _element(computation: Computation, name: str) -> int | None:
    """Returns which element of the computation's parameter a value is, or None."""
    instruction = _source(computation, name)
    if instruction.op != "get-tuple-element":
        return None
    if _source(computation, instruction.operands[0]).op != "parameter":
        return None
    index = re.search(r"index=(\d+)", instruction.attributes)
    return None if index is None else int(index[1])


def _constant(computation: Computation, name: str) -> int | None:
    instruction = _source(computation, name)
    if instruction.op != "constant" or not re.fullmatch(r"-?\d+", instruction.literal):
        return None
    return int(instruction.literal)
