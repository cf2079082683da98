"""The parts of MAXIM that mix pixels: multi-axis gated MLPs and cross gating.

Figures and equations: Tu et al., CVPR 2022, arXiv 2201.02973. Features are (n, h, w, c). A spatial MLP mixes pixels
along one of two axes: 'block', those of one block, or 'grid', those at one place of every cell of a grid.

Products are computed in `dtype`, and what is done to each number between them in float32, which costs nothing: with
bfloat16 throughout, MAXIM-3S loses twice as much (docs/maxim.md).
"""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from b2b_jax.models import layers
from b2b_jax.models.convolution import pointwise

once_for_a_shape = functools.partial(jax.jit, static_argnums=(1, 2))  # a thousand layers have a few dozen shapes
INIT = {"kernel_init": once_for_a_shape(nn.initializers.lecun_normal()), "bias_init": nn.initializers.zeros}
SPATIAL_INIT = {"kernel_init": once_for_a_shape(nn.initializers.normal(0.02)), "bias_init": nn.initializers.ones}


@jax.jit
def gelu(x: jax.Array) -> jax.Array:
    """The approximation by tanh."""
    return nn.gelu(x.astype(jnp.float32)).astype(x.dtype)


class Sizes(NamedTuple):
    """The spatial MLPs of a level."""

    block: tuple[int, int]  # rows and columns of pixels
    grid: tuple[int, int]  # rows and columns of cells
    block_factor: int = 2  # hidden channels of a gated MLP, as a multiple of its input's
    grid_factor: int = 2
    project_factor: int = 2  # channels that both axes share, as a multiple of the input's


# ---- projections ----


def conv(name: str, x: jax.Array, features: int, kernel_size: int = 1, **kw: Any) -> jax.Array:
    """A convolution with flax's default initialisation, in the calling module."""
    return layers.Conv(features, kernel_size, name=name, **INIT, **kw)(x)


class Dense(nn.Module):
    """(..., in) -> (..., features)."""

    features: int
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", INIT["kernel_init"], (x.shape[-1], self.features))
        bias = self.param("bias", INIT["bias_init"], (self.features,)) if self.use_bias else None
        return product(x, kernel, bias, self.dtype, jax.config.jax_default_matmul_precision)


@functools.partial(jax.jit, static_argnums=(3, 4))
def product(x: jax.Array, kernel: jax.Array, bias: jax.Array | None, dtype: Any, precision: str | None) -> jax.Array:
    """x (..., in) times kernel (in, out), plus bias (out,), computed in `dtype`."""
    y = pointwise(x.astype(dtype), kernel.astype(dtype), precision)
    return y if bias is None else (y.astype(jnp.float32) + bias).astype(dtype)


class SpatialDense(nn.Module):
    """Mixes the first axis of (s, n, rest, c), as `gather` lays pixels out; the sums are float32."""

    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", SPATIAL_INIT["kernel_init"], (len(x), len(x)))
        bias = self.param("bias", SPATIAL_INIT["bias_init"], (len(x),)) if self.use_bias else None
        return spatial_product(x, kernel, bias, self.dtype, jax.config.jax_default_matmul_precision)


@functools.partial(jax.jit, static_argnums=(3, 4))
def spatial_product(
    x: jax.Array, kernel: jax.Array, bias: jax.Array | None, dtype: Any, precision: str | None
) -> jax.Array:
    """Kernel (s, s) over the first axis of x (s, n, rest, c), computed in `dtype`, plus bias (s,): float32."""
    y = jnp.tensordot(kernel.astype(dtype), x.astype(dtype), (0, 0), precision=precision).astype(jnp.float32)
    return y if bias is None else y + bias[:, None, None, None]


@once_for_a_shape
def gather(x: jax.Array, axis: str, size: tuple[int, int]) -> jax.Array:
    """(n, h, w, c) -> (s, n, rest, c): the s pixels that an axis mixes stand first."""
    (n, h, w, c), (a, b) = x.shape, size
    if axis == "block":
        x = x.reshape(n, h // a, a, w // b, b, c).transpose(2, 4, 0, 1, 3, 5)
    else:
        x = x.reshape(n, a, h // a, b, w // b, c).transpose(1, 3, 0, 2, 4, 5)
    return x.reshape(a * b, n, -1, c)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def scatter(y: jax.Array, axis: str, size: tuple[int, int], image: tuple[int, int]) -> jax.Array:
    """The inverse of `gather`; image: (h, w)."""
    (_, n, _, c), (a, b), (h, w) = y.shape, size, image
    if axis == "block":
        y = y.reshape(a, b, n, h // a, w // b, c).transpose(2, 3, 0, 4, 1, 5)
    else:
        y = y.reshape(a, b, n, h // a, w // b, c).transpose(2, 0, 3, 1, 4, 5)
    return y.reshape(n, h, w, c)


class Enlarge(nn.Module):
    """Flax's ConvTranspose, 2x2 with stride 2: a product for each of the four pixels that a pixel becomes."""

    features: int
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        (n, h, w, c), out = x.shape, self.features
        kernel = self.param("kernel", INIT["kernel_init"], (2, 2, c, out)).astype(self.dtype)
        phases = kernel[::-1, ::-1].transpose(2, 0, 1, 3).reshape(c, 4 * out)  # flax correlates
        y = pointwise(x.astype(self.dtype), phases, jax.config.jax_default_matmul_precision)
        y = y.reshape(n, h, w, 2, 2, out).transpose(0, 1, 3, 2, 4, 5).reshape(n, 2 * h, 2 * w, out)
        return y + self.param("bias", INIT["bias_init"], (out,)).astype(self.dtype) if self.use_bias else y


# ---- multi-axis gated MLP (figure 2b, equations 1 to 3) ----


class GatingUnit(nn.Module):
    """(s, n, rest, 2 c) -> (s, n, rest, c): half of the channels, gated by the spatially mixed other half."""

    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        u, v = jnp.split(x, 2, axis=-1)
        v = layers.LayerNorm2d(dtype=self.dtype, name="intermediate_layernorm")(v)
        return (u * (SpatialDense(self.use_bias, self.dtype, name="Dense_0")(v) + 1)).astype(self.dtype)


class GmlpLayer(nn.Module):
    """x + gMLP(x) along one axis of the pixels."""

    axis: str
    size: tuple[int, int]
    factor: int = 2
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c, kw = x.shape[-1], {"use_bias": self.use_bias, "dtype": self.dtype}
        pixels = gather(x, self.axis, self.size)
        y = layers.LayerNorm2d(dtype=self.dtype, name="LayerNorm")(pixels)
        y = gelu(Dense(c * self.factor, name="in_project", **kw)(y))
        y = GatingUnit(name=f"{self.axis.capitalize()}GatingUnit", **kw)(y)
        y = pixels + Dense(c, name="out_project", **kw)(y)
        return scatter(y, self.axis, self.size, x.shape[1:3])


class MultiAxisGmlp(nn.Module):
    """x + projection of two halves of the channels: one goes through the grid's gMLP, the other through the block's."""

    sizes: Sizes
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c, sizes, kw = x.shape[-1], self.sizes, {"use_bias": self.use_bias, "dtype": self.dtype}
        y = layers.LayerNorm2d(dtype=self.dtype, name="LayerNorm_in")(x)
        y = gelu(Dense(c * sizes.project_factor, name="in_project", **kw)(y))
        u, v = jnp.split(y, 2, axis=-1)
        u = GmlpLayer("grid", sizes.grid, sizes.grid_factor, name="GridGmlpLayer", **kw)(u)
        v = GmlpLayer("block", sizes.block, sizes.block_factor, name="BlockGmlpLayer", **kw)(v)
        return x + Dense(c, name="out_project", **kw)(jnp.concatenate([u, v], axis=-1))


# ---- cross gating (figure 2c, equations 4 to 6) ----


class SpatialGate(nn.Module):
    """The weights, shaped as x (n, h, w, c), that one signal gates another with."""

    sizes: Sizes
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c, kw = x.shape[-1], {"use_bias": self.use_bias, "dtype": self.dtype}
        y = layers.LayerNorm2d(dtype=self.dtype, name="LayerNorm_in")(x)
        y = gelu(Dense(c * self.sizes.project_factor, name="in_project", **kw)(y))
        u, v = jnp.split(y, 2, axis=-1)
        u = self._mixed("Dense_0", u, "grid", self.sizes.grid)
        v = self._mixed("Dense_1", v, "block", self.sizes.block)
        return Dense(c, name="out_project", **kw)(jnp.concatenate([u, v], axis=-1))

    def _mixed(self, name: str, x: jax.Array, axis: str, size: tuple[int, int]) -> jax.Array:
        y = SpatialDense(self.use_bias, self.dtype, name=name)(gather(x, axis, size)).astype(self.dtype)
        return scatter(y, axis, size, x.shape[1:3])


class CrossGatingBlock(nn.Module):
    """Two signals, each multiplied by the other's spatial gate: x, y -> (all of them summed, the gated y).

    enlarge: y comes from the level below, and its sides are doubled first.
    """

    features: int
    sizes: Sizes
    use_bias: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, y: jax.Array, enlarge: bool = False) -> tuple[jax.Array, jax.Array]:
        c, kw = self.features, {"use_bias": self.use_bias, "dtype": self.dtype}
        if enlarge:
            y = Enlarge(c, name="ConvTranspose_0", **kw)(y)
        x, y = conv("Conv_0", x, c, **kw), conv("Conv_1", y, c, **kw)
        projected_x, gate_x = self._gate("x", x)
        projected_y, gate_y = self._gate("y", y)
        y = y + Dense(c, name="out_project_y", **kw)(projected_y * gate_x)
        return x + y + Dense(c, name="out_project_x", **kw)(projected_x * gate_y), y

    def _gate(self, letter: str, signal: jax.Array) -> tuple[jax.Array, jax.Array]:
        kw = {"use_bias": self.use_bias, "dtype": self.dtype}
        z = layers.LayerNorm2d(dtype=self.dtype, name=f"LayerNorm_{letter}")(signal)
        z = gelu(Dense(self.features, name=f"in_project_{letter}", **kw)(z))
        return z, SpatialGate(self.sizes, name=f"SplitHeadMultiAxisGating_{letter}", **kw)(z)
