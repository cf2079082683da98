"""MIMO-UNet, PatchGAN and VGG in PyTorch, equal in value to those of b2b_jax; arrays are NCHW in [0, 1].

Tensor names are those of `b2b_jax.weights.to_torch_state`, so that its state dicts load as they are. Only the benchmark
and its tests use this file; the package never imports PyTorch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from b2b_jax.models.vgg import WIDTHS, convolutions


class BasicConv(nn.Module):
    """Convolution, or the transposed one that doubles both sides, then ReLU unless told otherwise."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, doubling=False, relu=True):
        super().__init__()
        one = nn.ConvTranspose2d(inputs, outputs, 4, 2, 1) if doubling else None
        conv = one or nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)
        self.main = nn.Sequential(conv, nn.ReLU()) if relu else nn.Sequential(conv)

    def forward(self, x: Tensor) -> Tensor:
        """The layers in turn."""
        return self.main(x)


class ResBlock(nn.Module):
    """x + conv(relu(conv(x)))."""

    def __init__(self, features: int):
        super().__init__()
        self.main = nn.Sequential(BasicConv(features, features), BasicConv(features, features, relu=False))

    def forward(self, x: Tensor) -> Tensor:
        """The sum."""
        return x + self.main(x)


class Stage(nn.Module):
    """The residual blocks of one scale."""

    def __init__(self, features: int, blocks: int):
        super().__init__()
        self.layers = nn.Sequential(*(ResBlock(features) for _ in range(blocks)))

    def forward(self, x: Tensor) -> Tensor:
        """The blocks in turn."""
        return self.layers(x)


class SCM(nn.Module):
    """Features of a reduced image, (n, 3, h, w) -> (n, c, h, w)."""

    def __init__(self, c: int):
        super().__init__()
        sizes = ((3, c // 4, 3), (c // 4, c // 2, 1), (c // 2, c // 2, 3), (c // 2, c - 3, 1))
        self.main = nn.Sequential(*(BasicConv(*size) for size in sizes))
        self.conv = BasicConv(c, c, 1, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        """The image and its features, mixed."""
        return self.conv(torch.cat([x, self.main(x)], 1))


class FAM(nn.Module):
    """x1 + conv(x1 * x2)."""

    def __init__(self, features: int):
        super().__init__()
        self.merge = BasicConv(features, features, relu=False)

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        """The sum."""
        return x1 + self.merge(x1 * x2)


class AFF(nn.Module):
    """The features of three scales, already of one size, fused."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = nn.Sequential(BasicConv(inputs, outputs, 1), BasicConv(outputs, outputs, relu=False))

    def forward(self, *features: Tensor) -> Tensor:
        """Fused in the order given."""
        return self.conv(torch.cat(features, 1))


def half(x: Tensor) -> Tensor:
    """The top left pixel of each 2x2 cell."""
    return x[:, :, ::2, ::2]


def double(x: Tensor) -> Tensor:
    """Every pixel four times."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


class MIMOUNet(nn.Module):
    """(n, 3, h, w) -> [quarter, half, full]; both sides are multiples of 4."""

    def __init__(self, base_channels: int, num_res: int):
        super().__init__()
        c, sizes = base_channels, (base_channels, 2 * base_channels, 4 * base_channels)
        self.Encoder = nn.ModuleList(Stage(size, num_res) for size in sizes)
        self.Decoder = nn.ModuleList(Stage(size, num_res) for size in sizes[::-1])
        self.feat_extract = nn.ModuleList(
            [
                BasicConv(3, c),
                BasicConv(c, 2 * c, stride=2),
                BasicConv(2 * c, 4 * c, stride=2),
                BasicConv(4 * c, 2 * c, doubling=True),
                BasicConv(2 * c, c, doubling=True),
                BasicConv(c, 3, relu=False),
            ]
        )
        self.Convs = nn.ModuleList([BasicConv(4 * c, 2 * c, 1), BasicConv(2 * c, c, 1)])
        self.ConvsOut = nn.ModuleList([BasicConv(4 * c, 3, relu=False), BasicConv(2 * c, 3, relu=False)])
        self.AFFs = nn.ModuleList([AFF(7 * c, c), AFF(7 * c, 2 * c)])
        self.FAM1, self.SCM1, self.FAM2, self.SCM2 = FAM(4 * c), SCM(4 * c), FAM(2 * c), SCM(2 * c)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Encoder, fusion, decoder."""
        x2 = half(x)
        x4 = half(x2)
        z1 = self.Encoder[0](self.feat_extract[0](x))
        z2 = self.Encoder[1](self.FAM2(self.feat_extract[1](z1), self.SCM2(x2)))
        z4 = self.Encoder[2](self.FAM1(self.feat_extract[2](z2), self.SCM1(x4)))
        z42 = double(z4)
        skip2 = self.AFFs[1](half(z1), z2, z42)
        skip1 = self.AFFs[0](z1, double(z2), double(z42))
        z = self.Decoder[0](z4)
        quarter = x4 + self.ConvsOut[0](z)
        z = self.Decoder[1](self.Convs[0](torch.cat([self.feat_extract[3](z), skip2], 1)))
        middle = x2 + self.ConvsOut[1](z)
        z = self.Decoder[2](self.Convs[1](torch.cat([self.feat_extract[4](z), skip1], 1)))
        return [quarter, middle, x + self.feat_extract[5](z)]


class PatchGAN(nn.Module):
    """(n, 3, h, w) -> logits (n, 1, h', w'); norm: 'instance' or 'none'; input: 'rgb' or 'gradient'."""

    def __init__(self, ndf: int, n_layers: int, norm: str, input: str):
        super().__init__()
        self.gradient, width = input == "gradient", 6 if input == "gradient" else 3
        layers = []
        for i in range(n_layers + 1):
            outputs = ndf * min(2**i, 8)
            layers.append(nn.Conv2d(width, outputs, 4, 2 if i < n_layers else 1, 1))
            if i:
                layers.append(nn.InstanceNorm2d(outputs) if norm == "instance" else nn.Identity())
            layers.append(nn.LeakyReLU(0.2))
            width = outputs
        self.model = nn.Sequential(*layers, nn.Conv2d(width, 1, 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """The layers in turn, on the photo or on its differences."""
        if self.gradient:
            dx, dy = F.pad(x.diff(dim=3), (0, 1)), F.pad(x.diff(dim=2), (0, 0, 0, 1))
            x = 8 * torch.cat([dx, dy], 1)
        return self.model(x)


class VGG(nn.Module):
    """(n, 3, h, w) -> the features named in `layers`, as 'relu4_1' or, before its ReLU, 'conv5_1'."""

    def __init__(self, depth: int, layers: tuple[str, ...]):
        super().__init__()
        self.layers, self.features, width = layers, nn.ModuleDict(), 3
        self.order = []
        for index, block, i in convolutions(depth):
            self.features[str(index)] = nn.Conv2d(width, WIDTHS[block - 1], 3, 1, 1)
            self.order.append((str(index), f"{block}_{i}", i == 1 and block > 1))
            width = WIDTHS[block - 1]
            if {f"conv{block}_{i}", f"relu{block}_{i}"} & {layers[-1]}:
                break

    def forward(self, x: Tensor) -> list[Tensor]:
        """Convolutions, each with its ReLU, and a pooling before each block but the first."""
        found = {}
        for index, name, pooled in self.order:
            x = self.features[index](F.max_pool2d(x, 2) if pooled else x)
            found[f"conv{name}"] = x
            found[f"relu{name}"] = x = F.relu(x)
        return [found[name] for name in self.layers]
