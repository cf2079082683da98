"""What generated cameras do behind their lens, and blur that varies over their frame, against direct formulas."""

import json

import numpy as np
import pytest
from ml_collections import ConfigDict

from b2b_jax.data import blur, domains, moving
from b2b_jax.data.processing import Processing
from b2b_jax.errors import UserError
from b2b_jax.settings import check_scenes
from configs import default

SHARP = np.random.default_rng(0).random((24, 31, 3)).astype(np.float32)


def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def test_nothing_is_done_as_it_stands():
    np.testing.assert_array_equal(Processing().develop(rng(), Processing().light(SHARP)), blur.round8(SHARP))


def test_the_lens_sees_light():
    processing, kernel = Processing(response="gamma"), blur.box_filter_kernel(5)
    taken = processing.develop(rng(), blur.apply(processing.light(SHARP), kernel))
    np.testing.assert_array_equal(taken, blur.round8(blur.apply(SHARP**2.2, kernel).clip(0) ** (1 / 2.2)))
    assert np.abs(taken - 255 * blur.apply(SHARP, kernel)).max() > 2


def test_noise_and_compression():
    flat = np.full((64, 64, 3), 0.5)
    noisy = Processing(noise=0.05).develop(rng(), flat)
    assert abs(noisy.std() / 255 - 0.05) < 0.002
    assert len(np.unique(Processing(quality=30).develop(rng(), SHARP) - blur.round8(SHARP))) > 10


def test_the_mask_adds_to_edges():
    edge = np.where(np.arange(32) < 16, 0.3, 0.6)[None, :, None] * np.ones((32, 1, 3))
    taken = Processing(amount=(2.0, 2.0)).develop(rng(), edge).astype(float) / 255
    assert taken.min() < 0.2 and taken.max() > 0.7 and abs(taken[0, 0, 0] - 0.3) < 0.01


@pytest.mark.parametrize("spec", [{"kind": "rotation", "angle": (8.0, 8.0)}, {"kind": "zoom", "factor": (1.2, 1.2)}])
def test_motion_leaves_its_centre_and_grows_with_distance(spec):
    points = np.zeros((65, 65, 3), np.float32)
    points[32, 32] = points[32, 40] = points[32, 60] = 1
    seen = moving.expose(rng(), points, spec | {"about": (0.5, 0.5)})
    peaks = [seen[:, columns].max() for columns in (slice(31, 34), slice(36, 45), slice(50, 65))]
    assert peaks[0] > 0.95 and peaks[0] > peaks[1] > peaks[2] > 0
    rows, columns = np.nonzero(seen[:, 50:, 0])
    across, along = np.ptp(columns), np.ptp(rows)
    assert (along > across) if spec["kind"] == "rotation" else (across > along)


def test_a_scene_is_taken_by_kernel_then_processing():
    settings = default.get_config().data.scenes
    photos = blur.round8(np.stack([SHARP, SHARP[::-1]]))
    kernel = settings.unknown_kernel.to_dict()
    np.testing.assert_array_equal(domains.photographed(photos, settings, 3), domains.blurred(photos, kernel, 3))
    written = ConfigDict(json.loads(settings.to_json()))  # as a run's folder keeps it: lists for tuples
    np.testing.assert_array_equal(domains.photographed(photos, written, 3), domains.blurred(photos, kernel, 3))
    settings.unknown_processing.noise = 1e-9  # takes the other way
    np.testing.assert_array_equal(domains.photographed(photos[:1], settings, 3), domains.blurred(photos[:1], kernel, 3))
    settings.unknown_kernel = {"kind": "zoom"}
    assert domains.photographed(photos, settings, 3).shape == photos.shape


@pytest.mark.parametrize(
    ("key", "change", "said"),
    [
        ("unknown_processing", {"response": "log"}, "unknown response 'log'"),
        ("unknown_processing", {"quality": 101}, "quality of 0 to 100"),
        ("unknown_kernel", {"kind": "rotation", "turn": 3.0}, "'turn'"),
        ("unknown_kernel", {"kind": "rotations"}, "did you mean 'rotation'"),
        ("known_kernel", {"kind": "zoom"}, "'zoom'"),
        ("sharp_scale", 0, "at least 1"),
    ],
)
def test_no_such_camera(key, change, said):
    settings = default.get_config().data.scenes
    with settings.unlocked():
        settings[key] = change if key != "unknown_processing" else settings[key].to_dict() | change
    with pytest.raises(UserError, match=f"data.scenes.{key}.*{said}"):
        check_scenes(settings)
