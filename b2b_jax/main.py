"""Trains, evaluates and reports a run, stage after stage: `python -m b2b_jax.main --config configs/demo.py`.

Finished stages are skipped, unfinished ones go on where they stopped, given weights are loaded.
"""

import difflib
import importlib.util
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags

from b2b_jax.data import blur, domains, survey
from b2b_jax.data.camera import RESPONSES
from b2b_jax.data.degradation import DEGRADATIONS
from b2b_jax.data.synthetic import FRAME_KINDS
from b2b_jax.errors import UserError
from b2b_jax.evaluation import evaluate, summary
from b2b_jax.files import read_json, write_json
from b2b_jax.images import ImageError
from b2b_jax.inference.pipeline import enable_compilation_cache
from b2b_jax.training import loop
from b2b_jax.training.run import Run
from b2b_jax.training.stages import blur_extractor, common, deblurrer, translator

USAGE = "Usage: python -m b2b_jax.main --config configs/NAME.py[:VARIANT] [--workdir DIR] [--config.KEY=VALUE …]"

CONFIG = config_flags.DEFINE_config_file("config", None, "The run's configuration: configs/NAME.py or NAME.py:VARIANT.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; by default runs/NAME or runs/NAME_VARIANT.")


class Stage(NamedTuple):
    """One stage of a run."""

    finished: Callable[[Run], bool]
    inputs: Callable[[Run], list[Callable[[], object]]]  # opened before anything is compiled; each may raise UserError
    run: Callable[[Run], None]
    needed: Callable[[Run], bool] = lambda run: True  # False when no other stage of the run will use it


STAGES = {
    "deblurrer": Stage(
        finished=lambda run: run.trained("deblurrer"),
        inputs=lambda run: [lambda: run.known, lambda: deblurrer.check(run)],
        run=deblurrer.train,
    ),
    "blur_extractor": Stage(
        finished=lambda run: run.trained("blur_extractor"),
        inputs=lambda run: [lambda: run.known, lambda: blur_extractor.check(run)],
        run=blur_extractor.train,
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
    ),
    "evaluation": Stage(
        finished=evaluate.finished,
        inputs=lambda run: [lambda: run.unknown, lambda: evaluate.check(run)],
        run=evaluate.evaluate,
    ),
    "report": Stage(finished=lambda run: False, inputs=lambda run: [], run=summary.write_report),
}


def main() -> int:
    """Runs the command line; returns the exit code: 0 done, 2 a user's mistake, 128 + n stopped by signal n."""
    if {"-h", "--help"} & set(sys.argv):
        print(f"{__doc__}\n{USAGE}\n\nStages: {', '.join(STAGES)}. Every KEY, its unit and reason: configs/default.py.")
        return 0
    try:
        run = parse()
        run_stages(run)
    except (UserError, ImageError) as error:
        print(error, file=sys.stderr)
        return 2
    except loop.Diverged as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except loop.Stopped as stop:
        print("Stopped; the same command goes on from here.", file=sys.stderr)
        return stop.code
    return 0


def run_stages(run: Run) -> None:
    """The stages of the config, in order."""
    refuse_changes(run)
    named = [name for name in stage_names(run.config) if STAGES[name].needed(run)]
    pending = [name for name in named if not STAGES[name].finished(run)]
    check(run, pending)
    record(run)
    enable_compilation_cache()
    for name in named:
        if name in pending:
            STAGES[name].run(run)
        else:
            print(f"{name}: done before, skipped")


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


def check_values(config: ConfigDict) -> None:
    """UserError for values that no run can use, whatever its stages."""
    common.check_choice("compute_dtype", config.compute_dtype, ("auto", "float32", "bfloat16"))
    common.check_choice("data.degradation.kind", config.data.degradation.kind, (*FRAME_KINDS, *DEGRADATIONS))
    common.check_choice("data.degradation.response", config.data.degradation.response, RESPONSES)
    common.check_choice("data.bad_photos", config.data.bad_photos, ("skip", "stop"))
    if not 0 < config.data.split_ratio < 1:
        raise UserError(f"data.split_ratio is {config.data.split_ratio}; it must be between 0 and 1")
    if config.data.degradation.frames < 1:
        raise UserError(f"data.degradation.frames is {config.data.degradation.frames}; it must be at least 1")
    for key in ("log_every", "evaluate_every", "checkpoint_every", "keep"):
        if config.loop[key] < 1:
            raise UserError(f"loop.{key} is {config.loop[key]}; it must be at least 1")
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
        old, new = ({key: config[key] for key in FIXED} for config in (saved, as_json(run.config)))
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
    sys.exit(main())
