"""Update rules by name: Keras' names and defaults, Optax's arithmetic.

The arithmetic is in `steepest.descent.rules`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optax

from steepest.descent import rules
from steepest.descent.rules import Preconditioner, Rule
from steepest.descent.schedules import Schedule, constant
from steepest.descent.tables import Rest
from steepest.errors import SteepestError, nearest


@dataclass(frozen=True)
class Optimizer:
    """An update rule and its learning rate.

    Parameters
    ----------
    name
        The name that settings and reports use.
    schedule
        The learning rate at each step.
    transformation
        Optax's ``(init, update)`` for a learning rate of one.
    preconditioner
        ``(optimizer_state, steps before) -> scale``: what a gradient that is always the same is multiplied
        by in a step of rate one, as a pytree like the parameters, or one number for all. ``None`` where it
        is unknown.
    clip_norm
        The norm that larger gradients are scaled down to before the rule sees them; ``None`` for no limit.
    settings
        The rule's own numbers.
    rest
        What the rule makes of rows of tables in steps of which the gradient is zero: see
        `steepest.descent.tables`. ``None`` for nothing.
    """

    name: str
    schedule: Schedule
    transformation: optax.GradientTransformationExtraArgs
    preconditioner: Preconditioner | None = None
    clip_norm: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    rest: Rest | None = None


LINE_SEARCH = "lbfgs"
"""The rule that finds the rate of each step by itself."""

LearningRate = float | Schedule


def _optimizer(
    name: str,
    learning_rate: LearningRate,
    rule: Rule,
    clip_norm: float | None,
    **settings: Any,
) -> Optimizer:
    if clip_norm is not None and not clip_norm > 0:
        raise SteepestError(f"The norm to clip gradients to must be above zero, not {clip_norm}.")
    if not isinstance(learning_rate, Schedule | int | float | np.number):
        raise SteepestError(
            f"A learning rate is a number or a schedule, not {type(learning_rate).__name__}.",
            hint="steepest.schedules.custom makes a schedule of a function.",
        )
    schedule = learning_rate if isinstance(learning_rate, Schedule) else constant(float(learning_rate))
    transformation, preconditioner, rest = rule
    return Optimizer(name, schedule, transformation, preconditioner, clip_norm, settings, rest)


def SGD(  # noqa: N802
    learning_rate: LearningRate = 0.01,
    *,
    momentum: float = 0.0,
    nesterov: bool = False,
    clip_norm: float | None = None,
) -> Optimizer:
    """Plain gradient descent, ``θ ← θ - η g``; with momentum β, ``u ← β u + g`` and ``θ ← θ - η u``.

    Nesterov's form steps along ``g + β u``. Where the learning rate changes, the velocity ``u`` follows
    the new rate at once, as in Optax and PyTorch (Keras keeps the old rate inside its velocity).

    Parameters
    ----------
    learning_rate
        η, or a schedule.
    momentum
        β in [0, 1).
    nesterov
        Whether to look ahead.
    clip_norm
        Scale a gradient whose norm is larger down to this norm.

    Examples
    --------
    >>> SGD(0.1).name, SGD(0.1, momentum=0.9).name, SGD(0.1, momentum=0.9, nesterov=True).name
    ('sgd', 'momentum', 'nesterov')
    """
    if nesterov and not momentum:
        raise SteepestError("Nesterov's rule needs momentum.", hint="Try momentum=0.9.")
    name = "nesterov" if nesterov else "momentum" if momentum else "sgd"
    rule = rules.sgd(momentum, nesterov)
    return _optimizer(name, learning_rate, rule, clip_norm, momentum=momentum, nesterov=nesterov)


def Momentum(  # noqa: N802
    learning_rate: LearningRate = 0.01, *, momentum: float = 0.9, clip_norm: float | None = None
) -> Optimizer:
    """Heavy-ball descent: `SGD` with momentum. Source: B. T. Polyak, 1964.

    Examples
    --------
    >>> Momentum().settings["momentum"]
    0.9
    """
    return SGD(learning_rate, momentum=momentum, clip_norm=clip_norm)


def Nesterov(  # noqa: N802
    learning_rate: LearningRate = 0.01, *, momentum: float = 0.9, clip_norm: float | None = None
) -> Optimizer:
    """Nesterov's accelerated descent: `SGD` with momentum that looks ahead. Source: Y. Nesterov, 1983.

    Examples
    --------
    >>> Nesterov().settings["nesterov"]
    True
    """
    return SGD(learning_rate, momentum=momentum, nesterov=True, clip_norm=clip_norm)


def AdaGrad(  # noqa: N802
    learning_rate: LearningRate = 0.001,
    *,
    initial_accumulator: float = 0.1,
    epsilon: float = 1e-7,
    clip_norm: float | None = None,
) -> Optimizer:
    """AdaGrad: ``s ← s + g²``, ``θ ← θ - η g / √(s + ε)``. Source: J. Duchi et al., 2011.

    Examples
    --------
    >>> AdaGrad().schedule.settings
    {'learning_rate': 0.001}
    """
    rule = rules.adagrad(initial_accumulator, epsilon)
    settings = {"initial_accumulator": initial_accumulator, "epsilon": epsilon}
    return _optimizer("adagrad", learning_rate, rule, clip_norm, **settings)


def RMSProp(  # noqa: N802
    learning_rate: LearningRate = 0.001,
    *,
    decay: float = 0.9,
    epsilon: float = 1e-7,
    clip_norm: float | None = None,
) -> Optimizer:
    """RMSProp: ``v ← ρ v + (1 - ρ) g²``, ``θ ← θ - η g / √(v + ε)``. Source: T. Tieleman, G. Hinton, 2012.

    Examples
    --------
    >>> RMSProp(decay=0.99).settings["decay"]
    0.99
    """
    rule = rules.rmsprop(decay, epsilon)
    return _optimizer("rmsprop", learning_rate, rule, clip_norm, decay=decay, epsilon=epsilon)


def Adam(  # noqa: N802
    learning_rate: LearningRate = 0.001,
    *,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
    clip_norm: float | None = None,
) -> Optimizer:
    """Adam: ``θ ← θ - η m̂ / (√v̂ + ε)`` with bias-corrected means of ``g`` and ``g²``.

    Source: D. P. Kingma and J. Ba, *Adam: A Method for Stochastic Optimization*, 2015. (Keras adds ε
    before the correction of ``v``, which differs in the first steps by a part in 10⁵ or less.)

    Examples
    --------
    >>> Adam(1e-3).name
    'adam'
    """
    rule = rules.adam(beta_1, beta_2, epsilon, 0.0)
    settings = {"beta_1": beta_1, "beta_2": beta_2, "epsilon": epsilon}
    return _optimizer("adam", learning_rate, rule, clip_norm, **settings)


def AdamW(  # noqa: N802
    learning_rate: LearningRate = 0.001,
    *,
    weight_decay: float = 0.004,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
    clip_norm: float | None = None,
) -> Optimizer:
    """Adam with decoupled weight decay: each step also subtracts ``η · weight_decay · θ``.

    Source: I. Loshchilov and F. Hutter, *Decoupled Weight Decay Regularization*, 2019.

    Examples
    --------
    >>> AdamW().settings["weight_decay"]
    0.004
    """
    rule = rules.adam(beta_1, beta_2, epsilon, weight_decay)
    settings = {"beta_1": beta_1, "beta_2": beta_2, "epsilon": epsilon}
    return _optimizer("adamw", learning_rate, rule, clip_norm, weight_decay=weight_decay, **settings)


def LBFGS(  # noqa: N802
    learning_rate: LearningRate = 1.0, *, memory: int = 10, clip_norm: float | None = None
) -> Optimizer:
    """L-BFGS for batch descent: the direction of Newton's method as the last steps suggest it.

    How far each step goes is found by a line search (Optax's zoom), which evaluates the loss of all rows some
    more times. There is no clipping, and no L1.

    Source: D. C. Liu and J. Nocedal, *On the limited memory BFGS method for large scale optimization*, 1989.

    Parameters
    ----------
    learning_rate
        What the length that the line search finds is multiplied by.
    memory
        Steps that are remembered, each as two vectors like the parameters.
    clip_norm
        Must be ``None``: the line search sees the gradients as they are.

    Examples
    --------
    >>> LBFGS().name
    'lbfgs'
    """
    if clip_norm is not None:
        raise SteepestError("L-BFGS takes gradients as they are.", hint="Leave --clip-norm out.")
    return _optimizer(LINE_SEARCH, learning_rate, rules.lbfgs(memory), None, memory=memory)


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": SGD,
    "momentum": Momentum,
    "nesterov": Nesterov,
    "adagrad": AdaGrad,
    "rmsprop": RMSProp,
    "adam": Adam,
    "adamw": AdamW,
    "lbfgs": LBFGS,
}


def optimizer_by_name(name: str) -> Callable[..., Optimizer]:
    """Return the function that makes the rule of that name.

    Raises
    ------
    SteepestError
        If there is none; the message names the nearest.
    """
    if name not in OPTIMIZERS:
        raise SteepestError(f"There is no optimizer {name!r}.", hint=nearest(name, OPTIMIZERS))
    return OPTIMIZERS[name]


def default_rate(name: str) -> float:
    """Return the learning rate that a rule has where none is given.

    Examples
    --------
    >>> default_rate("sgd")
    0.01
    """
    return float(optimizer_by_name(name)().schedule.settings["learning_rate"])


def as_optimizer(rule: Optimizer | optax.GradientTransformation | str) -> Optimizer:
    """Return an `Optimizer` for a rule given as one, by name, or as an Optax transformation.

    An Optax transformation carries its own learning rate, so that here its rate is 1.

    Raises
    ------
    SteepestError
        If it is none of these.

    Examples
    --------
    >>> as_optimizer(optax.lion(1e-4)).schedule.settings
    {'learning_rate': 1.0}
    """
    if isinstance(rule, Optimizer):
        return rule
    if isinstance(rule, str):
        return optimizer_by_name(rule)()
    if isinstance(rule, optax.GradientTransformation):
        return Optimizer("optax", constant(1.0), optax.with_extra_args_support(rule))
    raise SteepestError(
        f"An optimizer is a name, steepest.Adam(...) and its like, or an Optax transformation; got "
        f"{type(rule).__name__}."
    )
