"""NIQE against the published numbers, its parameters from every kind of file, and what it should say of photos."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import REFERENCE, reference
from scipy import io, ndimage
from skimage import data

from b2b_jax import images, levels, niqe

sys.path.insert(0, str(REFERENCE.parents[2]))
from tools import fit_niqe

GOLDEN = {
    "basicsr_upstream": {},
    "basicsr_upstream_crop4": {"crop_border": 4},
    "basicsr_upstream_gray": {"grey": "gray"},
    "nafnet_restormer_copy": {"version": "nafnet"},
    "nafnet_restormer_copy_crop4": {"version": "nafnet", "crop_border": 4},
}


def photo(k: int) -> np.ndarray:
    with np.load(REFERENCE / "metrics" / "metrics.npz") as arrays:
        return levels.to_float(arrays[f"niqe_im{k}"])[None]


def expected(k: int) -> dict:
    return json.loads((REFERENCE / "metrics" / "metrics.json").read_text())[f"niqe{k}"]


@pytest.fixture(scope="module")
def ours():
    return niqe.load(niqe.DEFAULT)


@pytest.mark.parametrize("k", [0, 1])
def test_niqe_equals_the_published_ones(k):
    parameters = niqe.load(reference("metrics/niqe_pris_params.npz"))
    for key, options in GOLDEN.items():
        got = niqe.niqe(photo(k), parameters, **options)[0]
        assert got == pytest.approx(expected(k)[key], abs=1e-3), key


def test_the_shape_is_found_as_by_a_search_of_the_whole_table():
    """The published code takes the first of the nearest entries."""
    ratios = np.random.default_rng(0).uniform(niqe.RATIO[0] - 0.05, 0.7, 500).astype(np.float32)
    wanted = [np.argmin((niqe.RATIO - ratio) ** 2) for ratio in ratios]
    np.testing.assert_array_equal(niqe._nearest(ratios), wanted)
    assert niqe._nearest(np.float32([0.9]))[0] == len(niqe.RATIO) - 1
    assert niqe._nearest(np.float32([np.nan]))[0] == 0


def test_the_bicubic_reduction_is_a_convolution_with_the_stretched_kernel():
    y = np.random.default_rng(0).uniform(0, 255, (1, 12, 16)).astype(np.float32)
    taps = np.array(niqe._cubic_taps())
    wanted = y[0]
    for axis in (0, 1):
        wanted = ndimage.correlate1d(wanted, taps, axis, mode="reflect", origin=-1)
    wanted = wanted[::2, ::2]
    assert taps.sum() == pytest.approx(1) and taps[3] == taps[4] > 0.4
    with jax.enable_x64(True):
        np.testing.assert_allclose(niqe._half_bicubic(jnp.float64(y))[0], wanted, atol=1e-3)


def test_values_are_rounded_where_the_published_code_stores_them_in_single_precision():
    y = np.random.default_rng(0).uniform(0, 255, (24, 24)).astype(np.float32)
    mean = ndimage.correlate(y, niqe._window(), mode="nearest")  # float64 within, float32 out
    square = ndimage.correlate(y * y, niqe._window(), mode="nearest")
    wanted = np.sqrt(np.abs(square - mean * mean))
    with jax.enable_x64(True):
        normal, deviation = niqe._normalised(jnp.float64(y)[None])
    np.testing.assert_array_equal(deviation[0], wanted)
    np.testing.assert_array_equal(normal[0], (y - mean) / (wanted + 1))


def test_a_batch_scores_each_image_by_itself(ours):
    x = np.concatenate([photo(0)[:, :192, :192], photo(1)[:, :192, :192]])
    together, alone = niqe.niqe(x, ours), [niqe.niqe(x[i : i + 1], ours)[0] for i in range(2)]
    np.testing.assert_allclose(together, alone, rtol=1e-2)
    assert together[1] < together[0] - 1


@pytest.mark.parametrize("picture", [data.astronaut, data.chelsea, data.coffee])
def test_blur_and_noise_are_less_natural(ours, picture):
    x = levels.to_float(picture()[None, :288, :448])
    blurs = [levels.to_float(levels.to_uint8(ndimage.uniform_filter1d(x, width, axis=2))) for width in (1, 7, 13)]
    noisy = levels.to_float(levels.to_uint8(x + np.random.default_rng(0).normal(0, 0.08, x.shape)))
    sharp, soft, softer, noise = (niqe.niqe(y, ours)[0] for y in (*blurs, noisy))
    assert sharp + 1 < soft < softer and sharp + 1 < noise


def test_parameters_come_from_every_kind_of_file(ours, tmp_path):
    niqe.save(tmp_path / "own.npz", ours)
    np.savez(tmp_path / "basicsr.npz", mu_pris_param=ours.mean[None], cov_pris_param=ours.covariance)
    io.savemat(tmp_path / "matlab.mat", {"mu_prisparam": ours.mean[None], "cov_prisparam": ours.covariance})
    for name, source in (("own.npz", ours.source), ("basicsr.npz", "basicsr.npz"), ("matlab.mat", "matlab.mat")):
        found = niqe.load(tmp_path / name)
        assert found.source == source
        np.testing.assert_array_equal(found.mean, ours.mean)
        np.testing.assert_array_equal(found.covariance, ours.covariance)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["basicsr.npz", "matlab.mat", "own.npz"]


@pytest.mark.parametrize("name", ["a.npz", "a.mat"])
def test_other_files_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"not parameters")
    with pytest.raises(ValueError, match=name):
        niqe.load(tmp_path / name)
    np.savez(tmp_path / "b.npz", mu_pris_param=np.zeros(3))
    with pytest.raises(ValueError, match="no NIQE parameters"):
        niqe.load(tmp_path / "b.npz")


def test_wrong_images_are_explained(ours):
    with pytest.raises(ValueError, match="two blocks of 96 pixels, got an image of 191 x 191"):
        niqe.niqe(np.zeros((1, 191, 191, 3)), ours)
    with pytest.raises(ValueError, match=r"wanted \(n, h, w, 3\)"):
        niqe.niqe(np.zeros((192, 192, 3)), ours)
    with pytest.raises(ValueError, match="wanted basicsr or nafnet"):
        niqe.niqe(np.zeros((1, 192, 192, 3)), ours, version="matlab")
    assert np.isnan(niqe.niqe(np.full((1, 192, 192, 3), 0.5), ours)[0])


def test_the_tool_fits_a_folder_and_explains_what_it_cannot_use(tmp_path, capsys):
    folder = tmp_path / "photos"
    images.write(folder / "0.png", data.astronaut()[:384, :384])
    assert fit_niqe.main([str(folder), str(tmp_path / "few.npz")]) == 2
    assert "sharp blocks of 96 pixels, wanted 37 at least" in capsys.readouterr().err
    for name in ("brick.png", "grass.png", "gravel.png"):
        images.write(folder / name, images.read(fit_niqe.bundled(name))[:384, :384])
    assert fit_niqe.main([str(folder), str(tmp_path / "some.npz")]) == 0
    fitted = niqe.load(tmp_path / "some.npz")
    assert fitted.source == "4 photos of photos"
    rows = np.concatenate([niqe._sharp_blocks(images.read(path)) for path in images.find(folder)])
    np.testing.assert_allclose(fitted.mean, rows.mean(axis=0))
    assert fit_niqe.main([str(folder), str(tmp_path / "some.mat")]) == 2
    assert fit_niqe.main([str(tmp_path / "nowhere"), str(tmp_path / "some.npz")]) == 2


def test_the_shipped_parameters_are_the_tools(ours):
    assert ours.source == f"{len(fit_niqe.BUNDLED)} photographs of scikit-image"
