"""Blur by parametric kernels: drawing one as a config describes it, blurring with it, and fixed filters.

Images are float (h, w, c) or (n, h, w, c). Kernels are those of `kernels`. Everything is pure; randomness comes from
the `Generator` that is given.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import fft

from b2b_jax.data import kernels
from b2b_jax.data.kernels import box_kernel, check_size, copies_kernel, line, splat
from b2b_jax.errors import suggestion

KERNELS = {
    "box": box_kernel,
    "copies": copies_kernel,
    "weighted_line": kernels.weighted_line_kernel,
    "trajectory": kernels.trajectory_kernel,
    "disk": kernels.disk_kernel,
    "gaussian": kernels.random_gaussian_kernel,
    "sharpness": kernels.sharpness_kernel,
}


def draw(rng: np.random.Generator, spec: dict[str, Any]) -> np.ndarray:
    """Draws a kernel as a config describes it, such as `{'kind': 'box', 'length': (5, 11)}`.

    Args:
        rng: the source of randomness.
        spec: 'kind', a key of KERNELS, and any parameters of that kind.

    Returns:
        float32 (size, size).

    Raises:
        ValueError: if the kind or a parameter is unknown; names the nearest known one.
    """
    make, parameters = chosen(spec, KERNELS)
    return make(rng, **parameters)


def draw_many(rng: np.random.Generator, specs: Sequence[dict[str, Any]], count: int) -> np.ndarray:
    """Draws `count` kernels of one size, of each of the `specs` in turn: float32 (count, size, size)."""
    return np.stack([draw(rng, specs[i % len(specs)]) for i in range(count)])


def chosen(spec: Mapping[str, Any], kinds: Mapping[str, Callable]) -> tuple[Callable, dict[str, Any]]:
    """The function of `kinds` that a config names, and its parameters; ValueError as in `draw`.

    A function's parameters without a default are not the config's: they are what it blurs, and the randomness.
    """
    parameters = dict(spec)
    kind = parameters.pop("kind", None)
    _check_name("blur kind", kind, kinds)
    signature = inspect.signature(kinds[kind]).parameters
    known = [name for name, one in signature.items() if one.default is not one.empty]
    for name in parameters:
        _check_name(f"parameter of the {kind} blur", name, known)
    return kinds[kind], parameters


def apply(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Blurs whole images: true convolution (the kernel is flipped), borders mirrored without repeating the edge.

    Args:
        image: float (h, w, c) or (n, h, w, c).
        kernel: (k, k), or (n, k, k) with one kernel per image.

    Returns:
        float32, the shape of `image`.

    Raises:
        ValueError: as in `blur_valid`.
    """
    margin = kernel.shape[-1] // 2
    mirrored = [(0, 0)] * (image.ndim - 3) + [(margin, margin)] * 2 + [(0, 0)]
    return blur_valid(np.pad(image, mirrored, mode="reflect"), kernel)


def blur_valid(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Blurs crops that bring their own margin: only pixels whose whole neighbourhood is given come back.

    By FFT, periodic on the crop itself: what wraps around stays within the margin, which is cut off.

    Args:
        image: float (h, w, c) or (n, h, w, c), k // 2 pixels larger at each border than what is wanted.
        kernel: (k, k), or (n, k, k) with one kernel per image.

    Returns:
        float32 (h - k + 1, w - k + 1, c), with n in front if `image` has it.

    Raises:
        ValueError: if the shapes do not fit one another or the kernel's size is even.
    """
    _check_shapes(image, kernel)
    k, (h, w) = kernel.shape[-1], image.shape[-3:-1]
    padded = fft.next_fast_len(h, real=True), fft.next_fast_len(w, real=True)
    spectrum = fft.rfft2(image.astype(np.float32, copy=False), padded, axes=(-3, -2))
    spectrum *= fft.rfft2(kernel.astype(np.float32, copy=False), padded)[..., None]
    blurred = fft.irfft2(spectrum, padded, axes=(-3, -2), overwrite_x=True)
    return blurred[..., k - 1 : h, k - 1 : w, :]


def round8(image: np.ndarray) -> np.ndarray:
    """Rounds an image in [0, 1] to the 8 bits of a stored photo; values outside are clipped. uint8, the same shape."""
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def box_filter_kernel(width: int, angle: float = 0.0, size: int = 21) -> np.ndarray:
    """The fixed box filter: `width` points, a pixel apart, along `angle` degrees; horizontal and odd: `width` pixels.

    Returns:
        float32 (size, size).

    Raises:
        ValueError: if `size` is even or the box does not fit into it.
    """
    return splat(line(width - 1, width, angle), size)


def gaussian_kernel(sigma: float, size: int = 21) -> np.ndarray:
    """The fixed Gauss filter of standard deviation `sigma` pixels, cut at the border of the kernel.

    Returns:
        float32 (size, size).

    Raises:
        ValueError: if `size` is even or `sigma` is not positive.
    """
    check_size(size)
    if sigma <= 0:
        raise ValueError(f"gaussian_kernel() got sigma={sigma}; wants a positive number of pixels.")
    profile = np.exp(-0.5 * ((np.arange(size) - size // 2) / sigma) ** 2)
    kernel = np.outer(profile, profile)
    return (kernel / kernel.sum()).astype(np.float32)


def _check_shapes(image: np.ndarray, kernel: np.ndarray) -> None:
    sizes = kernel.shape[-2:]
    fits = (
        image.ndim in (3, 4)
        and kernel.shape[:-2] in ((), image.shape[:-3])
        and len(set(sizes)) == 1
        and min(image.shape[-3:-1]) >= sizes[0]
    )
    if not fits:
        raise ValueError(
            f"Blur got an image {image.shape} and a kernel {kernel.shape}; wants (h, w, c) with (k, k) "
            "or (n, h, w, c) with (k, k) or (n, k, k), where k is at most h and w."
        )
    check_size(sizes[0])


def _check_name(what: str, name: Any, known: Any) -> None:
    if name not in known:
        raise ValueError(f"unknown {what} {name!r}{suggestion(str(name), known)}; known are {', '.join(known)}")
