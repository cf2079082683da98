"""A deblurrer whose result agrees with the photo: the right kernel is found, and what it kept comes back."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import applied, jit
from skimage import data

from b2b_jax import levels, metrics, networks
from b2b_jax.data import blur
from b2b_jax.inference.chain import Chain
from b2b_jax.inference.tiles import Restorer
from b2b_jax.models.consistent import STEPS, WAYS, Explained, agreeing, explained, parts, with_mirrored
from b2b_jax.models.kernel_field import convolved
from b2b_jax.models.kernel_mixture import KernelMixture
from b2b_jax.networks import Network

RNG = np.random.default_rng(0)
KINDS = [{"kind": "copies", "copies": 3, "extent": (5.0, 9.0), "angle": (0.0, 180.0), "size": 13}]
KERNELS = jnp.asarray(blur.draw_many(RNG, KINDS, 6), jnp.float32)
SHARP = jnp.asarray(data.astronaut()[None, 20:116, 160:272] / np.float32(255))  # a face
BLURRY = convolved(SHARP, KERNELS[:1])
FALLING = {"kind": "weighted_line", "width": (7, 7), "angle": (30, 30), "direction": (1, 1), "size": 13}
LOPSIDED = jnp.asarray(blur.draw_many(np.random.default_rng(1), [FALLING], 1))  # KERNELS are their own mirror images
LOPSIDEDLY = convolved(SHARP, LOPSIDED)
SOFT = convolved(SHARP, jnp.asarray(blur.gaussian_kernel(1.0), jnp.float32)[None])  # a deblurrer that is not very good


def quality(x):
    return float(np.mean(metrics.psnr(np.asarray(x), np.asarray(SHARP))))


def test_the_candidate_and_the_kernel_that_make_the_photo_are_found():
    candidates = jnp.stack([BLURRY, SOFT, convolved(SHARP, KERNELS[3:4])], axis=1)
    order = jnp.asarray([4, 2, 0, 1])
    told = explained(BLURRY, candidates, with_mirrored(KERNELS[order][None]))
    np.testing.assert_array_equal(told.sharp, SOFT)
    np.testing.assert_array_equal(told.kernel[0], KERNELS[0])


def test_a_kernel_that_is_known_but_for_its_mirror_image_is_found_turned():
    told = explained(LOPSIDEDLY, SOFT[:, None], with_mirrored(LOPSIDED[None, :, ::-1, ::-1]))
    np.testing.assert_array_equal(told.kernel, LOPSIDED)


def test_what_a_kernel_kept_that_is_not_its_own_mirror_image_comes_back():
    assert quality(agreeing(LOPSIDEDLY, Explained(SOFT, LOPSIDED))) > quality(SOFT) + 2


def test_what_the_kernel_kept_comes_back():
    told = Explained(SOFT, KERNELS[:1])
    assert quality(agreeing(BLURRY, told)) > quality(SOFT) + 2
    wrong = agreeing(BLURRY, told._replace(kernel=KERNELS[1:2]))
    assert quality(wrong) < quality(SOFT)


def test_a_noisy_photo_is_trusted_less():
    noise = jnp.asarray(RNG.normal(0, 0.05, BLURRY.shape), jnp.float32)
    told = Explained(SOFT, KERNELS[:1])
    assert quality(agreeing(BLURRY + noise, told)) > quality(SOFT) - 0.2


def test_a_result_that_agrees_stays_as_it_is():
    np.testing.assert_allclose(agreeing(BLURRY, Explained(SHARP, KERNELS[:1])), SHARP, atol=2e-3)


def test_a_residual_is_parted_into_noise_and_error():
    kept = jnp.asarray(RNG.random((2, 40, 21, 1)), jnp.float32)
    kept = jnp.where(kept < 0.15, 0.0, kept)
    noise, error = parts(0.25 + jnp.asarray([3.0, 0.0])[:, None, None, None] * kept, kept)
    np.testing.assert_allclose(noise.ravel(), 0.25, rtol=1e-5)
    np.testing.assert_allclose(error.ravel(), [3.0, 0.0], atol=1e-5)


class Soft(nn.Module):
    """A deblurrer that softens, with one parameter that it must have read, and two scales."""

    stride = 8
    dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        one = self.param("one", nn.initializers.zeros, ())
        return [x[:, ::2, ::2], one * convolved(x, jnp.asarray(blur.gaussian_kernel(0.6), jnp.float32)[None])]


@pytest.mark.parametrize("shape", [(2, 40, 56, 3), (1, 9, 200, 3)])
def test_it_is_one_network_for_photos_of_any_size(shape):
    mixture = KernelMixture(count=6, size=13, reach=13, lags=5, width=8, dim=4, window=48)
    photos = jnp.asarray(RNG.random(shape), jnp.float32)
    variables = jit(mixture.init)(jax.random.key(0), photos)
    variables["params"] |= {"kernel": KERNELS, "filling": KERNELS[::-1]}
    parts = Network(mixture, variables), Network(Soft(), {"params": {"one": jnp.float32(1)}})
    module, variables = networks.consistent(*parts)
    assert module.stride == 8 and module.dtype == jnp.float32
    restored = networks.runner(Network(module, variables))(photos)
    assert restored.shape == shape and 0 <= float(restored.min()) <= float(restored.max()) <= 1

    shares = applied(mixture, parts[0].variables, photos, method="shares")
    candidates = applied(mixture, parts[0].variables, photos, shares, method="candidates")
    np.testing.assert_allclose(candidates[:, 0], photos, atol=1e-5)  # this camera neither sharpens nor adds noise
    np.testing.assert_allclose(candidates[:, 1], applied(mixture, parts[0].variables, photos), atol=1e-5)
    softened = [networks.runner(parts[1])(candidates[:, i]) for i in range(3)]
    likely = with_mirrored(applied(mixture, parts[0].variables, shares, most=40, method="likeliest"))
    assert likely.shape == (shape[0], 12, 13, 13)
    softened = jnp.stack(softened, axis=1)
    by_hand = {
        "alone": softened[:, 0],
        "held": agreeing(photos, explained(photos, softened[:, :1], likely)),
        "filled": agreeing(photos, explained(photos, softened, likely)),
    }
    np.testing.assert_allclose(restored, by_hand["filled"], atol=1e-4)
    each = dict(zip(WAYS, applied(module, variables, photos, shares, method="each"), strict=True))
    best = {"held": softened[:, 0], "filled": explained(photos, softened, likely).sharp}
    wanted = {(rule, step): start + step * (by_hand[rule] - start) for rule, start in best.items() for step in STEPS}
    wanted["alone", 0.0] = by_hand["alone"]
    assert each.keys() == wanted.keys()
    for way, result in each.items():
        np.testing.assert_allclose(result, wanted[way], atol=1e-4)
    for rule, step in (("alone", 0.0), ("held", 0.5), ("held", 1.0)):
        ruled = networks.consistent(Network(mixture.clone(rule=rule, step=step), parts[0].variables), parts[1]).module
        np.testing.assert_allclose(applied(ruled, variables, photos), wanted[rule, step], atol=1e-4)


@pytest.mark.parametrize("step", [0.25, 1.0])
def test_an_adapted_deblurrer_sees_the_photo_itself_and_goes_part_of_the_way(step):
    """The denoiser makes the photo brighter; only what the result is held to has been denoised."""
    mixture = KernelMixture(count=6, size=13, reach=13, lags=5, width=8, dim=4, window=48, denoiser=Brighter())
    dark = jnp.asarray(RNG.random((2, 40, 44, 3)), jnp.float32) / 2
    variables = jit(mixture.init)(jax.random.key(0), dark)
    variables["params"] |= {"kernel": KERNELS, "filling": KERNELS}
    adapted = Network(Soft(), {"params": {"one": jnp.float32(1)}})
    held = networks.held(Network(mixture, variables), adapted, step)
    assert held.module.stride == 8 and held.module.dtype == jnp.float32
    softened, all_kernels = networks.runner(adapted)(dark), jnp.stack([KERNELS] * 2)
    agreed = agreeing(2 * dark, explained(2 * dark, softened[:, None], with_mirrored(all_kernels)))
    wanted = (1 - step) * softened + step * agreed
    np.testing.assert_allclose(networks.runner(held)(dark), wanted, atol=1e-5)
    assert float(jnp.abs(agreed - softened).max()) > 0.1


def test_large_photos_agree_at_the_seams_of_their_tiles_too(monkeypatch):
    """A tile cannot agree near its own edges, beyond which it does not know what made the photo."""
    mixture = KernelMixture(count=1, size=13, reach=13, lags=5, width=8, dim=4, window=48)
    variables = jit(mixture.init)(jax.random.key(0), SHARP)
    variables["params"] |= {"kernel": KERNELS[:1], "filling": KERNELS[:1]}
    chain, still = (
        Chain([networks.held(Network(mixture, variables), Network(Nothing(), {}), step)]) for step in (1.0, 0.0)
    )
    assert chain.margin == 6 + 13 and still.margin == 0
    wide = jnp.asarray(data.astronaut()[None, :100, 30:478] / np.float32(255))
    blurry = levels.to_uint8(np.asarray(convolved(wide, KERNELS[:1]))[0])

    def difference():
        """Grey levels, root mean square, in the middle, where one tile of 240 pixels ends."""
        parts = [Restorer(chain, tile, 32) for tile in (0, 240)]
        whole, tiled = (part.photo(blurry, part.plan(100, 448)).astype(float) for part in parts)
        return np.sqrt(np.square(whole - tiled)[16:-16, 216:232].mean())

    assert difference() < 1
    monkeypatch.setattr(chain, "margin", 0)
    assert difference() > 2  # with the overlap that was asked for


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="the rule of a kernel mixture is 'fill', wanted one of alone, held, filled"):
        KernelMixture(rule="fill", window=48).init(jax.random.key(0), jnp.zeros((1, 40, 44, 3)))


def test_the_denoised_photo_is_what_the_result_is_held_to():
    """The denoiser makes the photo brighter; what no deblurrer changes then agrees as it is."""
    mixture = KernelMixture(count=1, size=5, reach=5, lags=5, width=8, dim=4, window=48, denoiser=Brighter())
    dark = jnp.asarray(RNG.random((1, 40, 44, 3)), jnp.float32) / 2
    variables, point = jit(mixture.init)(jax.random.key(0), dark), jnp.zeros((1, 5, 5)).at[:, 2, 2].set(1)
    variables["params"] |= {"kernel": point, "filling": point}
    module, variables = networks.consistent(Network(mixture, variables), Network(Nothing(), {}))
    np.testing.assert_allclose(networks.runner(Network(module, variables))(dark), 2 * dark, atol=1e-5)


class Brighter(nn.Module):
    def __call__(self, x):
        return 2 * x


class Nothing(nn.Module):
    stride = 1
    dtype = jnp.float32

    def __call__(self, x):
        return x
