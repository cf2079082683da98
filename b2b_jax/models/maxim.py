"""MAXIM: a U-Net of several stages whose MLPs mix blocks of neighbouring pixels and grids over the whole image.

Tu et al., "MAXIM: Multi-Axis MLP for Image Processing", CVPR 2022, arXiv 2201.02973. The defaults are MAXIM-3S, which
its authors published for deblurring, denoising, deraining and more. NHWC images in [0, 1]; parameters are named as in
the authors' checkpoints.
"""

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from b2b_jax.models import layers, maxim_blocks
from b2b_jax.models.maxim_mlps import CrossGatingBlock, Sizes, conv

OUTPUTS = ("last", "scales", "all")


class Features(NamedTuple):
    """What a stage hands to the next, each by level, full resolution first."""

    encoder: list[jax.Array]
    decoder: list[jax.Array]
    attended: list[jax.Array]  # of the supervised levels alone


class MAXIM(nn.Module):
    """(n, h, w, c) -> (n, h, w, c), or a list of such images; each adds to its input, and nothing is clamped.

    features: channels at the top, doubled at each of `depth` levels. num_groups: pairs of a spatial MLP and channel
    attention in a block. num_supervision_scales: levels that read the reduced input and write an image.
    high_res_stages: levels that use the `_hr` sizes; the others, and the bottleneck, use `block_size_lr` for both
    blocks and grids. block_size_*: pixels of a block, whose number grows with the image. grid_size_*: cells of the
    grid, whose pixels grow with the image: a grid MLP mixes the pixels at one place of all cells.
    outputs: 'last' gives the image of the last stage at full resolution; 'scales' all images of the last stage,
    coarsest first; 'all' a list of those of every stage. The parameters are the same.
    Sides are padded by reflection, half on each side, to multiples of `stride`, as in the published evaluation.
    ValueError: `outputs` is unknown.
    """

    features: int = 32
    depth: int = 3
    num_stages: int = 3
    num_groups: int = 2
    num_bottleneck_blocks: int = 2
    num_supervision_scales: int = 3
    high_res_stages: int = 2
    block_size_hr: tuple[int, int] = (16, 16)
    block_size_lr: tuple[int, int] = (8, 8)
    grid_size_hr: tuple[int, int] = (16, 16)
    block_gmlp_factor: int = 2
    grid_gmlp_factor: int = 2
    input_proj_factor: int = 2
    channels_reduction: int = 4
    use_bias: bool = True
    outputs: str = "last"
    dtype: Any = jnp.float32

    @property
    def stride(self) -> int:
        """Both sides of an input should be multiples of this; others are padded. 64 for the published networks."""
        sides = [2**self.depth * side for side in self.block_size_lr]
        for level in range(self.depth):
            block, grid = self._sizes(level)
            sides += [2**level * side for side in (*block, *grid)]
        return math.lcm(*sides)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array | list:
        layers.choose(dict.fromkeys(OUTPUTS), self.outputs, "outputs")
        padded, (top, left) = pad(x, self.stride)
        images = [padded, *(nearest(padded, 2**i) for i in range(1, self.num_supervision_scales))]
        stages, previous = [], None
        for stage in range(self.num_stages):
            scales, previous = self._stage(f"stage_{stage}", images, previous, last=stage == self.num_stages - 1)
            stages.append([window(y, x.shape, (top, left), padded.shape[1] // y.shape[1]) for y in scales])
        return {"last": stages[-1][-1], "scales": stages[-1], "all": stages}[self.outputs]

    def _stage(
        self, name: str, images: list[jax.Array], previous: Features | None, last: bool
    ) -> tuple[list[jax.Array], Features]:
        """Images, coarsest first, and what the next stage takes."""
        inputs = self._inputs(name, images, previous)
        x, encoded = self._encode(name, inputs, previous)
        for i in range(self.num_bottleneck_blocks):
            x = self._module(maxim_blocks.BottleneckBlock, f"{name}_global_block_{i}", self.depth - 1, deepest=True)(x)
        decoded = self._decode(name, x, self._cross_gate(name, encoded, x))

        restored, attended = [], []
        for level, image in enumerate(images):
            if last:
                change = self._conv3(f"{name}_output_conv_{level}", decoded[level], image.shape[-1])
                restored.append(image + change.astype(image.dtype))
            else:
                args = (self.features * 2**level, self.use_bias, self.dtype)
                attend = maxim_blocks.SAM(*args, name=f"{name}_supervised_attention_module_{level}")
                y, output = attend(decoded[level], image)
                attended.append(y)
                restored.append(output)
        return restored[::-1], Features(encoded, decoded, attended)

    def _inputs(self, name: str, images: list[jax.Array], previous: Features | None) -> list[jax.Array]:
        """The features of the reduced images, joined by what the stage before attended to."""
        inputs = []
        for level, image in enumerate(images):
            x = self._conv3(f"{name}_input_conv_{level}", image, self.features * 2**level)
            if previous:
                fuse = self._module(CrossGatingBlock, f"{name}_input_fuse_sam_{level}", level)
                x, _ = fuse(x, previous.attended[level])
            inputs.append(x)
        return inputs

    def _encode(
        self, name: str, inputs: list[jax.Array], previous: Features | None
    ) -> tuple[jax.Array, list[jax.Array]]:
        """The reduced features below the deepest level, and those of every level."""
        x, encoded = inputs[0], []
        for level in range(self.depth):
            block = self._module(maxim_blocks.UNetEncoderBlock, f"{name}_encoder_block_{level}", level)
            gate = previous.encoder[level] + previous.decoder[level] if previous else None
            x, bridge = block([x, *inputs[level : level + 1]], gate)
            encoded.append(bridge)
        return x, encoded

    def _cross_gate(self, name: str, encoded: list[jax.Array], x: jax.Array) -> list[jax.Array]:
        """The skips of every level, deepest first: all levels gate, and are gated by, what came up from below."""
        skips = []
        for level in reversed(range(self.depth)):
            signals = [self._resized(y, level, source) for source, y in enumerate(encoded)]
            block = self._module(CrossGatingBlock, f"{name}_cross_gating_block_{level}", level)
            skip, x = block(jnp.concatenate(signals, axis=-1), x, enlarge=True)
            skips.append(skip)
        return skips

    def _decode(self, name: str, x: jax.Array, skips: list[jax.Array]) -> list[jax.Array]:
        """The decoder's features by level, full resolution first."""
        decoded = []
        for level in reversed(range(self.depth)):
            signals = [self._resized(y, level, self.depth - 1 - i) for i, y in enumerate(skips)]
            x = self._module(maxim_blocks.UNetDecoderBlock, f"{name}_decoder_block_{level}", level)(x, signals)
            decoded.append(x)
        return decoded[::-1]

    def _resized(self, y: jax.Array, level: int, source: int) -> jax.Array:
        # The authors let flax number these modules in the order of their calls.
        return maxim_blocks.UpSampleRatio(self.features * 2**level, source - level, self.use_bias, self.dtype)(y)

    def _conv3(self, name: str, x: jax.Array, features: int) -> jax.Array:
        return conv(name, x, features, 3, use_bias=self.use_bias, dtype=self.dtype)

    def _module(self, kind: type, name: str, level: int, deepest: bool = False) -> nn.Module:
        block, grid = self._sizes(self.depth if deepest else level)
        sizes = Sizes(block, grid, self.block_gmlp_factor, self.grid_gmlp_factor, self.input_proj_factor)
        options = {"groups": self.num_groups, "reduction": self.channels_reduction}
        options = {} if kind is CrossGatingBlock else options
        return kind(self.features * 2**level, sizes, use_bias=self.use_bias, dtype=self.dtype, name=name, **options)

    def _sizes(self, level: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Block and grid of a level; the bottleneck's level is `depth`."""
        if level < min(self.high_res_stages, self.depth):
            return self.block_size_hr, self.grid_size_hr
        return self.block_size_lr, self.block_size_lr  # the authors' code never reads its grid_size_lr


def pad(x: jax.Array, multiple: int) -> tuple[jax.Array, tuple[int, int]]:
    """Reflects x (n, h, w, c) up to multiples of `multiple`, half on each side; returns it and where x begins in it.

    Odd sides first grow by one at the end, so that halves are whole.
    """
    even = [n + n % 2 for n in x.shape[1:3]]
    more = [-n % multiple // 2 for n in even]
    pads = [(m, m + e - n) for m, e, n in zip(more, even, x.shape[1:3], strict=True)]
    return jnp.pad(x, ((0, 0), *pads, (0, 0)), "reflect"), tuple(more)


def window(y: jax.Array, shape: tuple[int, ...], corner: tuple[int, int], reduction: int) -> jax.Array:
    """Cuts what belongs to an image of `shape` out of a padded output that is `reduction` times smaller."""
    (top, left), (h, w) = (n // reduction for n in corner), (-(-n // reduction) for n in shape[1:3])
    return y[:, top : top + h, left : left + w]


def nearest(x: jax.Array, r: int) -> jax.Array:
    """Reduces both sides r times: the pixel right below the middle of each cell (jax.image.resize, "nearest")."""
    return layers.cells(x, r)[:, :, r // 2, :, r // 2]


# ---- from parameters ----


def recognise(state: Mapping[str, np.ndarray]) -> dict[str, Any] | None:
    """Hyper-parameters from the paths and shapes of the authors' parameters; None: they are of another network.

    ValueError: it lacks what every MAXIM has, or its blocks or grids are not square: shapes tell areas alone.
    """
    if "stage_0_input_conv_0/kernel" not in state:
        return None
    try:
        return _hyper({name: array.shape for name, array in state.items()})
    except KeyError as error:
        raise ValueError(f"a MAXIM with spatial MLPs and channel attention has {error}, which is missing") from error


def _hyper(shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    top, lowest, mlp = "stage_0_encoder_block_0", "stage_0_global_block_0", "SplitHeadMultiAxisGmlpLayer_0"
    features, depth = shapes["stage_0_input_conv_0/kernel"][-1], _count(shapes, r"stage_0_encoder_block_(\d+)/")
    factors = {
        name: shapes[f"{lowest}/{mlp}/{name}in_project/kernel"] for name in ("BlockGmlpLayer/", "GridGmlpLayer/", "")
    }
    sizes = [
        tuple(
            _side(shapes, f"{block}/{mlp}/{axis}GmlpLayer/{axis}GatingUnit/Dense_0/kernel")
            for axis in ("Block", "Grid")
        )
        for block in [*(f"stage_0_encoder_block_{level}" for level in range(depth)), lowest]
    ]
    return {
        "features": features,
        "depth": depth,
        "num_stages": _count(shapes, r"stage_(\d+)_"),
        "num_groups": _count(shapes, rf"{top}/SplitHeadMultiAxisGmlpLayer_(\d+)/"),
        "num_bottleneck_blocks": _count(shapes, r"stage_0_global_block_(\d+)/"),
        "num_supervision_scales": _count(shapes, r"stage_0_input_conv_(\d+)/"),
        "high_res_stages": sum(size != sizes[-1] for size in sizes),
        "block_size_hr": sizes[0][0],
        "grid_size_hr": sizes[0][1],
        "block_size_lr": sizes[-1][0],
        "block_gmlp_factor": _factor(factors["BlockGmlpLayer/"]),
        "grid_gmlp_factor": _factor(factors["GridGmlpLayer/"]),
        "input_proj_factor": _factor(factors[""]),
        "channels_reduction": features
        // shapes[f"{top}/channel_attention_block_10/channel_attention/Conv_0/kernel"][-1],
        "use_bias": "stage_0_input_conv_0/bias" in shapes,
    }


def _count(shapes: Mapping[str, Any], pattern: str) -> int:
    return len({match[1] for name in shapes if (match := re.match(pattern, name))})


def _side(shapes: Mapping[str, tuple[int, ...]], name: str) -> list[int]:
    area = shapes[name][-1]
    if (side := math.isqrt(area)) ** 2 != area:
        raise ValueError(f"{name} mixes {area} pixels, wanted a square number: shapes do not tell unequal sides")
    return [side, side]


def _factor(shape: tuple[int, ...]) -> int:
    return shape[-1] // shape[0]
