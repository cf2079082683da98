"""A function's program as one flat list of JAX's primitives, without what is particular to a CPU.

The networks choose forms of their convolutions by platform (`models.convolution`). A file that leaves JAX has one form:
XLA's own, which is what other programs know.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend import core


def program(function: Callable, *arguments: jax.ShapeDtypeStruct) -> core.ClosedJaxpr:
    """The program of `function` for arrays of these shapes; nothing in it depends on the platform or calls another."""
    traced = jax.make_jaxpr(function)(*arguments)
    return jax.make_jaxpr(lambda *arrays: _run(traced, arrays))(*arguments)


def _run(program: core.ClosedJaxpr, arguments: Sequence[Any]) -> list[Any]:
    """Runs a program primitive by primitive, inside the programs that it calls, too."""
    jaxpr = program.jaxpr
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*program.consts, *arguments], strict=True))

    def value(variable: Any) -> Any:
        return variable.val if isinstance(variable, core.Literal) else values[variable]

    for equation in jaxpr.eqns:
        results = _apply(equation, [value(variable) for variable in equation.invars])
        values |= zip(equation.outvars, results, strict=True)
    return [value(variable) for variable in jaxpr.outvars]


def _apply(equation: Any, arguments: list[Any]) -> list[Any]:
    params = equation.params
    if equation.primitive.name == "platform_index":
        return [params["platforms"].index(None)]  # the branch for all platforms that are not named
    if equation.primitive.name == "cond" and isinstance(arguments[0], int):
        return _run(params["branches"][arguments[0]], arguments[1:])
    if equation.primitive.name == "scan":  # its program is run for each slice, not once
        body = params["jaxpr"]
        params = params | {"jaxpr": program(core.jaxpr_as_fun(body), *body.in_avals)}
        return equation.primitive.bind(*arguments, **params)
    called = params.get("jaxpr") or params.get("call_jaxpr")  # of jit, custom_vjp_call and custom_jvp_call
    if called is not None:
        return _run(called, arguments)
    results = equation.primitive.bind(*arguments, **params)
    return results if equation.primitive.multiple_results else [results]
