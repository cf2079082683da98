"""Parametric blur kernels, and blurring with them."""

import numpy as np
import pytest
from scipy import ndimage

from b2b_jax.data import blur

PIXELS = np.arange(21) - 10


def moments(kernel):
    """Centroid (x, y) and covariance of a kernel, y upward."""
    points = np.stack([np.broadcast_to(PIXELS, (21, 21)), np.broadcast_to(-PIXELS[:, None], (21, 21))], -1).reshape(
        -1, 2
    )
    weights = kernel.astype(np.float64).reshape(-1)
    centre = weights @ points
    return centre, (points - centre).T * weights @ (points - centre)


@pytest.mark.parametrize("kind", blur.KERNELS)
def test_kernels_are_densities_about_their_centroid(kind):
    for seed in range(20):
        kernel = blur.draw(np.random.default_rng(seed), {"kind": kind})
        assert kernel.shape == (21, 21) and kernel.dtype == np.float32
        assert (kernel.min() >= 0 or kind == "sharpness") and abs(kernel.sum() - 1) < 1e-5
        assert np.abs(moments(kernel)[0]).max() < 1e-5


@pytest.mark.parametrize("angle", [-70, -10, 0, 10, 45, 90])
def test_the_direction_is_counter_clockwise_from_the_horizontal(angle):
    kernel = blur.box_kernel(np.random.default_rng(0), length=(15, 15), angle=(angle, angle))
    along = np.linalg.eigh(moments(kernel)[1])[1][:, -1]
    wanted = np.array([np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))])
    assert abs(along @ wanted) > np.cos(np.deg2rad(2))


def test_a_box_of_a_given_length_has_its_variance_and_extent():
    """33 even points over L have the variance L^2/12 * 34/32; sharing a point between pixels adds at most 1/4."""
    for length in (5.0, 8.0, 11.0):
        kernel = blur.box_kernel(np.random.default_rng(0), length=(length, length), angle=(0, 0))
        assert 0 <= moments(kernel)[1][0, 0] - length**2 / 12 * 34 / 32 <= 0.25
        assert kernel[:10].sum() == kernel[11:].sum() == 0
        assert np.abs(PIXELS[kernel[10] > 0]).max() == np.ceil(length / 2)


def test_copies_are_as_many_equal_points_over_the_extent():
    kernel = blur.copies_kernel(np.random.default_rng(0), extent=(8, 8), copies=3, angle=(0, 0))
    expected = np.zeros((21, 21), np.float32)
    expected[10, [6, 10, 14]] = 1 / 3
    np.testing.assert_allclose(kernel, expected, atol=1e-7)


def test_sharpness_comes_and_goes():
    kernels = np.stack([blur.draw(np.random.default_rng(seed), {"kind": "sharpness"}) for seed in range(200)])
    masks = kernels.min((1, 2)) < 0
    assert 70 < masks.sum() < 130
    assert kernels[masks, 10, 10].min() > 1 and kernels[~masks, 10, 10].max() < 0.2
    mask = blur.draw(
        np.random.default_rng(0), {"kind": "sharpness", "share": 1, "amount": (2.0, 2.0), "halo": (1.5, 1.5)}
    )
    expected = -2 * blur.gaussian_kernel(1.5)
    expected[10, 10] += 3
    np.testing.assert_allclose(mask, expected, atol=1e-6)


def test_ranges_are_drawn_from_whole():
    extents = []
    for seed in range(300):
        kernel = blur.copies_kernel(np.random.default_rng(seed), extent=(6, 9), copies=2, angle=(0, 0))
        extents.append(2 * kernel[10] @ np.abs(PIXELS))
    assert 6 - 1e-3 <= min(extents) < 6.1 and 8.9 < max(extents) <= 9 + 1e-3


def test_fixed_filters():
    box = blur.box_filter_kernel(5)
    assert np.count_nonzero(box) == 5
    np.testing.assert_allclose(box[10, 8:13], 0.2, atol=1e-7)
    np.testing.assert_allclose(blur.box_filter_kernel(5, angle=90), box.T, atol=1e-7)
    np.testing.assert_allclose(blur.box_filter_kernel(4)[10, 8:13] * 4, [0.5, 1, 1, 1, 0.5], atol=1e-6)
    assert blur.box_filter_kernel(1)[10, 10] == 1
    np.testing.assert_allclose(moments(blur.gaussian_kernel(1.5))[1], np.eye(2) * 1.5**2, atol=1e-3)


@pytest.mark.parametrize("shape", [(68, 68, 3), (31, 50, 1), (21, 22, 3)])
def test_apply_equals_scipy(shape):
    rng = np.random.default_rng(0)
    image, kernel = rng.random(shape, np.float32), rng.random((21, 21), np.float32)
    kernel /= kernel.sum()
    expected = ndimage.convolve(image.astype(np.float64), kernel.astype(np.float64)[..., None], mode="mirror")
    blurred = blur.apply(image, kernel)
    assert blurred.dtype == np.float32
    np.testing.assert_allclose(blurred, expected, atol=1e-5)


def test_apply_takes_one_kernel_per_image_or_one_for_all():
    rng = np.random.default_rng(1)
    images, kernels = rng.random((3, 30, 40, 3), np.float32), rng.random((3, 21, 21), np.float32) / 220
    each = np.stack([blur.apply(image, kernel) for image, kernel in zip(images, kernels, strict=True)])
    np.testing.assert_allclose(blur.apply(images, kernels), each, atol=1e-6)
    np.testing.assert_allclose(blur.apply(images, kernels[0])[0], each[0], atol=1e-6)


def test_blur_is_a_convolution_so_an_impulse_returns_the_kernel():
    kernel = np.random.default_rng(2).random((5, 5), np.float32)
    impulse = np.zeros((11, 11, 1), np.float32)
    impulse[5, 5] = 1
    np.testing.assert_allclose(blur.apply(impulse, kernel)[3:8, 3:8, 0], kernel, atol=1e-6)


def test_blur_valid_is_the_inside_of_apply():
    rng = np.random.default_rng(3)
    image, kernel = rng.random((50, 47, 3), np.float32), blur.box_kernel(rng)
    inside = blur.blur_valid(image, kernel)
    assert inside.shape == (30, 27, 3)
    np.testing.assert_allclose(inside, blur.apply(image, kernel)[10:-10, 10:-10], atol=1e-6)


def test_a_constant_keeps_its_brightness():
    image = np.full((40, 33, 3), 0.7, np.float32)
    np.testing.assert_allclose(blur.apply(image, blur.copies_kernel(np.random.default_rng(4))), image, atol=1e-6)


def test_round8_clips_and_rounds():
    stored = blur.round8(np.array([-0.1, 0.0, 0.4 / 255, 0.6 / 255, 127.4 / 255, 1.0, 1.7]))
    assert stored.dtype == np.uint8 and stored.tolist() == [0, 0, 0, 1, 127, 255, 255]
    every = np.arange(256, dtype=np.uint8)
    assert (blur.round8(every.astype(np.float32) / 255) == every).all()


def test_draw_is_the_kernel_function_with_its_parameters():
    drawn = blur.draw(np.random.default_rng(5), {"kind": "copies", "extent": (10, 12), "copies": 2})
    called = blur.copies_kernel(np.random.default_rng(5), extent=(10, 12), copies=2)
    assert (drawn == called).all()


@pytest.mark.parametrize(
    ("spec", "nearest"),
    [
        ({"kind": "boxx"}, "'box'"),
        ({"kind": "copy"}, "'copies'"),
        ({"length": (5, 11)}, "known are .*box.*copies"),
        ({"kind": "box", "lenght": (5, 11)}, "'length'"),
        ({"kind": "box", "rng": 0}, "known are length, angle, size"),
    ],
)
def test_draw_names_the_nearest_known_word(spec, nearest):
    with pytest.raises(ValueError, match=nearest):
        blur.draw(np.random.default_rng(0), spec)


def test_errors_say_what_was_wanted():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="odd size"):
        blur.box_kernel(rng, size=20)
    with pytest.raises(ValueError, match="at least 25"):
        blur.box_kernel(rng, length=(24, 24), angle=(0, 0))
    with pytest.raises(ValueError, match="positive"):
        blur.gaussian_kernel(0)
    for image, kernel in [((8, 8), (3, 3)), ((8, 8, 3), (2, 3, 3)), ((8, 8, 3), (3, 5)), ((2, 8, 3), (3, 3))]:
        with pytest.raises(ValueError, match="wants"):
            blur.blur_valid(np.zeros(image, np.float32), np.zeros(kernel, np.float32))
