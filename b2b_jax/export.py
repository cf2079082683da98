"""Exports a deblurrer for programs without JAX: ONNX for browsers, phones and desktops, StableHLO for XLA and IREE.

    b2b-jax export runs/mine mine.onnx --size 720x1280
    b2b-jax export runs/mine mine.mlir --size 256x256 --method deblurrer

The whole chain is one file. It takes a photo `photo`, float32 (1, 3, height, width) in [0, 1], RGB, and returns `sharp`
in the same form. Height and width are fixed: they are part of the program, and whatever runs the file has to cut larger
photos into tiles of that size. An ONNX file is run once with onnxruntime and must agree with JAX within 1e-4 before it
is written. Exit codes: 0 done; 2 the input is wrong (one line on stderr); 1 the disk is full.
"""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from b2b_jax import commandline, files, named, system, terminal
from b2b_jax.errors import UserError
from b2b_jax.formats import onnx_files, portable
from b2b_jax.networks import Network, apply

TOLERANCE = 1e-4  # of colours in [0, 1], a fortieth of an 8-bit level
NAMES = ("photo", "sharp")
LARGEST = 4096  # pixels of a side


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    options = _parser().parse_args(argv)
    return commandline.outcome(lambda: _export(options))


def _export(options: argparse.Namespace) -> None:
    h, w = options.size
    choice = system.choose(named.located(options.model), options.method)
    _check_output(options.output, choice)
    function = channels_first(system.open_networks(choice, "float32"))
    content, notes = FORMATS[options.to or SUFFIXES.get(options.output.suffix.lower(), "onnx")](function, (1, 3, h, w))
    with files.draft(options.output) as part:
        part.write_bytes(content)
    print(f"{options.output}: {len(content) / 1e6:.1f} MB, (1, 3, {h}, {w}) float32 in [0, 1], fixed size; {notes}")


def _check_output(output: Path, choice: system.Choice) -> None:
    """UserError for a folder, other files than exports, and names of weights; OSError where it cannot be written."""
    if output.is_dir():
        raise UserError(f"{output} is a folder; name the file to write")
    weights = (path for path in (choice.translator, choice.deblurrer) if path and path.exists())
    if output.exists() and any(map(output.samefile, weights)):
        raise UserError(f"{output} holds the weights that are to be exported; name another file to write")
    if output.suffix.lower() == ".safetensors":
        raise UserError(f"{output} has the suffix of weights, which an export is not; name it .onnx or .mlir")
    if output.exists() and not _is_export(output):
        raise UserError(f"{output} exists and is no export; name another file to write, or remove it")
    files.check_writable(output.parent)


def _is_export(path: Path) -> bool:
    """True for a file that this command wrote, and for an empty one."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(64)
    kinds = {b"ML\xefR": b"StableHLO", b"\x08": onnx_files.PRODUCER.encode()}  # how files begin, what follows soon
    return not head or any(head.startswith(start) and word in head for start, word in kinds.items())


def channels_first(networks: Sequence[Network]) -> Callable[[jax.Array], jax.Array]:
    """The chain as a function from (n, 3, h, w) to (n, 3, h, w), as most programs outside JAX hold photos."""

    def chain(photo: jax.Array) -> jax.Array:
        image = photo.transpose(0, 2, 3, 1)
        for module, variables in networks:
            image = apply(module, variables, image)
        return image.transpose(0, 3, 1, 2)

    return chain


def to_onnx(function: Callable, shape: tuple[int, ...]) -> tuple[bytes, str]:
    """An ONNX file of the function, and what onnxruntime made of it. UserError: they disagree, or it is missing."""
    content = onnx_files.model(function, shape, NAMES)
    difference = disagreement(content, function, shape)
    if not difference <= TOLERANCE:
        raise UserError(f"onnxruntime differs from JAX by {difference:.2g}, more than {TOLERANCE:g}; nothing written")
    return content, f"ONNX operators {onnx_files.OPSET}; onnxruntime and JAX differ by at most {difference:.1g}"


def disagreement(content: bytes, function: Callable, shape: tuple[int, ...]) -> float:
    """The largest difference between an ONNX file in onnxruntime and the function, on a photo of noise."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(onnx_files.MISSING) from error
    photo = np.random.default_rng(0).random(shape, np.float32)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (sharp,) = session.run(None, {NAMES[0]: photo})
    with jax.default_matmul_precision("highest"):
        wanted = jax.jit(function)(photo)
    return float(np.abs(sharp - np.asarray(wanted)).max())


def to_stablehlo(function: Callable, shape: tuple[int, ...]) -> tuple[bytes, str]:
    """The function as a portable artifact of StableHLO, in the form for every platform, and what to say of it."""
    wanted = jax.ShapeDtypeStruct(shape, jnp.float32)
    program = portable.program(function, wanted)
    exported = jax.export.export(jax.jit(lambda photo: core.jaxpr_as_fun(program)(photo)[0]), platforms=["tpu"])(wanted)
    return exported.mlir_module_serialized, "StableHLO portable artifact, function main"


FORMATS = {"onnx": to_onnx, "stablehlo": to_stablehlo}
SUFFIXES = {".mlir": "stablehlo", ".stablehlo": "stablehlo"}


def size(text: str) -> tuple[int, int]:
    """Height and width from `720x1280`; an error of argparse for any other text."""
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    sides = (int(found[1]), int(found[2])) if found else (0, 0)
    if not all(1 <= side <= LARGEST for side in sides):
        raise argparse.ArgumentTypeError(f"{text!r} is no HEIGHTxWIDTH of 1 to {LARGEST} pixels, such as 720x1280")
    return sides


def _parser() -> terminal.Parser:
    parser = terminal.Parser("export", __doc__)
    parser.add_argument("model", type=files.given, metavar="RUN", help="a run's folder, a .safetensors, or a name")
    parser.add_argument("output", type=files.given, metavar="FILE", help="the file to write")
    parser.add_argument("--to", choices=FORMATS, help="format of the file (default: stablehlo for .mlir, else onnx)")
    parser.add_argument("--size", type=size, required=True, metavar="HEIGHTxWIDTH", help="of the photos, in pixels")
    parser.add_argument(
        "--method", choices=system.METHODS, default="", help="which system of a run (default: the best)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
