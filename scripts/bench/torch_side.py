"""PyTorch on the device that JAX has: its device, dtypes, waiting and compiling."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import jax

from pipeline.export.torch_files import foreign


def device() -> str:
    """`cuda` where JAX has a GPU; raises `RuntimeError` where PyTorch cannot use it."""
    if jax.default_backend() != "gpu":
        return "cpu"
    torch = foreign("torch")
    if not torch.cuda.is_available():
        raise RuntimeError(
            f"JAX has a GPU and torch {torch.__version__} has none: install a build for it, or "
            "compare nothing with --peers"
        )
    torch.set_float32_matmul_precision("high")  # TF32, as XLA takes for float32 there
    return "cuda"


def wait() -> None:
    """Until all that was begun is done."""
    if jax.default_backend() == "gpu":
        foreign("torch").cuda.synchronize()


def compiled(function: Any, *, graphs: bool = True) -> Callable[..., Any]:
    """Under `torch.compile` as one graph, on a GPU with CUDA graphs (`reduce-overhead`)."""
    torch = foreign("torch")
    mode = "reduce-overhead" if graphs and device() == "cuda" else None
    return torch.compile(function, fullgraph=True, dynamic=False, mode=mode)


def forget() -> None:
    """Free what the last comparison left: its models, graphs and compiled programs."""
    torch = foreign("torch")
    torch.compiler.reset()
    gc.collect()
    if jax.default_backend() == "gpu":
        torch.cuda.empty_cache()


def peak_bytes() -> int | None:
    """The most that PyTorch has held on a GPU since it was last asked."""
    if jax.default_backend() != "gpu":
        return None
    torch = foreign("torch")
    most = int(torch.cuda.max_memory_allocated())
    torch.cuda.reset_peak_memory_stats()
    return most
