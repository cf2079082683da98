"""Blur2Blur in JAX: deblur the photos of one particular camera, without paired data.

    import b2b_jax
    deblurrer = b2b_jax.load("runs/mine")  # a run's folder, or a converted network
    sharp = deblurrer(photo)  # (h, w, 3) or (n, h, w, 3), uint8, uint16 or float in [0, 1]

What `__all__` names is public; the rest is internal (docs/architecture.md) and may change.
"""

from os import PathLike
from typing import TYPE_CHECKING, Any

from b2b_jax import interrupts
from b2b_jax.errors import UserError

if TYPE_CHECKING:
    from b2b_jax.system import Deblurrer

__all__ = ["UserError", "__version__", "load"]
__version__ = "0.2.0"

interrupts.watch_imports()


def load(path: str | PathLike, **options: Any) -> "Deblurrer":
    """The deblurrer in a run's folder or in a converted file; `options` and errors are those of `system.load`."""
    from b2b_jax import system  # here, so that `import b2b_jax` stays light

    return system.load(path, **options)
