"""The discriminator of blur: what it sees, and what it cannot."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import applied, jit

from b2b_jax import models
from b2b_jax.data import blur
from b2b_jax.models.autocorrelation import gradients, strengths

KEY = jax.random.key(0)
NETWORK = models.create("correlation", lags=6, width=8)


def photo(seed: int = 0) -> np.ndarray:
    sharp = np.random.default_rng(seed).random((40, 44, 3)).astype(np.float32)
    return blur.apply(sharp, blur.gaussian_kernel(0.7, 9))


@functools.cache
def weights() -> dict:
    return jit(NETWORK.init)(KEY, jnp.zeros((1, 8, 8, 3)))


def logit(x: np.ndarray) -> float:
    return applied(NETWORK, weights(), jnp.asarray(x[None])).item()


@pytest.mark.parametrize("change", [lambda x: 1 - x, lambda x: x + 0.2])
def test_negatives_and_brightness_are_not_seen(change):
    assert logit(change(photo())) == pytest.approx(logit(photo()), abs=1e-5)


@pytest.mark.parametrize("change", [lambda x: blur.apply(x, blur.gaussian_kernel(1.0, 9)), lambda x: 0.5 * x])
def test_blur_and_contrast_are_seen(change):
    assert abs(logit(change(photo())) - logit(photo())) > 1e-3


def test_strengths_are_numpys():
    x = photo()
    luma = x @ [0.299, 0.587, 0.114]
    dx, dy = np.zeros_like(luma), np.zeros_like(luma)
    dx[:, :-1], dy[:-1] = np.diff(luma, axis=1), np.diff(luma, axis=0)
    np.testing.assert_allclose(gradients(jnp.asarray(x[None]))[0], [dx, dy], atol=1e-6)
    wanted = [0.5 * np.log((d**2).mean() + 1e-6) for d in (dx, dy)]
    np.testing.assert_allclose(strengths(jnp.asarray(x[None]))[0], wanted, rtol=1e-5)


def test_a_flat_photo_has_finite_logit_and_gradient():
    value, slope = jit(jax.value_and_grad(lambda x: NETWORK.apply(weights(), x).sum()))(jnp.full((1, 16, 16, 3), 0.5))
    assert np.isfinite(value) and np.isfinite(slope).all()


def test_it_has_one_logit_a_photo_whatever_its_size():
    for shape in ((3, 16, 20, 3), (3, 33, 9, 3)):
        assert applied(NETWORK, weights(), jnp.ones(shape)).shape == (3, 1, 1, 1)


def test_parts_of_a_photo_are_seen_apart():
    """Two quarters that change places are told, which one look at the whole photo cannot."""
    sharp, soft = photo()[:16, :16], blur.apply(photo()[:16, :16], blur.gaussian_kernel(1.5, 9))
    one = np.concatenate([np.concatenate(row, axis=1) for row in ((sharp, soft), (soft, soft))])
    other = one[:, ::-1]
    network = models.create("correlation", lags=3, width=8, windows=2)
    variables = jit(network.init)(KEY, jnp.zeros((1, 32, 32, 3)))
    logits = applied(network, variables, jnp.stack([one, other, sharp.repeat(2, 0).repeat(2, 1)])).ravel()
    assert abs(logits[0] - logits[1]) > 1e-3
    assert applied(network, variables, jnp.ones((2, 33, 40, 3))).shape == (2, 1, 1, 1)
