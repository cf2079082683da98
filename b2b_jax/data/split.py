"""Photos divided by scene: the camera's into blurry (B) and sharp (S) piles, neighbouring frames into runs."""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

import numpy as np

from b2b_jax.data.photo import File, Photo
from b2b_jax.errors import UserError


def by_scene(scenes: Sequence[str], ratio: float, seed: int) -> set[str]:
    """Chooses the scenes of B so that its share of the photos comes nearest to `ratio`; the others are S's.

    Args:
        scenes: the scene of every photo.
        ratio: B's share of the photos, 0 < ratio < 1.
        seed: chooses among the choices that come equally near.

    No photo of a scene of B is in S, and at least one scene is on either side. Raises ValueError if there are fewer
    than two scenes.
    """
    sizes = Counter(scenes)
    if len(sizes) < 2:
        raise ValueError(f"a split by scene needs at least two scenes, got {len(sizes)}")
    names = np.random.default_rng(seed).permutation(sorted(sizes)).tolist()
    # Subset sums: bit s of sums[i] tells that some of the first i scenes have s photos together.
    sums = [1]
    for name in names:
        sums.append(sums[-1] | sums[-1] << sizes[name])
    reachable = [total for total, bit in enumerate(reversed(bin(sums[-1])[2:])) if bit == "1"]
    left = min(reachable[1:-1], key=lambda total: abs(total - ratio * len(scenes)))
    chosen = set()
    for name, before in zip(reversed(names), reversed(sums[:-1]), strict=True):
        if not before >> left & 1:
            chosen.add(name)
            left -= sizes[name]
    return chosen


def divide(photos: list[Photo], ratio: float, seed: int) -> tuple[list[Photo], list[Photo], dict]:
    """The photos of B, those of S, and the record of which scenes went where; UserError for fewer than two scenes."""
    chosen = _chosen(photos, ratio, seed)
    blurry, sharp = ([p for p in photos if (p.scene in chosen) is side] for side in (True, False))
    return blurry, sharp, record(blurry, sharp, ratio, seed)


def thinned(photos: list[Photo], share: float, seed: int) -> list[Photo]:
    """As many whole scenes as come nearest to `share` of the photos; all for 1. UserError for fewer than two scenes."""
    return photos if share == 1 else divide(photos, share, seed)[0]


def _chosen(photos: list[Photo], ratio: float, seed: int) -> set[str]:
    try:
        return by_scene([p.scene for p in photos], ratio, seed)
    except ValueError as error:
        raise UserError(f"The photos beside {photos[0].blurry} cannot be divided: {error}") from error


def record(blurry: list[Photo], sharp: list[Photo], ratio: float, seed: int) -> dict:
    """What split.json holds."""
    piles = {"unknown_blur": blurry, "unknown_sharp": sharp}
    scenes = {name: {"photos": len(pile), "scenes": sorted({p.scene for p in pile})} for name, pile in piles.items()}
    return {"ratio": ratio, "seed": seed} | scenes


def apart(a: list[Photo], b: list[Photo], ratio: float, seed: int) -> tuple[list[Photo], list[Photo]]:
    """Parts of two piles that show no scene in common: by sub-folder, or as the published code cuts flat folders."""
    if all(str(p.blurry).endswith(p.scene) for p in a + b):
        # Frames in order: the first of A and the last of B show other scenes.
        return a[: int(ratio * len(a))], b[int(ratio * len(b)) :]
    if not {p.scene for p in a} & {p.scene for p in b}:
        return a, b
    chosen = _chosen(a + b, ratio, seed)
    return [p for p in a if p.scene in chosen], [p for p in b if p.scene not in chosen]


def windows(photos: list[Photo], count: int) -> list[list[File]]:
    """Runs of `count` neighbouring photos of one scene, none in two of them."""
    runs = [[p.blurry for p in scene] for _, scene in groupby(photos, key=lambda p: p.scene)]
    return [run[start : start + count] for run in runs for start in range(0, len(run) - count + 1, count)]
