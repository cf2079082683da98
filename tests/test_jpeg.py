"""JPEG on the device against Pillow's, and its quality found again in the pixels of photos."""

import io
import weakref

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import jit
from PIL import Image
from skimage import data

from b2b_jax import levels
from b2b_jax.data.processing import compressed
from b2b_jax.models import jpeg
from b2b_jax.stages import camera_jpeg

PHOTO = data.astronaut()[100:260, 130:290]


def saved(photo, **options):
    """The photo after Pillow's JPEG."""
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "JPEG", **options)
    return np.asarray(Image.open(file))


@pytest.mark.parametrize("quality", [10, 40, 75, 95])
@pytest.mark.parametrize("shape", [(160, 160), (41, 70)])
def test_it_is_pillows_but_for_rounding(quality, shape):
    photo = PHOTO[: shape[0], : shape[1]]
    made = levels.to_uint8(jit(jpeg.compressed)(levels.to_float(photo)[None], jnp.float32(quality))[0])
    wanted = compressed(photo, quality)
    apart = made.astype(int) - wanted
    assert np.abs(apart).mean() < 0.6  # grey levels
    assert np.abs(apart).mean() < 0.4 * np.abs(photo.astype(int) - wanted).mean()
    assert np.abs(apart.mean((0, 1))).max() < 0.1


@pytest.mark.parametrize("quality", [5, 10, 20, 25, 30, 50, 53, 75])
def test_flat_colour_is_not_tinted(quality):
    """Flat blocks often lie between two levels; rounded to even ones they would all be changed to the same side."""
    colours = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    photo = colours.repeat(16, axis=0).repeat(16, axis=1)
    made = jit(jpeg.compressed)(levels.to_float(photo)[None], jnp.float32(quality))[0]
    apart = levels.to_uint8(made).astype(int) - compressed(photo, quality)
    assert np.abs(apart).max() <= 1 and np.abs(apart.mean((0, 1))).max() < 0.02


@pytest.mark.parametrize("quality", [20, 50, 75, 88, 90])
def test_quality_is_found(quality):
    """50, 75 and 88 have twins, with the same coarse steps at low frequencies."""
    photos = [compressed(photo, quality) for photo in (data.coffee(), data.chelsea())]
    assert camera_jpeg.quality(photos) == quality


@pytest.mark.parametrize("turn", [lambda x: x, np.fliplr, np.flipud, lambda x: np.rot90(x), lambda x: np.rot90(x, 3)])
@pytest.mark.parametrize("quality", [50, 85])
def test_quality_is_found_in_photos_that_were_turned(quality, turn):
    """Their tables are transposed, and with sides of no whole blocks the last block comes first."""
    photos = [compressed(photo[:301, :390], quality) for photo in (data.coffee(), data.astronaut())]
    assert camera_jpeg.quality([photos[0], np.ascontiguousarray(turn(photos[1]))]) == quality


@pytest.mark.parametrize("preset", ["web_high", "medium", "maximum"])
def test_tables_that_are_not_libjpegs_are_no_quality(preset):
    photos = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
    assert camera_jpeg.quality(saved(photo, quality=preset) for photo in photos) == 0


def test_transforms_of_one_photo_at_a_time(monkeypatch):
    """Of a photo of whole blocks, which is read once for each of two ways to turn it, and once more for the best."""
    alive, blocks = [], camera_jpeg.blocks

    def noted(photo, most=0):
        assert not any(spectra() is not None for spectra in alive)
        spectra = blocks(photo, most)
        alive.append(weakref.ref(spectra))
        return spectra

    monkeypatch.setattr(camera_jpeg, "blocks", noted)
    photos = [compressed(photo[:296, :400], 60) for photo in (data.coffee(), data.chelsea())]
    assert camera_jpeg.quality(photos) == 60 and len(alive) == 6


@pytest.mark.parametrize(
    "photo", [data.coffee(), compressed(data.coffee(), 60)[3:-2, 5:-1], np.full((64, 64, 3), 90, np.uint8)]
)
def test_without_compression_or_with_another_grid_none_is_found(photo):
    assert camera_jpeg.quality([photo]) == 0


def test_a_photo_smaller_than_a_block_tells_nothing():
    assert camera_jpeg.quality([np.zeros((7, 30, 3), np.uint8)]) == 0
