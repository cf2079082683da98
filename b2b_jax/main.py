"""Trains, evaluates and reports a run, stage after stage: `python -m b2b_jax.main --config configs/demo.py`.

Finished stages are skipped, unfinished ones go on where they stopped, given weights are loaded.
"""

if __name__ == "__main__":  # before the imports below, which would be done twice
    from b2b_jax import huge_pages

    huge_pages.restart()

import contextlib
import dataclasses
import difflib
import errno
import logging as standard_logging
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from absl import logging
from ml_collections import ConfigDict

from b2b_jax import commandline, record, sharding
from b2b_jax.compilation import enable_compilation_cache
from b2b_jax.errors import UserError
from b2b_jax.evaluation import evaluate, summary
from b2b_jax.files import lock, remove_drafts
from b2b_jax.images import ImageError
from b2b_jax.stages import blur_extractor, deblurrer, translator
from b2b_jax.stages.run import Run
from b2b_jax.training import loop, signals
from b2b_jax.training.checkpoint import CheckpointError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Stage(NamedTuple):
    """One stage of a run."""

    finished: Callable[[Run], bool]
    inputs: Callable[[Run], list[Callable[[], object]]]  # opened before anything is compiled; each may raise UserError
    run: Callable[[Run], None]
    together: bool  # all processes run it, not only the first
    needed: Callable[[Run], bool] = lambda run: True  # False when no other stage of the run will use it


STAGES = {
    "deblurrer": Stage(
        finished=lambda run: run.trained("deblurrer"),
        inputs=lambda run: [lambda: run.known, lambda: deblurrer.check(run)],
        run=deblurrer.train,
        together=True,
    ),
    "blur_extractor": Stage(
        finished=lambda run: run.trained("blur_extractor"),
        inputs=lambda run: [lambda: run.known, lambda: blur_extractor.check(run)],
        run=blur_extractor.train,
        together=True,
        needed=blur_extractor.needed,
    ),
    "translator": Stage(
        finished=lambda run: run.trained("translator"),
        inputs=lambda run: [
            lambda: run.known,
            lambda: run.unknown,
            lambda: translator.load_vgg(run),
            lambda: translator.check(run),
        ],
        run=translator.train,
        together=True,
    ),
    "evaluation": Stage(
        finished=evaluate.finished,
        inputs=lambda run: [lambda: run.unknown, lambda: evaluate.check(run)],
        run=evaluate.evaluate,
        together=True,  # only to train what it compares with
    ),
    "report": Stage(
        finished=lambda run: False,
        inputs=lambda run: [],
        run=summary.write_report,
        together=False,
    ),
}


def main() -> int:
    """Runs the command line; returns the exit code.

    0 done, 1 a fault of ours, of the disk or of the run, 2 a user's mistake, 128 + n stopped by signal n.
    """
    if {"-h", "--help"} & set(sys.argv):
        print(f"{__doc__}\n{commandline.USAGE}\n")
        print(f"Stages: {', '.join(STAGES)}. Every KEY, its unit and reason: configs/default.py.")
        print("Several processes: --coordinator HOST:PORT --num_processes N --process_id I. See docs/scaling.md.")
        return 0
    silence()
    try:
        run = dataclasses.replace(commandline.parse(), show=summary.show)
        commandline.join()
        with signals.watch(signals.leave), contextlib.ExitStack() as stack:
            sharding.first_alone("lock", lambda: stack.enter_context(lock(run.workdir)))
            run_stages(run)
    except (UserError, ImageError) as error:
        print(error, file=sys.stderr)
        return 2
    except (loop.Diverged, CheckpointError) as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        print(no_room(error, run.workdir), file=sys.stderr)
        return 1
    except loop.Stopped as stop:
        print("Stopped; the same command goes on from here.", file=sys.stderr)
        return stop.code
    except KeyboardInterrupt:  # before signals are watched
        return 130
    return 0


def silence() -> None:
    """Keeps back the tracebacks in which Orbax tells of a failed save: the error that it also raises becomes one line.

    Besides it logs them, and TensorStore calls back into an event loop that is closed by then.
    """
    logging.set_verbosity(logging.FATAL)
    standard_logging.getLogger("asyncio").setLevel(standard_logging.CRITICAL)
    show = sys.unraisablehook
    sys.unraisablehook = lambda event: None if "Event loop is closed" in str(event.exc_value) else show(event)


def no_room(error: OSError, workdir: Path) -> str:
    """What to say when a file other than a checkpoint could not be written."""
    free = shutil.disk_usage(workdir).free
    where = error.filename or workdir
    return f"Could not write {where}: {error.strerror}; {free:,} bytes are free there. Make room and start again"


def run_stages(run: Run) -> None:
    """The stages of the config, in order."""
    named = [name for name in stage_names(run.config) if STAGES[name].needed(run)]
    pending = [name for name in named if not STAGES[name].finished(run)]
    sharding.wait_for_all("every process knows what is pending")
    sharding.first_alone("prepare", lambda: prepare(run, pending))
    if not sharding.is_first():
        check(run, pending)
    enable_compilation_cache()
    if set(pending) - {"report"} and sharding.is_first():
        print(f"Follow the run in {run.workdir / 'report' / 'index.html'}")
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
            print(f"{name}: done before, skipped")
        return
    show(run, name)
    if STAGES[name].together or sharding.is_first():
        STAGES[name].run(run)
    sharding.wait_for_all(f"{name} is done")


def show(run: Run, name: str) -> None:
    """Renews the report while the stage runs; "" for none."""
    if name != "report" and sharding.is_first():
        run.show(run, name)


def prepare(run: Run, pending: list[str]) -> None:
    """Looks at everything before anything is written or compiled, then records the configuration."""
    record.refuse_changes(run)
    remove_drafts(run.workdir)
    check(run, pending)
    record.write(run)


def stage_names(config: ConfigDict) -> list[str]:
    """`config.stages`, which the command line may give with commas."""
    names = [name.strip() for item in config.stages for name in item.split(",")]
    for name in names:
        if name not in STAGES:
            near = difflib.get_close_matches(name, STAGES, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UserError(f"config.stages names {name!r}; stages are {', '.join(STAGES)}{hint}")
    return [name for name in STAGES if name in names]


def check(run: Run, pending: list[str]) -> None:
    """Opens all that the pending stages need; raises one UserError with a line for everything that is missing."""
    commandline.check_values(run.config)
    problems = []
    for name in pending:
        for open_input in STAGES[name].inputs(run):
            try:
                open_input()
            except (UserError, ImageError) as error:
                problems.append(str(error))
    for stage in ("deblurrer", "blur_extractor", "translator"):
        given = run.config[stage].weights
        if given and not Path(given).is_file():
            problems.append(f"{stage}.weights is {given}: no such file; make it with b2b_jax.convert")
        elif given:
            run.network(stage)
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))


if __name__ == "__main__":
    try:
        code = main()
    except Exception:
        traceback.print_exc()
        code = 1
    if code == 1:
        sharding.leave(code)
    sys.exit(code)
