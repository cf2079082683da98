"""NAFNet in PyTorch, equal in value to that of b2b_jax without its local means; arrays are NCHW in [0, 1].

Tensor names are those of `b2b_jax.weights.to_torch_state`, so that its state dicts load as they are. Only the benchmark
and its tests use this file; the package never imports PyTorch.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of each pixel."""

    def __init__(self, c: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(c)), nn.Parameter(torch.zeros(c))

    def forward(self, x: Tensor) -> Tensor:
        """In float32, returned in the type of x."""
        y = x.float()
        y = y - y.mean(1, keepdim=True)
        y = y * torch.rsqrt(y.square().mean(1, keepdim=True) + 1e-6)
        return (y * self.weight[:, None, None] + self.bias[:, None, None]).to(x.dtype)


def gate(x: Tensor) -> Tensor:
    """The first half of the channels times the second."""
    a, b = x.chunk(2, 1)
    return a * b


class NAFBlock(nn.Module):
    """Two residual halves: convolution with attention, then a gated product of channels."""

    def __init__(self, c: int):
        super().__init__()
        self.norm1, self.norm2 = LayerNorm2d(c), LayerNorm2d(c)
        self.conv1, self.conv2 = nn.Conv2d(c, 2 * c, 1), nn.Conv2d(2 * c, 2 * c, 3, padding=1, groups=2 * c)
        self.sca = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, c, 1))
        self.conv3, self.conv4, self.conv5 = nn.Conv2d(c, c, 1), nn.Conv2d(c, 2 * c, 1), nn.Conv2d(c, c, 1)
        self.beta, self.gamma = (nn.Parameter(torch.zeros(1, c, 1, 1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Both halves."""
        y = gate(self.conv2(self.conv1(self.norm1(x))))
        x = x + self.conv3(y * self.sca(y)) * self.beta
        return x + self.conv5(gate(self.conv4(self.norm2(x)))) * self.gamma


class NAFNet(nn.Module):
    """(n, 3, h, w) -> (n, 3, h, w); the arguments are those of `b2b_jax.models.nafnet.NAFNet`."""

    def __init__(self, width: int, encoders: Sequence[int], middle: int, decoders: Sequence[int], unshuffle: int):
        super().__init__()
        self.r, self.stride, c = unshuffle, 2 ** len(encoders) * unshuffle, width
        self.intro = nn.Conv2d(3 * unshuffle**2, width, 3, padding=1)
        self.ending = nn.Conv2d(width, 3 * unshuffle**2, 3, padding=1)
        self.encoders, self.downs, self.ups, self.decoders = (nn.ModuleList() for _ in range(4))
        for blocks in encoders:
            self.encoders.append(_blocks(c, blocks))
            self.downs.append(nn.Conv2d(c, 2 * c, 2, 2))
            c *= 2
        self.middle_blks = _blocks(c, middle)
        for blocks in decoders:
            self.ups.append(nn.Sequential(nn.Conv2d(c, 2 * c, 1, bias=False), nn.PixelShuffle(2)))
            c //= 2
            self.decoders.append(_blocks(c, blocks))

    def forward(self, x: Tensor) -> Tensor:
        """Padded by the last pixels to multiples of the stride, as `networks.apply` does it, and cut again."""
        h, w = x.shape[2:]
        x = F.pad(x, (0, -w % self.stride, 0, -h % self.stride), "replicate")
        y, skips = self.intro(F.pixel_unshuffle(x, self.r)), []
        for blocks, down in zip(self.encoders, self.downs, strict=True):
            skips.append(blocks(y))
            y = down(skips[-1])
        y = self.middle_blks(y)
        for up, blocks in zip(self.ups, self.decoders, strict=True):
            y = blocks(up(y) + skips.pop())
        return (x + F.pixel_shuffle(self.ending(y), self.r))[:, :, :h, :w]


def _blocks(c: int, number: int) -> nn.Sequential:
    return nn.Sequential(*(NAFBlock(c) for _ in range(number)))
