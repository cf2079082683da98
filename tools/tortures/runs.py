"""Whole runs as child processes, for `torture.py`: started, watched, killed, and compared to the last bit."""

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from b2b_jax.training import checkpoint

ROOT = Path(__file__).parents[2]
PATIENCE = 900  # seconds until a run counts as hanging
RESULTS = ("*.safetensors", "scores.json", "*kernels.png")  # of a finished stage, beside its checkpoints and log
TEMPORARY = f"*{checkpoint.atomicity.TMP_DIR_SUFFIX}*"


class Run:
    """One run in a folder of its own, started as often as it takes."""

    def __init__(self, folder: Path, shared: Path, config: str, *settings: str):
        """`shared` keeps the scenes and compiled programs of all runs; `settings` are config keys, "loop.keep=9"."""
        self.folder, self.shared, self.config, self.settings = folder, shared, config, settings
        self.output = ""  # of the last start

    def stage(self, name: str) -> Path:
        """The folder of a stage."""
        return self.folder / "run" / name

    def arguments(self, *more: str) -> list[str]:
        """What the command is told, with `more` config keys."""
        keys = [f"--config.{key}" for key in (f"data.root={self.shared / 'data'}", *self.settings, *more)]
        return [f"--config={self.config}", *keys, f"--workdir={self.folder / 'run'}"]

    def environment(self) -> dict[str, str]:
        """Where it finds this package and, besides, what another run has compiled."""
        variables = {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        return os.environ | variables | {"JAX_COMPILATION_CACHE_DIR": str(self.shared / "xla")}

    def start(self, *more: str, arguments: Sequence[str] = (), environment: Mapping[str, str] | None = None, **options):
        """Starts the command; `options` go to Popen."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self.folder, prefix="output-", delete=False) as output:  # a pipe fills up
            process = subprocess.Popen(
                [sys.executable, "-m", "b2b_jax.main", *self.arguments(*more), *arguments],
                env=self.environment() | dict(environment or {}),
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                **options,
            )
        process.output = Path(output.name)
        return process

    def finish(self, process: subprocess.Popen) -> int:
        """Waits for the end; returns the exit code and keeps what was printed."""
        process.wait(timeout=PATIENCE)
        self.output = process.output.read_text()
        return process.returncode

    def complete(self, *more: str, **options) -> int:
        """Runs the command to its end."""
        return self.finish(self.start(*more, **options))

    def steps(self, stage: str) -> list[int]:
        """The steps that are checkpoints, newest first."""
        return checkpoint.steps(self.stage(stage) / "checkpoints")

    def logged(self, stage: str) -> int:
        """The last step whose photos are logged."""
        rows = images(self.stage(stage) / "images.jsonl")
        return max(rows, default=0)

    def saves(self, stage: str) -> set[int]:
        """The folders (their inodes) of checkpoints that are being written, or were when the process died."""
        found = set()
        for path in (self.stage(stage) / "checkpoints").glob(TEMPORARY):
            with contextlib.suppress(FileNotFoundError):
                found.add(path.stat().st_ino)
        return found

    def changes(self, stage: str, count: int) -> Callable[[], bool]:
        """Tells whether the list of photos has changed so many times since: once at a start, then at every step."""
        path, seen = self.stage(stage) / "images.jsonl", []

        def changed() -> bool:
            with contextlib.suppress(FileNotFoundError):
                now = path.stat()
                if seen[-1:] != [(now.st_ino, now.st_size)]:
                    seen.append((now.st_ino, now.st_size))
            return len(seen) > count

        changed()
        return changed

    def fingerprint(self, stage: str) -> str:
        """SHA-256 of all arrays of the last checkpoint (their own hashes), of the names of all photos in order, and of
        what the stage left for others: its networks, scores and pictures of kernels."""
        if not self.steps(stage):
            return "no checkpoint"
        step = self.stage(stage) / "checkpoints" / str(self.steps(stage)[0])
        if checkpoint.damage(step):
            return f"{step} is damaged"
        arrays = json.loads((step / "hashes" / "metadata").read_text())
        left = [path for pattern in RESULTS for path in sorted(self.stage(stage).rglob(pattern))]
        results = [(str(path.relative_to(self.stage(stage))), checkpoint.digest(path)) for path in left]
        text = json.dumps([int(step.name), sorted(arrays.items()), self.names(stage), results])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def names(self, stage: str) -> list[list[str]]:
        """The names of the photos of every step; those of a second process, where there was one, after the first's."""
        first, second = (images(self.stage(stage) / name) for name in ("images.jsonl", "images.1.jsonl"))
        whole = max(map(len, first.values())) * (2 if second.keys() >= first.keys() else 1)
        return [(first[step] + second.get(step, []))[:whole] for step in sorted(first)]

    def values(self, stage: str, step: int | None = None) -> dict[str, np.ndarray]:
        """The arrays of a checkpoint, by default the last, by their path."""
        path = self.stage(stage) / "checkpoints" / str(step or self.steps(stage)[0]) / "state"
        with ocp.PyTreeCheckpointer() as reader:
            tree = reader.metadata(path.absolute()).item_metadata.tree
            wanted = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
            restored = reader.restore(path.absolute(), restore_args=wanted)
        return dict(checkpoint.flat(restored))


def images(path: Path) -> dict[int, list[str]]:
    """Names by step, of an images.jsonl whose last line may be cut short."""
    rows = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            row = json.loads(line)
            rows[row["step"]] = row["names"]
    return rows


def wait(process: subprocess.Popen, condition: Callable[[], object], seconds: float = PATIENCE) -> bool:
    """Waits, at a look a millisecond, until `condition()`; False when the process ended or the time is over before."""
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.001)
    return False


@contextlib.contextmanager
def mounted(folder: Path, size: str) -> Iterator[None]:
    """A small file system in memory at `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def start_two(run: Run, *more: str, devices: int = 4, heartbeat: int = 10) -> list[subprocess.Popen]:
    """Starts the command as two processes of `devices` CPU devices each."""
    flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    join = (f"--coordinator=localhost:{free_port()}", "--num_processes=2", f"--heartbeat={heartbeat}")
    return [run.start(*more, arguments=(*join, f"--process_id={i}"), environment=flags) for i in range(2)]


def kill(process: subprocess.Popen) -> None:
    """Kill -9."""
    process.send_signal(signal.SIGKILL)
    process.wait()
