"""Losses of the deblurrer and of Blur2Blur (Pham et al., CVPR 2024, arXiv 2403.16205, section 3).

Images are NHWC float32 in [0, 1]. Unless said otherwise a loss returns one value per image, (n,): the caller takes the
mean, or the mean over the images that its curriculum admits. All of them compute in float32, whatever comes in.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array
Features = Callable[[Array], Sequence[Array]]


def per_image(x: Array) -> Array:
    """Mean of `x` (n, ...) over everything but the batch, float32: (n,)."""
    return jnp.mean(x.astype(jnp.float32), axis=tuple(range(1, x.ndim)))


def difference(x: Array, y: Array) -> Array:
    """x - y, in float32 at least: bfloat16 images would lose it."""
    x, y = (z.astype(jnp.promote_types(z.dtype, jnp.float32)) for z in (x, y))
    return x - y


def weighted_mean(values: Array, weights: Array | None = None) -> Array:
    """Mean of `values` (n,) with `weights` (n,); the plain mean without."""
    return jnp.mean(values) if weights is None else jnp.sum(values * weights) / jnp.sum(weights)


# ---------------------------------------------------------------------------------------------------------- restoration


def l1(x: Array, y: Array) -> Array:
    """Mean absolute difference of images x and y (n, h, w, c): (n,)."""
    return per_image(jnp.abs(difference(x, y)))


def charbonnier(x: Array, y: Array, epsilon: float = 1e-3) -> Array:
    """Mean of sqrt((x - y)² + epsilon²) (Charbonnier et al., 1994): (n,)."""
    return per_image(jnp.sqrt(jnp.square(difference(x, y)) + epsilon**2))


def psnr_loss(x: Array, y: Array) -> Array:
    """Minus the PSNR in dB for a peak of 1 (n,), with NAFNet's guard of 1e-8 against equal images."""
    return 10.0 * jnp.log10(per_image(jnp.square(difference(x, y))) + 1e-8)


def mse(x: Array, y: Array) -> Array:
    """Mean squared difference: (n,)."""
    return per_image(jnp.square(difference(x, y)))


def sobel(x: Array, y: Array) -> Array:
    """Mean absolute difference of the horizontal and vertical Sobel derivatives, inside the image: (n,)."""
    return per_image(jnp.abs(_sobel(difference(x, y))))


def _sobel(x: Array) -> Array:
    """(n, h, w, c) -> (n, h - 2, w - 2, 2 c): derivatives [x, y] under the kernels of weight 1, 2, 1."""

    def smooth(x: Array, axis: int) -> Array:
        n = x.shape[axis]
        parts = (jax.lax.slice_in_dim(x, i, n - 2 + i, axis=axis) for i in range(3))
        return sum(weight * part for weight, part in zip((1, 2, 1), parts, strict=True))

    def slope(x: Array, axis: int) -> Array:
        n = x.shape[axis]
        return jax.lax.slice_in_dim(x, 2, n, axis=axis) - jax.lax.slice_in_dim(x, 0, n - 2, axis=axis)

    return jnp.concatenate([smooth(slope(x, 2), 1), smooth(slope(x, 1), 2)], axis=-1)


def fourier(x: Array, y: Array) -> Array:
    """Mean absolute difference of the real and imaginary parts of the unscaled 2-D Fourier transforms: (n,).

    The frequency loss of MIMO-UNet (Cho et al. 2021, eq. 7), weighted 0.1 there.
    """
    z = jnp.fft.fft2(difference(x, y), axes=(1, 2))
    return 0.5 * (per_image(jnp.abs(z.real)) + per_image(jnp.abs(z.imag)))


RESTORATION = {
    "psnr": psnr_loss,
    "l1": l1,
    "mse": mse,
    "charbonnier": charbonnier,
    "sobel": sobel,
    "fourier": fourier,
}
PERCEPTUAL = "perceptual"  # the one that needs a network
NAMES = (*RESTORATION, PERCEPTUAL)


def terms(expression: str) -> dict[str, float]:
    """The weighted sum that an expression like "l1 + 0.1*fourier" names: {loss: weight}.

    ValueError: a term is no `name` or `weight*name`, a name is unknown or comes twice.
    """
    found = {}
    for term in expression.split("+"):
        weight, _, name = term.rpartition("*")
        name = name.strip()
        if name not in NAMES:
            raise ValueError(f"{name!r} in {expression!r} is no loss; losses are {', '.join(NAMES)}")
        if name in found:
            raise ValueError(f"{name!r} comes twice in {expression!r}")
        found[name] = _weight(weight, expression)
    return found


def _weight(text: str, expression: str) -> float:
    try:
        weight = float(text or 1)
    except ValueError:
        weight = 0
    if not 0 < weight < math.inf:
        raise ValueError(f"{text!r} in {expression!r} is no weight; write 'l1+0.1*fourier'")
    return weight


def weighted_sum(weights: Mapping[str, float], features: Features | None = None) -> Callable[[Array, Array], Array]:
    """The sum of `terms` as one function of images x and y; `features` serve the perceptual loss."""

    def loss(x: Array, y: Array) -> Array:
        return sum(
            weight * (perceptual(features, x, y) if name == PERCEPTUAL else RESTORATION[name](x, y))
            for name, weight in weights.items()
        )

    return loss


# ---------------------------------------------------------------------------------------------------------- adversarial


class GANLoss(NamedTuple):
    """Losses of one logit x: `real` and `fake` are the discriminator's, `generator` is the generator's on its fakes."""

    real: Callable[[Array], Array]
    fake: Callable[[Array], Array]
    generator: Callable[[Array], Array]


GAN_LOSSES = {
    # Eq. 3 with D = sigmoid(x): -log D(real) - log(1 - D(fake)); the generator's is the non-saturating -log D(fake).
    "logistic": GANLoss(lambda x: jax.nn.softplus(-x), jax.nn.softplus, lambda x: jax.nn.softplus(-x)),
    # Lim & Ye 2017; used by the released code.
    "hinge": GANLoss(lambda x: jax.nn.relu(1 - x), lambda x: jax.nn.relu(1 + x), lambda x: -x),
    # Mao et al. 2017.
    "least_squares": GANLoss(lambda x: 0.5 * (x - 1) ** 2, lambda x: 0.5 * x**2, lambda x: 0.5 * (x - 1) ** 2),
    # Arjovsky et al. 2017.
    "wasserstein": GANLoss(lambda x: -x, lambda x: x, lambda x: -x),
}


def multiscale_gan(loss: Callable[[Array], Array], logits: Sequence[Array]) -> Array:
    """Mean over patches of each scale's `loss(logits)` (n, h, w, 1), then the plain mean of the scales: (n,)."""
    return sum(per_image(loss(x.astype(jnp.float32))) for x in logits) / len(logits)


def gradient_penalty(discriminate: Callable[[Array], Array], real: Array, fake: Array, alpha: Array) -> Array:
    """Eq. 4 (Gulrajani et al. 2017): (‖∇D(x)‖₂ - 1)² at x = alpha·real + (1 - alpha)·fake, one value per image.

    Args:
        discriminate: images (n, h, w, 3) to logits (n, h', w', 1); the gradient is that of the sum over all patches.
        real, fake: images (n, h, w, 3), constants here.
        alpha: (n, 1, 1, 1) in [0, 1).
    """
    mixed = jax.lax.stop_gradient(alpha * real + (1 - alpha) * fake).astype(jnp.float32)
    gradient = jax.grad(lambda x: jnp.sum(discriminate(x)))(mixed)
    # The released code adds 1e-16 before the norm, which also keeps the norm differentiable at zero.
    norm = jnp.sqrt(jnp.sum(jnp.square(gradient + 1e-16), axis=(1, 2, 3)))
    return jnp.square(norm - 1.0)


# -------------------------------------------------------------------------------------------------------------- content

SLICE_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)  # of the five VGG features, shallow to deep


def perceptual(features: Features, x: Array, y: Array, weights: Sequence[float] = SLICE_WEIGHTS) -> Array:
    """Sum over features of weight · mean |f(x) - f(y)| (Johnson et al. 2016): (n,). y is a target: no gradient."""
    targets = jax.lax.stop_gradient(features(y))
    return sum(w * l1(a, b) for w, a, b in zip(weights, features(x), targets, strict=True))


def pooled_charbonnier(x: Array, y: Array, factor: int = 4, epsilon: float = 0.03) -> Array:
    """Charbonnier of factor × factor means: holds colour and layout, and leaves the blur free: (n,)."""
    n, h, w, c = x.shape
    whole = difference(x, y)[:, : h // factor * factor, : w // factor * factor]
    means = whole.reshape(n, h // factor, factor, w // factor, factor, c).mean(axis=(2, 4))
    return charbonnier(means, jnp.zeros_like(means), epsilon)
