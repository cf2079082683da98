"""CycleGAN and DualGAN in PyTorch, written after their papers; arrays are NCHW in [-1, 1].

Tensor names are those of `b2b_jax.weights.to_torch_state`. Every image enters the pool while there is room, as here.
"""

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """x + norm(conv(relu(norm(conv(x)))))."""

    def __init__(self, c: int):
        super().__init__()
        layers = [nn.ReflectionPad2d(1), nn.Conv2d(c, c, 3), nn.InstanceNorm2d(c)]
        again = [nn.ReflectionPad2d(1), nn.Conv2d(c, c, 3), nn.InstanceNorm2d(c)]
        self.conv_block = nn.Sequential(*layers, nn.ReLU(), *again)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class ResNet(nn.Module):
    """CycleGAN's generator."""

    def __init__(self, ngf: int, blocks: int):
        super().__init__()
        layers = [nn.ReflectionPad2d(3), nn.Conv2d(3, ngf, 7), nn.InstanceNorm2d(ngf), nn.ReLU()]
        for c in (ngf, 2 * ngf):
            layers += [nn.Conv2d(c, 2 * c, 3, 2, 1), nn.InstanceNorm2d(2 * c), nn.ReLU()]
        layers += [Block(4 * ngf) for _ in range(blocks)]
        for c in (4 * ngf, 2 * ngf):
            up = nn.ConvTranspose2d(c, c // 2, 3, 2, 1, output_padding=1)
            layers += [up, nn.InstanceNorm2d(c // 2), nn.ReLU()]
        self.model = nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(ngf, 3, 7), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class Level(nn.Module):
    """A level of the U-Net and all below it; the outermost is the network."""

    def __init__(self, ngf: int, level: int, levels: int):
        super().__init__()
        c, outer = min(2**level, 8) * ngf, 3 if level == 0 else min(2 ** (level - 1), 8) * ngf
        inner = level == levels - 1
        below = [] if inner else [Level(ngf, level + 1, levels)]
        down, up = nn.Conv2d(outer, c, 4, 2, 1), nn.ConvTranspose2d(c if inner else 2 * c, outer, 4, 2, 1)
        if level == 0:
            layers = [down, *below, nn.ReLU(), up, nn.Tanh()]
        else:
            normed = [] if inner else [nn.InstanceNorm2d(c)]
            layers = [nn.LeakyReLU(0.2), down, *normed, *below, nn.ReLU(), up, nn.InstanceNorm2d(outer)]
        self.level, self.model = level, nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.model(x)], 1) if self.level else self.model(x)


class UNet(nn.Module):
    """DualGAN's generator, without dropout."""

    def __init__(self, ngf: int, levels: int):
        super().__init__()
        self.model = Level(ngf, 0, levels)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class RMSprop:
    """g / sqrt(mean of g² + epsilon): the epsilon is within the root, other than in PyTorch's."""

    def __init__(self, parameters, rate: float, rho: float):
        self.parameters, self.rate, self.rho = list(parameters), rate, rho
        self.squares = [torch.zeros_like(p) for p in self.parameters]

    def zero_grad(self) -> None:
        for p in self.parameters:
            p.grad = None

    def step(self) -> None:
        with torch.no_grad():
            for p, square in zip(self.parameters, self.squares, strict=True):
                square.mul_(self.rho).add_((1 - self.rho) * p.grad**2)
                p -= self.rate * p.grad / (square + 1e-7).sqrt()


def descend(optimizer, loss: Tensor) -> float:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def generator_loss(nets: dict, adversarial: Tensor, fakes: tuple, photos: tuple, weights: tuple) -> Tensor:
    """adversarial + λ · cycle + λ_id · identity."""
    (b, s), (fake_b, fake_s), (cycle, identity) = photos, fakes, weights
    found = adversarial + cycle * (nets["to_blurry"](fake_s) - b).abs().mean()
    found = found + cycle * (nets["to_sharp"](fake_b) - s).abs().mean()
    if identity:
        found = found + identity * (nets["to_sharp"](s) - s).abs().mean()
        found = found + identity * (nets["to_blurry"](b) - b).abs().mean()
    return found


def cyclegan(nets: dict, optimizers: dict, rounds: list, weights: tuple) -> dict[str, float]:
    """Both generators, then both discriminators on the fakes of before (least squares)."""
    (b, s) = photos = rounds[0]
    fakes = fake_b, fake_s = nets["to_blurry"](s), nets["to_sharp"](b)
    adversarial = (nets["d_sharp"](fake_s) - 1).square().mean() + (nets["d_blurry"](fake_b) - 1).square().mean()
    loss_g = descend(optimizers["generators"], generator_loss(nets, adversarial, fakes, photos, weights))
    loss_d = 0.0
    for name, real, fake in (("d_sharp", s, fake_s), ("d_blurry", b, fake_b)):
        real_part, fake_part = (nets[name](real) - 1).square().mean(), nets[name](fake.detach()).square().mean()
        loss_d += descend(optimizers[name], 0.5 * (real_part + fake_part))
    return {"loss_g": loss_g, "loss_d": loss_d}


def dualgan(nets: dict, optimizers: dict, rounds: list, weights: tuple, clip: float) -> dict[str, float]:
    """Algorithm 1: the critics once for every round, clipped, then the generators."""
    for b, s in rounds:
        fakes = {"d_sharp": nets["to_sharp"](b).detach(), "d_blurry": nets["to_blurry"](s).detach()}
        loss_d = 0.0
        for name, real in (("d_sharp", s), ("d_blurry", b)):
            loss_d += descend(optimizers[name], nets[name](fakes[name]).mean() - nets[name](real).mean())
            with torch.no_grad():
                for p in nets[name].parameters():
                    p.clamp_(-clip, clip)
    b, s = photos = rounds[-1]
    fakes = fake_b, fake_s = nets["to_blurry"](s), nets["to_sharp"](b)
    adversarial = -nets["d_sharp"](fake_s).mean() - nets["d_blurry"](fake_b).mean()
    loss_g = descend(optimizers["generators"], generator_loss(nets, adversarial, fakes, photos, weights))
    return {"loss_g": loss_g, "loss_d": loss_d}
