"""Breaks runs in every way that is promised to be harmless, and shows whether it was: a table, exit code 1 on any miss.

    python tools/torture.py kill corrupt diskfull signals nan processes soak

Each name is one torture of real runs of the main command with small networks, on the CPU; without a name, all of them.
--short makes less of each. The folder --workdir keeps what they leave, and is emptied first.
"""

import argparse
import itertools
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging

sys.path.append(str(Path(__file__).parents[1]))

from b2b_jax.training import checkpoint
from tools.runs import Run, kill, mounted, start_two, wait

STAGES = ("deblurrer", "translator")
BASE = ("loop.log_images=True", "loop.checkpoint_every=5", "loop.log_every=5", "loop.evaluate_every=20")


class Row(NamedTuple):
    """One line of the table."""

    what: str
    wanted: str
    found: str
    good: bool


class Bench:
    """What the tortures share: the folder, how much to do, and a run that nothing disturbs."""

    def __init__(self, folder: Path, short: bool):
        self.folder, self.short = folder, short
        self.steps = 30 if short else 120
        self.reference = self.run("reference", "stages=deblurrer,translator")

    def run(self, name: str, *settings: str, on: Path | None = None) -> Run:
        """A run that was never started; its folder lies in `on`."""
        steps = [f"{stage}.steps={self.steps}" for stage in STAGES]
        return Run((on or self.folder) / name, self.folder, *BASE, *steps, *settings)

    def one(self, name: str, stage: str, *settings: str, on: Path | None = None) -> Run:
        """A run of one stage, which takes the deblurrer of the reference as given."""
        given = f"deblurrer.weights={self.reference.stage('deblurrer') / 'weights.safetensors'}"
        return self.run(name, f"stages={stage}", *([given] if stage == "translator" else []), *settings, on=on)

    def copy(self, name: str) -> Run:
        """A copy of the reference's translator, unfinished: its checkpoints are there, its weights are not."""
        run = self.one(name, "translator")
        shutil.copytree(self.reference.stage("translator"), run.stage("translator"))
        (run.stage("translator") / "weights.safetensors").unlink()
        return run

    def same(self, what: str, run: Run, stage: str = "translator") -> Row:
        """Whether a run ended with the bits of the reference."""
        want, found = self.reference.fingerprint(stage), run.fingerprint(stage)
        return Row(f"{what}: SHA-256 of all arrays and the order of photos", want, found, want == found)


def equal(what: str, wanted: object, found: object) -> Row:
    """A row that is good when the two are equal."""
    return Row(what, str(wanted), str(found), wanted == found)


def says(what: str, run: Run, *words: object) -> Row:
    """A row that is good when one line of the run's last output holds all the words, and none a traceback."""
    lines = [line for line in run.output.splitlines() if all(str(word) in line for word in words)]
    good = bool(lines) and "Traceback" not in run.output
    return Row(what, "one line with " + ", ".join(map(str, words)), lines[0] if good else run.output[-300:], good)


# ----------------------------------------------------------------------------------------------------------------- kill


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


# -------------------------------------------------------------------------------------------------------------- corrupt


def flip(path: Path) -> None:
    """One bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def data_file(step: Path) -> Path:
    """The file that holds most of the arrays."""
    return max((p for p in (step / "state").rglob("*") if p.is_file()), key=lambda path: path.stat().st_size)


def emptied(folder: Path) -> None:
    """Leaves the folder, takes all that is in it."""
    shutil.rmtree(folder)
    folder.mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a flipped bit in the arrays": lambda step: flip(data_file(step)),
    "a flipped bit in Orbax's metadata": lambda step: flip(step / "_CHECKPOINT_METADATA"),
    "a truncated file": lambda step: os.truncate(data_file(step), data_file(step).stat().st_size // 2),
    "a missing file": lambda step: data_file(step).unlink(),
    "metadata of zero bytes": lambda step: (step / "state" / "_METADATA").write_bytes(b""),
    "an empty step folder": emptied,
    "scores of zero bytes": lambda step: (step / "metrics" / "metrics").write_bytes(b""),
}


def torture_corrupt(bench: Bench) -> Iterator[Row]:
    """Damage to the newest checkpoint: it is named, the one before is used, and the end is the same to the last bit."""
    yield every_file(bench)
    for name, harm in list(DAMAGES.items())[: 2 if bench.short else None]:
        run = bench.copy(f"damaged-{name.replace(' ', '-')}")
        newest = run.stage("translator") / "checkpoints" / str(run.steps("translator")[0])
        harm(newest)
        yield equal(f"{name}: exit code", 0, run.complete())
        yield says(f"{name}: what is said", run, newest, "is damaged")
        yield bench.same(name, run)
    run = bench.copy("stray")
    folder = run.stage("translator") / "checkpoints"
    stray = shutil.copytree(folder / str(bench.steps), folder / f"{bench.steps + 5}.orbax-checkpoint-tmp")
    yield equal("a stray temporary folder: exit code", 0, run.complete())
    yield equal("a stray temporary folder: is there afterwards", False, stray.exists())
    yield bench.same("a stray temporary folder", run)
    run = bench.copy("all-damaged")
    for step in run.steps("translator"):
        flip(data_file(run.stage("translator") / "checkpoints" / str(step)))
    yield equal("all checkpoints damaged: exit code", 1, run.complete())
    yield says("all checkpoints damaged: what is said", run, "No checkpoint in", "delete that folder")


def every_file(bench: Bench) -> Row:
    """Each file of a checkpoint flipped, cut, emptied and removed, one at a time: every damage has to be noticed."""
    run, count, noticed = bench.copy("every-file"), 0, 0
    step = run.stage("translator") / "checkpoints" / str(bench.steps)
    for path in sorted(p for p in step.rglob("*") if p.is_file()):
        whole = path.read_bytes()
        for position in {0, len(whole) // 3, len(whole) // 2, len(whole) - 1}:
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
            count, noticed = count + 1, noticed + bool(checkpoint.damage(step))
        for part in (b"", whole[:-1], None):
            path.unlink() if part is None else path.write_bytes(part)
            count, noticed = count + 1, noticed + bool(checkpoint.damage(step))
        path.write_bytes(whole)
    good = count == noticed and not checkpoint.damage(step)
    return Row("every file flipped, cut, emptied, removed: noticed", f"{count} of {count}", f"{noticed}", good)


# ------------------------------------------------------------------------------------------------------------- diskfull


def torture_diskfull(bench: Bench) -> Iterator[Row]:
    """A disk that fills up: a small file system in memory (as root), and a limit on the size of a file."""
    if os.geteuid() == 0:
        with mounted(bench.folder / "small", "64m"):
            run = bench.one("full", "translator", on=bench.folder / "small")
            yield from fill(bench, run, lambda: ballast(run), lambda: (run.folder / "ballast").unlink())
    run = bench.one("limited", "translator")
    yield from fill(bench, run, lambda: None, lambda: None, limit=100_000)


def ballast(run: Run) -> None:
    """Takes all but 200 kB, less than a checkpoint."""
    free = shutil.disk_usage(run.folder).free
    (run.folder / "ballast").write_bytes(bytes(max(free - 200_000, 0)))


def fill(bench: Bench, run: Run, close: Callable, open: Callable, limit: int = resource.RLIM_INFINITY) -> Iterator[Row]:
    """Lets a run begin, takes the room away, gives it back."""
    name = run.folder.name
    process = run.start()
    wait(process, lambda: len(run.steps("translator")) >= 2)
    process.send_signal(signal.SIGTERM)
    yield equal(f"{name}: exit code of a start with room", 143, run.finish(process))
    folder = run.stage("translator") / "checkpoints"
    before, newest = checkpoints(folder), run.steps("translator")[0]
    close()
    code = run.complete(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY)))
    yield equal(f"{name}: exit code without room", 1, code)
    yield says(f"{name}: what is said", run, folder, "bytes", "free there", f"step {newest - newest % 5 + 5}")
    yield equal(f"{name}: SHA-256 of the files of earlier checkpoints", before, checkpoints(folder))
    open()
    yield equal(f"{name}: exit code with room again", 0, run.complete())
    yield bench.same(name, run)


def checkpoints(folder: Path) -> str:
    """SHA-256 over the lists of hashes of all steps, each of which is checked."""
    whole = {step: checkpoint.damage(folder / str(step)) for step in checkpoint.steps(folder)}
    lists = {step: checkpoint.digest(folder / str(step) / checkpoint.FILES) for step in whole}
    return json.dumps({step: whole[step] or lists[step][:12] for step in whole})


# -------------------------------------------------------------------------------------------------------------- signals


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


# ------------------------------------------------------------------------------------------------------------------ nan


def torture_nan(bench: Bench) -> Iterator[Row]:
    """Learning rates that make every step infinite, from the first on: K steps in a row end the run."""
    for stage, rate in (("deblurrer", "learning_rate"), ("translator", "generator_rate")):
        run = bench.one(f"nan-{stage}", stage, f"{stage}.optimizer.{rate}=1e39", "loop.bad_steps=7")
        yield equal(f"{stage}: exit code", 1, run.complete(f"{stage}.optimizer.warmup=0"))
        yield says(f"{stage}: what is said", run, "7 steps in a row up to step 7", "loss", "photos", "/0")
        values = run.values(stage) if run.steps(stage) else {}
        finite = all(np.isfinite(x).all() for x in values.values())
        yield equal(f"{stage}: every number in every checkpoint is finite", True, finite)


# ------------------------------------------------------------------------------------------------------------ processes


# Without hinge and zeros: of a gradient that is nothing but rounding Adam makes a whole step, another one everywhere.
# Nor with the logistic loss: at the first step the discriminator's gradients of real and fake nearly cancel.
TOGETHER = ("translator.batch=8", "translator.steps=20", "translator.gan_loss=least_squares")
TOGETHER += ("translator.generator.zero_init=False",)


def torture_processes(bench: Bench) -> Iterator[Row]:
    """One process of 8 devices, two of 4, one of 1; one of two killed, one of two told to stop; 1, 2, 1 processes."""
    settings = (*TOGETHER, "loop.checkpoint_every=1", "loop.keep=20")
    alone, eight, two = (bench.one(name, "translator", *settings) for name in ("alone", "eight", "two"))
    yield equal("1 × 1 device: exit code", 0, alone.complete())
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    yield equal("1 × 8 devices: exit code", 0, eight.complete(environment=flags))
    yield equal("2 × 4 devices: exit codes", [0, 0], [two.finish(process) for process in start_two(two)])
    for name, run in (("1 × 8 devices against 1 × 1", eight), ("2 × 4 devices against 1 × 1", two)):
        yield from gradients(name, run, alone)
        yield from near(f"{name}, after 20 steps", run, alone)
    if not bench.short:
        yield from one_dies(bench, two)
        yield from stop_and_change(bench, alone)


def gradients(what: str, run: Run, other: Run) -> Iterator[Row]:
    """The gradients of step 1, which Adam's first moments then are, scaled: all of a network as one vector."""
    found, wanted = run.values("translator", 1), other.values("translator", 1)
    for network in ("generator", "discriminator"):
        moments = f"opt_state/{network}/0/mu"
        error = difference(found, wanted, lambda name, moments=moments: name.startswith(moments))
        yield Row(f"{what}: gradient of step 1, {network}: difference / norm", "≤ 1e-6", f"{error:.1e}", error <= 1e-6)


def near(what: str, run: Run, other: Run) -> Iterator[Row]:
    """The order of photos is equal, and so are the networks: each as one vector, to 1e-5 of its norm."""
    yield equal(f"{what}: photos in order", True, run.names("translator") == other.names("translator"))
    found, wanted = run.values("translator"), other.values("translator")
    for part in ("params/generator", "params/discriminator", "ema/generator"):
        error = difference(found, wanted, lambda name, part=part: name.startswith(part))
        yield Row(f"{what}: {part}: difference / norm", "≤ 1e-5", f"{error:.1e}", error <= 1e-5)


def difference(found: dict, wanted: dict, chosen: Callable[[str], bool]) -> float:
    """Norm of the difference over the norm, of all chosen arrays as one vector."""
    x, y = (np.concatenate([values[name].ravel() for name in wanted if chosen(name)]) for values in (found, wanted))
    return float(np.linalg.norm(x.astype(np.float64) - y) / np.linalg.norm(y))


def one_dies(bench: Bench, whole: Run) -> Iterator[Row]:
    """Kill -9 of either of two processes: the other ends in time, and the next start goes on exactly."""
    for victim in (0, 1):
        run = bench.one(f"widowed-{victim}", "translator", *TOGETHER)
        pair = start_two(run)
        wait(pair[0], lambda run=run: run.steps("translator"))
        kill(pair[victim])
        begin = time.monotonic()
        code = run.finish(pair[1 - victim])
        seconds = time.monotonic() - begin
        yield Row(f"process {victim} of 2 killed: exit code of the other", "not 0", str(code), code != 0)
        yield Row(f"process {victim} of 2 killed: seconds until then", "≤ 15", f"{seconds:.1f}", seconds <= 15)
        yield equal(f"process {victim} of 2 killed: next start", [0, 0], [run.finish(p) for p in start_two(run)])
        want, found = whole.fingerprint("translator"), run.fingerprint("translator")
        yield Row(f"process {victim} of 2 killed: SHA-256 of arrays and photos", want, found, want == found)


def stop_and_change(bench: Bench, whole: Run) -> Iterator[Row]:
    """One process, then two, of which one is told to stop, then one again: exit codes, photos, values."""
    run = bench.one("changed", "translator", *TOGETHER)
    process = run.start()
    wait(process, run.changes("translator", 5))
    process.send_signal(signal.SIGTERM)
    yield equal("1 process, SIGTERM: exit code", 143, run.finish(process))
    pair = start_two(run)
    wait(pair[0], run.changes("translator", 5))
    pair[1].send_signal(signal.SIGTERM)
    yield equal("2 processes, SIGTERM to one: exit codes", [143, 143], [run.finish(process) for process in pair])
    yield equal("1 process again: exit code", 0, run.complete())
    yield from near("1, 2, 1 processes against 1", run, whole)


# ----------------------------------------------------------------------------------------------------------------- soak


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


# ----------------------------------------------------------------------------------------------------------------------

TORTURES = {
    "kill": torture_kill,
    "corrupt": torture_corrupt,
    "diskfull": torture_diskfull,
    "signals": torture_signals,
    "nan": torture_nan,
    "processes": torture_processes,
    "soak": torture_soak,
}


def main() -> int:
    """Runs the tortures and prints the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*TORTURES, []], metavar="NAME", help=", ".join(TORTURES))
    parser.add_argument("--workdir", type=Path, default=Path("runs/torture"), help="emptied first")
    parser.add_argument("--short", action="store_true", help="a little of everything")
    arguments = parser.parse_args()
    logging.set_verbosity(logging.FATAL)
    shutil.rmtree(arguments.workdir, ignore_errors=True)
    bench = Bench(arguments.workdir.absolute(), arguments.short)
    if bench.reference.complete():
        print(bench.reference.output)
        return 1
    good = True
    print("| torture | what | wanted | found | |\n|---|---|---|---|---|")
    for name in arguments.names or TORTURES:
        for row in TORTURES[name](bench):
            cells = [name, *(cell.replace("|", "/") for cell in row[:3]), "ok" if row.good else "**MISS**"]
            print(f"| {' | '.join(cells)} |", flush=True)
            good &= row.good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
