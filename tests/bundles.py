"""A bundle of the tiny configs, made by the scripts themselves, for tests that print or kill."""

import contextlib
import fcntl
import functools
import io
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

import jax

ROOT = Path(__file__).resolve().parents[1]
# Most of the tests' time goes into compiling programs that run a few times: without fusion emitters
# and at level 0 that takes a third of what it takes at level 1, and a step twice as long.
_HAS_OTHER_EMITTERS = jax.__version_info__ < (0, 11)  # XLA aborts at a flag that it does not know
COMPILED_QUICKLY = " ".join([
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
    *(["--xla_cpu_use_fusion_emitters=false"] if _HAS_OTHER_EMITTERS else []),
])  # fmt: skip
# `compiler_options` of the programs that run a hundred times, for which that would be no bargain.
RUN_OFTEN = {"xla_backend_optimization_level": 1} | (
    {"xla_cpu_use_fusion_emitters": True} if _HAS_OTHER_EMITTERS else {}
)
CACHE = Path(tempfile.gettempdir()) / f"letterpress_test_programs_{os.getuid()}"


def environment(num_devices):
    """For a process with so many emulated devices; programs compiled once are kept on disk."""
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={num_devices} {COMPILED_QUICKLY}",
        "JAX_COMPILATION_CACHE_DIR": str(CACHE),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }


def start(script, *arguments, num_devices=1):
    """A script of ours in a process of its own."""
    command = [sys.executable, str(ROOT / "scripts" / f"{script}.py"), *map(str, arguments)]
    return subprocess.Popen(
        command, env=environment(num_devices), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(process, *, code=0):
    """What it printed; fails unless it ends with `code`."""
    out, err = process.communicate(timeout=600)
    assert process.returncode == code, err[-3000:]
    return out + err


def run_here(script, *arguments, code=0):
    """What a script of ours prints that is run in this process, where all is imported already;
    fails unless it ends with `code`."""
    path, printed, ended = ROOT / "scripts" / f"{script}.py", io.StringIO(), None
    with (
        contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed),
        mock.patch.object(sys, "argv", [str(path), *map(str, arguments)]),
    ):  # fmt: skip
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as leaving:
            ended = leaving.code
    said = printed.getvalue()
    if isinstance(ended, str):  # which a process would print before it ends with 1
        said, ended = said + ended, 1
    assert (ended or 0) == code, said[-3000:]
    return said


def training(task, workdir, bundle):
    """The arguments that train a tiny model, its codes taken from a bundle."""
    arguments = ["--config", ROOT / "configs" / "tiny" / f"{task}.py", "--workdir", workdir]
    if task == "decoder":
        arguments += [f"--config.data.codes={(str(bundle / 'codes'),)}"]
        arguments += [f"--config.data.tokenizer={bundle / 'tokenizer'}"]
    return arguments


@functools.cache
def tiny_bundle():
    """The folder of three tiny trained models and a code cache, one for all workers of xdist: to be
    read, not written."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    if not run:
        return _make_bundle()
    with (Path(tempfile.gettempdir()) / f"letterpress_bundle_{run}").open("a+") as told:
        fcntl.flock(told, fcntl.LOCK_EX)  # the second waits until the first has made it
        told.seek(0)
        made = told.read()
        if not made:
            made = str(_make_bundle())
            told.write(made)
    return Path(made)


def _make_bundle():
    bundle = Path(tempfile.mkdtemp(prefix="letterpress_bundle_"))
    planner = start("train", *training("planner", bundle / "planner", bundle))
    finish(start("train", *training("tokenizer", bundle / "tokenizer", bundle)))
    pages = ("--out", bundle / "codes", "--num-pages", 16)
    finish(start("encode", "--tokenizer", bundle / "tokenizer", *pages))
    finish(start("train", *training("decoder", bundle / "decoder", bundle)))
    finish(planner)
    return bundle
