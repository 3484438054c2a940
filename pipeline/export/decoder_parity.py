"""Our decoder as exports compare it: in float32, logits of whole pages and greedy codes as they are
printed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from decoder.config import DecoderConfig
from decoder.task import DecoderTask
from sampling.policy import Policy
from sampling.printing import Press, print_codes
from train.checkpoint import arrays as trees
from train.checkpoint.weights import list_keys
from train.export import Stored
from train.export.folder import model_arrays, open_run

NUM_STEPS = 64
SCALES = {"greedy codes": 1.0, "greedy codes, guidance 3": 3.0}


@dataclasses.dataclass(frozen=True)
class Ours:
    """Our decoder in float32 and its arrays, to be asked for what is compared."""

    task: DecoderTask
    params: Any

    def _on(self, function: Any) -> Any:
        graphdef, _ = nnx.split(nnx.eval_shape(lambda: self.task.init(nnx.Rngs(0))))
        jitted = jax.jit(lambda params, *arrays: function(nnx.merge(graphdef, params), *arrays))
        return lambda *arrays: jitted(self.params, *arrays)

    def logits(self, codes: np.ndarray, told: Mapping[str, np.ndarray]) -> np.ndarray:
        """[B T V] for codes [B y x], all of them at once."""
        given = jnp.asarray(codes, jnp.int32)[..., None]
        found = self._on(lambda model, *arrays: model(*arrays))(
            given, jnp.ones(codes.shape, bool), told
        )
        return np.asarray(found).reshape(len(codes), codes[0].size, -1)

    def greedy(
        self, told: Mapping[str, np.ndarray], grid: tuple[int, int], *, scale: float = 1.0
    ) -> np.ndarray:
        """The likeliest codes [B T] as they are printed, with a cache, under guidance or not."""
        rows = len(next(iter(told.values())))
        keys = jax.random.split(jax.random.key(0), rows)
        press = Press(policy=Policy(), guidance=scale)

        def print_(model: Any, codes: Any, told: Any) -> Any:
            bound = lambda probe: lambda *arrays: probe(model, *arrays)  # noqa: E731
            probes = {name: bound(probe) for name, probe in self.task.probes().items()}
            masked = jnp.ones(codes.shape[:3], bool)
            return print_codes(probes, codes, masked, told, keys, press=press)

        blank = jnp.zeros((rows, *grid, 1), jnp.int32)
        return np.asarray(self._on(print_)(blank, told)).reshape(rows, -1)


def ours_of(
    run: Path, model: DecoderConfig, theirs: Mapping[str, Stored], others: Mapping[str, Any]
) -> Ours:
    """A run's decoder, or the one of this config that has the arrays of `others` where the run has
    none, with weights rounded as all of theirs are."""
    kinds = {np.dtype(tensor.dtype) for tensor in theirs.values()}
    kind = kinds.pop() if len(kinds) == 1 else np.dtype(np.float32)
    blocks = dataclasses.replace(model.blocks, dtype="float32")
    config = dataclasses.replace(model, blocks=blocks, remat="none", dropout=0.0)
    task = DecoderTask(config, drop_blueprint=0.1)  # so that guidance has something to leave out
    with open_run(run) as (kept, _):
        wanted = model_arrays(task)
        found = {n: kept[n][...] if n in kept else others[n] for n in wanted}
    rounded = {n: jnp.asarray(np.float32(x.astype(kind))) for n, x in found.items()}
    tree = list_keys(trees.nest(rounded))
    return Ours(task, tree["params"])
