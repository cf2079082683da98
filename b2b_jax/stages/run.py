"""What the stages of one run share: its config and folder, and, opened on first use, its photos and networks."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from b2b_jax import weights
from b2b_jax.data import domains, near_frames
from b2b_jax.data.quickly import once
from b2b_jax.data.sources import Record, Source
from b2b_jax.networks import WEIGHTS, Network, check_stage, compute_dtype, load, with_local_means


@dataclass(frozen=True)
class Run:
    """One run of `b2b_jax.main`."""

    config: ConfigDict
    workdir: Path

    @cached_property
    def known(self) -> domains.Known:
        """Pairs of the known blur."""
        return once("known", lambda: domains.open_known(self.config))

    @cached_property
    def unknown(self) -> domains.Unknown:
        """The camera's photos."""
        return once("unknown", lambda: domains.open_unknown(self.config))

    @cached_property
    def clips(self) -> near_frames.Clips:
        """The frames of videos that the adaptation may take its pairs from."""
        return once("clips", lambda: near_frames.open_clips(self.config.data, self.config.adaptation.frames))

    @property
    def dtype(self) -> jnp.dtype:
        """What the networks compute in."""
        return compute_dtype(self.config.compute_dtype)

    def weights_path(self, stage: str) -> Path:
        """The stage's weights: those given in the config, else those that it trains."""
        given = self.config[stage].weights if stage in self.config else ""
        return Path(given) if given else self.workdir / stage / WEIGHTS

    def trained(self, stage: str) -> bool:
        """True when the stage's weights are there, so that nothing is left to train."""
        return self.weights_path(stage).is_file()

    def network(self, stage: str) -> Network:
        """The network that the stage trained or was given; deblurrers with their test-time local converter as asked."""
        path, hyper = self.weights_path(stage), self.config.deblurrer.network
        network = self.read(path)
        if path == self.workdir / stage / WEIGHTS:
            check_stage(path, self.config)
        if stage not in ("deblurrer", "adaptation") or hyper.name != "nafnet":
            return network
        return with_local_means(network, hyper.local, hyper.train_size)

    def hashed(self, stage: str) -> bool:
        """True when the stage's weights carry a SHA-256, which `network` compares; those of older versions do not."""
        path = self.workdir / stage / WEIGHTS
        return path.is_file() and "sha256" in weights.header(path)

    def read(self, path: Path) -> Network:
        """The network at `path`, read once as long as the file is the same; UserError when there is none of ours."""
        stamp = (path, path.stat().st_mtime_ns if path.is_file() else 0)
        if stamp not in self._read:
            self._read[stamp] = load(path, self.dtype)
        return self._read[stamp]

    @cached_property
    def _read(self) -> dict[tuple[Path, int], Network]:
        return {}


def centre_crops(source: Source, count: int, crop: int, multiple: int = 1) -> dict[str, np.ndarray]:
    """The first `count` records of `source` (0 = all), cut to their largest common centred square of at most `crop` px.

    Its side is a multiple of `multiple`.

    Returns float32 arrays (n, s, s, 3) in [0, 1], by the records' keys. One whole record is in memory at a time.
    """
    records = [_cut(source[i], crop) for i in range(min(count or len(source), len(source)))]
    side = min(min(x.pixels.shape[:2]) for record in records for x in record.values()) // multiple * multiple
    cut = {k: np.stack([record[k].centre(side) for record in records]) for k in records[0]}
    return {k: photos.astype(np.float32) / 255.0 for k, photos in cut.items()}


class _Cut(NamedTuple):
    """The middle of a photo."""

    pixels: np.ndarray  # (s, s, 3)
    shape: tuple[int, int]  # of the photo

    def centre(self, side: int) -> np.ndarray:
        """The photo's centred square, which is this one's but for a pixel where it is rounded."""
        here = len(self.pixels)
        top, left = ((length - side) // 2 - (length - here) // 2 for length in self.shape)
        return self.pixels[top : top + side, left : left + side]


def _cut(record: Record, crop: int) -> dict[str, _Cut]:
    """Centred squares of at most `crop` pixels, copied out of their photos."""
    photos = {k: v for k, v in record.items() if k != "name"}
    return {k: _Cut(_centre(v, min(crop, *v.shape[:2])).copy(), v.shape[:2]) for k, v in photos.items()}


def _centre(image: np.ndarray, side: int) -> np.ndarray:
    top, left = ((length - side) // 2 for length in image.shape[:2])
    return image[top : top + side, left : left + side]
