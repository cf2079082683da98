"""A camera's processing undone: sharpening divided out, noise found in flat windows and held against the photo."""

import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import jit
from skimage import data

from b2b_jax import levels, metrics
from b2b_jax.data import blur
from b2b_jax.data.processing import Processing
from b2b_jax.data.sources import ArraySource
from b2b_jax.method import denoising
from b2b_jax.models import jpeg, sharpening
from b2b_jax.models.camera import HALO, Shot
from b2b_jax.models.development import BINS, between, radius, undone
from b2b_jax.models.sharpening import KINDS, SharpeningReader
from b2b_jax.stages import camera_noise

KEY = jax.random.key(0)
NOTHING = jnp.zeros(BINS), jnp.float32(0), jnp.float32(1)
SOFT = blur.apply(data.astronaut() / np.float32(255), blur.gaussian_kernel(1.5)).astype(np.float32)[None, :200, :230]


def taken(processing: Processing) -> np.ndarray:
    return levels.to_float(processing.develop(np.random.default_rng(0), SOFT[0]))[None]


def quality(x) -> float:
    return float(metrics.psnr(np.asarray(x), SOFT).mean())


@pytest.mark.parametrize("shape", [(2, 24, 31, 3), (1, 5, 70, 3), (1, 1, 9, 3)])
def test_a_camera_that_does_nothing_leaves_photos_as_they_are(shape):
    photo = jnp.asarray(np.random.default_rng(0).random(shape), jnp.float32)
    np.testing.assert_allclose(undone(photo, *NOTHING), photo, atol=1e-5)


def test_sharpening_is_taken_back():
    sharpened = taken(Processing(amount=(2.0, 2.0), sigma=(1.2, 1.2)))
    assert quality(sharpened) < 35
    assert quality(undone(sharpened, NOTHING[0], jnp.float32(2.0), jnp.float32(1.2))) > quality(sharpened) + 8


@pytest.mark.parametrize("quality_of_jpeg", [0, 75])
def test_noise_is_found_in_flat_windows_and_held_down(quality_of_jpeg):
    camera = Processing(noise=8 / 255, quality=quality_of_jpeg)
    rng = np.random.default_rng(1)
    flat = np.stack([camera.develop(rng, np.full((64, 64, 3), level)) for level in rng.uniform(0.2, 0.8, 260)])
    noise = camera_noise.spectrum(ArraySource("pile", image=flat))
    assert noise.shape == (BINS,) and noise.dtype == np.float32
    deviation = 255 * np.sqrt(noise)
    if quality_of_jpeg:  # which leaves little of fine noise
        assert deviation[4:16].mean() > 4 and deviation[-4:].mean() < 2
    else:  # of the mean of three channels
        np.testing.assert_allclose(deviation[3:].mean(), 8 / np.sqrt(3), rtol=0.12)  # the flattest have a little less
    noisy = taken(camera)
    assert quality(undone(noisy, jnp.asarray(noise), *NOTHING[1:])) > quality(noisy) + 1
    found = camera_noise.found(ArraySource("pile", image=flat))
    np.testing.assert_allclose(255 * found.deviation, 8, rtol=0.1)
    assert abs(found.quality - quality_of_jpeg) <= 2


@pytest.mark.parametrize("quality_of_jpeg", [0, 40, 75])
def test_what_rounding_and_jpeg_leave_is_no_noise(quality_of_jpeg):
    rng = np.random.default_rng(0)
    soft = [level + 0.05 * SOFT[0, 20:84, 30:94] for level in rng.uniform(0.2, 0.7, 260)]
    photos = np.stack([Processing(quality=quality_of_jpeg).develop(rng, photo) for photo in soft])
    spectrum = camera_noise.spectrum(ArraySource("pile", image=photos))
    assert camera_noise.deviation(spectrum, quality_of_jpeg) == 0


class OneByOne:
    """Photos, each read anew; at most one earlier photo is still in memory."""

    def __init__(self, *photos: np.ndarray):
        self.photos, self.read = photos, []

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        assert sum(photo() is not None for photo in self.read) < 2
        photo = self.photos[index].copy()
        self.read.append(weakref.ref(photo))
        return {"image": photo}


def test_the_flattest_windows_of_all_photos_are_taken(monkeypatch):
    monkeypatch.setattr(camera_noise, "FLATTEST", 0.6)
    monkeypatch.setattr(camera_noise, "FEWEST", 300)
    sizes, rng = ((9, 800), (90, 70), (7, 900)), np.random.default_rng(2)
    pile = OneByOne(*(rng.integers(60, 60 + spread, (200, side, 3), np.uint8) for spread, side in sizes))
    cut = np.concatenate([camera_noise.windows(photo) for photo in pile.photos])
    wanted = camera_noise.power_of(cut[np.argsort(cut.var((1, 2)))[: int(0.6 * len(cut))]])
    np.testing.assert_array_equal(camera_noise.spectrum(pile), wanted)
    assert len(pile.read) == 5  # the second photo, which has no flat window, is not read again


def test_many_windows_take_turns_and_have_the_digits_of_all_at_once(monkeypatch):
    photo = np.random.default_rng(0).integers(5, 250, (200, 230, 3), np.uint8)
    everything = camera_noise.windows(photo), camera_noise.power_of(camera_noise.windows(photo))
    sizes, transform = [], np.fft.rfft2
    monkeypatch.setattr(camera_noise.np.fft, "rfft2", lambda x: sizes.append(len(x)) or transform(x))
    monkeypatch.setattr(camera_noise, "CHUNK", 10)
    turns = camera_noise.windows(photo), camera_noise.power_of(camera_noise.windows(photo))
    assert sizes == [10, 10, 10, 10, 2]
    for one, other in zip(everything, turns, strict=True):
        np.testing.assert_array_equal(one, other)


def test_noise_and_jpeg_are_found_with_one_photo_in_memory():
    pile = OneByOne(*np.full((4, 40, 40, 3), 90, np.uint8))
    assert camera_noise.found(pile) == (0.0, 0) and len(pile.read) == 12


def test_noise_is_found_in_few_photos(capsys):
    """Eight of 240 pixels, which have 392 windows side by side."""
    rng = np.random.default_rng(0)
    flat = [Processing(noise=8 / 255).develop(rng, np.full((240, 240, 3), x)) for x in rng.uniform(0.2, 0.8, 8)]
    found = camera_noise.found(ArraySource("pile", image=np.stack(flat)))
    np.testing.assert_allclose(255 * found.deviation, 8, rtol=0.1)
    assert not capsys.readouterr().out
    assert camera_noise.found(ArraySource("pile", image=np.stack(flat[:3]))) == (0.0, 0)
    assert "too few or too small to find noise" in capsys.readouterr().out


def test_too_few_windows_tell_no_noise():
    photos = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), np.uint8)
    assert not camera_noise.spectrum(ArraySource("pile", image=photos)).any()


@pytest.mark.parametrize("shape", [(300, 100), (61, 64)])
def test_a_sky_keeps_its_level_up_to_its_border(shape):
    """Its spectrum is next to nothing but its mean: the filter that takes noise away reaches beyond any margin."""
    sky = np.broadcast_to(np.linspace(0.6, 0.7, shape[0])[:, None, None], (*shape, 3))
    photo = sky + 0.02 * np.random.default_rng(0).standard_normal(sky.shape)
    clean = undone(jnp.asarray(photo[None], jnp.float32), jnp.full(BINS, 0.02**2 / 3), *NOTHING[1:])[0]
    error = np.asarray(clean - sky).mean(-1)
    assert np.sqrt(np.square(error).mean()) < 0.004
    assert max(abs(border.mean()) for border in (error[:4], error[-4:], error[:, :4], error[:, -4:])) < 0.005


def test_clipped_windows_are_left_out():
    photo = np.full((32, 64, 3), 255, np.uint8)
    photo[:, 32:] = 100
    assert len(camera_noise.windows(photo)) == 1


def test_a_photo_smaller_than_a_window_tells_no_noise():
    assert camera_noise.windows(np.full((20, 70, 3), 100, np.uint8)).shape == (0, 32, 32)


def test_a_plane_is_no_noise():
    photo = np.add.outer(np.arange(32), 2 * np.arange(32)).astype(np.uint8)[..., None].repeat(3, -1)
    np.testing.assert_allclose(camera_noise.windows(photo), 0, atol=1e-6)


def test_values_are_joined_in_lines():
    values = jnp.linspace(0, 1, BINS)[None]
    np.testing.assert_allclose(between(values, radius(30, 40))[0], np.minimum(2 * radius(30, 40), 1), atol=1e-6)


# --------------------------------------------------------------------------------------------- a denoiser's pairs


def shot(**parts) -> Shot:
    kernels = blur.draw_many(np.random.default_rng(3), [{"kind": "trajectory", "length": (4.0, 8.0), "size": 11}], 2)
    nothing = dict.fromkeys(("amount", "sigma", "noise", "response"))
    return Shot(**{"kernel": jnp.asarray(kernels, jnp.float32)} | nothing | parts)


MASK = {"amount": jnp.array([0.0, 2.0]), "sigma": jnp.ones(2)}


def test_a_pair_differs_by_noise_jpeg_and_response_alone():
    side = 48 + 2 * (5 + HALO)
    sharp = jnp.asarray(levels.to_float(data.astronaut()[100:, 130:][:side, :side])[None].repeat(2, 0))
    noisy = jit(denoising.noisy)
    stored, clean = noisy(sharp, shot(**MASK, noise=jnp.array([0.0, 0.05])), KEY)
    assert stored.shape == clean.shape == (2, 48, 48, 3)
    np.testing.assert_allclose(stored[0], clean[0], atol=0.51 / 255)  # rounding
    np.testing.assert_allclose((stored[1] - clean[1]).std(), 0.05, rtol=0.1)
    bright, same = noisy(sharp, shot(**MASK, response=jnp.float32(2.2)), KEY)
    np.testing.assert_allclose(same, clean, atol=1e-6)
    gained = (bright[0] - clean[0])[np.asarray(clean[0]) < 0.99]  # the 2.2th root of a mean of powers exceeds the mean
    assert gained.min() > -0.51 / 255 and gained.max() > 5 / 255
    stored, same = noisy(sharp, shot(**MASK, quality=jnp.float32(60)), KEY)
    np.testing.assert_allclose(same, clean, atol=1e-6)
    compressed = jit(jpeg.compressed)(jnp.round(255 * clean) / 255, jnp.float32(60))
    assert float(jnp.abs(stored - compressed).mean()) < 1e-3 < float(jnp.abs(stored - clean).mean())  # ties may differ


@pytest.mark.parametrize(
    ("parts", "answer"),
    [
        (MASK, False),
        ({"noise": jnp.zeros(2)}, False),
        ({"noise": jnp.array([0.0, 0.01])}, True),
        ({"quality": jnp.float32(80)}, True),
        ({"response": jnp.float32(2.2)}, True),
    ],
)
def test_a_camera_that_needs_a_denoiser_is_known(parts, answer):
    assert denoising.needed(shot(**parts)) == answer


# ----------------------------------------------------------------------------------------------------------- sharpening


def test_the_nearest_kind_of_sharpening_is_named():
    amounts, sigmas = jnp.asarray([0.0, 0.3, 0.5, 2.3, 6.0]), jnp.asarray([3.0, 0.8, 0.6, 1.3, 3.0])
    kinds = sharpening.kind(amounts, sigmas)
    assert [KINDS[i] for i in kinds] == [(0, 1), (0, 1), (0.75, 0.8), (2.25, 1.25), (5, 2.2)]


def test_a_window_that_shows_nothing_reads_as_one_with_a_different_level():
    reader = SharpeningReader(width=4)
    flat = jnp.full((2, 16, 16, 3), 0.5).at[1].set(0.25)
    params = jit(reader.init)(jax.random.key(0), flat)
    logits = reader.apply(params, flat)
    assert logits.shape == (2, len(KINDS))
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-5)
