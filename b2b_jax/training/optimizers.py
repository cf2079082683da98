"""Optimisers of the supervised stages, by name, under their schedules."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from b2b_jax.training import schedules

OPTIMIZERS = {
    "adamw": lambda rate, c: optax.adamw(rate, *c.betas, weight_decay=c.weight_decay, mask=only_params),
    "adam": lambda rate, c: optax.adam(rate, *c.betas),
    "rmsprop": lambda rate, c: optax.rmsprop(rate, decay=c.rho, eps=1e-7),  # as in Keras
}
SCHEDULES = {
    "cosine": lambda c, steps: schedules.cosine(c.learning_rate, c.final, steps, c.warmup),
    "restarts": lambda c, steps: schedules.cosine_restarts(c.learning_rate, c.final, steps, c.periods, c.warmup),
    "halving": lambda c, steps: schedules.halving(c.learning_rate, steps, c.periods, c.warmup),
    "linear": lambda c, steps: schedules.constant_then_linear(c.learning_rate, c.constant_steps, steps, c.warmup),
    "constant": lambda c, steps: schedules.constant_then_linear(c.learning_rate, steps, steps + 1, c.warmup),
}


def create(config: ConfigDict, steps: int) -> optax.GradientTransformation:
    """The optimiser `config.name` under the schedule `config.schedule`, the global gradient norm clipped if asked."""
    rate = stretched(SCHEDULES[config.schedule](config, steps), config.accumulate)
    optimizer = OPTIMIZERS[config.name](rate, config)
    optimizer = optax.chain(clipped(config.clip), optimizer) if config.clip else optimizer
    return accumulated(optimizer, config.accumulate)


def clipped(limit: float) -> optax.GradientTransformation:
    """`optax.clip_by_global_norm` with one sum over all arrays; a sum for each is slow to compile on a CPU."""

    def update(gradients: Any, state: optax.EmptyState, params: Any = None) -> tuple[Any, optax.EmptyState]:
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(x)) for x in vectors(gradients)))
        return jax.tree.map(lambda x: jnp.where(norm < limit, x, x / norm * limit), gradients), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def vectors(tree: Any) -> list[jax.Array]:
    """The numbers of a tree's floating-point arrays, one vector for each type, for reductions over all of them.

    The barrier keeps XLA from computing the arrays again where the vectors are read.
    """
    leaves = jax.tree.leaves(tree)
    types = dict.fromkeys(x.dtype for x in leaves if jnp.issubdtype(x.dtype, jnp.floating))
    joined = [jnp.concatenate([x.ravel() for x in leaves if x.dtype == kind]) for kind in types]
    return jax.lax.optimization_barrier(joined)


def accumulated(optimizer: optax.GradientTransformation, every: int) -> optax.GradientTransformation:
    """The optimiser that moves the weights once in `every` steps, by the mean of their gradients."""
    return optax.MultiSteps(optimizer, every).gradient_transformation() if every > 1 else optimizer


def stretched(schedule: optax.Schedule, every: int) -> optax.Schedule:
    """A schedule of steps for an optimiser that counts one in `every` of them."""
    return schedule if every == 1 else lambda count: schedule(count * every)


def only_params(variables: Mapping[str, Any]) -> dict[str, Any]:
    """True for parameters, False for running statistics, which must not decay."""
    return {name: jax.tree.map(lambda _, name=name: name == "params", tree) for name, tree in variables.items()}


def whole(gradients: Any, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Gradients of the parameters with zeros for the running statistics, which an optimiser leaves as they are."""
    zeros = {name: jax.tree.map(jnp.zeros_like, tree) for name, tree in variables.items() if name != "params"}
    return {"params": gradients, **zeros}
