"""Configs: overrides are typed and misspelt keys name their neighbours."""

import dataclasses

import pytest

from train.config import ConfigError, build, load

FILE = """
from ml_collections import ConfigDict
def get_config():
    return ConfigDict({"model": {"width": 8, "name": "patch"}, "rate": 0.5, "sizes": (1, 2)})
"""


@dataclasses.dataclass(frozen=True)
class Model:
    width: int
    name: str = "x"


@dataclasses.dataclass(frozen=True)
class Whole:
    model: Model
    rate: float
    sizes: tuple[int, ...] = ()


@pytest.fixture
def path(tmp_path):
    (tmp_path / "c.py").write_text(FILE)
    return tmp_path / "c.py"


def test_overrides_reach_the_dataclass(path):
    config = load(path, ["--config.model.width=16", "--config.rate=2", "--config.model.name=vit"])
    assert build(Whole, config) == Whole(Model(16, "vit"), 2.0, (1, 2))


def test_an_override_replaces_a_whole_mapping(path):
    config = load(path, ["--config.model={'width': 3}"])
    assert build(Whole, config) == Whole(Model(3), 0.5, (1, 2))
    with pytest.raises(ConfigError, match="has no key 'widht'; did you mean width"):
        build(Whole, load(path, ["--config.model={'widht': 3}"]))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.model.widht=1", "did you mean width"),
        ("--config.model.width=wide", "'wide' is not a int"),
        ("--config.modle.width=1", "did you mean model"),
        ("--config.model.width=True", "'True' is not a int"),
        ("--config.rate.peak=1", "what stands before it has no keys"),
        ("model.width=1", "not of the form"),
        ("--config.model=3", "'3' is not a mapping"),
    ],
)
def test_bad_overrides_are_named(path, argument, message):
    with pytest.raises(ConfigError, match=message):
        load(path, [argument])


def test_missing_things_are_named(path, tmp_path):
    with pytest.raises(ConfigError, match="no config file"):
        load(tmp_path / "none.py")
    with pytest.raises(ConfigError, match=r"config\.model\.width is missing"):
        build(Whole, {"model": {}, "rate": 1.0})
    with pytest.raises(ConfigError, match="has no key 'colour'"):
        build(Whole, {"colour": 1})
