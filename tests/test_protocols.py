"""Protocols: each scores as its dataset is scored in publications."""

import numpy as np
import pytest
from helpers import reference

from b2b_jax import metrics, niqe
from b2b_jax.errors import UserError
from b2b_jax.evaluation import protocols


def random_pair(h=24, w=30):
    rng = np.random.default_rng(0)
    x = rng.random((1, h, w, 3)).astype(np.float32)
    return x, np.clip(x + rng.normal(0, 0.1, x.shape), 0, 1).astype(np.float32)


@pytest.mark.parametrize(
    "name, psnr, ssim",
    [
        ("standard", metrics.psnr, metrics.ssim),
        ("luma", metrics.psnr_y, metrics.ssim_y),
        ("nafnet", metrics.psnr, metrics.ssim_3d),
        ("blur2blur", metrics.psnr, metrics.ssim_3d),
        ("skimage", metrics.psnr, metrics.ssim_uniform),
    ],
)
def test_a_protocol_scores_as_it_says(name, psnr, ssim):
    x, y = random_pair()
    found = protocols.make_measure(protocols.PROTOCOLS[name], {"extra": lambda x, y: x[:, 0, 0, 0]})(x, y)
    assert (
        found["psnr"][0] == psnr(x, y)[0] and found["ssim"][0] == ssim(x, y)[0] and found["extra"][0] == x[0, 0, 0, 0]
    )


def test_realblur_is_scored_after_its_alignment():
    pytest.importorskip("cv2", reason="opencv-python-headless is not installed")
    rng = np.random.default_rng(0)
    photo = np.kron(rng.random((12, 16, 3)), np.ones((8, 8, 1))).astype(np.float32)
    sharp, moved = photo[None, 8:88, 8:120], photo[None, 7:87, 6:118]
    found = protocols.make_measure(protocols.choose("auto", "realblur_j")[1], {})(moved, sharp)
    assert metrics.psnr(moved, sharp)[0] + 10 < found["psnr"][0]
    assert metrics.ssim(moved, sharp)[0] + 0.1 < found["ssim"][0] <= 1


def test_every_dataset_has_a_protocol_and_unknown_ones_are_told():
    assert protocols.choose("auto", "gopro")[0] == "standard" and protocols.choose("luma", "realblur_j")[0] == "luma"
    with pytest.raises(UserError, match="'best'; it can be auto, standard"):
        protocols.choose("best", "gopro")
    assert all(one.text for one in protocols.PROTOCOLS.values())


def test_the_reduction_is_that_of_blur2blurs_script():
    with np.load(reference("metrics/metrics.npz")) as arrays:
        full, wanted = arrays["protocol_gt_full"], arrays["protocol_gt_resized"]
    got = protocols.reduce(full, 256)
    assert got.shape == wanted.shape and np.abs(got.astype(int) - wanted).max() <= 1 and (got != wanted).mean() < 1e-3
    blocks = np.random.default_rng(0).integers(0, 256, (512, 600, 3), np.uint8)
    means = blocks.reshape(256, 2, 300, 2, 3).mean((1, 3))
    np.testing.assert_array_equal(protocols.reduce(blocks, 256), np.floor(means + 0.5))
    np.testing.assert_array_equal(protocols.reduce(full[:200], 256), full[:200])


def test_niqe_is_none_for_small_images():
    score = protocols.natural(niqe.load(niqe.DEFAULT))
    assert np.isnan(score(np.zeros((2, 96, 96, 3)), None)).tolist() == [True, True]
