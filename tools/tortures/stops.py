"""Runs that are stopped: killed at any moment, by a signal once or twice, by a second run in their folder."""

import itertools
import os
import random
import signal
import time
from collections.abc import Iterator

from tools.tortures.bench import STAGES, Bench, Row, equal, says
from tools.tortures.runs import Run, kill, wait


def torture_kill(bench: Bench) -> Iterator[Row]:
    """kill -9 at random moments of either stage, many inside a save; with 0, 2, 1 data threads in turn."""
    least, inside = (2, 1) if bench.short else (20, 6)
    for stage in STAGES:
        run, chance, threads = bench.one(f"killed-{stage}", stage), random.Random(stage), itertools.cycle((0, 2, 1))
        kills = hits = 0
        while kills < least or hits < inside:
            process = run.start(f"data.threads={next(threads)}")
            in_save = bench.short or (hits < inside and kills % 2 == 0)  # a short run ends too soon for the others
            moment = "save" if in_save else chance.choice(("start", "step", "step"))
            if not come(run, stage, process, moment, chance):
                break
            saving = run.saves(stage)
            kill(process)
            kills, hits = kills + 1, hits + bool(saving & run.saves(stage))
        yield Row(
            f"{stage}: kills, of them inside a save",
            f"≥ {least}, ≥ {inside}",
            f"{kills}, {hits}",
            kills >= least and hits >= inside,
        )
        yield equal(f"{stage}: exit code of the last start", 0, run.complete(f"data.threads={next(threads)}"))
        yield bench.same(stage, run, stage)


def come(run: Run, stage: str, process, moment: str, chance: random.Random) -> bool:
    """Waits for a moment of the run: while it starts, some steps on, or in a save; False if it ended before."""
    if moment == "start":
        wait(process, lambda: False, chance.uniform(0, 10))
    elif moment == "step":
        wait(process, run.changes(stage, 2))
        wait(process, lambda: False, chance.uniform(0, 1))
    else:
        old = run.saves(stage)
        wait(process, lambda: run.saves(stage) - old)
        wait(process, lambda: False, chance.uniform(0, 0.02))
    return process.poll() is None


def torture_signals(bench: Bench) -> Iterator[Row]:
    """SIGTERM and Ctrl-C while it compiles and while it trains, once and twice; two runs in one folder."""
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        run = bench.one(f"stopped-{number}", "translator")
        process = run.start(environment={"JAX_COMPILATION_CACHE_DIR": str(run.folder / "cold")})
        wait(process, (run.stage("translator") / "checkpoints").exists)
        wait(process, lambda: False, 4)
        begin = time.monotonic()
        process.send_signal(number)
        yield equal(f"signal {number} while compiling: exit code", code, run.finish(process))
        seconds = time.monotonic() - begin
        yield Row(f"signal {number} while compiling: seconds to the end", "< 5", f"{seconds:.1f}", seconds < 5)
        yield equal(f"signal {number} while compiling: checkpoints", [], run.steps("translator"))
        process = run.start()
        wait(process, run.changes("translator", 8))
        process.send_signal(number)
        yield equal(f"signal {number} while training: exit code", code, run.finish(process))
        saved = run.steps("translator")
        good = saved[:1] == [run.logged("translator")]
        yield Row(f"signal {number} while training: last step made, newest checkpoint", "equal", f"{saved[:1]}", good)
        process = run.start()
        wait(process, run.changes("translator", 4))
        process.send_signal(number)
        process.send_signal(number)
        yield equal(f"signal {number} twice: exit code", code, run.finish(process))
        yield equal(f"signal {number}: exit code of the last start", 0, run.complete())
        yield bench.same(f"signal {number}", run)
    yield from two_runs(bench)


def two_runs(bench: Bench) -> Iterator[Row]:
    """The second run in a folder is refused while the first lives, and only so long."""
    run = bench.one("twice", "translator")
    process = run.start()
    wait(process, run.changes("translator", 2))
    yield equal("a second run in the folder: exit code", 2, run.complete())
    yield says(
        "a second run in the folder: what is said", run, "in use", f"process {process.pid} on {os.uname().nodename}"
    )
    kill(process)
    yield equal("after kill -9 of the first: exit code", 0, run.complete())
    yield bench.same("after kill -9 of the first", run)
