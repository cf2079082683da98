"""Videos as cameras, discs and editors make them: clocks, sound, tags, chapters, what is lost, and what is no video."""

import os
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from PIL import Image

from b2b_jax import clips, images
from b2b_jax.clips import VideoError
from b2b_jax.data import frames
from b2b_jax.inference import hdr, jobs, joins, streams, video

H, W = 48, 64
ALL = slice(0, 3)


def picture(index: int) -> np.ndarray:
    y, x = np.mgrid[:H, :W]
    return np.stack([x * 3, y * 4, np.full_like(x, index * 15 % 256)], -1).astype(np.uint8)


def make(
    path, times=range(8), base=Fraction(1, 30), codec="libx264", pixels="yuv420p", sound="", setup=None, extra=0, **more
):
    """Writes a clip; `setup` gets the container and the stream of pictures before the first frame.

    A frame has a thirtieth of a second of sound, and `extra` thirtieths come after the last.
    """
    with av.open(str(path), "w", **more) as out:
        stream = out.add_stream(codec, rate=30, width=W, height=H, pix_fmt=pixels, time_base=base)
        if setup:
            setup(out, stream)
        audio = out.add_stream(sound, rate=48000, layout="stereo") if sound else None
        for index, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(index), "rgb24")
            frame.pts, frame.time_base = time, base
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        for index in range(len(times) + extra if sound else 0):
            out.mux(audio.encode(samples(audio, index, round(times[0] * base * 48000))))
        out.mux(audio.encode(None) if sound else [])
    return path


def samples(audio: av.AudioStream, index: int, start: int) -> av.AudioFrame:
    """A thirtieth of a second of stereo sound."""
    name = audio.codec_context.format.name
    kinds = {"u8": (np.uint8, 99), "s16": (np.int16, 9e3), "s32": (np.int32, 6e8), "flt": (np.float32, 0.3)}
    dtype, peak = kinds[name.removesuffix("p")]
    wave = (np.sin(np.arange(1600) * (index + 1) / 50) ** 2 * peak).astype(dtype)
    frame = av.AudioFrame.from_ndarray(
        np.stack([wave] * 2) if name[-1] == "p" else np.repeat(wave, 2)[None], name, "stereo"
    )
    frame.sample_rate, frame.pts = 48000, start + index * 1600
    return frame


def convert(source: Path, on_error: str = "skip") -> tuple[Path, str]:
    """Converts a clip without changing its frames; the result and the note."""
    target = source.parent / "out" / f"copy{jobs.output_suffix(source)}"
    return target, video.convert(source, {target: ALL}, lambda x: x, on_error)


def seconds(path) -> list[float]:
    with av.open(str(path)) as container:
        return [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]


# ---------------------------------------------------------------------------------------------------------------- turns


@pytest.mark.parametrize("matrix", [(a, 0, 0, d) for a in (1, -1) for d in (1, -1)])
@pytest.mark.parametrize("swapped", [False, True])
def test_frames_are_turned_as_players_do(matrix, swapped):
    """FFmpeg: a stored pixel (x, y) is seen at (a x + c y, b x + d y), and shifted into view."""
    a, b, c, d = (0, matrix[0], matrix[3], 0) if swapped else matrix
    data = (np.array([a, b, 0, c, d, 0, 0, 0, 1 << 14]) << 16).astype(np.int32)
    stored = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    y, x = np.mgrid[:2, :3]
    seen_x, seen_y = a * x + c * y, b * x + d * y
    wanted = np.zeros((3, 2, 4) if swapped else (2, 3, 4), int)
    wanted[seen_y - seen_y.min(), seen_x - seen_x.min()] = stored
    turn = clips.turning(SimpleNamespace(side_data={"DISPLAYMATRIX": data.tobytes()}))
    np.testing.assert_array_equal(turn.upright(stored), wanted)
    np.testing.assert_array_equal(turn.stored(wanted), stored)


@pytest.mark.parametrize("data", [{}, {"DISPLAYMATRIX": np.zeros(9, np.int32).tobytes()}])
def test_a_frame_that_is_not_turned_is_not_copied(data):
    turn, frame = clips.turning(SimpleNamespace(side_data=data)), np.ones((2, 3, 3), np.uint8)
    assert np.shares_memory(turn.upright(frame), frame) and turn.upright(frame).shape == frame.shape


# --------------------------------------------------------------------------------------------------------------- clocks


@pytest.mark.parametrize(
    ("name", "codec", "start"),
    [("a.mkv", "libx264", 2.5), ("a.webm", "libvpx-vp9", 1.0), ("a.mp4", "libx264", 3.0), ("a.ts", "libx264", 10.0)],
)
def test_a_clip_that_does_not_start_at_0_goes_through_twice(tmp_path, name, codec, start):
    base = Fraction(1, 90_000)
    source = make(tmp_path / name, [int(start * 90_000) + 3000 * t for t in range(10)], base, codec)
    again, note = convert(source)
    (tmp_path / "b").mkdir()
    second = tmp_path / "b" / again.name
    again.rename(second)
    third, _ = convert(second)
    for path in (second, third):
        np.testing.assert_allclose(seconds(path), seconds(source), atol=2e-3)
    assert note == ""


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("reordered", [0, 2])
def test_frames_of_an_avi_are_shown_at_an_even_rate_from_its_start(tmp_path, codec, reordered):
    """The file tells no times: FFmpeg makes them up from the order of packets."""
    options = {"bf": str(reordered)}
    source = make(tmp_path / "a.avi", range(24), codec=codec, setup=lambda _, s: setattr(s, "options", options))
    np.testing.assert_allclose(seconds(convert(source)[0]), np.arange(24) / 30, atol=1e-3)


@pytest.mark.parametrize("starts", [(1, 1), (1, 3600), (50, 2, 2)])
@pytest.mark.parametrize("sound", ["", "mp2"])
def test_joined_streams_are_shown_one_after_the_other(tmp_path, starts, sound):
    data = b""
    for start in starts:
        times = [start * 90_000 + 3000 * t for t in range(12)]
        data += make(tmp_path / "a.mts", times, Fraction(1, 90_000), sound=sound, format="mpegts").read_bytes()
    source = tmp_path / "joined.mts"
    source.write_bytes(data)
    target, note = convert(source)
    gaps = np.diff(seconds(target))
    assert len(gaps) == 12 * len(starts) - 1 and f"{len(starts)} recordings, joined" in note
    assert (
        gaps.min() > 0.03 and np.sort(gaps)[-len(starts)] < 0.04 and gaps.max() < 0.2 + 1.2 * bool(sound) * max(starts)
    )
    if sound:
        with av.open(str(target)) as container:
            heard = [float(p.pts * p.time_base) for p in container.demux(audio=0) if p.size]
        assert min(np.diff(heard)) > 0.02 and max(np.diff(heard)) < 0.1


def test_sound_and_pictures_of_a_part_stay_together():
    """The part before ends with its sound at 2.0 s, so both streams of the next begin there."""
    found = {0: [joins.Part(1.0, 1.8), joins.Part(5.0, 6.0)], 1: [joins.Part(1.1, 2.0), joins.Part(5.0, 6.1)]}
    assert joins.Mender(found, 0)._offsets == [0.0, -3.0]


def packet(stream: int, time: float) -> av.Packet:
    one = av.Packet(b"x")
    one.time_base, one.dts, one.pts = Fraction(1, 1000), round(time * 1000), round(time * 1000)
    return one


def test_a_silence_is_no_join():
    assert joins.has_jumped(1.0, 12.0) and joins.has_jumped(1.0, 0.9) and not joins.has_jumped(1.0, 10.0)
    found = {0: [joins.Part(0.0, 60.0)], 1: [joins.Part(0.0, 5.0), joins.Part(40.0, 60.0)]}
    assert joins.Mender(found, 0)._offsets == [0.0]


@pytest.mark.parametrize("sound", ["mp2", "ac3"])
def test_sound_that_begins_late_is_named(tmp_path, sound):
    """FFmpeg looks at five million bytes to find out what sound it is."""
    base = Fraction(1, 90_000)
    silent = make(tmp_path / "a.ts", [3000 * t for t in range(100)], base)
    heard = make(tmp_path / "b.ts", [3000 * t for t in range(100, 112)], base, sound=sound)
    padding = (b"G\x1f\xff\x10" + bytes(184)) * 40_000
    (tmp_path / "c.ts").write_bytes(silent.read_bytes() + padding + heard.read_bytes())
    target, note = convert(tmp_path / "c.ts")
    assert len(seconds(target)) == 112 and "a stream of audio of unknown kind is left out" in note


def test_a_stream_that_pyav_meets_too_late_is_named():
    class Container:
        turns = 0

        def demux(self, *streams):
            self.turns += 1
            yield from ([1, 2], [3], [4])[self.turns - 1]
            if self.turns < 3:
                raise IndexError("list index out of range")

    late = []
    assert list(clips.packets(Container(), late=late)) == [1, 2, 3, 4] and len(late) == 2


# --------------------------------------------------------------------------------------------------------------- damage


def noise(path):
    """A clip of 30 frames, large in bytes."""
    options = {"g": "5", "crf": "20"}
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=30, width=W, height=H, pix_fmt="yuv420p", options=options)
        for frame in np.random.default_rng(0).integers(0, 256, (30, H, W, 3), np.uint8):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        out.mux(stream.encode(None))
    return path


def damaged(path, places=(0.5,)):
    """A transport stream of which packets are lost: its counters do not go on."""
    data = noise(path).read_bytes()
    packets = [data[start : start + 188] for start in range(0, len(data), 188)]
    pictures = [index for index, data in enumerate(packets) if data[1] & 0x1F == 1 and data[2] == 0]
    for place in sorted(places, reverse=True):
        del packets[pictures[int(len(pictures) * place)]]
    path.write_bytes(b"".join(packets))
    return path


@pytest.mark.parametrize("places", [(0.5,), (0.3, 0.7)])
def test_lost_packets_are_counted_and_the_rest_is_done(tmp_path, places):
    source = damaged(tmp_path / "a.ts", places)
    target, note = convert(source)
    assert 25 <= len(seconds(target)) <= 30 and note.startswith(f"damaged: {len(places)} packets")
    with pytest.raises(VideoError, match=r"a\.ts: damaged at .* --on-error skip"):
        convert(source, "stop")


@pytest.mark.parametrize("name", ["a.ts", "a.mkv"])
def test_training_takes_the_frames_that_deblur_takes(tmp_path, name):
    """FFmpeg hands over damaged frames of H.264, filled in from others, and marks them."""
    source = noise(tmp_path / name)
    with av.open(str(source)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(source.read_bytes())
    for place, size in places[7::7]:
        middle = place + size // 2
        data[middle : middle + 16] = b"\xff" * 16
    source.write_bytes(data)
    target, note = convert(source)
    files, fault = frames.extract(source, tmp_path / "cache", 1, 0, 0)
    assert len(files) == len(seconds(target)) < 30 and note.endswith(f"are left out: {30 - len(files)}")
    assert fault == f"{source}: damaged frames that are left out: {30 - len(files)}"


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_sound_that_is_longer_than_the_pictures_is_no_cut(tmp_path, name):
    source = make(tmp_path / name, sound="libmp3lame", extra=30)
    files, fault = frames.extract(source, tmp_path / "cache", 1, 0, 0)
    assert len(files) == 8 and fault == convert(source)[1] == ""


def test_what_is_broken_throughout_is_refused(tmp_path):
    source = make(tmp_path / "a.mkv", range(20), codec="mpeg4")
    with av.open(str(source)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size][2:]
    data = bytearray(source.read_bytes())
    for place, size in places:
        data[place + 8 : place + size] = b"\xff" * (size - 8)
    source.write_bytes(data)
    with pytest.raises(VideoError, match=f"^{source}: "):
        convert(source, "stop")


# ---------------------------------------------------------------------------------------------------- sound, tags, more


@pytest.mark.parametrize(
    ("name", "sound", "kind"),
    [("a.m2ts", "pcm_bluray", "mpegts"), ("a.vob", "pcm_dvd", "vob"), ("a.avi", "adpcm_ima_wav", "avi")],
)
def test_sound_of_discs_becomes_plain_pcm(tmp_path, name, sound, kind):
    options = {"mpegts_m2ts_mode": "1"} if kind == "mpegts" else {}
    source = make(tmp_path / name, codec="mpeg1video", sound=sound, format=kind, options=options)
    first, second = tmp_path / "b.mkv", tmp_path / "c.mkv"
    places = {first: slice(0, 3), second: slice(3, 6)}
    note = video.convert(source, places, lambda given: (np.concatenate([x, x], -1) for x in given))
    assert f"its {sound} sound became pcm_s16le" in note
    for path in (first, second):
        np.testing.assert_array_equal(heard(path), heard(source))
    assert heard(source).any() and len(seconds(first)) == len(seconds(second)) == 8


def heard(path) -> np.ndarray:
    """The samples of a clip, of 16 bits."""
    with av.open(str(path)) as container:
        packed = av.AudioResampler("s16").resample
        return np.concatenate([x.to_ndarray().ravel() for frame in container.decode(audio=0) for x in packed(frame)])


@pytest.mark.parametrize(
    ("name", "sound", "said"),
    [
        ("a.mov", "pcm_alaw", "its pcm_alaw sound became pcm_s16le"),
        ("a.mov", "pcm_u8", "its pcm_u8 sound became pcm_s16le"),
        ("a.avi", "adpcm_ima_wav", "its adpcm_ima_wav sound became pcm_s16le"),
        ("a.mkv", "pcm_s16le", ""),
    ],
)
def test_plain_sound_of_files_that_are_called_mp4_is_kept(tmp_path, name, sound, said):
    """Those of AVI and Matroska do not say which channel is where, as .mp4 has to."""
    source = make(tmp_path / name, sound=sound).rename(tmp_path / "a.mp4")
    target, note = convert(source)
    assert note == said and heard(source).any()
    np.testing.assert_array_equal(heard(target), heard(source))


@pytest.mark.parametrize("name", ["a.mov", "a.mp4"])
def test_tags_of_phones_are_kept(tmp_path, name):
    tags = {
        "title": "Ä",
        "com.apple.quicktime.make": "Apple",
        "com.android.version": "14",
        "creation_time": "2024-05-06T05:08:09Z",
    }
    source = make(
        tmp_path / name, setup=lambda out, _: out.metadata.update(tags), options={"movflags": "use_metadata_tags"}
    )
    target, note = convert(source)
    with av.open(str(target)) as container:
        kept = dict(container.metadata)
    assert note == "" and {key: kept[key][:19] for key in tags} == {key: value[:19] for key, value in tags.items()}


def test_a_tag_that_is_lost_is_named(tmp_path):
    written = make(tmp_path / "a.mp4")
    assert streams.lost_tags({"title": "x", "Odd\n": "y", "encoder": "z"}, written) == "tags left out: title, Odd\\n"


def test_statistics_of_the_old_stream_are_dropped(tmp_path):
    def setup(out, stream):
        stream.metadata.update(
            {"BPS-eng": "999", "NUMBER_OF_FRAMES": "77", "_STATISTICS_TAGS": "BPS", "language": "swe"}
        )
        stream.metadata["ENCODER"] = "old"

    with av.open(str(convert(make(tmp_path / "a.mkv", setup=setup))[0])) as container:
        kept = {key.lower(): value for key, value in container.streams.video[0].metadata.items()}
    assert kept["language"] == "swe" and not {"bps-eng", "number_of_frames", "_statistics_tags"} & set(kept)
    assert "old" not in kept.values()


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.mov"])
def test_chapters_and_fonts(tmp_path, name):
    def setup(out, _):
        base = Fraction(1, 1000)
        out.set_chapters(
            [
                {"id": n, "start": 90 * n, "end": 90 * n + 90, "time_base": base, "metadata": {"title": f"C{n}"}}
                for n in range(3)
            ]
        )
        if name == "a.mkv":
            out.add_attachment("f.otf", "font/otf", b"OTTO" + bytes(99))

    source = make(tmp_path / name, setup=setup)
    target, note = convert(source)
    found = []
    for path in (source, target):
        with av.open(str(path)) as container:
            # Muxers have steps of their own.
            chapters = [
                (c["metadata"]["title"], round(float(c["start"] * c["time_base"]), 3)) for c in container.chapters()
            ]
            found.append((chapters, [bytes(s.data) for s in container.streams.attachments]))
    assert found[0] == found[1] and len(found[0][0]) == 3 and note == ""


def test_what_cannot_be_kept_is_said(tmp_path):
    font = make(tmp_path / "a.mkv", setup=lambda out, _: out.add_attachment("f.otf", "font/otf", b"OTTO"))
    assert "the attached file f.otf is left out" in video.convert(font, {tmp_path / "b.mp4": ALL}, lambda x: x)
    clear = make(tmp_path / "c.mkv", codec="ffv1", pixels="bgra")
    assert "transparency (alpha) is left out" in convert(clear)[1]
    options = {"x264-params": "bff=1"}
    lines = make(tmp_path / "d.mp4", setup=lambda _, s: setattr(s, "options", options))
    assert "interlaced" in convert(lines)[1]


MASTERING = "mastering-display=G(8500,39850)B(6550,2300)R(35400,14600)WP(15635,16450)L(40000000,100):cll=900,120"


@pytest.mark.parametrize(("pixels", "params"), [("yuv420p10le", MASTERING), ("yuv420p", "cll=1500,600")])
def test_the_static_data_of_hdr10_are_kept(tmp_path, pixels, params):
    source = make(tmp_path / "a.mkv", pixels=pixels, setup=lambda _, s: setattr(s, "options", {"x264-params": params}))
    target, note = convert(source)
    found = []
    for path in (source, target):
        with av.open(str(path)) as container:
            found.append(hdr.x264_parameters(next(container.decode(video=0))))
    assert found == [params, params] and note == ""
    assert "HDR10 mastering display" in video.convert(source, {tmp_path / "b.webm": ALL}, lambda x: x)


# -------------------------------------------------------------------------------------------------- names and no videos


@pytest.mark.parametrize("name", ["a:b.mp4", "http:c.mkv", "é\n.mp4", "日本 %d.mp4", os.fsdecode(b"\xe9t\xe9.mp4")])
def test_odd_names(tmp_path, monkeypatch, name):
    make(tmp_path / "plain.mp4")
    monkeypatch.chdir(tmp_path)
    source = Path(f"x{Path(name).suffix}" if name.endswith(".mkv") else name)
    (make(tmp_path / "y.mkv") if name.endswith(".mkv") else tmp_path / "plain.mp4").rename(source)
    folder = Path(os.fsdecode(b"out\xff")) if "\udce9" in name else Path("out")
    target = folder / f"copy{source.suffix}"
    assert video.convert(source, {target: ALL}, lambda x: x) == ""
    files, fault = frames.extract(source, tmp_path / "cache", 1, 0, 0)
    assert len(files) == 8 and fault == "" and target.stat().st_size


@pytest.mark.parametrize("title", [b"\xe9t\xe9 1999", b"\x83e\x83X\x83g!!"])
def test_titles_that_are_no_utf_8(tmp_path, title):
    mark = b"Q" * len(title)
    source = make(tmp_path / "a.mkv", setup=lambda out, _: out.metadata.update(title=mark.decode()))
    source.write_bytes(source.read_bytes().replace(mark, title))
    assert len(frames.extract(source, tmp_path / "cache", 1, 0, 0)[0]) == 8
    assert len(seconds_of(convert(source)[0])) == 8


def seconds_of(path):
    with clips.opened(path) as container:
        return [frame.pts for frame in container.decode(video=0)]


def test_a_newer_pyav_without_the_argument(tmp_path, monkeypatch):
    source, real, calls = make(tmp_path / "a.mp4"), av.open, []

    def newer(file, mode="r", **options):
        calls.append(sorted(options))
        if "metadata_errors" in options:
            raise TypeError("open() got an unexpected keyword argument 'metadata_errors'")
        return real(file, mode, **options)

    monkeypatch.setattr(av, "open", newer)
    with clips.opened(source) as container:
        assert container.streams.video and calls == [["metadata_errors", "options"], ["options"]]


BAD = {
    "pipe": (lambda path: os.mkfifo(path), "device or pipe"),
    "loop": (lambda path: path.symlink_to(path), "broken link"),
    "broken link": (lambda path: path.symlink_to("gone.mp4"), "broken link"),
    "empty": (lambda path: path.touch(), "empty"),
    "photo": (lambda path: Image.fromarray(picture(0)).save(path, "PNG"), "a photo (PNG)"),
    "playlist": (lambda path: path.write_text("#EXTM3U\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST\n"), "no video"),
    "list": (lambda path: path.write_text("ffconcat version 1.0\nfile other.mp4\n"), "no video"),
    "text": (lambda path: path.write_text("WEBVTT\n\n00:00.000 --> 00:01.000\nHello\n"), "no video"),
    "sound": (lambda path: sound_only(path), "no pictures"),
    "no frame": (lambda path: no_frame(path), ""),
}


def sound_only(path):
    with av.open(str(path), "w", format="mp4") as out:
        audio = out.add_stream("aac", rate=48000, layout="stereo")
        out.mux([p for n in range(9) for p in audio.encode(samples_of(audio, n))] + audio.encode(None))


def samples_of(audio, index):
    frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
    frame.sample_rate, frame.pts = 48000, index * 1024
    return frame


def no_frame(path):
    with av.open(str(path), "w", format="matroska") as out:
        out.add_stream("mpeg4", rate=10, width=W, height=H, pix_fmt="yuv420p")
        out.start_encoding()


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_video_is_named_in_one_line(tmp_path, kind):
    path, (write, says) = tmp_path / "a.mp4", BAD[kind]
    write(path)
    files, fault = frames.extract(path, tmp_path / "cache", 1, 0, 0)
    assert files == [] and fault.startswith(f"{path}: ") and says in fault and "\n" not in fault
    with pytest.raises(VideoError, match=f"^{path}: ") as error:
        convert(path)
    assert says in str(error.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["v" * 250 + ".mp4", "ü" * 125 + ".mp4"])
def test_long_names(tmp_path, name):
    make(tmp_path / "a.mp4").rename(tmp_path / name)
    assert len(frames.extract(tmp_path / name, tmp_path / "cache", 1, 0, 0)[0]) == 8


def test_first_bytes_decide_what_deblur_does(tmp_path):
    Image.fromarray(picture(0)).save(tmp_path / "a.mp4", "JPEG")
    make(tmp_path / "b.mp4").rename(tmp_path / "b.jpg")
    Image.fromarray(picture(0)).save(tmp_path / "c", "TIFF")
    make(tmp_path / "d.mkv").rename(tmp_path / "d")
    os.mkfifo(tmp_path / "e.mp4")
    assert {path.name: jobs._is_video(path) for path in sorted(tmp_path.iterdir())} == {
        "a.mp4": False,
        "b.jpg": True,
        "c": False,
        "d": True,
        "e.mp4": True,
    }
    assert not images.VIDEO_EXTENSIONS & images.EXTENSIONS
