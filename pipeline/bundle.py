"""Trained models put to work: pages to codes, and prompts to proofread pages."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from blueprint.schema import Blueprint
from blueprint.wishes import Wishes
from decoder.conditioning import canonical_page
from evals.least_type import FILE as LEAST_TYPE
from evals.least_type import known_px
from evals.proof import Codes, Proof, proofread
from evals.readers import RapidReader
from pipeline.printing import conditions, decoder_press, plates_of
from pipeline.sealed import MODELS, require_readable
from pipeline.tasks import decoder_task, load_model, planner_task, token_contract
from sampling.planning import best_plans, plan_pages
from sampling.policy import Policy
from sampling.printing import print_codes
from train.config import build
from train.data.codes import require_same
from train.data.encoding import Coder, Encoding
from train.data.sources import DataConfig, Pages, open_source
from train.export.seal import is_sealed
from train.model import Model


def encoding(
    tokenizer: Model, data: ConfigDict, folder: Path, *, num_pages: int = 0, num_shards: int = 16
) -> Encoding:
    """The code cache of the pages of a config's `data` section, or of the first `num_pages` of
    them, as `train.data.encoding.encode` makes it; of fewer pages than shards each is one."""
    config = build(DataConfig, data, path="config.data")
    config = dataclasses.replace(config, num_pages=num_pages or config.num_pages)
    source, probes = open_source(config, Pages), tokenizer.probes
    coder = Coder(probes["encode"], probes["decode"], canonical_page, token_contract(tokenizer))
    told, num_pages = dataclasses.asdict(config), num_pages or len(source)
    return Encoding(source, folder, coder, told, num_pages, min(num_shards, num_pages))


class Bundle:
    """Three trained models that fit together: plan, print, proofread.

    They are those of three training runs, or of an exported bundle, every byte of which is read
    first; `said` is what that says of itself, empty for runs. `legible_px` is the least type that
    they were measured to print legibly, None where that is not known (`evals/least_type.py`).
    `weights` other than float32 (`layers.quantized.WEIGHTS`) makes planner and decoder faster where
    reading them takes most of the time, and what they write nearly the same.
    Raises `ContractError` when the decoder learnt the codes of another tokenizer, `SealError` for
    an exported bundle that is not as it was sealed.
    """

    def __init__(self, folder: Path, *, weights: str = "float32") -> None:
        self.said = require_readable(Path(folder)) if is_sealed(Path(folder)) else {}
        self.tokenizer, self.planner, self.decoder = (
            load_model(Path(folder) / name, checked=bool(self.said)) for name in MODELS
        )
        self.planner, self.decoder = (
            model.with_weights(weights) for model in (self.planner, self.decoder)
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
        self.legible_px = None
        if not self.said or LEAST_TYPE in self.said["files"]:
            self.legible_px = known_px(Path(folder), self.weights)
        plates = plates_of(data, planner, max_letters=most)
        self._plates = dataclasses.replace(plates, legible_px=self.legible_px)
        learnt = self.planner.manifest["identity"].get("prompt_tokenizer", "")
        self._plates.reader.require_learnt(learnt, where=f"{folder}/planner")
        self._print = self.decoder.jit(print_codes, static_argnames="press")

    @property
    def steps(self) -> tuple[int, ...]:
        """After how many steps tokenizer, planner and decoder were saved."""
        models = self.tokenizer, self.planner, self.decoder
        return tuple(int(model.manifest["step"]) for model in models)

    @property
    def weights(self) -> dict[str, str]:
        """The hashes of the models that print: what a measured `legible_px` holds for."""
        return {"tokenizer": self.tokenizer.weight_hash, "decoder": self.decoder.weight_hash}

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
        of several, `policy` is not used, and type of `legible_px` is preferred."""
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


def load(folder: str | Path, *, weights: str = "float32") -> Bundle:
    """The press in a folder of three training runs, or in an exported bundle after every byte of it
    was read and compared; nothing in either is code.

    Raises what `Bundle` and `load_model` raise, and `FileNotFoundError` when there is neither.
    """
    folder = Path(folder)
    if not is_sealed(folder) and not all((folder / name).is_dir() for name in MODELS):
        raise FileNotFoundError(
            f"{folder} is no bundle: it has no bundle.json, and not the runs {', '.join(MODELS)}"
        )
    return Bundle(folder, weights=weights)
