"""Input and result in one picture: what lies where, as it is seen; sizes, sound, colours and reruns."""

import av
import numpy as np
import pytest
from helpers.deblurring import RGB8, RGB16, _quick_compilation, call, listing, networks, write  # noqa: F401
from helpers.videos import ALL, UNEVEN, assert_same_pictures, make, pictures, read, rgb, same, seconds

from b2b_jax import images
from b2b_jax.inference import panels, photos, video
from b2b_jax.inference.photos import Photo

BOTH = slice(0, 6)


def darker(frames):
    """The networks' stand-in: half of every level, four frames at a time."""
    return (frame // 2 for frame in same(frames))


def beside(source, target, restore=darker, channels=BOTH) -> str:
    return video.convert(source, {target: channels}, panels.after_input(restore))


def seen(frame: av.VideoFrame) -> np.ndarray:
    """The frame as a player shows it, (h, w, 3)."""
    return np.rot90(rgb(frame), frame.rotation // 90)


# --------------------------------------------------------------------------------------------------------------- videos


@pytest.mark.parametrize("turn", [None, (90,), (180,), (-90,)])
def test_the_input_is_seen_on_the_left_and_the_result_on_the_right(tmp_path, turn):
    source, target = make(tmp_path / "a.mp4", turn=turn), tmp_path / "b.mp4"
    assert beside(source, target) == ""
    (first, heard, facts), (again, copied, kept) = read(source), read(target)
    assert copied == heard and len(heard) >= 20 and kept["rate"] == facts["rate"]
    assert seconds(again) == seconds(first) and len(again) == len(UNEVEN)
    for before, after in zip(first, again, strict=True):
        wanted, (left, right) = seen(before), np.split(seen(after), 2, axis=1)
        assert np.abs(left - wanted).mean() < 2 and np.abs(right - wanted / 2).mean() < 2


def test_of_a_mirrored_video_the_input_is_seen_on_the_left(tmp_path):
    beside(make(tmp_path / "a.mp4", turn=(0, True), sound=None), tmp_path / "b.mp4")
    frame = read(tmp_path / "b.mp4")[0][0]
    stored = np.split(rgb(frame), 2, axis=1)  # a player turns the right edge of it to the left
    assert stored[0].mean() * 1.8 < stored[1].mean()


def test_the_shift_that_brings_a_turned_frame_into_view_grows_with_it():
    quarter = [0, 1 << 16, 0, -(1 << 16), 0, 0, 48 << 16, 0, 1 << 30]  # seen x = 48 - y, seen y = x
    canvas = panels.canvas(64, 48, 3, quarter, swapped=True)
    assert (canvas.width, canvas.height) == (64, 144)
    assert canvas.matrix == [*quarter[:6], 144 << 16, 0, 1 << 30]
    assert panels.canvas(64, 48, 1, quarter, swapped=True).matrix == quarter
    assert panels.canvas(64, 48, 2, None).matrix is None


def test_the_shift_of_a_broken_matrix_stays_within_32_bits():
    broken = [1 << 16, 0, 0, 0, 1 << 16, 0, (1 << 31) - 1, -(1 << 31), 1 << 30]
    assert panels.canvas(64, 48, 2, broken).matrix == panels.canvas(64, 48, 1, broken).matrix == broken


def test_three_pictures_and_the_single_ones_come_of_one_pass(tmp_path):
    source, passes = make(tmp_path / "a.mp4"), []

    def chain(frames):
        passes.append(1)
        return (np.concatenate([frame // 2, 255 - frame], -1) for frame in frames)

    targets = {tmp_path / "dark.mp4": slice(3, 6), tmp_path / "negative.mp4": slice(6, 9)}
    targets |= {tmp_path / "all.mp4": slice(0, 9)}
    assert video.convert(source, targets, panels.after_input(chain)) == "" and passes == [1]
    first, *single, together = (read(path)[0] for path in (source, *targets))
    for before, *alone, all_three in zip(first, *single, together, strict=True):
        assert (all_three.width, all_three.height) == (3 * 64, 48)
        for part, wanted in zip(np.split(rgb(all_three), 3, axis=1), [before, *alone], strict=True):
            assert np.abs(part - rgb(wanted)).mean() < 2


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "libx264"), ("a.webm", "libvpx-vp9")])
def test_odd_sides(tmp_path, name, codec):
    source = make(tmp_path / name, pictures(47, 65), codec=codec, pixels="yuv444p", sound=None)
    beside(source, tmp_path / f"b{source.suffix}")
    first, again = (read(path)[0] for path in (source, tmp_path / f"b{source.suffix}"))
    assert (again[0].width, again[0].height) == (130, 47)
    for before, after in zip(first, again, strict=True):
        assert np.abs(rgb(after)[:, :65] - rgb(before)).mean() < 2
        assert np.abs(rgb(after)[:, 65:] - rgb(before) / 2).mean() < 2


@pytest.mark.parametrize("full", [False, True])
def test_colours_and_depth_stay(tmp_path, full):
    tags = {"color_range": 2 if full else 1, "colorspace": 9, "color_primaries": 9, "color_trc": 1}
    source = make(tmp_path / "a.mp4", pixels="yuv420p10le", sound=None, **tags)
    beside(source, tmp_path / "b.mp4", same)
    first, again = (read(path)[0] for path in (source, tmp_path / "b.mp4"))
    assert again[0].format.name == "yuv420p10le"
    assert [getattr(again[0], name) for name in tags] == [getattr(first[0], name) for name in tags]
    for before, after in zip(first, again, strict=True):
        for half in np.split(rgb(after), 2, axis=1):
            assert np.abs(half - rgb(before))[:, 4:-4].mean() < 1  # colours are shared across the seam


def test_what_no_decoder_plays_is_shrunk_and_that_is_said(tmp_path, monkeypatch):
    source = make(tmp_path / "a.mp4", sound=None)
    monkeypatch.setattr(panels, "MOST_PIXELS", 64 * 48)
    targets = {tmp_path / "b.mp4": slice(3, 6), tmp_path / "c.mp4": BOTH}
    note = video.convert(source, targets, panels.after_input(darker))
    assert note == "side by side at 71 % of its size, 90 x 34, to be playable"
    first, single, both = (read(path)[0] for path in (source, *targets))
    assert (both[0].width, both[0].height) == (90, 34)
    assert_same_pictures(read(source)[0][:1], first[:1])
    assert (single[0].width, single[0].height) == (64, 48)  # the result alone keeps its size
    assert abs(rgb(both[5])[:, :45].mean() - rgb(first[5]).mean()) < 2


def test_sizes_up_to_the_limit_are_kept():
    assert panels.canvas(1920, 1080, 3, None)[:2] == (5760, 1080) and not panels.canvas(1920, 1080, 3, None).note
    shrunk = panels.canvas(3840, 2160, 2, None)
    assert shrunk[:2] == (5606, 1576) and shrunk.note.startswith("side by side at 73 %")
    assert panels.canvas(7680, 4320, 1, None)[:2] == (7680, 4320)  # a video alone keeps its size
    assert max(panels.canvas(20_000, 100, 2, None)[:2]) <= panels.LONGEST_SIDE


def test_every_frame_stands_beside_its_own_result_whatever_is_read_ahead():
    frames = [np.full((2, 2, 3), level, np.uint8) for level in range(7)]
    found = list(panels.after_input(lambda frames: (frame + 100 for frame in list(frames)))(frames))
    assert [(x[0, 0, 0], x[0, 0, 3]) for x in found] == [(level, level + 100) for level in range(7)]


# ----------------------------------------------------------------------------------------------------- the command line


def test_photos_and_videos_from_the_command_line(call, networks, tmp_path):
    folder = tmp_path / "in"
    photo = write(folder / "a.png", np.concatenate([RGB8, RGB8[..., :1]], -1))
    clip = make(folder / "clip.mp4", [np.full((16, 32, 3), 90, np.uint8)] * 3, UNEVEN[:3])
    options = ["--translator", networks["identity"], "--keep-translated", "--side-by-side"]
    code, printed, errors = call(folder, model="nafnet", options=options)
    kinds = ("", "_side_by_side", "_translated")
    assert code == 0 and not errors and "2 written" in printed
    out = tmp_path / "out"
    assert listing(out) == sorted(f"{path.stem}{kind}{path.suffix}" for path in (photo, clip) for kind in kinds)
    parts = [photos.read(out / f"a{kind}.png") for kind in ("", "_translated", "_side_by_side")]
    result, translated, together = (np.concatenate([part.pixels, part.alpha[..., None]], -1) for part in parts)
    np.testing.assert_array_equal(together, np.concatenate([images_with_alpha(photo), translated, result], axis=1))
    assert np.abs(translated.astype(int) - result).mean() > 1
    with av.open(str(out / "clip_side_by_side.mp4")) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (96, 16)


def images_with_alpha(path) -> np.ndarray:
    photo = photos.read(path)
    return np.concatenate([photo.pixels, photo.alpha[..., None]], -1)


def test_it_is_added_to_results_that_exist_and_then_left_alone(call, tmp_path):
    clip = make(tmp_path / "clip.mp4", [np.full((16, 32, 3), 90, np.uint8)] * 3, UNEVEN[:3])
    photo, out = write(tmp_path / "a.png", RGB8), tmp_path / "out"
    assert call(clip, photo)[0] == 0
    for name in ("clip.mp4", "a.png"):
        (out / name).write_bytes(b"mine")
    assert call(clip, photo, options=["--side-by-side"])[0] == 0
    assert (out / "clip.mp4").read_bytes() == (out / "a.png").read_bytes() == b"mine"
    np.testing.assert_array_equal(images.read(out / "a_side_by_side.png"), np.concatenate([RGB8, RGB8], 1))
    for name in ("clip_side_by_side.mp4", "a_side_by_side.png"):
        (out / name).write_bytes(b"mine")
    code, printed, _ = call(clip, photo, options=["--side-by-side"])
    assert code == 0 and "2 skipped" in printed and (out / "clip_side_by_side.mp4").read_bytes() == b"mine"
    assert call(clip, photo, options=["--side-by-side", "--overwrite"])[0] == 0
    assert len(read(out / "clip_side_by_side.mp4")[0]) == 3


# --------------------------------------------------------------------------------------------------------------- photos


def test_a_photo_too_wide_for_its_format_has_its_pictures_one_upon_the_other(tmp_path):
    wide = np.random.default_rng(0).integers(0, 256, (2, 9000, 3), np.uint8)
    picture, note = panels.photo(Photo(wide), np.concatenate([wide, 255 - wide], -1), ".webp")
    photos.write(tmp_path / "a.webp", picture)
    np.testing.assert_array_equal(images.read(tmp_path / "a.webp"), np.concatenate([wide, 255 - wide], 0))
    assert note == "side by side is too wide for .webp: one upon the other"
    picture, note = panels.photo(Photo(wide), np.concatenate([wide, wide], -1), ".png")
    assert picture.pixels.shape == (2, 18_000, 3) and note == ""


def test_a_photo_of_16_bits_stays_so():
    picture, _ = panels.photo(Photo(RGB16, alpha=RGB16[..., 0]), np.concatenate([RGB16, RGB16], -1), ".png")
    assert picture.pixels.dtype == picture.alpha.dtype == np.uint16
    assert picture.alpha.shape == picture.pixels.shape[:2] == (RGB16.shape[0], 2 * RGB16.shape[1])
    np.testing.assert_array_equal(panels.photo(Photo(RGB8), RGB8, ".jpg")[0].pixels, RGB8)


def test_a_failing_network_leaves_nothing(tmp_path):
    source = make(tmp_path / "a.mp4", sound=None)

    def fail(frames):
        yield next(iter(frames))
        raise KeyboardInterrupt

    targets = {tmp_path / "out" / "b.mp4": ALL, tmp_path / "out" / "c.mp4": BOTH}
    with pytest.raises(KeyboardInterrupt):
        video.convert(source, targets, panels.after_input(fail))
    assert not list((tmp_path / "out").iterdir())
