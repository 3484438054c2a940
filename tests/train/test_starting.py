"""Training that begins with weights: it has them, trains them on, and refuses others."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest

from tests.bundles import COMPILED_QUICKLY
from tests.train.starting_toy import starting_config
from tests.train.test_distributed import free_port
from tests.train.toys import NetTask, vectors
from train import mesh as meshes
from train.checkpoint import About, CheckpointError, load_weights, manifest, newest
from train.checkpoint.arrays import named
from train.distributed.protocol import Alone
from train.export import seal
from train.export.folder import open_run, placed, write_weights
from train.export.starting import Start, begin, require_own
from train.loop import train
from train.plan import plan

TOY = Path(__file__).with_name("starting_toy.py")
EIGHT = {
    "mesh": {"data": 2, "fsdp": 2, "tensor": 2},
    "rules": {"B": ("data", "fsdp"), "D": "fsdp", "F": "tensor"},
}


def run(workdir, num_steps, *, init="", **changes):
    config = starting_config(num_steps, **changes)
    return train(NetTask(), vectors(), config, workdir, about=About(init=str(init)))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Three steps, with averages that differ from the parameters."""
    workdir = tmp_path_factory.mktemp("source")
    run(workdir, 3)
    return workdir


def arrays_of(source):
    with open_run(source) as (found, _):
        return {name: np.asarray(stored[...]) for name, stored in found.items()}


def exported(source, folder, change=lambda arrays: None, **how):
    """A run's weights in `weights/`, changed."""
    arrays = arrays_of(source)
    change(arrays)
    shapes = {name: (array.dtype, array.shape) for name, array in arrays.items()}
    with write_weights(folder, shapes, {"step": 3, "identity": {}}, **how) as writer:
        for name, array in arrays.items():
            writer.put(name, array)
    return folder


def same(state, wanted):
    ours = named({"params": state.params, "extra": state.extra})
    assert ours.keys() == wanted.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(array, wanted[name])


def init_of(workdir):
    return newest(workdir / "checkpoints")[1]["identity"].get("init", "")


@pytest.mark.parametrize("as_weights", [False, True])
def test_a_run_of_no_steps_has_the_weights(source, tmp_path, as_weights):
    init = exported(source, tmp_path / "exported") if as_weights else source
    state = run(tmp_path / "run", 0, init=init, **EIGHT)
    wanted = arrays_of(source)
    same(state, wanted)
    assert int(state.step) == 0 and wanted["extra/seen"].any()
    for name, array in named({"params": state.ema}).items():
        np.testing.assert_array_equal(array, wanted[name])
    drawn = run(tmp_path / "drawn", 0, **EIGHT)
    for ours, fresh in zip(*map(jax.tree.leaves, (state, drawn)), strict=True):
        assert ours.sharding == fresh.sharding and ours.dtype == fresh.dtype
    for ours, fresh in zip(*map(jax.tree.leaves, (state.opt, drawn.opt)), strict=True):
        np.testing.assert_array_equal(ours, fresh)


@pytest.fixture(scope="module")
def begun(source, tmp_path_factory):
    """(init, workdir) of two further steps, begun with the weights exported."""
    init = exported(source, tmp_path_factory.mktemp("init"), shard_bytes=4096)
    workdir = tmp_path_factory.mktemp("begun")
    run(workdir, 2, init=init)
    return init, workdir


def test_training_goes_on_from_them_and_the_hash_is_of_the_numbers(source, begun, tmp_path):
    start = begin(tmp_path, About(init=str(source)), Alone())
    assert start.weights == init_of(begun[1]) != "" == init_of(source)
    averaged, _, _ = load_weights(source / "checkpoints")
    trained, _, noted = load_weights(begun[1] / "checkpoints", ema=False)  # an average is rounded
    kernels = [weights["stack"]["layer"]["up"]["kernel"] for weights in (trained, averaged)]
    assert 0 < np.abs(kernels[0] - kernels[1]).max() < 0.05 < kernels[1].std()
    np.testing.assert_array_equal(trained["fixed"]["kernel"], averaged["fixed"]["kernel"])
    assert noted["step"] == 2 and noted["init"] == str(begun[0])


def test_a_restart_reads_no_weights_again_and_takes_no_others(source, begun, tmp_path):
    (init, workdir), told = begun, init_of(begun[1])
    other = exported(source, tmp_path / "other", lambda arrays: arrays["extra/seen"].fill(1))
    for wrong, said in ((other, f"init: '{told}' there, '"), ("", f"init: '{told}' there, None")):
        with pytest.raises(CheckpointError, match=said):
            run(workdir, 2, init=wrong)
    moved = init.rename(tmp_path / "moved")
    assert int(run(workdir, 2, init=init).step) == 2  # it is gone, and nobody asks for it
    assert int(run(workdir, 2, init=moved).step) == 2  # the same numbers elsewhere
    with pytest.raises(CheckpointError, match=r"nowhere/checkpoints holds no complete checkpoint"):
        run(workdir, 2, init=tmp_path / "nowhere")
    moved.rename(init)


def test_a_workdir_with_weights_begins_with_them(source, begun, tmp_path):
    workdir = exported(source, tmp_path / "imported")
    same(run(workdir, 0), arrays_of(source))
    start = begin(workdir, About(), Alone())
    assert start.source == workdir and start.weights == init_of(begun[1])
    with pytest.raises(CheckpointError, match=r"holds weights of its own and --config.init names"):
        run(workdir, 0, init=source)
    saved = workdir / "checkpoints" / "2"
    saved.mkdir(parents=True)
    manifest.write(saved, {"identity": {"init": start.weights}, "init": ""})
    (workdir / "weights" / "model.safetensors").unlink()  # a checkpoint has what became of them
    assert begin(workdir, About(), Alone()) == Start(None, start.weights)


def test_what_does_not_fit_is_named_at_once(source, tmp_path, caplog):
    def cut(arrays):
        for name in ("params/fixed/kernel", "params/stack/layer/up/kernel"):
            arrays[name] = arrays[name][:1]
        arrays["extra/seen"] = arrays["extra/seen"].astype(np.int32)

    wrong = exported(source, tmp_path / "wrong", cut)
    said = (
        r"extra/seen is int32 and the config makes it float32; "
        r"params/fixed/kernel is \[1, 16\] and the config makes it \[16, 16\]; "
        r"params/stack/layer/up/kernel is \[1, 16, 32\] and .* it \[2, 16, 32\]\): nothing"
    )
    with pytest.raises(CheckpointError, match=said):
        run(tmp_path / "run", 0, init=wrong)

    def rename(arrays):
        arrays["params/other/kernel"] = arrays.pop("params/fixed/kernel")

    partial = exported(source, tmp_path / "partial", rename)
    with caplog.at_level("INFO"):
        state = run(tmp_path / "run", 0, init=partial)
    drawn = run(tmp_path / "drawn", 0)
    np.testing.assert_array_equal(state.params["fixed"]["kernel"], drawn.params["fixed"]["kernel"])
    wanted = arrays_of(source)
    kernel = state.params["stack"]["layer"]["up"]["kernel"]
    np.testing.assert_array_equal(kernel, wanted["params/stack/layer/up/kernel"])
    assert "so these begin as drawn: params/fixed/kernel" in caplog.text
    assert "1 not used (params/other/kernel)" in caplog.text

    def forget(arrays):
        arrays["params/x"] = np.ones(1)
        for name in [n for n in arrays if n != "params/x"]:
            del arrays[name]

    strange = exported(source, tmp_path / "strange", forget)
    with pytest.raises(CheckpointError, match="it has none of this model's arrays"):
        run(tmp_path / "run", 0, init=strange)


def test_half_precision_is_widened(source, tmp_path):
    init = exported(source, tmp_path / "half", dtype=ml_dtypes.bfloat16)
    wanted = {
        name: array.astype(ml_dtypes.bfloat16).astype(array.dtype)
        for name, array in arrays_of(source).items()
    }
    same(run(tmp_path / "run", 0, init=init), wanted)


def test_damaged_weights_and_bundles_are_refused(source, tmp_path):
    init = exported(source, tmp_path / "bundle" / "planner")
    seal.seal(tmp_path / "bundle", {})
    with pytest.raises(CheckpointError, match="is a bundle of models: give the folder of one"):
        run(tmp_path / "run", 0, init=tmp_path / "bundle")
    run(tmp_path / "run", 0, init=init)
    with pytest.raises(CheckpointError, match=r"part of an exported bundle .*--config.init="):
        require_own(init, {"task": "net", "model": {}})
    path = init / "weights" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"planner/weights/model.safetensors is not as it"):
        run(tmp_path / "run", 0, init=init)
    (tmp_path / "bundle" / seal.NAME).unlink()
    with pytest.raises(CheckpointError, match=r"weights is damaged \(model.safetensors is not"):
        run(tmp_path / "run", 0, init=init)
    (init / "config.json").write_text('{"task": "net", "model": {"width": 8}}')
    with pytest.raises(CheckpointError, match=r"another model \(model.width: 8 there, 16 here"):
        require_own(init, {"task": "net", "model": {"width": 16}})
    require_own(init, {"task": "net", "model": {"width": 8}})
    require_own(source, {"task": "net", "model": {}})  # its checkpoints say what it is


@dataclasses.dataclass
class Watched:
    """A stored array that notes what of it was asked for."""

    array: np.ndarray
    asked: list

    shape = property(lambda self: self.array.shape)
    dtype = property(lambda self: self.array.dtype)

    def __getitem__(self, index):
        self.asked.append(self.array[index].shape)
        return self.array[index]


def test_each_part_is_read_once_and_nothing_whole(source):
    wanted = arrays_of(source)
    planned = plan(NetTask(), starting_config(1, **EIGHT), meshes.build(EIGHT["mesh"]))
    asked = {}
    for name, leaf in named({"params": planned.abstract.params}).items():
        stored = Watched(wanted[name], asked.setdefault(name, []))
        np.testing.assert_array_equal(placed(stored, leaf), wanted[name])
    assert asked["params/stack/layer/up/kernel"] == [(2, 8, 16)] * 4  # of [2, 16, 32], on 8 devices
    assert len(asked["params/stack/layer/norm/scale"]) in (1, 2)


def test_two_processes_begin_with_the_same(source, begun, tmp_path):
    address, pair = f"localhost:{free_port()}", []
    for i in range(2):
        env = {
            **os.environ, "XLA_FLAGS": COMPILED_QUICKLY, "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": "2", "LETTERPRESS_COORDINATOR": address,
            "LETTERPRESS_NUM_PROCESSES": "2", "LETTERPRESS_PROCESS_ID": str(i),
        }  # fmt: skip
        command = [sys.executable, str(TOY), str(source), str(tmp_path)]
        pair.append(
            subprocess.Popen(
                command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        )
    logs = [process.communicate(timeout=240)[0] for process in pair]
    assert [process.returncode for process in pair] == [0, 0], "\n".join(logs)[-4000:]
    assert init_of(tmp_path / "two") == init_of(begun[1]) != ""
    ours, alone = (load_weights(w / "checkpoints") for w in (tmp_path / "two", begun[1]))
    for one, two in zip(*(jax.tree.leaves(found[:2]) for found in (ours, alone)), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)
