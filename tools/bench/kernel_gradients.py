"""Times three ways to the gradient of a 3x3 convolution's kernel, on this machine: why `convolution_cpu` has its own.

    python -m tools.bench.kernel_gradients --repeats 20

The gradient sliding over the image (XLA's own), the image sliding over the gradient (`image_over_gradient`), and a loop
over blocks of two rows that gathers each block's patches for one matrix product. Medians of calls that take turns.
"""

import argparse
import sys

import jax
import jax.numpy as jnp
from jax import lax

from b2b_jax.models import convolution_cpu
from tools.bench import measure

SHAPES = (  # images, side, channels in, channels out: those of the demo, then those of the paper's networks
    *((8, 48, 8, 3), (8, 24, 24, 12), (8, 48, 8, 8), (8, 48, 16, 16), (8, 24, 16, 16), (8, 12, 32, 32)),
    *((1, 256, 32, 3), (1, 128, 64, 3), (1, 64, 128, 3)),
    *((1, 256, 32, 32), (4, 256, 32, 32), (1, 128, 64, 64), (1, 64, 128, 128), (1, 256, 64, 64), (1, 128, 128, 128)),
)
ROWS = 2  # of a block


def gradient_over_image(x: jax.Array, g: jax.Array) -> jax.Array:
    """XLA's: x (n, h, w, c), g (n, h, w, o) -> (3, 3, c, o)."""
    kernel = jnp.zeros((3, 3, x.shape[-1], g.shape[-1]))
    forward = lambda kernel: lax.conv_general_dilated(  # noqa: E731
        x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=convolution_cpu.DIMENSIONS
    )
    return jax.vjp(forward, kernel)[1](g)[0]


def image_over_gradient(x: jax.Array, g: jax.Array) -> jax.Array:
    """That of few channels out, at any number of them."""
    return convolution_cpu.image_over_gradient(x, g, convolution_cpu.Geometry(padding=(1, 1)))


def patches(x: jax.Array, g: jax.Array) -> jax.Array:
    """A matrix product for each block of rows, summed in a loop."""
    (_, h, w, c), o = x.shape, g.shape[-1]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))

    def add(total: jax.Array, top: jax.Array) -> tuple[jax.Array, None]:
        rows = lax.dynamic_slice_in_dim(padded, top, ROWS + 2, axis=1)
        seen = jnp.concatenate([rows[:, i : i + ROWS, j : j + w] for i in range(3) for j in range(3)], axis=-1)
        block = lax.dynamic_slice_in_dim(g, top, ROWS, axis=1)
        return total + seen.reshape(-1, 9 * c).T @ block.reshape(-1, o), None

    return lax.scan(add, jnp.zeros((9 * c, o)), jnp.arange(0, h, ROWS))[0].reshape(3, 3, c, o)


WAYS = {"gradient over image": gradient_over_image, "image over gradient": image_over_gradient, "patches": patches}


def main() -> int:
    """Prints one line for each shape; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    repeats = parser.parse_args().repeats
    print(f"| images, side, in, out | {' | '.join(f'{way}, ms' for way in WAYS)} |\n{'| --- ' * (1 + len(WAYS))}|")
    for n, side, c, o in SHAPES:
        x, g = (jax.random.normal(jax.random.key(channels), (n, side, side, channels)) for channels in (c, o))
        programs = {name: jax.jit(way) for name, way in WAYS.items()}
        calls = {name: lambda program=program, x=x, g=g: program(x, g) for name, program in programs.items()}
        rows = [measure.row(name, n, times) for name, times in measure.sample(calls, repeats).items()]
        cells = " | ".join(f"{1e3 * row.seconds:.2f} ({1e3 * row.fastest:.2f})" for row in rows)
        print(f"| {n}, {side}, {c}, {o} | {cells} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
