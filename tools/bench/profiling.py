"""Where a program's time goes: a trace of it, added up by network and by kind of operation.

Each operation of a compiled program carries the name of the layer that it comes from; the trace names operations.
"""

import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
from jax.profiler import ProfileData

from b2b_jax.errors import UserError
from tools.bench.measure import Row, timed

STEPS = 4  # that are traced: of a penalty that comes in one step of four, one
# In a CUDA graph a kernel no longer tells which operation it belongs to.
OPTIONS = {"gpu": {"xla_gpu_enable_command_buffer": ""}}
LONGEST = 12  # kinds of operations that are shown
NO_NETWORK = "no network"  # losses, optimiser, augmentation, and what XLA names no layer for
# Operations that last as long as those within them.
HOLDERS = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = .*? (?:call|while|conditional)\(", re.MULTILINE)
LAYERS = re.compile(r'^\s*(?:ROOT )?%?([\w.\-]+) = .*metadata=\{.*?op_name="([^"]*)"', re.MULTILINE)


class Event(NamedTuple):
    """One operation, or kernel of it, as it ran."""

    operation: str
    seconds: float


def compiled(function: Callable, *arguments: object) -> jax.stages.Compiled:
    """The program of a jitted function, its operations as they are told apart in a trace."""
    return function.lower(*arguments).compile(compiler_options=OPTIONS.get(jax.default_backend()))


def rows(
    program: jax.stages.Compiled, call: Callable[[], object], images: int, folder: str | None = None
) -> Iterator[Row]:
    """Lines of the table; the trace is left in `folder`, for TensorBoard and Perfetto, if one is given."""
    with tempfile.TemporaryDirectory() as temporary:
        found = list(events(traced(call, Path(folder or temporary))))
    text = program.as_text()
    holders, layers = set(HOLDERS.findall(text)), dict(LAYERS.findall(text))
    found = [event for event in found if event.operation not in holders]
    if not found:
        raise UserError(
            "The trace holds no operation that is known here: profile reads those of CPUs and NVIDIA's GPUs."
        )
    yield from summed(found, lambda event: network(layers.get(event.operation, "")), images)
    yield from summed(found, lambda event: f"operation {kind(event.operation)}", images)


def summed(found: Sequence[Event], key: Callable[[Event], str], images: int) -> list[Row]:
    """The longest groups of events, by `key`."""
    seconds: dict[str, float] = defaultdict(float)
    for event in found:
        seconds[key(event)] += event.seconds
    total = sum(seconds.values())
    longest = sorted(seconds.items(), key=lambda item: -item[1])[:LONGEST]
    calls = STEPS * jax.local_device_count()
    return [Row(name, images, busy=value / calls, share=value / total) for name, value in longest]


def traced(call: Callable[[], object], folder: Path) -> ProfileData:
    """A trace of STEPS calls, started without waiting for each other."""
    timed(call)
    with jax.profiler.trace(str(folder)):
        timed(lambda: [call() for _ in range(STEPS)])
    return ProfileData.from_file(str(max(folder.rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)))


def events(trace: ProfileData) -> Iterator[Event]:
    """What the devices did; on a CPU that stands among what the host did."""
    devices = [plane for plane in trace.planes if plane.name.startswith("/device:")]
    for plane in devices or [plane for plane in trace.planes if plane.name == "/host:CPU"]:
        for line in plane.lines:
            if devices and not line.name.startswith("Stream"):
                continue
            for event in line.events:
                operation = dict(event.stats).get("hlo_op")
                if operation:
                    yield Event(operation, event.duration_ns * 1e-9)


def network(layer: str) -> str:
    """The network that a layer belongs to, as jit(step)/transpose(jvp(MIMOUNet))/…, and whether it is its gradient."""
    found = re.search(r"\b[A-Z]\w+", layer)
    return (found[0] if found else NO_NETWORK) + (", backward" if "transpose(" in layer else "")


def kind(operation: str) -> str:
    """An operation's name without its number."""
    return re.sub(r"[._]?\d*$", "", operation)
