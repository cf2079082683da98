"""The command line of `main` and of what runs beside it: flags to a run, every mistake in them one line."""

import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags

from b2b_jax import sharding
from b2b_jax.data import blur
from b2b_jax.data.degradation import DEGRADATIONS
from b2b_jax.data.sensor import RESPONSES
from b2b_jax.data.synthetic import FRAME_KINDS
from b2b_jax.errors import UserError
from b2b_jax.images import ImageError
from b2b_jax.stages import common
from b2b_jax.stages.run import Run

USAGE = "Usage: python -m b2b_jax.main --config configs/NAME.py[:VARIANT] [--workdir DIR] [--config.KEY=VALUE …]"

CONFIG = config_flags.DEFINE_config_file("config", None, "The run's configuration: configs/NAME.py or NAME.py:VARIANT.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; by default runs/NAME or runs/NAME_VARIANT.")
COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of the first of several processes.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes run together.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")
HEARTBEAT = flags.DEFINE_integer("heartbeat", 100, "Seconds of silence after which a process counts as dead.")


def outcome(command: Callable[[], None]) -> int:
    """Runs a command; returns its exit code: 0, 2 for a user's mistake (said in one line), 130 for Ctrl-C."""
    try:
        command()
    except (UserError, ImageError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def described(*holders: flags.FlagHolder) -> str:
    """A line for each of these flags: what it is, and its default."""
    known = [flags.FLAGS[holder.name] for holder in holders]
    return "\n".join(f"--{flag.name}: {flag.help} (default: {flag.default})" for flag in known)


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


def join() -> None:
    """Joins the other processes of the run, if the flags or the cluster speak of any."""
    sharding.start(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value, HEARTBEAT.value)


def config_path() -> str:
    """What --config names."""
    return config_flags.get_config_filename(flags.FLAGS["config"])


def default_workdir() -> Path:
    """runs/NAME, or runs/NAME_VARIANT for --config configs/NAME.py:VARIANT."""
    file, _, variant = config_path().partition(":")
    return Path("runs") / "_".join(filter(None, [Path(file).stem, variant.replace(",", "_")]))


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
        raise UserError("loop.wandb is set, but wandb is not installed: pip install -e '.[wandb]'")
