"""Where a video file ends by its header: a single byte that is cut off is noticed, and a whole file is whole."""

import numpy as np
import pytest
from helpers import videos

from b2b_jax import ends
from b2b_jax.clips import VideoError
from b2b_jax.data import frames
from b2b_jax.inference import video

KINDS = {"a.mkv": "libx264", "b.webm": "libvpx-vp9", "c.avi": "mpeg4"}


def clip(path, count=12, **options):
    noise = list(np.random.default_rng(0).integers(0, 256, (count, 48, 64, 3), np.uint8))
    return videos.make(path, noise, range(0, 1001 * count, 1001), codec=KINDS[path.name], sound=None, **options)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("lost", [1, 7, 300])
def test_bytes_that_are_cut_off_are_noticed(tmp_path, name, lost):
    """However few: also those of the index alone, and of less than a frame."""
    path = clip(tmp_path / name)
    data, target = path.read_bytes(), tmp_path / "out.mkv"
    assert ends.lacking(path) == 0 and video.convert(path, {target: slice(0, 3)}, iter) == ""
    path.write_bytes(data + b"appended")
    assert ends.lacking(path) == 0
    path.write_bytes(data[:-lost])
    assert ends.lacking(path) == lost
    with pytest.raises(VideoError, match="cut off at"):
        video.convert(path, {target: slice(0, 3)}, iter, "stop")
    assert "missing" in video.convert(path, {target: slice(0, 3)}, iter)
    assert "cut off at" in frames.extract(path, tmp_path / "frames", 1, 0, 0)[1]


@pytest.mark.parametrize("options", [{"live": "1"}, {"flush_packets": "1", "live": "true"}])
def test_a_live_stream_says_nothing_of_its_size(tmp_path, options):
    path = clip(tmp_path / "a.mkv", options=options)
    assert ends.lacking(path) == 0
    path.write_bytes(path.read_bytes()[:-200])
    assert ends.lacking(path) == 0


@pytest.mark.parametrize(
    ("data", "lost"),
    [
        (b"", 0),
        (b"\x1a\x45\xdf\xa3", 0),
        (b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\x85ab", 3),
        (b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\x40\x05ab", 3),
        (b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\xff", 0),
        (b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\x01", 0),
        (b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\x00", 0),
        (b"\x1a\x45\xdf\xa3\x01" + b"\xfe" * 7, 0),
        (b"RIFF", 0),
        (b"RIFF\x06\0\0\0AVI x", 1),
        (b"RIFF\x04\0\0\0AVI RIFF\x09\0\0\0AVIX", 5),
        (b"RIFF\x04\0\0\0AVI RIFF\0\0\0\0AVIX", 0),
        (b"RIFF\xff\xff\xff\xffWAVE", 0),
        (b"\0\0\0\x18ftypmp42", 0),
    ],
)
def test_headers_of_any_bytes(tmp_path, data, lost):
    (tmp_path / "a").write_bytes(data)
    assert ends.lacking(tmp_path / "a") == lost
