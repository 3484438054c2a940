"""What an evaluation found, as frozen dataclasses: their JSON is `scores.json`.

Names of stages and of those who lose words are `evals.attribution.STAGES`; facets and their values
are the cases' `groups`. A number that does not exist is nan here and null there.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib.metadata
import json
import math
import shutil
import subprocess
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evals.scoring import Score

SCHEMA = 1  # of scores.json; another is refused
_LATER = {"later": True}  # marks a field that the first files of the schema lack
_PACKAGES = ("jax", "flax", "numpy", "pillow", "rapidfuzz", "rapidocr", "onnxruntime")


class ResultsError(ValueError):
    """A scores.json that cannot be used; the message names the place in it."""


@dataclasses.dataclass(frozen=True)
class MetricScore(Score):
    """A score with what one must know to read it: `Metric.source` and its direction."""

    source: str = ""
    lower_is_better: bool = False


@dataclasses.dataclass(frozen=True)
class Group:
    """The scores of the cases that share one value of a facet."""

    num_cases: int
    metrics: Mapping[str, Score]


@dataclasses.dataclass(frozen=True)
class ControlNote:
    """What a control is and over how many cases; `problems` say what of it could not be set or
    read."""

    said: str
    num_cases: int
    problems: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class LegibilityBin:
    """The share of `num_words` words read exactly, of those whose characters are from `px[0]` to
    under `px[1]` pixels wide, with its interval."""

    px: tuple[float, float]
    accuracy: float
    low: float
    high: float
    num_words: int

    def __post_init__(self) -> None:
        if not 0 < self.px[0] < self.px[1] < math.inf:
            raise ResultsError(
                f"a legibility bin from {self.px[0]:g} to {self.px[1]:g} px cannot be drawn: give "
                "two growing, finite edges above 0 (the last may be the largest size measured)"
            )


@dataclasses.dataclass(frozen=True)
class Attribution:
    """Target words by who lost them, with `read` for those that came through: in total, and by
    facet and value. A facet holds no word twice, but may not know every word."""

    total: Mapping[str, int]
    by: Mapping[str, Mapping[str, Mapping[str, int]]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for facet, values in self.by.items():
            for who in {who for counts in values.values() for who in counts}:
                found = sum(counts.get(who, 0) for counts in values.values())
                if found > self.total.get(who, 0):
                    raise ResultsError(
                        f"attribution by {facet} has {found} words of {who}, of "
                        f"{self.total.get(who, 0)} in total: it counts a word twice"
                    )


@dataclasses.dataclass(frozen=True)
class Results:
    """Everything about one evaluation of one system.

    `run` says whose pictures they are, `command` makes the evaluation again, `reader` is the OCR
    engine's identity. `headline` names one of `metrics`, `missing` the pictures that were not there
    or could not be opened and were scored as empty. Metrics of `controls` (blank, constant_100,
    constant_500, typeset, shuffled), `groups` and `stages` are those of `metrics`, or some of them;
    `control_notes` say what the controls are, but for files of before there were any.
    What only a bundle of ours has is empty for pictures of other systems: `stages`, `attribution`,
    `legibility` by stage, `floors_px` (pixels a character under which a stage's words are not
    legible), `type_floors_px` (the same in pixels of type, as `blueprint.check.findings` takes it),
    and `plans`, the planner's own scores.
    """

    benchmark: str
    run: str
    headline: str
    command: str
    versions: Mapping[str, str]
    reader: Mapping[str, str]
    seed: int
    images_per_prompt: int
    num_cases: int
    num_pictures: int
    metrics: Mapping[str, MetricScore]
    controls: Mapping[str, Mapping[str, Score]]
    missing: tuple[str, ...] = ()
    groups: Mapping[str, Mapping[str, Group]] = dataclasses.field(default_factory=dict)
    stages: Mapping[str, Mapping[str, Score]] = dataclasses.field(default_factory=dict)
    attribution: Attribution | None = None
    legibility: Mapping[str, tuple[LegibilityBin, ...]] = dataclasses.field(default_factory=dict)
    floors_px: Mapping[str, float] = dataclasses.field(default_factory=dict)
    type_floors_px: Mapping[str, float] = dataclasses.field(default_factory=dict)
    plans: Mapping[str, MetricScore] = dataclasses.field(default_factory=dict)
    control_notes: Mapping[str, ControlNote] = dataclasses.field(
        default_factory=dict, metadata=_LATER
    )

    def __post_init__(self) -> None:
        if self.headline not in self.metrics:
            raise ResultsError(
                f"the headline {self.headline!r} is none of the metrics {', '.join(self.metrics)}"
            )
        if unknown := set(self.control_notes) - set(self.controls):
            raise ResultsError(
                f"there are notes of {', '.join(sorted(unknown))}, which is none of the controls "
                f"{', '.join(self.controls)}"
            )
        rows = [*self.controls.values(), *self.stages.values()]
        rows += [group.metrics for values in self.groups.values() for group in values.values()]
        if unknown := {name for row in rows for name in row} - set(self.metrics):
            raise ResultsError(
                f"{', '.join(sorted(unknown))} of a control, stage or group is none of the metrics "
                f"{', '.join(self.metrics)}"
            )

    @property
    def reader_name(self) -> str:
        """The reader in few words: its engine and version."""
        known = [self.reader[key] for key in ("engine", "version") if key in self.reader]
        return " ".join(known) or next(iter(self.reader.values()), "an unnamed reader")


def to_json(results: Results) -> str:
    """Indented JSON, the same bytes for the same results; raises `ResultsError` at an infinite
    number."""
    whole = {"schema": SCHEMA, **dataclasses.asdict(results)}
    try:
        return json.dumps(_null(whole), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    except ValueError:
        raise ResultsError("an infinite number has no place in scores.json") from None


def _null(value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, Mapping):
        return {key: _null(inner) for key, inner in value.items()}
    if isinstance(value, (tuple, list)):
        return [_null(inner) for inner in value]
    return value


def from_json(text: str) -> Results:
    """The inverse of `to_json`; raises `ResultsError` naming what is wrong and where."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as problem:
        raise ResultsError(f"this is not JSON ({problem}); evaluate again") from None
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        found = value.get("schema") if isinstance(value, dict) else None
        raise ResultsError(
            f"schema {found!r} of these scores is not known here, {SCHEMA} is: evaluate again, or "
            "read them with the version that wrote them"
        )
    del value["schema"]
    return _parsed(value, Results, "")


def load(path: Path) -> Results:
    """The results of a scores.json; raises `ResultsError` that begins with the path."""
    if not path.is_file():
        raise ResultsError(f"there is no {path}; scripts/evaluate.py writes it")
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except (ResultsError, UnicodeDecodeError) as problem:
        raise ResultsError(f"{path}: {problem}") from None


def _parsed(value: Any, hint: Any, path: str) -> Any:
    """A JSON value as what the type hint of a field says."""
    if isinstance(hint, types.UnionType):  # such as Attribution | None
        inner = next(arm for arm in typing.get_args(hint) if arm is not types.NoneType)
        return None if value is None else _parsed(value, inner, path)
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _dataclass(_checked(value, dict, path), hint, path)
    if origin is Mapping:
        items = _checked(value, dict, path).items()
        return {key: _parsed(inner, inside[1], f"{path}.{key}") for key, inner in items}
    if origin is tuple:
        several = _checked(value, list, path)
        hints = [inside[0]] * len(several) if inside[-1] is Ellipsis else list(inside)
        if len(several) != len(hints):
            raise ResultsError(f"{path}: {value!r} has not {len(hints)} values")
        pairs = zip(several, hints, strict=True)
        return tuple(_parsed(inner, hint, f"{path}[{i}]") for i, (inner, hint) in enumerate(pairs))
    if hint is float:
        return math.nan if value is None else float(_checked(value, (int, float), path))
    return _checked(value, hint, path)


def _dataclass(value: dict[str, Any], cls: Any, path: str) -> Any:
    hints, prefix = typing.get_type_hints(cls), f"{path}." if path else ""
    for key in value:
        if key not in hints:
            near = difflib.get_close_matches(key, hints, n=2, cutoff=0.5) or list(hints)
            raise ResultsError(f"{prefix}{key} is no field; did you mean {', '.join(near)}?")
    later = {field.name for field in dataclasses.fields(cls) if "later" in field.metadata}
    if absent := [name for name in hints if name not in value and name not in later]:
        raise ResultsError(f"{prefix}{absent[0]} is missing")
    return cls(
        **{
            name: _parsed(value[name], hint, f"{prefix}{name}")
            for name, hint in hints.items()
            if name in value
        }
    )


def _checked(value: Any, kind: Any, path: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        names = {dict: "object", list: "list", str: "string", int: "whole number", float: "number"}
        wanted = names.get(kinds[-1], "truth value")
        raise ResultsError(f"{path}: {value!r} is not a {wanted}")
    return value


def flat(results: Results) -> dict[str, float]:
    """Scalars for curves over checkpoints, `stages/end_to_end/word_accuracy` and the like; those
    that do not exist are left out."""
    found = {name: score.value for name, score in results.metrics.items()}
    for title, rows in (("controls", results.controls), ("stages", results.stages)):
        for row, scores in rows.items():
            found |= {f"{title}/{row}/{name}": score.value for name, score in scores.items()}
    for facet, values in results.groups.items():
        for value, group in values.items():
            if results.headline in group.metrics:
                found[f"groups/{facet}/{value}"] = group.metrics[results.headline].value
    if results.attribution:
        total = results.attribution.total
        num_words = max(sum(total.values()), 1)
        found |= {f"attribution/{who}": count / num_words for who, count in total.items()}
    found |= {f"floors_px/{stage}": px for stage, px in results.floors_px.items()}
    found |= {f"plans/{name}": score.value for name, score in results.plans.items()}
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


def versions() -> dict[str, str]:
    """What is installed here that a score depends on, and our own revision in a git checkout."""
    found = {}
    root = Path(__file__).resolve().parents[1]
    # Without a .git of our own git would answer for a repository around us.
    if (root / ".git").exists() and shutil.which("git"):
        described = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=10"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if described.returncode == 0:
            found["letterpress"] = described.stdout.strip()
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
