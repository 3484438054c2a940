"""Fine-tuning takes what the rules name, lists what it took, and guesses nothing."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.train.saving_toys import quiet, same, toy
from train.checkpoint import CheckpointError, DamageError
from train.checkpoint.transfer import load_partly

REST = {"step": "fresh", "extra/*": "fresh", "opt/*": "fresh", "ema/*": "fresh"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("source")
    with quiet(path) as saves:
        saves.save(toy(1), 1)
        saves.save(toy(2), 2)
    return path


def test_the_first_rule_that_matches_decides_and_all_is_listed(folder):
    fresh = toy(9)
    state, told = load_partly(
        folder, fresh, {"params/listed/*": "fresh", "params/*": "load", **REST}
    )
    np.testing.assert_array_equal(state.params["stack"]["kernel"], toy(2).params["stack"]["kernel"])
    assert told.loaded == ("params/stack/kernel",)
    assert "params/listed/0" in told.fresh and "opt/0/mu/kernel" in told.unused
    assert set(told.loaded) | set(told.fresh) == set(told.loaded) | set(told.unused)
    assert str(told).startswith("1 loaded (params/stack/kernel); ")
    same(state.params["listed"], fresh.params["listed"])
    same(state.opt, fresh.opt)
    older, _ = load_partly(folder, fresh, {"params/*": "load", **REST}, step=1)
    same(older.params, toy(1).params)


def test_another_tree_may_have_more_and_less(folder):
    params = {"stack": dict(toy(9).params["stack"]), "head": jnp.ones(3)}
    state, told = load_partly(
        folder, toy(9, params=params),
        {"params/head": "fresh", "params/*": "load", **REST},
    )  # fmt: skip
    assert state.params["head"].tolist() == [1, 1, 1] and "params/head" in told.fresh
    assert "params/listed/0" in told.unused


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"params/stack/*": "load", **REST}, "no rule covers params/listed/0; no rule covers"),
        ({"params/*": "load", "parms/*": "fresh", **REST}, "rule 'parms/.' decides no array"),
        ({"params/*": "keep", **REST}, "says 'keep', not load or fresh"),
    ],
)
def test_rules_that_do_not_fit_are_named(folder, rules, message):
    with pytest.raises(CheckpointError, match=message):
        load_partly(folder, toy(), rules)


def test_what_is_not_there_is_never_invented(folder, monkeypatch):
    params = {"stack": {"kernel": jnp.ones((8, 8))}, "head": jnp.ones(3)}
    monkeypatch.setattr("train.checkpoint.arrays.read", None)
    with pytest.raises(CheckpointError, match="nothing was read; say fresh") as told:
        load_partly(folder, toy(9, params=params), {"params/*": "load", **REST})
    assert "params/head is missing there" in str(told.value)
    assert "params/stack/kernel is float32[8, 16] there and float32[8, 8]" in str(told.value)


def test_a_damaged_source_is_refused(folder, tmp_path):
    with quiet(tmp_path) as saves:
        saves.save(toy(1), 1)
    victim = next((tmp_path / "1" / "model" / "ocdbt.process_0" / "d").iterdir())
    victim.write_bytes(b"")
    with pytest.raises(DamageError, match="has 0 bytes instead of"):
        load_partly(tmp_path, toy(), {"params/*": "load", **REST})
