"""The translator's curriculum (arXiv 2403.16205, section 4.1): easy, that is less blurry, photos first.

Our reading of the paper: within a batch, images are ranked by the variance of their Laplacian (higher = sharper); the
first `share` of them counts in the losses. The share is constant at first, then grows in a line to the whole batch.
The other direction, the blurriest first, is there to be compared with.
"""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

Array = jax.Array
DIRECTIONS = {"sharp_first": -1, "blurry_first": 1}  # the sign under which a rising variance ranks the photos


def laplacian_variance(images: Array) -> Array:
    """Variance of the 4-neighbour Laplacian of the channel mean of images (n, h, w, 3) in [0, 1]: (n,)."""
    x = jnp.mean(images, axis=-1)
    laplacian = x[:, 2:, 1:-1] + x[:, :-2, 1:-1] + x[:, 1:-1, 2:] + x[:, 1:-1, :-2] - 4 * x[:, 1:-1, 1:-1]
    return jnp.var(laplacian, axis=(1, 2))


def share(step: Array, config: ConfigDict) -> Array:
    """Share of the batch that counts at `step`: `start` until `grow_from`, then linear to 1 at `full_at`."""
    progress = jnp.clip((step - config.grow_from) / max(config.full_at - config.grow_from, 1), 0.0, 1.0)
    return config.start + (1.0 - config.start) * progress


def mask(images: Array, share: Array, direction: str) -> Array:
    """1 for the first ⌈share · n⌉ of the images (n, h, w, 3), 0 for the others: (n,) float32, never all zero."""
    n = len(images)
    rank = jnp.argsort(jnp.argsort(DIRECTIONS[direction] * laplacian_variance(images)))
    return (rank < jnp.maximum(jnp.ceil(share * n - 1e-4), 1)).astype(jnp.float32)
