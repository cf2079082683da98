"""Augmentation of whole batches on the accelerator: quarter turns, mirror images, colour jitter (dm-pix)."""

from collections.abc import Sequence

import dm_pix as pix
import jax
import jax.numpy as jnp

Array = jax.Array


def to_float(images: Array) -> Array:
    """uint8 photos (n, h, w, 3) to float32 in [0, 1]: bytes cross to the accelerator, a quarter of the traffic."""
    return images.astype(jnp.float32) / 255.0


def dihedral(key: Array, batches: Sequence[Array]) -> list[Array]:
    """The same random one of the eight symmetries of the square for the i-th image of every batch (n, s, s, c)."""
    symmetries = jax.random.randint(key, (len(batches[0]),), 0, 8)
    return [jax.vmap(_symmetry)(batch, symmetries) for batch in batches]


def mirror(key: Array, batches: Sequence[Array]) -> list[Array]:
    """The i-th image of every batch (n, h, w, c) as it is or mirrored left to right, each with probability 1/2."""
    mirrored = jax.random.bernoulli(key, shape=(len(batches[0]), 1, 1, 1))
    return [jnp.where(mirrored, batch[:, :, ::-1], batch) for batch in batches]


def _symmetry(image: Array, index: Array) -> Array:
    image = jnp.where(index & 1, image[:, ::-1], image)
    image = jnp.where(index & 2, image[::-1], image)
    return jnp.where(index & 4, image.swapaxes(0, 1), image)


def color_jitter(key: Array, images: Array, strength: float) -> Array:
    """Random brightness, contrast and saturation of each image within ± `strength`, clipped to [0, 1]."""

    def jitter(key: Array, image: Array) -> Array:
        brightness, contrast, saturation = jax.random.split(key, 3)
        image = pix.random_brightness(brightness, image, strength)
        image = pix.random_contrast(contrast, image, 1 - strength, 1 + strength)
        # Not dm-pix's saturation: its hue picks a branch by the equality of two floats, which a compiled program may
        # compute with different roundings; one pixel in ten then had a wrong colour.
        factor = jax.random.uniform(saturation, (), minval=1 - strength, maxval=1 + strength)
        grey = jnp.mean(image, axis=-1, keepdims=True)
        return jnp.clip(grey + factor * (image - grey), 0.0, 1.0)

    return jax.vmap(jitter)(jax.random.split(key, len(images)), images)
