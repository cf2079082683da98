"""Trains, evaluates and reports a run, stage after stage: `python -m b2b_jax.main --config configs/demo.py`.

Finished stages are skipped, unfinished ones go on where they stopped, given weights are loaded.
"""

import contextlib
import difflib
import errno
import importlib.util
import json
import logging as standard_logging
import re
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from b2b_jax import sharding
from b2b_jax.data import blur, domains, survey
from b2b_jax.data.camera import RESPONSES
from b2b_jax.data.degradation import DEGRADATIONS
from b2b_jax.data.synthetic import FRAME_KINDS
from b2b_jax.errors import UserError
from b2b_jax.evaluation import evaluate, summary
from b2b_jax.files import lock, read_json, remove_drafts, write_json
from b2b_jax.images import ImageError
from b2b_jax.inference.pipeline import enable_compilation_cache
from b2b_jax.training import loop, signals
from b2b_jax.training.checkpoint import CheckpointError
from b2b_jax.training.run import Run
from b2b_jax.training.stages import blur_extractor, common, deblurrer, translator

USAGE = "Usage: python -m b2b_jax.main --config configs/NAME.py[:VARIANT] [--workdir DIR] [--config.KEY=VALUE …]"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

CONFIG = config_flags.DEFINE_config_file("config", None, "The run's configuration: configs/NAME.py or NAME.py:VARIANT.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; by default runs/NAME or runs/NAME_VARIANT.")
COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of the first of several processes.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes run together.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")
HEARTBEAT = flags.DEFINE_integer("heartbeat", 100, "Seconds of silence after which a process counts as dead.")


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
        print(f"{__doc__}\n{USAGE}\n\nStages: {', '.join(STAGES)}. Every KEY, its unit and reason: configs/default.py.")
        print("Several processes: --coordinator HOST:PORT --num_processes N --process_id I. See docs/scaling.md.")
        return 0
    silence()
    try:
        run = parse()
        sharding.start(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value, HEARTBEAT.value)
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
    for name in named:
        if name in pending:
            if STAGES[name].together or sharding.is_first():
                STAGES[name].run(run)
            sharding.wait_for_all(f"{name} is done")
        elif sharding.is_first():
            print(f"{name}: done before, skipped")


def prepare(run: Run, pending: list[str]) -> None:
    """Looks at everything before anything is written or compiled, then records the configuration."""
    refuse_changes(run)
    remove_drafts(run.workdir)
    check(run, pending)
    record(run)


# ---------------------------------------------------------------------------------------------------- before the stages


def parse() -> Run:
    """Command line to Run; every mistake in it is a UserError of one line."""
    sys.path.append(str(Path(__file__).parents[1]))  # configurations import one another, as `configs.NAME`
    try:
        rest = flags.FLAGS(sys.argv)
        config = CONFIG.value
    except AttributeError as error:
        words = re.findall(r"\w+", str(error).replace("\\n", " "))
        hint = f"; did you mean {words[words.index('mean') + 1]!r}?" if "mean" in words else ""
        raise UserError(f"Unknown configuration key {words[0]!r}{hint}") from error
    except (flags.Error, ValueError, TypeError, OSError) as error:
        # An error inside a configuration file comes with its whole traceback: the last line says it.
        message = str(error).strip().splitlines()[-1].strip().removeprefix("ValueError: ")
        raise UserError(f"{message}. {USAGE}") from error
    if len(rest) > 1:
        raise UserError(f"Not understood: {' '.join(rest[1:])}. {USAGE}")
    if config is None:
        raise UserError(f"No configuration. {USAGE}")
    if not isinstance(config, ConfigDict):
        raise UserError(f"No configuration file {config_path()}. {USAGE}")
    return Run(config, Path(WORKDIR.value or default_workdir()))


def config_path() -> str:
    """What --config names."""
    return config_flags.get_config_filename(flags.FLAGS["config"])


def default_workdir() -> Path:
    """runs/NAME, or runs/NAME_VARIANT for --config configs/NAME.py:VARIANT."""
    file, _, variant = config_path().partition(":")
    return Path("runs") / "_".join(filter(None, [Path(file).stem, variant.replace(",", "_")]))


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
    check_values(run.config)
    problems = []
    for name in pending:
        for open_input in STAGES[name].inputs(run):
            try:
                open_input()
            except (UserError, ImageError) as error:
                problems.append(str(error))
    for stage in TRAINED:
        given = run.config[stage].weights
        if given and not Path(given).is_file():
            problems.append(f"{stage}.weights is {given}: no such file; make it with tools/convert_weights.py")
        elif given:
            run.network(stage)
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))


LEAST = dict.fromkeys(("log_every", "evaluate_every", "checkpoint_every", "keep", "bad_steps"), 1)
LEAST |= dict.fromkeys(("keep_every", "keep_best"), 0)


def check_values(config: ConfigDict) -> None:
    """UserError for values that no run can use, whatever its stages."""
    common.check_choice("compute_dtype", config.compute_dtype, ("auto", "float32", "bfloat16"))
    common.check_choice("data.degradation.kind", config.data.degradation.kind, (*FRAME_KINDS, *DEGRADATIONS))
    common.check_choice("data.degradation.response", config.data.degradation.response, RESPONSES)
    common.check_choice("data.bad_photos", config.data.bad_photos, ("skip", "stop"))
    if not 0 < config.data.split_ratio < 1:
        raise UserError(f"data.split_ratio is {config.data.split_ratio}; it must be between 0 and 1")
    if config.data.crops_per_image < 1:
        raise UserError(f"data.crops_per_image is {config.data.crops_per_image}; it must be at least 1")
    if config.data.degradation.frames < 1:
        raise UserError(f"data.degradation.frames is {config.data.degradation.frames}; it must be at least 1")
    for key, least in LEAST.items():
        if config.loop[key] < least:
            raise UserError(f"loop.{key} is {config.loop[key]}; it must be at least {least}")
    for key in ("known_kernel", "unknown_kernel"):
        try:
            blur.draw(np.random.default_rng(0), config.data.scenes[key].to_dict())
        except ValueError as error:
            raise UserError(f"data.scenes.{key}: {error}") from error
    if config.loop.wandb and not importlib.util.find_spec("wandb"):
        raise UserError("loop.wandb is set, but wandb is not installed: pip install 'b2b_jax[wandb]'")


TRAINED = ("deblurrer", "blur_extractor", "translator")
FIXED = ("seed", "data", "known_blur", *TRAINED)  # sections that may not change within a folder,
MOVABLE = {  # … but for these
    "data.root",
    "data.known_path",
    "data.unknown_path",
    "data.prepared",
    "data.prepare",
    "data.threads",
    "data.prefetch",
}


def refuse_changes(run: Run) -> None:
    """UserError when the folder holds a run of other data, networks or training."""
    saved = read_json(run.workdir / "config.json")
    if saved:
        old, new = ({key: config.get(key) for key in FIXED} for config in (saved, as_json(run.config)))
        changes = "; ".join(line for line in differences("", old, new) if line.split(":")[0] not in MOVABLE)
        if changes:
            raise UserError(f"{run.workdir} holds a run of another configuration ({changes}); choose another --workdir")


def record(run: Run) -> None:
    """Writes config.json and what is known of the photos: split.json, data_report.json and bad_photos.json."""
    write_json(run.workdir / "config.json", as_json(run.config))
    for side in ("known", "unknown"):
        if side in vars(run):
            domains.keep_bad_photos(getattr(run, side), run.workdir / "bad_photos.json")
    if "unknown" in vars(run):
        record_camera(run.unknown, run.workdir)


def record_camera(unknown: domains.Unknown, workdir: Path) -> None:
    """Writes split.json when the camera's photos were split here; reports once on folders of one's own."""
    if unknown.split:
        write_json(workdir / "split.json", unknown.split)
    if unknown.piles and not (workdir / "data_report.json").exists():
        report = survey.survey(unknown.piles)
        print("\n".join(survey.lines(report)))
        write_json(workdir / "data_report.json", report)


def as_json(config: ConfigDict) -> dict:
    """The configuration as JSON gives it back: tuples are lists."""
    return json.loads(config.to_json(sort_keys=True))


def differences(key: str, old: object, new: object) -> list[str]:
    """Lists what differs between two configurations, "key: old → new"."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [line for k in keys for line in differences(f"{key}.{k}".strip("."), old.get(k), new.get(k))]
    return [] if old == new else [f"{key}: {old} → {new}"]


if __name__ == "__main__":
    try:
        code = main()
    except Exception:
        traceback.print_exc()
        code = 1
    if code == 1:
        sharding.leave(code)
    sys.exit(code)
