"""Printed codes as text: a change of what a decoder prints shows in the diff of tests/golden/."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from decoder.task import DecoderTask
from sampling.policy import Policy
from sampling.printing import Press, print_codes
from tests.decoder.pages import GRID, batch, config, given
from tests.tokenizer.menu import QUICK

GOLDEN = Path(__file__).parents[1] / "golden" / "printed_codes.json"
DRAWN = Policy(temperature=1.0)
CASES = {
    "masked": ({"objective": "masked"}, Press()),
    "masked, ordered": (
        {"objective": "masked", "ordered": True},
        Press(Policy(ordered=True)),
    ),
    "masked, locked, 4 passes, drawn, guided": (
        {"objective": "masked", "lock": True},
        Press(DRAWN, num_passes=4, guidance=2.0),
    ),
    "causal, drawn": ({}, Press(DRAWN)),
    "causal, ordered, guided": ({"ordered": True}, Press(Policy(ordered=True), guidance=1.5)),
}


def printed(name):
    """Two pages' codes, each position's Q digits as a word."""
    changes, press = CASES[name]
    task = DecoderTask(config(**changes), drop_blueprint=0.1, drop_glyphs=0.1)
    model = task.init(nnx.Rngs(7))
    model.head.kernel[...] = 30 * model.head.kernel[...]  # so that codes are not all copies
    data = batch(2, lock=changes.get("lock", False))
    probes = {n: functools.partial(probe, model) for n, probe in task.probes().items()}
    codes = jnp.array(data["codes"], jnp.int32)
    masked = jax.random.bernoulli(jax.random.key(1), 0.8, (2, *GRID))
    keys = jax.random.split(jax.random.key(2), 2)
    make = lambda codes: print_codes(probes, codes, masked, given(data), keys, press=press)  # noqa: E731
    made = jax.jit(make, compiler_options=QUICK)(codes)
    return [" ".join("".join(map(str, word)) for word in page.reshape(-1, 6)) for page in made]


@pytest.mark.parametrize("name", CASES)
def test_codes_are_the_golden_ones(name):
    golden = json.loads(GOLDEN.read_text())
    assert printed(name) == golden[name]
