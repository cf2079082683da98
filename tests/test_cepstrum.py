"""Cepstra of photos, against NumPy's transforms and against what blur must leave in them."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import fft

from b2b_jax.data import blur
from b2b_jax.models.cepstrum import FLOOR, Whitened, cepstra

RNG = np.random.default_rng(0)
LAGS = 6


def photo(*shape: int) -> np.ndarray:
    return RNG.random((*shape, 3)).astype(np.float32)


def test_a_cepstrum_equals_numpys():
    x = photo(2, 24, 31)
    got = cepstra(jnp.asarray(x), LAGS).reshape(2, 13, 13)
    weight = np.outer(*(0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(s) + 0.5) / s) for s in (24, 31)))
    for i in range(2):
        luma = x[i].astype(np.float64) @ [0.299, 0.587, 0.114]
        dx, dy = np.zeros_like(luma), np.zeros_like(luma)
        dx[:, :-1], dy[:-1] = np.diff(luma, axis=1), np.diff(luma, axis=0)
        sides = [fft.next_fast_len(s + LAGS, real=True) for s in (24, 31)]
        power = sum(np.abs(np.fft.fft2(gradient * weight, sides)) ** 2 for gradient in (dx, dy))
        whole = np.fft.ifft2(np.log(power + 2 * FLOOR * np.square(weight).sum())).real
        wanted = np.roll(whole, (LAGS, LAGS), (0, 1))[:13, :13]
        wanted[LAGS, LAGS] = 0
        np.testing.assert_allclose(got[i], wanted, atol=1e-4)


def test_the_floor_is_what_rounding_leaves():
    """A grey ramp so faint that only its rounding has gradients of any size."""
    x = 0.5 + RNG.uniform(-0.5, 0.5, (1, 64, 64, 3)) / 255
    luma = x[0] @ [0.299, 0.587, 0.114]
    power = [np.abs(np.fft.fft2(np.diff(luma, axis=axis)[:63, :63])) ** 2 for axis in (0, 1)]
    assert abs(np.sum(power, 0).mean() / (FLOOR * 63**2) - 1) < 0.1


def test_blur_adds_to_a_cepstrum_what_its_kernel_has():
    """Two copies at a distance of 4 pixels: peaks of (-1)^(n + 1) / n at multiples of it, whatever the photo shows."""
    kernel, sharp = blur.splat(np.array([[-2.0, 0.0], [2.0, 0.0]]), 7), photo(1, 160, 160)
    added = cepstra(jnp.asarray(blur.apply(sharp, kernel)), 10) - cepstra(jnp.asarray(sharp), 10)
    row = np.asarray(added).reshape(21, 21)[10]
    np.testing.assert_allclose(row[[14, 18]], [1, -0.5], atol=0.25)
    np.testing.assert_allclose(row[[6, 2]], row[[14, 18]], atol=1e-4)
    others = np.delete(np.asarray(added).ravel(), [10 * 21 + 10 + 4 * i for i in range(-2, 3)])
    assert np.abs(others).max() < 0.1


def test_a_flat_photo_and_lags_beyond_a_window_give_zeros():
    np.testing.assert_allclose(cepstra(jnp.full((1, 4, 4, 3), 0.5), LAGS), 0, atol=1e-5)
    assert np.isfinite(cepstra(jnp.asarray(photo(1, 4, 4)), LAGS)).all()


def test_whitened_features_have_one_scale_whatever_theirs_was():
    features = jnp.asarray(RNG.normal([3, 0], [0.01, 5.0], (64, 2)), jnp.float32)
    module = Whitened(momentum=0.5)
    variables = module.init(jax.random.key(0), features, False)
    now, _ = module.apply(variables, features, True, mutable=["batch_stats"])
    np.testing.assert_allclose(now.std(0), 1, atol=0.01)
    np.testing.assert_allclose(now.mean(0), 0, atol=1e-3)
    for _ in range(30):
        _, moved = module.apply(variables, features, True, mutable=["batch_stats"])
        variables = {**variables, **moved}
    np.testing.assert_allclose(module.apply(variables, features, False), now, atol=1e-2)
