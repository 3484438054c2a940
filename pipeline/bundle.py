"""Trained models put to work: pages to codes, and prompts to proofread pages."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, UInt32
from ml_collections import ConfigDict

from blueprint.schema import Blueprint
from blueprint.wishes import Wishes
from decoder.conditioning import canonical_page
from evals.least_type import FILE as LEAST_TYPE
from evals.least_type import known_px
from evals.proof import Codes, Proof, proofread
from evals.readers import ReadLine
from pipeline.printing import conditions, decoder_press, plates_of
from pipeline.sealed import MODELS, require_readable
from pipeline.tasks import decoder_task, load_model, planner_task, token_contract
from sampling import streaming
from sampling.planning import best_plans, plan_pages, plans_as_made
from sampling.policy import Policy
from sampling.printing import print_codes
from sampling.streaming import Partial, stream_codes
from train import mesh as meshes
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


@jax.jit
def _first_keys(seeds: UInt32[Array, " B"]) -> Array:
    """Of each seed, the key that a page has which is printed alone with it."""
    return jax.vmap(lambda seed: jax.random.split(jax.random.key(seed), 1)[0])(seeds)


class Bundle:
    """Three trained models that fit together: plan, print, proofread.

    They are those of three training runs, or of an exported bundle, every byte of which is read
    first; `said` is what that says of itself, empty for runs. `legible_px` is the least type that
    they were measured to print legibly, None where that is not known (`evals/least_type.py`).
    `weights` other than float32 (`layers.quantized.WEIGHTS`) makes planner and decoder faster where
    reading them takes most of the time, and what they write nearly the same.
    Raises `ContractError` when the decoder learnt the codes of another tokenizer, `SealError` for
    an exported bundle that is not as it was sealed.

    `mesh` gives sizes of the axes of `train.mesh.AXES` over this process's devices; without it all
    models are on one. `press` changes fields of the `sampling.printing.Press` that the decoder's
    config has.
    """

    def __init__(
        self,
        folder: Path,
        *,
        mesh: Mapping[str, int] | None = None,
        press: Mapping[str, Any] | None = None,
        weights: str = "float32",
    ) -> None:
        self.said = require_readable(Path(folder)) if is_sealed(Path(folder)) else {}
        devices = None if mesh is None else meshes.build(mesh, jax.local_devices(), said="--mesh")
        self.tokenizer, self.planner, self.decoder = (
            load_model(Path(folder) / name, checked=bool(self.said), mesh=devices)
            for name in MODELS
        )
        self.planner, self.decoder = (
            model.with_weights(weights) for model in (self.planner, self.decoder)
        )
        self._changed = dict(press or {})
        decoder_press(self.decoder.config, changed=self._changed)  # now, if it is wrong
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
        compiled = self.decoder.probes.compiled
        self._print = self.decoder.by_rows(compiled(print_codes, static_argnames="press"))
        self._begin = compiled(streaming.begin, static_argnames="press")
        self._go_on = compiled(
            streaming.go_on, donate_argnums=0, static_argnames=("press", "every")
        )

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

    def plans_as_made(
        self,
        prompts: Iterable[tuple[int, str]],
        *,
        seed: int = 0,
        policy: Policy | None = None,
        wishes: Wishes | None = None,
    ) -> Iterator[tuple[int, Blueprint]]:
        """Blueprints of numbered prompts as they are done: see `sampling.planning`."""
        plates = dataclasses.replace(self._plates, wishes=wishes or Wishes())
        how = {"seed": seed, "policy": policy or Policy()}
        return plans_as_made(self.planner.probes, prompts, plates, **how)

    def codes(
        self,
        blueprints: Sequence[Blueprint],
        *,
        seed: int | Sequence[int] = 0,
        known: np.ndarray | None = None,
        masked: np.ndarray | None = None,
        policy: Policy | None = None,
        guidance: float | None = None,
    ) -> np.ndarray:
        """Codes [B y x Q] of pages; with `known` codes only the `masked` positions are printed
        anew (by a causal decoder given those before them). Without `policy` or `guidance` it is as
        the decoder's config has it. With a `seed` for each page a page is what it is with that seed
        alone.

        Raises `ValueError` for a page of another size than the models', and for `guidance` other
        than 1 of a decoder that never went without its conditions.
        """
        press = decoder_press(self.decoder.config, guidance=guidance, changed=self._changed)
        press = dataclasses.replace(press, policy=policy or press.policy)
        request = self._request(blueprints, seed=seed, known=known, masked=masked)
        return self._print(*request, press=press)

    def stream(
        self, blueprints: Sequence[Blueprint], *, seed: int = 0, every: int = 1
    ) -> Iterator[Partial]:
        """Pages as they are being printed, after `every` rows of codes of a causal decoder, or
        passes of another; the last are what `codes` gives. Codes that are yet to come are those of
        the canonical page.

        Raises what `codes` raises.
        """
        request = self._request(blueprints, seed=seed)
        press = decoder_press(self.decoder.config, changed=self._changed)
        if "step" in self.decoder.probes:
            every *= self.contract["grid"][1]
        canonical = request[2]["glyph_codes"]
        padded = self.decoder.padded(request)
        for part in stream_codes(self._begin, self._go_on, padded, press=press, every=every):
            codes, known = (x[: len(blueprints)] for x in (part.codes, part.known))
            codes = np.where(known[..., None], codes, canonical)
            yield Partial(codes, known, part.num_passes)

    def _request(
        self,
        blueprints: Sequence[Blueprint],
        *,
        seed: int | Sequence[int],
        known: np.ndarray | None = None,
        masked: np.ndarray | None = None,
    ) -> tuple[Any, ...]:
        """What `print_codes` is given, with a key for each row of the bucket."""
        for page in blueprints:
            if (page.width_px, page.height_px) != self.page_px:
                raise ValueError(
                    f"a page of {page.width_px} x {page.height_px} px: these models print "
                    f"{self.page_px[0]} x {self.page_px[1]} px; set width_px and height_px to that"
                )
        B, (y, x), Q = len(blueprints), self.contract["grid"], self.contract["num_codes"]
        known = np.zeros((B, y, x, Q), np.int32) if known is None else known.astype(np.int32)
        masked = np.ones((B, y, x), bool) if masked is None else masked
        shown = decoder_task(self.decoder.config).model.conditioning
        given = conditions(self.tokenizer, shown, blueprints)
        if isinstance(seed, int):
            keys = jax.random.split(jax.random.key(seed), self.decoder.bucket(B))
        else:
            seeds = [*seed, *[0] * (self.decoder.bucket(B) - B)]
            keys = _first_keys(np.asarray(seeds, np.uint32))
        return known, masked, given, keys

    def pixels(self, codes: np.ndarray) -> np.ndarray:
        """The pages of codes, uint8 [B Y X 3]."""
        return self.tokenizer.ask("decode", np.asarray(codes))

    def preview(self, part: Partial) -> np.ndarray:
        """Pages being printed, uint8 [B Y X 3]: where codes are yet to come, the canonical page
        faded halfway to white."""
        pages, f = self.pixels(part.codes), self.contract["downsampling"]
        known = part.known.repeat(f, axis=1).repeat(f, axis=2)[..., None]
        return np.where(known, pages, 128 + pages // 2).astype(np.uint8)

    def copied(self, blueprints: Sequence[Blueprint]) -> np.ndarray:
        """The canonical pages that the decoder is shown, through the tokenizer alone: what a
        decoder that only copies would print. uint8 [B Y X 3]."""
        canonical = np.stack([canonical_page(blueprint) for blueprint in blueprints])
        return self.pixels(self.tokenizer.ask("encode", canonical))

    def proofread(
        self,
        blueprints: Sequence[Blueprint],
        codes: Codes,
        read: Callable[[np.ndarray], Sequence[Sequence[ReadLine]]],
        *,
        max_retries: int,
    ) -> tuple[Codes, list[Proof]]:
        """Print what reads wrong again, in its own boxes only, and keep what reads better: first
        as the canonical page has it, then sampled. `read` has the lines of pages uint8
        [B Y X 3]."""
        shown = decoder_task(self.decoder.config).model.conditioning

        def reprint(rows: Sequence[int], codes: Codes, masked: np.ndarray, retry: int) -> Codes:
            wrong = [blueprints[i] for i in rows]
            if retry == 1 and shown.glyphs == "encoded":
                canonical = conditions(self.tokenizer, shown, wrong)["glyph_codes"]
                return np.where(masked[..., None], canonical, codes)
            policy, again = Policy(temperature=0.5), {"known": codes, "masked": masked}
            return self.codes(wrong, seed=[retry] * len(wrong), policy=policy, **again)

        look = lambda codes: read(self.pixels(codes))  # noqa: E731
        return proofread(blueprints, codes, read=look, reprint=reprint, max_retries=max_retries)


def load(
    folder: str | Path,
    *,
    mesh: Mapping[str, int] | None = None,
    press: Mapping[str, Any] | None = None,
    weights: str = "float32",
) -> Bundle:
    """The press in a folder of three training runs, or in an exported bundle after every byte of it
    was read and compared; nothing in either is code. See `Bundle` for the rest.

    Raises what `Bundle` and `load_model` raise, and `FileNotFoundError` when there is neither.
    """
    folder = Path(folder)
    if not is_sealed(folder) and not all((folder / name).is_dir() for name in MODELS):
        raise FileNotFoundError(
            f"{folder} is no bundle: it has no bundle.json, and not the runs {', '.join(MODELS)}"
        )
    return Bundle(folder, mesh=mesh, press=press, weights=weights)
