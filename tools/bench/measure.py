"""How the benchmark measures: compile times, medians, XLA's count of floating-point operations, memory, hardware."""

import contextlib
import datetime
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

# Dense bfloat16 TFLOP/s by the makers' data sheets, by what jax calls the device.
PEAKS = {"NVIDIA H200": 989.0, "NVIDIA H100 80GB HBM3": 989.0, "NVIDIA A100-SXM4-80GB": 312.0}
WARM_UP = 3  # calls before the first that counts


@dataclass(frozen=True)
class Program:
    """A compiled program and what XLA says of it."""

    call: Callable
    cold: float  # seconds to compile with an empty cache
    warm: float  # … with the cache that this left
    flop: float | None  # of one call, see `cost`
    traffic: float | None  # bytes, see `cost`
    memory: float  # bytes: arguments, results that take no argument's place, temporaries


@dataclass(frozen=True)
class Row:
    """One line of the table; None where there is nothing to say."""

    work: str
    images: int  # of one call
    seconds: float | None = None  # median of all calls,
    fastest: float | None = None
    slowest: float | None = None
    pipelined: float | None = None  # of a call when the next ones are started before it is done
    busy: float | None = None  # seconds that the device spends on this part of a call,
    share: float | None = None  # … as a share of all parts
    flop: float | None = None
    traffic: float | None = None
    memory: float | None = None
    cold: float | None = None
    warm: float | None = None
    times_loop: float | None = None  # its rate over that of a plain loop,
    times_step: float | None = None  # … and over what the training step takes


def compiled(function: Callable, *arguments: object) -> Program:
    """Compiles a jitted function twice for these arguments: with an empty persistent cache, and with a filled one."""
    with fresh_cache():
        _, cold = timed(lambda: function.lower(*arguments).compile())
        jax.clear_caches()
        program, warm = timed(lambda: function.lower(*arguments).compile())
    size = program.memory_analysis()
    memory = size.argument_size_in_bytes + size.output_size_in_bytes - size.alias_size_in_bytes
    return Program(program, cold, warm, **cost(function, *arguments), memory=memory + size.temp_size_in_bytes)


@contextlib.contextmanager
def fresh_cache() -> Iterator[None]:
    """An empty persistent compilation cache, which goes with the context."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    try:
        with tempfile.TemporaryDirectory() as folder:
            _use_cache(dict(zip(names, (folder, 0.0), strict=True)))
            yield
    finally:
        _use_cache(before)


def _use_cache(settings: Mapping[str, object]) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def cost(function: Callable, *arguments: object) -> dict[str, float | None]:
    """XLA's count for one call, of the program as it is handed to a GPU, wherever this runs; nothing is compiled.

    Returns:
        `flop`, of a condition's branches that of the dearest, and `traffic`, the bytes that the operations would read
        and write if none were fused with another: an upper bound. None where JAX cannot tell.
    """
    counted = function.trace(*arguments).lower(lowering_platforms=("cuda",)).cost_analysis()
    if counted is None:  # where JAX runs on a GPU it does not count; the command `cost` does, on a CPU
        return {"flop": None, "traffic": None}
    return {"flop": float(counted["flops"]), "traffic": float(counted["bytes accessed"])}


def sample(calls: Mapping[str, Callable[[], object]], repeats: int, warm_up: int = WARM_UP) -> dict[str, list[float]]:
    """Seconds of `repeats` runs of each call; several take turns, so that a busy machine is as busy for each.

    A turn is one run that is not timed and two that are. A program gives its memory back when it ends; after others
    have run, the system has to clear that memory anew, which can cost half a run's time and happens in no real use.
    """
    for call in calls.values():
        for _ in range(warm_up):
            timed(call)
    seconds = {name: [] for name in calls}
    while any(len(times) < repeats for times in seconds.values()):
        for name, call in calls.items():
            if len(calls) > 1:
                timed(call)
            seconds[name] += [timed(call)[1] for _ in range(min(2, repeats - len(seconds[name])))]
    return seconds


def timed(call: Callable[[], object]) -> tuple[object, float]:
    """What the call returns, when it is ready, and the seconds that it took."""
    start = time.perf_counter()
    result = jax.block_until_ready(call())
    return result, time.perf_counter() - start


def pipelined(call: Callable[[], object], repeats: int) -> float:
    """Seconds of a call, of `repeats` that are all started without waiting; the training loop starts two ahead."""
    results, seconds = timed(lambda: [call() for _ in range(repeats)])
    return seconds / len(results)


def row(work: str, images: int, seconds: Sequence[float] = (), program: Program | None = None) -> Row:
    """The line of a sample, of a program, or of both."""
    times = {}
    if seconds:
        times = {"seconds": float(np.median(seconds)), "fastest": min(seconds), "slowest": max(seconds)}
    facts = {name: getattr(program, name) for name in ("flop", "traffic", "memory", "cold", "warm")} if program else {}
    return Row(work, images, **times, **facts)


def machine() -> dict[str, str | int | float]:
    """The device, the host, the versions, the date, and the most memory that this process has held."""
    device, names = jax.devices()[0], ("jax", "jaxlib", "flax", "numpy")
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    peak = (device.memory_stats() or {}).get("peak_bytes_in_use")
    return {
        "device": f"{jax.device_count()} × {device.device_kind}",
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **{name: version(name) for name in names},
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "peak_gib": round((peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit) / 2**30, 2),
    }


def processor() -> str:
    """The host's processor by its maker's name, where Linux tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())


def peak(given: float) -> float | None:
    """TFLOP/s that all devices could reach: those given, else of the known chips; None for others."""
    each = given or PEAKS.get(jax.devices()[0].device_kind)
    return each and each * jax.device_count()


COLUMNS = {
    "work": lambda r, peak: r.work,
    "images a call": lambda r, peak: str(r.images),
    "ms, median": lambda r, peak: _number(r.seconds, 1e3),
    "fastest": lambda r, peak: _number(r.fastest, 1e3),
    "slowest": lambda r, peak: _number(r.slowest, 1e3),
    "images/s": lambda r, peak: _number(r.seconds and r.images / r.seconds),
    "images/s, pipelined": lambda r, peak: _number(r.pipelined and r.images / r.pipelined),
    "× plain loop": lambda r, peak: _number(r.times_loop),
    "× step": lambda r, peak: _number(r.times_step),
    "busy, ms": lambda r, peak: _number(r.busy, 1e3),
    "share": lambda r, peak: "" if r.share is None else f"{r.share:.1%}",
    "GFLOP a call": lambda r, peak: _number(r.flop, 1e-9),
    "TFLOP/s": lambda r, peak: _number(_rate(r)),
    "of peak": lambda r, peak: f"{_rate(r) / peak:.1%}" if peak and _rate(r) else "",
    "GB unfused": lambda r, peak: _number(r.traffic, 1e-9),
    "memory, MiB": lambda r, peak: _number(r.memory, 2**-20),
    "compile, s": lambda r, peak: _number(r.cold),
    "from cache, s": lambda r, peak: _number(r.warm),
}


def table(rows: Sequence[Row], peak: float | None) -> str:
    """The rows in Markdown; columns without a value are left out."""
    cells = {title: [column(row, peak) for row in rows] for title, column in COLUMNS.items()}
    cells = {title: column for title, column in cells.items() if any(column)}
    lines = [list(cells), ["---"] * len(cells), *zip(*cells.values(), strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def as_json(rows: Sequence[Row], peak: float | None) -> list[dict]:
    """The rows with their rates, for a file."""
    return [
        asdict(r) | {"images_per_second": r.seconds and r.images / r.seconds, "tflops": _rate(r), "peak_tflops": peak}
        for r in rows
    ]


def _rate(row: Row) -> float | None:
    return row.flop / row.seconds / 1e12 if row.flop and row.seconds else None


def _number(value: float | None, factor: float = 1.0) -> str:
    return "" if value is None else f"{value * factor:.4g}"
