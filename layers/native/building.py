"""The C++ files here compiled by the machine's own compiler, once, and made known to XLA."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from importlib import metadata
from pathlib import Path

import jax
from absl import logging

SOURCES = tuple(Path(__file__).with_name(name) for name in ("rows.cc", "attend.cc", "vectors.h"))
FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-w")
TARGETS = ("pack", "products", "attend", "settle")  # letterpress_NAME in SOURCES and to XLA
SWITCH = "LETTERPRESS_NATIVE"  # in the environment: "off" leaves everything to XLA
COMPILE_S = 300


@functools.cache
def ready() -> bool:
    """Whether XLA knows the targets: they are compiled if that was not done before, in some
    seconds, and looked up in the user's cache folder (`XDG_CACHE_HOME`) otherwise. Where that
    fails a line of the log says why."""
    try:
        library = ctypes.cdll.LoadLibrary(str(compiled()))
        for name in TARGETS:
            target = jax.ffi.pycapsule(getattr(library, f"letterpress_{name}"))
            jax.ffi.register_ffi_target(f"letterpress_{name}", target, platform="cpu")
    except (OSError, RuntimeError, subprocess.SubprocessError) as problem:
        logging.info("steps over few tokens are left to XLA: %s", problem)
        return False
    return True


def compiler() -> str:
    """The machine's C++ compiler, or "" without one."""
    return os.environ.get("CXX") or next(filter(None, map(shutil.which, ("c++", "g++"))), "")


def compiled() -> Path:
    """The library, in a file named by what it is made of and for; whoever makes it puts it there
    whole. Raises `OSError` or `SubprocessError` where that cannot be."""
    program = compiler()
    if not program:
        raise FileNotFoundError("there is no C++ compiler (c++, g++ or $CXX)")
    run = functools.partial(subprocess.run, check=True, capture_output=True, timeout=COMPILE_S)
    version = run([program, "--version"]).stdout
    told = [version, metadata.version("jaxlib").encode(), _processor(), repr(FLAGS).encode()]
    parts = [*(source.read_bytes() for source in SOURCES), *told]
    key = hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "letterpress"
    library = folder / f"rows-{key}.so"
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as draft:
            made = Path(draft) / library.name
            headers = ("-isystem", jax.ffi.include_dir())
            files = [str(source) for source in SOURCES if source.suffix == ".cc"]
            run([program, *FLAGS, *headers, *files, "-o", str(made)])
            os.replace(made, library)
    return library


def _processor() -> bytes:
    """What `-march=native` depends on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    told = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    return "\n".join([platform.machine(), platform.processor(), *told]).encode()
