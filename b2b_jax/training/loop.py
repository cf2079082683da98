"""The training loop, the only one: batches in, a pure step, reports and checkpoints out."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
from clu.parameter_overview import count_parameters
from ml_collections import ConfigDict
from tqdm import tqdm

from b2b_jax import sharding
from b2b_jax.data import pipeline
from b2b_jax.files import write_json
from b2b_jax.training.checkpoint import Checkpoints
from b2b_jax.training.log import Log
from b2b_jax.training.state import State

Array = jax.Array
# A program that runs once. On a CPU its hundreds of random kernels take a minute to compile well, seconds to compile.
QUICK_COMPILATION = {"cpu": {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}}


@dataclass(frozen=True)
class Task:
    """What is trained: everything that differs between the deblurrer and the translator."""

    name: str  # shown in the progress bar
    steps: int
    batch: int  # images over all devices
    init: Callable[[Array], State]  # key -> state
    step: Callable[[State, Mapping, Mapping, Array], tuple[State, dict[str, Array]]]  # (state, frozen, batch, key)
    frozen: Mapping[str, Any]  # weights of frozen networks, by name
    evaluate: Callable[[State], tuple[dict[str, float], np.ndarray]]  # state -> scores, picture (h, w, 3) uint8


class Stopped(Exception):
    """A signal ended the run after a save; `code` is the exit code, 128 + the signal's number."""

    def __init__(self, code: int):
        super().__init__(f"stopped by signal {code - 128}")
        self.code = code


class Diverged(Exception):
    """Too many steps gave values that are not finite."""


def train(task: Task, dataset: grain.MapDataset, folder: Path, config: ConfigDict) -> State:
    """Trains `task` on `dataset` (one batch per step) to its last step and returns the final state.

    Goes on from the newest checkpoint in `folder`, and writes there: checkpoints/, metrics.jsonl, TensorBoard events,
    samples/, and at the end summary.json. Raises Stopped after SIGTERM or Ctrl-C, with the running step saved.
    """
    mesh = sharding.make_mesh()
    copies, parts = sharding.replicated(mesh), sharding.split(mesh)
    key = jax.device_put(jax.random.key(config.seed), copies)
    step = jax.jit(
        task.step, in_shardings=(copies, copies, parts, copies), out_shardings=(copies, copies), donate_argnums=0
    )
    state = jax.jit(task.init, out_shardings=copies, compiler_options=QUICK_COMPILATION.get(jax.default_backend()))(key)
    frozen = jax.device_put(task.frozen, copies)
    sizes = [f"{name} {count_parameters(params):,} parameters" for name, params in state.params.items()]
    print(f"{task.name}: {', '.join(sizes)}, on {jax.device_count()} {jax.devices()[0].device_kind} device(s)")
    with Checkpoints(folder / "checkpoints", config.loop.keep) as checkpoints, stop_signals() as stop:
        state = checkpoints.restore(state) or state
        done = int(state.step)
        with contextlib.closing(Reporter(task, folder, config.loop, state)) as report:
            for batch in pipeline.iterate(dataset, done, task.steps, config.data.threads, config.data.prefetch):
                state, metrics = step(state, frozen, sharding.to_devices(batch, mesh), key)
                done += 1
                last = done == task.steps
                report.step(done, state, metrics, last)
                signal_number = stop()
                if last or signal_number or done % config.loop.checkpoint_every == 0:
                    checkpoints.save(state, done)
                if signal_number:
                    raise Stopped(128 + signal_number)
            report.summary(done)
    return state


class Reporter:
    """Progress bar, log, validation: all that looks at a run and changes nothing in it."""

    def __init__(self, task: Task, folder: Path, config: ConfigDict, state: State):
        self._task, self._folder, self._config = task, folder, config
        done, self._skipped = int(state.step), int(state.skipped)
        self._log = Log(folder, done, config.wandb)
        self._bar = tqdm(total=task.steps, initial=done, desc=task.name, unit="step", dynamic_ncols=True)
        self._start = self._steady = time.monotonic()
        self._first = done + 1  # the step that compiles; rates are measured after it
        self._shown: dict[str, str] = {}

    def step(self, done: int, state: State, metrics: Mapping[str, Array], last: bool) -> None:
        """Called after every step; waits for the accelerator only when there is something to report."""
        self._bar.update()
        if done == self._first:
            jax.block_until_ready(metrics)
            self._steady = time.monotonic()
        if last or done % self._config.log_every == 0:
            self._report(done, state, metrics)
        if last or done % self._config.evaluate_every == 0:
            self._validate(done, state)

    def _report(self, done: int, state: State, metrics: Mapping[str, Array]) -> None:
        values = {k: float(v) for k, v in jax.device_get(metrics).items()}
        skipped = int(state.skipped)
        if skipped - self._skipped >= min(self._config.bad_steps, self._config.log_every):
            raise Diverged(
                f"{self._task.name}: {skipped - self._skipped} of {self._config.log_every} steps were not finite "
                f"at step {done} (losses: {values}); lower the learning rate, or look at the newest photos"
            )
        self._skipped = skipped
        rate = self._rate(done)
        self._show(loss=f"{values.get('loss', values.get('loss_g')):.4f}", **{"images/s": f"{rate:.1f}"})
        times = {"images_per_second": rate, "seconds": self._seconds(), "skipped": skipped}
        self._log.scalars(done, values | times)

    def _validate(self, done: int, state: State) -> None:
        start = time.monotonic()
        scores, picture = self._task.evaluate(state)
        self._steady += time.monotonic() - start  # which is no training
        self._show(**{k: f"{v:.2f}" for k, v in scores.items() if k.endswith("psnr")})
        self._log.scalars(done, scores | {"seconds": self._seconds()})
        self._log.picture(done, picture)

    def _show(self, **values: str) -> None:
        self._shown |= values
        self._bar.set_postfix(self._shown)

    def _seconds(self) -> float:
        return self._log.seconds + time.monotonic() - self._start

    def _rate(self, done: int) -> float:
        return (done - self._first) * self._task.batch / max(time.monotonic() - self._steady, 1e-9)

    def summary(self, done: int) -> None:
        """Writes summary.json: steps, seconds of all starts, the rate of this one; nothing if it made no step."""
        if done <= self._first:
            return
        summary = {"steps": done, "seconds": round(self._seconds(), 1), "images_per_second": round(self._rate(done), 2)}
        write_json(self._folder / "summary.json", summary)

    def close(self) -> None:
        """Closes the bar and the log."""
        self._bar.close()
        self._log.close()


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], int]]:
    """Catches the first SIGTERM or Ctrl-C; yields a function that returns its number, 0 before. A second one kills."""
    caught = 0

    def catch(number: int, frame: Any) -> None:
        nonlocal caught
        caught = number
        for name, handler in previous.items():
            signal.signal(name, handler)

    previous = {name: signal.signal(name, catch) for name in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: caught
    finally:
        for name, handler in previous.items():
            signal.signal(name, handler)
