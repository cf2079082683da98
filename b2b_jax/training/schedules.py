"""Learning rates as functions of the step."""

import jax.numpy as jnp
import optax


def constant_then_linear(rate: float, constant_steps: int, steps: int, warmup: int = 0) -> optax.Schedule:
    """Blur2Blur's: `rate` for `constant_steps`, then in a line to 0 at `steps`; a linear warm-up multiplies it."""

    def schedule(step):
        decay = jnp.clip((steps - step) / max(steps - constant_steps, 1), 0.0, 1.0)
        return rate * decay * ramp(step, warmup)

    return schedule


def cosine(rate: float, final: float, steps: int, warmup: int = 0) -> optax.Schedule:
    """Half a cosine from `rate` to `final` at `steps` (Loshchilov & Hutter 2017), with a linear warm-up."""

    def schedule(step):
        progress = jnp.clip(step / max(steps, 1), 0.0, 1.0)
        return (final + 0.5 * (rate - final) * (1 + jnp.cos(jnp.pi * progress))) * ramp(step, warmup)

    return schedule


def cosine_restarts(rate: float, final: float, steps: int, periods: int, warmup: int = 0) -> optax.Schedule:
    """`periods` cosines of equal length from `rate` to `final`, one after another (Loshchilov & Hutter 2017)."""
    period = -(-steps // periods)
    one = cosine(rate, final, period)
    return lambda step: one(jnp.where(step < steps, step % period, period)) * ramp(step, warmup)


def halving(rate: float, steps: int, periods: int, warmup: int = 0) -> optax.Schedule:
    """`rate` in the first of `periods` equal periods, half of it in the next, and so on."""
    return lambda step: rate * 0.5 ** jnp.floor(step * periods / max(steps, 1)) * ramp(step, warmup)


def ramp(step, warmup: int):
    """1/warmup at step 0, growing to 1; 1 throughout without warm-up."""
    return jnp.minimum(1.0, (step + 1.0) / max(warmup, 1))
