"""The training loop, the only one: batches in, a pure step, reports and checkpoints out."""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from clu.parameter_overview import count_parameters
from jax.sharding import Mesh
from ml_collections import ConfigDict

from b2b_jax import sharding, terminal
from b2b_jax.data import pipeline
from b2b_jax.files import write_json
from b2b_jax.training import signals
from b2b_jax.training.checkpoint import Checkpoints
from b2b_jax.training.log import Log, NoLog, open_log
from b2b_jax.training.state import State, started

Array = jax.Array
Scores = dict[str, float]
Versions = dict[str, np.ndarray]  # photos (n, h, w, 3) in [0, 1], by what was done to them
Evaluate = Callable[[State], tuple[Scores, Versions]]
# For programs that a CPU runs once.
QUICK_COMPILATION = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
LAG = 2  # steps that the accelerator may be behind the host


@dataclass(frozen=True)
class Task:
    """What is trained: everything that differs between the deblurrer and the translator."""

    name: str  # shown in the progress bar
    steps: int
    batch: int  # images over all devices
    init: Callable[[Array], State]  # key -> state
    step: Callable[[State, Mapping, Mapping, Array], tuple[State, dict[str, Array]]]  # (state, frozen, batch, key)
    frozen: Mapping[str, Any]  # weights of frozen networks, by name
    evaluate: Evaluate  # of square photos
    start: Mapping[str, Any] = field(default_factory=dict)  # weights in place of those of `init`, by network


class Stopped(Exception):
    """A signal ended the run after a save; `code` is the exit code, 128 + the signal's number."""

    def __init__(self, code: int):
        super().__init__(f"stopped by signal {code - 128}")
        self.code = code


class Diverged(Exception):
    """Too many steps in a row gave values that are not finite."""


def train(
    task: Task,
    dataset: pipeline.Batches,
    folder: Path,
    config: ConfigDict,
    validated: Callable[[], None] = lambda: None,
) -> State:
    """Trains `task` on `dataset` (one batch per step) to its last step and returns the final state.

    Resumes from the newest checkpoint in `folder`, and writes there: checkpoints/, metrics.jsonl, TensorBoard events,
    samples/, and at the end summary.json. Calls `validated`, in the first process, after every validation.
    Raises Stopped after SIGTERM or Ctrl-C, with the running step saved; Diverged after too many bad steps;
    CheckpointError when a checkpoint cannot be written, or none of those there be read.
    """
    start, stop = time.monotonic(), signals.Stop()
    with signals.watch(stop), Checkpoints(folder / "checkpoints", config.loop) as checkpoints:
        mesh = sharding.make_mesh()
        fresh, state = opened(task, mesh, config.seed, checkpoints)
        frozen, key = sharding.copies(task.frozen, mesh), sharding.key(config.seed, mesh)
        done = int(state.step) if state else 0
        log = open_log(folder, done, config.loop.wandb)
        with contextlib.closing(Reporter(task, folder, config.loop, log, done, start, validated)) as report:
            step, behind, stopped = None, deque(), 0
            for batch in pipeline.iterate(dataset, done, task.steps, config.data.threads, config.data.prefetch):
                names = batch.pop("name").ravel().tolist()
                inputs = (frozen, sharding.to_devices(batch, mesh), key, flag(stop, mesh))
                step = step or compiled(task, mesh, (fresh.like, *inputs))
                state, metrics, notice = step(state or fresh.take(), *inputs)
                done += 1
                last = done == task.steps
                behind.append(Outcome(done, names, metrics, notice))
                stopped = judge(behind, 0 if last else LAG, config.loop.bad_steps, task.name)
                stop.ready = True
                scores = report.step(done, state, metrics, names, last)
                if last or stopped or done % config.loop.checkpoint_every == 0:
                    with report.pause():
                        checkpoints.save(state, done, scores)
                if stopped:
                    break
            if done == task.steps:
                report.summary(done)
    if number := stopped or sharding.largest(f"{task.name} stops", stop.number):  # the second came at the last step
        raise Stopped(128 + number)
    return sharding.local(state)


class FreshState:
    """The state that a task starts from: its shapes at once, its numbers when they are wanted."""

    def __init__(self, task: Task, mesh: Mesh, seed: int):
        """Draws nothing yet."""
        self._mesh, self._seed, self._weights = mesh, seed, jax.device_get(task.start)
        self._drawn: Future[State] | None = None

        def start(key: Array, weights: Mapping[str, Any]) -> State:
            return started(task.init(key), weights)

        with sharding.host() as quick:
            program = jax.jit(start, compiler_options=QUICK_COMPILATION if quick else None)
            self._traced = program.trace(jax.random.key(seed), self._weights)
        everywhere = sharding.replicated(mesh)
        self.like = jax.tree.map(  # shapes and types, and where its arrays will be
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), self._traced.out_info
        )

    def begin(self) -> None:
        """Starts to draw the state in a thread, so that the step can be compiled meanwhile; `take` waits for it."""
        beside = ThreadPoolExecutor(1)
        self._drawn = beside.submit(self._draw)
        beside.shutdown(wait=False)

    def take(self) -> State:
        """The state on all devices; the host's copy is let go."""
        drawn, self._drawn = self._drawn.result() if self._drawn else self._draw(), None
        return sharding.copies(drawn, self._mesh)

    def _draw(self) -> State:
        """The state, on the host's CPU.

        Its hundreds of random kernels take a GPU minutes to compile, a CPU one, or seconds without optimisation.
        Given weights replace drawn ones within the program, so that XLA drops those draws.
        """
        with sharding.host():
            return self._traced.lower().compile()(jax.random.key(self._seed), self._weights)


def opened(task: Task, mesh: Mesh, seed: int, checkpoints: Checkpoints) -> tuple[FreshState, State | None]:
    """The fresh state and the newest checkpoint's; without a checkpoint None, and the fresh state is being drawn."""
    fresh = FreshState(task, mesh, seed)
    sizes = {name: f"{count_parameters(params):,} parameters" for name, params in fresh.like.params.items()}
    told = sizes.values() if len(sizes) == 1 else [f"{name} {size}" for name, size in sizes.items()]
    if sharding.is_first():
        print(f"{task.name}: {', '.join(told)}, on {jax.device_count()} {jax.devices()[0].device_kind} device(s)")
    state = checkpoints.restore(fresh.like)
    if state is None:
        fresh.begin()
    return fresh, state


def compiled(task: Task, mesh: Mesh, inputs: tuple) -> Callable:
    """The step, compiled for its inputs (state, frozen, batch, key, flags); the state's memory is used again.

    Returns once every process has compiled it: the first exchange between them has little patience.
    """
    copies, parts = sharding.replicated(mesh), sharding.split(mesh)

    def body(state: State, frozen: Mapping, batch: Mapping, key: Array, flags: Array) -> tuple[State, dict, dict]:
        new, metrics = task.step(state, frozen, batch, key)
        return new, metrics, {"bad": new.bad_in_row, "signal": jnp.max(flags)}

    step = jax.jit(body, in_shardings=(copies, copies, parts, copies, parts), out_shardings=copies, donate_argnums=0)
    program = step.lower(*inputs).compile()
    sharding.wait_for_all(f"{task.name} is compiled")
    return program


# ------------------------------------------------------------------------------------------------ what steps tell later


class Outcome(NamedTuple):
    """A step that was started, and what will be known of it when the accelerator has done it."""

    step: int
    names: Sequence[str]  # of its photos, in this process
    metrics: Mapping[str, Array]
    notice: Mapping[str, Array]  # "bad": steps in a row, up to it, that were not finite; "signal": 0 or a number


def flag(stop: signals.Stop, mesh: Mesh) -> Array:
    """The signal that this process caught, for every device of it: so all processes learn of it at the same step."""
    numbers = np.full(jax.local_device_count(), stop.number, np.int32)
    return sharding.to_devices({"signal": numbers}, mesh)["signal"]


def judge(behind: deque[Outcome], lag: int, bad_steps: int, name: str) -> int:
    """Looks at all but the last `lag` outcomes; returns the signal after which to stop, 0 for none.

    Raises Diverged after `bad_steps` steps in a row that were not finite.
    """
    number = 0
    while len(behind) > lag:
        outcome = behind.popleft()
        number = max(number, int(outcome.notice["signal"]))
        if int(outcome.notice["bad"]) >= bad_steps:
            losses = ", ".join(f"{k} {float(v):.4g}" for k, v in jax.device_get(outcome.metrics).items())
            raise Diverged(
                f"{name}: {bad_steps} steps in a row up to step {outcome.step} were not finite ({losses}) on "
                f"{', '.join(outcome.names)}; look at these photos, or lower the learning rate"
            )
    return number


class Reporter:
    """Progress bar, log, validation: all that looks at a run and changes nothing in it."""

    def __init__(
        self,
        task: Task,
        folder: Path,
        config: ConfigDict,
        log: Log | NoLog,
        done: int,
        start: float,
        validated: Callable[[], None],
    ):
        self._task, self._folder, self._config, self._log, self._validated = task, folder, config, log, validated
        shown = sharding.is_first()
        bar = {"desc": task.name, "unit": "step", "disable": not shown}
        self._bar = terminal.bar(total=task.steps, initial=done, **bar)
        self._start = start
        self._steady = time.monotonic()  # productive since; moved on by all that is not
        self._first = done + 1  # the step that compiles; rates are measured after it
        self._shown: dict[str, str] = {}

    def step(self, done: int, state: State, metrics: Mapping[str, Array], names: Sequence[str], last: bool) -> Scores:
        """Called after every step; waits for the accelerator only when there is something to report.

        Returns the scores of the validation, {} when it was not its turn.
        """
        self._bar.update()
        if done == self._first:
            jax.block_until_ready(metrics)
            self._steady = time.monotonic()
        if self._config.log_images:
            self._log.names(done, names)
        if last or done % self._config.log_every == 0:
            self._report(done, state, metrics)
        if last or done % self._config.evaluate_every == 0:
            return self._validate(done, state)
        return {}

    def _report(self, done: int, state: State, metrics: Mapping[str, Array]) -> None:
        values = {k: float(v) for k, v in jax.device_get(metrics).items()}
        rate = self._rate(done)
        self._show(loss=f"{values.get('loss', values.get('loss_g')):.4f}", **{"images/s": f"{rate:.1f}"})
        counts = {"images_per_second": rate, "skipped": int(state.skipped)}
        self._log.scalars(done, values | counts | self._times())

    def _validate(self, done: int, state: State) -> Scores:
        with self.pause():
            scores, versions = self._task.evaluate(sharding.local(state))
            sharding.wait_for_all(f"{self._task.name} is validated")
        self._show(**{k: f"{v:.2f}" for k, v in scores.items() if k.endswith("psnr")})
        self._log.scalars(done, scores | self._times())
        with self.pause():
            self._log.samples(done, versions, self._config.sample_images)
            if sharding.is_first():
                self._validated()
        return scores

    def _show(self, **values: str) -> None:
        self._shown |= values
        self._bar.set_postfix(self._shown, refresh=False)  # which the next step does

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Takes the time of the block out of what counts as training."""
        begin = time.monotonic()
        yield
        self._steady += time.monotonic() - begin

    def _times(self) -> dict[str, float]:
        """Seconds of all starts, and those spent on the steps that the run consists of now."""
        now = time.monotonic()
        return {
            "seconds": self._log.seconds + now - self._start,
            "productive": self._log.productive + now - self._steady,
        }

    def _rate(self, done: int) -> float:
        if done <= self._first:
            return self._log.rate
        return (done - self._first) * self._task.batch / max(time.monotonic() - self._steady, 1e-9)

    def summary(self, done: int) -> None:
        """Writes and prints summary.json: steps, seconds, goodput, the rate of this start. Once, for a finished stage.

        Goodput is the share of the seconds of all starts that went into steps that count: not into compiling, loading,
        validating, saving, nor into steps that were lost and made again.
        """
        path = self._folder / "summary.json"
        if not sharding.is_first() or (done < self._first and path.exists()):
            return
        times = self._times()
        summary = {
            "steps": done,
            "seconds": round(times["seconds"], 1),
            "images_per_second": round(self._rate(done), 2),
            "goodput": round(times["productive"] / times["seconds"], 4),
        }
        write_json(path, summary)
        self._bar.write(f"{self._task.name}: goodput {summary['goodput']:.1%} of {summary['seconds']:.0f} s")

    def close(self) -> None:
        """Closes the bar and the log."""
        self._bar.close()
        self._log.close()
