"""Which dimension of a parameter is split over which axis of the mesh.

A rule is (regular expression, axes of the last dimensions): `("/mlp/up/kernel$", (None, "tensor"))`
splits the last dimension of every leaf with such a name over the axis `tensor`. Dimensions are
counted from the end, so a rule holds for stacked blocks, whose leaves have one more in front, as
for single ones. The first rule that matches decides; what it leaves may still be split by FSDP.

The expression is searched in the whole name of a leaf of the training state, such as
`variables/params/encoder/stack/blocks/mlp/up/kernel`. The names of moments and of teachers end as
those of the parameters they belong to, so that the same rules place them alike.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jax.sharding import PartitionSpec

from maskjax.errors import UserError
from maskjax.parallel.mesh import PARAMETER_AXES

# Megatron-LM (Shoeybi et al., 2019): the matrices into the heads and into the hidden layer are
# split by columns, those out of them by rows, so a branch needs one sum over the devices forward
# and one backward. What is added after that sum, the bias of a matrix out, stays whole. Query, key
# and value have matrices of their own, whose columns are ordered by heads: each device has whole
# heads. What is counted per head goes with them. One matrix for shift, scale and gate
# (`modulation`) has no split that all of its parts share, and stays.
TENSOR_RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (r"/attention/(query|key|value)/kernel$", (None, "tensor")),
    (r"/attention/(query|key|value)/bias$", ("tensor",)),
    (r"/attention/out/kernel$", ("tensor", None)),
    (r"/attention/offsets_down/kernel$", (None, "tensor")),  # a bias of the logits per head
    (r"/attention/offsets_down/bias$", ("tensor",)),
    (r"/attention/(scale|tau)$", ("tensor",)),  # temperatures of the heads
    (r"/relative_bias/table$", (None, "tensor")),
    (r"/(mlp|stage\d+_block\d+)/up/kernel$", (None, "tensor")),  # the latter: ConvNeXt
    (r"/(mlp|stage\d+_block\d+)/up/bias$", ("tensor",)),
    (r"/(mlp|stage\d+_block\d+)/down/kernel$", ("tensor", None)),
)


_FORM = "write a tuple of rules such as (('/mlp/up/kernel$', (None, 'tensor')),)."


class Rule(NamedTuple):
    """A rule that was read.

    Attributes:
      pattern: searched in the name of a leaf.
      axes: of the last dimensions, an axis or None for each.
      own: whether it is of the configuration, which has to decide over something.
    """

    pattern: re.Pattern
    axes: tuple[str | None, ...]
    own: bool

    def matches(self, name: str, shape: Sequence[int]) -> bool:
        """Returns whether it is about this leaf; one with fewer dimensions is none of its."""
        return len(self.axes) <= len(shape) and bool(self.pattern.search(name))


def read_rules(own: Any = ()) -> tuple[Rule, ...]:
    """Returns the rules of a configuration, and behind them those that hold for all networks.

    Args:
      own: `parallel.rules`: (regular expression, axes) of each.

    Raises:
      UserError: one has another form, no valid expression, or an axis that splits no parameters.
    """
    if isinstance(own, str) or not isinstance(own, Sequence):
        raise UserError(f"parallel.rules is {own!r}: {_FORM}")
    general = (Rule(re.compile(pattern), axes, False) for pattern, axes in TENSOR_RULES)
    return (*map(_read, own), *general)


def _read(rule: Any) -> Rule:
    if (
        not isinstance(rule, Sequence)
        or len(rule) != 2
        or not isinstance(rule[0], str)
        or isinstance(rule[1], str)
        or not isinstance(rule[1], Sequence)
    ):
        raise UserError(f"parallel.rules has {rule!r}: {_FORM}")
    pattern, axes = rule[0], tuple(rule[1])
    for axis in axes:
        if axis is not None and axis not in PARAMETER_AXES:
            raise UserError(
                f"The rule {rule!r} of parallel.rules names the axis {axis!r}: parameters are "
                f"split over {' and '.join(PARAMETER_AXES)}, or not at all (None)."
            )
    named = [axis for axis in axes if axis is not None]
    if len(set(named)) < len(named):
        raise UserError(
            f"The rule {rule!r} of parallel.rules names an axis twice: it can split one dimension."
        )
    try:
        return Rule(re.compile(pattern), axes, True)
    except re.error as error:
        raise UserError(
            f"The rule {rule!r} of parallel.rules is no regular expression: {error}."
        ) from None


def split(
    name: str,
    shape: Sequence[int],
    sizes: Mapping[str, int],
    fsdp_min_size: int,
    rules: Sequence[Rule],
) -> PartitionSpec:
    """Returns how a leaf is split: by the first rule that matches, then by FSDP.

    FSDP takes the largest of the dimensions that are left and divisible, in leaves of at least
    `fsdp_min_size` values.

    Args:
      name: of the leaf.
      shape: of the leaf, whole.
      sizes: of the axes of the mesh.
      fsdp_min_size: threshold in values.
      rules: from `read_rules`.

    Raises:
      UserError: the size of an axis does not divide the dimension that a rule gives it.
    """
    rule = next((rule for rule in rules if rule.matches(name, shape)), None)
    axes: list[str | None] = [None] * len(shape)
    if rule is not None:
        start = len(shape) - len(rule.axes)
        for dimension, axis in enumerate(rule.axes, start):
            if axis is None or sizes[axis] == 1:
                continue
            if shape[dimension] % sizes[axis]:
                raise UserError(
                    f"{name} {list(shape)} cannot be split over {axis}={sizes[axis]}, which does "
                    f"not divide {shape[dimension]}: change parallel.mesh.{axis}, or put the rule "
                    f"({rule.pattern.pattern!r}, ()) in front of parallel.rules."
                )
            axes[dimension] = axis
    given = rule is not None and "fsdp" in rule.axes
    if sizes["fsdp"] > 1 and not given and math.prod(shape) >= fsdp_min_size:
        left = [
            n if axis is None and n % sizes["fsdp"] == 0 else 0
            for n, axis in zip(shape, axes, strict=True)
        ]
        if any(left):
            axes[left.index(max(left))] = "fsdp"
    while axes and axes[-1] is None:
        axes.pop()
    return PartitionSpec(*axes)


def check_used(rules: Sequence[Rule], shapes: Mapping[str, Sequence[int]]) -> None:
    """Refuses rules of the configuration that decide over nothing.

    Args:
      rules: from `read_rules`.
      shapes: {name: shape} of all leaves.

    Raises:
      UserError: no leaf has such a name, or earlier rules decide over all that have it.
    """
    left = {rule for rule in rules if rule.own}
    for name, shape in shapes.items():
        left.discard(next((rule for rule in rules if rule.matches(name, shape)), None))
    for rule in rules:
        if rule in left:
            example = next((name for name in shapes if name.endswith("kernel")), "")
            raise UserError(
                f"The rule ({rule.pattern.pattern!r}, {rule.axes!r}) of parallel.rules decides "
                "over nothing: no leaf with so many dimensions has such a name, or earlier rules "
                f"come first. A name is, for example, '{example}'."
            )
