"""The camera's training photos divided into blurry (B) and sharp (S) piles, whole scenes at a time."""

from collections import Counter
from collections.abc import Sequence

import numpy as np


def by_scene(scenes: Sequence[str], ratio: float, seed: int) -> set[str]:
    """Chooses the scenes of B so that its share of the photos comes near `ratio`; the others are S's.

    Args:
        scenes: the scene of every photo.
        ratio: B's share of the photos, 0 < ratio < 1.
        seed: of the order in which scenes are tried.

    Scenes are taken in a random order while they bring the share nearer; no photo of a scene of B is in S. At least one
    scene goes to either side. Raises ValueError if there are fewer than two scenes.
    """
    sizes = Counter(scenes)
    if len(sizes) < 2:
        raise ValueError(f"a split by scene needs at least two scenes, got {len(sizes)}")
    names = sorted(sizes)
    wanted, taken, chosen = ratio * len(scenes), 0, set()
    for index in np.random.default_rng(seed).permutation(len(names)):
        name = names[index]
        nearer = abs(taken + sizes[name] - wanted) < abs(taken - wanted)
        if not chosen or (nearer and len(chosen) < len(names) - 1):
            chosen.add(name)
            taken += sizes[name]
    return chosen
