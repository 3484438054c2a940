"""`scripts/passes.py` on a tiny bundle: what it counts is what was printed."""

import argparse

import numpy as np
import pytest

from scripts import passes
from tests.bundles import tiny_bundle


def test_a_curve_of_a_tiny_bundle(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(passes, "BATCHES", (1, 2))
    given = ["--bundle", str(tiny_bundle()), "--n", "3", "--passes", "1", "4", "99",
             "--orders", "random", "blueprint", "--turns", "1", "--out", str(tmp_path)]  # fmt: skip
    monkeypatch.setattr("sys.argv", ["passes.py", *given])
    passes.main()
    said = capsys.readouterr().out
    lines = (tmp_path / "passes.md").read_text().splitlines()
    assert len(lines) == 2 + 4  # whole passes are 16 at most
    assert lines[0] in said and "base: masked, surest first, 4 passes" in said
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert [row[1] for row in found] == [passes.SUREST] * 2 + ["blueprint"] * 2
    counts = [float(row[3]) for row in found]
    assert counts[:3] == [1, 4, 1] and 2 <= counts[3] <= 4
    assert all(float(row[9]) > 0 for row in found)
    assert (tmp_path / "passes.png").stat().st_size < 100_000
    assert (tmp_path / "passes.json").is_file()


def test_the_base_is_one_at_a_time_if_there_is_one():
    row = lambda model, way, n: passes.Row(  # noqa: E731
        model, way, n, n, passes.Score(0.9, 0.8, 1.0), 0.9, 17.0, 0.8, {1: 1000.0 / n}
    )
    masked = [row("masked", "blueprint", n) for n in (1, 8)]
    assert passes.base_of(masked).passes == 8
    both = [*masked, row("causal", passes.SINGLY, 256)]
    base = passes.base_of(both)
    assert base.model == "causal"
    slow = [passes.dataclasses.replace(base, ms={1: 900.0})] + [
        passes.dataclasses.replace(r, ms={1: 100.0 * r.passes}) for r in masked
    ]
    said = passes.verdict(slow, slow[0], 256).splitlines()
    assert len(said) == 3 and said[1].endswith("5x as fast at batch 1 (9.0 at 1)")
    assert said[2] == "masked, blueprint (8): 8.0 passes, nowhere 5x as fast (1.1 at 1)"


def test_pages_past_the_last_are_the_last_again():
    printer = passes.Printer.__new__(passes.Printer)
    printer.told, printer.shape, asked = {"letters": np.arange(5)[:, None]}, (1, 1, 1), []

    def show(codes, masked, given, keys, press):
        asked.append(np.asarray(given["letters"])[:, 0])
        return np.zeros(codes.shape), np.asarray(given["letters"])[:, 0]

    printer._print = show
    codes, counted = printer.all(passes.Press())
    assert len(codes) == 5 and list(counted) == [0, 1, 2, 3, 4]
    assert list(asked[0]) == [0, 1, 2, 3, 4] + [4] * 11


def test_ways_are_those_of_the_objective():
    args = argparse.Namespace(passes=[1, 64], orders=["raster", "strokes"], windows=[1, 8],
                              most_whole=16, temperature=0.5)  # fmt: skip
    printer = passes.Printer.__new__(passes.Printer)
    printer.press = passes.Press()
    names = {}
    for kind in ("masked", "random", "causal"):
        printer.kind = kind
        found = passes.ways(kind, printer, args)
        assert all(way.press.policy.temperature == 0.5 for way in found)
        names[kind] = [(way.name, way.asked) for way in found]
    assert names["masked"] == [(passes.SUREST, 1), ("strokes", 1)]
    assert names["random"] == [(o, n) for o in ("raster", "strokes") for n in (1, 64)]
    assert names["causal"] == [(passes.SINGLY, 1), ("raster, in windows", 8)]


def test_a_decoder_of_another_tokenizer_is_refused():
    import pipeline
    from train.data.codes import ContractError

    bundle = pipeline.load(tiny_bundle())
    bundle.contract = {**bundle.contract, "num_codes": 3}
    with pytest.raises(ContractError, match="--decoder holds codes of another tokenizer"):
        passes.Printer(bundle.decoder, bundle, [])
