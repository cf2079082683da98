"""A camera from light to file: response curves, averages of frames, saturation, noise, Bayer mosaic, development.

The realistic synthesis of RSBlur (Rim et al., ECCV 2022, arXiv 2202.08771, section 5); its colour pipeline is that of
Brooks et al., "Unprocessing images for learned raw denoising" (CVPR 2019). Images are float (h, w, 3) in [0, 1], frames
(n, h, w, 3). Everything is pure; randomness comes from the `Generator` that is given.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

Range = tuple[float, float]

# Camera RGB to linear sRGB, a typical one: rows of sum 1 leave grey as it is.
COLOUR_MATRIX = np.array([[1.65, -0.55, -0.10], [-0.20, 1.45, -0.25], [0.0, -0.50, 1.50]])
# Which channel a pixel of the 2 x 2 mosaic sees: red green / green blue.
MOSAIC = np.array([[0, 1], [1, 2]])
# Bilinear interpolation from the pixels of a channel: of red and blue one in four is there, of green two.
CROSS, SQUARE = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]]) / 4, np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4
BILINEAR = (SQUARE, CROSS, SQUARE)


def gamma_response(x: np.ndarray) -> np.ndarray:
    """Light to stored values by a gamma of 2.2, as for GoPro's `blur_gamma` (Nah et al., CVPR 2017)."""
    return np.clip(x, 0, None) ** (1 / 2.2)


def gamma_light(x: np.ndarray) -> np.ndarray:
    """The inverse of `gamma_response`."""
    return np.clip(x, 0, None) ** 2.2


def srgb_response(x: np.ndarray) -> np.ndarray:
    """Light to stored values as IEC 61966-2-1 (sRGB) has it."""
    x = np.clip(x, 0, None)
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * np.maximum(x, 0.0031308) ** (1 / 2.4) - 0.055)


def srgb_light(x: np.ndarray) -> np.ndarray:
    """The inverse of `srgb_response`."""
    x = np.clip(x, 0, None)
    return np.where(x <= 0.04045, x / 12.92, ((np.maximum(x, 0.04045) + 0.055) / 1.055) ** 2.4)


def linear(x: np.ndarray) -> np.ndarray:
    """No curve at all: either way, for GoPro's `blur`."""
    return x


RESPONSES = {"gamma": (gamma_response, gamma_light), "srgb": (srgb_response, srgb_light), "linear": (linear, linear)}


def average_frames(frames: np.ndarray, response: str = "gamma") -> np.ndarray:
    """The blurry photo that neighbouring sharp frames add up to: g(mean of g⁻¹(frame)) (Nah et al., CVPR 2017, eq. 2).

    Args:
        frames: (n, h, w, 3) in [0, 1], so dense in time that nothing moves by much more than a pixel between them.
        response: g, a key of RESPONSES.

    Returns:
        (h, w, 3) in [0, 1].
    """
    respond, light = RESPONSES[response]
    return respond(light(frames).mean(axis=0))


@dataclass(frozen=True)
class Sensor:
    """What is drawn for a photo; ranges (low, high). The noise's are ours: the paper measured its own two cameras."""

    saturation: Range = (0.25, 1.75)  # light added where every frame is saturated
    shot: Range = (2e-4, 2e-3)  # β₁: variance of the photon noise per unit of light
    read: Range = (1e-3, 5e-3)  # β₂: standard deviation of the read-out noise
    red_gain: Range = (1.9, 2.4)  # white balance
    blue_gain: Range = (1.5, 1.9)


def realistic_blur(rng: np.random.Generator, frames: np.ndarray, sensor: Sensor) -> np.ndarray:
    """RSBlur's synthesis: frames averaged as light, saturation restored, then noise and development in the camera.

    Args:
        rng: gives the strength of the saturation, the gains, the noise's strengths and the noise.
        frames: (n, h, w, 3), dense sRGB frames in [0, 1]; what the paper interpolates between is for the caller.
        sensor: the ranges.

    Returns:
        float32 (h, w, 3) in [0, 1], sRGB.
    """
    light = saturate(srgb_light(frames).mean(axis=0), frames, rng.uniform(*sensor.saturation))
    return photograph(rng, light, sensor)


def saturate(light: np.ndarray, frames: np.ndarray, strength: float) -> np.ndarray:
    """Clipped highlights were brighter than stored: adds `strength` times the share of frames that are clipped there.

    Args:
        light: (h, w, 3), the frames' mean in linear light.
        frames: (n, h, w, 3), stored values; a channel at 1 is clipped.
        strength: α of the paper.

    Returns:
        (h, w, 3) in [0, 1].
    """
    return np.clip(light + strength * (frames >= 1).mean(axis=0), 0, 1)


def photograph(rng: np.random.Generator, light: np.ndarray, sensor: Sensor) -> np.ndarray:
    """Linear sRGB light to a developed photo: to camera RGB, mosaic, noise, demosaicing, and back to sRGB.

    Returns float32 (h, w, 3) in [0, 1].
    """
    gains = np.array([rng.uniform(*sensor.red_gain), 1.0, rng.uniform(*sensor.blue_gain)])
    camera = np.clip(light @ np.linalg.inv(COLOUR_MATRIX).T, 0, None) / gains
    raw = add_noise(rng, mosaic(camera), rng.uniform(*sensor.shot), rng.uniform(*sensor.read))
    balanced = np.clip(demosaic(np.clip(raw, 0, 1)) * gains, 0, 1)
    return srgb_response(np.clip(balanced @ COLOUR_MATRIX.T, 0, 1)).astype(np.float32)


def add_noise(rng: np.random.Generator, x: np.ndarray, shot: float, read: float) -> np.ndarray:
    """Poisson and Gaussian noise of variance shot · x + read²: β₁ P(x / β₁) + N(0, β₂²). Any shape, x not negative."""
    return shot * rng.poisson(x / shot) + rng.normal(0.0, read, x.shape)


def mosaic(image: np.ndarray) -> np.ndarray:
    """What a sensor behind a colour filter sees of (h, w, 3): (h, w)."""
    h, w = image.shape[:2]
    return np.take_along_axis(image, _channels(h, w)[..., None], axis=-1)[..., 0]


def demosaic(raw: np.ndarray) -> np.ndarray:
    """The missing two of three channels, interpolated bilinearly; borders are mirrored: (h, w) to (h, w, 3)."""
    seen = _channels(*raw.shape)
    planes = [ndimage.convolve(np.where(seen == c, raw, 0), kernel, mode="mirror") for c, kernel in enumerate(BILINEAR)]
    return np.stack(planes, axis=-1)


def _channels(h: int, w: int) -> np.ndarray:
    """The channel that each pixel of the mosaic sees: (h, w)."""
    return np.tile(MOSAIC, (-(-h // 2), -(-w // 2)))[:h, :w]
