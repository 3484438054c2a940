"""The only library file that knows all the models: configs to tasks, data and evaluators."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from blueprint.grammar import Limits
from blueprint.schema import Blueprint
from blueprint.wishes import Wishes
from decoder.conditioning import ConditioningConfig, canonical_page, condition
from decoder.model import DecoderConfig
from decoder.task import DecoderTask
from decoder.task import example as decoder_example
from evals.lines import RecognisedLines
from evals.plans import PlannedPages
from evals.prints import PrintedPages
from evals.proof import Codes, Proof, proofread
from evals.readers import RapidReader
from evals.reconstruction import Reconstructions
from planner.examples import example as planner_example
from planner.model import PlannerConfig
from planner.task import PlannerTask
from sampling.planning import Plates, best_plans, plan_pages
from sampling.policy import Policy
from sampling.printing import Press, num_passes, print_codes
from tokenizer.critic import CriticConfig
from tokenizer.lines import boxed_example
from tokenizer.model import TokenizerConfig
from tokenizer.recogniser import Frozen, RecogniserConfig, RecogniserTask
from tokenizer.recogniser import example as recogniser_example
from tokenizer.task import LossConfig, TokenizerTask
from tokenizer.text_loss import TextConfig
from train.checkpoint import fingerprint, load_weights
from train.config import ConfigError, build
from train.data.batching import batches
from train.data.codes import Coded, read_header, require_same, write_cache
from train.data.posters.canvas import PageStyle
from train.data.posters.scenes import MAX_TEXTS, OWN_TEXTS
from train.data.sources import DataConfig, Pages, Plans, heldout, open_source
from train.loop import Evaluator, LoopConfig, Probes
from train.model import Model
from train.task import Task


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
    """The task of a tokenizer's config, without the recogniser of its loss, which only training
    needs; without a `critic` in it there is none."""
    model = build(TokenizerConfig, config.model, path="config.model")
    losses = build(LossConfig, config.losses, path="config.losses")
    critic = build(CriticConfig, config.get("critic", {}), path="config.critic")
    return TokenizerTask(model, losses, critic)


def recogniser_task(config: ConfigDict) -> RecogniserTask:
    """The task of a recogniser's config."""
    return RecogniserTask(build(RecogniserConfig, config.model, path="config.model"))


def planner_task(config: ConfigDict) -> PlannerTask:
    """The task of a planner's config."""
    return PlannerTask(build(PlannerConfig, config.model, path="config.model"))


def decoder_task(config: ConfigDict) -> DecoderTask:
    """The task of a decoder's config, without the contract that its codes bring."""
    model = build(DecoderConfig, config.model, path="config.model")
    names = ("whole_mask", "drop_blueprint", "drop_glyphs")
    return DecoderTask(model, **{name: config[name] for name in names if name in config})


def decoder_press(config: ConfigDict, *, guidance: float | None = None) -> Press:
    """How a decoder's config has pages printed, with its guidance or another.

    Raises `ConfigError` for guidance of a decoder that never goes without its conditions.
    """
    press, task = build(Press, config.get("press", {}), path="config.press"), decoder_task(config)
    scale = press.guidance if guidance is None else guidance
    if scale != 1 and not task.drop_blueprint and not task.drop_glyphs:
        raise ConfigError(
            f"guidance {scale} needs a decoder trained with drop_blueprint or drop_glyphs; "
            "train one, or leave guidance at 1"
        )
    return dataclasses.replace(press, policy=Policy(ordered=task.model.ordered), guidance=scale)


def _tokenizer(config: ConfigDict, data: DataConfig, loop: LoopConfig) -> Run:
    source, task = open_source(data, Pages), tokenizer_task(config)
    text = build(TextConfig, config.get("text", {}), path="config.text")
    transform: Callable[..., Any] = pixels_only
    if task.losses.has_text:
        transform = functools.partial(boxed_example, max_lines=text.max_lines)
    if task.losses.text_features:
        task = dataclasses.replace(task, recogniser=frozen_recogniser(text.recogniser))
    dataset = batches(source, transform, batch_size=data.batch_size, seed=loop.seed)
    pages = Pages(heldout(data.page), data.num_evaluation_pages)
    return Run(task, dataset, loop, Reconstructions(pages))


def frozen_recogniser(folder: str) -> Frozen:
    """A trained recogniser for a loss; raises `ConfigError` for a folder that has none."""
    if not folder:
        raise ConfigError("config.losses.text_features needs a run: set config.text.recogniser")
    trained = load_model(Path(folder))
    if not isinstance(trained.task, RecogniserTask):
        raise ConfigError(f"config.text.recogniser {folder} is a {trained.config.task}'s run")
    arrays = jax.tree.map(np.asarray, trained.weights)
    return Frozen(trained.task.model, trained.weight_hash, arrays)


def _recogniser(config: ConfigDict, data: DataConfig, loop: LoopConfig) -> Run:
    task = recogniser_task(config)
    transform = functools.partial(recogniser_example, config=task.model)
    source = open_source(data, Pages)
    dataset = batches(source, transform, batch_size=data.batch_size, seed=loop.seed)
    pages = Pages(heldout(data.page), 4 * data.num_evaluation_pages)
    return Run(task, dataset, loop, RecognisedLines(pages, transform))


def _decoder(config: ConfigDict, data: DataConfig, loop: LoopConfig) -> Run:
    task, press = decoder_task(config), decoder_press(config)
    model = task.model
    header = read_header(Path(data.codes))
    page = build(PageStyle, header["page"], path="page")
    wanted = {
        "model.num_codes": (model.num_codes, header["contract"]["num_codes"]),
        "model.codebook_size": (model.codebook_size, header["contract"]["codebook_size"]),
        "data.page": (data.page, page),
        "data.num_pages": (data.num_pages, header["num_pages"]),
    }
    for name, (here, there) in wanted.items():
        if here != there:
            raise ConfigError(f"config.{name} is {here}, but {data.codes} has {there}")
    if model.num_classes:
        raise ConfigError("config.model.num_classes: pages have no classes; set it to 0")
    if model.ordered and len(header["contract"]["levels"]) != 1:
        raise ConfigError("config.model.ordered is for codes of one FSQ channel each; set it False")
    transform = functools.partial(decoder_example, config=model.conditioning)
    coded = Coded(Plans(page, data.num_pages), Path(data.codes))
    dataset = batches(coded, transform, batch_size=data.batch_size, seed=loop.seed)
    evaluate = None
    if data.tokenizer:
        tokenizer = load_model(Path(data.tokenizer))
        require_same(header["contract"], token_contract(tokenizer), where=data.codes)

        def printed(probes: Probes, records: Sequence[Any]) -> tuple[np.ndarray, dict[str, float]]:
            given = conditions(tokenizer, model.conditioning, [r["blueprint"] for r in records])
            codes = jnp.zeros(given["glyph_codes"].shape, jnp.int32)
            masked = jnp.ones(codes.shape[:3], bool)
            keys = jax.random.split(jax.random.key(0), len(codes))
            chosen = print_codes(probes, codes, masked, given, keys, press=press)
            own = tokenizer.probes["encode"](np.stack([r["pixels"] for r in records]))
            passes = num_passes(probes, press, masked[0].size)
            found = {"code_accuracy": float((chosen == own).mean()), "num_passes": passes}
            return np.asarray(tokenizer.probes["decode"](chosen)), found

        evaluate = PrintedPages(Pages(heldout(page), data.num_evaluation_pages), printed)
    return Run(dataclasses.replace(task, contract=header["contract"]), dataset, loop, evaluate)


def _planner(config: ConfigDict, data: DataConfig, loop: LoopConfig) -> Run:
    task = planner_task(config)
    transform = functools.partial(planner_example, max_length=task.model.max_length)
    dataset = batches(
        open_source(data, Plans), transform, batch_size=data.batch_size, seed=loop.seed
    )
    plates = _plates(data, task.model)
    pages = Plans(heldout(data.page), data.num_evaluation_pages)
    evaluate = PlannedPages(pages, lambda probes, prompts: plan_pages(probes, prompts, plates))
    return Run(task, dataset, loop, evaluate)


def _plates(data: DataConfig, planner: PlannerConfig, *, max_letters: int = 10**9) -> Plates:
    """Plans are for pages as large as those learnt, with type as large, and with no words of their
    own but those of the procedural pages, if it learnt from them."""
    page_px = data.page.width_px, data.page.height_px
    limits = Limits(page_px, planner.max_length, max_letters)
    if not data.folder:
        limits = dataclasses.replace(limits, own_texts=OWN_TEXTS, max_texts=MAX_TEXTS)
    return Plates(limits, data.page.min_type_px)


_TASKS = {
    "tokenizer": tokenizer_task, "planner": planner_task, "decoder": decoder_task,
    "recogniser": recogniser_task,
}  # fmt: skip
_RUNS = {
    "tokenizer": _tokenizer, "planner": _planner, "decoder": _decoder, "recogniser": _recogniser,
}  # fmt: skip


def run(config: ConfigDict) -> Run:
    """The run of a config; raises `ConfigError` naming the key when something is wrong with it."""
    if config.task not in _RUNS:
        raise ConfigError(f"config.task {config.task!r} is not one of {', '.join(_RUNS)}")
    data = build(DataConfig, config.data, path="config.data")
    loop = build(LoopConfig, config.loop, path="config.loop")
    return _RUNS[config.task](config, data, loop)


def load_model(workdir: Path) -> Model:
    """The newest weights of a training run (averaged ones if kept), ready to be asked.

    Raises `FileNotFoundError` when the folder is no run, `CheckpointError` when nothing was saved
    there yet.
    """
    path = Path(workdir) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{workdir} is no training run (no config.json); train there first")
    config = ConfigDict(json.loads(path.read_text()))
    weights, extra, manifest = load_weights(Path(workdir) / "checkpoints")
    placed = jax.device_put((weights, extra))
    return Model(
        config, _TASKS[config.task](config), *placed, manifest, fingerprint(weights, extra)
    )


def token_contract(tokenizer: Model) -> dict[str, Any]:
    """What identifies a tokenizer's codes: two with the same contract mean the same by every
    code."""
    model = tokenizer_task(tokenizer.config).model
    quantizer, kind = model.quantizer, model.quantizer.kind
    page, f = tokenizer.config.data.page, model.backbone.downsampling
    plain = kind in ("fsq", quantizer.name)
    return {
        "codebook_size": int(tokenizer.probes["codebook_size"]()),
        "num_codes": quantizer.num_codes,
        "quantizer": quantizer.name if plain else f"{quantizer.name} of {kind}",
        "levels": list(quantizer.levels) if kind == "fsq" else [],
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
        return np.asarray(tokenizer.probes["encode"](np.stack(pictures)))

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


def conditions(
    tokenizer: Model, config: ConditioningConfig, blueprints: Sequence[Blueprint]
) -> dict[str, np.ndarray]:
    """What a decoder is told about a batch of pages, the encoded canonical lines among it."""
    rows = [condition(blueprint, config) for blueprint in blueprints]
    given = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    canonical = np.stack([canonical_page(blueprint) for blueprint in blueprints])
    return {**given, "glyph_codes": np.asarray(tokenizer.probes["encode"](canonical))}


class Bundle:
    """Three trained models that fit together: plan, print, proofread.

    Raises `ContractError` when the decoder learnt the codes of another tokenizer.
    """

    def __init__(self, folder: Path) -> None:
        self.tokenizer, self.planner, self.decoder = (
            load_model(Path(folder) / name) for name in ("tokenizer", "planner", "decoder")
        )
        self.contract = token_contract(self.tokenizer)
        learnt = self.decoder.manifest["identity"]["contract"]
        require_same(learnt, self.contract, where=f"{folder}/decoder")
        data = build(DataConfig, self.planner.config.data, path="config.data")
        page = self.tokenizer.config.data.page
        self.page_px = page.width_px, page.height_px
        if (data.page.width_px, data.page.height_px) != self.page_px:
            raise ValueError(
                f"{folder}/planner plans {data.page.width_px} x {data.page.height_px} px pages and "
                f"{folder}/tokenizer has {self.page_px[0]} x {self.page_px[1]} px: train one anew"
            )
        most = decoder_task(self.decoder.config).model.conditioning.max_characters
        planner = planner_task(self.planner.config).model
        self._plates = _plates(data, planner, max_letters=most)
        self._print = self.decoder.jit(print_codes, static_argnames="press")

    def plan(
        self,
        prompts: Sequence[str],
        *,
        seed: int = 0,
        policy: Policy | None = None,
        wishes: Wishes | None = None,
        num_tries: int = 1,
    ) -> list[Blueprint]:
        """A blueprint for each prompt; see `sampling.planning`. With `num_tries` above 1 the best
        of several, and `policy` is not used."""
        plates = dataclasses.replace(self._plates, wishes=wishes or Wishes())
        probes, policy = self.planner.probes, policy or Policy()
        if num_tries > 1:
            return best_plans(probes, prompts, plates, seed=seed, num_tries=num_tries)
        return plan_pages(probes, prompts, plates, seed=seed, policy=policy)

    def codes(
        self,
        blueprints: Sequence[Blueprint],
        *,
        seed: int = 0,
        known: np.ndarray | None = None,
        masked: np.ndarray | None = None,
        policy: Policy | None = None,
        guidance: float | None = None,
    ) -> np.ndarray:
        """Codes [B y x Q] of pages; with `known` codes only the `masked` positions are printed
        anew (by a causal decoder given those before them). Without `policy` or `guidance` it is as
        the decoder's config has it.

        Raises `ValueError` for a page of another size than the models', and for `guidance` other
        than 1 of a decoder that never went without its conditions.
        """
        for page in blueprints:
            if (page.width_px, page.height_px) != self.page_px:
                raise ValueError(
                    f"a page of {page.width_px} x {page.height_px} px: these models print "
                    f"{self.page_px[0]} x {self.page_px[1]} px; set width_px and height_px to that"
                )
        B, (y, x), Q = len(blueprints), self.contract["grid"], self.contract["num_codes"]
        known = np.zeros((B, y, x, Q), np.int32) if known is None else known.astype(np.int32)
        masked = np.ones((B, y, x), bool) if masked is None else masked
        press = decoder_press(self.decoder.config, guidance=guidance)
        press = dataclasses.replace(press, policy=policy or press.policy)
        shown = decoder_task(self.decoder.config).model.conditioning
        given = conditions(self.tokenizer, shown, blueprints)
        keys = jax.random.split(jax.random.key(seed), B)
        return np.asarray(self._print(known, masked, given, keys, press=press))

    def pixels(self, codes: np.ndarray) -> np.ndarray:
        """The pages of codes, uint8 [B Y X 3]."""
        return np.asarray(self.tokenizer.probes["decode"](codes))

    def copied(self, blueprints: Sequence[Blueprint]) -> np.ndarray:
        """The canonical pages that the decoder is shown, through the tokenizer alone: what a
        decoder that only copies would print. uint8 [B Y X 3]."""
        canonical = np.stack([canonical_page(blueprint) for blueprint in blueprints])
        return self.pixels(self.tokenizer.probes["encode"](canonical))

    def proofread(
        self, blueprint: Blueprint, codes: Codes, reader: RapidReader, *, max_retries: int
    ) -> tuple[Codes, Proof]:
        """Print what reads wrong again, in its own boxes only, and keep what reads better: first
        as the canonical page has it, then sampled."""
        shown = decoder_task(self.decoder.config).model.conditioning
        canonical = conditions(self.tokenizer, shown, [blueprint])["glyph_codes"][0]

        def reprint(codes: Codes, masked: np.ndarray, retry: int) -> Codes:
            if retry == 1 and shown.glyphs == "encoded":
                return np.where(masked[..., None], canonical, codes)
            policy = Policy(temperature=0.5)
            again = {"known": codes[None], "masked": masked[None]}
            return self.codes([blueprint], seed=retry, policy=policy, **again)[0]

        read = lambda codes: reader.read(self.pixels(codes[None])[0])  # noqa: E731
        return proofread(blueprint, codes, read=read, reprint=reprint, max_retries=max_retries)
