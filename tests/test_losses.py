"""Losses: golden numbers of the released code, and slow references in numpy. NHWC images in [0, 1]."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, jit, nhwc
from helpers.networks import images, load
from helpers.parity import golden, vgg_weights
from scipy import ndimage

from b2b_jax import losses, models
from b2b_jax.models import vgg

# ---- restoration ----


def photos(shape: tuple[int, ...] = (3, 9, 14, 3)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.random(shape, np.float32), rng.random(shape, np.float32)


def slow_charbonnier(x: np.ndarray, y: np.ndarray, epsilon: float) -> np.ndarray:
    return np.array([np.mean(np.sqrt((a - b).astype(np.float64) ** 2 + epsilon**2)) for a, b in zip(x, y, strict=True)])


def test_restoration_losses_are_their_formulas_per_image():
    x, y = photos()
    squares = [np.mean((a - b).astype(np.float64) ** 2) for a, b in zip(x, y, strict=True)]
    assert_close(losses.l1(x, y), np.abs(x - y).mean((1, 2, 3)), tol=1e-6)
    assert_close(losses.charbonnier(x, y, 0.1), slow_charbonnier(x, y, 0.1), tol=1e-6)
    assert_close(losses.mse(x, y), squares, tol=1e-6)
    assert_close(losses.psnr_loss(x, y), 10 * np.log10(squares), tol=1e-5)


def test_sobel_loss_is_scipys_inside_the_image():
    x, y = photos()
    wanted = []
    for z in (x - y).astype(np.float64):
        slopes = [ndimage.sobel(z[..., c], axis)[1:-1, 1:-1] for c in range(3) for axis in (0, 1)]
        wanted.append(np.mean(np.abs(slopes)))
    assert_close(losses.sobel(x, y), wanted, tol=1e-6)


def test_fourier_loss_is_the_sum_over_waves():
    x, y = photos((2, 5, 4, 1))
    waves = [np.exp(-2j * np.pi * np.outer(range(n), range(n)) / n) for n in (5, 4)]
    z = np.einsum("uh,nhw,vw->nuv", waves[0], (x - y)[..., 0].astype(np.float64), waves[1])
    assert_close(losses.fourier(x, y), (np.abs(z.real) + np.abs(z.imag)).mean((1, 2)) / 2, tol=1e-5)


def test_a_sum_of_losses_is_read_from_its_expression():
    x, y = photos()
    assert losses.terms(" l1 + 0.1*fourier+2 * perceptual") == {"l1": 1, "fourier": 0.1, "perceptual": 2}
    loss = losses.weighted_sum(losses.terms("l1+0.5*mse+2*perceptual"), lambda z: [z] * 5)
    l1 = losses.l1(x, y)
    assert_close(loss(x, y), l1 + 0.5 * losses.mse(x, y) + 2 * sum(losses.SLICE_WEIGHTS) * l1, tol=1e-6)


@pytest.mark.parametrize(
    "expression", ["", "l2", "l1+", "x*l1", "0.1 fourier", "l1+l1", "nan*l1", "-1*l1", "inf*l1", "0*l1"]
)
def test_what_is_no_sum_of_losses_is_refused(expression):
    with pytest.raises(ValueError, match=r"no loss|no weight|twice"):
        losses.terms(expression)


def test_equal_images_cost_the_guard_and_have_finite_gradients():
    x, _ = photos()
    np.testing.assert_allclose(losses.charbonnier(x, x), 1e-3, rtol=1e-5)
    np.testing.assert_allclose(losses.psnr_loss(x, x), -80, rtol=1e-6)
    for loss in losses.RESTORATION.values():
        assert np.isfinite(jax.grad(lambda x, loss=loss: loss(x, photos()[0]).sum())(x)).all()


def test_losses_of_bfloat16_images_are_float32():
    x, y = (jnp.asarray(z, jnp.bfloat16) for z in photos())
    for loss in (*losses.RESTORATION.values(), losses.pooled_charbonnier):
        assert loss(x, y).dtype == jnp.float32
        assert_close(loss(x, y), loss(x.astype(jnp.float32), y.astype(jnp.float32)), tol=1e-3)


def test_pooled_charbonnier_compares_the_means_of_whole_blocks():
    x, y = photos()
    blocks = [(slice(i, i + 4), slice(j, j + 4)) for i in (0, 4) for j in (0, 4, 8)]
    means = [np.stack([z[:, rows, columns].mean((1, 2)) for rows, columns in blocks], axis=1) for z in (x, y)]
    assert_close(losses.pooled_charbonnier(x, y), slow_charbonnier(*means, 0.03), tol=1e-6)
    shuffled = x.copy()
    shuffled[:, :4, :4] = x[:, 3::-1, 3::-1]  # within one block
    assert_close(losses.pooled_charbonnier(shuffled, y), losses.pooled_charbonnier(x, y), tol=1e-6)


def test_weighted_mean_counts_by_weight():
    values = np.array([1.0, 5.0, 9.0], np.float32)
    assert losses.weighted_mean(values) == 5
    assert losses.weighted_mean(values, np.array([1.0, 1.0, 0.0])) == 3
    assert losses.weighted_mean(values, np.array([1.0, 0.0, 3.0])) == 7


# ---- adversarial ----

# our name -> the released code's
MODES = {
    "wasserstein": "wasserstein",
    "hinge": "hinge",
    "logistic": "non_saturated",
    "least_squares": "least_square",
}


@functools.cache
def scales(kind: str) -> list[np.ndarray]:
    """The logits of three scales: kind is 'y' (real) or 'fake'."""
    return [nhwc(golden("patchgan/patchgan_ndf8")[f"{kind}_scale{i}"]) for i in range(3)]


def test_every_gan_loss_has_golden_numbers():
    assert MODES.keys() == losses.GAN_LOSSES.keys()


@pytest.mark.parametrize(
    "part, kind, reference", [("real", "y", "D_real"), ("fake", "fake", "D_fake"), ("generator", "fake", "G")]
)
@pytest.mark.parametrize("mode", MODES)
def test_gan_losses_equal_pytorch(mode, part, kind, reference):
    want = json.loads(str(golden("patchgan/patchgan_ndf8")["losses_json"]))[MODES[mode]]
    loss = functools.partial(losses.multiscale_gan, getattr(losses.GAN_LOSSES[mode], part))
    assert_close(loss(scales(kind)).mean(), want[reference], tol=1e-6)
    per_scale = [loss([logits]).mean() for logits in scales(kind)]
    assert_close(per_scale, want[f"{reference}_per_scale"], tol=1e-6)
    first = loss([logits[:1] for logits in scales(kind)])
    assert_close(first, loss(scales(kind))[:1], tol=1e-6)  # one value per image


def test_gradient_penalty_and_its_gradients_equal_pytorch():
    data, module = golden("patchgan/patchgan_ndf8"), models.create("patchgan", ndf=8)
    real, fake, alpha = nhwc(data["gp_real"]), nhwc(data["gp_fake"]), data["gp_alpha"].reshape(-1, 1, 1, 1)

    def penalty(variables, alpha):
        values = losses.gradient_penalty(lambda x: module.apply(variables, x), real, fake, alpha)
        return values.mean(), values

    evaluate, variables = jit(jax.grad(penalty, has_aux=True)), load(module, "patchgan/patchgan_ndf8")
    gradients, values = evaluate(variables, alpha)
    assert_close(values, data["gp_value_per_sample_lambda1"])
    for name in ("model.0", "model.2", "model.11"):
        want = data[f"gp_grad_mean_lambda1__{name}.weight"].transpose(2, 3, 1, 0)
        np.testing.assert_allclose(gradients["params"][name]["kernel"], want, atol=1e-4 * np.abs(want).max())
    for share, name in ((1, "real"), (0, "fake")):
        _, values = evaluate(variables, np.full_like(alpha, share))
        assert_close(values[0], data[f"gp_value_sample0_{name}_lambda1"])


def test_gradient_penalty_of_a_flat_discriminator_is_one_and_differentiable():
    x, y = photos((2, 4, 4, 3))

    def penalty(slope):
        return losses.gradient_penalty(lambda x: slope * x, x, y, np.float32(0.5)).sum()

    value, gradient = jax.value_and_grad(penalty)(0.0)
    np.testing.assert_allclose(value, 2, rtol=1e-6)
    assert np.isfinite(gradient)


# ---- content ----


@pytest.mark.parametrize(
    "depth, names, loss",
    [(16, vgg.VGG16_RELEASE_LAYERS, "vgg16_loss"), (19, vgg.VGG19_LAYERS, "vgg19_loss_same_weights")],
)
def test_perceptual_loss_and_its_gradient_equal_pytorch(depth, names, loss):
    data, (module, variables) = golden("vgg/vgg_seed61"), vgg_weights(depth, names)
    module = module.clone(dtype=np.float64)  # a feature of x that nearly equals y's has either sign in float32
    x, y = (data[f"{name}_u8_hwc"][None] / 255 for name in "xy")

    def perceptual(x, y, variables):
        return losses.perceptual(lambda z: module.apply(variables, z), x, y)[0]

    with jax.enable_x64(True):
        value, (gradient, target) = jit(jax.value_and_grad(perceptual, argnums=(0, 1)))(x, y, variables)
    assert abs(value - json.loads(str(data["meta_json"]))[loss]) < 1e-7
    want = nhwc(data[f"vgg{depth}_loss_grad_x"])
    np.testing.assert_allclose(gradient, want, atol=1e-6 * np.abs(want).max())
    assert not target.any()


def test_perceptual_wants_one_weight_per_feature():
    with pytest.raises(ValueError, match="longer"):
        losses.perceptual(lambda x: [x, x], images(1, 2, 2, 3), images(1, 2, 2, 3), weights=[1.0])
