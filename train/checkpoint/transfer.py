"""Fine-tuning: take named arrays of another run's checkpoint, by rules that leave nothing unsaid.

A rule is a pattern of names (`*` also crosses `/`) and what becomes of the arrays it matches; the
first rule that matches an array decides:

    {"params/head/*": "fresh", "params/*": "load", "opt/*": "fresh", "step": "fresh"}
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Mapping
from pathlib import Path

import jax
from absl import logging

from train.checkpoint import arrays
from train.checkpoint.manifest import CheckpointError
from train.checkpoint.opening import opened
from train.state import State

LOAD, FRESH = "load", "fresh"


@dataclasses.dataclass(frozen=True)
class Transfer:
    """Names of arrays: taken from the checkpoint, left as initialised, and there but not used."""

    loaded: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        lists = {"loaded": self.loaded, "left fresh": self.fresh, "not used": self.unused}
        return "; ".join(
            f"{len(names)} {what}" + (f" ({', '.join(names)})" if names else "")
            for what, names in lists.items()
        )


def _decide(names: list[str], rules: Mapping[str, str]) -> dict[str, str]:
    """What becomes of each name. Raises `CheckpointError` for a name without a rule, a rule without
    a name, and a rule that says something else."""
    problems = [
        f"the rule {pattern!r} says {what!r}, not {LOAD} or {FRESH}"
        for pattern, what in rules.items()
        if what not in (LOAD, FRESH)
    ]
    decided, used = {}, set()
    for name in names:
        pattern = next((p for p in rules if fnmatch.fnmatchcase(name, p)), None)
        if pattern is None:
            problems.append(f"no rule covers {name}")
        else:
            decided[name] = rules[pattern]
            used.add(pattern)
    problems += [f"the rule {pattern!r} decides no array" for pattern in rules.keys() - used]
    if problems:
        raise CheckpointError(
            f"the rules do not fit this run ({'; '.join(problems)}): give each array one that says "
            f"{LOAD} or {FRESH}"
        )
    return decided


def load_partly(
    folder: Path,
    state: State,
    rules: Mapping[str, str],
    *,
    step: int | None = None,
    fall_back: bool = False,
) -> tuple[State, Transfer]:
    """A freshly initialised state with the arrays that `rules` load from a step (the newest) of
    another run, where they lie in `state`, and the list of what came from where, which is logged.

    Raises `CheckpointError` for rules that do not cover the state, and for arrays to be loaded that
    are missing there or have another shape or dtype: all of them, before any is read.
    """
    leaves = arrays.named(state)
    decided = _decide(list(leaves), rules)
    wanted = {name: leaf for name, leaf in leaves.items() if decided[name] == LOAD}
    parts = sorted({arrays.part_of(name) for name in wanted})
    with opened(folder, step=step, parts=parts, fall_back=fall_back) as (target, noted):
        there = {name: noted["arrays"][name] for name in wanted if name in noted["arrays"]}
        if lines := arrays.mismatches(there, arrays.table(wanted)):
            raise CheckpointError(
                f"{target} has not what the rules load ({'; '.join(lines)}): nothing was read; "
                f"say {FRESH} for these"
            )
        loaded = arrays.read(target, wanted)
    told = Transfer(
        tuple(sorted(wanted)),
        tuple(sorted(leaves.keys() - wanted.keys())),
        tuple(sorted(noted["arrays"].keys() - wanted.keys())),
    )
    logging.info("from %s: %s", target, told)
    merged = [loaded.get(name, leaf) for name, leaf in leaves.items()]
    return jax.tree.unflatten(jax.tree.structure(state), merged), told
