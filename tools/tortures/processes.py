"""Several devices and processes: equal results, and what happens when one process dies or is told to stop."""

import shutil
import signal
import time
from collections.abc import Callable, Iterator

import numpy as np

from tools.tortures.bench import STAGES, Bench, Row, equal, says
from tools.tortures.disks import data_file, flip
from tools.tortures.runs import Run, kill, start_two, wait

TOGETHER = {
    "deblurrer": ("deblurrer.batch=8", "deblurrer.steps=20"),
    # Without hinge and zeros: of a gradient that is nothing but rounding Adam makes a whole step, another one
    # everywhere. Nor with the logistic loss: at first the discriminator's gradients of real and fake nearly cancel.
    "translator": (
        "translator.batch=8",
        "translator.steps=20",
        "translator.gan_loss=least_squares",
        "translator.generator.zero_init=False",
    ),
}
PARTS = {
    "deblurrer": ("params/deblurrer",),
    "translator": ("params/generator", "params/discriminator", "ema/generator"),
}


def torture_processes(bench: Bench) -> Iterator[Row]:
    """One process of 8 devices, two of 4, one of 1; one of two killed, one of two told to stop; 1, 2, 1 processes."""
    settings = (*TOGETHER["translator"], "loop.checkpoint_every=1", "loop.keep=20")
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
        yield from damaged(bench, two)
        for stage in STAGES:
            yield from stop_and_change(bench, stage)


def gradients(what: str, run: Run, other: Run) -> Iterator[Row]:
    """The gradients of step 1, which Adam's first moments then are, scaled: all of a network as one vector."""
    found, wanted = run.values("translator", 1), other.values("translator", 1)
    for network in ("generator", "discriminator"):
        moments = f"opt_state/{network}/0/mu"
        error = difference(found, wanted, lambda name, moments=moments: name.startswith(moments))
        yield Row(f"{what}: gradient of step 1, {network}: difference / norm", "≤ 1e-6", f"{error:.1e}", error <= 1e-6)


def near(what: str, run: Run, other: Run, stage: str = "translator") -> Iterator[Row]:
    """The order of photos is equal, and so are the networks: each as one vector, to 1e-5 of its norm."""
    yield equal(f"{what}: photos in order", True, run.names(stage) == other.names(stage))
    found, wanted = run.values(stage), other.values(stage)
    for part in PARTS[stage]:
        error = difference(found, wanted, lambda name, part=part: name.startswith(part))
        yield Row(f"{what}: {part}: difference / norm", "≤ 1e-5", f"{error:.1e}", error <= 1e-5)


def difference(found: dict, wanted: dict, chosen: Callable[[str], bool]) -> float:
    """Norm of the difference over the norm, of all chosen arrays as one vector."""
    x, y = (np.concatenate([values[name].ravel() for name in wanted if chosen(name)]) for values in (found, wanted))
    return float(np.linalg.norm(x.astype(np.float64) - y) / np.linalg.norm(y))


def one_dies(bench: Bench, whole: Run) -> Iterator[Row]:
    """Kill -9 of either of two processes: the other ends in time, and the next start goes on exactly."""
    for victim in (0, 1):
        run = bench.one(f"widowed-{victim}", "translator", *TOGETHER["translator"])
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


def damaged(bench: Bench, whole: Run) -> Iterator[Row]:
    """A damaged checkpoint that two processes find: both go on from the one before."""
    run = bench.one("two-damaged", "translator", *whole.settings)
    shutil.copytree(whole.folder, run.folder)
    (run.stage("translator") / "weights.safetensors").unlink()
    newest = run.stage("translator") / "checkpoints" / str(run.steps("translator")[0])
    flip(data_file(newest))
    pair = start_two(run)
    yield equal("2 processes, a flipped bit in the arrays: exit codes", [0, 0], [run.finish(one) for one in pair[::-1]])
    yield says("2 processes, a flipped bit in the arrays: what is said", run, newest, "is damaged")
    want, found = whole.fingerprint("translator"), run.fingerprint("translator")
    yield Row("2 processes, a flipped bit: SHA-256 of arrays and photos", want, found, want == found)


def stop_and_change(bench: Bench, stage: str) -> Iterator[Row]:
    """One process, then two, of which one is told to stop, then one again: exit codes, photos, values."""
    whole, run = (bench.one(f"{name}-{stage}", stage, *TOGETHER[stage]) for name in ("unchanged", "changed"))
    yield equal(f"{stage}, 1 process: exit code", 0, whole.complete())
    process = run.start()
    wait(process, run.changes(stage, 5))
    process.send_signal(signal.SIGTERM)
    yield equal(f"{stage}, 1 process, SIGTERM: exit code", 143, run.finish(process))
    pair = start_two(run)
    wait(pair[0], run.changes(stage, 5))
    pair[1].send_signal(signal.SIGTERM)
    yield equal(f"{stage}, 2 processes, SIGTERM to one: exit codes", [143, 143], [run.finish(one) for one in pair])
    yield equal(f"{stage}, 1 process again: exit code", 0, run.complete())
    yield from near(f"{stage}, 1, 2, 1 processes against 1", run, whole, stage)
