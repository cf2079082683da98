"""Moving blur: the extractor's step, its divergence, and the known blur that it makes for the translator."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from helpers import assert_close, jit
from helpers.networks import KEY, images, small_wizard
from helpers.parity import golden, network, photo

from b2b_jax import losses
from b2b_jax.method import blur_extractor, known_blur
from b2b_jax.training import state as states
from configs import default


def test_the_loss_of_a_pair_is_that_of_the_reference_networks():
    """The fixture's third photo, blurred by the code of its pair, against an arbitrary target."""
    data, (module, variables) = golden("kernel_wizard/kw_nf4_vae_module"), network("kernel_wizard/kw_nf4_vae_module")
    with jax.default_matmul_precision("float32"):
        code = jnp.moveaxis(data["kernel"], 1, -1)
        adapted = jit(functools.partial(module.apply, method="adapt"))(variables, photo(data, "target"), code)
    target, wanted = photo(data, "blur"), np.moveaxis(data["adapted_every2nd"], 1, -1)
    wanted_loss = np.sqrt((wanted.astype(np.float64) - target[:, ::2, ::2]) ** 2 + 1e-6).mean()
    assert_close(losses.charbonnier(adapted[:, ::2, ::2], target[:, ::2, ::2]), [wanted_loss], tol=1e-5)


def test_divergence_is_zero_for_a_standard_normal_and_the_integral_elsewhere():
    assert abs(float(blur_extractor.kl(jnp.zeros((1, 1, 1, 1)), jnp.ones((1, 1, 1, 1)))[0])) < 1e-6
    x = np.linspace(-12, 12, 200_001)

    def density(mean, sigma):
        return np.exp(-0.5 * ((x - mean) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))

    p, q = density(0.7, 0.4), density(0, 1)
    wanted = np.trapezoid(p * np.log((p + 1e-300) / q), x)
    for sigma in (0.4, -0.4):  # the published networks give sigma as it is, of either sign
        got = blur_extractor.kl(jnp.full((2, 1, 3, 1), 0.7), jnp.full((2, 1, 3, 1), sigma))
        np.testing.assert_allclose(got, 3 * wanted, rtol=1e-4)


def test_a_code_is_the_mean_when_sigma_is_zero():
    mean = images(2, 2, 2, 4)
    np.testing.assert_array_equal(blur_extractor.sample(KEY, mean, jnp.zeros_like(mean)), mean)
    many = blur_extractor.sample(KEY, jnp.zeros((400, 2, 2, 4)), jnp.full((400, 2, 2, 4), 3.0))
    assert abs(float(many.std()) - 3) < 0.1


def test_steps_teach_the_extractor_its_pairs():
    module, variables, x = small_wizard(variational=True, reductions=1)
    sharp = np.asarray(255 * x).astype(np.uint8)
    batch = {"sharp": sharp, "blurry": np.asarray(sharp // 2)}
    config = default.blur_extractor()
    config.update(augment=False, kl_weight=1e-3)
    adam = optax.adam(3e-3)
    state = states.create({"blur_extractor": variables}, {"blur_extractor": adam})
    step, seen = jit(functools.partial(blur_extractor.make_step(module, adam, config), frozen={})), []
    for _ in range(15):
        state, metrics = step(state, batch=batch, key=KEY)
        seen.append({k: float(v) for k, v in metrics.items()})
    assert seen[-1]["reconstruction"] < 0.8 * seen[0]["reconstruction"] and state.skipped == 0
    for metrics in seen:
        np.testing.assert_allclose(metrics["loss"], metrics["reconstruction"] + 1e-3 * metrics["kl"], rtol=1e-5)
    # The divergence counts per value of an image: its sum over a code, by the number of values.
    mean, sigma = module.apply(variables, sharp / 255, batch["blurry"] / 255, method="extract")
    np.testing.assert_allclose(seen[0]["kl"], blur_extractor.kl(mean, sigma).mean() / sharp[0].size, rtol=1e-4)


def test_known_blur_is_each_pairs_code_on_the_cameras_photo():
    module, variables, x = small_wizard()
    photos = [np.asarray(255 * z).astype(np.uint8) for z in (x, x**2, x[:, ::-1])]
    batch = dict(zip(("known_sharp", "known_blurry", "unknown_sharp"), photos, strict=True))
    make = jit(known_blur.make(module))
    known = make({"blur_extractor": variables}, batch, KEY)
    for i in range(2):
        mean, _ = module.apply(variables, photos[0][i : i + 1] / 255, photos[1][i : i + 1] / 255, method="extract")
        wanted = jnp.clip(module.apply(variables, photos[2][i : i + 1] / 255, mean, method="adapt"), 0, 1)
        assert_close(known[i : i + 1], wanted, tol=1e-5)
    np.testing.assert_array_equal(
        make({"blur_extractor": variables}, batch, jax.random.fold_in(KEY, 3)), known
    )  # nothing random
