"""Videos on disk, as FFmpeg opens them: by nothing but its readers of videos, whatever their names and titles.

FFmpeg guesses by the content, and would take photos, texts, and playlists that lead to other files and addresses.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from b2b_jax import ends, images
from b2b_jax.errors import VideoError
from b2b_jax.images import ImageError

# FFmpeg's names of the formats that are opened.
DEMUXERS = (
    *("mov", "matroska", "webm", "avi", "mpegts", "mpeg", "mpegvideo", "asf", "flv", "live_flv", "ogg", "mxf", "dv"),
    *("h264", "hevc", "vvc", "m4v", "h263", "vc1", "av1", "obu", "ivf", "yuv4mpegpipe", "rm", "nut", "gxf", "wtv"),
)
JUMPING = {"mpegts", "mpeg"}  # formats for broadcasting, which may begin and end anywhere, and whose clocks may jump
EXACT = {"mov", "matroska", "avi"}  # containers whose headers say when the file ends
TOLERANCE = 0.1  # seconds that a whole file may end before its header says, besides the time of its last frame
HEAD = 64  # bytes, at most, from where FFmpeg says that a packet lies to its first byte
# FFmpeg's numbers (AVColorSpace) of how colours are coded, where its scaler does not know how.
RARE_COLOURS = {8: "YCgCo", 10: "BT.2020 with constant luminance", 11: "Y'D'zD'x (SMPTE ST 2085)", 14: "ICtCp"}
RARE_COLOURS |= {12: "YCbCr of its primaries", 13: "YCbCr of its primaries with constant luminance"}
UNTURNED = [1, 0, 0, 0, 1, 0, 0, 0, 1]
OPTIONS = {"format_whitelist": ",".join(DEMUXERS), "protocol_whitelist": "file"}


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


def formats(container: av.container.InputContainer) -> set[str]:
    """FFmpeg's names of the container's format."""
    return set(container.format.name.split(","))


def rgb(path: Path, frame: av.VideoFrame, pixel_format: str, **scaling: int) -> np.ndarray:
    """A stored frame (h, w, 3) in a format such as "rgb24". VideoError: its colours cannot be converted."""
    try:
        return frame.to_ndarray(format=pixel_format, **scaling)
    except av.FFmpegError as error:
        colours = RARE_COLOURS.get(int(frame.colorspace), frame.format.name)
        raise VideoError(
            f"{path}: coded as {colours}, which cannot become RGB ({error.strerror}); convert it to BT.709 first"
        ) from error


class Turn(NamedTuple):
    """How a player turns and mirrors the stored frames (h, w, ...) of a video: three steps, in this order."""

    swapped: bool  # rows become columns
    upside_down: bool
    mirrored: bool

    def upright(self, stored: np.ndarray) -> np.ndarray:
        """A frame as it is seen; itself where nothing is turned."""
        image = stored.swapaxes(0, 1) if self.swapped else stored
        return np.ascontiguousarray(image[self._steps])

    def stored(self, upright: np.ndarray) -> np.ndarray:
        """A frame as it is stored, a view."""
        image = upright[self._steps]
        return image.swapaxes(0, 1) if self.swapped else image

    @property
    def _steps(self) -> tuple[slice, slice]:
        return slice(None, None, -1 if self.upside_down else 1), slice(None, None, -1 if self.mirrored else 1)


def turning(frame: av.VideoFrame) -> Turn:
    """How a player turns the frame, to the nearest quarter of a turn."""
    a, b, _, c, d, *_ = display_matrix(frame) or UNTURNED  # a step right adds (a, b) to what is seen, one down (c, d)
    swapped = abs(c) > abs(a)
    return Turn(swapped, (b if swapped else d) < 0, (c if swapped else a) < 0)


def display_matrix(frame: av.VideoFrame) -> list[int] | None:
    """How a player turns and mirrors the frame, nine numbers as FFmpeg keeps them; None where nothing is said."""
    data = frame.side_data.get("DISPLAYMATRIX")  # by name: what iterating yields differs between releases of PyAV
    return None if data is None else np.frombuffer(data, np.int32).tolist()


class Ending:
    """How far the packets of a video reach, and how far they should. `seen` looks at each of them."""

    def __init__(self, path: Path, container: av.container.InputContainer, video: av.VideoStream):
        self._container, self._video, self._lacking = container, video, ends.lacking(path)
        self._bounded = not JUMPING & formats(container)
        self.time = 0.0  # seconds: where the packets end that were seen
        self._cut = False

    def seen(self, packet: av.Packet) -> bool:
        """Takes note of a packet. False when it is one that the end of the file cuts through."""
        if packet.pts is not None:
            self.time = max(self.time, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        last = packet.pos is None or packet.pos + packet.size + HEAD >= self._container.size
        cut = packet.is_corrupt and self._bounded and last
        self._cut |= cut
        return not cut

    def missing(self, step: float, frames: int) -> str:
        """How a file that ends too early does so, "" for a whole one; it has `frames`, up to `step` seconds apart.

        Headers count from 0, or from the first packet: a start after 0 proves nothing, one before 0 does.
        """
        late = min(self._container.start_time or 0, 0)
        length = ((self._container.duration or 0) + late) / av.time_base
        short = length - self.time if EXACT & formats(self._container) else 0.0
        if not self._cut and not self._lacking and short <= TOLERANCE + step:
            return ""
        return f"cut off at {self.time:.1f} s, {self._count(short, frames)}"

    def _count(self, short: float, frames: int) -> str:
        """How many frames are missing: exactly only where the header has a table of them."""
        if "mov" in formats(self._container):
            return f"{self._video.frames - frames} of {self._video.frames} frames are missing"
        if "avi" in formats(self._container):  # whose header counts in ticks
            short = float(self._video.frames * self._video.time_base) - self.time
        guess = round(short * frames / self.time) if self.time else 0
        if guess > 0:
            return f"about {guess} of {frames + guess} frames are missing"
        return f"its last {self._lacking:,} bytes are missing" if self._lacking else "within a frame"


class Clock:
    """Time stamps and durations of frames in the stream's time base; they rise, and exist where a file has none.

    `longest` is the longest time between two frames.
    """

    def __init__(self, stream: av.VideoStream):
        self._step = self.longest = max(round(1 / ((stream.guessed_rate or 25) * stream.time_base)), 1)
        self._last: int | None = None
        self._is_avi = "avi" in formats(stream.container)
        self._delay = None if stream.codec_context.has_b_frames else 0

    def time(self, frame: av.VideoFrame) -> tuple[int, int]:
        """Time stamp and duration of the next frame."""
        last, given = self._last, self._in_avi(frame) if self._is_avi else frame.pts
        if given is None:
            self._last = 0 if last is None else last + self._step
        else:
            self._last = given if last is None else max(given, last + 1)
            self.longest = max(self.longest, 0 if last is None else self._last - last)
        return self._last, frame.duration or self._step

    def _in_avi(self, frame: av.VideoFrame) -> int | None:
        """When a frame of an AVI is shown, which tells no times: the n-th frame at the n-th packet's.

        `dts` is of the packet at which the decoder let go of the frame, None for the last ones. `pts` is a guess: with
        frames out of order it is one too many for the first, and does not rise.
        """
        if self._delay is None:
            self._delay = 0 if frame.dts is None or frame.pts is None else frame.dts - max(frame.pts - 1, 0)
        return None if frame.dts is None else frame.dts - self._delay


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
