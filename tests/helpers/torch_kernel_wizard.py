"""KernelWizard in PyTorch, written after the facts of the reference data; arrays are NCHW in [0, 1].

Tensor names are those of the published weights, and of `b2b_jax.weights.to_torch_state`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x)))."""

    def __init__(self, features: int):
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(features, features, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(x)))


class ReflectedBlock(nn.Module):
    """The same within reflected borders and without biases."""

    def __init__(self, features: int):
        super().__init__()
        convs = [nn.Conv2d(features, features, 3, bias=False) for _ in range(2)]
        pads = [nn.ReflectionPad2d(1) for _ in range(2)]
        self.conv_block = nn.Sequential(pads[0], convs[0], nn.Identity(), nn.ReLU(), pads[1], convs[1])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class UNetLevel(nn.Module):
    """Features of one level of the adapter, (n, c, h, w) and a code -> (n, c, h, w), by the levels below it."""

    def __init__(self, nf: int, level: int, levels: int):
        super().__init__()
        outer, inner = nf * min(2 ** max(level - 1, 0), 8), nf * min(2**level, 8)
        self.outermost = level == 0
        down = nn.Conv2d(outer, inner, 4, 2, 1, bias=False)
        up = nn.ConvTranspose2d(2 * inner, outer, 4, 2, 1, bias=self.outermost)
        self.down = nn.Sequential(*([] if self.outermost else [nn.LeakyReLU(0.2)]), down)
        self.up = nn.Sequential(nn.ReLU(), up)
        if level < levels - 1:
            self.submodule = UNetLevel(nf, level + 1, levels)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        y = self.down(x)
        y = self.up(self.submodule(y, code) if hasattr(self, "submodule") else torch.cat([y, code], 1))
        return torch.tanh(y) if self.outermost else torch.cat([y, x], 1)


class KernelWizard(nn.Module):
    """The variational network of the published sizes: features at a quarter of the side, five further halvings."""

    def __init__(self, nf: int, kernel_dim: int, front_blocks: int, back_blocks: int, kernel_blocks: int):
        super().__init__()
        leaky, shuffle, code = nn.LeakyReLU(0.1), nn.PixelShuffle(2), 2 * kernel_dim
        front = [nn.Conv2d(3, nf, 3, padding=1), leaky]
        for _ in range(2):
            front += [nn.Conv2d(nf, nf, 3, 2, 1), leaky]
        self.feature_extractor = nn.Sequential(*front, *(ResidualBlock(nf) for _ in range(front_blocks)))
        kernel = [nn.ReflectionPad2d(3), nn.Conv2d(2 * nf, nf, 7, bias=False), nn.Identity(), nn.ReLU()]
        for i in range(5):
            widths = min(nf * 2**i, code), min(nf * 2 ** (i + 1), code)
            kernel += [nn.Conv2d(*widths, 3, 2, 1, bias=False), nn.Identity(), nn.ReLU()]
        self.kernel_extractor = nn.Module()
        self.kernel_extractor.model = nn.Sequential(*kernel, *(ReflectedBlock(code) for _ in range(kernel_blocks)))
        self.adapter = nn.Module()
        self.adapter.model = UNetLevel(nf, 0, 5)
        back = [ResidualBlock(nf) for _ in range(back_blocks)]
        back += [nn.Conv2d(nf, 4 * nf, 3, padding=1), shuffle, leaky, nn.Conv2d(nf, 256, 3, padding=1), shuffle, leaky]
        self.recon_trunk = nn.Sequential(*back, nn.Conv2d(64, 64, 3, padding=1), leaky, nn.Conv2d(64, 3, 3, padding=1))

    def extract(self, sharp: Tensor, blurry: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and sigma of the code of a pair's blur."""
        pair = torch.cat([self.feature_extractor(sharp), self.feature_extractor(blurry)], 1)
        return self.kernel_extractor.model(pair).chunk(2, 1)

    def adapt(self, image: Tensor, code: Tensor) -> Tensor:
        """The image, blurred by a code."""
        return image + self.recon_trunk(self.adapter.model(self.feature_extractor(image), code))


def loss(network: KernelWizard, sharp: Tensor, blurry: Tensor, eps: Tensor, kl_weight: float) -> Tensor:
    """Charbonnier (epsilon 1e-3) of the re-blurred pair, and the codes' divergence from N(0, 1) per value of it."""
    mean, sigma = network.extract(sharp, blurry)
    reblurred = network.adapt(sharp, mean + sigma * eps)
    code = torch.distributions.Normal(mean, (sigma.square() + 1e-8).sqrt())
    normal = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    divergence = torch.distributions.kl_divergence(code, normal).sum() / sharp.numel()
    return ((reblurred - blurry).square() + 1e-6).sqrt().mean() + kl_weight * divergence
