"""JAX networks that were exported to TensorFlow.js: their parameters, read from the graph as data. Nothing is run.

A graph model is `model.json` beside its shards. The shards in a row are one string of bytes, which the constants of
the manifest share out in order; the graph's nodes name their inputs. jax2tf keeps flax's names: the operation that a
parameter goes into is called after its module, so that the parameter's path can be read off its consumer.

Sources: https://www.tensorflow.org/js/guide/save_load ; the table of operations was worked out on MAXIM's packages.
"""

import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from b2b_jax.formats.bundles import Bundle, opened
from b2b_jax.formats.opening import Problem

MODEL = "model.json"
LARGEST_MODEL = 64 << 20  # bytes of JSON; MAXIM-3S has 28 MB
MOST_VALUES = 4_000_000  # in the JSON, of which each may take 100 bytes of memory
LARGEST_SIDE, MOST_AXES = 1 << 31, 8  # of an array
DTYPES = {"float32": "<f4", "int32": "<i4", "bool": "u1"}
ROOT = "/Wrapper/backbone/"  # of a flax network in the names of the graph


class Use(NamedTuple):
    """What an operation tells of the constant that is its second input."""

    scopes: str  # at the end of the operation's name, after the module's: a regular expression
    leaf: str
    to_flax: Callable[[np.ndarray], np.ndarray]


def _flipped(kernel: np.ndarray) -> np.ndarray:
    """TensorFlow's transposed convolution has (h, w, out, in) and convolves, where flax's correlates."""
    if kernel.ndim != 4:
        raise Problem(f"a transposed convolution has a kernel of shape {kernel.shape}, wanted four axes")
    return kernel[::-1, ::-1].swapaxes(-1, -2)


USES = {
    "Conv2D": Use("/Conv2D", "kernel", lambda x: x),
    "Einsum": Use("/einsum/Einsum", "kernel", lambda x: x),
    "Conv2DBackpropInput": Use("/conv2d_transpose", "kernel", _flipped),
    "Mul": Use(r"/jit_fn_/Mul(_\d+)?", "scale", np.ravel),
    "AddV2": Use(r"/jit_fn_/AddV2(_\d+)?", "bias", np.ravel),
}


class Node(NamedTuple):
    """An operation of the graph."""

    name: str
    op: str
    inputs: tuple[str, ...]


class Constant(NamedTuple):
    """A window on the bytes of the shards."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class Layout(NamedTuple):
    """How the constants lie."""

    shards: list[str]
    size: int  # bytes of all


Places = dict[str, tuple[Constant, Callable[[np.ndarray], np.ndarray]]]


def read(path: Path) -> dict[str, np.ndarray]:
    """The parameters of a flax network in a graph model.

    Args:
      path: its JSON, a folder with `model.json`, or the .tgz that `npm pack` leaves of a package that holds that.

    Returns:
      Paths such as `stage_0_input_conv_0/kernel` to arrays in flax's layouts, views of one buffer. Parameters that
      the exported outputs do not need are not in the file.

    Raises:
      Problem: it is something else, damaged, truncated, quantised, or not a network of flax.
      OSError: it cannot be opened.
    """
    with opened(path, MODEL) as bundle:
        places, layout = _layout(bundle)
        raw = _bytes(bundle, layout)
    arrays = {}
    for name, (constant, to_flax) in sorted(places.items()):
        array = raw[constant.start : constant.stop].view(DTYPES[constant.dtype]).reshape(constant.shape)
        arrays[name] = to_flax(array)
    return arrays


# ---- model.json ----


def _layout(bundle: Bundle) -> tuple[Places, Layout]:
    """Where the parameters are; the graph itself, which takes as much memory as they do, is forgotten."""
    size = bundle.sizes.get(MODEL)
    if size is None:
        raise Problem(f"there is no {MODEL}, which TensorFlow.js keeps beside the weights")
    if size > LARGEST_MODEL:
        raise Problem(f"{MODEL} has {size:,} bytes, more than the {LARGEST_MODEL:,} that any known network needs")
    try:
        content = json.loads(_text(bundle), object_hook=_slim)
        groups = content["weightsManifest"]
        constants = list(_constants([weight for group in groups for weight in group["weights"]]))
        shards = [path for group in groups for path in group["paths"]]
        nodes = [node for node in content["modelTopology"]["node"] if isinstance(node, Node)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}" if not isinstance(error, Problem) else str(error)
        raise Problem(f"{MODEL} is damaged, or no graph model of TensorFlow.js ({reason})") from error
    if not all(isinstance(name, str) for name in shards):
        raise Problem(f"{MODEL} names a shard by something other than text")
    return _parameters(nodes, constants), Layout(shards, constants[-1].stop if constants else 0)


def _text(bundle: Bundle) -> bytearray:
    text = bundle.read(MODEL)
    if sum(map(text.count, (b",", b"[", b"{"))) > MOST_VALUES:
        raise Problem(f"it holds more than {MOST_VALUES:,} values")
    return text


def _slim(entry: dict[str, Any]) -> Any:
    """Nodes alone matter of the graph: their attributes would take ten times the memory."""
    if "op" not in entry:
        return entry
    if entry["op"] == "Const":
        return None  # the manifest tells of it
    return Node(str(entry["name"]), str(entry["op"]), tuple(map(str, entry.get("input", ()))))


def _constants(weights: list[dict[str, Any]]) -> Iterator[Constant]:
    start = 0
    for weight in weights:
        dtype, shape = weight["dtype"], tuple(weight["shape"])
        if dtype not in DTYPES or "quantization" in weight:
            raise Problem(f"{weight['name']} is quantised or {dtype}, wanted {' or '.join(DTYPES)} as they were")
        if len(shape) > MOST_AXES or not all(type(n) is int and 0 <= n <= LARGEST_SIDE for n in shape):
            raise Problem(f"{weight['name']} has the shape {weight['shape']}")
        stop = start + math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize
        yield Constant(str(weight["name"]), dtype, shape, start, stop)
        start = stop


def _parameters(nodes: list[Node], all_constants: list[Constant]) -> Places:
    """Paths of the parameters, which are the float32 constants of more than one number, and how they lie."""
    constants = {c.name: c for c in all_constants if c.dtype == "float32" and math.prod(c.shape) > 1}
    found, used = {}, set()
    for node in nodes:
        for slot, name in enumerate(name.partition(":")[0] for name in node.inputs):
            if name in constants:
                path, to_flax = _path(node, slot, name)
                if path in found or name in used:
                    raise Problem(f"the constant {name} is the second of {path}, wanted one for each parameter")
                found[path] = constants[name], to_flax
                used.add(name)
    if not found or len(used) != len(constants):
        raise Problem(f"{len(found)} of its {len(constants)} constants are parameters of a flax network, wanted all")
    return found


def _path(node: Node, slot: int, constant: str) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
    use = USES.get(node.op)
    inside = node.name.partition(ROOT)[2]
    match = use and slot == 1 and re.fullmatch(f"(.+?){use.scopes}", inside)
    if not match:
        raise Problem(
            f"not a network of flax as jax2tf exports it: the constant {constant} is input {slot} of {node.op} "
            f"{node.name}"
        )
    return f"{match[1]}/{use.leaf}", use.to_flax


# ---- the shards ----


def _bytes(bundle: Bundle, layout: Layout) -> np.ndarray:
    """All shards in a row, (bytes,); their sizes are compared with the manifest before anything is allocated."""
    missing = [name for name in layout.shards if name not in bundle.sizes or PurePosixPath(name).name != name]
    if missing:
        raise Problem(f"{len(missing)} of its {len(layout.shards)} shards are missing ({', '.join(missing[:3])})")
    if len(set(layout.shards)) != len(layout.shards):
        raise Problem(f"{MODEL} names a shard twice")
    sizes = [bundle.sizes[name] for name in layout.shards]
    if sum(sizes) != layout.size:
        raise Problem(f"truncated or damaged: its shards have {sum(sizes):,} bytes, wanted {layout.size:,}")
    raw = np.empty(layout.size, np.uint8)
    starts = np.cumsum([0, *sizes]).tolist()
    windows = zip(layout.shards, starts, starts[1:], strict=False)
    bundle.read_into({name: memoryview(raw)[start:stop] for name, start, stop in windows})
    return raw
