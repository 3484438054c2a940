"""The only library file that knows all the models: configs to tasks, data and evaluators."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict
from tqdm import tqdm

from blueprint import codec, vocab
from blueprint.copying import automaton
from blueprint.schema import Blueprint
from decoder.conditioning import canonical_page, condition
from decoder.model import DecoderConfig
from decoder.task import DecoderTask
from decoder.task import example as decoder_example
from evals.proof import element_reads, lost_words
from evals.readers import RapidReader
from evals.reconstruction import Reconstructions
from planner.examples import example as planner_example
from planner.model import PlannerConfig
from planner.task import PlannerTask
from sampling.engine import Engine
from sampling.parallel import decode_masked
from sampling.policy import Policy
from tokenizer.model import TokenizerConfig
from tokenizer.task import LossConfig, TokenizerTask
from train.checkpoint import load_weights
from train.config import ConfigError, build
from train.data.batching import batches
from train.data.codes import Coded, read_header, require_same, write_cache
from train.data.posters.canvas import PageStyle
from train.data.sources import Pages, Plans
from train.loop import Evaluator, LoopConfig
from train.task import Task

EVALUATION_PAGES = 16


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Procedural pages: their style, how many there are, how many a step takes, and where their
    codes lie."""

    page: PageStyle
    num_pages: int
    batch_size: int
    codes: str = ""


@dataclasses.dataclass(frozen=True)
class Run:
    """What a config comes to: everything that `train.loop.train` takes, but the workdir."""

    task: Task
    dataset: Any
    loop: LoopConfig
    evaluate: Evaluator | None


def pixels_only(record: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """What the tokenizer trains on."""
    return {"pixels": record["pixels"]}


def tokenizer_task(config: ConfigDict) -> TokenizerTask:
    """The task of a tokenizer's config."""
    model = build(TokenizerConfig, config.model, path="config.model")
    return TokenizerTask(model, build(LossConfig, config.losses, path="config.losses"))


def planner_task(config: ConfigDict) -> PlannerTask:
    """The task of a planner's config."""
    return PlannerTask(build(PlannerConfig, config.model, path="config.model"))


def decoder_task(config: ConfigDict) -> DecoderTask:
    """The task of a decoder's config, without the contract that its codes bring."""
    return DecoderTask(build(DecoderConfig, config.model, path="config.model"))


def _tokenizer(config: ConfigDict, data: DataConfig, loop: LoopConfig) -> Run:
    source = Pages(data.page, data.num_pages)
    dataset = batches(source, pixels_only, batch_size=data.batch_size, seed=loop.seed)
    heldout = dataclasses.replace(data.page, split="heldout", quoted="all")
    pages = Pages(heldout, EVALUATION_PAGES)
    return Run(tokenizer_task(config), dataset, loop, Reconstructions(pages))


def _decoder(config: ConfigDict, data: DataConfig, loop: LoopConfig) -> Run:
    task = decoder_task(config)
    model = task.model
    header = read_header(Path(data.codes))
    wanted = {"num_codes": model.num_codes, "codebook_size": model.codebook_size}
    for name, value in wanted.items():
        if header["contract"][name] != value:
            raise ConfigError(
                f"config.model.{name} is {value}, but {data.codes} has {header['contract'][name]}"
            )
    plans = Plans(build(PageStyle, header["page"], path="page"), header["num_pages"])
    transform = partial(decoder_example, config=model.conditioning)
    coded = Coded(plans, Path(data.codes))
    dataset = batches(coded, transform, batch_size=data.batch_size, seed=loop.seed)
    return Run(dataclasses.replace(task, contract=header["contract"]), dataset, loop, None)


def _planner(config: ConfigDict, data: DataConfig, loop: LoopConfig) -> Run:
    task = planner_task(config)
    transform = partial(planner_example, max_length=task.model.max_length)
    plans = Plans(data.page, data.num_pages)
    dataset = batches(plans, transform, batch_size=data.batch_size, seed=loop.seed)
    return Run(task, dataset, loop, None)


_TASKS = {"tokenizer": tokenizer_task, "planner": planner_task, "decoder": decoder_task}
_RUNS = {"tokenizer": _tokenizer, "planner": _planner, "decoder": _decoder}


def run(config: ConfigDict) -> Run:
    """The run of a config; raises `ConfigError` naming the key when something is wrong with it."""
    if config.task not in _RUNS:
        raise ConfigError(f"config.task {config.task!r} is not one of {', '.join(_RUNS)}")
    data = build(DataConfig, config.data, path="config.data")
    loop = build(LoopConfig, config.loop, path="config.loop")
    return _RUNS[config.task](config, data, loop)


@dataclasses.dataclass(frozen=True)
class Model:
    """A trained model: its config, its task, its jitted probes over arrays alone, and its
    manifest."""

    config: ConfigDict
    task: Task
    probes: Mapping[str, Callable[..., Any]]
    manifest: Mapping[str, Any]
    weight_hash: str


def _hash(weights: Any) -> str:
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(weights)[0]:
        digest.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
    return digest.hexdigest()


def load_model(workdir: Path) -> Model:
    """The newest weights of a training run (averaged ones if kept), ready to be asked.

    Raises `FileNotFoundError` when the folder is no run, `CheckpointError` when nothing was saved
    there yet.
    """
    path = Path(workdir) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{workdir} is no training run (no config.json); train there first")
    config = ConfigDict(json.loads(path.read_text()))
    task = _TASKS[config.task](config)
    weights, extra, manifest = load_weights(Path(workdir) / "checkpoints")
    graphdef, _ = nnx.split(nnx.eval_shape(lambda: task.init(nnx.Rngs(0))))

    def ask(probe: Callable[..., Any]) -> Callable[..., Any]:
        jitted = jax.jit(lambda w, e, *xs: probe(nnx.merge(graphdef, w, e), *xs))
        return lambda *xs: jitted(weights, extra, *xs)

    probes = {name: ask(probe) for name, probe in task.probes().items()}
    return Model(config, task, probes, manifest, _hash(weights))


def token_contract(tokenizer: Model) -> dict[str, Any]:
    """What identifies a tokenizer's codes: two with the same contract mean the same by every
    code."""
    model = tokenizer.config.model
    page, f = tokenizer.config.data.page, model.backbone.downsampling
    return {
        "codebook_size": int(tokenizer.probes["codebook_size"]()),
        "num_codes": model.quantizer.num_codes,
        "quantizer": model.quantizer.name,
        "levels": list(model.quantizer.levels),
        "downsampling": f,
        "grid": [page.height_px // f, page.width_px // f],
        "scan": "raster",
        "weights": tokenizer.weight_hash,
    }


def encode_pages(tokenizer: Model, folder: Path, *, num_pages: int, chunk: int = 16) -> None:
    """Write the code cache of the tokenizer's own training pages, with their contract."""
    contract = token_contract(tokenizer)
    page = tokenizer.config.data.page.to_dict()
    header = {"contract": contract, "page": page, "num_pages": num_pages}
    if (folder / "cache.json").is_file() and read_header(folder) == header:
        return
    pages = Pages(build(PageStyle, page, path="config.data.page"), num_pages)

    def encoded(pictures: list[np.ndarray]) -> np.ndarray:
        return np.asarray(tokenizer.probes["encode"](np.stack(pictures))).astype(np.uint8)

    def chunks() -> Iterator[dict[str, np.ndarray]]:
        for start in tqdm(range(0, num_pages, chunk), desc="encode", unit="chunk", mininterval=5):
            stop = min(start + chunk, num_pages)
            records = [pages[i] for i in range(start, stop)]
            yield {
                "codes": encoded([r["pixels"] for r in records]),
                "glyph_codes": encoded([canonical_page(r["blueprint"]) for r in records]),
            }

    shape = (num_pages, *contract["grid"], contract["num_codes"])
    write_cache(folder, chunks(), shape, header)


@dataclasses.dataclass(frozen=True)
class Proof:
    """A page as it was read: the words lost by text, in reading order, and how often it was printed
    again."""

    read: tuple[str, ...]
    lost: tuple[tuple[str, ...], ...]
    retries: int

    @property
    def num_lost(self) -> int:
        """Words that did not come out."""
        return sum(map(len, self.lost))


class Bundle:
    """Three trained models that fit together: plan, print, proofread.

    Raises `ContractError` when the decoder learnt the codes of another tokenizer.
    """

    def __init__(self, folder: Path) -> None:
        self.tokenizer, self.planner, self.decoder = (
            load_model(Path(folder) / name) for name in ("tokenizer", "planner", "decoder")
        )
        learnt = self.decoder.manifest["identity"]["contract"]
        require_same(learnt, token_contract(self.tokenizer), where=f"{folder}/decoder")
        page = self.tokenizer.config.data.page
        self.page_px = page.width_px, page.height_px
        self._print = jax.jit(self._decode, static_argnames=("num_passes", "policy"))

    def plan(
        self, prompts: list[str], *, seed: int = 0, policy: Policy | None = None
    ) -> list[Blueprint]:
        """A blueprint for each prompt: always valid, every quoted string verbatim and in order.

        Raises `ValueError` when a prompt is too long for the planner.
        """
        most = self.planner.config.model.max_length
        ids = [vocab.encode_prompt(prompt) for prompt in prompts]
        room = [most - len(row) for row in ids]
        rules = [
            automaton(prompt, page_px=self.page_px, max_ids=left)
            for prompt, left in zip(prompts, room, strict=True)
        ]
        engine = Engine(
            self.planner.probes["step"], self.planner.probes["empty_cache"],
            policy=policy or Policy(),
        )  # fmt: skip
        keys = jax.random.split(jax.random.key(seed), len(prompts))
        return [codec.decode(row) for row in engine.generate(ids, rules, keys)]

    def _decode(
        self, codes: Any, masked: Any, given: Any, keys: Any, num_passes: int, policy: Policy
    ) -> Any:
        logits_of = lambda c, m: self.decoder.probes["logits"](c, m, given)  # noqa: E731
        return decode_masked(logits_of, codes, masked, keys, num_passes=num_passes, policy=policy)

    def codes(
        self,
        blueprint: Blueprint,
        *,
        seed: int = 0,
        known: np.ndarray | None = None,
        masked: np.ndarray | None = None,
        policy: Policy | None = None,
    ) -> np.ndarray:
        """Codes [y x Q] of a page; with `known` codes only the `masked` positions are printed anew.

        Raises `ValueError` for a page of another size than the models'.
        """
        if (blueprint.width_px, blueprint.height_px) != self.page_px:
            raise ValueError(f"width_px, height_px: these models print {self.page_px} px pages")
        contract = token_contract(self.tokenizer)
        rows, columns = contract["grid"]
        known = (
            np.zeros((rows, columns, contract["num_codes"]), np.int32) if known is None else known
        )
        masked = np.ones((rows, columns), bool) if masked is None else masked
        config = decoder_task(self.decoder.config).model.conditioning
        given = {k: np.asarray(v)[None] for k, v in condition(blueprint, config).items()}
        given["glyph_codes"] = np.asarray(
            self.tokenizer.probes["encode"](canonical_page(blueprint)[None])
        )
        keys = jax.random.split(jax.random.key(seed), 1)
        made = self._print(
            known[None].astype(np.int32), masked[None], given, keys,
            num_passes=1, policy=policy or Policy(),
        )  # fmt: skip
        return np.asarray(made[0])

    def pixels(self, codes: np.ndarray) -> np.ndarray:
        """The page of codes, uint8 [Y X 3]."""
        return np.asarray(self.tokenizer.probes["decode"](codes[None])[0])

    def proofread(
        self, blueprint: Blueprint, codes: np.ndarray, reader: RapidReader, *, max_retries: int
    ) -> tuple[np.ndarray, Proof]:
        """Print what reads wrong again, in its own boxes only, and keep what reads better."""
        best, proof = codes, self._proof(blueprint, codes, reader, 0)
        for retry in range(1, max_retries + 1):
            if proof.num_lost == 0:
                break
            masked = np.zeros(codes.shape[:2], bool)
            f = self.page_px[1] // codes.shape[0]
            for text, lost in zip(blueprint.texts, proof.lost, strict=True):
                left, top, width, height = (n / f for n in text.box.pixels(*self.page_px))
                rows = slice(int(top), int(np.ceil(top + height)))
                masked[rows, int(left) : int(np.ceil(left + width))] |= bool(lost)
            policy = Policy(temperature=0.5)
            tried = self.codes(blueprint, seed=retry, known=best, masked=masked, policy=policy)
            again = self._proof(blueprint, tried, reader, retry)
            best = tried if again.num_lost < proof.num_lost else best
            proof = (
                again
                if again.num_lost < proof.num_lost
                else dataclasses.replace(proof, retries=retry)
            )
        return best, proof

    def _proof(
        self, blueprint: Blueprint, codes: np.ndarray, reader: RapidReader, retries: int
    ) -> Proof:
        lines = reader.read(self.pixels(codes))
        reads = element_reads(blueprint, lines)
        lost = tuple(
            tuple(lost_words(text, read)) for text, read in zip(blueprint.texts, reads, strict=True)
        )
        return Proof(tuple(line.string for line in lines), lost, retries)
