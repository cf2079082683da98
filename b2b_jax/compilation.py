"""Where compiled programs are kept between runs."""

import contextlib
import os
from pathlib import Path

import jax


def enable_compilation_cache() -> None:
    """Keeps compiled programs between runs, in ~/.cache/b2b_jax unless JAX_COMPILATION_CACHE_DIR says where."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    with contextlib.suppress(RuntimeError):  # a user without a home, as in some containers, compiles anew each time
        jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache" / "b2b_jax" / "xla"))
