"""A source whose photos tell where a crop was cut."""

import numpy as np

from b2b_jax.data.sources import ArraySource


def labelled(count, side=12):
    """Photos whose channels hold the photo's number, the row and the column."""
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 2, indexing="ij"), -1)
    photos = [np.concatenate([np.full((side, side, 1), number), grid], -1) for number in range(count)]
    return ArraySource("labelled", image=np.array(photos, np.uint8))
