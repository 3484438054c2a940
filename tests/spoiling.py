"""A tiny bundle exported once, copies of it, and ways to spoil one so that only one thing is
wrong."""

import functools
import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

import pipeline
from evals.least_type import LeastType, keep
from evals.results import to_json
from pipeline.export.bundle import export_bundle
from pipeline.sealed import MODELS
from tests.bundles import tiny_bundle
from tests.evals.samples import made
from train.checkpoint import manifest
from train.checkpoint.manifest import hash_of
from train.export import seal
from train.export.folder import open_weights, write_weights

WEIGHTS = "weights/model.safetensors"


@functools.cache
def runs():
    """The three tiny runs, with an evaluation and a least legible type beside them."""
    source = Path(tempfile.mkdtemp(prefix="letterpress_runs_"))
    for name in MODELS:
        (source / name).symlink_to(tiny_bundle() / name)
    (source / "pages").mkdir()
    (source / "pages" / "scores.json").write_text(to_json(made()))
    hashes = {n: pipeline.load_model(source / n).weight_hash for n in ("tokenizer", "decoder")}
    keep(source, LeastType(14.0, hashes, "pages-sizes", 9, {}, "evaluate.py"))
    return source


@functools.cache
def exported():
    """Their bundle in float32, its largest file cut into shards."""
    out = Path(tempfile.mkdtemp(prefix="letterpress_exported_")) / "bundle"
    assert export_bundle(runs(), out, shard_bytes=150_000, parity=False).ok
    return out


def copied(target):
    """A copy to spoil: files are hard links until they are written anew."""
    return Path(shutil.copytree(exported(), target, copy_function=os.link))


def rewrite(path, data):
    """Other bytes under this name, while its hard links keep theirs."""
    path.unlink(missing_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    rewrite(path, bytes(data))


def cut(path):
    rewrite(path, path.read_bytes()[:-1])


def forge(bundle, change):
    """`bundle.json` with a change, and sums that are right again."""
    path = bundle / seal.NAME
    body = json.loads(path.read_text())
    for name in [n for n in body["files"] if (bundle / n).is_file()]:
        size = (bundle / name).stat().st_size
        body["files"][name] = {"bytes": size, "sha256": seal.sha256(bundle / name)}
    change(body)
    body.pop("sha256")
    rewrite(path, json.dumps({**body, "sha256": hash_of(body)}))


def reseal(bundle):
    """As if it had been exported as it is now."""
    body = seal.read(bundle)
    (bundle / seal.NAME).unlink()
    seal.seal(bundle, {k: v for k, v in body.items() if k not in ("schema", "files")})


def reweigh(model, change):
    """A model's weights written again with a change, and every sum right again."""
    found, noted = open_weights(model)
    arrays = {name: np.asarray(stored[...]) for name, stored in found.items()}
    change(arrays)
    shutil.rmtree(model / "weights")
    about = {k: v for k, v in noted.items() if k not in ("schema", "arrays", "files")}
    with write_weights(model, {n: (a.dtype, a.shape) for n, a in arrays.items()}, about) as writer:
        for name, array in arrays.items():
            writer.put(name, array)
    reseal(model.parent)


def reconfigure(model, change):
    """A model's config with a change, and every sum right again."""
    config = json.loads((model / "config.json").read_text())
    change(config)
    rewrite(model / "config.json", json.dumps(config))
    body = json.loads((model.parent / seal.NAME).read_text())
    body["models"][model.name]["config_hash"] = hash_of(config)
    body.pop("sha256")
    rewrite(model.parent / seal.NAME, json.dumps({**body, "sha256": hash_of(body)}))
    reseal(model.parent)


def largest(arrays):
    return max((name for name in arrays if name[:7] == "params/"), key=lambda n: arrays[n].size)


def sum_up(model):
    """The sums of weights that are there, in both manifests."""
    noted = manifest.read(model / "weights")
    files = {
        name: {"bytes": size, "crc32": manifest.crc32(model / "weights" / name)}
        for name, size in manifest.listing(model / "weights").items()
    }
    (model / "weights" / manifest.NAME).unlink()
    manifest.write(model / "weights", {**noted, "files": files})
    reseal(model.parent)


def nan_in(array):
    """A copy whose last number is none."""
    array = array.copy()
    array.flat[-1] = np.nan
    return array
