"""The networks, by name.

All are flax.linen modules with `__call__(x, train=False)`, NHWC, float32 parameters, images in [0, 1]; KernelWizard
alone takes a pair. The names of their submodules are those of the PyTorch originals, dots included: the path to a
parameter, joined by dots, is the name of the tensor there.
"""

import dataclasses
import difflib
from collections.abc import Iterable
from typing import Any

import flax.linen as nn

from b2b_jax.models.camera import Camera
from b2b_jax.models.classifier import ResNet18
from b2b_jax.models.kernel_wizard import KernelWizard
from b2b_jax.models.maxim import MAXIM
from b2b_jax.models.mimo_unet import MIMOUNet
from b2b_jax.models.nafnet import NAFNet
from b2b_jax.models.patchgan import PatchGAN
from b2b_jax.models.resnet import ResNet
from b2b_jax.models.restormer import Restormer
from b2b_jax.models.resunet import ResUNet
from b2b_jax.models.unet import UNet
from b2b_jax.models.vgg import VGG

MODELS = {
    "camera": Camera,
    "kernel_wizard": KernelWizard,
    "maxim": MAXIM,
    "mimo_unet": MIMOUNet,
    "nafnet": NAFNet,
    "patchgan": PatchGAN,
    "resnet": ResNet,
    "resnet18": ResNet18,
    "restormer": Restormer,
    "resunet": ResUNet,
    "unet": UNet,
    "vgg": VGG,
}


def create(name: str, **hyper: Any) -> nn.Module:
    """The network `name` of MODELS with its hyper-parameters; lists (as they come from JSON) become tuples.

    ValueError: the name or a hyper-parameter is unknown; the message tells the known ones and the nearest.
    """
    _check(name, MODELS, "model")
    known = [field.name for field in dataclasses.fields(MODELS[name]) if field.name not in ("parent", "name")]
    for key in hyper:
        _check(key, known, f"hyper-parameter of {name}")
    return MODELS[name](**{k: tuple(v) if isinstance(v, list) else v for k, v in hyper.items()})


def _check(name: str, known: Iterable[str], what: str) -> None:
    if name in known:
        return
    nearest = difflib.get_close_matches(name, known, n=1)
    suggestion = f"; did you mean {nearest[0]!r}?" if nearest else ""
    raise ValueError(f"{name!r} is no {what}{suggestion} (known: {', '.join(known)})")
