"""Whether two piles can tell a camera's blur from what they show.

Blur widens the autocorrelation of a photo's gradients and weakens them. So does what a photo shows: clouds look
blurrier than leaves. Between the parts of one pile only the scenes differ, between the piles scenes and blur. Where the
piles lie apart no farther than their parts do, the camera would learn the scenes.
"""

import jax
import jax.numpy as jnp
import numpy as np

from b2b_jax import levels
from b2b_jax.data.sources import Source, spread
from b2b_jax.models.autocorrelation import autocorrelations, strengths

PHOTOS = 120  # of each pile that are looked at, evenly spread
PARTS = (4, 8)  # of each pile, in the order of its photos: neighbours often show the same scene
WINDOW = 64  # pixels of the squares that a photo is cut into
LAGS = 10  # pixels to each side
RINGS = ((0, 3), (3, 6), (6, 10))  # lags, above the first and below the second, of a mean autocorrelation
FAINT = 2 / 255  # root mean square of a square's gradients, below which it shows nothing


def evidence(blurry: Source, sharp: Source) -> float:
    """How far the piles lie apart, in standard errors of that distance: the largest over the features; 0 for none.

    Six or more say how much blur lies between the piles to a sixth or better.
    """
    piles = [described(pile) for pile in (blurry, sharp)]
    if min(map(len, piles)) < 2 * min(PARTS):
        return 0.0
    apart = piles[0].mean(0) - piles[1].mean(0)
    errors = np.sqrt(sum(variance(pile) for pile in piles))
    return float(np.max(np.abs(apart) / np.maximum(errors, 1e-9)))


def described(pile: Source) -> np.ndarray:
    """The features of up to PHOTOS photos of a pile that show something: (photos, features)."""
    chosen = spread(pile, PHOTOS)
    return np.array([found for i in chosen if (found := features(pile[i]["image"])) is not None])


def variance(photos: np.ndarray) -> np.ndarray:
    """Of the mean of (photos, features), by how its parts differ: the largest over their numbers, (features,)."""
    found = []
    for count in PARTS:
        means = np.array([part.mean(0) for part in np.array_split(photos, min(count, len(photos) // 2))])
        found.append(means.var(0, ddof=1) / len(means))
    return np.max(found, axis=0)


def features(photo: np.ndarray) -> np.ndarray | None:
    """Autocorrelation over the RINGS and strength of gradients: means over a photo's squares that show something."""
    side = min(WINDOW, *photo.shape[:2])
    rows, columns = (length // side for length in photo.shape[:2])
    squares = levels.to_float(photo)[: rows * side, : columns * side].reshape(rows, side, columns, side, 3)
    found, strong = map(np.asarray, _seen(jnp.asarray(squares.transpose(0, 2, 1, 3, 4).reshape(-1, side, side, 3))))
    shows = strong > np.log(FAINT)
    if not shows.any():
        return None
    lags = np.arange(-LAGS, LAGS + 1)
    distance = np.hypot(lags[:, None], lags)
    rings = [found[shows][:, (distance > inner) & (distance < outer)].mean() for inner, outer in RINGS]
    return np.array([*rings, strong[shows].mean()])


@jax.jit
def _seen(squares: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of squares (m, s, s, 3): the autocorrelation, mean over both gradients, (m, k, k), and their strength (m,)."""
    side = 2 * LAGS + 1
    found = autocorrelations(squares, LAGS).reshape(-1, 2, side, side).mean(1)
    return found, strengths(squares).mean(1)
