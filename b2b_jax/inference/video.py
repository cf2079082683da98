"""Videos: every frame goes through a function of frames, all else stays as it is.

Kept are the time stamps and durations of frames, rotation and mirroring (the display matrix), colour range, matrix,
primaries and transfer, HDR10's static data, the pixel's aspect, titles and tags, chapters, fonts, and the packets of
sound and subtitles, which are copied; what is not is said. The function gets frames upright, as photos and training's
frames are, and they are stored turned as they were: RGB, (h, w, 3), uint8, or uint16 when the video has more than 8
bits, which are then kept. Interlaced frames are taken as they lie. `video_writer` tells how pictures are encoded,
`streams` what becomes of the rest, `joins` how clocks that jump are mended.
"""

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from b2b_jax import files
from b2b_jax.clips import JUMPING, Clock, Ending, VideoError, formats, named, opened, packets, pictures, rgb, turning
from b2b_jax.inference import joins
from b2b_jax.inference.background import behind, made_ahead
from b2b_jax.inference.video_writer import SCALING, Writer, depth

Frames = Iterable[np.ndarray]
Restore = Callable[[Frames], Frames]

AHEAD = 4  # frames that are decoded and not yet asked for, and as many that are done and not yet encoded


class Moment(NamedTuple):
    """What belongs to a frame besides its pixels."""

    pts: int  # in units of the stream's time base
    duration: int
    packets: list[av.Packet]  # of other streams, between the frame before and this one


class Damage:
    """What of a video could not be decoded; with `stop` the first of it is a VideoError."""

    def __init__(self, source: Path, stop: bool):
        self._source, self._stop = source, stop
        self.packets = self.frames = 0
        self.late: list[str] = []  # streams that are found too late to be kept
        self._end = ""

    def add(self, time: float, packets: int = 0, frames: int = 0) -> None:
        """Counts what is damaged at `time`, in seconds."""
        if self._stop:
            raise VideoError(f"{self._source}: damaged at {time:.1f} s; --on-error skip passes over what is damaged")
        self.packets += packets
        self.frames += frames

    def end(self, how: str) -> None:
        """Takes note of an end before the end, "" for none."""
        if how and self._stop:
            raise VideoError(f"{self._source}: {how}; --on-error skip takes the whole frames before")
        self._end = self._end or how

    def note(self) -> str:
        """What the video's owner should know."""
        lost = f"damaged: {self.packets} packets; frames that could not be decoded and are left out: {self.frames}"
        return "; ".join(filter(None, [lost if self.packets or self.frames else "", self._end]))


def count_frames(source: Path) -> int:
    """How many frames the video has, as its header says or lets guess; 0 if neither. VideoError as `convert`."""
    with opened(source) as reader:
        stream = pictures(source, reader)
        return stream.frames or round((reader.duration or 0) / av.time_base * (stream.guessed_rate or 0))


def convert(source: Path, targets: Mapping[Path, slice], restore: Restore, on_error: str = "skip") -> str:
    """Writes `source` with restored frames; every target is whole or untouched. Returns what its owner should know.

    targets: paths whose suffixes `jobs.output_suffix` gave, and the channels of the restored frames that each takes:
        three, or several times three for as many pictures side by side.
    restore: upright frames (h, w, 3) to frames (h, w, c) of the same dtype, one for one. Meanwhile other threads decode
        the frames to come and encode those that are done.
    on_error: "skip" leaves out frames that cannot be decoded or are cut off, and counts them; "stop" makes them a
        VideoError.
    VideoError: the file is missing, broken or has no pictures, or its sound cannot be kept.
    """
    picture, mender, damage = _first_picture(source), _mender(source), Damage(source, on_error == "stop")
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(opened(source))
        drafts = {stack.enter_context(files.draft(path)): path for path in targets}
        counts = {path: (channels.stop - channels.start) // 3 for path, channels in targets.items()}
        writers = [stack.enter_context(Writer(x, path, reader, picture, counts[path])) for x, path in drafts.items()]
        moments: deque[Moment] = deque()
        frames = stack.enter_context(made_ahead(_frames(Clip(source, reader, picture, damage, mender), moments), AHEAD))
        write = stack.enter_context(behind(AHEAD))
        for frame in restore(frames):
            write(_write, writers, targets.values(), moments.popleft(), frame)
        write(_copy, writers, [packet for moment in moments for packet in moment.packets])
    joined = f"{len(mender.parts)} recordings, joined: each is shown after the other" if len(mender.parts) > 1 else ""
    notes = [joined, damage.note(), *damage.late, *(writer.note for writer in writers)]
    return "; ".join(dict.fromkeys(filter(None, notes)))


def _write(writers: Sequence[Writer], places: Iterable[slice], moment: Moment, frame: np.ndarray) -> None:
    """Adds a frame to every video, each taking its channels of it, after the packets that came before it."""
    _copy(writers, moment.packets)
    for writer, channels in zip(writers, places, strict=True):
        writer.frame(frame[..., channels], moment.pts, moment.duration)


def _copy(writers: Sequence[Writer], packets: Iterable[av.Packet]) -> None:
    for packet in packets:
        for writer in writers:
            writer.copy(packet)


def _first_picture(source: Path) -> av.VideoFrame:
    with opened(source) as reader, named(source, "truncated or broken"):
        for packet in packets(reader, pictures(source, reader)):
            with contextlib.suppress(av.InvalidDataError):  # a stream may begin in the middle
                for frame in packet.decode():
                    return frame
    raise VideoError(f"{source}: holds no picture that can be decoded")


def _mender(source: Path) -> joins.Mender:
    """What mends the clock of joined streams; it has to know all parts before the first frame."""
    with opened(source) as reader:
        video = pictures(source, reader).index
        if not JUMPING & formats(reader):
            return joins.Mender({}, video)
        chosen = [*reader.streams.audio, reader.streams[video]]
        with named(source, "truncated or broken"):
            return joins.Mender(joins.parts(packets(reader, *(x for x in chosen if x.codec_context))), video)


class Clip(NamedTuple):
    """A video that is being read."""

    path: Path
    reader: av.container.InputContainer
    picture: av.VideoFrame  # the first
    damage: Damage
    mender: joins.Mender


def _frames(clip: Clip, moments: deque[Moment]) -> Iterator[np.ndarray]:
    """Yields the frames, upright; their moments are appended to `moments`, and a last one of the packets after them."""
    video = pictures(clip.path, clip.reader)
    size, clock = (clip.picture.width, clip.picture.height), Clock(video)
    pixel_format = "rgb48le" if depth(clip.picture) > 8 else "rgb24"
    turn = turning(clip.picture)  # of all frames: the new video has but one matrix
    others, ending, done = [], Ending(clip.path, clip.reader, video), 0
    for packet in _read(clip, video, ending):
        clip.mender.mend(packet)
        if not ending.seen(packet):
            continue  # a decoder with threads could lose whole frames over it
        if packet.is_corrupt:
            clip.damage.add(ending.time, packets=1)
        if packet.stream.index != video.index:
            others.append(packet)
            continue
        for frame in _decoded(packet, clip.damage, ending.time):
            if (frame.width, frame.height) != size:
                raise VideoError(
                    f"{clip.path}: changes its size to {frame.width} x {frame.height} at {ending.time:.1f} s"
                )
            moments.append(Moment(*clock.time(frame), others))
            others, done = [], done + 1
            yield turn.upright(rgb(clip.path, frame, pixel_format, interpolation=SCALING))
    moments.append(Moment(0, 0, others))
    clip.damage.end(ending.missing(clock.longest * video.time_base, done + clip.damage.frames))
    if (lost := clip.damage.frames) > done:
        raise VideoError(f"{clip.path}: broken, {lost} of {lost + done} frames cannot be decoded")


def _decoded(packet: av.Packet, damage: Damage, time: float) -> Iterator[av.VideoFrame]:
    """The whole frames of a packet."""
    try:
        frames = packet.decode()
    except av.FFmpegError:
        damage.add(time, packets=not packet.is_corrupt, frames=1)
        return
    for frame in frames:
        if frame.is_corrupt:
            damage.add(time, frames=1)
        else:
            yield frame


def _read(clip: Clip, video: av.VideoStream, ending: Ending) -> Iterator[av.Packet]:
    """All packets that can be read; the last one is empty and asks the decoder for what it holds back."""
    try:
        yield from packets(clip.reader, late=clip.damage.late)
    except av.FFmpegError as error:
        clip.damage.end(f"broken at {ending.time:.1f} s ({error.strerror}), what comes after it is missing")
        last = av.Packet()
        last.stream = video
        yield last
