"""The outline lets through whatever the grammar lets through, and knows the quoted letters."""

import random

import numpy as np
import pytest

from blueprint import vocab
from blueprint.copying import automaton, quoted
from blueprint.draft import NUM_CLASSES, classes, masks, outline
from blueprint.grammar import Grammar, Limits
from blueprint.schema import Box
from blueprint.wishes import Wishes

PROMPT = 'a page with "Grand Opening" and "K9" and „Ö“'
PLACES = Wishes(boxes={"K9": Box(100, 600, 300, 200)})
LIMITS = Limits((128, 160), 200, own_texts=("Buy now", "Menu"), max_texts=6)


def followed(grammar, draft, rng, *, prefer=("text", "end", "style", "source:verbatim")):
    """A random walk of the grammar under its outline: the sizes of both masks at each id."""
    state, sizes = 0, []
    while not grammar.finished:
        allowed = np.frombuffer(grammar.allowed(), np.uint8) > 0
        outside = allowed & ~draft.mask(state)
        assert not outside.any(), (state, [vocab.name(int(i)) for i in np.nonzero(outside)[0]])
        options = np.nonzero(allowed)[0].tolist()
        liked = [i for i in options if vocab.name(i) in prefer]
        token = rng.choice(liked if liked and rng.random() < 0.5 else options)
        sizes.append((len(options), int(draft.mask(state).sum()), vocab.name(token)))
        grammar.advance(token)
        state = draft.step(state, token)
    assert draft.mask(state).all()  # done: whatever follows is thrown away
    return sizes


@pytest.mark.parametrize("wishes", [Wishes(), PLACES], ids=["free", "wished"])
@pytest.mark.parametrize("min_type_px", [0, 10])
def test_it_lets_through_what_the_rules_let_through(min_type_px, wishes):
    boxes = wishes.boxes if min_type_px else {}
    draft = outline(page_px=(128, 160), quotes=quoted(PROMPT), boxes=boxes)
    for seed in range(12):
        rules = automaton(PROMPT, LIMITS, min_type_px=min_type_px, wishes=wishes)
        sizes = followed(rules, draft, random.Random(seed))
        letters = [loose for exact, loose, name in sizes if name.startswith("byte") and exact == 1]
        assert letters.count(1) >= 14  # of each quote but its blank


def test_it_knows_a_wished_box():
    draft = outline(page_px=(128, 160), quotes=quoted(PROMPT), boxes=PLACES.boxes)
    alone = -1 - draft.allowed[draft.allowed < 0]
    for n in (100, 600, 300, 200):
        assert vocab.number(n) in alone


def test_without_a_prompt_any_string_may_stand():
    for seed in range(12):
        followed(Grammar(Limits(max_ids=150)), outline(), random.Random(seed))


def test_masks_and_classes_are_over_the_vocabulary():
    assert masks().shape[1] == len(classes()) == vocab.SIZE
    assert classes().max() == NUM_CLASSES - 1
    assert masks()[0].all() and not masks()[1:].all(axis=1).any()
