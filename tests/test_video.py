"""Videos there and back: every frame restored, all else as it was."""

import itertools
import re
import threading
from fractions import Fraction
from pathlib import Path
from time import sleep

import av
import numpy as np
import pytest
from helpers.videos import ALL, RATE, TICK, UNEVEN, assert_same_pictures, make, pictures, read, rgb, same, seconds

from b2b_jax import clips
from b2b_jax.data import frames
from b2b_jax.inference import jobs, video, video_writer
from b2b_jax.inference.video import VideoError


def convert(source: Path, restore=same) -> Path:
    """Converts a clip to another of its container."""
    target = source.parent / "out" / f"copy{jobs.output_suffix(source)}"
    video.convert(source, {target: ALL}, restore)
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    return target


# --------------------------------------------------------------------------------------------------------- what is kept


@pytest.mark.parametrize(
    ("name", "codec", "sound"),
    [
        ("a.mp4", "libx264", "aac"),
        ("a.mov", "libx264", "pcm_s16le"),
        ("a.mkv", "libx264", "libopus"),
        ("a.webm", "libvpx-vp9", "libopus"),
    ],
)
def test_times_sound_rotation_and_title_are_kept(tmp_path, name, codec, sound):
    source = make(tmp_path / name, codec=codec, sound=sound, turn=(90,))
    (first, heard, facts), (again, copied, kept) = read(source), read(convert(source))
    assert_same_pictures(first, again)
    np.testing.assert_allclose(seconds(again), seconds(first), atol=1e-9)
    np.testing.assert_allclose(seconds(first), [float(t * TICK) for t in UNEVEN], atol=1e-3)
    assert len(heard) >= 20 and kept["audio"] == facts["audio"]
    assert copied == heard or (name == "a.mov" and b"".join(copied) == b"".join(heard))  # PCM has no packets of its own
    assert [f.rotation for f in again] == [90] * 10
    assert kept["rate"] == facts["rate"] == RATE and kept["metadata"]["title"] == "Ä clip"
    assert kept["codec"] == facts["codec"]


def test_durations_are_kept(tmp_path):
    source = make(tmp_path / "a.mp4", codec="mpeg4", sound=None)
    clips = [source, convert(source)]
    first, again = ([frame.duration for frame in read(clip)[0]] for clip in clips)
    assert again == first == [*np.diff(UNEVEN), 1001]
    lengths = []
    for clip in clips:
        with av.open(str(clip)) as container:
            lengths.append(container.duration)
    assert lengths == [15015 * TICK * av.time_base] * 2


@pytest.mark.parametrize("turn", [(180,), (0, True), (270, False, True)])
def test_turned_and_mirrored(tmp_path, turn):
    source = make(tmp_path / "a.mp4", turn=turn, sound=None)
    first, again = (read(path)[0][0] for path in (source, convert(source)))
    matrices = [clips.display_matrix(frame) for frame in (first, again)]
    assert matrices[0] == matrices[1] and matrices[0][:4] != [65536, 0, 0, 0]


SEEN = {  # by the turn, what a player makes of a stored frame
    None: lambda stored: stored,
    (90,): np.rot90,
    (180,): lambda stored: np.rot90(stored, 2),
    (270,): lambda stored: np.rot90(stored, 3),
    (0, True): np.fliplr,
}


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv444p", "yuv420p10le"])
@pytest.mark.parametrize("turn", SEEN)
def test_the_networks_get_upright_frames_and_the_video_is_stored_as_before(tmp_path, turn, pixels):
    source, given = make(tmp_path / "a.mp4", turn=turn, pixels=pixels, sound=None), []

    def darker_on_the_left(frames):
        for frame in frames:
            given.append(frame)
            yield np.where(np.arange(frame.shape[1])[:, None] < frame.shape[1] // 2, frame // 2, frame)

    first, again = (read(path)[0] for path in (source, convert(source, darker_on_the_left)))
    for before, seen, after in zip(first, given, again, strict=True):
        upright, written = SEEN[turn](rgb(before)), SEEN[turn](rgb(after))
        assert seen.flags["C_CONTIGUOUS"] and seen.shape == upright.shape
        assert np.abs(seen / (257 if seen.dtype == np.uint16 else 1) - upright).mean() < 1
        assert (after.width, after.height, after.rotation) == (before.width, before.height, before.rotation)
        left, right = np.s_[:, : upright.shape[1] // 2 - 2], np.s_[:, upright.shape[1] // 2 + 2 :]
        assert np.abs(written - upright / 2)[left].mean() < 2 and np.abs(written - upright)[right].mean() < 2


@pytest.mark.parametrize("matrix", [1, 5, 6, 9])
@pytest.mark.parametrize("full", [False, True])
def test_colour_tags_are_kept_and_colours_too(tmp_path, matrix, full):
    tags = {"color_range": 2 if full else 1, "colorspace": matrix, "color_primaries": matrix, "color_trc": 1}
    flat = [np.full((48, 64, 3), (200, 40, 90), np.uint8)] * 3
    source = make(tmp_path / "a.mp4", flat, UNEVEN[:3], sound=None, **tags)
    first, again = (read(path)[0][0] for path in (source, convert(source)))
    for name, value in tags.items():
        assert getattr(again, name) == getattr(first, name) == value, name
    for ours, theirs in zip(again.planes, first.planes, strict=True):
        levels = [np.frombuffer(bytes(plane), np.uint8)[0].astype(int) for plane in (ours, theirs)]
        assert abs(levels[0] - levels[1]) <= 1


def test_colours_that_cannot_become_rgb_are_named(tmp_path):
    source = make(tmp_path / "a.mp4", sound=None, colorspace=14)
    said = f"{source}: coded as ICtCp, which cannot become RGB (Operation not supported); convert it to BT.709 first"
    assert refused(source) == said
    files, fault = frames.extract(source, tmp_path / "cache", 1, 0, 0)
    assert files == [] and fault == said


def test_pixels_that_are_not_square(tmp_path):
    source = make(tmp_path / "a.mp4", sample_aspect_ratio=Fraction(4, 3))
    assert read(convert(source))[2]["aspect"] == read(source)[2]["aspect"] == Fraction(4, 3)


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "subrip"), ("a.mp4", "mov_text")])
def test_subtitles_are_kept(tmp_path, name, codec):
    text = b"\0\x05Hello" if codec == "mov_text" else b"Hello"
    with av.open(str(tmp_path / name), "w") as out:
        stream = out.add_stream("libx264", RATE, width=64, height=48, time_base=TICK)
        words = out.add_mux_stream(codec, time_base=Fraction(1, 1000))
        words.metadata["language"] = "swe"
        for time, frame in zip(UNEVEN, pictures(), strict=True):
            picture = av.VideoFrame.from_ndarray(frame, "rgb24")
            picture.pts, picture.time_base = time, TICK
            out.mux(stream.encode(picture))
        packet = av.Packet(text)
        packet.pts = packet.dts = 100
        packet.duration, packet.stream, packet.time_base = 200, words, Fraction(1, 1000)
        out.mux([packet, *stream.encode(None)])
    found = []
    for path in (tmp_path / name, convert(tmp_path / name)):
        with av.open(str(path)) as container:
            (words,) = container.streams.subtitles
            packets = [p for p in container.demux(words) if p.size and text[-5:] in bytes(p)]
            found.append((words.codec_context.name, words.language, [(bytes(p), p.pts, p.duration) for p in packets]))
    assert found[0] == found[1] and found[0][1] == "swe" and len(found[0][2]) == 1


def test_sound_of_a_kind_that_nobody_knows_is_left_out_and_named(tmp_path):
    source = tmp_path / "a.mp4"
    with av.open(str(source), "w") as out:
        stream = out.add_stream("libx264", 25, width=64, height=48)
        sound = out.add_mux_stream("mpegh_3d_audio", rate=48000)
        out.mux([p for frame in pictures(count=3) for p in stream.encode(av.VideoFrame.from_ndarray(frame))])
        packet = av.Packet(bytes(40))
        packet.pts = packet.dts = 0
        packet.duration, packet.stream, packet.time_base = 1024, sound, Fraction(1, 48000)
        out.mux([packet, *stream.encode(None)])
    note = video.convert(source, {tmp_path / "b.mp4": ALL}, same)
    assert note == "a stream of audio of unknown kind is left out"
    assert len(read(tmp_path / "b.mp4")[0]) == 3


def test_sound_that_a_container_cannot_hold_is_not_dropped_silently(tmp_path):
    source = make(tmp_path / "a.mkv", sound="aac")
    with pytest.raises(VideoError, match=r"cannot hold the audio of the input \(aac\); rename the input to \.mkv"):
        video.convert(source, {tmp_path / "b.webm": ALL}, same)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mkv"]


# ----------------------------------------------------------------------------------------------------- sizes and depths


@pytest.mark.parametrize("name", ["a.mkv", "a.webm"])
def test_odd_sides(tmp_path, name):
    codec, pixels = ("libvpx-vp9", "yuv420p") if name == "a.webm" else ("libx264", "yuv444p")
    source = make(tmp_path / name, pictures(47, 65), codec=codec, pixels=pixels, sound=None)
    assert_same_pictures(read(source)[0], read(convert(source))[0])


def test_ten_bits_stay_ten_bits(tmp_path):
    source = make(tmp_path / "a.mp4", pixels="yuv420p10le", sound=None)
    dtypes = set()

    def look(frames):
        for frame in frames:
            dtypes.add(frame.dtype)
            yield frame

    first, again = (read(path)[0] for path in (source, convert(source, look)))
    assert dtypes == {np.dtype(np.uint16)} and again[0].format.name == "yuv420p10le"
    assert_same_pictures(first, again, 1.0)


def test_what_is_lost_is_said(tmp_path):
    source = make(tmp_path / "a.mkv", codec="ffv1", pixels="yuv420p10le", sound=None)
    assert video.convert(source, {tmp_path / "b.mkv": ALL}, same) == ""
    assert video.convert(source, {tmp_path / "b.webm": ALL}, same) == "its 10 bits became 8"


@pytest.mark.parametrize(
    ("codec", "pixels", "said"),
    [
        ("ffv1", "yuv444p", "its 4:4:4 pictures became 4:2:0"),
        ("ffv1", "yuv422p10le", "its 4:2:2 pictures became 4:2:0"),
        ("ffv1", "bgr0", "its RGB pictures became 4:2:0"),
        ("ffv1", "gray", ""),
        ("mpeg4", "yuv420p", ""),
    ],
)
def test_fewer_colours_are_said(tmp_path, codec, pixels, said):
    source = make(tmp_path / "a.mkv", codec=codec, pixels=pixels, sound=None)
    assert video.convert(source, {tmp_path / "b.mkv": ALL}, same) == said


def test_other_containers_become_matroska(tmp_path):
    source = make(tmp_path / "a.avi", codec="mpeg4", sound="libmp3lame", times=range(0, 10010, 1001))
    target = convert(source)
    (first, heard, _), (again, copied, facts) = read(source), read(target)
    assert target.suffix == ".mkv" and facts["codec"] == "h264" and facts["audio"] == ["mp3float"]
    assert_same_pictures(first, again)
    assert copied == heard
    np.testing.assert_allclose(seconds(again), seconds(first), atol=1e-3)


def test_a_stream_without_times(tmp_path):
    source = make(tmp_path / "a.h264", sound=None, times=range(0, 10010, 1001))
    target = tmp_path / "b.mp4"
    video.convert(source, {target: ALL}, same)
    assert len(set(np.diff([f.pts for f in read(target)[0]]))) == 1 and len(read(target)[0]) == 10


# ------------------------------------------------------------------------------------------------- what networks change


def test_two_videos_of_one(tmp_path):
    source = make(tmp_path / "a.mp4")
    targets = {tmp_path / "light.mp4": slice(0, 3), tmp_path / "dark.mp4": slice(3, 6)}
    video.convert(source, targets, lambda frames: (np.concatenate([f, f // 2], -1) for f in frames))
    first, light, dark = (read(path) for path in (source, *targets))
    assert_same_pictures(first[0], light[0])
    assert np.abs(rgb(dark[0][5]) - rgb(first[0][5]) / 2).mean() < 2
    assert light[1] == dark[1] == first[1]
    assert seconds(dark[0]) == seconds(first[0])


def test_frames_are_counted(tmp_path):
    even = range(0, 10010, 1001)
    assert video.count_frames(make(tmp_path / "a.mp4", times=even, sound=None)) == 10
    assert video.count_frames(make(tmp_path / "a.mkv", times=even, sound=None)) == 10


# -------------------------------------------------------------------------------------------------------------- refused


def refused(source: Path, restore=same, on_error: str = "skip") -> str:
    """The reason why a clip is not converted; nothing is left of it."""
    folder = source.parent / "out"
    with pytest.raises(VideoError) as error:
        video.convert(source, {folder / "b.mp4": ALL}, restore, on_error)
    assert not folder.exists() or not list(folder.iterdir())
    message = str(error.value)
    assert message.startswith(str(source)) and "\n" not in message
    return message


def cut(path: Path, share: float, count: int = 30) -> Path:
    """A clip of `count` frames of noise whose file is cut off."""
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (48, 64, 3), np.uint8) for _ in range(count)]
    codec = "mpeg4" if path.suffix == ".avi" else "libx264"
    options = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
    times = range(0, 1001 * count, 1001)
    make(path, frames, times, codec=codec, sound=None, options=options, bit_rate=2_000_000)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
@pytest.mark.parametrize("share", [0.5, 0.8])
def test_what_is_cut_off_is_counted_and_the_rest_done(tmp_path, name, share):
    source = cut(tmp_path / name, share)
    assert "cut off at" in refused(source, on_error="stop")
    target = tmp_path / "out" / "b.mkv"
    note = video.convert(source, {target: ALL}, same)
    done, missing, count = len(read(target)[0]), *map(int, re.findall(r"(\d+) of (\d+) frames are missing", note)[0])
    assert 30 * share - 3 <= done <= 30 * share + 1 and "\n" not in note
    assert done + missing == count and abs(count - 30) <= (name == "a.avi")


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_every_whole_frame_before_the_cut_is_kept(tmp_path, share):
    source = cut(tmp_path / "a.mp4", share)
    with av.open(str(source)) as container:
        whole = sum(not packet.is_corrupt for packet in container.demux(video=0) if packet.size)
    first = read(cut(tmp_path / "whole.mp4", 1.0))[0][:whole]
    assert f"{30 - whole} of 30 frames" in video.convert(source, {tmp_path / "b.mp4": ALL}, same)
    assert seconds(read(tmp_path / "b.mp4")[0]) == seconds(first) and whole >= 5


def test_a_reader_that_fails_midway_leaves_the_frames_before(tmp_path, monkeypatch):
    source, every = cut(tmp_path / "a.mp4", 1.0), clips.packets

    def failing(*args, **kwargs):
        yield from itertools.islice(every(*args, **kwargs), 12)
        raise av.InvalidDataError(1, "bad sector")

    monkeypatch.setattr(video, "packets", failing)
    assert "broken at 0.4 s (bad sector)" in refused(source, on_error="stop")
    note = video.convert(source, {tmp_path / "b.mp4": ALL}, same)
    assert "broken at 0.4 s (bad sector), what comes after it is missing" in note
    assert len(read(tmp_path / "b.mp4")[0]) == 12


def test_no_header(tmp_path):
    source = make(tmp_path / "a.mp4")
    source.write_bytes(source.read_bytes()[:-1000])  # where the table of all frames is
    assert "truncated or broken" in refused(source)


def test_what_is_no_video(tmp_path):
    (tmp_path / "a.mp4").write_text("text")
    assert "no video" in refused(tmp_path / "a.mp4")
    assert "no such file" in refused(tmp_path / "none.mp4")
    with av.open(str(tmp_path / "sound.mp4"), "w") as out:
        audio = out.add_stream("aac", 48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 960), np.float32), "fltp", "stereo")
        frame.sample_rate = 48000
        out.mux([*audio.encode(frame), *audio.encode(None)])
    assert "no pictures" in refused(tmp_path / "sound.mp4")


def test_a_failing_network_leaves_nothing(tmp_path):
    source = make(tmp_path / "a.mp4")

    def fail(frames):
        yield next(iter(frames))
        raise KeyboardInterrupt

    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        video.convert(source, {tmp_path / "out" / "b.mp4": ALL}, fail)
    assert not list((tmp_path / "out").iterdir()) and threading.active_count() == threads


def test_a_failing_encoder_leaves_nothing(tmp_path, monkeypatch):
    source, threads = make(tmp_path / "a.mp4"), threading.active_count()

    def fail(self, frame):
        raise VideoError("full")

    monkeypatch.setattr(video_writer.Writer, "_encode", fail)
    with pytest.raises(VideoError, match="full"):
        video.convert(source, {tmp_path / "out" / "b.mp4": ALL}, same)
    assert not list((tmp_path / "out").iterdir()) and threading.active_count() == threads


def test_frames_are_decoded_and_encoded_meanwhile(tmp_path, monkeypatch):
    """The network waits for the second frame while it holds the first, the encoder for the network to go on."""
    source, decoded, going_on = make(tmp_path / "a.mp4", sound=None), threading.Event(), threading.Event()
    time, add, counts = clips.Clock.time, video_writer.Writer.frame, []

    def count(self, frame):
        counts.append(1)
        if len(counts) > 1:
            decoded.set()
        return time(self, frame)

    def restore(frames):
        for frame in frames:
            assert decoded.wait(60)
            yield frame
            going_on.set()

    monkeypatch.setattr(clips.Clock, "time", count)
    monkeypatch.setattr(video_writer.Writer, "frame", lambda *args: add(*args) if going_on.wait(60) else None)
    assert_same_pictures(read(source)[0], read(convert(source, restore))[0])


def test_few_frames_are_held_at_once(tmp_path, monkeypatch):
    source = make(tmp_path / "a.mp4", pictures(count=40), range(0, 40040, 1001), sound=None)
    time, add, decoded, encoded, held = clips.Clock.time, video_writer.Writer.frame, [], [], []

    def count(self, frame):
        decoded.append(1)
        held.append(len(decoded) - len(encoded))
        return time(self, frame)

    def slow(self, *args):
        sleep(0.005)
        add(self, *args)
        encoded.append(1)

    monkeypatch.setattr(clips.Clock, "time", count)
    monkeypatch.setattr(video_writer.Writer, "frame", slow)
    convert(source, lambda frames: frames)
    assert max(held) <= 2 * video.AHEAD + 4 and len(encoded) == len(decoded) == 40  # and one in every hand


def test_without_the_encoder(tmp_path, monkeypatch):
    source = make(tmp_path / "a.mp4")
    monkeypatch.setattr(av, "codecs_available", {"mpeg4"})
    with pytest.raises(VideoError, match="no encoder libx264; one of `pip install av` has"):
        video.convert(source, {tmp_path / "b.mp4": ALL}, same)
