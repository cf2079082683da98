"""The translator that can only convolve, against SciPy's correlation and convolution."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import applied, jit
from helpers.networks import random_variables
from scipy import signal

from b2b_jax import models, weights
from b2b_jax.data import blur
from b2b_jax.inference.chain import Chain
from b2b_jax.inference.tiles import Restorer
from b2b_jax.method import blur2blur
from b2b_jax.method.blur2blur import Blur2Blur
from b2b_jax.models import autocorrelation
from b2b_jax.models.development import BINS, undone
from b2b_jax.networks import Network
from b2b_jax.stages import translator

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
SMALL = {"name": "kernel_field", "size": 9, "lags": 5, "width": 8, "window": 32}


def constant(kernel: np.ndarray, **hyper) -> Network:
    """A network that predicts `kernel` whatever it sees."""
    module = models.create(**{**SMALL, "size": len(kernel)} | hyper)
    variables = jax.tree.map(jnp.zeros_like, jit(module.init)(KEY, jnp.zeros((1, 16, 16, 3))))
    variables["params"]["logits"]["bias"] = jnp.log(jnp.maximum(kernel.ravel(), 1e-30))
    return Network(module, variables)


def mixture(filling: np.ndarray, weight: list[float]) -> Network:
    """A mixture whose reader sees no difference between its shots."""
    hyper = {"count": len(filling), "size": filling.shape[-1], "lags": 5, "width": 8, "dim": 4, "window": 32}
    module = models.create("kernel_mixture", **hyper, threshold=0.0, symmetric=False)
    variables = jit(module.init)(KEY, jnp.zeros((1, 16, 16, 3)))
    params = {**variables["params"], "filling": jnp.asarray(filling), "weight": jnp.asarray(weight)}
    return Network(module, {**variables, "params": params})


def photo(*shape: int) -> np.ndarray:
    return RNG.random((*shape, 3)).astype(np.float32)


def test_autocorrelation_equals_scipys():
    x, lags = photo(2, 24, 31), 6
    got = autocorrelation.autocorrelations(jnp.asarray(x), lags).reshape(2, 2, 13, 13)
    hann = np.outer(*(0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(s) + 0.5) / s) for s in (24, 31)))
    for i in range(2):
        luma = x[i] @ [0.299, 0.587, 0.114]
        dx, dy = np.zeros_like(luma), np.zeros_like(luma)
        dx[:, :-1], dy[:-1] = np.diff(luma, axis=1), np.diff(luma, axis=0)
        for j, gradient in enumerate((dx, dy)):
            full = signal.correlate(gradient * hann, gradient * hann, method="direct")
            wanted = full[23 - lags : 24 + lags, 30 - lags : 31 + lags] / full[23, 30]
            np.testing.assert_allclose(got[i, j], wanted, atol=1e-5)


def test_a_flat_photo_tells_nothing_and_lags_may_exceed_it():
    assert not np.any(autocorrelation.autocorrelations(jnp.full((1, 4, 4, 3), 0.5), 6))
    random = autocorrelation.autocorrelations(jnp.asarray(photo(1, 4, 4)), 6).reshape(2, 13, 13)
    np.testing.assert_allclose(random[:, :2], 0, atol=1e-6)
    np.testing.assert_allclose(random[:, 6, 6], 1, atol=1e-4)


def test_two_copies_are_seen_at_their_distance():
    sharp = blur.apply(photo(64, 64), blur.gaussian_kernel(0.7, 9))
    blurry = blur.apply(sharp, blur.splat(np.array([[-3.0, 0.0], [3.0, 0.0]]), 9))
    dx = autocorrelation.autocorrelations(jnp.asarray(blurry[None]), 8)[0].reshape(2, 17, 17)[0]
    side = np.asarray(dx[8, 12:])
    assert 12 + side.argmax() == 8 + 6 and side.max() > 0.4


def test_a_mixture_undoes_the_cameras_processing_before_it_fills():
    filling = np.zeros((1, 9, 9), np.float32)
    filling[0, 4, 3:6] = 1 / 3
    module, variables = mixture(filling, [1.0])
    processing = {"noise": jnp.full(BINS, 0.01), "amount": jnp.float32(2), "sigma": jnp.float32(1.2)}
    variables = {**variables, "params": variables["params"] | processing}
    x = photo(1, 40, 33)
    clean = undone(jnp.asarray(x), **processing)
    assert float(jnp.abs(clean - x).max()) > 0.05
    candidates = applied(module, variables, x, applied(module, variables, x, method="shares"), method="candidates")
    np.testing.assert_allclose(candidates[:, 0], clean, atol=1e-6)
    wanted = signal.convolve2d(np.pad(clean[0, ..., 0], 1, "reflect"), filling[0, 3:6, 3:6], mode="valid")
    np.testing.assert_allclose(applied(module, variables, x)[0, ..., 0], wanted, atol=1e-5)


class Darker(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x - self.param("less", nn.initializers.constant(0.25), ())


def test_a_denoiser_comes_before_the_filling():
    module, variables = mixture(np.eye(9, dtype=np.float32)[4] * np.eye(9, dtype=np.float32)[4][:, None][None], [1.0])
    module = module.clone(denoiser=Darker())
    variables = {**variables, "params": variables["params"] | {"denoiser": {"less": jnp.float32(0.25)}}}
    x = photo(1, 20, 23)
    np.testing.assert_allclose(applied(module, variables, x), np.maximum(x - 0.25, 0), atol=1e-6)


NAFNET = {"name": "nafnet", "width": 4, "encoders": [1], "middle": 1, "decoders": [1]}


def test_a_denoiser_sees_the_photo_go_on_beyond_its_border():
    module, variables = mixture(np.zeros((1, 9, 9), np.float32), [1.0])
    denoiser, x = models.create(**NAFNET), photo(1, 21, 32)
    own = random_variables(denoiser, x)
    variables = {**variables, "params": variables["params"] | {"denoiser": own["params"]}}
    wanted = applied(denoiser, own, np.pad(x, [(0, 0), (0, 1), (0, 0), (0, 0)], "edge"))[:, :21].clip(0, 1)
    denoised = applied(module.clone(denoiser=denoiser), variables, x, method="denoised")
    np.testing.assert_allclose(denoised, wanted, atol=1e-6)


def test_a_part_is_made_from_its_name_and_hyper_parameters():
    module = models.create("kernel_mixture", denoiser=NAFNET)
    assert module.denoiser == models.create(**NAFNET)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (3, "kernel_mixture's denoiser is 3, wanted a network's name"),
        ({"width": 4}, "wanted a network's name"),
        ({"name": "nafmet"}, "'nafmet' is no model"),
        (NAFNET | {"width": 10**9}, "nafnet's width is 1000000000"),
        ({"name": "kernel_mixture", "denoiser": NAFNET}, "has parts of its own"),
    ],
)
def test_what_is_no_network_is_refused_as_a_part(part, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        models.create("kernel_mixture", denoiser=part)


def test_a_mixture_convolves_with_the_mean_of_its_filling_kernels():
    filling = RNG.random((2, 9, 9)).astype(np.float32)
    filling /= filling.sum((1, 2), keepdims=True)
    module, variables = mixture(filling, [0.25, 0.75])
    x = photo(2, 50, 41)
    np.testing.assert_allclose(applied(module, variables, x, method="shares"), [[0.25, 0.75]] * 2, rtol=1e-5)
    mean = 0.25 * filling[0] + 0.75 * filling[1]
    np.testing.assert_allclose(applied(module, variables, x), blur.apply(x, mean), atol=1e-5)


@pytest.mark.parametrize("field", [False, True])
def test_any_filter_is_a_constant_prediction(field):
    kernel = RNG.random((9, 9)).astype(np.float32)
    kernel /= kernel.sum()
    module, variables = constant(kernel, field=field, threshold=0.0, symmetric=False)
    x = photo(2, 50, 41)
    np.testing.assert_allclose(applied(module, variables, x), blur.apply(x, kernel), atol=1e-5)
    inside = signal.convolve2d(x[0, :, :, 0], kernel, "valid")
    np.testing.assert_allclose(applied(module, variables, x)[0, 4:-4, 4:-4, 0], inside, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (33, 90)])
@pytest.mark.parametrize("field", [False, True])
def test_the_identity_at_any_size(size, field):
    one = np.zeros((9, 9), np.float32)
    one[4, 4] = 1
    module, variables = constant(one, field=field)
    x = photo(1, *size)
    np.testing.assert_allclose(applied(module, variables, x), x, atol=1e-5)


def test_weak_weights_are_cut_and_halves_made_equal_in_use_only():
    kernel = np.zeros((9, 9), np.float32)
    kernel[4, 4], kernel[4, 6], kernel[0, 0] = 0.6, 0.32, 0.08
    module, variables = constant(kernel)
    point = np.zeros((1, 21, 21, 3), np.float32)
    point[:, 10, 10] = 1
    trained, used = (applied(module, variables, point, train=train)[0, :, :, 0] for train in (True, False))
    np.testing.assert_allclose(trained[6:15, 6:15], kernel, atol=1e-6)
    wanted = {(10, 10): 0.6 / 0.92, (10, 12): 0.16 / 0.92, (10, 8): 0.16 / 0.92}
    for place, weight in wanted.items():
        np.testing.assert_allclose(used[place], weight, atol=1e-6)
    np.testing.assert_allclose(float(jnp.abs(used).sum()), 1, atol=1e-5)


def test_a_photo_is_read_in_all_its_windows():
    module = models.create(**SMALL)
    left, right = photo(1, 32, 32), photo(1, 32, 32)
    both = applied(module, {}, np.concatenate([left, right], axis=2), method="features")
    parts = [applied(module, {}, x, method="features") for x in (left, right)]
    assert both.shape == (1, 2 * 11**2)
    middle = applied(module, {}, np.concatenate([left[:, :, 16:], right[:, :, :16]], axis=2), method="features")
    np.testing.assert_allclose(both, (parts[0] + middle + parts[1]) / 3, atol=1e-5)


def test_a_field_has_each_places_own_kernel():
    module = models.create(**SMALL, field=True, threshold=0.0, symmetric=False)
    variables = jit(module.init)(KEY, jnp.zeros((1, 32, 32, 3)))
    variables["params"]["logits"]["kernel"] *= 20  # so that places differ
    x = photo(1, 32, 96)
    single = module.clone(field=False)
    ends = [applied(single, variables, x[:, :, part], method="kernels")[0] for part in (slice(32), slice(64, 96))]
    assert np.abs(ends[0] - ends[1]).max() > 0.01
    got = applied(module, variables, x)
    for column, kernel in ((0, ends[0]), (95, ends[1])):
        wanted = blur.apply(x[0], np.asarray(kernel))[:, column]
        weight = 0.5 - 0.5 * np.cos(np.pi / 32)  # of the only window there
        assert weight > 0
        np.testing.assert_allclose(got[0, :, column], wanted, atol=1e-4)


def test_tiles_are_as_good_as_the_whole_photo():
    network = constant(blur.box_filter_kernel(5, size=9))
    image = (photo(70, 90) * 255).astype(np.uint8)
    whole, tiled = (Restorer(Chain([network]), tile, 16) for tile in (128, 48))
    results = [one.photo(image, one.plan(70, 90)).astype(float) for one in (whole, tiled)]
    assert whole.plan(70, 90).tiles == 1 < tiled.plan(70, 90).tiles
    assert np.abs(results[0] - results[1]).max() <= 1


def test_gradients_are_finite_for_a_flat_photo():
    module = models.create(**SMALL)
    x = jnp.full((1, 32, 32, 3), 0.5)
    variables = jit(module.init)(KEY, x)
    gradients = jit(jax.grad(lambda v: jnp.square(module.apply(v, x + 0.1, train=True)).sum()))(variables)
    assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(gradients))


def test_the_adversarial_step_takes_it_as_its_generator(tmp_path):
    module = models.create(**SMALL)
    translator.check_generator(module, 32)
    variables = jit(module.init)(KEY, jnp.zeros((1, 32, 32, 3)))
    method = Blur2Blur({"generator": module}, {}, None, None)
    scales = blur2blur.translate(method, variables, jnp.asarray(photo(2, 32, 32)))
    assert [x.shape[1] for x in scales] == [8, 16, 32]
    hyper = {key: value for key, value in SMALL.items() if key != "name"}
    weights.save(tmp_path / "w.safetensors", "kernel_field", hyper, variables)
    loaded, again = weights.load(tmp_path / "w.safetensors")
    assert loaded == module
    jax.tree.map(np.testing.assert_array_equal, variables, again)
