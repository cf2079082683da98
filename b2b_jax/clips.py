"""Videos on disk, as FFmpeg opens them: by nothing but its readers of videos, whatever their names and titles.

FFmpeg guesses by the content, and would take photos, texts, and playlists that lead to other files and addresses.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import av

from b2b_jax import images
from b2b_jax.errors import shown
from b2b_jax.images import ImageError

# FFmpeg's names of the formats that are opened.
DEMUXERS = (
    *("mov", "matroska", "webm", "avi", "mpegts", "mpeg", "mpegvideo", "asf", "flv", "live_flv", "ogg", "mxf", "dv"),
    *("h264", "hevc", "vvc", "m4v", "h263", "vc1", "av1", "obu", "ivf", "yuv4mpegpipe", "rm", "nut", "gxf", "wtv"),
)
OPTIONS = {"format_whitelist": ",".join(DEMUXERS), "protocol_whitelist": "file"}


class VideoError(ValueError):
    """A video that cannot be used; the message is one line that starts with its path."""

    def __init__(self, message: object):
        super().__init__(shown(message))


@contextlib.contextmanager
def named(path: Path, problem: str) -> Iterator[None]:
    """Turns what FFmpeg says into a VideoError that begins with `path`."""
    try:
        yield
    except av.FFmpegError as error:
        raise VideoError(f"{path}: {problem} ({error.strerror})") from error


@contextlib.contextmanager
def opened(path: Path) -> Iterator[av.container.InputContainer]:
    """The video as PyAV opens it. VideoError: it is missing, empty, a pipe, a photo, or no video that FFmpeg knows."""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(images.open_file(path))
            kind = images.kind(path)
        except ImageError as error:
            raise VideoError(error) from error
        if kind.is_photo:
            raise VideoError(f"{path}: no video, but a photo ({kind.name})")
        with named(path, "no video, truncated or broken"):
            container = stack.enter_context(_open(file if address(path) is None else address(path)))
        yield container


def address(path: Path) -> str | None:
    """What FFmpeg is told to open; None for a name that is no UTF-8, which PyAV cannot pass on.

    The prefix keeps what stands before a colon in a name from being taken for a protocol.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return None
    return f"file:{path}"


def _open(what: object) -> av.container.InputContainer:
    """Titles that are no UTF-8 are read as well as they can be."""
    try:
        return av.open(what, "r", options=OPTIONS, metadata_errors="replace")
    except TypeError:  # PyAV announces that it will do so by itself, without the argument
        return av.open(what, "r", options=OPTIONS)


def pictures(path: Path, container: av.container.InputContainer) -> av.VideoStream:
    """The stream of pictures that a player shows, decoded by several threads. VideoError: there is none."""
    stream = container.streams.best("video")
    if stream is None or stream.codec_context is None:
        raise VideoError(f"{path}: holds no pictures that can be decoded")
    if av.stream.Disposition.attached_pic in stream.disposition:
        raise VideoError(f"{path}: holds no pictures but that of its cover")
    stream.thread_type = "AUTO"
    return stream


def packets(container: av.container.InputContainer, *streams: av.stream.Stream, late: list | None = None) -> Iterator:
    """The packets of the streams, or of all; what begins after the header is left out, and noted in `late`.

    PyAV knows the streams that are there when a file is opened, and ends at a packet of another one. FFmpeg goes on.
    """
    while True:
        try:
            yield from container.demux(*streams)
            return
        except IndexError:
            if late is not None:
                late.append("a stream that begins within the file is left out")
