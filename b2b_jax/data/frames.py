"""Frames of videos, written once as PNG files: a video cannot be read exactly at random places, PNG files can."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import av
import numpy as np
from PIL import Image

from b2b_jax import clips, images, terminal
from b2b_jax.errors import UserError, shown
from b2b_jax.files import read_object, write_json

VERSION = 1  # raise it when a change alters the frames, or what is said of them
SHORT = 100  # bytes of a video's name that its folder begins with
THUMBNAIL = (32, 32)  # pixels; noise averages out in it, motion does not


def extract(video: Path, cache: Path, every: int, limit: int, thin: float) -> tuple[list[Path], str]:
    """Writes frames of a video as PNG files, once; a stopped call is gone on with.

    Args:
        video: file of any kind that FFmpeg reads.
        cache: folder in which the video gets one of its own, named after it, its state, VERSION and the arguments.
        every: each so many-th frame is looked at.
        limit: frames that are kept at most; 0 = all.
        thin: grey levels by which a frame must differ from the one kept before it; 0 = none.

    Returns:
        The frames' files in order, and what was wrong with the video in one line: "" when it was read to its end.

    Raises:
        UserError: an argument that cannot be.
    """
    if every < 1 or limit < 0 or thin < 0:
        raise UserError(
            f"frames of videos: every={every}, limit={limit}, thin={thin}; wants every >= 1, the others >= 0"
        )
    try:
        images.kind(video)  # no broken link or pipe, which has no state
        file = video.stat()
        state = (VERSION, str(video.resolve()), file.st_size, file.st_mtime_ns, every, limit, thin)
    except (images.ImageError, OSError) as error:
        return [], shown(error)
    target = cache / f"{_short(video.stem)}-{hashlib.sha256(repr(state).encode()).hexdigest()[:12]}"
    done = read_object(target / "done.json")
    if "fault" not in done:
        fault = _write_frames(video, target, every, limit, thin)
        count = len(list(target.glob("[0-9]*.png")))
        done = {"video": str(video), "frames": count, "fault": fault if fault or count else f"{video}: holds no frame"}
        write_json(target / "done.json", done)
    return sorted(target.glob("[0-9]*.png")), shown(done["fault"])


def _short(stem: str) -> str:
    """A name that leaves room for more: file systems allow 255 bytes, and no bytes that are no UTF-8 on some."""
    return shown(stem).encode()[:SHORT].decode(errors="ignore")


def _write_frames(video: Path, target: Path, every: int, limit: int, thin: float) -> str:
    """Writes the frames that are not there yet; returns what was wrong with the video, "" for nothing."""
    lost = Lost()
    try:
        with clips.opened(video) as container, clips.named(video, "truncated or broken"):
            stream = clips.pictures(video, container)
            total = min(filter(None, (limit, -(-stream.frames // every))), default=None)
            chosen = islice(_chosen(video, _decoded(video, container, stream, lost), every, thin), limit or None)
            what = f"frames of {shown(video.name)}"
            for number, image in terminal.bar(chosen, desc=what, unit="frame", total=total, leave=False):
                path = target / f"{number:06d}.png"
                if not path.exists():
                    images.write(path, image)
    except clips.VideoError as error:
        return str(error)
    damage = f"damaged frames that are left out: {lost.frames}" if lost.frames else ""
    faults = "; ".join(filter(None, [damage, lost.end]))
    return f"{video}: {faults}" if faults else ""


@dataclass
class Lost:
    """What of a video cannot be had."""

    frames: int = 0  # that cannot be decoded
    end: str = ""  # how it breaks off, if it does


def _decoded(
    video: Path, container: av.container.InputContainer, stream: av.VideoStream, lost: Lost
) -> Iterator[av.VideoFrame]:
    """The frames; notes in `lost`, once all are read, what is missing."""
    ending, clock, done = clips.Ending(video, container, stream), clips.Clock(stream), 0
    for packet in clips.packets(container):  # of sound, too, which may be longer than the pictures
        if not ending.seen(packet) or packet.stream.index != stream.index:
            continue
        try:
            for frame in packet.decode():
                if frame.is_corrupt:  # FFmpeg fills in what it could not decode
                    lost.frames += 1
                    continue
                clock.time(frame)
                done += 1
                yield frame
        except av.InvalidDataError:
            lost.frames += 1
    lost.end = ending.missing(clock.longest * stream.time_base, done + lost.frames)


def _chosen(video: Path, decoded: Iterator[av.VideoFrame], every: int, thin: float) -> Iterator[tuple[int, np.ndarray]]:
    """Each `every`-th frame that differs from the last chosen one, upright, with its number."""
    last = None
    for number, frame in islice(enumerate(decoded), 0, None, every):
        image = clips.turning(frame).upright(clips.rgb(video, frame, "rgb24"))
        small = np.asarray(Image.fromarray(image).convert("L").resize(THUMBNAIL, Image.Resampling.BOX), np.float32)
        if last is None or np.abs(small - last).mean() >= thin:
            last = small
            yield number, image
