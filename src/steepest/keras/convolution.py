"""Convolutions within a loop, as fast and as exact as outside.

XLA lays convolutions out for its fast kernels only outside loops when it compiles for a CPU. Within the scan
over an epoch's steps, the gradient of a layer's kernel would be computed by a plain loop: several times
slower than Keras, and rounded in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import Jaxpr, JaxprEqn, Literal
from jax.extend.core.primitives import conv_general_dilated_p, jit_p


def lay_out(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that computes the same, its convolutions over ``[batch, *space, feature]``.

    That is what XLA makes of a convolution outside a loop, transposition for transposition.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> wave, kernel = jnp.arange(5.0).reshape(1, 1, 5), jnp.ones((1, 1, 2))  # [batch, feature, space]
    >>> smooth = lay_out(lambda wave: jax.lax.conv_general_dilated(wave, kernel, (1,), "VALID"))
    >>> smooth(wave)
    Array([[[1., 3., 5., 7.]]], dtype=float32)
    """

    def laid_out(*arguments: Any) -> Any:
        closed, result = jax.make_jaxpr(function, return_shape=True)(*arguments)
        leaves = _evaluate(closed.jaxpr, closed.consts, jax.tree.leaves(arguments))
        return jax.tree.unflatten(jax.tree.structure(result), leaves)

    return laid_out


def _evaluate(jaxpr: Jaxpr, constants: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    """Do what a traced function does, equation for equation."""
    known = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*constants, *arguments), strict=True))

    def value(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else known[atom]

    for equation in jaxpr.eqns:
        with equation.ctx.manager:
            results = _apply(equation, [value(atom) for atom in equation.invars])
        known.update(zip(equation.outvars, results, strict=True))
    return [value(atom) for atom in jaxpr.outvars]


def _apply(equation: JaxprEqn, values: list[Any]) -> Sequence[Any]:
    if equation.primitive is conv_general_dilated_p:
        return [_convolve(*values, **equation.params)]
    if equation.primitive is jit_p and _convolves(equation.params["jaxpr"].jaxpr):
        inner = equation.params["jaxpr"]
        return _evaluate(inner.jaxpr, inner.consts, values)
    primitive: Any = equation.primitive
    results: Any = primitive.bind(*values, **primitive.get_bind_params(equation.params))
    return results if primitive.multiple_results else [results]


def _convolves(jaxpr: Jaxpr) -> bool:
    return any(
        each.primitive is conv_general_dilated_p
        or (each.primitive is jit_p and _convolves(each.params["jaxpr"].jaxpr))
        for each in jaxpr.eqns
    )


def _convolve(images: Any, kernels: Any, *, dimension_numbers: Any, **settings: Any) -> Any:
    """Convolve ``[batch, *space, feature]`` with ``[*space, feature in, feature out]``, and transpose back.

    A specification of dimensions says where batch, feature and space are, and for kernels where the
    features out, the features in and space are.
    """
    (batch, feature, *space), (to, of, *window), wanted = dimension_numbers
    last = images.ndim - 1
    between = range(1, last)
    numbers = jax.lax.ConvDimensionNumbers(
        lhs_spec=(0, last, *between),
        rhs_spec=(last, last - 1, *range(last - 1)),
        out_spec=(0, last, *between),
    )
    result = jax.lax.conv_general_dilated(
        jax.lax.transpose(images, (batch, *space, feature)),
        jax.lax.transpose(kernels, (*window, of, to)),
        dimension_numbers=numbers,
        **settings,
    )
    places = dict(zip(wanted, numbers.out_spec, strict=True))
    return jax.lax.transpose(result, [places[at] for at in range(last + 1)])
