"""A save is whole or not there, costs the loop a copy, and comes back in the same bits."""

import contextlib
import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from tests.train import saving_toys
from tests.train.saving_toys import quiet, same, toy
from train import mesh as meshes
from train.checkpoint import (
    About,
    CheckpointConfig,
    CheckpointError,
    Checkpoints,
    load_weights,
    manifest,
    newest,
    steps,
)
from train.state import State


def test_every_kind_of_leaf_comes_back_in_the_same_bits(tmp_path):
    state = toy(3)
    with quiet(tmp_path) as saves:
        saves.save(state, 3)
    same(quiet(tmp_path).restore(state), state)
    weights, extra, _ = load_weights(tmp_path)
    np.testing.assert_array_equal(weights["stack"]["kernel"], state.ema["stack"]["kernel"])
    assert extra["seen"] == 4_000_000_003 and extra["seen"].dtype == np.uint32
    weights, _, _ = load_weights(tmp_path, ema=False)
    assert set(weights["listed"]) == {0, 1} and weights["listed"][1].dtype == jnp.bfloat16


def test_any_field_of_a_state_is_saved_with_the_rest(tmp_path):
    @jax.tree_util.register_dataclass
    @dataclasses.dataclass(frozen=True)
    class Guarded(State):
        noted: dict = dataclasses.field(default_factory=dict)

    fields = {f.name: getattr(toy(), f.name) for f in dataclasses.fields(State)}
    state = Guarded(**fields, noted={"skipped": jnp.int32(2), "norm": jnp.float32(0.3)})
    with quiet(tmp_path) as saves:
        saves.save(state, 1)
    same(quiet(tmp_path).restore(state), state)
    assert newest(tmp_path)[1]["arrays"]["noted/skipped"] == ["int32", []]
    with pytest.raises(CheckpointError, match="noted/norm is there and not wanted; noted/skipped"):
        quiet(tmp_path).restore(toy())


def test_the_loop_goes_on_while_the_arrays_are_written(tmp_path, monkeypatch):
    gate = threading.Event()
    saves = quiet(tmp_path)
    finish = saves._writer.finish
    monkeypatch.setattr(saves._writer, "finish", lambda: (gate.wait(30), finish()))
    state = toy()
    saves.save(state, 1)
    assert steps(tmp_path) == []
    saves.check()
    # what the step donates may be overwritten at once
    step = jax.jit(lambda s: jax.tree.map(lambda x: x * 0 + 1, s), donate_argnums=0)
    wanted = jax.tree.map(np.array, toy().params)
    jax.block_until_ready(step(state.params))
    gate.set()
    saves.wait()
    assert steps(tmp_path) == [1] and saves.blocked_s > 0
    restored = quiet(tmp_path).restore(toy())
    jax.tree.map(np.testing.assert_array_equal, restored.params, wanted)


def test_the_manifest_says_what_was_run(tmp_path):
    about = About(config={"a": (1, 2)}, token_contract={"codebook_size": 4096})
    with Checkpoints(tmp_path, identity={"task": "toy"}, about=about) as saves:
        position = {"step": 7, "epoch": 1}
        saves.save(toy(), 7, metrics={"loss": np.float32(0.5)}, data_position=position)
        saves.save(toy(), 8)
    noted = manifest.read(tmp_path / "7")
    assert noted["schema"] == manifest.SCHEMA and noted["step"] == 7
    assert noted["metrics"] == {"loss": 0.5} and noted["data_position"] == position
    assert noted["config"] == {"a": [1, 2]} and noted["token_contract"]["codebook_size"] == 4096
    assert noted["identity_hash"] == manifest.hash_of({"task": "toy"})
    assert noted["config_hash"] == manifest.hash_of({"a": [1, 2]})
    assert abs(noted["time"] - time.time()) < 600 and noted["versions"]["jax"] == jax.__version__
    assert noted["git_revision"] is None or len(noted["git_revision"].split("-")[0]) == 40
    assert noted["arrays"]["params/listed/1"] == ["bfloat16", [4]]
    assert manifest.read(tmp_path / "8")["data_position"] == {"step": 8}
    files = {p.relative_to(tmp_path / "7").as_posix() for p in (tmp_path / "7").rglob("*")
             if p.is_file()}  # fmt: skip
    assert set(noted["files"]) == files - {"manifest.json"}


@pytest.mark.parametrize("moment", ["arrays", "manifest", "removal"])
def test_sigkill_during_a_save_costs_only_that_save(tmp_path, moment):
    command = [sys.executable, str(Path(saving_toys.__file__)), str(tmp_path), moment]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == -signal.SIGKILL, ended.stderr[-2000:]
    (tmp_path / "notes").mkdir()
    left = 2 if moment == "removal" else 1
    assert steps(tmp_path) == [left]
    load_weights(tmp_path)  # a reader does not mind what was cut short
    with quiet(tmp_path, keep=1) as saves:
        same(saves.restore(toy()), toy(left))
        assert sorted(p.name for p in tmp_path.iterdir()) == [str(left), "notes"]
        saves.save(toy(3), 3)
    assert steps(tmp_path) == [3]


def test_an_error_in_the_background_is_one_sentence_at_the_next_call(tmp_path, monkeypatch):
    saves = quiet(tmp_path)
    saves.save(toy(1), 1)
    saves.wait()
    with monkeypatch.context() as patch:
        patch.setattr(manifest, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space")))
        saves.save(toy(2), 2)
        saves._thread.join()
        with pytest.raises(CheckpointError) as told:
            saves.check()
    sentence = str(told.value)
    assert "step 2 could not be saved" in sentence and "free space there" in sentence
    assert "step 1 is complete" in sentence and "\n" not in sentence
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1"]
    saves.wait()  # told once
    saves.save(toy(3), 3)
    saves.close()
    assert steps(tmp_path) == [1, 3]


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 2 MiB; making one takes root."""
    where = tmp_path / "disk"
    where.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(where)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a tmpfs")
    yield where
    subprocess.run(["umount", "--lazy", str(where)], check=True)


@contextlib.contextmanager
def no_file_over(size_bytes):
    """As a quota does: writing past this size fails."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Orbax's own
@pytest.mark.parametrize("limit", ["quota", "disk"])
def test_a_full_disk_leaves_the_save_before(tmp_path, request, limit, caplog, monkeypatch):
    folder = tmp_path if limit == "quota" else request.getfixturevalue("tiny_disk")
    saves = quiet(folder)
    saves.save(toy(1), 1)
    saves.wait()
    big = toy(2, params={"kernel": jnp.ones((1024, 1024))})  # 4 MiB
    finish = saves._writer.finish  # after Orbax's threads have failed
    monkeypatch.setattr(saves._writer, "finish", lambda: (time.sleep(0.5), finish()))
    with no_file_over(1 << 20) if limit == "quota" else contextlib.nullcontext():
        saves.save(big, 2)
        with pytest.raises(CheckpointError, match=r"step 2 .*free space there .*step 1 is comp"):
            saves.wait()
    assert not [r for r in caplog.records if "orbax" in r.pathname and r.levelname == "ERROR"]
    assert sorted(p.name for p in folder.iterdir()) == ["1"]
    same(quiet(folder).restore(toy()), toy(1))
    saves.save(toy(3), 3)
    saves.close()
    assert steps(folder) == [1, 3]


def test_a_run_that_ends_in_an_error_finishes_its_save_and_tells_its_own_error(tmp_path):
    with pytest.raises(KeyboardInterrupt), quiet(tmp_path) as saves:
        saves.save(toy(1), 1)
        raise KeyboardInterrupt
    assert steps(tmp_path) == [1]


def test_a_step_is_not_written_twice(tmp_path):
    saves = quiet(tmp_path)
    saves.save(toy(1), 1)
    saves.wait()
    written = (tmp_path / "1" / "manifest.json").stat().st_mtime_ns
    saves.save(toy(1), 1)
    saves.close()
    assert (tmp_path / "1" / "manifest.json").stat().st_mtime_ns == written


def test_a_save_that_is_due_by_steps_or_minutes(tmp_path):
    saves = quiet(tmp_path, every_steps=10, every_minutes=2.0)
    clock = {step: 3.0 * 15 * step for step in range(1, 26)}  # 45 s a step
    assert [s for s in clock if saves.due(s, clock[s])] == [4, 7, 10, 13, 16, 19, 20, 23]
    never = quiet(tmp_path, every_steps=0)
    assert not any(never.due(step) for step in range(1, 30))

    class Two:
        process_index, num_processes, is_first = 0, 1, True

    lone = quiet(tmp_path, every_steps=0, every_minutes=1e-9)
    assert [lone.due(1), lone.due(2)] == [False, True]
    lone.cluster = Two()
    Two.num_processes = 2
    with pytest.raises(ValueError, match="a clock that all processes agree on"):
        lone.due(3)


def test_other_arrays_are_all_listed_before_any_is_read(tmp_path, monkeypatch):
    with quiet(tmp_path) as saves:
        saves.save(toy(1), 1)
    params = dict(toy().params)
    params["stack"] = {"kernel": jnp.zeros((8, 8)), "bias": jnp.zeros(8)}
    params["listed"] = {0: jnp.zeros(4, jnp.bfloat16)}
    monkeypatch.setattr("train.checkpoint.arrays.read", None)
    with pytest.raises(CheckpointError) as told:
        quiet(tmp_path).restore(toy(0, params=params))
    for line in [
        "params/stack/kernel is float32[8, 16] there and float32[8, 8] here",
        "params/stack/bias is missing there",
        "params/listed/1 is there and not wanted",
        "params/listed/0 is float32[4] there and bfloat16[4] here",
        "nothing was read",
    ]:
        assert line in str(told.value)


def test_restores_onto_another_mesh(tmp_path):
    kernel = jnp.arange(128, dtype=jnp.float32).reshape(8, 16)

    def placed(shape, spec):
        place = NamedSharding(meshes.build(shape), PartitionSpec(*spec))
        return toy(1, params={"kernel": jax.device_put(kernel, place)}), place

    state, _ = placed({"data": 2, "fsdp": 4}, ("fsdp", "data"))
    with quiet(tmp_path) as saves:
        saves.save(state, 1)
    for shape, spec in [({"data": 8}, ("data",)), ({"data": 4, "fsdp": 2}, (None, "fsdp"))]:
        wanted, place = placed(shape, spec)
        abstract = jax.ShapeDtypeStruct((8, 16), jnp.float32, sharding=place)
        found = quiet(tmp_path).restore(toy(1, params={"kernel": abstract})).params["kernel"]
        assert found.sharding == place
        np.testing.assert_array_equal(found, wanted.params["kernel"])


def test_manifests_of_other_schemas_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="train there first"):
        load_weights(tmp_path)
    (tmp_path / "5").mkdir()
    with pytest.raises(CheckpointError, match=r"step 5 was cut short"):
        newest(tmp_path)
    for text, said in [({"step": 5}, "has no schema"), ({"schema": 99}, "has schema 99")]:
        (tmp_path / "5" / "manifest.json").write_text(json.dumps(text))
        with pytest.raises(CheckpointError, match=f"{said} and this code reads schema"):
            load_weights(tmp_path)
        with pytest.raises(CheckpointError, match=said):
            quiet(tmp_path).restore(toy(), fall_back=True)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"keep": 0}, "the newest step always stays"),
        ({"every_minutes": -1}, "every_minutes is -1; give 0 or more"),
        ({"best_mode": "most"}, "give max or min"),
        ({"keep_best": 2}, "go together"),
        ({"best_metric": "loss"}, "go together"),
        ({"timeout_s": 0}, "above 0"),
    ],
)
def test_configs_that_mean_nothing_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        CheckpointConfig(**fields)
