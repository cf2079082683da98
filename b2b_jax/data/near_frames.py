"""The frames of one's own videos, and the pairs that matching makes of them (matching.py), once, on disk.

A folder keeps index.json (the digest of frames and settings, every frame's sharpness, the share that was kept of every
match) and for frame 17 its truth, 17.png, and what is kept of it, 17_kept.png: white. A stopped matching
resumes at the next frame, and a finished one is never done again.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from b2b_jax import images, terminal
from b2b_jax.data import domains, folder, matching, photo
from b2b_jax.data.photo import Photo
from b2b_jax.data.sharpness import laplacian_variance
from b2b_jax.data.skipping import BadPhotos
from b2b_jax.data.sources import Also, Pairs, Source
from b2b_jax.errors import UserError
from b2b_jax.files import read_object, write_json
from b2b_jax.images import ImageError

VERSION = 2  # raise it when a change alters the pairs
UNREADABLE = -1.0  # in place of a frame's sharpness


@dataclass(frozen=True)
class Clips:
    """The frames of all videos, by video and in order; a frame's number is its place here."""

    photos: list[Photo]  # without twins
    digest: str  # of the frames' names and sizes, and of the settings that they are matched with
    bad: BadPhotos


def open_clips(data: ConfigDict, settings: ConfigDict) -> Clips:
    """The frames of the videos and sub-folders in `settings.folder`, by default in `data.unknown_blur`.

    `settings` is the section `adaptation.frames`. UserError when there is no such folder, nothing in it, or a video
    that cannot be read and data.bad_photos is "stop".
    """
    path = settings.folder or data.unknown_blur
    if not path or not Path(path).is_dir():
        found = f"adaptation.frames.folder is {path}: no such folder" if path else "There are no frames to match"
        raise UserError(f"{found}; give a folder of videos, --config.adaptation.frames.folder=DIR")
    found, faults = folder.photos(Path(path), Path(data.root) / "frames", every=1, limit=settings.limit, thin=0.0)
    if faults and data.bad_photos == "stop":
        raise UserError(f"{faults[0]}; remove it, or set --config.data.bad_photos=skip")
    if not found:
        raise UserError(f"adaptation.frames.folder is {path}: no frames in it")
    bad = BadPhotos()
    for fault in faults:
        bad.add(fault)
    (found,) = folder.kept_apart(data, {"adaptation.frames": found}).values()
    frames = sorted(found, key=lambda frame: frame.scene)  # which leaves the order within a scene as it is
    names = [(frame.scene, frame.blurry.name, frame.blurry.stat().st_size) for frame in frames if _is_there(frame)]
    told = repr((VERSION, settings.near, settings.sharper, settings.agreement, names))
    return Clips(frames, hashlib.sha256(told.encode(errors="backslashreplace")).hexdigest(), bad)


def _is_there(frame: Photo) -> bool:
    """False for a broken link, which is among the listed photos so that whoever reads it reports it."""
    return frame.blurry.is_file()


class Index(NamedTuple):
    """What is known of the frames of `Clips`."""

    sharpness: list[float]  # of all frames, or still empty
    kept: dict[int, float]  # of a frame that has a sharper one near by: the share of its pixels that match it


def read_index(target: Path, clips: Clips) -> Index | None:
    """What the folder knows of these frames; empty if it knows nothing yet, None if it knows other frames."""
    saved = read_object(target / "index.json")
    if saved and saved.get("digest") != clips.digest:
        return None
    return Index(saved.get("sharpness", []), {int(key): share for key, share in saved.get("kept", {}).items()})


def is_older(target: Path) -> bool:
    """Whether the folder's frames were matched by an older version of this module."""
    return read_object(target / "index.json").get("version") != VERSION


def match(clips: Clips, target: Path, data: ConfigDict, settings: ConfigDict) -> Index:
    """Finds the blurry frames that have a sharper one near by and matches them, all that `target` does not know yet."""
    index = read_index(target, clips) or Index([], {})

    def save() -> None:
        known = {"sharpness": index.sharpness, "kept": index.kept}
        write_json(target / "index.json", {"version": VERSION, "digest": clips.digest, **known})

    if not index.sharpness:
        progress = terminal.bar(clips.photos, desc="sharpness of frames", unit="frame", leave=False)
        index.sharpness.extend(_sharpness(frame, clips.bad, data.bad_photos) for frame in progress)
        save()
    chosen = choose(clips.photos, index.sharpness, settings)
    for blurry, sharp in terminal.bar(chosen.items(), desc="matching frames", unit="frame", leave=False):
        if blurry not in index.kept:
            index.kept[blurry] = _match(clips.photos, (blurry, sharp), target, settings.agreement)
            save()
    return index


def choose(photos: Sequence[Photo], sharpness: Sequence[float], settings: ConfigDict) -> dict[int, int]:
    """The number of every frame that has a sharper one near by, and of that one, see `matching.choose`."""
    found = {}
    for _, group in groupby(range(len(photos)), key=lambda number: photos[number].scene):
        numbers = list(group)
        chosen = matching.choose([sharpness[n] for n in numbers], settings.near, settings.sharper)
        found |= {numbers[i]: numbers[j] for i, j in chosen.items()}
    return found


def pairs(clips: Clips, target: Path, numbers: Sequence[int], data: ConfigDict) -> Source:
    """The matched frames of these numbers: {"blurry", "sharp", "kept": white where "sharp" is the truth}."""
    frames = [clips.photos[number] for number in numbers]
    twins = [Photo(frame.blurry, _truth(target, n), frame.scene) for frame, n in zip(frames, numbers, strict=True)]
    return domains.training(data, Also(Pairs(twins), "kept", [_kept(target, n) for n in numbers]), clips.bad)


def _truth(target: Path, number: int) -> Path:
    return target / f"{number}.png"


def _kept(target: Path, number: int) -> Path:
    return target / f"{number}_kept.png"


def _sharpness(frame: Photo, bad: BadPhotos, policy: str) -> float:
    try:
        return laplacian_variance(photo.read(frame.blurry))
    except ImageError as error:
        if policy == "stop":
            raise
        bad.add(str(error))
        return UNREADABLE


def _match(photos: Sequence[Photo], numbers: tuple[int, int], target: Path, agreement: float) -> float:
    """Matches a blurry frame with a sharp one and writes what comes of it; returns `Match.share`."""
    blurry, sharp = (photo.read(photos[number].blurry) for number in numbers)
    if blurry.shape != sharp.shape or min(blurry.shape[:2]) < matching.SMALLEST:
        return 0.0
    found = matching.match(blurry, sharp, agreement)
    images.write(_truth(target, numbers[0]), found.sharp)
    images.write(_kept(target, numbers[0]), np.repeat(np.uint8(255) * found.kept[..., None], 3, axis=-1))
    return found.share(blurry)
