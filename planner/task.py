"""Training the planner: the blueprint's ids given the prompt's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from layers.losses import cross_entropy
from planner.model import Planner, PlannerConfig


@dataclasses.dataclass(frozen=True)
class PlannerTask:
    """Next-id prediction; the loss counts blueprint ids only.

    `prompt_tokenizer` identifies the file that prompts are read with ("" for bytes).
    """

    model: PlannerConfig
    prompt_tokenizer: str = ""

    def init(self, rngs: nnx.Rngs) -> Planner:
        """A fresh planner."""
        return Planner(self.model, rngs=rngs)

    def loss(
        self, model: Planner, batch: Mapping[str, Array], key: Array
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Mean negative log-likelihood in nats of a blueprint id; `key` is unused."""
        logits = model(batch["ids"]).logits
        # ids of a prompt may be past the logits, where a lookup is not a number
        targets = jnp.minimum(batch["ids"], self.model.vocab_size - 1)
        counted = batch["planned"][:, 1:]
        loss, accuracy = cross_entropy(logits[:, :-1], targets[:, 1:], counted)
        return loss, {"accuracy": accuracy, "weight": counted.sum(dtype=jnp.float32)}

    def group(self, path: tuple[str, ...]) -> str:
        """Matrices of the blocks are `hidden`; embedding, head and scales are `rest`."""
        return "hidden" if path[0] == "blocks" and path[-1] == "kernel" else "rest"

    def probes(self) -> Mapping[str, Callable[..., Any]]:
        """`logits` ids -> logits; `step` (ids, cache, at) -> (logits, cache); `apart` the layers
        one by one, for a `step` in a loop; `empty_cache` over a row each."""

        def step(
            model: Planner, ids: Array, cache: Any, at: Array, layers: Any = None
        ) -> tuple[Array, Any]:
            out = model(ids, cache=cache, at=at, layers=layers)
            return out.logits, out.cache

        return {
            "logits": lambda model, ids: model(ids).logits,
            "step": step,
            "apart": lambda model: model.blocks.unstacked(),
            "empty_cache": lambda model, rows: model.empty_cache(rows.shape[0]),
        }
