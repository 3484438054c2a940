"""The planner as Hugging Face's `LlamaForCausalLM`, or `Qwen3ForCausalLM` where queries and keys
have a norm: `config.json`, `generation_config.json`, sharded safetensors and a `tokenizer.json`.

*Prompts in another vocabulary.* A planner with `prompt_vocab_size` has two tables and predicts over
its own ids. Theirs has one table and predicts over all of it, without a bias. So one table holds
our ids and then the prompt's, and the head is always its own. Its rows for prompt ids are the mean
of the others: their logit is the mean of our logits, which is below the greatest, so that the
likeliest id is always ours, and it is the one that our planner has. Probabilities are not: where
they matter (sampling), `suppress_tokens` in `generation_config.json` takes prompt ids out, and what
is left is our distribution. A reader that samples and knows no such list has to leave them out.

*A pretrained model to go on from.* With `config.model.prompt_vocab_size` its table becomes that of
the prompts' ids, read with its `tokenizer.json`, which comes along; our ids' table and our head are
fresh.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from blueprint import vocab
from blueprint.reading import PromptReader
from pipeline.export import vocabulary
from pipeline.export.family import Family
from planner import weights
from planner.model import PlannerConfig
from train.config import build
from train.export import ExportError, FormatError, Parity, Row, Table, open_tensors

_EMBED, _HEAD = weights.EMBED[0], weights.HEAD[0]
_OWN_TABLES = ("params/embed/*", "params/head/*")
_PROMPT_TOKENIZER = "prompt_tokenizer.json"


def _model(values: ConfigDict) -> PlannerConfig:
    return build(PlannerConfig, values, path="config.model")


def _mean(num_rows: int, rows: np.ndarray) -> np.ndarray:
    return np.broadcast_to(rows.mean(axis=0, keepdims=True), (num_rows, rows.shape[1]))


def table(model: ConfigDict) -> Table:
    """What we write, and read back."""
    config = _model(model)
    names, grown = [*weights.trunk(config), weights.EMBED], config.prompt_vocab_size
    if not config.tie_embeddings:
        names.append(weights.HEAD)
    rows = [Row(*name) for name in names]
    if grown:
        rows.append(Row(*weights.PROMPT_EMBED))
        head = Row(*weights.HEAD)
        if config.tie_embeddings:
            tied = Row(_HEAD, weights.EMBED[1], change=lambda own: own, made=config.vocab_size)
            head = tied
            rows.append(tied)
        means = functools.partial(_mean, grown)
        rows.append(dataclasses.replace(head, change=means, made=grown))
    tied_alone = config.tie_embeddings and not grown
    return Table(tuple(rows), unused=(_HEAD,) if tied_alone else ())


def table_in(folder: Path, model: ConfigDict) -> Table:
    """What there is in a foreign folder for us: a pretrained model's table is that of prompts."""
    config = _model(model)
    if not config.prompt_vocab_size or weights.MARK in _said(folder):
        return table(model)
    names = [*weights.trunk(config), weights.PROMPT_EMBED]
    return Table(tuple(Row(*name) for name in names), left_out=_OWN_TABLES, unused=(_HEAD,))


def _said(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        found = json.loads(path.read_text())
        if not isinstance(found, dict):
            raise ValueError("it is no mapping")
        return found
    except (OSError, ValueError) as problem:
        raise FormatError(f"{path} is no config of transformers ({problem})") from problem


def write_config(config: ConfigDict, folder: Path) -> None:
    """The files beside the tensors."""
    model = _model(config.model)
    if problems := weights.not_theirs(model):
        raise ExportError("; ".join(problems))
    said = weights.their_config(model)
    said["torch_dtype"] = str(next(iter(open_tensors(folder).values())).dtype)
    generation = weights.their_generation_config(model)
    for name, content in (("config", said), ("generation_config", generation)):
        (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    if model.vocab_size != vocab.SIZE:
        return  # ids that are not those of `blueprint.vocab` have no names
    path = config.data.get("prompt_tokenizer", "")
    if bool(path) != bool(model.prompt_vocab_size) or (path and not Path(path).is_file()):
        raise ExportError(
            f"config.data.prompt_tokenizer is {path!r} and the planner has "
            f"{model.prompt_vocab_size} prompt ids: put the tokenizer.json that it learnt by there"
        )
    vocabulary.write(folder, path)
    if path:
        shutil.copyfile(path, folder / _PROMPT_TOKENIZER)


def read_config(folder: Path, config: ConfigDict) -> ConfigDict:
    """`config.model` as the weights need it."""
    said, ours = _said(folder), _model(config.model)
    if problems := weights.not_ours(said):
        raise ExportError(f"{folder}/config.json asks for what our planner is not: "
                          f"{'; '.join(problems)}")  # fmt: skip
    theirs = weights.our_config(said, ours)
    if weights.MARK in said:
        theirs = dataclasses.replace(theirs, tie_embeddings=_is_tied(folder, theirs.vocab_size))
    elif not ours.prompt_vocab_size and theirs.vocab_size != ours.vocab_size:
        raise ExportError(
            f"{folder} has {theirs.vocab_size} ids, which are not our {ours.vocab_size}: to read "
            "prompts by its tokenizer.json set "
            f"--config.model.prompt_vocab_size={theirs.vocab_size}"
        )
    return _with(config.model, ours, theirs)


def _is_tied(folder: Path, num_rows: int) -> bool:
    """Whether the head still is the table; a fine-tuned one may have left it."""
    found = open_tensors(folder)
    if missing := [name for name in (_EMBED, _HEAD) if name not in found]:
        raise ExportError(f"{folder} has no {', '.join(missing)}")
    return np.array_equal(found[_EMBED][:num_rows], found[_HEAD][:num_rows])


def _with(values: ConfigDict, ours: Any, theirs: Any) -> ConfigDict:
    """The section with theirs where they differ, so that what it does not say stays unsaid."""
    found = ConfigDict(values.to_dict())
    for field in dataclasses.fields(theirs):
        mine, other = getattr(ours, field.name), getattr(theirs, field.name)
        if mine == other:
            continue
        if not dataclasses.is_dataclass(other):
            found[field.name] = other
        elif found.get(field.name, {}).get("depth"):  # a dial cannot be half turned
            found[field.name] = ConfigDict(dataclasses.asdict(other))  # type: ignore[arg-type]  # no class
        else:
            found[field.name] = _with(found.get(field.name, ConfigDict()), mine, other)
    return found


def carry(source: Path, config: ConfigDict, folder: Path, out: Path) -> dict[str, Any]:
    """The vocabulary that prompts are read with, into the run."""
    size = config.model.get("prompt_vocab_size", 0)
    if not size:
        return {"prompt_tokenizer": ""}
    path = source / (_PROMPT_TOKENIZER if weights.MARK in _said(source) else "tokenizer.json")
    if not path.is_file():
        raise ExportError(f"there is no {path}, by which the model reads: copy it from its source")
    given, theirs = config.data.get("prompt_tokenizer", ""), PromptReader(str(path))
    if given and PromptReader(given).identity != theirs.identity:
        raise ExportError(
            f"config.data.prompt_tokenizer {given} is not {path}, by which the model reads: leave "
            'it "", and the file is copied into the run'
        )
    theirs.require(prompt_vocab_size=size)
    shutil.copyfile(path, folder / "tokenizer.json")
    with config.unlocked():
        config.data.prompt_tokenizer = str(out / "tokenizer.json")
    return {"prompt_tokenizer": theirs.identity}


def compare(run: Path, folder: Path, parity: Parity) -> None:
    """Logits of random ids and of our own pages, and 64 greedy steps, in float32."""
    from pipeline.export.planner_parity import compare as compared  # it needs their library

    compared(run, folder, parity, own_ids=weights.MARK in _said(folder))


FAMILY = Family(
    "transformers", table, write_config, read_config, compare, table_in=table_in, carry=carry
)
