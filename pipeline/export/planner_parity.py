"""The planner and its counterpart in `transformers` on the same ids: logits and greedy steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from blueprint import codec, vocab
from blueprint.reading import PromptReader
from pipeline.tasks import load_model, planner_task
from planner import weights
from planner.task import PlannerTask
from train.config import build
from train.data.sources import DataConfig, Plans, heldout
from train.export import ExportError, Parity, open_tensors
from train.model import Model

_LENGTH, _PROMPT, _STEPS = 128, 16, 64
_PAD, _END = vocab.PAD, vocab.token("end")


@dataclasses.dataclass(frozen=True)
class Theirs:
    """Their model, whose ids are all of ours, or those of prompts alone: then our table and our
    head stand around their trunk."""

    torch: Any
    model: Any
    table: Any = None
    head: Any = None

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        """Logits [B T V] after each of these ids."""
        given = self.torch.from_numpy(ids.astype(np.int64))
        with self.torch.no_grad():
            if self.table is None:
                return self.model(given, use_cache=False).logits.numpy()
            out = self.model.model(inputs_embeds=self.table[given], use_cache=False)
            return (out.last_hidden_state @ self.head).numpy()

    def greedy(self, ids: np.ndarray, num_steps: int, suppressed: list[int]) -> np.ndarray:
        """By their `generate`, which knows only their own ids, or by the slow loop."""
        if self.table is not None:
            return _greedy(lambda read: self(read)[:, -1], ids, num_steps)
        from transformers import GenerationConfig

        self.model.generation_config = GenerationConfig(
            do_sample=False, max_new_tokens=num_steps, eos_token_id=_END, pad_token_id=_PAD,
            suppress_tokens=suppressed or None,
        )  # fmt: skip
        given = self.torch.from_numpy(ids.astype(np.int64))
        found = self.model.generate(given, attention_mask=self.torch.ones_like(given)).numpy()
        new = found[:, ids.shape[1] :]
        return np.pad(new, ((0, 0), (0, num_steps - new.shape[1])), constant_values=_PAD)


def _greedy(after: Callable[[np.ndarray], Any], ids: np.ndarray, num_steps: int) -> np.ndarray:
    """The likeliest ids by the logits [B V] `after` all that was read, `<pad>` after `<end>`."""
    found, ended = ids, np.zeros(len(ids), bool)
    for _ in range(num_steps):
        chosen = np.where(ended, _PAD, np.asarray(after(found)).argmax(-1))
        ended |= chosen == _END
        found = np.concatenate([found, chosen[:, None].astype(np.int32)], axis=1)
    return found[:, ids.shape[1] :]


def _theirs(folder: Path, ours: Model, *, around: bool) -> Theirs:
    try:
        import torch
        from transformers import AutoModelForCausalLM
    except ImportError as problem:
        raise ExportError(
            "parity is against transformers, which is not here: pip install -c constraints.txt "
            "'.[interop]', or leave it out with --no-parity"
        ) from problem
    how = {"dtype": torch.float32, "local_files_only": True}
    model = AutoModelForCausalLM.from_pretrained(str(folder), **how).eval()
    if not around:
        return Theirs(torch, model)
    own = ours.weights
    tensor = lambda x: torch.from_numpy(np.array(x, np.float32))  # noqa: E731
    embed = tensor(own["embed"]["table"])
    head = tensor(own["head"]["kernel"]) if "head" in own else embed.T
    return Theirs(torch, model, torch.cat([embed, model.model.embed_tokens.weight.data]), head)


def _ours(run: Path, folder: Path) -> tuple[Model, PlannerTask]:
    """Our model in float32, its weights rounded as those in the folder were."""
    model = load_model(run)
    config = planner_task(model.config).model
    blocks = dataclasses.replace(config.blocks, dtype="float32")
    task = PlannerTask(dataclasses.replace(config, blocks=blocks, remat="none"))
    narrow = {np.dtype(tensor.dtype) for tensor in open_tensors(folder).values()}
    values = model.weights
    if narrow == {np.dtype(ml_dtypes.bfloat16)}:
        values = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), values)
    return dataclasses.replace(model, task=task, weights=values), task


def _pages(run: Path, config: Any, task: PlannerTask, length: int) -> np.ndarray | None:
    """Two held-out prompts with their plans, cut or padded to a length, or None where the ids are
    not those of `blueprint.vocab`."""
    if task.model.vocab_size != vocab.SIZE:
        return None
    data = build(DataConfig, config.data, path="config.data")
    kept = run / "tokenizer.json"
    given = str(kept) if kept.is_file() else data.prompt_tokenizer
    reader = PromptReader(given if task.model.prompt_vocab_size else "")
    rows = []
    for record in (Plans(heldout(data.page), 2)[i] for i in range(2)):
        ids = reader.ids(record["prompt"]) + codec.encode(record["blueprint"])
        rows.append((ids + [_PAD] * length)[:length])
    return np.array(rows, np.int32)


def compare(run: Path, folder: Path, parity: Parity, *, own_ids: bool) -> None:
    """Fill `parity`; `own_ids` says that all ids of a planner with prompt ids are theirs too."""
    ours, task = _ours(run, folder)
    config = task.model
    grown = config.prompt_vocab_size
    theirs = _theirs(folder, ours, around=bool(grown) and not own_ids)
    length = min(_LENGTH, config.max_length)
    rng = np.random.default_rng(0)
    drawn = {"random ids": rng.integers(0, config.vocab_size + grown, (2, length), np.int32)}
    if (pages := _pages(run, ours.config, task, length)) is not None:
        drawn["our pages"] = pages
    ids = np.concatenate([*drawn.values()])
    suppressed = weights.their_generation_config(config).get("suppress_tokens", [])
    with jax.default_matmul_precision("highest"):
        mine, others = np.asarray(ours.probes["logits"](ids)), theirs(ids)
        for i, name in enumerate(drawn):
            rows = slice(2 * i, 2 * i + 2)
            parity.numbers(f"logits, {name}", mine[rows], others[rows, :, : config.vocab_size])
        if others.shape[-1] > config.vocab_size:
            parity.ids("likeliest of all ids", mine.argmax(-1), others.argmax(-1))
        start = min(_PROMPT, length // 2)
        num_steps = min(_STEPS, config.max_length - start)
        found = _greedy(_cached(ours.probes, len(ids)), ids[:, :start], num_steps)
        others = theirs.greedy(ids[:, :start], num_steps, suppressed)
    parity.ids(f"greedy, {num_steps} steps", found, others)


def _cached(probes: Mapping[str, Any], num_rows: int) -> Callable[[np.ndarray], Any]:
    """Our logits as `_greedy` asks for them, by the cache: one id a call, whatever was read."""
    at = jnp.zeros(num_rows, jnp.int32)
    cache, num_read = probes["empty_cache"](at), 0

    def after(ids: np.ndarray) -> Any:
        nonlocal cache, num_read
        logits = None
        for place in range(num_read, ids.shape[1]):
            logits, cache = probes["step"](ids[:, place : place + 1], cache, at + place)
        num_read = ids.shape[1]
        return logits[:, -1]  # type: ignore[index]  # something was read

    return after
