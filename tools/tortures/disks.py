"""Disks that fail: damaged checkpoints, and no room for a new one."""

import json
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from b2b_jax.training import checkpoint
from tools.tortures.bench import Bench, Row, equal, says
from tools.tortures.runs import Run, mounted, wait


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
    return Row("every file flipped, cut, emptied, removed: noticed", f"{count} of {count}", f"{noticed}", good, count)


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
