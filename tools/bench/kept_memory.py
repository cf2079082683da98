"""What `b2b_jax.memory.keep` brings on a CPU: the demo's steps and a photo without and with it.

    python -m tools.bench.kept_memory --repeats 5

Each measurement is a process of its own; the two ways take turns. A cell is the median of the processes' medians, in
brackets the fastest call of all. Programs are compiled once and kept in --cache.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import gettempdir

import jax
import numpy as np

from b2b_jax import memory, system
from b2b_jax.stages.run import Run
from configs import demo
from tools.bench import measure, steps

WAYS = {"freed": lambda: None, "kept": memory.keep}
WORKS = (*steps.TASKS, "photo")
CALLS = {"photo": 10}  # of which the median is taken
STEPS = 30  # … of all other works


def main() -> int:
    """Runs the command line; returns its exit code."""
    options = _parser().parse_args()
    if options.way:
        WAYS[options.way]()
        print(json.dumps({work: measured(work) for work in WORKS}))
        return 0
    warm = child("freed", options.cache)  # fills the cache, and is not counted
    found = {way: [] for way in WAYS}
    for _ in range(options.repeats):
        for way in WAYS:
            found[way].append(child(way, options.cache))
    print("| | freed | kept | page faults a call |\n|---|---|---|---|")
    for work in warm:
        cells = {way: cell([one[work] for one in results]) for way, results in found.items()}
        faults = [np.median([one[work]["faults"] for one in results]) for results in found.values()]
        print(f"| {work} | {cells['freed']} | {cells['kept']} | {faults[0]:,.0f}, {faults[1]:,.0f} |")
    return 0


def child(way: str, cache: Path) -> Mapping[str, Mapping[str, float]]:
    """What a process of its own measures."""
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PLATFORMS": "cpu"}
    environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    command = [sys.executable, "-m", "tools.bench.kept_memory", "--way", way]
    ran = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(ran.stdout)


def cell(results: list[Mapping[str, float]]) -> str:
    """Milliseconds: the median, and the fastest."""
    median, fastest = np.median([one["median"] for one in results]), min(one["fastest"] for one in results)
    return f"{1e3 * median:.0f} ({1e3 * fastest:.0f})"


def measured(work: str) -> dict[str, float]:
    """Seconds of a call, and pages that the system had to clear for it."""
    made, count = call(work), CALLS.get(work, STEPS)
    for _ in range(measure.WARM_UP):
        measure.timed(made)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    seconds = [measure.timed(made)[1] for _ in range(count)]
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    return {"median": float(np.median(seconds)), "fastest": min(seconds), "faults": faults / count}


def call(work: str) -> Callable[[], object]:
    """A step of a stage, or a photo of 1280x720 through the deblurrer as `b2b_jax.load` gives it."""
    run = Run(demo.get_config(), Path("unused"))
    if work == "photo":
        deblurrer = system.Deblurrer([steps.network(run, "deblurrer")])
        photo = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8)
        return lambda: deblurrer(photo)
    function, (state, *others) = steps.step_and_arguments(run, work)
    program = function.lower(state, *others).compile()

    def step() -> dict[str, jax.Array]:
        nonlocal state
        state, metrics = program(state, *others)
        return metrics

    return step


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="processes of each way (default: 5)")
    parser.add_argument("--cache", type=Path, default=Path(gettempdir()) / "b2b_jax_kept_memory", metavar="DIR")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
