"""Devices and processes: one mesh axis `data` over all devices; batches are split along it, weights are copies on each.

Several processes (one per host, as a rule) run the same program on the same steps. Only the first writes files; what
only it knows reaches the others through the coordination service that `start` joins.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DAYS = 30  # that processes wait for one that evaluates; dead ones are found by their missing heartbeat


def make_mesh() -> Mesh:
    """Returns the mesh of all devices of all processes, axis `data`."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """The leading axis divided over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def to_devices(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Joins the processes' local batches (n / processes, ...) into global arrays (n, ...), split over the devices."""
    return {k: jax.make_array_from_process_local_data(split(mesh), v) for k, v in batch.items()}


def copies(tree: Any, mesh: Mesh) -> Any:
    """Puts a copy of each array, which every process has, on every device."""
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(replicated(mesh), np.asarray(x)), tree)


def local(tree: Any) -> Any:
    """This process's copy of replicated arrays, on its first device: for what it computes alone. Nothing is copied."""
    return jax.tree.map(lambda x: x.addressable_data(0), tree)


# ------------------------------------------------------------------------------------------------------------ processes


def is_first() -> bool:
    """True in the one process that writes files."""
    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Returns once every process has come here; `name` may be used again."""
    if jax.process_count() > 1:
        jax._src.distributed.global_state.client.wait_at_barrier(name, DAYS * 86_400_000)
