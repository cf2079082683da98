"""Sharp frames near blurry ones: which are chosen, how they match, what is kept, and a deblurrer adapted to them."""

import importlib.util
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import jit
from helpers.networks import random_variables
from scipy import ndimage
from skimage import data

from b2b_jax import images, levels, models, weights
from b2b_jax.data import blur, matching, near_frames
from b2b_jax.errors import UserError
from b2b_jax.method import adaptation, supervised
from b2b_jax.stages import adaptation as stage
from b2b_jax.stages import camera, frames
from b2b_jax.stages.run import Run
from configs import default, demo

pytest.importorskip("cv2", reason="opencv-python-headless is not installed")
PHOTO = levels.to_float(data.astronaut()[40:260, 80:320])
COPIES = blur.draw(np.random.default_rng(0), {"kind": "copies", "extent": (5.0, 5.0), "copies": 2, "size": 21})
INSIDE = (slice(12, -12), slice(12, -12))


def view(turn: float = 0, zoom: float = 1, shift=(0.0, 0.0)) -> np.ndarray:
    """What a camera sees of the photo, turned by degrees, zoomed and shifted by pixels: (128, 160, 3)."""
    angle, centre = np.deg2rad(turn), np.array([110.0, 120.0])
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom
    offset = centre + shift - matrix @ np.array([64.0, 80.0])
    channels = [ndimage.affine_transform(PHOTO[..., c], matrix, offset, (128, 160), order=3) for c in range(3)]
    return np.stack(channels, -1).clip(0, 1)


def blurry(sharp: np.ndarray, kernel: np.ndarray = COPIES) -> np.ndarray:
    return blur.round8(blur.apply(sharp.astype(np.float32), kernel))


def psnr(x: np.ndarray, y: np.ndarray, where=...) -> float:
    return -10 * np.log10(np.square(levels.to_float(x) - y)[where].mean())


# --------------------------------------------------------------------------------------------------------- the matching


def test_a_blurry_frame_takes_the_nearest_of_the_sharpest():
    assert matching.choose([1, 9, 8, 1, 1, 1], near=2, sharper=1.5) == {0: 1, 3: 2, 4: 2}
    assert matching.choose([5, 1, 9, 1], near=2, sharper=1.5) == {0: 2, 1: 2, 3: 2}
    assert matching.choose([1, 1.4, -1, 1.6], near=1, sharper=1.5) == {}


@pytest.mark.parametrize("motion", [{"shift": (-2.5, 3.25)}, {"turn": 1.0, "zoom": 1.01, "shift": (1.0, -2.0)}])
def test_a_sharp_frame_is_moved_onto_a_blurry_one(motion):
    truth, sharp = view(), levels.to_uint8(view(**motion))
    found = matching.match(blurry(truth), sharp, 5.0)
    assert psnr(sharp, truth, INSIDE) < 23 and psnr(blurry(truth), truth, INSIDE) < 26
    assert psnr(found.sharp, truth, INSIDE) > 34 and found.kept[INSIDE].mean() > 0.97
    both = np.abs(found.kernel - np.pad(COPIES, 5)).sum() / 2
    assert both < 0.35  # total variation: two copies, not the Gaussian of the same sharpness


@pytest.mark.parametrize("distance", [8.0, 14.0])
def test_copies_far_apart_are_matched_or_known_not_to_be(distance):
    """A flow that takes one copy for the other leaves flat parts that agree, but hardly an edge."""
    kernel = {"kind": "copies", "extent": (distance, distance), "copies": 2, "angle": (30.0, 30.0), "size": 21}
    truth, sharp = view(), levels.to_uint8(view(shift=(-2.5, 3.25)))
    photo = blurry(truth, blur.draw(np.random.default_rng(0), kernel))
    found = matching.match(photo, sharp, 5.0)
    if distance > 8:
        assert found.edges(photo) < 0.2 and found.share(photo) == 0
    else:
        assert found.edges(photo) > 0.5 and found.share(photo) == found.kept.mean()
        assert psnr(found.sharp, truth, found.kept) > 33


def test_what_is_hidden_or_moves_otherwise_is_not_kept():
    truth, other = view(), view(shift=(2.0, -3.0))
    square = PHOTO[20:50, 150:180, ::-1]
    truth[50:80, 60:90] = other[50:80, 84:114] = square
    found = matching.match(blurry(truth), levels.to_uint8(other), 5.0)
    wrong = np.abs(levels.to_float(found.sharp) - truth).max(-1) > 0.15
    assert wrong[INSIDE].sum() > 100  # what the square hides in the sharp frame
    assert (wrong & found.kept)[INSIDE].sum() < 0.25 * wrong[INSIDE].sum() and found.kept[INSIDE].mean() > 0.8
    assert psnr(found.sharp, truth, found.kept) > psnr(found.sharp, truth, INSIDE) + 5


def test_of_other_scenes_next_to_nothing_is_kept():
    photo = blurry(view())
    assert matching.match(photo, data.coffee()[100:228, 200:360], 5.0).edges(photo) < 0.2


def test_frames_without_content_have_no_blur():
    grey = np.full((48, 48, 3), 128, np.uint8)
    found = matching.match(grey, grey, 5.0)
    assert found.kept.all() and found.kernel.argmax() == found.kernel.size // 2 and found.kernel.max() == 1


# ------------------------------------------------------------------------------------------------------------- on disk


def clips(folder, count: int = 2) -> None:
    """Clips of six frames, blurry but for the second and the fifth; one more shows another thing in every frame."""
    for clip in range(count):
        for i in range(6):
            sharp = view(shift=(2.0 * i - 5, 3.0 * clip - i))
            frame = levels.to_uint8(sharp) if i in (1, 4) else blurry(sharp)
            images.write(folder / f"clip{clip}" / f"{i:03d}.png", frame)
    for i, photo in enumerate([data.coffee()[:128, :160], data.chelsea()[:128, :160], data.rocket()[200:328, 200:360]]):
        frame = photo if i == 1 else blurry(levels.to_float(photo))
        images.write(folder / "others" / f"{i}.png", frame)


@pytest.fixture(scope="module")
def shots(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shots")
    clips(folder)
    return folder


def make_run(workdir, shots, **settings) -> Run:
    config = demo.get_config("quick")
    config.data.root = str(workdir.parent / "data")
    config.adaptation.update(teacher="frames", steps=4, crop=32)
    config.adaptation.frames.update({"folder": str(shots)} | settings)
    config.loop.update(log_every=2, evaluate_every=2, checkpoint_every=2)
    return Run(config, workdir)


def matched(run: Run) -> near_frames.Index:
    return near_frames.match(
        run.clips, run.workdir / "adaptation/frames", run.config.data, run.config.adaptation.frames
    )


def test_a_stopped_matching_resumes_and_a_finished_one_is_kept(tmp_path, shots, monkeypatch):
    whole, calls, once = matched(make_run(tmp_path / "whole", shots)), [], matching.match
    assert list(whole.kept) == [0, 2, 3, 5, 6, 8, 9, 11, *list(whole.kept)[8:]] and len(whole.sharpness) == 15

    def counted(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return once(*arguments)

    monkeypatch.setattr(matching, "match", counted)
    run = make_run(tmp_path / "run", shots)
    with pytest.raises(KeyboardInterrupt):
        matched(run)
    assert matched(run) == whole and len(calls) == len(whole.kept) + 1
    assert matched(run) == whole and len(calls) == len(whole.kept) + 1
    for file in (tmp_path / "whole/adaptation/frames").iterdir():
        assert (tmp_path / "run/adaptation/frames" / file.name).read_bytes() == file.read_bytes()


def test_records_are_frames_with_their_truth_and_what_is_kept(tmp_path, shots):
    run = make_run(tmp_path, shots)
    opened = frames.open_pairs(run)
    source = opened.supplies[0].source
    record = source[1]
    assert len(source) == 8 and record["name"] == str(shots / "clip0" / "002.png")
    assert set(np.unique(record["kept"])) == {0, 255} and record["kept"].shape == record["sharp"].shape
    assert psnr(record["sharp"], view(shift=(-1.0, -2.0)), record["kept"] > 0) > 32
    assert [*opened.supplies[1].names.values()] == ["known_blurry", "known_sharp"]


def test_a_broken_frame_is_named_and_passed_over(tmp_path, shots, capsys):
    clips(tmp_path / "shots", 1)
    (tmp_path / "shots/clip0/001.png").write_bytes(b"no photo")
    index = matched(make_run(tmp_path / "run", tmp_path / "shots"))
    assert index.sharpness[1] == near_frames.UNREADABLE and "clip0/001.png: not an image" in capsys.readouterr().out
    assert list(index.kept)[:4] == [0, 2, 3, 5]


def test_frames_to_score_on_are_left_out(tmp_path, shots, capsys):
    run = make_run(tmp_path / "run", shots)
    images.write(tmp_path / "test" / "0.png", images.read(shots / "clip0" / "000.png"))
    run.config.data.update(test_blur=str(tmp_path / "test"), test_sharp=str(tmp_path / "test"))
    assert len(run.clips.photos) == 14 and run.clips.photos[0].blurry == shots / "clip0" / "001.png"
    told = "adaptation.frames: left out of training, because they are test photos: 1 of 15"
    assert told in capsys.readouterr().out


# --------------------------------------------------------------------------------------------------------- the training


def test_pixels_without_truth_ask_for_nothing():
    x, y = jnp.full((1, 8, 8, 3), 0.25), jnp.ones((1, 8, 8, 3))
    kept = jnp.zeros((1, 8, 8, 3)).at[:, :, :4].set(1.0)
    slopes = jax.grad(lambda x: jnp.abs(jnp.subtract(*supervised.compared([x], y, kept)[0])).sum())(x)
    np.testing.assert_array_equal(slopes, -np.asarray(kept))
    scales = supervised.compared([x[:, ::4, ::4], x[:, ::2, ::2], x], y, kept)
    for values, pair in zip(((0.25, 1.0), (0.0, 0.0)), ((0, 1), (1, 2)), strict=True):
        for scale in scales:
            half = scale[0].shape[2] // 2
            part = [image[:, :, half * pair[0] : half * pair[1]] for image in scale]
            assert tuple(float(x.max()) for x in part) == tuple(float(x.min()) for x in part) == values


def test_matched_pairs_turn_together_and_known_ones_are_whole():
    config = demo.get_config("quick").adaptation
    config.update(augment=True, known=0.5)
    photo = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 3)).astype(np.uint8)
    known = np.zeros_like(photo)
    batch = {"blurry": photo, "sharp": photo, "kept": photo, "known_blurry": known, "known_sharp": known}
    y, w, kept = map(np.asarray, jit(adaptation.matched_pairs(config))({}, batch, jax.random.key(0)))
    old = np.all(y == 0, axis=(1, 2, 3))
    assert 8 < old.sum() < 24 and kept[old].min() == 1 and w[old].max() == 0
    np.testing.assert_array_equal(y[~old], w[~old])
    np.testing.assert_array_equal(y[~old], kept[~old])
    assert not np.allclose(y[~old], photo[~old] / 255)


def with_deblurrer(run: Run) -> Run:
    hyper = run.config.deblurrer.network.to_dict()
    module = models.create(**hyper)
    variables = random_variables(module, jnp.zeros((1, 32, 32, 3)))
    weights.save(run.workdir / "deblurrer.safetensors", hyper.pop("name"), hyper, variables)
    run.config.deblurrer.weights = str(run.workdir / "deblurrer.safetensors")
    return run


def test_a_deblurrer_is_adapted_to_frames(tmp_path, shots, capsys, monkeypatch):
    run = with_deblurrer(make_run(tmp_path / "run", shots))
    stage.check(run)
    stage.fit(run, lambda: None)
    said = capsys.readouterr().out
    told = r"adaptation: of 15 frames \d+ have a sharper one near by, 8 match it, 9\d % of their pixels"
    assert re.search(told, said)
    assert run.trained("adaptation") and not camera.needed(run) and stage.needed(run)
    rows = [json.loads(line) for line in (tmp_path / "run/adaptation/metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(row["loss"]) for row in rows if "loss" in row)
    first = (run.workdir / "adaptation/weights.safetensors").read_bytes()
    # Resumed from the checkpoint at half way: nothing is matched again, and the bits are the same.
    (run.workdir / "adaptation/weights.safetensors").unlink()
    for path in (run.workdir / "adaptation/checkpoints/4").rglob("*"):
        path.unlink() if path.is_file() else None
    monkeypatch.setattr(matching, "match", None)
    again = Run(run.config, run.workdir)
    stage.check(again)
    stage.fit(again, lambda: None)
    assert (run.workdir / "adaptation/weights.safetensors").read_bytes() == first


def test_too_few_matches_are_said_and_nothing_is_trained(tmp_path, capsys):
    clips(tmp_path / "shots", 1)
    run = with_deblurrer(make_run(tmp_path / "run", tmp_path / "shots"))
    stage.fit(run, lambda: None)
    assert re.search(
        r"adaptation: left out, of 9 frames \d have .* 4 match it; at least 8 must", capsys.readouterr().out
    )
    assert not run.trained("adaptation")


# ------------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"near": 0}, "adaptation.frames has near=0"),
        ({"sharper": 0.5}, "sharper=0.5"),
        ({"agreement": 0.0}, "agreement=0.0"),
        ({"least": 0.0}, "adaptation.frames.least is 0.0"),
        ({"folder": "nowhere"}, "adaptation.frames.folder is nowhere: no such folder"),
        ({"folder": ""}, "There are no frames to match; give a folder"),
    ],
)
def test_bad_settings_are_told(tmp_path, shots, settings, said):
    with pytest.raises(UserError, match=re.escape(said)):
        frames.check(make_run(tmp_path, shots, **settings))


def test_what_cannot_be_is_told_before_anything_is_matched(tmp_path, shots, monkeypatch):
    run = with_deblurrer(make_run(tmp_path / "run", shots))
    run.config.adaptation.teacher = "nobody"
    with pytest.raises(UserError, match=r"adaptation\.teacher is 'nobody'; it can be camera, frames"):
        stage.check(run)
    (tmp_path / "run/adaptation/checkpoints").mkdir(parents=True)
    matched(run)
    other = make_run(tmp_path / "run", shots, near=2)
    with pytest.raises(UserError, match="began its adaptation on other frames"):
        frames.check(other)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'b2b_jax\[frames\]'"):
        frames.check(run)


def test_frames_that_are_in_no_folder_of_their_video_are_refused(tmp_path, shots):
    with pytest.raises(UserError, match="no two frames in it are of one video; give videos, or a sub-folder of numb"):
        frames.check(make_run(tmp_path, shots / "clip0"))


def test_the_default_is_the_camera():
    assert default.get_config().adaptation.teacher == "camera"
