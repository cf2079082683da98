"""Sharp photos to synthetic blurry ones, for deblurrers that are to work on any camera: the baselines' training pairs.

Images are float (h, w, 3) in [0, 1]. Every function is pure: what is random comes from the `Generator` that is given.
"""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from b2b_jax.data import blur, sensor

# Blurs of the BSRGAN pipeline; its two Gaussians are of other strengths than a camera's motion.
GAUSSIANS = ({"kind": "gaussian", "sigma": (0.1, 2.8)}, {"kind": "gaussian", "sigma": (0.5, 6.0), "ratio": (0.1, 1.0)})
MOTION = {"kind": "trajectory", "length": (5.0, 20.0)}
IMGAUG = {"kind": "weighted_line", "width": (3.0, 15.0), "angle": (0.0, 360.0), "direction": (-1.0, 1.0)}
NOISE = (1 / 255, 25 / 255)  # standard deviation
QUALITY = (30, 95)  # of JPEG
REACH = 10  # pixels, of every kernel here
JPEG_SHARE, CAMERA_SHARE = 0.75, 0.25  # of photos that are compressed before the end, and photographed


def bsrgan(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """The degradation of BSRGAN (Zhang et al., ICCV 2021, arXiv 2103.14006), adapted to deblurring.

    Two Gaussian blurs, motion, Gaussian noise, JPEG and camera noise in a random order, and JPEG at last. Nothing is
    reduced in size, and motion is added, as blur is what is to be removed.

    Returns:
        float32, the shape of `image`, in [0, 1].
    """
    steps: list[Callable[[np.random.Generator, np.ndarray], np.ndarray]] = [
        lambda rng, x: blur.apply(x, blur.draw(rng, GAUSSIANS[rng.integers(2)])),
        lambda rng, x: blur.apply(x, blur.draw(rng, GAUSSIANS[rng.integers(2)])),
        lambda rng, x: blur.apply(x, blur.draw(rng, MOTION)),
        gaussian_noise,
    ]
    steps += [jpeg] * (rng.random() < JPEG_SHARE) + [rephotograph] * (rng.random() < CAMERA_SHARE)
    for index in rng.permutation(len(steps)):
        image = np.clip(steps[index](rng, image), 0, 1)
    return jpeg(rng, image)


def realistic(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """RSBlur's synthesis with a drawn trajectory in place of frames, as its authors do for still photos (GoPro_U).

    Returns:
        float32, the shape of `image`, in [0, 1].
    """
    kernel, camera = blur.draw(rng, MOTION), sensor.Sensor()
    clipped = blur.apply((image >= 1).astype(np.float32), kernel)
    light = blur.apply(sensor.srgb_light(image), kernel) + rng.uniform(*camera.saturation) * clipped
    return sensor.photograph(rng, np.clip(light, 0, 1), camera)


def imgaug(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """The motion blur of the library imgaug (`MotionBlur`): a line of any angle whose weights fall or rise along it.

    The synthetic data of Blur2Blur's table 2, which does not say how long its lines are. Neither noise nor light.

    Returns:
        float32, the shape of `image`, in [0, 1].
    """
    return np.clip(blur.apply(image, blur.draw(rng, IMGAUG)), 0, 1)


def gaussian_noise(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """White noise, of each channel for itself, the same in all, or correlated between them; not clipped."""
    sigma, kind = rng.uniform(*NOISE), rng.integers(3)
    if kind == 0:
        return image + rng.normal(0, sigma, image.shape)
    if kind == 1:
        return image + rng.normal(0, sigma, image.shape[:2])[..., None]
    basis = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    shares = rng.dirichlet(np.ones(3)) * 3  # variances along the basis, whose mean is 1
    return image + sigma * rng.standard_normal(image.shape) @ (basis * np.sqrt(shares)).T


def jpeg(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """The photo after JPEG of a drawn quality: float32."""
    file = io.BytesIO()
    quality = int(rng.integers(QUALITY[0], QUALITY[1] + 1))
    Image.fromarray(blur.round8(image)).save(file, format="JPEG", quality=quality)
    return np.asarray(Image.open(file), np.float32) / 255


def rephotograph(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """The photo as a noisy camera would take it: float32."""
    return sensor.photograph(rng, sensor.srgb_light(image), sensor.Sensor())


DEGRADATIONS = {"bsrgan": bsrgan, "imgaug": imgaug, "realistic": realistic}
