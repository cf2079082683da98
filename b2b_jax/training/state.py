"""The state of a training run: all that a step changes, and so all that a checkpoint holds."""

from collections.abc import Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax

from b2b_jax.training import optimizers

Params = Any  # a network's variables, as `module.init` returns them
Optimizers = Mapping[str, optax.GradientTransformation]


@flax.struct.dataclass
class State:
    """`params`, `opt_state` and `ema` are keyed by network: "deblurrer", or "generator" and "discriminator"."""

    step: jax.Array  # int32: steps done, which is also the index of the next batch
    skipped: jax.Array  # int32: steps whose result was not finite and was thrown away
    bad_in_row: jax.Array  # int32: how many of these were the last ones
    params: dict[str, Params]
    opt_state: dict[str, Any]
    ema: dict[str, Params]  # moving averages; empty when the config asks for none
    memory: dict[str, Any] = flax.struct.field(default_factory=dict)  # what else a method's steps carry on, as arrays


def create(params: dict[str, Params], optimizers: Optimizers, averaged: tuple[str, ...] = ()) -> State:
    """A fresh state at step 0; `averaged` names the networks whose weights are averaged."""
    return State(
        step=jnp.zeros((), jnp.int32),
        skipped=jnp.zeros((), jnp.int32),
        bad_in_row=jnp.zeros((), jnp.int32),
        params=params,
        opt_state={name: optimizers[name].init(params[name]) for name in params},
        # A copy: a donated state must not hold the same buffer twice.
        ema={name: jax.tree.map(jnp.copy, params[name]) for name in averaged},
    )


def started(state: State, weights: Mapping[str, Params]) -> State:
    """A fresh state whose networks, and their averages, have other weights; copies, as the state will be donated."""
    copied = lambda names: {name: jax.tree.map(jnp.copy, weights[name]) for name in names if name in weights}  # noqa: E731
    return state.replace(params=state.params | copied(state.params), ema=state.ema | copied(state.ema))


def updated(state: State, name: str, gradients: Params, optimizer: optax.GradientTransformation) -> State:
    """One optimiser step of the network `name`; the others and `state.step` stay."""
    updates, opt_state = optimizer.update(gradients, state.opt_state[name], state.params[name])
    params = optax.apply_updates(state.params[name], updates)
    return state.replace(params={**state.params, name: params}, opt_state={**state.opt_state, name: opt_state})


def updated_beside(
    state: State, name: str, gradients: Params, statistics: Params, optimizer: optax.GradientTransformation
) -> State:
    """`updated` by gradients of the parameters alone; the network's running statistics become `statistics`."""
    gradients = optimizers.whole(gradients, state.params[name])
    new = updated(state, name, gradients, optimizer)
    return new.replace(params={**new.params, name: {**new.params[name], **statistics}})


def finished(new: State, old: State, decay: float = 0.0) -> State:
    """The end of every step: averages moved, the step counted, and nothing that is not finite let in."""
    return _keep_finite(_averaged(new, decay).replace(step=old.step + 1), old)


def best_params(state: State, name: str) -> Params:
    """The moving average of the network `name` if there is one, else its weights: what is evaluated and exported."""
    return state.ema.get(name, state.params[name])


def _averaged(state: State, decay: float) -> State:
    """Moves every moving average towards its network, faster in the first steps: decay ≤ (1 + step) / (10 + step)."""
    decay = jnp.minimum(decay, (1.0 + state.step) / (10.0 + state.step))
    params = {name: state.params[name] for name in state.ema}
    return state.replace(ema=jax.tree.map(lambda e, p: decay * e + (1 - decay) * p, state.ema, params))


def _keep_finite(new: State, old: State) -> State:
    """`new` if every number in it is finite; else `old`, one step later, counted: networks and optimisers together."""
    joined = [x for tree in (new.params, new.opt_state, new.memory) for x in optimizers.vectors(tree)]
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in joined]))
    # A branch: XLA would fuse hundreds of selections with the updates they read, which is slow to compile on a CPU.
    kept = jax.lax.cond(finite, lambda new, old: new, lambda new, old: old, new, old)
    bad = jnp.where(finite, 0, 1)
    return kept.replace(step=new.step, skipped=old.skipped + bad, bad_in_row=(old.bad_in_row + 1) * bad)
