"""Folders of one's own: photos, videos and their frames, and the report on the two piles."""

import json
import re
import shutil

import av
import numpy as np
import pytest
from helpers.trees import write

from b2b_jax import images, prepare, record
from b2b_jax.data import domains, folder, frames, prepared, survey
from b2b_jax.data.photo import Photo, read
from b2b_jax.data.sharpness import laplacian_variance
from b2b_jax.errors import UserError
from b2b_jax.method.curriculum import laplacian_variance as curriculum_variance
from configs import camera

VIDEOS = {"every": 1, "limit": 0, "thin": 0.0}


def write_video(path, levels, size=(16, 24), turn=()):
    """A video without losses; a frame is grey of its level, but for a white top left corner.

    turn: arguments of set_display_rotation.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(path, "w") as container:
        codec, pixels = ("png", "rgb24") if path.suffix == ".mov" else ("ffv1", "bgr0")
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = *size, pixels
        if turn:
            stream.set_display_rotation(*turn)
        for level in levels:
            image = np.full((*size, 3), level, np.uint8)
            image[: size[0] // 2, : size[1] // 2] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def levels_of(files):
    return [int(images.read(path)[-1, -1, 0]) for path in files]


# --------------------------------------------------------------------------------------------------------------- videos


@pytest.mark.parametrize(
    ("every", "limit", "wanted"),
    [(1, 0, range(0, 100, 10)), (3, 0, [0, 30, 60, 90]), (4, 2, [0, 40]), (1, 50, range(0, 100, 10)), (20, 0, [0])],
)
def test_each_nth_frame_up_to_the_limit(tmp_path, every, limit, wanted):
    video = write_video(tmp_path / "clip.mkv", range(0, 100, 10))
    files, fault = frames.extract(video, tmp_path / "cache", every, limit, thin=0.0)
    assert levels_of(files) == list(wanted) and fault == ""
    assert [int(path.stem) * 10 for path in files] == list(wanted)


def test_frames_that_repeat_the_last_kept_one_are_thinned(tmp_path):
    video = write_video(tmp_path / "clip.mkv", [10, 10, 11, 12, 13, 50, 50, 10])
    for thin, wanted in ((0.0, [10, 10, 11, 12, 13, 50, 50, 10]), (1.5, [10, 12, 50, 10]), (300.0, [10])):
        assert levels_of(frames.extract(video, tmp_path / "cache", 1, 0, thin)[0]) == wanted


def test_frames_are_written_once_and_again_when_the_video_changes(tmp_path):
    video = write_video(tmp_path / "clip.mkv", [1, 2, 3])
    files, _ = frames.extract(video, tmp_path / "cache", 1, 0, 0.0)
    times = [path.stat().st_mtime_ns for path in files]
    again, _ = frames.extract(video, tmp_path / "cache", 1, 0, 0.0)
    assert again == files and [path.stat().st_mtime_ns for path in again] == times
    write_video(video, [7, 8, 9, 10])
    assert levels_of(frames.extract(video, tmp_path / "cache", 1, 0, 0.0)[0]) == [7, 8, 9, 10]


def test_what_an_earlier_version_made_of_a_video_is_not_used(tmp_path, monkeypatch):
    video = write_video(tmp_path / "clip.mkv", [1, 2, 3])
    for path in frames.extract(video, tmp_path / "cache", 1, 0, 0.0)[0]:
        images.write(path, np.zeros((16, 24, 3), np.uint8))
    assert levels_of(frames.extract(video, tmp_path / "cache", 1, 0, 0.0)[0]) == [0, 0, 0]
    monkeypatch.setattr(frames, "VERSION", frames.VERSION + 1)
    assert levels_of(frames.extract(video, tmp_path / "cache", 1, 0, 0.0)[0]) == [1, 2, 3]


def test_a_stopped_extraction_is_gone_on_with(tmp_path, monkeypatch):
    video = write_video(tmp_path / "clip.mkv", range(0, 60, 10))
    write_image, written = images.write, []

    def failing(path, image):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path)
        write_image(path, image)

    monkeypatch.setattr(images, "write", failing)
    with pytest.raises(KeyboardInterrupt):
        frames.extract(video, tmp_path / "cache", 1, 0, 0.0)
    times = {path: path.stat().st_mtime_ns for path in written}
    monkeypatch.setattr(images, "write", write_image)
    files, fault = frames.extract(video, tmp_path / "cache", 1, 0, 0.0)
    assert levels_of(files) == list(range(0, 60, 10)) and fault == ""
    assert {path: path.stat().st_mtime_ns for path in files[:3]} == times


TURNED = {
    (0,): lambda frame: frame,
    (90,): np.rot90,
    (180,): lambda frame: frame[::-1, ::-1],
    (-90,): lambda frame: np.rot90(frame, -1),
    (0, True): np.fliplr,
    (0, False, True): np.flipud,
}


@pytest.mark.parametrize("turn", TURNED)
def test_a_frame_is_turned_as_its_video_says(tmp_path, turn):
    (plain,), _ = frames.extract(write_video(tmp_path / "a.mov", [60]), tmp_path / "cache", 1, 0, 0.0)
    (turned,), _ = frames.extract(write_video(tmp_path / "b.mov", [60], turn=turn), tmp_path / "cache", 1, 0, 0.0)
    np.testing.assert_array_equal(images.read(turned), TURNED[turn](images.read(plain)))


def test_a_video_that_breaks_off_gives_what_it_holds_and_one_that_is_none_a_line(tmp_path):
    whole = write_video(tmp_path / "in" / "a.mkv", range(0, 200, 5), size=(64, 96))
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (tmp_path / "in" / "b.mp4").write_text("not a video")
    found, faults = folder.photos(tmp_path / "in", tmp_path / "cache", **VIDEOS)
    assert 5 < len(found) < 40 and levels_of(p.blurry for p in found) == list(range(0, 5 * len(found), 5))
    assert re.fullmatch(rf"{whole}: cut off at .* s, about {40 - len(found)} of 40 frames are missing", faults[0])
    other = tmp_path / "in" / "b.mp4"
    assert (
        faults[1].startswith(f"{other}: no video, truncated or broken") and "\n" not in faults[1] and len(faults) == 2
    )
    assert folder.photos(tmp_path / "in", tmp_path / "cache", **VIDEOS) == (found, faults)


# -------------------------------------------------------------------------------------------------------------- folders


def write_mixed(root):
    """Photos beside and below two sub-folders, and a video in one of them."""
    for name, level in (("top.png", 1), ("other.png", 2), ("day/1.png", 3), ("day/2.png", 4), ("day/deep/1.jpg", 5)):
        write(root / name, level)
    write_video(root / "day" / "walk.mkv", [60, 70], size=(4, 4))


def test_photos_and_videos_nested_and_flat(tmp_path):
    write_mixed(tmp_path / "shots")
    found, faults = folder.photos(tmp_path / "shots", tmp_path / "cache", **VIDEOS)
    assert faults == []
    scenes = {int(read(photo.blurry)[-1, -1, 0]): photo.scene for photo in found}
    assert scenes == {
        1: "top.png",
        2: "other.png",
        3: "day",
        4: "day",
        5: "day/deep",
        60: "day/walk.mkv",
        70: "day/walk.mkv",
    }


def own_config(tmp_path, **keys):
    config = camera.get_config()
    config.data.root = str(tmp_path / "data")
    config.data.update(unknown_blur=str(tmp_path / "shots"), unknown_sharp=str(tmp_path / "clear"), **keys)
    config.data.videos.update(VIDEOS)
    return config


def test_videos_are_piles_too(tmp_path):
    write_video(tmp_path / "shots" / "a.mkv", [10, 20, 30])
    write_video(tmp_path / "clear" / "b.mkv", [40, 50])
    unknown = domains.open_unknown(own_config(tmp_path))
    assert [unknown.blur[i]["image"][-1, -1, 0] for i in range(3)] == [10, 20, 30]
    assert len(unknown.sharp) == 2 and len(list((tmp_path / "data" / "frames").iterdir())) == 2


@pytest.mark.parametrize("policy", ["skip", "stop"])
def test_a_broken_video_is_skipped_or_stops(tmp_path, capsys, policy):
    write_mixed(tmp_path / "shots")
    write_mixed(tmp_path / "clear")
    (tmp_path / "shots" / "broken.mov").write_text("not a video")
    config = own_config(tmp_path, bad_photos=policy)
    if policy == "stop":
        with pytest.raises(UserError, match=r"broken\.mov: no video, truncated or broken .*data\.bad_photos=skip"):
            domains.open_unknown(config)
    else:
        assert len(domains.open_unknown(config).blur) == 7
        assert "skipped: " in capsys.readouterr().out


def test_a_prepared_folder_is_a_pile(tmp_path):
    for name in ("shots", "clear"):
        write_mixed(tmp_path / name)
        arguments = ["--every", "1", "--limit", "0", "--thin", "0", "--output", f"{tmp_path}/packed/{name}"]
        assert prepare.main(["folder", "--source", f"{tmp_path}/{name}", *arguments]) == 0
    raw = domains.open_unknown(own_config(tmp_path))
    config = own_config(tmp_path)
    config.data.update(unknown_blur=f"{tmp_path}/packed/shots", unknown_sharp=f"{tmp_path}/packed/clear")
    packed = domains.open_unknown(config)
    assert prepared.exists("folder", tmp_path / "packed" / "shots") and len(packed.blur) == len(raw.blur) == 7
    for index in range(7):
        np.testing.assert_array_equal(packed.blur[index]["image"], raw.blur[index]["image"])
    assert [p.scene for p in packed.piles["unknown_blur"]] == [p.scene for p in raw.piles["unknown_blur"]]


def test_a_folder_without_photos_is_refused_by_the_tool(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for source, wanted in (("empty", "no photos in"), ("nowhere", "no such folder")):
        assert prepare.main(["folder", "--source", f"{tmp_path}/{source}", "--output", f"{tmp_path}/o"]) == 2
        assert wanted in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------------ sharpness


def test_sharpness_is_that_of_the_curriculum_and_of_its_definition():
    image = np.random.default_rng(0).integers(0, 256, (9, 11, 3)).astype(np.uint8)
    x = image.astype(np.float64).mean(-1) / 255
    inner = [
        x[r - 1, c] + x[r + 1, c] + x[r, c - 1] + x[r, c + 1] - 4 * x[r, c] for r in range(1, 8) for c in range(1, 10)
    ]
    found = laplacian_variance(image)
    assert abs(found - np.var(inner)) < 1e-5
    assert abs(found - float(curriculum_variance(image[None].astype(np.float32) / 255)[0])) < 1e-5
    assert laplacian_variance(np.zeros((1, 1, 3), np.uint8)) == 0


def write_piles(tmp_path, blur_noise, sharp_noise, scenes=12, photos=10):
    rng = np.random.default_rng(0)
    for name, noise in (("shots", blur_noise), ("clear", sharp_noise)):
        for scene in range(scenes):
            for index in range(photos):
                image = np.clip(128 + noise * rng.standard_normal((8, 8 + scene % 2, 3)), 0, 255).astype(np.uint8)
                images.write(tmp_path / name / f"{scene}" / f"{index}.png", image)


def test_the_report_counts_and_finds_nothing_to_warn_of(tmp_path):
    write_piles(tmp_path, blur_noise=3, sharp_noise=30)
    report = survey.survey(domains.open_unknown(own_config(tmp_path)).piles)
    assert report["warnings"] == []
    pile = report["unknown_sharp"]
    assert (pile["photos"], pile["scenes"], pile["sizes"]) == (120, 12, {"8x8": 60, "9x8": 60})
    sharpness = pile["laplacian_variance"]
    assert sum(sharpness["counts"]) == sharpness["photos"] == 120 and len(sharpness["edges"]) == 13
    middle = np.searchsorted(sharpness["edges"], sharpness["quartiles"][1]) - 1
    assert np.argmax(sharpness["counts"]) == middle
    first, second = survey.lines(json.loads(json.dumps(report)))
    assert first.startswith("unknown_blur: 120 photos of 12 scenes; sizes of those looked at: 8x8 (60), 9x8 (60)")
    assert second.startswith("unknown_sharp")


def test_the_report_warns(tmp_path):
    write_piles(tmp_path, blur_noise=30, sharp_noise=30, scenes=2, photos=3)
    (tmp_path / "clear" / "1" / "broken.png").write_text("not a photo")
    piles = dict(domains.open_unknown(own_config(tmp_path)).piles)
    piles["unknown_sharp"] = [*piles["unknown_sharp"], piles["unknown_blur"][0]]
    report = survey.survey(piles)
    wanted = ["unknown_blur has only 6 photos", "unknown_blur has only 2 scenes", "unknown_sharp has only 8 photos"]
    wanted += ["unknown_sharp has only 2 scenes", "as sharp as unknown_sharp", "share 1 photos, such as"]
    assert len(report["warnings"]) == 6 == len(survey.lines(report)) - 2
    assert all(any(words in line for line in report["warnings"]) for words in wanted)
    assert report["unknown_sharp"]["laplacian_variance"]["photos"] == 7


def test_a_pile_without_a_readable_photo_is_described_too(tmp_path):
    piles = {name: [Photo(tmp_path / f"{name}.png", None, "s")] for name in ("unknown_blur", "unknown_sharp")}
    assert survey.survey(piles)["unknown_blur"]["laplacian_variance"]["quartiles"] == []


def test_main_reports_once(tmp_path, capsys):
    write_piles(tmp_path, blur_noise=3, sharp_noise=30, scenes=2, photos=2)
    for _ in range(2):
        record.write_camera(domains.open_unknown(own_config(tmp_path)), tmp_path / "run")
    assert capsys.readouterr().out.count("unknown_blur: 4 photos of 2 scenes") == 1
    report = tmp_path / "run" / "data_report.json"
    assert json.loads(report.read_text())["unknown_blur"]["photos"] == 4


def test_a_pile_that_changes_is_reported_again(tmp_path, capsys):
    write_piles(tmp_path, blur_noise=3, sharp_noise=30, scenes=2, photos=2)
    record.write_camera(domains.open_unknown(own_config(tmp_path)), tmp_path / "run")
    photos = [photo.blurry for photo in domains.open_unknown(own_config(tmp_path)).piles["unknown_blur"]]
    photos[0].rename(photos[0].with_name("other.png"))
    capsys.readouterr()
    for _ in range(2):
        record.write_camera(domains.open_unknown(own_config(tmp_path)), tmp_path / "run")
    told = capsys.readouterr().out
    assert told.count("unknown_blur has changed: 4 → 4 photos since it was last reported.") == 1
    assert "unknown_sharp has changed" not in told


def test_photos_to_score_on_are_left_out_of_training(tmp_path, capsys):
    """A folder of them within the pile, and a copy elsewhere under another name."""
    write_piles(tmp_path, blur_noise=3, sharp_noise=30, scenes=2, photos=2)
    config = own_config(tmp_path)
    piles = domains.open_unknown(config).piles
    for key in ("test_blur", "test_sharp"):
        config.data[key] = str(tmp_path / key)
        (tmp_path / key).mkdir()
    (tmp_path / "test_blur" / "a.png").symlink_to(piles["unknown_blur"][1].blurry)
    shutil.copyfile(piles["unknown_sharp"][0].blurry, tmp_path / "test_sharp" / "a.png")
    kept = domains.open_unknown(config).piles
    assert kept["unknown_blur"] == [piles["unknown_blur"][i] for i in (0, 2, 3)]
    assert kept["unknown_sharp"] == piles["unknown_sharp"][1:]
    assert "unknown_blur: left out of training, because they are test photos: 1 of 4" in capsys.readouterr().out
    config.data.update(test_blur=config.data.unknown_blur, test_sharp=config.data.unknown_blur)
    with pytest.raises(UserError, match="All photos of the pile unknown_blur are test photos, too"):
        domains.open_unknown(config)
