"""Trains, evaluates and reports a run, stage after stage: `python -m b2b_jax.main --config configs/demo.py`.

Finished stages are skipped, unfinished ones resume where they stopped, given weights are loaded.

Exit codes: 0 done; 2 a mistake in the input (a line for each); 1 a fault of ours, a full disk or a diverged run; 129,
130 and 143 stopped by the end of the terminal, Ctrl-C or SIGTERM, and saved.
"""

import contextlib
import logging as standard_logging
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from absl import logging
from ml_collections import ConfigDict

from b2b_jax import commandline, interrupts, memory, record, settings, sharding, terminal, weights
from b2b_jax.compilation import enable_compilation_cache
from b2b_jax.data.quickly import attempt, quickly
from b2b_jax.errors import UserError, disk_fault, shown, suggestion
from b2b_jax.evaluation import evaluate, summary
from b2b_jax.files import lock, remove_drafts
from b2b_jax.images import ImageError
from b2b_jax.networks import WEIGHTS
from b2b_jax.stages import STAGES, common, left_out
from b2b_jax.stages.run import Run
from b2b_jax.stages.stage import Stage, asked
from b2b_jax.training import loop, signals
from b2b_jax.training.checkpoint import CheckpointError


class Work(NamedTuple):
    """One entry of config.stages, or a network that one of them needs trained."""

    finished: Callable[[Run], bool]
    inputs: Callable[[Run], list[Callable[[], object]]]  # called before anything is compiled; each may raise UserError
    run: Callable[[Run], None]
    reads: tuple[str, ...]  # which of the run's photos: "known", "unknown"
    together: bool = False  # all processes do it, not only the first
    needed: Callable[[Run], bool] = lambda run: True  # False when nothing else in the run will use it
    serves: str = ""  # the entry of config.stages that it is done for; "" for one of its own


def training(name: str, stage: Stage) -> Work:
    """The work of training one network."""

    def train(run: Run) -> None:
        left_out.forget(run, name)
        stage.fit(run, lambda: summary.show(run, name))

    return Work(
        finished=lambda run: run.trained(name),
        inputs=stage.inputs,
        run=train,
        reads=stage.reads,
        together=True,
        needed=stage.needed,
        serves=stage.serves,
    )


WORK = {name: training(name, stage) for name, stage in STAGES.items()} | {
    "evaluation": Work(
        finished=evaluate.finished,
        inputs=lambda run: [lambda: evaluate.check(run)],
        run=evaluate.evaluate,
        reads=("unknown",),
    ),
    "report": Work(finished=lambda run: False, inputs=lambda run: [], run=summary.write_report, reads=()),
}
NAMES = [name for name, work in WORK.items() if not work.serves]  # what config.stages may name


def main() -> int:
    """Runs the command line; returns the exit code."""
    terminal.protect()
    memory.keep_for_training()
    if {"-h", "--help"} & set(sys.argv):
        print(f"{__doc__}\n{commandline.USAGE}\n")
        print(f"Stages: {', '.join(NAMES)}. Every KEY, its unit and reason: configs/default.py.")
        print("DIR: runs/NAME, or runs/NAME_VARIANT, unless given.")
        print("Several processes: --coordinator HOST:PORT --num_processes N --process_id I. See docs/scaling.md.")
        return 0
    if "--version" in sys.argv:
        print(terminal.VERSION)
        return 0
    silence()
    try:
        run = commandline.parse()
        commandline.join()
        with signals.watch(signals.leave), contextlib.ExitStack() as stack:
            sharding.first_alone("lock", lambda: stack.enter_context(lock(record.checked(run.workdir))))
            sharding.check_shared(run.workdir)
            run_stages(run)
    except (UserError, ImageError) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, sharding.Agreed) else sharding.leave(2)
    except (loop.Diverged, CheckpointError) as error:
        print(shown(error), file=sys.stderr)
        return sharding.leave(1)
    except OSError as error:
        if error.errno is None:
            raise
        line, code = disk_fault(error)
        print(line, file=sys.stderr)
        return sharding.leave(code)
    except loop.Stopped as stop:
        print("Stopped; the same command resumes from here.", file=sys.stderr)
        return stop.code  # in all processes
    except KeyboardInterrupt:  # before signals are watched
        print(interrupts.stopped(signal.SIGINT), file=sys.stderr)
        return sharding.leave(130)
    return 0


def silence() -> None:
    """Keeps back the tracebacks in which Orbax tells of a failed save: the error that it also raises becomes one line.

    Besides it logs them, and TensorStore calls back into an event loop that is closed by then.
    """
    logging.set_verbosity(logging.FATAL)
    standard_logging.getLogger("asyncio").setLevel(standard_logging.CRITICAL)
    show = sys.unraisablehook
    sys.unraisablehook = lambda event: None if "Event loop is closed" in str(event.exc_value) else show(event)


def run_stages(run: Run) -> None:
    """The stages of the config, in order."""
    named = work_names(run)
    pending = [name for name in named if not WORK[name].finished(run)]
    sharding.wait_for_all("every process knows what is pending")
    sharding.first_alone("prepare", lambda: prepare(run, pending))
    if not sharding.is_first():
        check(run, pending)
    sharding.check_same("Photos to train on", counted(run, pending))
    enable_compilation_cache()
    if set(pending) - {"report"} and sharding.is_first():
        print(f"Follow the run in {shown(run.workdir / 'report' / 'index.html')}")
    running = ""
    try:
        for running in named:
            run_stage(run, running, running in pending)
    finally:
        if running != "report":
            show(run, "")


def run_stage(run: Run, name: str, pending: bool) -> None:
    """One stage, if it is still to be done."""
    if not pending:
        if sharding.is_first():
            print(f"{name}: done before, skipped{'; its weights match their SHA-256' if run.hashed(name) else ''}")
        return
    show(run, name)
    if WORK[name].together or sharding.is_first():
        WORK[name].run(run)
    sharding.wait_for_all(f"{name} is done")


def show(run: Run, name: str) -> None:
    """Renews the report while the stage runs; "" for none."""
    if name != "report" and sharding.is_first():
        summary.show(run, name)


def prepare(run: Run, pending: list[str]) -> None:
    """Looks at everything before anything is written or compiled, then records the configuration."""
    record.refuse_changes(run)
    remove_drafts(run.workdir)
    check(run, pending)
    record.write(run, set(sides(pending)))


def work_names(run: Run) -> list[str]:
    """What `config.stages` asks for and what that needs, in order."""
    asked = stage_names(run.config)
    return [name for name, work in WORK.items() if (work.serves or name) in asked and work.needed(run)]


def stage_names(config: ConfigDict) -> list[str]:
    """`config.stages`, which the command line may give with commas."""
    names = asked(config)
    if not names:
        raise UserError(f"config.stages is empty; stages are {', '.join(NAMES)}")
    for name in names:
        if name not in NAMES:
            hint = suggestion(name, NAMES)
            raise UserError(f"config.stages names {name!r}; stages are {', '.join(NAMES)}{hint}")
    return [name for name in NAMES if name in names]


def check(run: Run, pending: list[str]) -> None:
    """Opens all that the pending stages need; raises one UserError with a line for everything that is missing.

    Slow things, such as drawing scenes, come last, once nothing else is wrong.
    """
    settings.check_values(run.config)
    opens = [lambda side=side: getattr(run, side) for side in sides(pending)]
    opens += [open_input for name in pending for open_input in WORK[name].inputs(run)]
    opens += [lambda name=name, stage=stage: check_network(run, name, stage) for name, stage in STAGES.items()]
    with quickly():
        slow = attempt(opens).postponed
    attempt(slow)


def sides(pending: list[str]) -> list[str]:
    """Which of the run's photos the pending stages read, in order: "known", "unknown"."""
    return list(dict.fromkeys(side for name in pending for side in WORK[name].reads))


def counted(run: Run, pending: list[str]) -> str:
    """How many photos there are to train the pending stages on.

    Every process takes its share of them by their numbers, from a copy of its own maybe, which may lack some.
    """
    piles = {"known": ("train",), "unknown": ("blur", "sharp")}
    return ", ".join(f"{len(getattr(getattr(run, s), pile)):,} {s} {pile}" for s in sides(pending) for pile in piles[s])


def check_network(run: Run, name: str, stage: Stage) -> None:
    """Reads a stage's weights, given or trained here.

    UserError when they are missing, not ours, or have changed, or given ones do not restore photos where they should.
    """
    given = stage.given(run)
    if given and Path(given).is_dir():
        raise UserError(f"{name}.weights is {given}: a folder; name the file in it, such as {Path(given) / WEIGHTS}")
    if given and not Path(given).is_file():
        raise UserError(f"{name}.weights is {given}: no such file; make it with python -m b2b_jax.convert")
    if given or (stage.needed(run) and run.trained(name)):
        network = run.network(name)
        if given and stage.restores and not common.restores(network.module):
            kind, _ = weights.describe(given)
            raise UserError(f"{name}.weights is {given}: it holds a {kind}, which does not restore photos")


if __name__ == "__main__":
    try:
        code = main()
    except Exception:
        traceback.print_exc()
        code = sharding.leave(1)
    sys.exit(code)
