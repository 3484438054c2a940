"""Whatever was done to an exported bundle is refused by name, in one sentence."""

import json
from pathlib import Path

import numpy as np
import pytest

import pipeline
from evals.least_type import FILE as LEAST_TYPE
from pipeline.sealed import require_readable
from tests.spoiling import (
    WEIGHTS,
    copied,
    cut,
    flip,
    forge,
    largest,
    nan_in,
    reconfigure,
    reseal,
    reweigh,
    rewrite,
    sum_up,
)  # fmt: skip
from train.data.codes import ContractError
from train.export import FormatError, seal
from train.export.seal import SealError


@pytest.mark.parametrize("what", [flip, cut, Path.unlink])
def test_every_file_is_refused_by_name_when_one_byte_is_another(tmp_path, what):
    bundle = copied(tmp_path / "bundle")
    names = sorted(seal.read(bundle)["files"])
    assert len(names) > 12
    for name in names:
        whole = (bundle / name).read_bytes()
        what(bundle / name)
        with pytest.raises(SealError) as refused:
            pipeline.load(bundle)
        assert f"{name} " in str(refused.value) and "export the bundle again" in str(refused.value)
        rewrite(bundle / name, whole)
    require_readable(bundle)


def _rename(bundle):
    (bundle / "decoder" / WEIGHTS).rename(bundle / "decoder/weights/decoder.safetensors")


def _add_checkpoints(bundle):
    (bundle / "elsewhere").mkdir()
    (bundle / "planner/checkpoints").symlink_to(bundle / "elsewhere")


def _link_inside(bundle):
    (bundle / "README.md").unlink()
    (bundle / "README.md").symlink_to(bundle / "parity.json")


def _link_folder(bundle):
    (bundle / "planner").rename(bundle.with_name(f"{bundle.name}-planner"))
    (bundle / "planner").symlink_to(bundle.with_name(f"{bundle.name}-planner"))


def _name(name):
    def spoil(bundle):
        entry = {"bytes": 4, "sha256": "0" * 64}
        forge(bundle, lambda body: body["files"].update({name: entry}))

    return spoil


def _say(**changes):
    return lambda bundle: forge(bundle, lambda body: body.update(changes))


def _json(text):
    return lambda bundle: rewrite(bundle / seal.NAME, text)


SEALS = {
    "a byte of bundle.json": (lambda b: flip(b / seal.NAME), r"bundle.json (is not as|cannot be)"),
    "no JSON": (_json("{"), "bundle.json cannot be read as JSON"),
    "a list": (_json("[]"), "bundle.json has no schema"),
    "a nest": (_json("[" * 100_000), "bundle.json cannot be read as JSON"),
    "a newer schema": (_say(schema=2), "has schema 2 and this code reads schema 1: read it with"),
    "no sums": (_say(files=["README.md"]), "does not say the size and SHA-256 of its files"),
    "a renamed file": (_rename, r"model.safetensors is missing; .*/decoder.safetensors is not"),
    "an unlisted file": (
        lambda b: (b / "planner/notes.txt").write_text("hello"),
        "planner/notes.txt is not listed in bundle.json: remove it",
    ),
    "checkpoints linked in": (_add_checkpoints, "planner/checkpoints is not listed"),
    "a link within": (_link_inside, "README.md is a link: copy the file itself"),
    "a model elsewhere": (_link_folder, "names 'planner/config.json', which is no file of its"),
    "a path outside": (_name("../secret"), r"names '\.\./secret', which is no file of its folder"),
    "an absolute path": (_name("/etc/passwd"), "names '/etc/passwd', which is no file of its"),
    "a path through": (_name("planner/../../x"), r"names 'planner/\.\./\.\./x', which is no file"),
    "a path cut off": (_name("planner\0/x"), "which is no file of its folder"),
    "another blueprint": (_say(blueprint_version=2), "blueprints of version 2 and this code reads"),
    "another vocab": (_say(vocab={"size": 9}), "stand for other things .*'size': 9"),
    "no models": (_say(models=5), "does not tell of tokenizer, planner, decoder"),
    "another run's config": (
        lambda b: (rewrite(b / "decoder/config.json", "{}"), reseal(b)),
        "another config than decoder/config.json: the folders of two exports were mixed",
    ),
    "a planner for a tokenizer": (
        lambda b: reconfigure(b / "tokenizer", lambda c: c.update(task="planner")),
        "tokenizer is a 'planner''s: do not use",
    ),
    "a prompt tokenizer outside": (
        lambda b: reconfigure(
            b / "planner", lambda c: c["data"].update(prompt_tokenizer="/etc/passwd")
        ),
        "reads prompts by '/etc/passwd', which is no file of the bundle",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SEALS)
def test_what_is_not_as_it_was_sealed_is_refused(tmp_path, case):
    spoil, said = SEALS[case]
    bundle = copied(tmp_path / "bundle")
    spoil(bundle)
    with pytest.raises(FormatError, match=said) as refused:
        pipeline.load(bundle)
    assert "\n" not in str(refused.value)


def _set(name_of, value):
    def change(arrays):
        name = name_of(arrays)
        arrays[name] = value(arrays[name])

    return lambda bundle: reweigh(bundle / "tokenizer", change)


def _header(bundle):
    path = bundle / "planner" / WEIGHTS
    rewrite(path, (1 << 50).to_bytes(8, "little") + path.read_bytes()[8:])
    sum_up(bundle / "planner")


def _index(bundle):
    path = bundle / "tokenizer/weights/model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"][next(iter(index["weight_map"]))] = "../../secret.safetensors"
    rewrite(path, json.dumps(index))
    sum_up(bundle / "tokenizer")


WRONG = {
    "a huge header": (_header, FormatError, "model.safetensors is no whole safetensors file"),
    "an index that leads out": (_index, FormatError, "names '../../secret.safetensors', which is"),
    "whole numbers": (
        _set(largest, lambda a: a.astype(np.int32)), FormatError,
        r"params/.* is int32 and the config makes it float32",
    ),
    "too wide numbers": (
        _set(largest, lambda a: a.astype(np.float64)), FormatError, "is float64 and the config",
    ),
    "another shape": (
        _set(largest, lambda a: a[1:]), FormatError,
        r"params/.* is \[\d+, \d+\] and the config makes it \[\d+, \d+\]",
    ),
    "a missing array": (
        lambda b: reweigh(b / "tokenizer", lambda arrays: arrays.pop(largest(arrays))),
        FormatError, "params/.* is missing",
    ),
    "a strange array": (
        lambda b: reweigh(b / "tokenizer", lambda arrays: arrays.update(x=np.ones(1))),
        FormatError, "x is not of the model",
    ),
    "NaN": (_set(largest, nan_in), FormatError, r"params/.* in .*numbers that are not finite"),
    "a tokenizer of others": (
        _set(largest, lambda a: a * 2), ContractError,
        "decoder holds codes of another tokenizer .weights: ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_whole_files_that_are_no_press_are_refused(tmp_path, case):
    spoil, kind, said = WRONG[case]
    bundle = copied(tmp_path / "bundle")
    spoil(bundle)
    require_readable(bundle)  # every sum is right
    with pytest.raises(kind, match=said):
        pipeline.load(bundle)


def test_a_part_of_a_bundle_is_checked_too(tmp_path):
    bundle = copied(tmp_path / "bundle")
    flip(bundle / "planner" / WEIGHTS)
    pipeline.load_model(bundle / "tokenizer")
    with pytest.raises(SealError, match=r"planner/weights/model.safetensors is not as it was"):
        pipeline.load_model(bundle / "planner")


def test_files_on_top_are_told_and_not_read(tmp_path, caplog):
    bundle = copied(tmp_path / "bundle")
    (bundle / "notes.txt").write_text("hello")
    with caplog.at_level("WARNING"):
        require_readable(bundle)
    assert "notes.txt is not listed in bundle.json and is not read" in caplog.text
    (bundle / LEAST_TYPE).unlink()
    reseal(bundle)
    (bundle / LEAST_TYPE).write_text("no JSON")
    assert pipeline.load(bundle).legible_px is None
