"""Checkpoints of a training state, with Orbax: asynchronous, atomic, hashed, and checked before they are used.

    checkpoints/1000/files.sha256     SHA-256 of every other file here; `sha256sum -c files.sha256` checks it too
    checkpoints/1000/state/           the arrays
    checkpoints/1000/hashes/metadata  SHA-256 of every array as it was on the device, JSON
    checkpoints/1000/metrics/metrics  the step's validation scores, JSON; empty when it was not validated

All of a step appears at once, by the renaming of its folder. Orbax by itself restores a flipped byte without a word and
takes an empty folder for the newest checkpoint.
"""

import asyncio
import dataclasses
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from ml_collections import ConfigDict
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, EveryNSteps, LatestN
from orbax.checkpoint.path import atomicity

from b2b_jax import sharding
from b2b_jax.errors import shown
from b2b_jax.training.state import State

FILES = "files.sha256"
DAMAGED = "damaged_checkpoints"  # where damaged steps are moved, beside checkpoints/
SMALL = 1 << 16  # bytes: the files of older steps that a start checks; all of those that Orbax reads then are smaller


class CheckpointError(Exception):
    """A checkpoint cannot be written, or none can be read; says which, why and what to do."""


class NotFinite(Exception):
    """Names an array of a state that was to be saved and holds a number that is not finite."""


class Checkpoints:
    """The checkpoints in one folder; a context manager that waits for the running save on every way out.

    Opening it checks what is there: damaged steps are named and moved aside. Raises CheckpointError when none is good.
    """

    def __init__(self, folder: Path, config: ConfigDict):
        """Opens `folder`; `config` is the section `loop`."""
        self._folder = folder.absolute()
        if sharding.is_first():
            sift(self._folder)
        sharding.wait_for_all("checkpoints sifted")
        registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
        registry.add("hashes", HashesSave, HashesHandler())
        options = ocp.CheckpointManagerOptions(
            preservation_policy=preservation(config),
            best_fn=validation_psnr,  # only makes the manager keep each step's scores
            cleanup_tmp_directories=True,
            temporary_path_class=SealedPath,
        )
        self._manager = ocp.CheckpointManager(self._folder, options=options, handler_registry=registry)
        self._bytes = self._saving = 0

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        try:
            self._attempt(self._manager.wait_until_finished)
        finally:
            self._attempt(self._manager.close)  # raises anew what a save in the background has met

    def restore(self, like: State) -> State | None:
        """The newest state, laid out on the devices as `like` is; None when there is no checkpoint."""
        step = self._manager.latest_step()
        if step is None:
            return None
        target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
        try:
            state = self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(target))).state
        except (ValueError, KeyError, TypeError) as error:
            reason = f"it does not fit the networks of this configuration ({str(error).splitlines()[0][:200]})"
            raise unusable(self._folder, [f"step {step}: {reason}"]) from error
        saved = json.loads((self._folder / str(step) / "hashes" / "metadata").read_text())
        wrong = [name for name, digest in hashes(host_copy(state)).items() if saved.get(name) != digest]
        if wrong:  # of whole files: Orbax or the memory is at fault, and an older step would not help
            raise unusable(self._folder, [f"step {step}: {wrong[0]} is read otherwise than it was saved"])
        return state

    def save(self, state: State, step: int, scores: Mapping[str, float]) -> None:
        """Starts to write `state` as the checkpoint of `step`, unless that one is there.

        Raises CheckpointError when this save cannot start or the one before has failed since.
        """
        jax.block_until_ready(state)  # Orbax synchronises processes by an all-reduce, which may overtake the step's
        self._attempt(self._manager.wait_until_finished)
        if step == self._manager.latest_step():
            return
        self._bytes, self._saving = sum(x.nbytes for x in jax.tree.leaves(state)), step
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), hashes=HashesSave(state))
        self._attempt(lambda: self._manager.save(step, args=items, metrics=dict(scores), force=True))

    def _attempt(self, action: Callable[[], object]) -> None:
        try:
            action()
        except NotFinite as error:
            raise CheckpointError(f"Step {self._saving} is not saved: {error}; earlier checkpoints stay") from error
        except Exception as error:  # whatever Orbax, its storage or the file system raise
            # TensorStore may add how it was called; before that, the end is what the system said.
            free, reason = free_bytes(self._folder), " ".join(str(error).split()).split(" [tensorstore_")[0]
            raise CheckpointError(
                f"Could not save step {self._saving} in {self._folder}: … {reason[-200:]}. "
                f"It takes {self._bytes:,} bytes; {free:,} are free there. Earlier checkpoints are as they were: "
                "make room and give the same command again"
            ) from error


def free_bytes(folder: Path) -> int:
    """Room on the disk of a folder, which may be gone with its disk: 0."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


def preservation(config: ConfigDict) -> AnyPreservationPolicy:
    """Which steps stay: the newest `keep`, every `keep_every`-th, the `keep_best` of the highest validation PSNR."""
    policies = [LatestN(config.keep)]
    if config.keep_every:
        policies.append(EveryNSteps(config.keep_every))
    if config.keep_best:
        policies.append(BestN(get_metric_fn=validation_psnr, n=config.keep_best))
    return AnyPreservationPolicy(policies)


def validation_psnr(scores: Mapping[str, float]) -> float:
    """What makes a checkpoint the best; a step that was not validated, or whose score is NaN, is the worst."""
    score = scores.get("validation_psnr", -np.inf)
    return -np.inf if np.isnan(score) else score


# -------------------------------------------------------------------------------------------------- hashes of the files


class SealedPath(atomicity.AtomicRenameTemporaryPath):
    """A step's folder while it is written: the last act before it is renamed lists the hashes of all its files."""

    async def finalize(self) -> None:
        """Waits for the metadata, writes FILES, renames. (The parts of a step, folders in it, are only renamed.)"""
        if self._checkpoint_metadata_store:
            await asyncio.to_thread(self._checkpoint_metadata_store.wait_until_finished)
        if self.get_final().name.isdigit():
            await asyncio.to_thread(seal, Path(self.get()))
        await asyncio.to_thread(os.rename, self.get(), self.get_final())


def seal(folder: Path) -> None:
    """Writes FILES: a line "SHA-256, two spaces, path" for every file below `folder`."""
    (folder / FILES).write_text("".join(f"{digest(folder / name)}  {name}\n" for name in sorted(names(folder))))


def names(folder: Path) -> set[str]:
    """Paths, relative to `folder`, of all files below it but FILES."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()} - {FILES}


def digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def damage(folder: Path, largest: float = np.inf) -> str:
    """What is wrong with the step in `folder`, as far as files of at most `largest` bytes tell; "" when nothing is."""
    try:
        text = (folder / FILES).read_text()
        listed = {name: want for want, name in (line.split("  ", 1) for line in text.splitlines())}
    except (OSError, ValueError) as error:
        return f"{FILES} cannot be read ({' '.join(str(error).split())})"
    found = names(folder)
    for name in sorted(listed.keys() ^ found):
        return f"{name} is missing" if name in listed else f"{name} is not of it"
    changed = (n for n in sorted(listed) if (folder / n).stat().st_size <= largest and digest(folder / n) != listed[n])
    return next((f"{name} has changed since it was written" for name in changed), "" if text[-1:] == "\n" else FILES)


def steps(folder: Path) -> list[int]:
    """The steps that `folder` has entries of, newest first."""
    return sorted((int(path.name) for path in folder.glob("*") if path.name.isdecimal()), reverse=True)


def sift(folder: Path) -> None:
    """Checks the steps in `folder`: all of each until one is good, the small files of the older ones.

    Names the damaged ones on stderr and moves them to DAMAGED. Raises CheckpointError when there are steps, none good.
    """
    bad, limit = {}, np.inf
    for step in steps(folder):
        reason = damage(folder / str(step), limit)
        if reason:
            bad[step] = reason
        else:
            limit = SMALL
    if bad and limit == np.inf:
        raise unusable(folder, [f"step {step}: {reason}" for step, reason in bad.items()])
    for step, reason in bad.items():
        aside = folder.parent / DAMAGED / str(step)
        shutil.rmtree(aside, ignore_errors=True)
        aside.parent.mkdir(exist_ok=True)
        (folder / str(step)).rename(aside)
        print(
            shown(f"Checkpoint {folder / str(step)} is damaged: {reason}. It is now {aside}, not used."),
            file=sys.stderr,
        )


def unusable(folder: Path, reasons: list[str]) -> CheckpointError:
    """The error of a folder whose checkpoints cannot be used."""
    return CheckpointError(
        f"No checkpoint in {folder} can be used ({'; '.join(reasons)}); "
        "put back a copy of it, or delete that folder to start this stage afresh"
    )


# ------------------------------------------------------------------------------------------------- hashes of the arrays


class HashesHandler(ocp.handlers.JsonCheckpointHandler):
    """Writes the hash of every array of a state; they are computed in the background, from a copy on the host."""

    async def async_save(self, directory: Any, args: "HashesSave") -> list[ocp.future.Future]:
        """Copies the arrays, which the next step may overwrite, and starts to hash them."""
        arrays = host_copy(args.item) if sharding.is_first() else {}
        return [ocp.future.CommitFutureAwaitingContractedSignals(self._write(arrays, directory), name="hashes")]

    async def _write(self, arrays: Mapping[str, np.ndarray], directory: Any) -> None:
        check_finite(arrays)
        await self._save_fn(hashes(arrays), directory)


@ocp.args.register_with_handler(HashesHandler, for_save=True)
@dataclasses.dataclass
class HashesSave(ocp.args.CheckpointArgs):
    """The state whose arrays are hashed."""

    item: State


def host_copy(state: State) -> dict[str, np.ndarray]:
    """Copies of the arrays, by their path in the state: "params/generator/…/kernel"."""
    jax.tree.map(lambda x: x.copy_to_host_async(), state)
    return {name: np.array(x) for name, x in flat(state)}


def flat(state: State) -> Iterator[tuple[str, Any]]:
    """Path and value of every leaf."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        yield jax.tree_util.keystr(path, simple=True, separator="/"), leaf


def hashes(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    """SHA-256 of type, shape and bytes of every array, hexadecimal."""
    found = {}
    for name, x in arrays.items():
        hasher = hashlib.sha256(f"{x.dtype} {x.shape} ".encode())
        hasher.update(np.ascontiguousarray(x).reshape(-1).view(np.uint8))  # no copy, and other threads run meanwhile
        found[name] = hasher.hexdigest()
    return found


def check_finite(arrays: Mapping[str, np.ndarray]) -> None:
    """Raises NotFinite when an array holds a number that is not."""
    for name, x in arrays.items():
        if not np.isfinite(x).all():
            raise NotFinite(f"{name} holds a number that is not finite")
