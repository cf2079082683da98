"""Filling kernels against what they must be and against SciPy; the step that teaches a kernel field."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import jit
from ml_collections import ConfigDict
from scipy import optimize, signal

from b2b_jax import models
from b2b_jax.data import blur
from b2b_jax.errors import UserError
from b2b_jax.method import kernel_translation
from b2b_jax.method.filling import Filling, fill, solved, variance
from b2b_jax.models.camera import Shot, spectra
from b2b_jax.stages import kernel_field

KEY = jax.random.key(0)
LINES = {"kind": "box", "length": (3.0, 18.0), "angle": (0.0, 180.0)}


def lines(count: int, **spec) -> jnp.ndarray:
    rng = np.random.default_rng(0)
    return jnp.asarray(np.stack([blur.draw(rng, LINES | spec) for _ in range(count)]))


def copies(extent: float, count: int, angle: float) -> np.ndarray:
    return blur.splat(blur.line(extent, count, angle), 21)


def test_the_gap_between_copies_is_filled():
    kernels = [(6.0, 2, 20.0), (8.0, 3, 120.0), (4.5, 2, 90.0)]
    found = np.asarray(fill(jnp.asarray(np.stack([copies(*k) for k in kernels])), lines(1500), Filling()))
    np.testing.assert_allclose(found.sum((1, 2)), 1, atol=1e-4)
    assert found.min() >= 0
    for h, (extent, count, angle) in zip(found, kernels, strict=True):
        gap = extent / (count - 1)
        box = blur.splat(blur.line(gap, 33, angle), 21)
        assert 0.5 * np.abs(h - box).sum() < 0.35
        # Together they are the continuous motion, and nearer to it than the copies were to any.
        whole = blur.splat(blur.line(extent + gap, 65, angle), 25)
        made = signal.convolve2d(np.pad(copies(extent, count, angle), 2), h, "same")
        assert 0.5 * np.abs(made - whole).sum() < 0.2


def test_a_known_blur_is_left_nearly_as_it_is():
    known = lines(300)
    (h,) = fill(known[7:8], known, Filling())
    assert variance(h[None])[0] < 0.5


def test_projected_gradient_equals_least_squares_without_negative_weights():
    rng = np.random.default_rng(1)
    k, truth = rng.random((5, 5)), rng.random((3, 3))
    k[2, 2] += 20  # so that the problem is well posed
    k, truth = k / k.sum(), truth / truth.sum()
    wanted = signal.convolve2d(k, truth) + 0.01 * rng.standard_normal((7, 7))
    matrix = np.stack([signal.convolve2d(k, one.reshape(3, 3)).ravel() for one in np.eye(9)], axis=1)
    strong = 1e3 * np.ones((1, 9))  # the sum
    best, _ = optimize.nnls(np.concatenate([matrix, strong]), np.append(wanted.ravel(), 1e3))
    as_spectra = (spectra(jnp.asarray(x[None], jnp.float32), (16, 16)) for x in (k, wanted))
    found = solved(*as_spectra, Filling(size=3, steps=300))
    np.testing.assert_allclose(found[0].ravel(), best, atol=2e-3)


def test_sharpening_is_part_of_what_is_filled():
    shot = Shot(jnp.asarray(copies(5, 2, 0))[None], jnp.array([1.5]), jnp.array([1.2]), None, None)
    whole = kernel_translation.effective(shot)
    assert whole.shape == (1, 37, 37) and whole.min() < 0
    np.testing.assert_allclose(whole.sum(), 1, atol=1e-4)
    (h,) = fill(whole, lines(500), Filling())
    assert variance(h[None])[0] > variance(fill(shot.kernel, lines(500), Filling()))[0] - 0.5


def settings(**values) -> ConfigDict:
    return ConfigDict({"augment": True, "ema": 0.0} | values)


def test_a_photo_is_what_the_lesson_makes_of_it():
    kernels = jnp.asarray(np.stack([copies(4, 2, 0), copies(6, 2, 90)]))
    shot = Shot(kernels, None, None, None, None)
    lessons = kernel_translation.Lessons(shot, jnp.stack([jnp.zeros((3, 3)), jnp.ones((3, 3))]))
    sharp = np.random.default_rng(0).integers(0, 256, (6, 52, 52, 3), np.uint8)
    photos, wanted = kernel_translation.taught(lessons, jnp.asarray(sharp), KEY, settings(augment=False))
    assert photos.shape == (6, 32, 32, 3) and set(np.unique(wanted[:, 0, 0])) == {0.0, 1.0}
    for photo, s, filling in zip(photos, sharp, wanted, strict=True):
        slow = blur.blur_valid(s / np.float32(255), np.asarray(kernels[int(filling[0, 0])]))
        assert np.abs(np.asarray(photo) - blur.round8(slow) / 255).max() <= 1.01 / 255


def test_it_learns_a_constant_lesson_and_repeats_itself():
    network = models.create("kernel_field", size=5, lags=3, width=8, window=16)
    kernel = jnp.asarray(copies(4, 2, 0))[None]
    filling = jnp.zeros((1, 5, 5)).at[0, 2, 1:4].set(1 / 3)
    frozen = {"lessons": kernel_translation.Lessons(Shot(kernel, None, None, None, None), filling)}
    adam = optax.adam(3e-2)
    step = jit(kernel_translation.make_step(network, adam, settings()))
    state = kernel_translation.init(network, adam, 0.0, KEY)
    batch = {"unknown_sharp": np.random.default_rng(0).integers(0, 256, (4, 36, 36, 3), np.uint8)}
    again, first = step(state, frozen, batch, KEY)
    for _ in range(60):
        state, metrics = step(state, frozen, batch, KEY)
    assert metrics["loss"] < first["loss"] and metrics["overlap"] > 0.9
    repeated = step(kernel_translation.init(network, adam, 0.0, KEY), frozen, batch, KEY)[0]
    jax.tree.map(np.testing.assert_array_equal, again.params, repeated.params)


@pytest.mark.parametrize(
    "kernels, message",
    [
        (np.ones((3, 4, 4)), r"wanted floats \(n, k, k\), k odd"),
        (np.ones((3, 5, 5), int), "wanted floats"),
        (-np.ones((1, 5, 5)), "none negative"),
        (np.full((1, 5, 5), np.nan), "finite"),
    ],
)
def test_a_file_without_kernels_is_refused(tmp_path, kernels, message):
    np.save(tmp_path / "k.npy", kernels)
    with pytest.raises(UserError, match=message):
        kernel_field.read_kernels(tmp_path / "k.npy")


def test_kernels_are_read_with_sum_one(tmp_path):
    np.save(tmp_path / "k.npy", np.full((2, 5, 5), 2.0))
    np.testing.assert_allclose(kernel_field.read_kernels(tmp_path / "k.npy"), 1 / 25)
    (tmp_path / "text.npy").write_text("no array")
    for name in ("text.npy", "missing.npy"):
        with pytest.raises(UserError, match=r"kernel_field\.kernels"):
            kernel_field.read_kernels(tmp_path / name)


def family(**specs) -> SimpleNamespace:
    section = ConfigDict({"family": specs, "lessons": 6, "kernels": ""})
    return SimpleNamespace(config=ConfigDict({"kernel_field": section, "seed": 0}))


def test_a_family_has_each_kind_equally_often():
    run = family(
        one={"kind": "box", "length": (1.0, 1.0), "size": 9}, two={"kind": "box", "length": (7.0, 7.0), "size": 9}
    )
    kernels = kernel_field.drawn(run)
    assert kernels.shape == (6, 9, 9) and kernel_field.family_reach(run) == 4
    longer = [kernel.max() < 0.5 for kernel in kernels]
    assert longer == 3 * [False, True]


@pytest.mark.parametrize(
    "specs, message",
    [
        ({"one": {"kind": "boxx"}}, r"family\.one: .*did you mean 'box'"),
        ({"one": {"kind": "gaussian", "size": 9}, "two": {"kind": "gaussian", "size": 11}}, "kernels of 2 sizes"),
        ({}, "kernels of 0 sizes"),
    ],
)
def test_a_family_that_cannot_be_drawn_is_refused(specs, message):
    with pytest.raises(UserError, match=message):
        kernel_field.family_reach(family(**specs))


@pytest.mark.parametrize("teacher, kernels", [("file", ""), ("camera", "k.npy"), ("family", "k.npy")])
def test_a_file_of_kernels_goes_with_its_teacher(teacher, kernels):
    with pytest.raises(UserError, match="goes with teacher=file"):
        kernel_field.check_file(ConfigDict({"teacher": teacher, "kernels": kernels}))
    kernel_field.check_file(ConfigDict({"teacher": "file", "kernels": "k.npy"}))
    kernel_field.check_file(ConfigDict({"teacher": "camera", "kernels": ""}))
