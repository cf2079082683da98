"""Videos: every frame goes through a function of frames, all else stays as it is.

Kept are the time stamps and durations of frames, rotation and mirroring (the display matrix), colour range, matrix,
primaries and transfer, the pixel's aspect, titles and tags, and the packets of sound and subtitles, which are copied.
Frames are RGB, (h, w, 3): uint8, or uint16 when the video has more than 8 bits, which are then kept. Interlaced frames
are taken as they lie. `video_writer` tells how pictures are encoded.
"""

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from b2b_jax import files
from b2b_jax.inference.background import behind, made_ahead
from b2b_jax.inference.video_writer import CONTAINERS, SCALING, VideoError, Writer, depth, named

Frames = Iterable[np.ndarray]
Restore = Callable[[Frames], Frames]

AHEAD = 4  # frames that are decoded and not yet asked for, and as many that are done and not yet encoded
EXACT = {"mov", "matroska", "avi"}  # FFmpeg's names of the containers whose headers say when the file ends
TOLERANCE = 0.1  # seconds that a whole file may end before its header says, besides the time of its last frame


class Moment(NamedTuple):
    """What belongs to a frame besides its pixels."""

    pts: int  # in units of the stream's time base
    duration: int
    packets: list[av.Packet]  # of other streams, between the frame before and this one


def output_suffix(source: Path) -> str:
    """The suffix of the video that `convert` makes of `source`."""
    return source.suffix if source.suffix.lower() in CONTAINERS else ".mkv"


def count_frames(source: Path) -> int:
    """How many frames the video has, as its header says or lets guess; 0 if neither. VideoError as `convert`."""
    with _opened(source) as reader:
        stream = _pictures(source, reader)
        return stream.frames or round((reader.duration or 0) / av.time_base * (stream.guessed_rate or 0))


def convert(source: Path, targets: Mapping[Path, slice], restore: Restore) -> str:
    """Writes `source` with restored frames; every target is whole or untouched. Returns what its owner should know.

    targets: paths whose suffixes `output_suffix` gave, and the channels of the restored frames that each takes: three,
        or several times three for as many pictures side by side.
    restore: frames (h, w, 3) to frames (h, w, c) of the same dtype, one for one. Meanwhile other threads decode the
        frames to come and encode those that are done.
    VideoError: the file is missing, broken, truncated or has no pictures, or a stream of it cannot be copied.
    """
    picture = _first_picture(source)
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(_opened(source))
        drafts = {stack.enter_context(files.draft(path)): path for path in targets}
        counts = {path: (channels.stop - channels.start) // 3 for path, channels in targets.items()}
        writers = [stack.enter_context(Writer(x, path, reader, picture, counts[path])) for x, path in drafts.items()]
        moments: deque[Moment] = deque()
        frames = stack.enter_context(made_ahead(_frames(source, reader, picture, moments), AHEAD))
        write = stack.enter_context(behind(AHEAD))
        for frame in restore(frames):
            write(_write, writers, targets.values(), moments.popleft(), frame)
        write(_copy, writers, [packet for moment in moments for packet in moment.packets])
    return "; ".join(dict.fromkeys(writer.note for writer in writers if writer.note))


def _write(writers: Sequence[Writer], places: Iterable[slice], moment: Moment, frame: np.ndarray) -> None:
    """Adds a frame to every video, each taking its channels of it, after the packets that came before it."""
    _copy(writers, moment.packets)
    for writer, channels in zip(writers, places, strict=True):
        writer.frame(frame[..., channels], moment.pts, moment.duration)


def _copy(writers: Sequence[Writer], packets: Iterable[av.Packet]) -> None:
    for packet in packets:
        for writer in writers:
            writer.copy(packet)


def _opened(source: Path) -> av.container.InputContainer:
    """The file as PyAV opens it, a context."""
    if not source.is_file():
        raise VideoError(f"{source}: no such file")
    with named(source, "no video, truncated or broken"):
        return av.open(f"file:{source}", metadata_errors="replace")


def _pictures(source: Path, reader: av.container.InputContainer) -> av.VideoStream:
    stream = reader.streams.best("video")
    if stream is None or stream.codec_context is None:
        raise VideoError(f"{source}: holds no pictures that can be decoded")
    stream.thread_type = "AUTO"
    return stream


def _first_picture(source: Path) -> av.VideoFrame:
    with _opened(source) as reader, named(source, "truncated or broken"):
        picture = next(reader.decode(_pictures(source, reader)), None)
    if picture is None:
        raise VideoError(f"{source}: holds no picture that can be decoded")
    return picture


def _frames(
    source: Path, reader: av.container.InputContainer, picture: av.VideoFrame, moments: deque[Moment]
) -> Iterator[np.ndarray]:
    """Yields the frames; their moments are appended to `moments`, and a last one of the packets after them."""
    video, end, clock = _pictures(source, reader), 0.0, Clock(_pictures(source, reader))
    pixel_format = "rgb48le" if depth(picture) > 8 else "rgb24"
    packets, others = reader.demux(), []
    while (packet := _next(source, packets, end)) is not None:
        if packet.pts is not None:
            end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if packet.stream.index != video.index:
            others.append(packet)
            continue
        with named(source, f"broken at {end:.1f} s"):
            frames = packet.decode()
        for frame in frames:
            if (frame.width, frame.height) != (picture.width, picture.height):
                raise VideoError(f"{source}: changes its size to {frame.width} x {frame.height} at {end:.1f} s")
            moments.append(Moment(*clock.time(frame), others))
            others = []
            yield frame.to_ndarray(format=pixel_format, interpolation=SCALING)
    moments.append(Moment(0, 0, others))
    missing = ((reader.duration or 0) + (reader.start_time or 0)) / av.time_base - end
    if EXACT & set(reader.format.name.split(",")) and missing > TOLERANCE + clock.longest * video.time_base:
        raise VideoError(f"{source}: truncated, {missing:.1f} s before its end")


def _next(source: Path, packets: Iterator[av.Packet], end: float) -> av.Packet | None:
    with named(source, f"truncated or broken at {end:.1f} s"):
        packet = next(packets, None)
    if packet is not None and packet.is_corrupt:
        raise VideoError(f"{source}: truncated or broken at {end:.1f} s")
    return packet


class Clock:
    """Time stamps and durations of frames in the stream's time base; they rise, and exist where a file has none.

    `longest` is the longest time between two frames.
    """

    def __init__(self, stream: av.VideoStream):
        self._step = self.longest = max(round(1 / ((stream.guessed_rate or 25) * stream.time_base)), 1)
        self._last: int | None = None

    def time(self, frame: av.VideoFrame) -> tuple[int, int]:
        """Time stamp and duration of the next frame."""
        last = self._last
        if frame.pts is None:
            self._last = 0 if last is None else last + self._step
        else:
            self._last = frame.pts if last is None else max(frame.pts, last + 1)
            self.longest = max(self.longest, 0 if last is None else self._last - last)
        return self._last, frame.duration or self._step
