"""Packages that come with an extra of this one: what is said when one is missing."""

import importlib.util

from b2b_jax.errors import UserError

VIDEO = "videos need the package av: pip install 'b2b_jax[video]'"
FRAMES = "adaptation.teacher is 'frames', which matches frames with OpenCV: pip install 'b2b_jax[frames]'"


def need(package: str, message: str) -> None:
    """UserError with the message unless the package is installed; it is not imported."""
    if importlib.util.find_spec(package) is None:
        raise UserError(message)
