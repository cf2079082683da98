"""The Blur2Blur training step in PyTorch, equal in value to `method.blur2blur`: what the benchmark compares with.

    pip install torch && python tools/benchmark.py train --config configs/demo.py --against torch

Without augmentation, colour jitter, curriculum and extractor, which are switched off for both, and without our guard
against values that are not finite. Arrays are NCHW in [0, 1].
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from ml_collections import ConfigDict
from torch import Tensor

from b2b_jax.errors import UserError
from b2b_jax.losses import SLICE_WEIGHTS
from b2b_jax.stages.common import VGG_DEPTHS, VGG_LAYERS
from b2b_jax.stages.run import Run
from tools.bench.torch_networks import VGG, MIMOUNet, PatchGAN

GAN_LOSSES = {  # real, fake, generator
    "logistic": (lambda x: F.softplus(-x), F.softplus, lambda x: F.softplus(-x)),
    "hinge": (lambda x: F.relu(1 - x), lambda x: F.relu(1 + x), lambda x: -x),
}
WANTED = {  # keys of a configuration whose step this file knows
    "known_blur.source": ("paired", "synthetic", "folder"),
    "translator.generator.name": ("mimo_unet",),
    "translator.discriminator.norm": ("instance", "none"),
    "translator.gan_loss": tuple(GAN_LOSSES),
    "translator.content.kind": (*VGG_DEPTHS, "pooled"),
    "translator.augment": (False,),
    "translator.color_jitter": (0.0,),
    "translator.curriculum.start": (1.0,),
}


class Step:
    """One training step, called with y, k (n, 3, h, w) and alpha (n, 1, 1, 1); returns the losses.

    config: the section `translator`. dtype: of the networks' activations; the penalty stays in float32. compiled: the
    networks go through torch.compile, except in the penalty, of whose second derivative it is not capable.
    """

    def __init__(self, config: ConfigDict, device: str, dtype: torch.dtype = torch.float32, compiled: bool = False):
        self.config, self.cast, self.count = config, {"device_type": device.split(":")[0], "dtype": dtype}, 0
        self.generator = MIMOUNet(config.generator.base_channels, config.generator.num_res).to(device)
        settings = config.discriminator
        self.discriminator = PatchGAN(settings.ndf, settings.n_layers, settings.norm, settings.input).to(device)
        depth = VGG_DEPTHS.get(config.content.kind)
        self.vgg = VGG(depth, VGG_LAYERS[depth]).to(device).requires_grad_(False) if depth else None
        self.average = [p.detach().clone() for p in self.generator.parameters()]
        rates, betas = config.optimizer, tuple(config.optimizer.betas)
        self.adam_g = torch.optim.Adam(self.generator.parameters(), rates.generator_rate, betas)
        self.adam_d = torch.optim.Adam(self.discriminator.parameters(), rates.discriminator_rate, betas)
        prepare = torch.compile if compiled else lambda network: network
        self.translate, self.judge = prepare(self.generator), prepare(self.discriminator)
        self.features = self.vgg and prepare(self.vgg)

    def __call__(self, y: Tensor, k: Tensor, alpha: Tensor) -> dict[str, Tensor]:
        """D against detached fakes, then G against the updated D; G runs forward once."""
        with self._autocast():
            fakes = [x.float() for x in self.translate(y)]
        found = self._update_discriminator([x.detach() for x in fakes], k, alpha)
        found |= self._update_generator(fakes, y)
        self.count += 1
        return found

    def _autocast(self) -> torch.autocast:
        return torch.autocast(**self.cast, enabled=self.cast["dtype"] != torch.float32)

    def _logits(self, images: Sequence[Tensor]) -> list[Tensor]:
        with self._autocast():
            return [self.judge(x).float() for x in images]

    def _update_discriminator(self, fakes: list[Tensor], k: Tensor, alpha: Tensor) -> dict[str, Tensor]:
        real_loss, fake_loss, _ = GAN_LOSSES[self.config.gan_loss]
        self.discriminator.requires_grad_(True)
        logits = self._logits([torch.cat(pair) for pair in zip(fakes, pyramid(k), strict=True)])
        fake = sum(fake_loss(x[: len(k)]).mean() for x in logits) / len(logits)
        real = sum(real_loss(x[len(k) :]).mean() for x in logits) / len(logits)
        penalty, settings = torch.zeros((), device=k.device), self.config.gradient_penalty
        if settings.weight and self.count % settings.every == 0:
            mixed = alpha * k + (1 - alpha) * fakes[-1]
            penalty = settings.weight * settings.every * gradient_penalty(self.discriminator, mixed)
        loss = 0.5 * (fake + real) + penalty
        descend(self.adam_d, loss)
        return {"loss_d": loss.detach(), "gradient_penalty": penalty.detach()}

    def _update_generator(self, fakes: list[Tensor], y: Tensor) -> dict[str, Tensor]:
        self.discriminator.requires_grad_(False)
        logits = self._logits(fakes)
        adversarial = sum(GAN_LOSSES[self.config.gan_loss][2](x).mean() for x in logits) / len(logits)
        content = sum(self._content(x, target) for x, target in zip(fakes, pyramid(y), strict=True))
        loss = adversarial + self.config.content.weight * content
        descend(self.adam_g, loss)
        if self.config.ema:
            decay = min(self.config.ema, (1 + self.count) / (10 + self.count))
            with torch.no_grad():
                torch._foreach_lerp_(self.average, list(self.generator.parameters()), 1 - decay)
        return {"loss_g": loss.detach(), "g_content": content.detach()}

    def _content(self, x: Tensor, y: Tensor) -> Tensor:
        if self.features is None:
            return (F.avg_pool2d(x - y, 4).square() + 0.03**2).sqrt().mean()
        with self._autocast():
            with torch.no_grad():
                targets = self.features(y)
            pairs = zip(SLICE_WEIGHTS, self.features(x), targets, strict=True)
        return sum(weight * F.l1_loss(a.float(), b.float()) for weight, a, b in pairs)


def pyramid(x: Tensor) -> list[Tensor]:
    """[quarter, half, full] resolution by bilinear reduction without antialiasing."""
    return [*(F.interpolate(x, scale_factor=scale, mode="bilinear") for scale in (0.25, 0.5)), x]


def gradient_penalty(discriminator: Callable[[Tensor], Tensor], mixed: Tensor) -> Tensor:
    """Mean of (‖∇ sum D(x)‖₂ - 1)² at x = `mixed`, to be differentiated again."""
    mixed = mixed.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(discriminator(mixed).sum(), mixed, create_graph=True)
    return ((gradient + 1e-16).square().sum((1, 2, 3)).sqrt() - 1).square().mean()


def descend(adam: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step of Adam."""
    adam.zero_grad()
    loss.backward()
    adam.step()


def calls(run: Run, batch: Mapping[str, np.ndarray]) -> dict[str, Callable[[], None]]:
    """The step on uint8 photos (n, h, w, 3), eager and compiled, from bytes to new weights; waits until it is done."""
    check(run.config)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, run.dtype.name)
    names = {"PyTorch, eager": False, "PyTorch, torch.compile": True}
    steps = {name: Step(run.config.translator, device, dtype, compiled) for name, compiled in names.items()}
    photos = [torch.from_numpy(batch[name]).to(device) for name in ("unknown_blur", "known_blur")]

    def call(step: Step) -> None:
        y, k = (x.permute(0, 3, 1, 2).float() / 255 for x in photos)
        step(y, k, torch.rand(len(y), 1, 1, 1, device=device))
        if device == "cuda":
            torch.cuda.synchronize()

    return {name: lambda step=step: call(step) for name, step in steps.items()}


def check(config: ConfigDict) -> None:
    """UserError when the configuration's step is not what this file computes; it names the keys to change."""
    wrong = [f"--config.{key}={fit[0]}" for key, fit in WANTED.items() if _value(config, key) not in fit]
    if wrong:
        raise UserError(f"--against=torch does not know this step in full; add {' '.join(wrong)}")


def _value(config: ConfigDict, key: str) -> object:
    for part in key.split("."):
        config = config[part]
    return config
