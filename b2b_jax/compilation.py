"""Where compiled programs are kept between runs."""

import contextlib
import os
from pathlib import Path

import jax


def enable_compilation_cache() -> None:
    """Keeps compiled programs between runs: in the user's cache, or where JAX_COMPILATION_CACHE_DIR says.

    The user's cache is $XDG_CACHE_HOME, if that is an absolute path, or ~/.cache (XDG Base Directory Specification).
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    with contextlib.suppress(RuntimeError):  # a user without a home, as in some containers, compiles anew each time
        chosen = Path(os.environ.get("XDG_CACHE_HOME", ""))
        caches = chosen if chosen.is_absolute() else Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(caches / "b2b_jax" / "xla"))
