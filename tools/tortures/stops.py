"""Runs that are stopped: killed at any moment, by a signal once or twice, by a second run in their folder."""

import itertools
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator

from tools.tortures.bench import KINDS, Bench, Row, equal, says, slug
from tools.tortures.runs import Run, kill, wait

LAST = 3  # kills after the last step, while a stage is described and exported


def torture_kill(bench: Bench) -> Iterator[Row]:
    """kill -9 at random moments of every kind of training, many inside a save; with 0, 2, 1 data threads in turn."""
    for kind in bench.killed:
        run, chance, threads = bench.one(f"killed-{slug(kind)}", kind), random.Random(kind), itertools.cycle((0, 2, 1))
        counts = kill_often(bench, run, kind, chance, threads)
        least, inside = (2, 1) if bench.short else (20, 6)
        found = f"{counts['all']}, {counts['save']}, {counts['end']}"
        good = counts["all"] >= least and counts["save"] >= inside
        what = f"{kind}: kills, of them inside a save, after the last step"
        yield Row(what, f"≥ {least}, ≥ {inside}, any", found, good, counts["all"])
        yield equal(f"{kind}: exit code of the last start", 0, run.complete(f"data.threads={next(threads)}"))
        yield bench.same(kind, run, kind)


def kill_often(bench: Bench, run: Run, kind: str, chance: random.Random, threads: Iterator[int]) -> Counter:
    """Starts the run and kills it, until that was enough; counts the kills: "all", "save", "end"."""
    stage, kills = KINDS[kind].stage, Counter()
    least, inside = (2, 1) if bench.short else (20, 6)
    while kills["end"] < (1 if bench.short else LAST):
        before_end = kills["all"] < least or kills["save"] < inside
        # A short run ends too soon for the others.
        in_save = bench.short or (kills["save"] < inside and kills["all"] % 2 == 0)
        moment = "end" if not before_end else "save" if in_save else chance.choice(("start", "step", "step"))
        process = run.start(f"data.threads={next(threads)}")
        if not come(run, stage, process, moment, chance):
            run.finish(process)
            break
        saving = run.saves(stage)
        kill(process)
        kills.update({"all": 1, "save": int(bool(saving & run.saves(stage))), "end": int(moment == "end")})
    return kills


def come(run: Run, stage: str, process, moment: str, chance: random.Random) -> bool:
    """Waits for a moment of the run: while it starts, some steps on, in a save, or after the last step.

    False if it ended before.
    """
    if moment == "start":
        wait(process, run.changes(stage, 1), chance.uniform(0, 10))
    elif moment == "step":
        wait(process, run.changes(stage, chance.randint(2, 8)))
        wait(process, lambda: False, chance.uniform(0, 0.1))
    elif moment == "save":
        old = run.saves(stage)
        wait(process, lambda: run.saves(stage) - old)
        wait(process, lambda: False, chance.uniform(0, 0.02))
    else:
        summary = run.stage(stage) / "summary.json"  # written after the last step; later starts open the log once more
        wait(process, run.changes(stage, 1) if summary.exists() else summary.exists)
        wait(process, lambda: False, chance.uniform(0, 0.5))
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
