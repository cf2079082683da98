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
    # A user without a home, or with one that cannot be written, as in some containers, compiles anew each time.
    with contextlib.suppress(RuntimeError, OSError):
        chosen = Path(os.environ.get("XDG_CACHE_HOME", ""))
        caches = chosen if chosen.is_absolute() else Path.home() / ".cache"
        programs = caches / "b2b_jax" / "xla"
        programs.mkdir(parents=True, exist_ok=True)
        jax.config.update("jax_compilation_cache_dir", str(programs))
