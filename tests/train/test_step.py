"""A step over microbatches is the step over the whole batch: its gradient, and where rows lie."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from layers.axes import axes_tree, constrain, use_rules
from layers.block import BlockConfig
from planner.model import PlannerConfig
from planner.task import PlannerTask
from tests.train.toys import WIDTH, Count, Net, NetTask, net_config, pages, tokenizer_task, vectors
from tokenizer.critic import Critic, CriticConfig
from train import mesh as meshes
from train.feeding import place_batch
from train.hardware import preset
from train.plan import plan
from train.step import gradients_of, split

RULES = {"B": ("data", "fsdp"), "D": "fsdp", "F": "tensor", "N": "tensor"}
CUBE = {"data": 2, "fsdp": 2, "tensor": 2}
COLLECTIVE = re.compile(r"\b(all-to-all|all-gather|all-reduce|collective-permute|reduce-scatter)\b")


class Counting(Net):
    """A net with a variable that moves once a step."""

    def __init__(self, *, rngs):
        super().__init__(rngs=rngs)
        self.steps = Count(jnp.zeros((), jnp.int32), once=True)


@dataclasses.dataclass(frozen=True)
class MaskedTask(NetTask):
    """The mean over few of the numbers, from none to all of a row's, without noise."""

    said: bool = True

    def init(self, rngs):
        return Counting(rngs=rngs)

    def loss(self, model, batch, key):
        model.seen[...] = model.seen[...] + batch["x"].sum(axis=0)
        model.steps[...] = model.steps[...] + 1
        square = jnp.square(model(batch["x"]) - batch["y"]) * batch["mask"]
        weight = batch["mask"].sum()
        loss = square.sum() / jnp.maximum(weight, 1)
        return loss, {"double": 2 * loss, **({"weight": weight} if self.said else {})}


def masked_batch():
    rng = np.random.default_rng(0)
    x, share = rng.normal(size=(16, WIDTH)), np.linspace(0, 1, 16)[:, None] ** 2
    mask = (rng.uniform(size=(16, WIDTH)) < share).astype(np.float32)
    x = x.astype(np.float32)
    return {"x": x, "y": np.roll(x, 1, axis=1), "mask": mask}


def close(found, wanted, *, rtol=1e-5):
    flat, _ = jax.tree_util.tree_flatten_with_path(wanted)
    for (path, b), a in zip(flat, jax.tree.leaves(found), strict=True):
        atol = rtol * float(np.abs(b).max())
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol, err_msg=str(path))


def prepared(task):
    """Number of microbatches to a program from a batch to (loss, scalars, variables, gradients)."""
    model = nnx.eval_shape(lambda: task.init(nnx.Rngs(0)))
    graphdef = nnx.split(model)[0]

    def init():
        _, params, extra = nnx.split(task.init(nnx.Rngs(0)), nnx.Param, ...)
        return nnx.to_pure_dict(params), nnx.to_pure_dict(extra)

    params, extra = jax.tree.map(np.asarray, jax.jit(init)())

    def compiled(microbatches):
        folded = gradients_of(task, graphdef, axes_tree(model), microbatches=microbatches)
        program = jax.jit(lambda *given: folded(*given, jax.random.key(0)))
        return functools.partial(program, params, extra)

    return compiled


def test_a_mean_over_a_varying_number_is_that_of_the_whole_batch():
    batch = masked_batch()
    whole = prepared(MaskedTask())(1)(batch)
    close(prepared(MaskedTask())(4)(batch), whole)
    assert whole[2]["steps"] == 1 and whole[1]["weight"] == batch["mask"].sum()
    unsaid = prepared(MaskedTask(said=False))(4)
    loss = jax.jit(lambda *given: unsaid.func(*given)[0])(*unsaid.args, batch)
    assert abs(loss / whole[0] - 1) > 0.01  # the weight is what makes it so


def test_rows_stay_on_their_devices_and_eight_agree_with_one():
    batch, mesh = masked_batch(), meshes.build(CUBE)
    whole = jax.tree.map(np.asarray, prepared(MaskedTask())(1)(batch))
    with jax.set_mesh(mesh), use_rules(RULES):
        placed = place_batch(batch, mesh, RULES)
        folded = prepared(MaskedTask())(4)
        compiled = folded.func.lower(*folded.args, placed).compile()
        close(compiled(*folded.args, placed), whole)
        cut = jax.jit(lambda x: split(x, 4)).lower(placed["x"]).compile()
        inner = lambda x: constrain(x.reshape(4, 4, WIDTH), "_B_")  # noqa: E731
        moved = jax.jit(inner).lower(placed["x"]).compile()
    assert not {"all-to-all", "collective-permute"} & set(COLLECTIVE.findall(compiled.as_text()))
    assert not COLLECTIVE.findall(cut.as_text()) and COLLECTIVE.findall(moved.as_text())
    rows = np.arange(16).reshape(4, 4).T
    np.testing.assert_array_equal(cut(placed["x"]), batch["x"][rows])


def planner_case():
    blocks = BlockConfig(16, 2, 2, 1, 8, 32)
    task = PlannerTask(PlannerConfig(blocks, vocab_size=40, max_length=12))
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 12, 8)[:, None]
    planned = (np.arange(12) >= 2) & (np.arange(12) < lengths)
    return task, {"ids": rng.integers(0, 40, (8, 12)), "planned": planned}


def test_the_planners_gradient_is_that_of_the_whole_batch():
    task, batch = planner_case()
    whole = prepared(task)(1)(batch)
    close(prepared(task)(4)(batch), whole, rtol=3e-5)
    assert whole[1]["weight"] == batch["planned"][:, 1:].sum()


def test_the_tokenizers_gradient_is_that_of_the_whole_batch_and_its_critic_counts_steps():
    plain = {"pixels": np.asarray(pages()[0]["pixels"])}
    (loss, scalars, _, grads), (other, _, _, others) = (
        prepared(tokenizer_task())(n)(plain) for n in (1, 2)
    )
    close((other, others), (loss, grads), rtol=1e-4)
    assert "weight" not in scalars
    critic = nnx.eval_shape(
        lambda: Critic(CriticConfig(width=8, num_groups=4), 3, rngs=nnx.Rngs(0))
    )
    assert critic.steps.get_metadata()["once"]


@pytest.mark.parametrize(
    ("count", "message"),
    [(3, "a batch of 16 has no 3 equal"), (8, "leaves 2 rows, which the devices along B cannot")],
)
def test_microbatches_that_do_not_fit_are_named(count, message):
    with (
        jax.set_mesh(meshes.build(CUBE)),
        use_rules(RULES),
        pytest.raises(ValueError, match=message),
    ):
        jax.eval_shape(lambda x: split(x, count), jnp.zeros((16, 2)))
    with pytest.raises(ValueError, match="microbatches 0 must be 1"):
        gradients_of(NetTask(), None, {}, microbatches=0)


def test_the_loop_steps_once_over_all_microbatches():
    mesh = meshes.build(CUBE)
    with jax.set_mesh(mesh), use_rules(RULES):
        config = net_config(4, rules=RULES, mesh=CUBE, microbatches=2, ema_decay=0.5)
        planned = plan(NetTask(), config, mesh)
        state, scalars = planned.step(planned.materialise(), place_batch(vectors()[0], mesh, RULES))
    assert state.step == 1 and scalars["skipped"] == 0
    places = jax.tree.map(lambda x: x.sharding, planned.abstract)
    assert jax.tree.map(lambda x: x.sharding, state) == places
    np.testing.assert_allclose(
        state.extra["seen"], np.abs(vectors()[0]["x"]).sum(axis=0), rtol=1e-5
    )


class AutoNet(Net):
    """What its backward pass keeps is left to the machine."""

    def __call__(self, x):
        x, _ = self.stack.scan(lambda layer, x, _: (layer(x), None), x, remat="auto")
        return self.fixed(self.listed[0](x))


@dataclasses.dataclass(frozen=True)
class AutoTask(NetTask):
    def init(self, rngs):
        return AutoNet(rngs=rngs)


def test_what_is_left_to_the_machine_is_what_its_kind_has():
    mesh, batch = meshes.build(CUBE), vectors()[0]

    def program(**changes):
        """Of a step over 8 rows on a mesh that cuts them in four."""
        config = net_config(4, rules=RULES, mesh=CUBE, **changes)
        with jax.set_mesh(mesh), use_rules(RULES):
            planned = plan(AutoTask(), config, mesh)
            return str(jax.make_jaxpr(planned.step)(planned.abstract, batch))

    whole = program()
    assert program(microbatches=0) == whole and "policy" not in whole  # this is a CPU
    assert "policy" in program(hardware={"remat": "dots"})
    halves = program(microbatches=2)
    assert halves != whole and program(microbatches=0, hardware={"microbatch": 1}) == halves
    assert program(microbatches=1, hardware={"microbatch": 1}) == whole  # what is said wins
    assert program(microbatches=0, hardware={"microbatch": 2}) == whole
    parts = [preset("h100").microbatches(num_rows) for num_rows in (6, 8, 24, 36, 11)]
    assert parts == [1, 1, 3, 6, 11]
