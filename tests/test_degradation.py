"""Cameras and degradations, against slow references and the laws they are made from."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from b2b_jax import images
from b2b_jax.data import blur, degradation, domains, pipeline, sensor
from b2b_jax.data.sources import Photos
from b2b_jax.data.synthetic import Degraded, averages
from b2b_jax.errors import UserError
from configs import default

PHOTO = np.random.default_rng(0).random((24, 30, 3)).astype(np.float32)


def smooth(seed=0, size=(40, 48)):
    """A photo without noise of its own."""
    image = np.random.default_rng(seed).random((*size, 3)).astype(np.float32)
    return np.clip(blur.apply(image, blur.gaussian_kernel(3.0)) * 3 - 1, 0, 1)


# -------------------------------------------------------------------------------------------------------------- kernels


def test_a_weighted_line_is_a_slow_sum_over_its_points():
    """Horizontal, of 5 points, weights falling in a line to 0: centroid a third of the way."""
    arguments = {"width": (5, 5), "angle": (0, 0), "direction": (1, 1)}
    kernel = blur.draw(np.random.default_rng(0), {"kind": "weighted_line", **arguments})
    weights = np.array([4, 3, 2, 1, 0]) / 10
    centroid = sum(weights * np.arange(5))
    expected = np.zeros(21)
    for x, weight in zip(np.arange(5) - centroid, weights, strict=True):
        left = int(np.floor(x))
        expected[10 + left] += weight * (1 - (x - left))
        expected[10 + left + 1] += weight * (x - left)
    np.testing.assert_allclose(kernel[10], expected, atol=1e-6)
    assert abs(kernel.sum() - 1) < 1e-6 and kernel[:10].sum() == 0


def test_an_even_weighted_line_is_the_box_filter():
    arguments = {"width": (7, 7), "angle": (30, 30), "direction": (0, 0)}
    kernel = blur.draw(np.random.default_rng(0), {"kind": "weighted_line", **arguments})
    np.testing.assert_allclose(kernel, blur.box_filter_kernel(7, angle=30), atol=1e-6)


def test_a_trajectory_reaches_at_most_half_its_length_and_bends():
    def reach(kernel):
        rows, columns = np.nonzero(kernel)
        return np.hypot(rows - 10, columns - 10).max()

    elongations = []
    for seed in range(50):
        kernel = blur.draw(np.random.default_rng(seed), {"kind": "trajectory", "length": (16, 16)})
        assert reach(kernel) <= 8 + np.sqrt(2)
        rows, columns = np.indices((21, 21)) - 10
        covariance = [[(kernel * a * b).sum() for a in (rows, columns)] for b in (rows, columns)]
        small, large = np.linalg.eigvalsh(covariance)
        elongations.append(small / large)
    assert min(elongations) < 0.05 and max(elongations) > 0.3


def test_a_trajectory_without_chance_is_a_straight_line():
    still = {"jitter": 0.0, "shake": 0.0, "pull": 0.0, "length": (12, 12)}
    kernel = blur.draw(np.random.default_rng(3), {"kind": "trajectory", **still})
    rows, columns = np.indices((21, 21)) - 10
    covariance = [[(kernel * a * b).sum() for a in (rows, columns)] for b in (rows, columns)]
    small, large = np.linalg.eigvalsh(covariance)
    assert small < 0.26 and abs(large - 12**2 / 12) < 0.5  # an even line's variance; pixels add at most 1/4


def slow_trajectory(rng: np.random.Generator, length: float, jitter: float, shake: float, pull: float) -> np.ndarray:
    """The path of Boracchi and Foi, step by step, in numbers that are not complex: (128, 2), about its mean."""
    speed, angle = length / 127, 2 * np.pi * rng.random()
    places, step = [np.zeros(2)], speed * np.array([np.cos(angle), np.sin(angle)])
    for _ in range(127):
        places.append(places[-1] + step)
        abrupt = np.zeros(2)
        if rng.random() < shake:
            angle = np.pi + rng.uniform(-0.5, 0.5)
            turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            abrupt = 2 * turn @ step
        step = step + abrupt + speed * (jitter * rng.standard_normal(2) - pull * places[-1])
        step = step * speed / np.hypot(*step)
    return places - np.mean(places, axis=0)


@pytest.mark.parametrize(("jitter", "shake", "pull"), [(0.1, 0.02, 0.02), (0.0, 0.2, 0.0), (0.1, 0.0, 0.3)])
def test_a_trajectory_is_jolted_turned_and_pulled_back_step_by_step(jitter, shake, pull):
    spec = {"kind": "trajectory", "length": (14, 14), "jitter": jitter, "shake": shake, "pull": pull}
    for seed in range(5):
        rng = np.random.default_rng(seed)
        path = slow_trajectory(rng, rng.uniform(14, 14), jitter, shake, pull)
        np.testing.assert_allclose(blur.draw(np.random.default_rng(seed), spec), blur.splat(path, 21), atol=1e-6)


@pytest.mark.parametrize("radius", [0.4, 1.0, 2.7, 6.2])
def test_a_disk_covers_its_area(radius):
    kernel = blur.draw(np.random.default_rng(0), {"kind": "disk", "radius": (radius, radius)})
    fine = 64
    expected = np.zeros((21, 21))
    for row in range(21):
        for column in range(21):
            y, x = np.mgrid[0:fine, 0:fine] / fine + 0.5 / fine
            expected[row, column] = np.mean((row - 10.5 + y) ** 2 + (column - 10.5 + x) ** 2 <= radius**2)
    assert abs(expected.sum() - np.pi * radius**2) < 0.02 * radius
    np.testing.assert_allclose(kernel, expected / expected.sum(), atol=0.01 * expected.max() / expected.sum() + 1e-4)
    np.testing.assert_allclose(kernel, kernel.T)
    np.testing.assert_allclose(kernel, kernel[::-1])


def test_a_gaussian_has_its_covariance():
    spec = {"kind": "gaussian", "sigma": (2.5, 2.5), "ratio": (0.4, 0.4), "angle": (30, 30)}
    kernel = blur.draw(np.random.default_rng(0), spec)
    y, x = 10 - np.indices((21, 21))[0], np.indices((21, 21))[1] - 10
    covariance = np.array([[(kernel * a * b).sum() for a in (x, y)] for b in (x, y)])
    turn = np.array([[np.cos(np.pi / 6), -np.sin(np.pi / 6)], [np.sin(np.pi / 6), np.cos(np.pi / 6)]])
    np.testing.assert_allclose(covariance, turn @ np.diag([2.5**2, 1.0]) @ turn.T, atol=0.02)
    round_one = blur.draw(np.random.default_rng(0), {"kind": "gaussian", "sigma": (1.5, 1.5)})
    np.testing.assert_allclose(round_one, blur.gaussian_kernel(1.5), atol=1e-7)


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ({"kind": "disk", "radius": (30, 30)}, "does not fit into 21 px"),
        ({"kind": "disk", "radius": (0, 0)}, "0 < radius"),
        ({"kind": "gaussian", "sigma": (0, 0)}, "positive sigma"),
        ({"kind": "trajectory", "length": (60, 60), "jitter": 0, "shake": 0, "pull": 0}, "at least"),
        ({"kind": "weighted_line", "width": (40, 40)}, "at least"),
        ({"kind": "disk", "size": 20}, "odd size"),
    ],
)
def test_what_does_not_fit_says_so(spec, wanted):
    with pytest.raises(ValueError, match=wanted):
        blur.draw(np.random.default_rng(0), spec)


# --------------------------------------------------------------------------------------------------------------- camera


@pytest.mark.parametrize("name", sensor.RESPONSES)
def test_a_response_and_its_inverse(name):
    respond, light = sensor.RESPONSES[name]
    x = np.linspace(0, 1, 1001)
    np.testing.assert_allclose(respond(light(x)), x, atol=1e-6)
    assert respond(0.0) == 0 and abs(respond(1.0) - 1) < 1e-12 and (np.diff(respond(x)) > 0).all()


def test_srgb_is_the_standards():
    """Points of IEC 61966-2-1: 8-bit values and their light."""
    for value, light in ((10, 0.0030353), (11, 0.0033465), (128, 0.2158605), (188, 0.5028865), (255, 1.0)):
        assert abs(float(sensor.srgb_light(value / 255)) - light) < 1e-6


@pytest.mark.parametrize("name", sensor.RESPONSES)
def test_averages_of_frames_are_made_as_light(name):
    frames = np.random.default_rng(1).random((5, 4, 6, 3))
    found = sensor.average_frames(frames, name)
    for row, column, channel in np.ndindex(4, 6, 3):
        values = frames[:, row, column, channel]
        if name == "gamma":
            wanted = np.mean([v**2.2 for v in values]) ** (1 / 2.2)
        elif name == "linear":
            wanted = np.mean(values)
        else:
            wanted = float(sensor.srgb_response(np.mean([float(sensor.srgb_light(v)) for v in values])))
        assert abs(found[row, column, channel] - wanted) < 1e-9
    assert (found >= frames.min(0) - 1e-9).all() and (found <= frames.max(0) + 1e-9).all()


def test_saturation_is_restored_where_frames_were_clipped():
    frames = np.full((4, 1, 3, 1), 0.5)
    frames[:2, 0, 1] = 1.0
    frames[:, 0, 2] = 1.0
    found = sensor.saturate(np.full((1, 3, 1), 0.25), frames, strength=0.5)
    np.testing.assert_allclose(found[0, :, 0], [0.25, 0.25 + 0.5 * 2 / 4, 0.25 + 0.5])
    assert sensor.saturate(np.full((1, 3, 1), 0.9), frames, strength=1.5).max() == 1


def test_the_mosaic_is_red_green_green_blue():
    image = np.random.default_rng(2).random((5, 7, 3))
    raw = sensor.mosaic(image)
    for row, column in np.ndindex(5, 7):
        channel = {(0, 0): 0, (0, 1): 1, (1, 0): 1, (1, 1): 2}[row % 2, column % 2]
        assert raw[row, column] == image[row, column, channel]


def test_demosaicing_is_the_mean_of_the_nearest_of_each_channel():
    raw = np.random.default_rng(3).random((8, 10))
    found = sensor.demosaic(raw)
    seen = lambda row, column: {(0, 0): 0, (0, 1): 1, (1, 0): 1, (1, 1): 2}[row % 2, column % 2]  # noqa: E731
    for row in range(1, 7):
        for column in range(1, 9):
            for channel in range(3):
                if seen(row, column) == channel:
                    wanted = raw[row, column]
                else:
                    near = [
                        raw[r, c]
                        for r in range(row - 1, row + 2)
                        for c in range(column - 1, column + 2)
                        if seen(r, c) == channel and (channel != 1 or abs(r - row) + abs(c - column) == 1)
                    ]
                    wanted = np.mean(near)
                assert abs(found[row, column, channel] - wanted) < 1e-9


def test_a_grey_mosaic_is_a_grey_photo_to_its_borders():
    np.testing.assert_allclose(sensor.demosaic(np.full((7, 9), 0.3)), 0.3, atol=1e-12)


def test_noise_has_its_mean_variance_and_shape():
    rng, shot, read = np.random.default_rng(4), 1e-3, 5e-3
    for x in (0.0, 0.01, 0.5):
        found = sensor.add_noise(rng, np.full(200_000, x), shot, read)
        assert abs(found.mean() - x) < 4 * np.sqrt((shot * x + read**2) / 200_000)
        assert abs(found.var() / (shot * x + read**2) - 1) < 0.03
    assert stats.kstest(sensor.add_noise(rng, np.zeros(10_000), shot, read) / read, "norm").pvalue > 1e-3


def test_a_photo_of_grey_without_noise_is_that_grey():
    silent = sensor.Sensor(shot=(1e-12, 1e-12), read=(0.0, 0.0))
    for level in (0.0, 0.2, 0.9):
        found = sensor.photograph(np.random.default_rng(5), sensor.srgb_light(np.full((8, 8, 3), level)), silent)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, level, atol=1e-4)


def test_a_smooth_photo_survives_a_camera_without_noise():
    silent, photo = sensor.Sensor(shot=(1e-12, 1e-12), read=(0.0, 0.0)), 0.2 + 0.5 * smooth()
    found = sensor.photograph(np.random.default_rng(6), sensor.srgb_light(photo), silent)
    assert np.abs(found - photo).mean() < 0.01


def test_realistic_blur_of_frames_is_their_average_but_for_noise_and_highlights():
    frames = np.stack([np.roll(0.2 + 0.5 * smooth(), shift, axis=1) for shift in range(5)])
    silent = sensor.Sensor(shot=(1e-12, 1e-12), read=(0.0, 0.0))
    found = sensor.realistic_blur(np.random.default_rng(7), frames, silent)
    assert np.abs(found - sensor.average_frames(frames, "srgb"))[:, 5:].mean() < 0.01
    frames[:, 8:14, 20:26] = 1.0
    bright = sensor.realistic_blur(np.random.default_rng(7), frames, silent)
    assert bright[9:13, 21:25].min() > 0.999


# --------------------------------------------------------------------------------------------------------- degradations


@pytest.mark.parametrize("kind", degradation.DEGRADATIONS)
def test_a_degradation_is_a_function_of_its_generator(kind):
    photo, degrade = smooth(), degradation.DEGRADATIONS[kind]
    before = photo.copy()
    first, again, other = (degrade(np.random.default_rng(seed), photo) for seed in (1, 1, 2))
    assert (photo == before).all() and first.dtype == np.float32 and first.shape == photo.shape
    assert first.min() >= 0 and first.max() <= 1
    assert (first == again).all() and (first != other).any()


@pytest.mark.parametrize("kind", degradation.DEGRADATIONS)
def test_a_degradation_blurs_and_keeps_the_photo_in_its_place(kind):
    bars = np.indices((64, 64))[1] // 8 % 2
    photo = 0.1 + 0.8 * bars[..., None].repeat(3, -1).astype(np.float32)
    results = [degradation.DEGRADATIONS[kind](np.random.default_rng(seed), photo) for seed in range(12)]
    edges = [np.abs(np.diff(np.median(result, axis=0), axis=0)).max() for result in [photo, *results]]
    assert np.median(edges[1:]) < 0.75 * edges[0]
    mean = np.mean(results, axis=0)
    shifts = {shift: np.corrcoef(np.roll(photo, shift, 1).ravel(), mean.ravel())[0, 1] for shift in range(-3, 4)}
    assert max(shifts, key=shifts.get) == 0


def test_noise_is_of_its_strength_whatever_its_kind():
    found, kinds = [], set()
    for seed in range(60):
        noise = degradation.gaussian_noise(np.random.default_rng(seed), np.full((40, 40, 3), 0.5)) - 0.5
        correlation = np.corrcoef(noise.reshape(-1, 3).T)[np.triu_indices(3, 1)]
        kinds.add("one" if (correlation > 0.999).all() else "white" if np.abs(correlation).max() < 0.12 else "mixed")
        found.append(noise.std() / np.random.default_rng(seed).uniform(*degradation.NOISE))
    assert kinds == {"one", "white", "mixed"}
    np.testing.assert_allclose(found, 1, atol=0.12)


def test_jpeg_is_pillows():
    photo = smooth()
    quality = int(np.random.default_rng(9).integers(30, 96))
    file = io.BytesIO()
    Image.fromarray(np.rint(photo * 255).astype(np.uint8)).save(file, "JPEG", quality=quality)
    wanted = np.asarray(Image.open(io.BytesIO(file.getvalue()))) / 255
    np.testing.assert_allclose(degradation.jpeg(np.random.default_rng(9), photo), wanted, atol=1e-6)


def test_bsrgan_shuffles_its_steps(monkeypatch):
    calls, orders = [], set()
    for name in ("gaussian_noise", "jpeg", "rephotograph"):
        monkeypatch.setattr(degradation, name, lambda rng, x, name=name: calls.append(name) or x)
    monkeypatch.setattr(blur, "apply", lambda x, kernel: calls.append("blur") or x)
    for seed in range(40):
        calls.clear()
        degradation.bsrgan(np.random.default_rng(seed), PHOTO)
        assert calls.count("blur") == 3 and calls.count("gaussian_noise") == 1 and calls[-1] == "jpeg"
        assert calls.count("jpeg") in (1, 2) and calls.count("rephotograph") in (0, 1)
        orders.add(tuple(calls))
    assert len(orders) > 15


# ---------------------------------------------------------------------------------------------------- pairs from photos


def test_a_degraded_crop_is_cut_from_a_larger_one():
    photo = blur.round8(smooth(size=(50, 60)))
    found = pipeline.DegradedCrop(16, "realistic").random_map({"image": photo, "name": "x"}, np.random.default_rng(5))
    rng = np.random.default_rng(5)
    larger = pipeline.Crop(36).random_map({"image": photo, "name": "x"}, rng)["image"]
    wanted = blur.round8(degradation.realistic(rng, larger.astype(np.float32) / 255))
    np.testing.assert_array_equal(found["sharp"], larger[10:26, 10:26])
    np.testing.assert_array_equal(found["blurry"], wanted[10:26, 10:26])


def write_photos(folder, scenes=6, photos=8):
    for scene in range(scenes):
        for index in range(photos):
            images.write(folder / f"{scene}" / f"{index}.png", np.full((40, 44, 3), 20 * scene + index, np.uint8))


def degraded_config(tmp_path, kind):
    config = default.get_config()
    config.data.update(root=str(tmp_path), known="degraded", known_path=str(tmp_path / "sharp"))
    config.data.degradation.update(kind=kind, frames=3)
    return config


@pytest.mark.parametrize("kind", degradation.DEGRADATIONS)
def test_pairs_are_made_of_sharp_photos(tmp_path, kind):
    write_photos(tmp_path / "sharp")
    known = domains.open_known(degraded_config(tmp_path, kind))
    assert len(known.train) == 40 and len(known.validation) == 8
    element = pipeline.stream(known.train, known.crop(16), 0)[0]
    assert element["sharp"].shape == element["blurry"].shape == (1, 16, 16, 3)
    assert abs(element["blurry"].mean() - element["sharp"].mean()) < 30
    assert all((known.validation[2][key] == known.validation[2][key]).all() for key in ("blurry", "sharp"))
    assert {known.train[i]["image"][0, 0, 0] // 20 for i in range(40)}.isdisjoint(
        {known.validation[i]["sharp"][0, 0, 0] // 20 for i in range(8)}
    )


def test_pairs_are_averages_of_neighbouring_frames(tmp_path):
    write_photos(tmp_path / "sharp")
    known = domains.open_known(degraded_config(tmp_path, "frames"))
    assert len(known.train) == 10 and len(known.validation) == 2  # two runs of three in each scene of eight
    record = known.train[1]
    middle = int(record["sharp"][0, 0, 0])
    assert middle % 20 == 4 and record["name"].endswith("4.png")
    wanted = np.mean([((middle + step) / 255) ** 2.2 for step in (-1, 0, 1)]) ** (1 / 2.2)
    assert (record["blurry"] == round(wanted * 255)).all()
    with pytest.raises(UserError, match="fewer than two scenes of 9 frames"):
        config = degraded_config(tmp_path, "frames")
        config.data.degradation.frames = 9
        domains.open_known(config)


def test_neighbouring_frames_may_be_exposed_realistically(tmp_path):
    write_photos(tmp_path / "sharp")
    known = domains.open_known(degraded_config(tmp_path, "realistic_frames"))
    record = known.train[1]
    assert record["sharp"][0, 0, 0] % 20 == 4 and (known.train[1]["blurry"] == record["blurry"]).all()
    assert 0 < record["blurry"].std() < 20 and abs(record["blurry"].mean() - record["sharp"].mean()) < 10


def test_frames_of_two_sizes_are_refused(tmp_path):
    for index, width in enumerate((8, 8, 9)):
        images.write(tmp_path / f"{index}.png", np.zeros((8, width, 3), np.uint8))
    source = averages([[tmp_path / f"{index}.png" for index in range(3)]], "frames", "gamma", 0)
    assert source.size(0) == (str(tmp_path / "1.png"), 8, 8)
    with pytest.raises(UserError, match=r"0\.png and the 2 frames after it differ in size"):
        source[0]


def test_large_photos_are_degraded_in_their_centre(tmp_path):
    images.write(
        tmp_path / "a.png", np.arange(1100, dtype=np.uint16).astype(np.uint8)[:, None, None].repeat(30, 1).repeat(3, 2)
    )
    source = Degraded(Photos([tmp_path / "a.png"]), "realistic", 0)
    assert source.size(0)[1:] == source[0]["sharp"].shape[:2] == source[0]["blurry"].shape[:2] == (1024, 30)
    assert source[0]["sharp"][0, 0, 0] == 38


def test_the_cameras_own_sharp_photos_serve_where_no_folder_is_given(tmp_path):
    config = default.get_config()
    config.data.update(root=str(tmp_path), known="degraded", unknown="scenes")
    config.data.scenes.update(size=48, blur=2, sharp=20, validation=2, test=2)
    config.data.degradation.kind = "imgaug"
    known, sharp = domains.open_known(config), domains.open_unknown(config).sharp
    assert (len(known.train), len(known.validation)) == (19, 1)
    assert (known.train[3]["image"] == sharp[3]["image"]).all()
    assert (known.validation[0]["sharp"] == sharp[19]["image"]).all()
    assert (known.validation[0]["blurry"] != sharp[19]["image"]).any()
    config.data.degradation.kind = "frames"
    with pytest.raises(UserError, match=r"kind=frames averages the frames of data\.known_path"):
        domains.open_known(config)


def test_imgaugs_blur_is_a_line_of_any_angle():
    point = np.zeros((41, 41, 3), np.float32)
    point[20, 20] = 1
    ratios = []
    for seed in range(30):
        line = degradation.imgaug(np.random.default_rng(seed), point)[..., 0]
        y, x = np.indices(line.shape) - 20
        assert abs(line.sum() - 1) < 1e-3 and abs((line * x).sum()) < 0.01 and abs((line * y).sum()) < 0.01
        moments = np.linalg.eigvalsh([[(line * a * b).sum() for a in (x, y)] for b in (x, y)])
        ratios.append(moments[0] / moments[1])
        assert moments[1] < 15**2 / 11
    assert np.median(ratios) < 0.05
