"""RealBlur's alignment undoes a small shift of the camera; LPIPS follows its formula and explains wrong files."""

import jax
import numpy as np
import pytest
from helpers import jit
from skimage import data

from b2b_jax import levels, metrics, weights
from b2b_jax.errors import UserError
from b2b_jax.evaluation import alignment, lpips
from b2b_jax.models.vgg import VGG, WIDTHS
from b2b_jax.networks import Network

# ------------------------------------------------------------------------------------------------------------ alignment


@pytest.fixture(scope="module")
def pair():
    """A photo, and what a second camera sees of it: moved by 2.6 and 1.4 px, turned a little, 8 % darker."""
    cv2 = pytest.importorskip("cv2", reason="opencv-python-headless is not installed")
    sharp = levels.to_float(data.astronaut()[100:260, 120:312])
    turn = np.add(cv2.getRotationMatrix2D((96, 80), 0.4, 1.0), [[0, 0, 2.6], [0, 0, 1.4]])
    moved = cv2.warpAffine(sharp, turn, (192, 160), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT)
    return np.clip(0.92 * moved, 0, 1)[None], sharp[None]


def test_alignment_undoes_a_shift_and_a_darker_exposure(pair):
    moved, sharp = pair
    warped, mask = alignment.align(moved, sharp)
    assert warped.shape == sharp.shape and mask.shape == (1, 160, 192, 1)
    assert set(np.unique(mask)) <= {0, 1} and 0.9 < mask.mean() < 1
    inner = np.zeros_like(mask)
    inner[:, 8:-8, 8:-8] = 1  # at the borders the second camera saw nothing
    before, after = (float(metrics.psnr_masked(x, sharp, mask * inner)[0]) for x in (moved, warped))
    assert before < 22 and after > 32
    assert float(metrics.ssim_masked(warped, sharp, mask * inner)[0]) > 0.98


def test_alignment_of_equal_photos_changes_nothing(pair):
    sharp = pair[1]
    warped, mask = alignment.align(sharp, sharp)
    np.testing.assert_allclose(warped, sharp, atol=1e-3)
    assert mask.mean() > 0.98


def test_what_cannot_be_aligned_stays_in_place(pair):
    flat = np.full_like(pair[1], 0.5)
    warped, mask = alignment.align(flat, pair[1])
    assert np.ptp(warped) < 1e-4 and mask.all()


# ---------------------------------------------------------------------------------------------------------------- LPIPS


@pytest.fixture(scope="module")
def opened():
    module = VGG(16, lpips.LAYERS)
    variables = jit(module.init)(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    lin = tuple(np.random.default_rng(i).random(width).astype(np.float32) for i, width in enumerate(WIDTHS))
    return lpips.Lpips(Network(module, variables), lin)


def test_lpips_is_the_published_formula(opened):
    rng = np.random.default_rng(0)
    x, y = rng.random((2, 2, 32, 32, 3)).astype(np.float32)
    got = np.asarray(
        jit(lambda v, x, y: lpips.distance(opened.vgg.module, v, opened.lin, x, y))(opened.vgg.variables, x, y)
    )
    total = np.zeros(2)
    scaled = [(2 * z - 1 - np.array([-0.030, -0.088, -0.188])) / np.array([0.458, 0.448, 0.450]) for z in (x, y)]
    run = jit(opened.vgg.module.apply)
    features = [run(opened.vgg.variables, z.astype(np.float32)) for z in scaled]
    for weight, a, b in zip(opened.lin, *features, strict=True):
        a, b = (np.asarray(f, np.float64) for f in (a, b))
        a, b = (f / np.sqrt((f**2).sum(-1, keepdims=True)) for f in (a, b))
        total += (((a - b) ** 2) * weight).sum(-1).mean((1, 2))
    np.testing.assert_allclose(got, total, rtol=1e-4)
    assert (got > 0.01).all()


def test_lpips_files_are_read_or_explained(opened, tmp_path):
    state = {f"lin{i}.model.1.weight": w.reshape(1, -1, 1, 1) for i, w in enumerate(opened.lin)}
    weights.write_safetensors(tmp_path / "lin.safetensors", state, {})
    for got, want in zip(lpips.read_lin(tmp_path / "lin.safetensors"), opened.lin, strict=True):
        np.testing.assert_array_equal(got, want)
    weights.write_safetensors(tmp_path / "other.safetensors", {"a": np.zeros(3)}, {})
    for name in ("other.safetensors", "missing.pth"):
        with pytest.raises(UserError, match=name):
            lpips.read_lin(tmp_path / name)
    with pytest.raises(UserError, match=r"no\.safetensors"):
        lpips.open_weights(tmp_path / "no.safetensors", tmp_path / "lin.safetensors")
