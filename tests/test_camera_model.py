"""The camera model against slow references: its rendering in float64, its gradient, aligned pairs, one step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import jit
from ml_collections import ConfigDict
from scipy.ndimage import center_of_mass
from scipy.signal import convolve

from b2b_jax import models, weights
from b2b_jax.data import blur, pipeline, scenes
from b2b_jax.data.sources import ArraySource
from b2b_jax.method import camera_model
from b2b_jax.method.camera_model import CameraModel
from b2b_jax.models.camera import HALO, Shot, render
from configs import demo

PARTS = {"camera": "network", "discriminator": "discriminator"}  # of a method, and their sections
KEY = jax.random.key(0)
CONFIG = ConfigDict(
    {
        "gan_loss": "hinge",
        "gradient_penalty": {"weight": 1e-5, "every": 1, "precision": "high"},
        "ema": 0.9,
        "camera_rate": 2e-3,
        "discriminator_rate": 1e-3,
        "betas": (0.5, 0.99),
    }
)
SHAPE = (2, 40, 37, 3)


def photos(shape=SHAPE, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape)


def shots(count=2, size=7, seed=0) -> Shot:
    rng = np.random.default_rng(seed)
    kernel = rng.random((count, size, size)) ** 8
    amount, sigma = rng.uniform(0.5, 2, count), rng.uniform(0.6, 3, count)
    return Shot(kernel / kernel.sum((1, 2), keepdims=True), amount, sigma, None, np.float64(1.7))


def reference(sharp: np.ndarray, shot: Shot) -> np.ndarray:
    """What `render` computes, photo by photo and channel by channel, in float64."""
    along = np.arange(-HALO, HALO + 1)
    result = []
    for i, photo in enumerate(sharp):
        planes = []
        for plane in np.moveaxis(photo, -1, 0):
            g = 1.0 if shot.response is None else shot.response
            x = convolve((plane if g == 1 else np.maximum(plane, 1 / 512)) ** g, shot.kernel[i], "valid") ** (1 / g)
            profile = np.exp(-0.5 * (along / shot.sigma[i]) ** 2)
            smooth = convolve(x, np.outer(profile, profile) / profile.sum() ** 2, "valid")
            inner = x[HALO:-HALO, HALO:-HALO]
            planes.append(inner + shot.amount[i] * (inner - smooth))
        result.append(np.stack(planes, axis=-1))
    return np.clip(result, 0, 1)


@pytest.mark.parametrize("response", [1.7, None])
def test_render_is_the_slow_convolution(response):
    shot = shots()._replace(response=response)
    got = jit(render)(photos(), shot, KEY)
    np.testing.assert_allclose(got, reference(photos(), shot), atol=3e-6)
    assert got.shape == (2, 18, 15, 3)


def test_the_gradient_is_that_of_the_slow_convolution():
    sharp, shot, towards = 0.2 + 0.5 * photos(), shots()._replace(amount=np.full(2, 0.3)), shots(seed=1)
    weight = photos((2, 18, 15, 3), 3)
    loss = jit(jax.grad(lambda shot: jnp.sum(weight * render(sharp, shot, KEY))))
    gradient, step = loss(shot), 1e-5
    for name in ("kernel", "amount", "sigma", "response"):
        direction = getattr(towards, name) - (0 if name == "response" else getattr(shot, name))
        ends = [
            np.sum(weight * reference(sharp, shot._replace(**{name: getattr(shot, name) + sign * step * direction})))
            for sign in (1, -1)
        ]
        slope = np.sum(getattr(gradient, name) * direction)
        np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * step), rtol=1e-3)


def test_a_kernel_drifts_from_corner_to_corner():
    """Each pixel is the mean of the four corners' photos, weighted by how near it is to them."""
    sharp, corners = photos(), [shots(seed=i)._replace(response=None) for i in range(4)]
    kernel = np.stack([shot.kernel for shot in corners], axis=1)
    for field in (0.0, 60.0):  # a field smaller than the frame covers all of it
        got = jit(render)(sharp, corners[0]._replace(kernel=kernel, amount=None, field=np.float32(field)), KEY)
        at = [(np.arange(3, side - 3) - (side - 1) / 2) / max(field, side) + 0.5 for side in sharp.shape[1:3]]
        down, right = at[0][:, None, None], at[1][:, None]
        shares = [v * h for v in (1 - down, down) for h in (1 - right, right)]
        parts = [render(sharp, shot._replace(amount=None), KEY) for shot in corners]
        np.testing.assert_allclose(got, sum(map(np.multiply, shares, parts)), atol=3e-6)


def test_a_drifting_camera_differs_between_corners():
    camera = models.create("camera", field=64, response=True)
    variables = camera.init(KEY, jnp.zeros((1, 8)))
    shot = camera_model.draw(camera, variables, 3, KEY, 0.02)
    assert shot.kernel.shape == (3, 4, 21, 21) and np.abs(shot.kernel[:, 0] - shot.kernel[:, 3]).max() > 1e-4
    np.testing.assert_allclose(shot.kernel.sum((-2, -1)), 1, rtol=1e-5)
    assert camera_model.steady(shot).kernel.shape == (3, 21, 21)
    blurry, sharp = camera_model.pairs(camera, variables, jnp.asarray(photos((3, 60, 60, 3))), KEY, 0.02)
    assert blurry.shape == sharp.shape == (3, 24, 24, 3)


def test_noise_has_its_deviation():
    shot = Shot(None, None, None, np.array([0.01, 0.1]), None)
    noise = render(np.full((2, 64, 64, 3), 0.5), shot, KEY) - 0.5
    np.testing.assert_allclose(noise.std((1, 2, 3)), shot.noise, rtol=0.05)


def test_a_camera_starts_soft_and_clean():
    camera = models.create("camera", response=True)
    shot = camera.apply(camera.init(KEY, jnp.zeros((1, 8))), jnp.zeros((3, 8)))
    kernel = np.asarray(shot.kernel)
    spread = np.sqrt(np.sum(kernel[0].sum(0) * (np.arange(21) - 10) ** 2))
    assert kernel.shape == (3, 21, 21) and abs(spread - 3) < 0.1
    np.testing.assert_allclose(kernel.sum((1, 2)), 1, rtol=1e-5)
    assert np.all(shot.amount < 0.25) and np.all(shot.noise < 1 / 255) and shot.response == 1


@pytest.mark.parametrize(("off", "reach"), [("kernel", 8), ("sharpening", 10), ("noise", 18)])
def test_a_part_can_be_switched_off(off, reach):
    camera = models.create("camera", **{off: False})
    variables = camera.init(KEY, jnp.zeros((1, 8)))
    assert f"{off}_part" not in variables["params"] and camera.reach == reach
    rendered = render(photos(), camera.apply(variables, jnp.zeros((2, 8))), KEY)
    assert rendered.shape == (2, 40 - 2 * reach, 37 - 2 * reach, 3)


def test_kernels_are_cleaned_of_their_haze():
    kernel = np.full((1, 5, 5), 0.01)
    kernel[0, 1, 3], kernel[0, 4, 0] = 1.0, 0.5
    cleaned = camera_model.cleaned(kernel, 0.02)
    assert np.count_nonzero(cleaned) == 2 and cleaned[0, 1, 3] == pytest.approx(2 / 3)


def test_pairs_are_aligned_to_a_tenth_of_a_pixel():
    camera = models.create("camera", size=15, noise=False)
    variables = camera.init(KEY, jnp.zeros((1, 8)))
    logits = variables["params"]["kernel_part"]["logits"]
    logits["bias"] = logits["bias"].reshape(15, 15).at[2, 9:13].set(6.0).ravel()  # far from the centre
    sharp = np.zeros((4, 61, 61, 3), np.float32)
    sharp[:, 30, 30] = 1.0
    blurry, kept = jit(lambda s: camera_model.pairs(camera, variables, s, KEY, 0.02))(sharp)
    assert blurry.shape == kept.shape == (4, 31, 31, 3) and kept[0, 15, 15, 0] == 1
    raw = camera.apply(variables, jnp.zeros((1, 8))).kernel[0]
    assert np.hypot(*np.subtract(center_of_mass(np.asarray(raw)), 7)) > 2
    for kernel in camera_model.draw_kernels(camera, variables, 4, KEY, 0.02):
        assert np.hypot(*np.subtract(center_of_mass(np.asarray(kernel)), 7)) < 0.02
    for photo in np.asarray(blurry[..., 0]):
        assert np.hypot(*np.subtract(center_of_mass(photo), 15)) < 0.1
    np.testing.assert_allclose(blurry * 255, np.round(blurry * 255), atol=1e-4)


def test_a_step_trains_both_and_counts():
    networks = {
        "camera": models.create("camera", size=7, width=8),
        "discriminator": models.create("patchgan", ndf=4, n_layers=1, norm="none", input="gradient"),
    }
    adams = camera_model.optimizers(CONFIG, 10)
    state = camera_model.init(CameraModel(networks, adams, CONFIG), 16, KEY)
    reach = networks["camera"].reach
    batch = {
        "unknown_blur": (255 * photos((2, 16, 16, 3))).astype(np.uint8),
        "unknown_sharp": (255 * photos((2, 16 + 2 * reach, 16 + 2 * reach, 3))).astype(np.uint8),
    }
    new, metrics = jit(camera_model.make_step(CameraModel(networks, adams, CONFIG)))(state, {}, batch, KEY)
    for name, params in new.params.items():
        moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), params, state.params[name])
        if name == "discriminator":
            del moved["params"]["model.5"]["bias"]  # the last: it cancels between real and fake, but for rounding
        assert all(jax.tree.leaves(moved)), f"{name} has parameters without a gradient"
    assert int(new.step) == 1 and int(new.skipped) == 0 and set(new.ema) == {"camera"}
    assert all(np.isfinite(value) for value in metrics.values())
    assert {"loss_d", "loss_g", "d_auc", "gradient_penalty"} <= set(metrics)


def test_auc_is_a_half_for_equal_piles_and_one_for_those_that_differ():
    camera = models.create("camera", kernel=False, sharpening=False, noise=False)
    networks = {"camera": camera, "discriminator": models.create("patchgan", ndf=4, n_layers=1, norm="none")}
    x = jnp.asarray(photos((4, 16, 16, 3)), jnp.float32)
    params = {
        "camera": camera.init(KEY, jnp.zeros((1, 8))),
        "discriminator": networks["discriminator"].init(KEY, x),
    }
    assert abs(camera_model.auc(CameraModel(networks, {}, CONFIG), params, x, x, KEY) - 0.5) < 0.2
    assert camera_model.auc(CameraModel(networks, {}, CONFIG), params, x, 0 * x, KEY) in (0, 1)


def test_total_variation_is_of_the_mean_kernels():
    one, other = np.zeros((2, 3, 3)), np.zeros((2, 3, 3))
    one[:, 0, 0], other[0, 0, 0], other[1, 2, 2] = 1, 1, 1
    assert camera_model.total_variation(one, other) == 0.5


def test_a_camera_is_saved_and_loaded(tmp_path):
    camera = models.create("camera", size=7, response=True)
    variables = camera.init(KEY, jnp.zeros((1, 8)))
    weights.save(tmp_path / "w.safetensors", "camera", {"size": 7, "response": True}, variables)
    module, loaded = weights.load(tmp_path / "w.safetensors")
    assert module == camera
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)


@pytest.mark.slow
def test_two_copies_are_recovered_from_unpaired_piles():
    kernel = blur.copies_kernel(np.random.default_rng(0), extent=(5, 5), copies=2, angle=(0, 0))
    piles = [scenes.generate(seed, 96, 128, workers=1, progress=False) for seed in (0, 1)]
    blurry = blur.round8(blur.apply(piles[0] / np.float32(255), kernel))
    config = demo.get_config().camera
    networks = {part: models.create(**config[name].to_dict()) for part, name in PARTS.items()}
    method = camera_model.CameraModel(networks, camera_model.optimizers(config, 600), config)
    margin = 2 * networks["camera"].reach
    streams = [
        pipeline.rename(pipeline.stream(ArraySource("pile", image=pile), pipeline.Crop(size), seed), {"image": name})
        for seed, (name, pile, size) in enumerate(
            [("unknown_blur", blurry, config.crop), ("unknown_sharp", piles[1], config.crop + margin)]
        )
    ]
    state = camera_model.init(method, config.crop, KEY)
    step = jax.jit(camera_model.make_step(method), donate_argnums=0)
    for batch in pipeline.iterate(pipeline.batches(streams, config.batch, 0, 1), 0, 600, 1, 2):
        batch.pop("name")
        state, _ = step(state, {}, batch, KEY)
    learnt = camera_model.draw_kernels(networks["camera"], state.ema["camera"], 256, KEY, config.threshold)
    assert camera_model.total_variation(learnt, kernel) < 0.25
    start = camera_model.init(method, config.crop, KEY).ema["camera"]
    untrained = camera_model.draw_kernels(networks["camera"], start, 256, KEY, config.threshold)
    assert camera_model.total_variation(untrained, kernel) > 0.75
