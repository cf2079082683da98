"""Sources of pairs that are made of sharp photos alone."""

from collections.abc import Callable, Sequence

import numpy as np

from b2b_jax.data import blur, degradation, photo, sensor
from b2b_jax.data.photo import File
from b2b_jax.data.sources import Record, Source
from b2b_jax.errors import UserError

FRAME_KINDS = ("frames", "realistic_frames")
LARGEST_DEGRADED = 1024  # pixels: a whole photo of a phone would take seconds


class Averages:
    """Pairs made of sharp frames: what a long exposure would have shown of neighbours, and the middle one of them.

    `expose` makes the one of frames (n, h, w, 3) in [0, 1] and the index of the pair.
    """

    def __init__(self, windows: Sequence[Sequence[File]], expose: Callable[[np.ndarray, int], np.ndarray]):
        self.windows, self.expose = list(windows), expose

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> Record:
        window = self.windows[index]
        frames = [photo.read(file) for file in window]
        sharp = frames[len(frames) // 2]
        if len({frame.shape for frame in frames}) > 1:
            raise UserError(f"{window[0]} and the {len(window) - 1} frames after it differ in size")
        blurry = blur.round8(self.expose(np.stack(frames).astype(np.float32) / 255, index))
        return {"blurry": blurry, "sharp": sharp, "name": str(window[len(window) // 2])}

    def size(self, index: int) -> tuple[str, int, int]:
        """Name, height and width of the middle frame, without decoding."""
        middle = self.windows[index][len(self.windows[index]) // 2]
        return str(middle), *photo.size(middle)


def averages(windows: Sequence[Sequence[File]], kind: str, response: str, seed: int) -> Averages:
    """Pairs of neighbouring frames, exposed as one of FRAME_KINDS says."""
    expose = {
        "frames": lambda frames, index: sensor.average_frames(frames, response),
        "realistic_frames": lambda frames, index: sensor.realistic_blur(
            np.random.default_rng([seed, index]), frames, sensor.Sensor()
        ),
    }
    return Averages(windows, expose[kind])


class Degraded:
    """Pairs made of sharp photos, cut to their centre: each under a degradation of its own, always the same."""

    def __init__(self, photos: Source, kind: str, seed: int):
        self.photos, self.kind, self.seed = photos, kind, seed

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> Record:
        record, rng = self.photos[index], np.random.default_rng([self.seed, index])
        sharp = _centre(record["image"], LARGEST_DEGRADED)
        blurry = blur.round8(degradation.DEGRADATIONS[self.kind](rng, sharp.astype(np.float32) / 255))
        return {"blurry": blurry, "sharp": sharp, "name": record["name"]}

    def size(self, index: int) -> tuple[str, int, int]:
        """Name, height and width, without decoding."""
        name, height, width = self.photos.size(index)
        return name, min(height, LARGEST_DEGRADED), min(width, LARGEST_DEGRADED)


def _centre(image: np.ndarray, largest: int) -> np.ndarray:
    top, left = (max(length - largest, 0) // 2 for length in image.shape[:2])
    return image[top : top + largest, left : left + largest]
