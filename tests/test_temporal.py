"""The warped difference of neighbouring frames: what it measures, which frames it compares, that it survives a kill."""

import importlib.util
import re

import numpy as np
import pytest
from helpers.scored import METHODS, Killed
from scipy import ndimage
from skimage import data

from b2b_jax import images, levels
from b2b_jax.data.photo import Photo
from b2b_jax.data.sources import ArraySource, Pairs
from b2b_jax.errors import UserError
from b2b_jax.evaluation import evaluate, protocols, scoring, summary, temporal
from b2b_jax.evaluation.scores import Clock
from b2b_jax.evaluation.scoring import Setup
from b2b_jax.evaluation.sheet import Sheet
from b2b_jax.stages.run import Run
from configs import demo

pytest.importorskip("cv2", reason="opencv-python-headless is not installed")
PHOTO = levels.to_float(data.astronaut()[60:220, 100:300])


def view(x: float, y: float = 0, h: int = 96, w: int = 128) -> np.ndarray:
    """Part of the photo, x and y pixels to the right and below; the scene moves to the left and up."""
    return ndimage.shift(PHOTO, (-y, -x, 0), order=3, mode="nearest")[20 : 20 + h, 20 : 20 + w].astype(np.float32)


def measured(frames, truths=None, names=None) -> list[float]:
    names = names or [f"clip/{i:04d}.png" for i in range(len(frames))]
    truths = frames if truths is None else truths
    return temporal.Neighbours("reds").measure(names, {"row": np.stack(frames)}, np.stack(truths))["row"].tolist()


# ----------------------------------------------------------------------------------------------------------- the number


def test_a_static_scene_does_not_differ():
    first, *others = measured([view(0)] * 3)
    assert np.isnan(first) and others == [0, 0]


@pytest.mark.parametrize(("x", "y"), [(7, 0), (-3, 5), (2.5, -1.25)])
def test_a_shift_is_undone(x, y):
    before, now = view(0), view(x, y)
    plain = 255 * np.abs(now - before).mean()
    _, warped = measured([before, now])
    smoothing = 0.2 if float(x).is_integer() else 1.5  # bilinear, of positions between pixels
    assert plain > 14 and warped < smoothing


@pytest.mark.parametrize("amplitude", [4, 10])
def test_flicker_is_its_amplitude(amplitude):
    truths = [view(3 * i, i) for i in range(4)]
    frames = [0.2 + 0.6 * truth + (i % 2) * amplitude / 255 for i, truth in enumerate(truths)]
    still = measured([0.2 + 0.6 * truth for truth in truths], truths)
    found = measured(frames, truths)
    np.testing.assert_allclose(found[1:], amplitude, atol=0.2)
    assert max(still[1:]) < 0.2


def test_what_appears_and_what_is_covered_do_not_count():
    """A square moves over a static ground: the ground that it uncovers was not seen before."""
    before, now = view(0), view(0)
    before[30:60, 30:60] = now[30:60, 42:72] = view(40, 40, 30, 30)[..., ::-1]
    moved = temporal.motion(now, before)
    uncovered = moved.seen[34:56, 33:39]
    assert uncovered.mean() < 0.5 and moved.seen[70:, :].mean() > 0.95 and moved.seen.mean() > 0.8
    whole = moved._replace(seen=np.ones_like(moved.seen))
    assert temporal.difference(now, before, moved) < temporal.difference(now, before, whole) / 2


def test_the_mean_is_over_what_is_seen_and_over_colours():
    rng = np.random.default_rng(0)
    frame, before = rng.random((2, 20, 30, 3)).astype(np.float32)
    x, y = np.meshgrid(np.arange(30, dtype=np.float32), np.arange(20, dtype=np.float32))
    seen = rng.random((20, 30)) < 0.3
    total = [abs(frame[i, j, c] - before[i, j, c]) for i, j in zip(*np.nonzero(seen), strict=True) for c in range(3)]
    assert temporal.difference(frame, before, temporal.Motion(x, y, seen)) == pytest.approx(255 * np.mean(total))
    assert np.isnan(temporal.difference(frame, before, temporal.Motion(x, y, seen & False)))


# --------------------------------------------------------------------------------------------------- which are compared


@pytest.mark.parametrize(
    ("before", "name", "wanted"),
    [
        ("val/val_blur/000/00000009.png", "val/val_blur/000/00000010.png", True),
        ("clip/frame9.jpg", "clip/frame10.png", True),
        ("test/GOPR0384_11_00/blur/000099.png", "test/GOPR0384_11_05/blur/000100.png", False),
        ("clip/0007.png", "clip/0009.png", False),
        ("clip/0007.png", "clip/0007.png", False),
        ("clip/0008.png", "clip/0007.png", False),
        ("clip/a1.png", "clip/b2.png", False),
        ("s/real_blur.png", "t/real_blur.png", False),
        ("", "clip/0001.png", False),
        ("clip.v2/0001", "clip.v2/0002", True),
    ],
)
def test_what_follows_is_the_next_number_of_the_same_folder(before, name, wanted):
    assert temporal.follows(name, before) is wanted


def test_frames_of_other_clips_other_sizes_and_of_no_video_are_not_compared():
    names = ["a/0001.png", "a/0002.png", "b/0003.png", "b/0005.png", "b/0006.png"]
    found = measured([view(0)] * 5, names=names)
    assert np.isnan(found).tolist() == [True, False, True, True, False]
    stream, (small, large) = temporal.Neighbours("reds"), (view(0)[None, :40, :40], view(0)[None])
    sizes = [small, small, large, large]
    values = [stream.measure([f"a/{i}.png"], {"row": x}, x)["row"][0] for i, x in enumerate(sizes)]
    assert np.isnan(values).tolist() == [True, False, True, False]
    tiny = view(0)[None, :8, :8].repeat(2, 0)
    assert np.isnan(stream.measure(["a/1.png", "a/2.png"], {"row": tiny}, tiny)["row"]).all()
    shots = temporal.Neighbours("realblur_j").measure(["a/1.png", "a/2.png"], {"row": tiny}, large.repeat(2, 0))
    assert np.isnan(shots["row"]).all()


def test_the_batch_before_is_run_again_only_where_its_last_frame_is_needed():
    names = [["a/0", "a/1"], ["a/2", "a/3"], ["b/0", "b/1"], ["b/2"], ["b/3"]]
    assert temporal.needed([False, True, False, False, True], names) == [True, True, False, True, True]
    assert temporal.needed([False, False, True, False, False], names) == [False, False, True, False, False]
    assert temporal.needed([False] * 5, names) == [False] * 5


# ------------------------------------------------------------------------------------------------------- the evaluation


class Clips(ArraySource):
    """Two clips of five and four frames, of a moving scene with noise and flicker."""

    def __init__(self):
        rng = np.random.default_rng(0)
        sharp = levels.to_uint8(np.stack([view(2 * i, 0, 40, 48) for i in range(9)]))
        noise = rng.normal(0, 5, sharp.shape) + 8 * (np.arange(9) % 2)[:, None, None, None]
        super().__init__("clips", blurry=(sharp + noise).clip(0, 255).round().astype(np.uint8), sharp=sharp)

    def __getitem__(self, index):
        return super().__getitem__(index) | {"name": self.size(index)[0]}

    def size(self, index):
        return f"{'a' if index < 5 else 'b'}/{index:04d}.png", 40, 48


MEASURE = protocols.make_measure(protocols.PROTOCOLS["standard"], {})


def scored(folder, methods=METHODS, dataset="reds", **changes):
    setup = Setup(Sheet(folder / "images.csv", ["psnr", "ssim", "temporal"]), Clock(), **({"batch": 2} | changes))
    return scoring.score(dataset, Clips(), methods, MEASURE, setup)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, scored(folder)


def test_every_row_has_its_mean_over_the_pairs(whole):
    values = np.array([whole[1].values[row]["temporal"] for row in METHODS])
    assert np.isnan(values).tolist() == [[True, *[False] * 4, True, *[False] * 3]] * 2
    assert (values[1] < values[0])[~np.isnan(values[0])].all()  # half of the flicker and noise
    rows, pairs = whole[1].rows(), values[0][~np.isnan(values[0])]
    assert rows["input"]["temporal"] == pytest.approx(pairs.mean())
    assert rows["input"]["temporal_error"] == pytest.approx(pairs.std(ddof=1) / np.sqrt(7))
    direct = temporal.Neighbours("reds").measure(
        ["a/0003.png", "a/0004.png"], {"row": METHODS["input"](stacked(3, 5))}, stacked(3, 5)["sharp"]
    )
    assert values[0][4] == pytest.approx(direct["row"][1], abs=1e-5)


def stacked(start, stop):
    records = [Clips()[i] for i in range(start, stop)]
    return {key: levels.to_float(np.stack([record[key] for record in records])) for key in ("blurry", "sharp")}


@pytest.mark.parametrize("batch", [1, 3])
def test_the_size_of_the_batch_changes_nothing(whole, tmp_path, batch):
    found = scored(tmp_path, batch=batch)
    for row in METHODS:
        np.testing.assert_allclose(found.values[row]["temporal"], whole[1].values[row]["temporal"], atol=1e-5)


@pytest.mark.parametrize("killed_at", [2, 5])
def test_a_killed_evaluation_ends_with_the_same_numbers(whole, tmp_path, killed_at):
    calls = []

    def half(photos):
        calls.append(1)
        if len(calls) == killed_at:
            raise Killed
        return METHODS["half"](photos)

    with pytest.raises(Killed):
        scored(tmp_path, METHODS | {"half": half})
    again = scored(tmp_path, METHODS | {"half": half})
    batches_left = 5 - (killed_at - 1)
    assert len(calls) == killed_at + batches_left + 1  # one is run again for its last frame
    np.testing.assert_equal(again.values, whole[1].values)
    assert (tmp_path / "images.csv").read_text() == (whole[0] / "images.csv").read_text()
    np.testing.assert_equal(scored(tmp_path, dict.fromkeys(METHODS)).values, again.values)  # nothing is left to run


def test_sets_that_are_no_videos_have_no_value(tmp_path):
    found = scored(tmp_path, dataset="photographs", images=2)
    assert np.isnan(found.values["input"]["temporal"]).all() and "temporal" not in found.rows()["input"]


# ------------------------------------------------------------------------------------------------------------- mistakes


def pairs(names, folder):
    for name in names:
        images.write(folder / name, np.zeros((16, 16, 3), np.uint8))
    return Pairs([Photo(folder / name, folder / name, "") for name in names])


def test_what_cannot_be_compared_is_told_before_anything_runs(tmp_path, monkeypatch):
    run = Run(demo.get_config("quick"), tmp_path)
    run.config.evaluation.metrics = ("temporal",)
    with pytest.raises(UserError, match="compares frames of videos, but the test photos are those of scenes"):
        evaluate.check(run)
    temporal.check("test", pairs(["a/1.png", "b/1.png", "b/2.png"], tmp_path))
    with pytest.raises(UserError, match=re.escape("no test photo follows another, such as")):
        temporal.check("test", pairs(["a/1.png", "a/3.png", "b/4.png"], tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs OpenCV: pip install opencv-python-headless"):
        temporal.check("reds", None)


def test_the_report_shows_it():
    values = {"psnr": 20.0, "psnr_error": 0.1, "temporal": 3.14159, "temporal_error": 0.011}
    rows = {"deblurrer": values, "blur2blur": values}
    notes = {"temporal": temporal.NOTE}
    table = summary.table({"dataset": "x", "images": 2, "rows": rows, "notes": notes, "protocol_text": "RGB"})
    assert table.columns[2] == "warped difference, grey levels" and table.rows[0][2] == "3.14 ± 0.01"
    assert "Warped difference: lower is steadier" in table.note
