"""Compiled programs kept between starts: a restart of a large run need not compile for an hour."""

from __future__ import annotations

import os
from pathlib import Path

import jax
from absl import logging


def keep_compiled(workdir: Path) -> Path | None:
    """Keep programs below the workdir, which all processes of a run share, and say whether there
    are some; a folder in JAX_COMPILATION_CACHE_DIR is left as it is.

    None on CPUs: a program of XLA's there is for the very features of the machine that compiled it,
    and a run may be started again on another. What is kept is trusted: who can write there can run
    code here.
    """
    if jax.default_backend() == "cpu" or os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return None
    folder = workdir.absolute() / "compiled"
    num_kept = len(list(folder.glob("*-cache"))) if folder.is_dir() else 0
    logging.info("%d compiled programs are kept in %s", num_kept, folder)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder
