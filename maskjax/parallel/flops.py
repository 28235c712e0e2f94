"""Counting the floating-point operations of a program from its jaxpr."""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core
from jax.interpreters import partial_eval


def count_flops(function: Callable, *arguments: Any) -> int:
    """Counts matmul and convolution FLOPs of one call; a multiply-add is 2.

    Unlike XLA's cost analysis, the body of a scan counts as often as it runs. Elementwise work is
    left out, and `while` bodies, whose trips are unknown, count once.

    Args:
      function: traced on abstract values, never run.
      *arguments: arrays or `ShapeDtypeStruct`s.
    """
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    # As XLA does: what no output depends on, such as a teacher's last blocks, is not computed.
    jaxpr, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return _count(jaxpr)


def _count(jaxpr: core.Jaxpr) -> int:
    return sum(_equation(equation) for equation in jaxpr.eqns)


def _equation(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracting, _), _ = params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return (
            2
            * math.prod(equation.outvars[0].aval.shape)
            * math.prod(left[axis] for axis in contracting)
        )
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        features = kernel[params["dimension_numbers"].rhs_spec[0]]
        return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) // features
    if name == "scan":
        return params["length"] * _count(params["jaxpr"].jaxpr)
    if name == "shard_map":
        # Of one device. Those along axes that split no argument do the same.
        specs = jax.tree.leaves(tuple(map(tuple, params["in_specs"])))
        shards = math.prod(params["mesh"].shape[axis] for axis in set(specs))
        return shards * _count(params["jaxpr"])
    if name == "cond":
        return max(_count(branch.jaxpr) for branch in params["branches"])
    if name in ("custom_jvp_call", "custom_vjp_call"):
        return sum(_count(j) for j in _jaxprs(params.get("call_jaxpr")))
    return sum(_count(jaxpr) for value in params.values() for jaxpr in _jaxprs(value))


def _jaxprs(value: Any) -> list[core.Jaxpr]:
    if isinstance(value, core.ClosedJaxpr):
        return [value.jaxpr]
    if isinstance(value, core.Jaxpr):
        return [value]
    return [j for v in value for j in _jaxprs(v)] if isinstance(value, (tuple, list)) else []
