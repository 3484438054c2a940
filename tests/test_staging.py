"""Pages shared by several processes are those that one makes."""

import types

import numpy as np
import pytest

from blueprint.schema import Blueprint, Box, Text
from evals.scoring import Case
from pipeline import staging


def page(i):
    box = Box(10, 10, 900, 90)
    return Blueprint(64, 64, "#fff", (Text("title", (f"page {i}",), box),))


class Press:
    """A bundle whose pictures say which prompt, seed and stage they are of."""

    def __init__(self):
        encode = lambda _, pixels: 2 + pixels[:, 0, 0, 0].astype(int)  # noqa: E731
        self.tokenizer = types.SimpleNamespace(ask=encode)
        self.planned = []

    def plan(self, prompts, *, seed):
        self.planned.append((seed, len(prompts)))
        return [page(f"{prompt} {seed}") for prompt in prompts]

    def codes(self, plans):
        return [len(next(iter(plan.texts)).string) for plan in plans]

    def pixels(self, codes):
        return np.stack([np.full((4, 4, 3), code, np.uint8) for code in codes])

    def copied(self, plans):
        return self.pixels([7 for _ in plans])


CASES = [Case(f"c{i}", "x" * i, (f"page {i}",), blueprint=page(i)) for i in range(7)]
TYPESET = [np.full((4, 4, 3), 10 * i, np.uint8) for i in range(7)]


@pytest.mark.parametrize("typeset", [TYPESET, None], ids=["all stages", "the last"])
def test_shares_are_the_whole(tmp_path, monkeypatch, typeset):
    monkeypatch.setattr(staging, "CHUNK", 2)
    alone = Press()
    if typeset is None:
        whole = staging.printed(alone, CASES, seed=5)
    else:
        whole = staging.staged(alone, CASES, typeset, seed=5)
    asked, seen = [], []
    for index in range(3):
        cluster = types.SimpleNamespace(process_index=index, num_processes=3)
        press = Press()
        cases, made = staging.make_share(
            press, CASES, typeset, seed=5, cluster=cluster, folder=tmp_path / "shares"
        )
        assert len(cases) == len(made.plans) == len(made.pages["end_to_end"])
        asked += press.planned
        seen += [case.name for case in cases]
    assert sorted(asked) == alone.planned and sorted(seen) == [case.name for case in CASES]
    taken = staging.take_shares(CASES, tmp_path / "shares")
    assert taken.plans == whole.plans and list(taken.pages) == list(whole.pages)
    for stage, pages in whole.pages.items():
        np.testing.assert_array_equal(np.stack(taken.pages[stage]), np.stack(pages))
    assert not (tmp_path / "shares").exists()


def test_a_part_that_is_not_there_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(staging, "CHUNK", 2)
    one = types.SimpleNamespace(process_index=0, num_processes=2)
    staging.make_share(Press(), CASES, None, cluster=one, folder=tmp_path / "shares")
    with pytest.raises(OSError, match=r"00000002\.npz"):
        staging.take_shares(CASES, tmp_path / "shares")
