"""Checkpoints of a training state, with Orbax: asynchronous, atomic, the newest few kept."""

from pathlib import Path
from types import TracebackType

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import LatestN

from b2b_jax.training.state import State


class Checkpoints:
    """The checkpoints in one folder; a context manager that waits for the running save on every way out."""

    def __init__(self, folder: Path, keep: int):
        options = ocp.CheckpointManagerOptions(preservation_policy=LatestN(keep), cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._manager.wait_until_finished()
        self._manager.close()

    def restore(self, like: State) -> State | None:
        """The newest state, laid out on the devices as `like` is; None when there is no checkpoint."""
        step = self._manager.latest_step()
        if step is None:
            return None
        target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)
        return self._manager.restore(step, args=ocp.args.StandardRestore(target))

    def save(self, state: State, step: int) -> None:
        """Starts to write `state` as the checkpoint of `step`, unless that one is there."""
        if step != self._manager.latest_step():
            self._manager.save(step, args=ocp.args.StandardSave(state))
