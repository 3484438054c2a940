"""Where every array of a state lies on the reference mesh: beside its parameter, and as the golden
text says. After a wanted change, `python -m tests.train.test_placement` writes that text anew."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from layers.axes import use_rules
from pipeline.tasks import decoder_task, planner_task, tokenizer_task
from tests.train.toys import NetTask, net_config, vectors
from train import mesh as meshes
from train.config import build, load
from train.feeding import place_batch
from train.optimizer import OptimizerConfig
from train.plan import LoopConfig, plan
from train.state import names

ROOT = Path(__file__).resolve().parents[2]
CUBE = {"data": 2, "fsdp": 2, "tensor": 2}
RULES = {
    "B": ("data", "fsdp"), "D": "fsdp", "N": "tensor", "K": "tensor", "F": "tensor", "V": "tensor",
}  # fmt: skip
TASKS = {"planner": planner_task, "decoder": decoder_task, "tokenizer": tokenizer_task}
CHANGES = {
    "tokenizer": (
        "--config.critic.weight=0.5", "--config.critic.width=32",
        "--config.model.quantizer.name=vq", "--config.model.quantizer.num_codes=1",
    ),
}  # fmt: skip
OWN = "as configured"  # muon for the matrices, adamw for the rest


def abstract_state(model, optimizer, changes=()):
    """A tiny model's abstract state on the reference mesh."""
    changes = (*CHANGES.get(model, ()), *changes)
    config = load(ROOT / "configs" / "tiny" / f"{model}.py", changes)
    loop = dataclasses.replace(
        build(LoopConfig, config.loop), ema_decay=0.9, mesh=CUBE, rules=RULES
    )
    if optimizer != OWN:
        one = OptimizerConfig(optimizer, factor_from=8)
        loop = dataclasses.replace(loop, optimizers=dict.fromkeys(loop.optimizers, one))
    mesh = meshes.build(CUBE)
    with jax.set_mesh(mesh), use_rules(RULES):
        return plan(TASKS[model](config), loop, mesh).abstract


def flat(tree):
    return jax.tree_util.tree_flatten_with_path(tree)[0]


def written(path):
    """A path with dots, shorter than JAX's."""
    parts = (getattr(k, "name", getattr(k, "key", getattr(k, "idx", None))) for k in path)
    return ".".join(map(str, parts))


def described(state):
    """A line for each array: path, shape, and what each of its axes is split over."""
    lines = []
    for path, leaf in flat(state):
        over = lambda part: part if isinstance(part, str) else "+".join(part or "-")  # noqa: E731
        spec = [over(part) for part in leaf.sharding.spec]
        lines.append(f"{written(path)} {list(leaf.shape)} {' '.join(spec)}".strip())
    return "\n".join(lines) + "\n"


def trimmed(spec):
    parts = list(spec)
    while parts and not parts[-1]:
        parts.pop()
    return parts


@pytest.mark.parametrize("optimizer", [OWN, "adamw", "adafactor"])
@pytest.mark.parametrize("model", sorted(TASKS))
def test_every_array_sits_where_its_parameter_sits(model, optimizer):
    state = abstract_state(model, optimizer)
    params = {names(path): leaf for path, leaf in flat(state.params)}
    assert len([p for p in params.values() if trimmed(p.sharding.spec)]) >= 6
    for path, leaf in flat(state.ema):
        assert leaf.sharding == params[names(path)].sharding, path
    owned = dict.fromkeys(params, 0)
    factored = []
    for path, leaf in flat(state.opt):
        keys = names(path)
        found = [keys[i:] for i in range(len(keys)) if keys[i:] in params]
        spec = trimmed(leaf.sharding.spec)
        if found and leaf.shape == params[found[0]].shape:
            assert leaf.sharding == params[found[0]].sharding, path
            owned[found[0]] += 1
        elif found and leaf.ndim == params[found[0]].ndim - 1 and leaf.shape != (1,):
            whole, owner = list(params[found[0]].sharding.spec), params[found[0]].shape
            cuts = [
                (owner[:i] + owner[i + 1 :], whole[:i] + whole[i + 1 :]) for i in range(len(owner))
            ]
            assert spec in [trimmed(s) for shape, s in cuts if shape == leaf.shape], path
            factored.append(spec)
        else:
            numbers = [(), (1,), (3,)]  # counts, what is not factored, Muon's coefficients
            assert not spec and leaf.shape in numbers, path
    least = {"adafactor": 1, "adamw": 2}.get(optimizer, 1)  # adafactor's is the momentum
    assert all(count >= least for count in owned.values()), owned
    assert bool(factored) == (optimizer == "adafactor")
    assert not factored or len([spec for spec in factored if spec]) > len(factored) / 2
    for path, leaf in flat((state.guard, state.step, state.extra)):
        assert not trimmed(leaf.sharding.spec), path
    assert set(state.guard) == {"skipped", "in_a_row", "norm", "seen"}


GOLDEN = [*((model, OWN) for model in sorted(TASKS)), ("planner", "adafactor")]


def golden(model, optimizer):
    return (
        ROOT
        / "tests"
        / "golden"
        / f"placement_{model}{'' if optimizer == OWN else '_' + optimizer}.txt"
    )


@pytest.mark.parametrize(("model", "optimizer"), GOLDEN)
def test_places_are_the_golden_ones(model, optimizer):
    text = described(abstract_state(model, optimizer))
    path = golden(model, optimizer)
    assert path.is_file() and path.read_text() == text, f"{path} should be:\n{text}"


def test_factored_moments_on_the_cube_are_those_of_one_device():
    one = OptimizerConfig("adafactor", 0.01, factor_from=8)
    kept = []
    for shape, rules in (({"data": 1}, {}), (CUBE, RULES)):
        devices = jax.devices()[: 8 if len(shape) > 1 else 1]
        mesh = meshes.build(shape, devices)
        config = net_config(4, optimizers={"hidden": one}, mesh=shape, rules=rules)
        with jax.set_mesh(mesh), use_rules(rules):
            planned = plan(NetTask(), config, mesh)
            state = planned.materialise()
            for n in range(2):
                state, _ = planned.step(state, place_batch(vectors()[n], mesh, rules))
        kept.append(state)
    places = jax.tree.map(lambda x: x.sharding, (planned.abstract.opt, state.opt))
    assert places[0] == places[1]
    assert PartitionSpec(None, ("tensor",)) in [x.sharding.spec for x in jax.tree.leaves(state.opt)]
    for (path, a), b in zip(flat(kept[0].params), jax.tree.leaves(kept[1].params), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5, err_msg=str(path))


if __name__ == "__main__":
    for case in GOLDEN:
        golden(*case).write_text(described(abstract_state(*case)))
