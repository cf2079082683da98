"""The networks, by name.

All are flax.linen modules with `__call__(x, train=False)`, NHWC, float32 parameters, images in [0, 1]; KernelWizard
alone takes a pair. The names of their submodules are those of the PyTorch originals, dots included: the path to a
parameter, joined by dots, is the name of the tensor there.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import flax.linen as nn

from b2b_jax.errors import suggestion
from b2b_jax.models.bank import Bank
from b2b_jax.models.camera import Camera
from b2b_jax.models.classifier import ResNet18
from b2b_jax.models.correlation import CorrelationDiscriminator
from b2b_jax.models.kernel_field import KernelField
from b2b_jax.models.kernel_mixture import KernelMixture
from b2b_jax.models.kernel_wizard import KernelWizard
from b2b_jax.models.maxim import MAXIM
from b2b_jax.models.mimo_unet import MIMOUNet
from b2b_jax.models.nafnet import NAFNet
from b2b_jax.models.patchgan import PatchGAN
from b2b_jax.models.reader import Reader
from b2b_jax.models.resnet import ResNet
from b2b_jax.models.restormer import Restormer
from b2b_jax.models.resunet import ResUNet
from b2b_jax.models.unet import UNet
from b2b_jax.models.vgg import VGG

MODELS = {
    "bank": Bank,
    "camera": Camera,
    "correlation": CorrelationDiscriminator,
    "kernel_field": KernelField,
    "kernel_mixture": KernelMixture,
    "kernel_wizard": KernelWizard,
    "maxim": MAXIM,
    "mimo_unet": MIMOUNet,
    "nafnet": NAFNet,
    "patchgan": PatchGAN,
    "reader": Reader,
    "resnet": ResNet,
    "resnet18": ResNet18,
    "restormer": Restormer,
    "resunet": ResUNet,
    "unet": UNet,
    "vgg": VGG,
}
# Kinds of hyper-parameters, and what to call them; Python counts bool among int.
KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
LARGEST = 1 << 16  # of any hyper-parameter; channels and crops stay far below


def create(name: str, **hyper: Any) -> nn.Module:
    """The network `name` of MODELS with its hyper-parameters; lists (as they come from JSON) become tuples.

    Where a network has another as a part, its hyper-parameters and, under "name", its kind, make that one.

    ValueError: the name or a hyper-parameter is unknown, and the message tells the known ones and the nearest; or its
    value is of another kind than the default, negative or huge.
    """
    _check(name, MODELS, "model")
    known = {f.name: f.default for f in dataclasses.fields(MODELS[name]) if f.name not in ("parent", "name")}
    for key, value in tuple(hyper.items()):
        _check(key, known, f"hyper-parameter of {name}")
        if known[key] is not None:
            _check_value(f"{name}'s {key}", value, known[key])
        elif value is not None:
            hyper[key] = _part(f"{name}'s {key}", value)
    return MODELS[name](**{k: tuple(v) if isinstance(v, list) else v for k, v in hyper.items()})


def _part(key: str, value: Any) -> nn.Module:
    """The network that is a part of another; ValueError when `value` does not describe one without parts."""
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise ValueError(f"{key} is {value!r:.60}, wanted a network's name and hyper-parameters")
    if any(isinstance(inner, dict) for inner in value.values()):
        raise ValueError(f"{key} has parts of its own, wanted a network without any")
    return create(**value)


def _check_value(key: str, value: Any, default: Any) -> None:
    """ValueError for a value that no network has: of another type, or a number that would never end."""
    if isinstance(default, tuple):
        if not isinstance(value, list | tuple) or len(value) > LARGEST:
            raise ValueError(f"{key} is {value!r:.60}, wanted a list")
        for element in value:
            _check_value(f"an element of {key}", element, default[0])
        return
    kind = next((kind for kind in KINDS if isinstance(default, kind)), object)  # object: a dtype
    fits = isinstance(value, (int, float) if kind is float else kind) and (isinstance(value, bool) == (kind is bool))
    if kind is not object and not fits:
        raise ValueError(f"{key} is {value!r:.60}, wanted {KINDS[kind]}")
    if kind in (int, float) and not 0 <= value <= LARGEST:
        raise ValueError(f"{key} is {value!r:.60}, wanted a number from 0 to {LARGEST}")


def _check(name: str, known: Iterable[str], what: str) -> None:
    if name in known:
        return
    raise ValueError(f"{name!r} is no {what}{suggestion(name, known)} (known: {', '.join(known)})")
