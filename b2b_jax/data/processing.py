"""What a camera does behind its lens: it records light, over-sharpens, adds noise and compresses.

Images are float (h, w, 3) in [0, 1]. Randomness comes from the `Generator` that is given.
"""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from b2b_jax.data import blur
from b2b_jax.data.sensor import RESPONSES

Range = tuple[float, float]


@dataclass(frozen=True)
class Processing:
    """Of every photo; ranges (low, high) are drawn from uniformly."""

    response: str = "linear"  # between light, which the lens blurs, and stored values: linear | gamma | srgb
    amount: Range = (0.0, 0.0)  # of over-sharpening by an unsharp mask
    sigma: Range = (1.0, 1.5)  # pixels, of that mask
    noise: float = 0.0  # standard deviation, of a range of 1
    quality: int = 0  # of JPEG; 0 = none

    def __post_init__(self) -> None:
        """ValueError when no camera can be like this."""
        if self.response not in RESPONSES:
            raise ValueError(f"unknown response {self.response!r}; known are {', '.join(RESPONSES)}")
        if not 0 <= self.quality <= 100 or self.noise < 0 or min(self.sigma) <= 0:
            raise ValueError("wanted a quality of 0 to 100, noise of at least 0 and a positive sigma")

    @property
    def neutral(self) -> bool:
        """Whether it stores light as it is, but for the rounding to 8 bits."""
        return self.response == "linear" and not (self.amount[1] or self.noise or self.quality)

    def light(self, stored: np.ndarray) -> np.ndarray:
        """What the lens sees of a sharp photo."""
        return RESPONSES[self.response][1](stored)

    def develop(self, rng: np.random.Generator, light: np.ndarray) -> np.ndarray:
        """Blurred light to the photo as it is stored: uint8, the shape of `light`.

        The generator gives the amount and sigma of the mask, where there is one, then the noise.
        """
        x = RESPONSES[self.response][0](light)
        if self.amount[1]:
            x = x + rng.uniform(*self.amount) * (x - blur.apply(x, blur.gaussian_kernel(rng.uniform(*self.sigma))))
        x = blur.round8(x + self.noise * rng.standard_normal(x.shape))
        return compressed(x, self.quality) if self.quality else x


def compressed(image: np.ndarray, quality: int) -> np.ndarray:
    """The uint8 photo after JPEG."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="JPEG", quality=quality)
    return np.asarray(Image.open(file))
