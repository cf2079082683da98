"""Frames of videos, written once as PNG files: a video cannot be read exactly at random places, PNG files can."""

import hashlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import av
import numpy as np
from PIL import Image
from tqdm import tqdm

from b2b_jax import images
from b2b_jax.errors import UserError
from b2b_jax.files import read_json, write_json

THUMBNAIL = (32, 32)  # pixels; noise averages out in it, motion does not


def extract(video: Path, cache: Path, every: int, limit: int, thin: float) -> tuple[list[Path], str]:
    """Writes frames of a video as PNG files, once; a stopped call is gone on with.

    Args:
        video: file of any kind that FFmpeg reads.
        cache: folder in which the video gets one of its own, named after it, its state and the arguments.
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
    state = (str(video.resolve()), video.stat().st_size, video.stat().st_mtime_ns, every, limit, thin)
    target = cache / f"{video.stem}-{hashlib.sha256(repr(state).encode()).hexdigest()[:12]}"
    done = read_json(target / "done.json")
    if done is None:
        fault = ""
        try:
            _write_frames(video, target, every, limit, thin)
        except (av.FFmpegError, IndexError) as error:
            fault = f"{video}: not a video, or broken ({getattr(error, 'strerror', 'no pictures in it')})"
        done = {"video": str(video), "frames": len(list(target.glob("[0-9]*.png"))), "fault": fault}
        write_json(target / "done.json", done)
    return sorted(target.glob("[0-9]*.png")), done["fault"]


def _write_frames(video: Path, target: Path, every: int, limit: int, thin: float) -> None:
    with av.open(video) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        total = min(filter(None, (limit, -(-stream.frames // every))), default=None)
        chosen = islice(_chosen(container.decode(stream), every, thin), limit or None)
        for number, image in tqdm(chosen, desc=f"frames of {video.name}", unit="frame", total=total, leave=False):
            path = target / f"{number:06d}.png"
            if not path.exists():
                images.write(path, image)


def _chosen(decoded: Iterator[av.VideoFrame], every: int, thin: float) -> Iterator[tuple[int, np.ndarray]]:
    """Each `every`-th frame that differs from the last chosen one, upright, with its number."""
    last = None
    for number, frame in islice(enumerate(decoded), 0, None, every):
        image = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
        small = np.asarray(Image.fromarray(image).convert("L").resize(THUMBNAIL, Image.Resampling.BOX), np.float32)
        if last is None or np.abs(small - last).mean() >= thin:
            last = small
            yield number, np.ascontiguousarray(image)
