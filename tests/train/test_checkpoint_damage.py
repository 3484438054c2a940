"""A damaged file is named, the step before it is offered, and nothing is filled with zeros."""

import shutil

import numpy as np
import pytest

from tests.train.saving_toys import quiet, same, toy
from train.checkpoint import CheckpointError, DamageError, load_weights, verify


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    with quiet(folder, keep=3) as saves:
        for step in (1, 2, 3):
            saves.save(toy(step), step)
    return folder


@pytest.fixture
def run(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "run")
    return tmp_path / "run"


def data_file(step, part="model"):
    """The largest file of a part: arrays."""
    files = [p for p in (step / part / "ocdbt.process_0" / "d").iterdir() if p.is_file()]
    return max(files, key=lambda p: p.stat().st_size)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


HURT = {
    "has .* bytes instead of": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "is missing": lambda path: path.unlink(),
    "is not as it was written": flip,
}


@pytest.mark.parametrize("said", HURT)
@pytest.mark.parametrize("part", ["model", "optimizer"])
def test_a_damaged_file_is_named_with_the_step_to_go_back_to(run, said, part):
    assert verify(run)["step"] == 3
    path = data_file(run / "3", part)
    HURT[said](path)
    message = rf"3 is damaged \({part}/ocdbt.process_0/d/{path.name} {said}.*step 2 is whole"
    with pytest.raises(DamageError, match=message):
        verify(run)
    with pytest.raises(DamageError, match=message):
        quiet(run).restore(toy())
    assert verify(run, step=2)["step"] == 2
    if part == "model":
        with pytest.raises(DamageError, match=message):
            load_weights(run)
        assert load_weights(run, fall_back=True)[2]["step"] == 2
    else:  # readers need not read it
        assert load_weights(run)[2]["step"] == 3


def test_falling_back_is_loud_and_sets_the_damaged_step_aside(run, caplog):
    flip(data_file(run / "3"))
    (run / "2" / "manifest.json").write_text("{")
    with quiet(run) as saves:
        same(saves.restore(toy(), fall_back=True), toy(1))
        assert "step 1 is whole and is used instead" in caplog.text
        assert "2/manifest.json cannot be read" in caplog.text
        assert sorted(p.name for p in run.iterdir()) == ["1", "2.damaged", "3.damaged"]
        saves.save(toy(3), 3)
    same(quiet(run).restore(toy()), toy(3))


def test_sizes_alone_miss_a_flipped_bit_and_find_a_cut_file(run):
    flip(data_file(run / "3", "optimizer"))
    restored = quiet(run).restore(toy(), checksums=False)
    np.testing.assert_array_equal(restored.params["listed"][0], toy(3).params["listed"][0])
    HURT["has .* bytes instead of"](data_file(run / "3"))
    with pytest.raises(DamageError, match="bytes instead of"):
        quiet(run).restore(toy(), checksums=False)


def test_a_flipped_bit_in_the_manifest_is_found(run):
    path = run / "3" / "manifest.json"
    path.write_text(path.read_text().replace('"step": 3', '"step": 4', 1))
    with pytest.raises(DamageError, match=r"manifest.json is not as it was written.*step 2 is"):
        quiet(run).restore(toy())


def test_when_no_step_is_whole_there_is_nothing_to_fall_back_to(run):
    for step in (1, 2, 3):
        flip(data_file(run / str(step)))
    with pytest.raises(DamageError, match="no other step is whole"):
        quiet(run).restore(toy(), fall_back=True)
    with pytest.raises(DamageError, match="no other step is whole"):
        load_weights(run, fall_back=True)


def test_a_step_that_is_not_there_is_named(run):
    with pytest.raises(CheckpointError, match=r"holds no complete step 7; there: 1, 2, 3"):
        load_weights(run, step=7)
    assert load_weights(run, step=1)[2]["step"] == 1
