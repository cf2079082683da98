"""PSNR and SSIM against the published implementations (tests/data/reference/metrics) and scikit-image."""

import json
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest
from skimage import data
from skimage.metrics import structural_similarity

from b2b_jax import levels, metrics

REFERENCE = Path(__file__).parent / "data" / "reference" / "metrics"
SCORES = {
    metrics.psnr: {"basicsr_psnr_rgb_crop{}": 1e-4, "restormer_utils_psnr_crop{}": 1e-4},
    metrics.psnr_y: {"basicsr_psnr_y_crop{}": 1e-4, "basicsr_upstream_psnr_y_crop{}": 1e-4},
    metrics.ssim: {
        "basicsr_upstream_ssim_rgb_crop{}": 1e-5,
        "restormer_utils_ssim_crop{}": 1e-5,
        "nafnet_ssim_rgb_ssim3d_false_crop{}": 1e-5,
    },
    metrics.ssim_y: {"basicsr_upstream_ssim_y_crop{}": 1e-5},
    metrics.ssim_3d: {"nafnet_ssim3d_rgb_crop{}": 1e-5, "nafnet_ssim3d_rgb_crop{}_float32": 1e-4},
}


@cache
def expected() -> dict:
    return json.loads((REFERENCE / "metrics.json").read_text())


@cache
def pair(k: int) -> tuple[np.ndarray, np.ndarray]:
    with np.load(REFERENCE / "metrics.npz") as arrays:
        return tuple(levels.to_float(arrays[f"{name}{k}"])[None] for name in ("gt", "im"))


@pytest.mark.parametrize("k, crop", [(0, 0), (0, 4), (1, 0), (1, 4), (2, 0), (2, 4)])
@pytest.mark.parametrize("score", SCORES)
def test_scores_equal_the_published_ones(score, k, crop):
    got = float(score(*pair(k), crop_border=crop)[0])
    for key, tolerance in SCORES[score].items():
        assert got == pytest.approx(expected()[f"pair{k}"][key.format(crop)], abs=tolerance), key


WHOLE = {  # of the whole image only
    "blur2blur_psnr": (metrics.psnr, 1e-4),
    "mimo_psnr_data_range1": (metrics.psnr, 1e-4),
    "blur2blur_ssim": (metrics.ssim_3d, 1e-5),
    "skimage_ssim_gaussian": (metrics.ssim, 1e-5),
    "skimage_ssim_win7_channel_axis_uint8": (metrics.ssim_uniform, 1e-5),
}


@pytest.mark.parametrize("k", range(3))
@pytest.mark.parametrize("key", WHOLE)
def test_scores_of_whole_images_equal_the_published_ones(key, k):
    score, tolerance = WHOLE[key]
    assert float(score(*pair(k))[0]) == pytest.approx(expected()[f"pair{k}"][key], abs=tolerance)


def test_the_protocol_of_blur2blur():
    with np.load(REFERENCE / "metrics.npz") as arrays:
        x, y = (levels.to_float(arrays[name])[None] for name in ("protocol_gt_resized", "protocol_im"))
    assert float(metrics.psnr(x, y)[0]) == pytest.approx(expected()["protocol"]["blur2blur_psnr"], abs=1e-4)
    assert float(metrics.ssim_3d(x, y)[0]) == pytest.approx(expected()["protocol"]["blur2blur_ssim"], abs=1e-5)


@pytest.mark.parametrize("score, masked", [(metrics.psnr, metrics.psnr_masked), (metrics.ssim, metrics.ssim_masked)])
def test_masked_scores(score, masked):
    """A full mask changes nothing; what lies outside a mask does not count."""
    x, y = (image[:, :64, :64] for image in pair(0))
    full = np.ones((1, 64, 64, 1), np.float32)
    assert float(masked(x, y, full)[0]) == pytest.approx(float(score(x, y)[0]), rel=1e-5)
    inside = full.copy()
    inside[:, :30] = 0
    spoilt = y.copy()
    spoilt[:, :30] = 0
    assert float(masked(x, spoilt, inside)[0]) == pytest.approx(float(masked(x, y, inside)[0]), rel=1e-5)
    assert float(score(x, spoilt)[0]) < float(score(x, y)[0]) - 1e-2


def test_masked_psnr_is_that_of_the_part_inside():
    x, y = (image[:, :64, :64] for image in pair(0))
    mask = np.zeros((1, 64, 64, 1), np.float32)
    mask[:, 10:40, 20:50] = 1
    wanted = float(metrics.psnr(x[:, 10:40, 20:50], y[:, 10:40, 20:50])[0])
    assert float(metrics.psnr_masked(x, y, mask)[0]) == pytest.approx(wanted, abs=1e-4)


def test_masked_ssim_is_that_of_the_windows_centred_inside():
    x, y = (image[:, :64, :64] for image in pair(0))
    mask = np.zeros((1, 64, 64, 1), np.float32)
    mask[:, 10:40, 20:50] = 1
    around = (np.pad(image[:, 10:40, 20:50], ((0, 0), (5, 5), (5, 5), (0, 0))) for image in (x, y))
    wanted = float(metrics.ssim(*around)[0])  # with half a window of nothing around, as RealBlur's script has it
    assert float(metrics.ssim_masked(x, y, mask)[0]) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("photo", [data.astronaut, data.coffee, data.chelsea])
def test_ssim_equals_scikit_image(photo):
    x = levels.to_float(photo()[40:160, 60:150])
    y = levels.to_float(levels.to_uint8(x + np.random.default_rng(0).normal(0, 0.05, x.shape)))
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    wanted = structural_similarity(x.astype(float), y.astype(float), channel_axis=-1, **options)
    assert float(metrics.ssim(x[None], y[None])[0]) == pytest.approx(wanted, abs=1e-5)
    wanted = structural_similarity(x.astype(float), y.astype(float), channel_axis=-1, data_range=1.0)
    assert float(metrics.ssim_uniform(x[None], y[None])[0]) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("score", [metrics.psnr, metrics.psnr_y, metrics.ssim, metrics.ssim_3d])
def test_a_jitted_batch_scores_each_image_by_itself(score):
    x, y = (np.concatenate([image[:, :32, :40], image[:, 40:72, 20:60]]) for image in pair(0))
    alone = [float(score(x[i : i + 1], y[i : i + 1])[0]) for i in range(2)]
    np.testing.assert_allclose(jax.jit(lambda x, y: score(x, y))(x, y), alone, rtol=1e-5)
    assert abs(alone[0] - alone[1]) > 1e-3


def test_equal_images():
    x = pair(2)[0]
    assert np.isinf(metrics.psnr(x, x)[0])
    assert float(metrics.ssim(x, x)[0]) == pytest.approx(1, abs=1e-6)
    assert float(metrics.ssim_3d(x, x)[0]) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    "score", [metrics.psnr, metrics.psnr_y, lambda x, y: metrics.psnr_masked(x, y, x[..., :1] >= 0)]
)
def test_equal_images_of_8_bits_are_equal_however_they_were_rounded(score):
    stored = np.random.default_rng(0).integers(0, 256, (2, 300, 300, 3)).astype(np.uint8)
    other = stored.copy()
    other[1, 7, 7, 2] ^= 1  # the least that a photo can differ
    equal, nearly = np.asarray(score(metrics.round8(levels.to_float(stored)), levels.to_float(other)))
    assert np.isinf(equal) and 90 < nearly < 130


def test_an_equal_image_does_not_make_a_mean_infinite():
    x = np.zeros((2, 4, 4, 3), np.float32)
    assert metrics.mean_psnr(x, x) == metrics.HIGHEST
    assert metrics.mean_psnr(x, x + np.float32([[[[0]]], [[[0.2]]]])) == pytest.approx((100 - 20 * np.log10(0.2)) / 2)


def test_psnr_of_a_known_error():
    x = np.full((1, 4, 4, 3), 0.25, np.float32)
    np.testing.assert_allclose(metrics.psnr(x, x + 0.1), 20, atol=1e-4)
    shift = 0.1 * (65.481 + 128.553 + 24.966) / 255
    np.testing.assert_allclose(metrics.psnr_y(x, x + 0.1), -20 * np.log10(shift), atol=1e-4)


def test_round8_is_a_trip_through_a_file():
    x = np.array([-0.5, 0, 0.1, 0.4999, 0.5, 0.9999, 1, 7], np.float32)
    np.testing.assert_allclose(metrics.round8(x), levels.to_float(levels.to_uint8(x)), rtol=1e-6)


def test_wrong_shapes_are_explained():
    x = np.zeros((1, 16, 16, 3), np.float32)
    with pytest.raises(ValueError, match=r"\(1, 16, 16, 3\) and \(1, 16, 15, 3\)"):
        metrics.psnr(x, x[:, :, :15])
    with pytest.raises(ValueError, match="wanted two equal"):
        metrics.ssim_3d(x[0], x[0])
    with pytest.raises(ValueError, match="under 11 pixels"):
        metrics.ssim(x, x, crop_border=3)
    with pytest.raises(ValueError, match="under 1 pixels"):
        metrics.psnr(x, x, crop_border=8)
