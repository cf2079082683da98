"""Exported networks in onnxruntime beside JAX: size, operators, largest difference, time; a Markdown table.

    python -m tools.bench.exports demo:deblurrer demo:blur2blur weights/maxim_gopro.safetensors nafnet:width=32

A network is a run's folder, a converted file or a name, with the method of a run behind a colon; or one of
`models.create` with its numbers behind the colon, whose weights are then random. JAX and onnxruntime take turns on the
same photo of noise, with as many threads as there are cores; a time is the median of --repeats, in brackets the least.
"""

import argparse
import importlib
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import jax
import numpy as np
from clu.parameter_overview import count_parameters

from b2b_jax import commandline, export, extras, models, named, system
from b2b_jax.errors import UserError
from b2b_jax.formats import onnx_files
from b2b_jax.networks import Network
from tools.bench import steps

HEAD = (
    "| network | parameters | ONNX file, MB | largest difference from JAX | onnxruntime, s | JAX, s |",
    "| --- | --- | --- | --- | --- | --- |",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", metavar="NETWORK")
    parser.add_argument("--size", type=export.size, default=(256, 256), metavar="HEIGHTxWIDTH")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(argv)
    return commandline.outcome(lambda: table(options))


def table(options: argparse.Namespace) -> None:
    """Prints the table, a line as soon as it is measured."""
    h, w = options.size
    onnxruntime = runtime()
    print(f"{h} x {w} pixels; onnxruntime {onnxruntime.__version__}, jax {jax.__version__}; opset {onnx_files.OPSET}\n")
    print(*HEAD, sep="\n")
    for name in options.networks:
        print(row(name, (1, 3, h, w), options.repeats), flush=True)


def runtime() -> ModuleType:
    """onnxruntime, which is an extra; UserError when it is missing."""
    extras.need("onnxruntime", onnx_files.MISSING)
    return importlib.import_module("onnxruntime")


def row(name: str, shape: tuple[int, ...], repeats: int) -> str:
    """A network's line."""
    networks = opened(name)
    function = export.channels_first(networks)
    content = onnx_files.model(function, shape, export.NAMES)
    difference = export.disagreement(content, function, shape)
    photo = np.random.default_rng(0).random(shape, np.float32)
    session = runtime().InferenceSession(content, providers=["CPUExecutionProvider"])
    compiled = jax.jit(function)
    calls = (lambda: session.run(None, {export.NAMES[0]: photo}), lambda: jax.block_until_ready(compiled(photo)))
    count = int(sum(count_parameters(network.variables["params"]) for network in networks))
    cells = (name, f"{count:,}", f"{len(content) / 1e6:.1f}", f"{difference:.1e}", *in_turns(calls, repeats))
    return f"| {' | '.join(cells)} |"


def opened(name: str) -> list[Network]:
    """A run's networks, a file's, or one with random weights; UserError for numbers that no such network has."""
    path, _, rest = name.partition(":")
    if path in models.MODELS:
        pairs = (pair.partition("=") for pair in filter(None, rest.split(",")))
        try:
            return [steps.random_network(models.create(path, **{key: int(value) for key, _, value in pairs}))]
        except ValueError as error:
            raise UserError(f"{name}: {error}") from error
    model = named.located(path)
    choice = system.from_run(model, rest) if model.is_dir() else system.Choice(None, Path(model), None)
    return system.open_networks(choice, "float32")


def in_turns(calls: Sequence[Callable[[], object]], repeats: int) -> list[str]:
    """Median and least seconds of each call; the first ones, which compile, do not count."""
    seconds: list[list[float]] = [[] for _ in calls]
    for repeat in range(repeats + 1):
        for call, times in zip(calls, seconds, strict=True):
            start = time.perf_counter()
            call()
            if repeat:
                times.append(time.perf_counter() - start)
    return [f"{statistics.median(times):.3f} ({min(times):.3f})" for times in seconds]


if __name__ == "__main__":
    sys.exit(main())
