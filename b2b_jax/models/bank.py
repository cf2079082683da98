"""A camera as a list of shots, each as likely as its weight says: what a likelihood over known blurs finds."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from b2b_jax.models.camera import HALO, Shot, taken

Array = jax.Array


class Bank(nn.Module):
    """z (n, 1) -> Shot of n photos, as `models.camera.Camera` gives them: z ~ N(0, I) draws shots by their weights.

    count: shots in the list. size: of their kernels, odd, in pixels. sharpening, noise, response, jpeg: which parts
    they have besides the kernel; the response and the quality of JPEG are the same for all. Its variables are no
    weights of a network: they are the list, and all that is learnt is `weight`.
    """

    count: int = 1
    size: int = 21
    sharpening: bool = True
    noise: bool = True
    response: bool = False
    jpeg: bool = False
    dtype: Any = jnp.float32  # unused: a camera is computed in float32

    latent = 1

    @nn.compact
    def __call__(self, z: Array, train: bool = False) -> Shot:
        weight = self.param("weight", nn.initializers.constant(1 / self.count), (self.count,))
        parts = self._listed({"kernel": (self.size, self.size)} | {name: () for name in self.parts})
        if self.response:
            parts["response"] = self.param("response", nn.initializers.ones, ())
        if self.jpeg:
            parts["quality"] = self.param("quality", nn.initializers.constant(100.0), ())
        shot = Shot(**{name: None for name in ("amount", "sigma", "noise", "response")} | parts)
        share = jax.scipy.stats.norm.cdf(z[:, 0]) * weight.sum()
        chosen = jnp.searchsorted(jnp.cumsum(weight), share, side="right")
        return taken(shot, jnp.minimum(chosen, self.count - 1))

    def _listed(self, parts: dict[str, tuple[int, ...]]) -> dict[str, Array]:
        return {name: self.param(name, nn.initializers.zeros, (self.count, *shape)) for name, shape in parts.items()}

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of what its shots have besides the kernel."""
        return ("amount", "sigma") * self.sharpening + ("noise",) * self.noise

    @property
    def input_shape(self) -> tuple[int, int]:
        """Of what one call takes."""
        return 1, 1

    @property
    def reach(self) -> int:
        """Pixels around a photo that its rendering needs."""
        return self.size // 2 + HALO * self.sharpening


def hyper_of(camera: Mapping[str, Any], count: int, jpeg: bool = False) -> dict[str, Any]:
    """The name and hyper-parameters of a bank of `count` shots with the parts that a Camera of these would have."""
    parts = {name: camera[name] for name in ("size", "sharpening", "noise")}
    rare = {"response": camera["response"], "jpeg": jpeg}
    return {"name": "bank", "count": count} | parts | {name: True for name, there in rare.items() if there}


def shots_of(variables: Mapping[str, Any]) -> Shot:
    """The shots that a Bank of these variables holds: what `listed` was given."""
    return Shot(*(variables["params"].get(name) for name in Shot._fields))


def listed(shot: Shot, weight: Array) -> dict[str, dict[str, Array]]:
    """The variables of a Bank that holds these shots."""
    parts = {name: part for name, part in shot._asdict().items() if part is not None}
    return {"params": parts | {"weight": weight}}
