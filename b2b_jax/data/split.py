"""The camera's training photos divided into blurry (B) and sharp (S) piles, whole scenes at a time."""

from collections import Counter
from collections.abc import Sequence

import numpy as np


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
