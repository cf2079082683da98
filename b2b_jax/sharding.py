"""Devices and processes: one mesh axis `data` over all devices; batches are split along it, weights are copies on each.

Several processes (one per host, as a rule) run the same program on the same steps. Only the first writes files; what
it alone knows reaches the others through JAX's coordination service, which `start` joins.
"""

import contextlib
import importlib.util
import itertools
import os
import re
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax._src import distributed  # the service's client; JAX offers no public way to its barriers and texts
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from b2b_jax.errors import UserError

_passed = itertools.count()  # the same in all processes: they pass the same places
PATIENCE = 30 * 24 * 3600 * 1000  # ms that processes wait for one that evaluates; a dead one is found by its heartbeat


class Agreed(UserError):
    """A user's mistake that every process raises, so that all of them end together."""


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns the mesh of these devices, by default all of all processes, axis `data`.

    Those of a process lie side by side, so that a batch is the processes' parts in order. `jax.make_mesh` mixes the
    hosts of a TPU slice, and refuses devices of several hosts that are not one such slice.
    """
    devices = jax.devices() if devices is None else devices
    devices = sorted(devices, key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))


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


def key(seed: int, mesh: Mesh) -> jax.Array:
    """A key of random numbers, on every device."""
    return jax.jit(lambda: jax.random.key(seed), out_shardings=replicated(mesh))()


@contextlib.contextmanager
def host() -> Iterator[bool]:
    """What is computed within runs on this process's CPU; yields False where JAX_PLATFORMS left JAX none."""
    try:
        device = jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        device = None
    with jax.default_device(device) if device else contextlib.nullcontext():
        yield device is not None


def local(tree: Any) -> Any:
    """This process's copy of replicated arrays, on its first device: for what it computes alone. Nothing is copied."""
    return jax.tree.map(lambda x: x.addressable_data(0), tree)


# ----------------------------------------------------------------------------------------------------------- processes


def start(coordinator: str | None, processes: int | None, process: int | None, heartbeat: int) -> None:
    """Joins the other processes of the run, before anything touches a device.

    Args:
      coordinator: "host:port" of the first process, or None: what SLURM, Open MPI or Cloud TPU say, else one process.
      processes, process: how many there are, and the index of this one; given together with the coordinator.
      heartbeat: seconds of silence after which a process counts as dead and the others end, too.

    Raises:
      UserError: some of the three are given and some are not, or they do not fit each other; the port is taken; none is
        given, and the launcher does not say enough.
    """
    given = {"coordinator": coordinator, "num_processes": processes, "process_id": process}
    missing = [name for name, value in given.items() if value is None]
    options = {"heartbeat_timeout_seconds": heartbeat, "shutdown_timeout_seconds": heartbeat}
    if len(missing) == 3:
        if several(os.environ):
            join_launched(options)
    elif missing:
        raise UserError(f"--{missing[0]} is not given; --coordinator, --num_processes and --process_id go together")
    elif not 0 <= process < processes or not (port := port_of(coordinator)):
        raise UserError(
            f"--process_id is {process} of {processes} at {coordinator}; wanted 0 to N - 1 of N at HOST:PORT"
        )
    else:
        if process == 0:
            check_free(port)
        jax.distributed.initialize(*given.values(), cluster_detection_method="deactivate", **options)


def join_launched(options: Mapping[str, Any]) -> None:
    """Joins the processes that the launcher started; UserError when JAX cannot tell from it which they are."""
    try:
        jax.distributed.initialize(**options)
    except (ValueError, RuntimeError, OSError) as error:  # as of Open MPI 5, and of a TPU without Google's metadata
        raise UserError(
            f"The launcher does not tell JAX where the first process is ({error}); "
            "give --coordinator, --num_processes and --process_id"
        ) from error


def port_of(coordinator: str) -> int:
    """The port of HOST:PORT; 0 for any other text."""
    found = re.fullmatch(r".+:(\d{1,5})", coordinator)
    return int(found[1]) if found and int(found[1]) < 1 << 16 else 0


def check_free(port: int) -> None:
    """UserError where the first process cannot listen at this port, at which JAX would crash."""
    try:
        socket.create_server(("", port)).close()
    except OSError as error:
        reason = os.strerror(error.errno)
        raise UserError(
            f"--coordinator names port {port}, which cannot be used here: {reason}; choose another"
        ) from error


def several(environment: Mapping[str, str]) -> bool:
    """True when a launcher that JAX knows started this process as one of several, or this is a Cloud TPU machine."""
    slurm = "SLURM_PROCID" in environment and "SLURM_STEP_NODELIST" in environment
    names = ("OMPI_COMM_WORLD_SIZE", *(("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS") if slurm else ()))
    tasks = next((environment[name] for name in names if name in environment), "")
    chips = any(Path(path).exists() for path in ("/dev/accel0", "/dev/vfio/0"))
    return int(tasks or 1) > 1 or (chips and importlib.util.find_spec("libtpu") is not None)


def leave(code: int) -> int:
    """Ends one of several processes at once after an error of its own, so that the others notice and end as well.

    Otherwise JAX waits at the exit for them, and they wait for this one's part of the next step. Returns the exit code
    where there is only one process.
    """
    if distributed.global_state.num_processes > 1:  # asks no device, which would have to be started first
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def is_first() -> bool:
    """True in the one process that writes files."""
    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Returns once every process has come here; `name` is for the error when one does not."""
    if jax.process_count() > 1:
        distributed.global_state.client.wait_at_barrier(f"{name} ({next(_passed)})", PATIENCE)


def largest(name: str, number: int) -> int:
    """The largest of the numbers that the processes give, in each of them. Once per `name`."""
    if jax.process_count() == 1:
        return number
    client, key = distributed.global_state.client, f"b2b_jax/{name}"
    client.key_value_set(f"{key}/{jax.process_index()}", str(number))
    given = (client.blocking_key_value_get(f"{key}/{i}", PATIENCE) for i in range(jax.process_count()))
    return max(map(int, given))


def check_shared(folder: Path, seconds: float = 60) -> None:
    """UserError in every process whose `folder` is not the first process's.

    The first makes a file in it, and the others look for that file. seconds: how long they look, since network file
    systems may show a new one late.
    """
    if jax.process_count() == 1:
        return
    client, everyone = distributed.global_state.client, "every process shares the folder"
    if is_first():
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".", suffix=".part") as mark:
            client.key_value_set("b2b_jax/mark", os.path.basename(mark.name))
            wait_for_all(everyone)
        return
    mark = folder / client.blocking_key_value_get("b2b_jax/mark", PATIENCE)
    end = time.monotonic() + seconds
    while not mark.exists():
        if time.monotonic() > end:
            raise UserError(f"--workdir {folder} is not the first process's folder; all processes must share one")
        time.sleep(0.2)
    wait_for_all(everyone)


def check_same(what: str, found: str) -> None:
    """UserError in every process that `found` something else than the first one. Once per `what`."""
    if jax.process_count() == 1:
        return
    name, client = f"b2b_jax/{what}", distributed.global_state.client
    if is_first():
        client.key_value_set(name, found)
    elif (first := client.blocking_key_value_get(name, PATIENCE)) != found:
        raise UserError(f"{what}: the first process finds {first}, this one {found}; all must find the same")


def first_alone(name: str, action: Callable[[], object]) -> None:
    """Runs `action` in the first process while the others wait; its UserError is raised in all. Once per `name`.

    Of several processes, it is raised as Agreed.
    """
    if jax.process_count() == 1:
        action()
    elif is_first():
        outcome = ""
        try:
            action()
        except UserError as error:
            outcome = str(error)
            raise Agreed(*error.args) from error
        finally:
            distributed.global_state.client.key_value_set(f"b2b_jax/{name}", outcome or "done")
    elif (outcome := distributed.global_state.client.blocking_key_value_get(f"b2b_jax/{name}", PATIENCE)) != "done":
        raise Agreed(*outcome.splitlines())
