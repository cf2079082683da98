"""What `b2b_jax.memory` brings on a CPU: the demo's steps and a photo without and with it.

    python -m tools.bench.kept_memory --repeats 3

Each measurement is a process of its own, which compiles what it runs: what that leaves in memory counts. The ways take
turns. A cell is the median of the processes' medians, in brackets the fastest call of all, then page faults a call.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np

from b2b_jax import memory, system
from b2b_jax.stages.run import Run
from configs import demo
from tools.bench import measure, steps

WAYS = {"freed": lambda: None, "kept": memory.keep, "kept for training": memory.keep_for_training}
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
    found = {way: [] for way in WAYS}
    for _ in range(options.repeats):
        for way in WAYS:
            found[way].append(child(way))
    print(f"| | {' | '.join(WAYS)} |\n|---{'|---' * len(WAYS)}|")
    for work in WORKS:
        print(f"| {work} | {' | '.join(cell([one[work] for one in found[way]]) for way in WAYS)} |")
    return 0


def child(way: str) -> Mapping[str, Mapping[str, float]]:
    """What a process of its own measures."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "false"}
    command = [sys.executable, "-m", "tools.bench.kept_memory", "--way", way]
    ran = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(ran.stdout)


def cell(results: list[Mapping[str, float]]) -> str:
    """Milliseconds, the median and the fastest; page faults."""
    median, faults = (np.median([one[value] for one in results]) for value in ("median", "faults"))
    return f"{1e3 * median:.0f} ({1e3 * min(one['fastest'] for one in results):.0f}), {faults:,.0f}"


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
    parser.add_argument("--repeats", type=int, default=3, help="processes of each way (default: 3)")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
