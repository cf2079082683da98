"""Piles of a generated camera from folders of photographs: no photograph in two parts, all of them accounted for."""

import hashlib
import json

import numpy as np
import pytest

from b2b_jax import images, levels
from b2b_jax.data import blur, domains, photographs
from b2b_jax.data.photographs import CAMERAS, Settings
from b2b_jax.data.processing import Processing
from b2b_jax.errors import UserError
from configs import default
from tools import photographs as tool

SMALL = {"side": 240, "shot": 64, "crop": 48, "crops": 3}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Nine photographs, of which two have one stem, the ninth again, and three pictures that are none."""
    folder = tmp_path_factory.mktemp("sources")
    for i in range(9):
        rng = np.random.default_rng(i)
        base = rng.integers(0, 256, (4, 6, 3)).repeat(60, 0).repeat(60, 1)
        photo = np.clip(base + rng.integers(-60, 60, base.shape), 0, 255).astype(np.uint8)
        images.write(folder / ("photo0.jpeg" if i == 1 else f"photo{i}.jpg"), photo)
    images.write(folder / "again.jpg", photo)
    images.write(folder / "drawn.png", photo)
    images.write(folder / "small.jpg", photo[:100, :100])
    images.write(folder / "logo.jpg", photo[::-1])
    return folder


@pytest.fixture(scope="module")
def made(sources, tmp_path_factory):
    output = tmp_path_factory.mktemp("made") / "burst"
    return output, photographs.make([sources], output, Settings(**SMALL, skip=("logo*",)))


def test_every_picture_is_accounted_for(sources, made):
    output, record = made
    assert json.loads((output / "manifest.json").read_text())["photographs"] == record["photographs"]
    entries = {entry["name"]: entry for entry in record["photographs"]}
    assert len(entries) == 13
    reasons = {name: entry["left_out"] for name, entry in entries.items() if "left_out" in entry}
    assert set(reasons) == {"drawn.png", "small.jpg", "logo.jpg", "photo8.jpg"}  # again.jpg came first
    assert reasons["photo8.jpg"] == "shows the same as another" and reasons["logo.jpg"] == "asked for"
    for name, entry in entries.items():
        assert entry["sha256"] == hashlib.sha256((sources / name).read_bytes()).hexdigest()


def test_no_photograph_is_in_two_parts(made):
    output, record = made
    parts = {part: {p.stem.rsplit("-", 1)[0] for p in (output / part).rglob("*.png")} for part in photographs.PARTS}
    assert sum(map(len, parts.values())) == len(set.union(*parts.values())) == 9
    for entry in record["photographs"]:
        if "part" in entry:
            assert entry["shots"] in parts[entry["part"]]


def test_test_crops_are_twins_under_their_kernels(made):
    test = made[0] / "test"
    kernels = np.load(test / "kernels.npz")
    names = [{p.stem for p in (test / kind).glob("*.png")} for kind in ("sharp", "blurry", "known_blurry")]
    assert names[0] == names[1] == names[2] == set(kernels.files) and len(names[0]) == 9
    for name in names[0]:
        sharp, blurry = (levels.to_float(images.read(test / kind / f"{name}.png")) for kind in ("sharp", "blurry"))
        assert sharp.shape == (48, 48, 3)
        again = blur.blur_valid(sharp, kernels[name])
        assert np.abs(np.clip(again, 0, 1) - blurry[10:-10, 10:-10]).max() <= 0.51 / 255


def test_equal_files_give_equal_piles(sources, made, tmp_path):
    photographs.make([sources], tmp_path, Settings(**SMALL, skip=("logo*",)))
    for path in made[0].rglob("*.png"):
        assert path.read_bytes() == (tmp_path / path.relative_to(made[0])).read_bytes()
    np.testing.assert_array_equal(np.load(tmp_path / "kernels.npy"), np.load(made[0] / "kernels.npy"))


def test_kernels_are_the_cameras(made):
    kernels = np.load(made[0] / "kernels.npy")
    assert kernels.shape == (photographs.KERNELS, 21, 21)
    np.testing.assert_allclose(kernels.sum((1, 2)), 1, atol=1e-5)
    peaks = (kernels > 0).sum((1, 2))
    assert peaks.min() >= 2 and peaks.max() <= 12  # two or three points, four pixels each


def test_a_camera_that_rolls_has_no_kernels(sources, tmp_path):
    photographs.make([sources], tmp_path, Settings(**SMALL, camera="roll"))
    assert len(list((tmp_path / "test" / "blurry").glob("*.png"))) == 9
    assert not [*tmp_path.rglob("kernels*")]


def test_blur_of_a_camera_that_rolls_grows_away_from_its_centre():
    camera = photographs.Camera(motion=CAMERAS["roll"].motion | {"about": (0.5, 0.5)})
    sharp = np.random.default_rng(0).random((181, 181, 3)).astype(np.float32)
    change = np.abs(camera.take(np.random.default_rng(1), sharp, None) / 255 - sharp[10:-10, 10:-10]).mean(-1)
    assert change[77:84, 77:84].mean() < 0.5 * change[:20, :20].mean()


@pytest.mark.parametrize("name", CAMERAS)
def test_cameras_repeat_themselves_and_change_the_photo(name):
    sharp = np.random.default_rng(0).random((60, 70, 3)).astype(np.float32)
    shots = []
    for _ in range(2):
        rng = np.random.default_rng(3)
        shots.append(CAMERAS[name].take(rng, sharp, CAMERAS[name].kernel(rng)))
    assert shots[0].shape == (40, 50, 3) and shots[0].dtype == np.uint8
    np.testing.assert_array_equal(*shots)
    assert np.abs(shots[0] / 255 - sharp[10:-10, 10:-10]).mean() > 0.02


def test_sharpening_and_noise_are_what_they_say():
    rng, grey = np.random.default_rng(0), np.full((80, 80, 3), 0.5, np.float32)
    camera = photographs.Camera((), Processing(noise=0.02))
    taken = camera.take(rng, grey, blur.box_filter_kernel(1)) / 255
    assert abs(taken.std() - 0.02) < 0.001 and abs(taken.mean() - 0.5) < 0.001
    edge = grey * (np.arange(80)[:, None] < 40)
    sharpened = photographs.Camera((), Processing(amount=(2.0, 2.0))).take(rng, edge, blur.box_filter_kernel(1))
    assert sharpened.max() > 160  # an edge overshoots


def test_too_few_photographs_are_refused(tmp_path):
    with pytest.raises(UserError, match="0 sharp photographs"):
        photographs.make([tmp_path], tmp_path / "out", Settings())


def test_the_tool_refuses_a_folder_in_use(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert tool.main([str(tmp_path), "--output", str(tmp_path)]) == 2
    assert tool.main([str(tmp_path), "--output", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err.count("is not an empty folder") == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--side", "240"), "unknown_blur, unknown_sharp, test got no shots"),
        (("--side", "0"), "--side is 0"),
        (("--side", "240", "--seed", "-1"), "--seed is -1"),
        (("--side", "240", "--soften", "nan"), "--soften nan"),
    ],
)
def test_the_tool_refuses_what_gives_no_photos(sources, tmp_path, capsys, options, said):
    assert tool.main([str(sources), "--output", str(tmp_path), *options]) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1


def test_the_tool_says_what_is_wrong_with_its_disk(sources, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert tool.main([str(sources), "--output", str(tmp_path / "file/out"), "--side", "240"]) == 2
    assert "Not a directory" in capsys.readouterr().err


def test_the_oracle_reads_the_known_blur(made):
    test, data = made[0] / "test", default.get_config().data
    data.update(test_blur=str(test / "blurry"), test_sharp=str(test / "sharp"), test_known=str(test / "known_blurry"))
    pairs = domains._own_test_pairs(data)
    assert len(pairs) == 9 and pairs.size(0)[1:] == (48, 48)
    record = pairs[4]
    twin = images.read(test / "known_blurry" / record["name"].split("/")[-1])
    np.testing.assert_array_equal(record["known_blurry"], twin)
    assert record["sharp"].shape == record["blurry"].shape == twin.shape
    data.test_known = str(made[0] / "unknown_sharp")
    with pytest.raises(UserError, match="lacks the twin"):
        domains._own_test_pairs(data)
