"""What goes wrong slowly or at once: memory, files and threads over many steps; numbers that are not finite."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tools.tortures.bench import Bench, Row, equal, says
from tools.tortures.runs import kill, wait


def torture_nan(bench: Bench) -> Iterator[Row]:
    """Learning rates that make every step infinite, from the first on: K steps in a row end the run."""
    for stage, rate in (("deblurrer", "learning_rate"), ("translator", "generator_rate")):
        run = bench.one(f"nan-{stage}", stage, f"{stage}.optimizer.{rate}=1e39", "loop.bad_steps=7")
        yield equal(f"{stage}: exit code", 1, run.complete(f"{stage}.optimizer.warmup=0"))
        yield says(f"{stage}: what is said", run, "7 steps in a row up to step 7", "loss", "photos", "/0")
        values = run.values(stage) if run.steps(stage) else {}
        finite = all(np.isfinite(x).all() for x in values.values())
        yield equal(f"{stage}: every number in every checkpoint is finite", True, finite)


def torture_soak(bench: Bench) -> Iterator[Row]:
    """Ten thousand steps, with a kill in the middle: nothing grows, nothing is compiled twice."""
    steps = 1_000 if bench.short else 10_000
    small = ("deblurrer.network.width=2", "deblurrer.crop=16", "deblurrer.batch=1", "loop.log_images=False")
    rare = ("loop.checkpoint_every=100", "loop.evaluate_every=500", "loop.log_every=50", "loop.keep_every=0")
    run = bench.one("soak", "deblurrer", f"deblurrer.steps={steps}", *small, *rare)
    process = run.start(environment={"JAX_LOG_COMPILES": "1"})
    wait(process, lambda: run.steps("deblurrer")[:1] >= [steps // 2])
    kill(process)
    process = run.start(environment={"JAX_LOG_COMPILES": "1"})
    looks = []
    while process.poll() is None:
        if run.steps("deblurrer")[:1] > [steps // 2 + 100]:
            looks += look(process.pid)
        time.sleep(0.05 if bench.short else 1)
    yield equal("exit code", 0, run.finish(process))
    early, late = (np.median(np.array(part), axis=0) for part in (looks[: len(looks) // 3], looks[-len(looks) // 3 :]))
    for name, first, last, more in zip(("resident MB", "open files", "threads"), early, late, (20, 2, 2), strict=True):
        yield Row(f"{name}: first and last third", f"≤ {more} more", f"{first:.0f} → {last:.0f}", last <= first + more)
    compiled = run.output.count("Compiling jit(body)")
    yield equal("compilations of the step after the restore", 1, compiled)
    yield equal("checkpoints at the end: the newest 3, and the best", True, 3 <= len(run.steps("deblurrer")) <= 4)
    summary = json.loads((run.stage("deblurrer") / "summary.json").read_text())
    yield Row("goodput of all starts", "stored", f"{summary['goodput']:.1%} of {summary['seconds']:.0f} s", True)


def look(pid: int) -> list[tuple[int, int, int]]:
    """Resident MB, open files and threads of a process; nothing of one that is ending."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return [(int(status["VmRSS"].split()[0]) // 1024, files, int(status["Threads"]))] if "VmRSS" in status else []
