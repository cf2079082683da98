"""Random blur kernels: motion along lines and trajectories, displaced copies, defocus, Gaussians, sharpening.

The known camera of the demo moves evenly while its shutter is open (`box_kernel`); the unknown one averages a few
displaced copies, as do a merged burst, a flickering lamp or a low-rate average of frames (`copies_kernel`). Equal in
extent, they differ in spectrum, so that a deblurrer trained on the one leaves ghosts on the other.

Kernels are float32 (size, size) with an odd size, of sum 1, centred on their centroid, non-negative but for unsharp
masks. Lengths are in pixels; angles in degrees, counter-clockwise from the horizontal. Ranges (low, high) are drawn
from uniformly. All raise ValueError if `size` is even or the blur does not fit into it.
"""

import numpy as np

Range = tuple[float, float]
STEPS = 128  # of a trajectory: more than its pixels


def box_kernel(
    rng: np.random.Generator, length: Range = (5.0, 11.0), angle: Range = (-10.0, 10.0), size: int = 21
) -> np.ndarray:
    """Even motion along a line: 33 points from end to end. The known blur of the demo.

    Args:
        rng: gives the length, then the angle.
        length: range of the distance between the first and the last point, in pixels.
        angle: range of the direction, in degrees.
        size: width and height of the kernel, odd.

    Returns:
        float32 (size, size).

    Raises:
        ValueError: if `size` is even or the line does not fit into it.
    """
    extent = rng.uniform(*length)
    return splat(line(extent, 33, rng.uniform(*angle)), size)


def copies_kernel(
    rng: np.random.Generator, extent: Range = (6.0, 9.0), copies: int = 3, angle: Range = (-10.0, 10.0), size: int = 21
) -> np.ndarray:
    """The average of evenly displaced copies. The unknown blur of the demo.

    Args:
        rng: gives the extent, then the angle.
        extent: range of the distance between the first and the last copy, in pixels.
        copies: number of copies.
        angle: range of the direction, in degrees.
        size: width and height of the kernel, odd.

    Returns:
        float32 (size, size).

    Raises:
        ValueError: if `size` is even or the copies do not fit into it.
    """
    distance = rng.uniform(*extent)
    return splat(line(distance, copies, rng.uniform(*angle)), size)


def weighted_line_kernel(
    rng: np.random.Generator,
    width: Range = (5.0, 15.0),
    angle: Range = (0.0, 180.0),
    direction: Range = (-1.0, 1.0),
    size: int = 21,
) -> np.ndarray:
    """Motion blur as imgaug's `MotionBlur` makes it: points a pixel apart whose weights fall or rise along the line.

    Args:
        rng: gives the width, then the angle, then the direction.
        width: range of the number of points, rounded.
        angle: range of the line's direction, in degrees.
        direction: range within [-1, 1]: at 1 the weights fall to 0 along the line, at -1 they rise from 0, 0: even.
        size: width and height of the kernel, odd.

    Returns:
        float32 (size, size). Unlike imgaug's, it is centred on its centroid, so that it does not displace the photo.
    """
    count = round(rng.uniform(*width))
    points = line(count - 1, count, rng.uniform(*angle))
    share = (1 + rng.uniform(*direction)) / 2
    weights = np.linspace(share, 1 - share, count) if count > 1 else np.ones(1)
    weights /= weights.sum()
    return splat(points - weights @ points, size, weights)


def trajectory_kernel(
    rng: np.random.Generator,
    length: Range = (5.0, 20.0),
    jitter: float = 0.1,
    shake: float = 0.02,
    pull: float = 0.02,
    size: int = 21,
) -> np.ndarray:
    """The path of a hand-held camera (Boracchi and Foi, "Modeling the performance of image restoration from motion
    blur", 2012): a point of constant speed that is jolted, turned now and then, and pulled back to where it started.

    Args:
        rng: gives the length, then the path.
        length: range of the length of the path, in pixels. Its reach from its centroid is at most half of it.
        jitter: standard deviation of the random acceleration, in speeds per step.
        shake: probability, per step, of an abrupt turn to about the opposite direction.
        pull: acceleration back to the start, in speeds per pixel of distance and per step.
        size: width and height of the kernel, odd.

    Returns:
        float32 (size, size).
    """
    speed = rng.uniform(*length) / (STEPS - 1)
    velocity = speed * np.exp(2j * np.pi * rng.random())
    path = np.zeros(STEPS, complex)
    for step in range(1, STEPS):
        path[step] = path[step - 1] + velocity
        turn = 2 * velocity * np.exp(1j * (np.pi + rng.uniform(-0.5, 0.5))) if rng.random() < shake else 0
        jolt = jitter * speed * complex(*rng.standard_normal(2))
        velocity += turn + jolt - pull * speed * path[step]
        velocity *= speed / abs(velocity)
    points = np.stack([path.real, path.imag], axis=1)
    return splat(points - points.mean(axis=0), size)


def disk_kernel(rng: np.random.Generator, radius: Range = (1.0, 5.0), size: int = 21) -> np.ndarray:
    """Defocus: an even disk, each pixel by the share of it that the disk covers (of 16 x 16 points in it).

    Args:
        rng: gives the radius.
        radius: range, in pixels, positive.
        size: width and height of the kernel, odd.

    Returns:
        float32 (size, size).
    """
    check_size(size)
    r = rng.uniform(*radius)
    if not 0 < r <= size / 2:
        raise ValueError(f"A disk of radius {r:.1f} px does not fit into {size} px; wants 0 < radius <= {size / 2}.")
    along = (np.arange(16 * size) + 0.5) / 16 - size / 2
    covered = along[:, None] ** 2 + along**2 <= r**2
    kernel = covered.reshape(size, 16, size, 16).mean(axis=(1, 3))
    return (kernel / kernel.sum()).astype(np.float32)


def random_gaussian_kernel(
    rng: np.random.Generator,
    sigma: Range = (0.5, 3.0),
    ratio: Range = (1.0, 1.0),
    angle: Range = (0.0, 180.0),
    size: int = 21,
) -> np.ndarray:
    """A Gaussian, round or elongated, cut at the border of the kernel (BSRGAN, arXiv 2103.14006, section 3.1).

    Args:
        rng: gives sigma, then the ratio, then the angle.
        sigma: range of the larger standard deviation, in pixels, positive.
        ratio: range of the smaller standard deviation over the larger; (1, 1): round.
        angle: range of the direction of the larger one, in degrees.
        size: width and height of the kernel, odd.

    Returns:
        float32 (size, size).
    """
    check_size(size)
    large = rng.uniform(*sigma)
    small, radians = large * rng.uniform(*ratio), np.deg2rad(rng.uniform(*angle))
    if not small > 0:
        raise ValueError(f"A Gaussian of {large:g} by {small:g} px is none; wants positive sigma and ratio.")
    x, y = np.meshgrid(np.arange(size) - size // 2, size // 2 - np.arange(size))
    u, v = x * np.cos(radians) + y * np.sin(radians), y * np.cos(radians) - x * np.sin(radians)
    kernel = np.exp(-0.5 * ((u / large) ** 2 + (v / small) ** 2))
    return (kernel / kernel.sum()).astype(np.float32)


def sharpness_kernel(
    rng: np.random.Generator,
    amount: Range = (3.0, 6.0),
    halo: Range = (1.5, 2.5),
    sigma: Range = (1.0, 2.0),
    share: float = 0.5,
    size: int = 21,
) -> np.ndarray:
    """A camera whose sharpness comes and goes: over-sharpened by an unsharp mask, or else out of focus (a Gaussian).

    No single filter serves both: what mends the one half makes the other worse.

    Args:
        rng: says which of the two it is, then gives their parameters.
        amount: range of what the mask adds of the difference from the smoothed photo.
        halo: range of the standard deviation of the Gaussian that smooths it, in pixels.
        sigma: range of the standard deviation of the Gaussian blur, in pixels.
        share: probability of an over-sharpened photo.
        size: width and height of the kernel, odd.

    Returns:
        float32 (size, size), of sum 1; the mask has negative values.
    """
    if rng.random() >= share:
        return random_gaussian_kernel(rng, sigma, size=size)
    added = rng.uniform(*amount)
    kernel = -added * random_gaussian_kernel(rng, halo, size=size)
    kernel[size // 2, size // 2] += 1 + added
    return kernel


# ----------------------------------------------------------------------------------------------------- points to pixels


def line(extent: float, count: int, angle: float) -> np.ndarray:
    """`count` points spread evenly over `extent` about the origin: (count, 2), x to the right, y downward."""
    radians = np.deg2rad(angle)
    along = extent * (np.linspace(-0.5, 0.5, count) if count > 1 else np.zeros(1))
    return along[:, None] * [np.cos(radians), -np.sin(radians)]


def splat(points: np.ndarray, size: int, weights: np.ndarray | None = None) -> np.ndarray:
    """Shares each point (x, y) between its four pixels bilinearly, which keeps the centroid: float32 (size, size).

    Points weigh alike unless `weights`, of sum 1, are given.
    """
    check_size(size)
    reach = float(np.abs(points).max())
    if reach > size // 2:
        raise ValueError(
            f"A blur that reaches {reach:.1f} px from its centre does not fit into a kernel of {size} px; "
            f"wants a smaller extent or a size of at least {2 * int(np.ceil(reach)) + 1}."
        )
    pixels = np.arange(size) - size // 2
    columns, rows = (np.maximum(0, 1 - np.abs(pixels - points[:, axis, None])) for axis in (0, 1))
    if weights is not None:
        return ((rows * weights[:, None]).T @ columns).astype(np.float32)
    return (rows.T @ columns / len(points)).astype(np.float32)


def check_size(size: int) -> None:
    """ValueError for a kernel without a pixel at its centre."""
    if size < 1 or size % 2 == 0:
        raise ValueError(f"A kernel of {size} px has no pixel at its centre; wants an odd size.")
