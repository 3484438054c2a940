"""A run is evaluated once for every set of complete checkpoints, whatever training does
meanwhile."""

import itertools
import json
import shutil
import types

import pytest

from evals import watching
from evals.results import flat
from evals.watching import MODELS, SCORES, every, newest_steps, watch
from tests.evals.samples import made
from train.checkpoint import CheckpointError


def save(run, model, step, *, complete=True):
    folder = run / model / "checkpoints" / str(step)
    folder.mkdir(parents=True)
    if complete:
        (folder / "manifest.json").write_text(json.dumps({"step": step}))


def open_run(run):
    """Reads the newest manifests, as a bundle does first of all."""
    saved = zip(MODELS, newest_steps(run), strict=True)
    files = [run / model / "checkpoints" / str(step) / "manifest.json" for model, step in saved]
    return types.SimpleNamespace(steps=tuple(json.loads(f.read_text())["step"] for f in files))


class Evaluated(list):
    """The steps and folders of evaluations, whose results differ."""

    def __call__(self, opened, folder):
        self.append((opened.steps, folder.name))
        return made(first=len(self))


def lines(out):
    return [json.loads(line) for line in (out / SCORES).read_text().splitlines()]


def test_every_set_of_complete_checkpoints_is_evaluated_once(tmp_path):
    run, out, evaluated = tmp_path / "run", tmp_path / "out", Evaluated()
    seen = []

    def looks():
        look = lambda: seen.append(len(evaluated))  # noqa: E731  # what the last look came to
        yield look()
        for model in MODELS[:2]:
            save(run, model, 10)
        yield look()
        save(run, "decoder", 9, complete=False)  # is being written
        yield look()
        save(run, "decoder", 10)
        save(run, "tokenizer", 20, complete=False)
        yield look()
        yield look()
        save(run, "decoder", 30)
        yield look()
        (run / "tokenizer" / "checkpoints" / "20" / "manifest.json").write_text('{"step": 20}')
        yield look()
        yield look()
        look()

    watch(run, out, looks(), open_run=open_run, evaluate=evaluated)
    assert seen == [0, 0, 0, 0, 1, 1, 2, 3, 3]
    steps = [(10, 10, 10), (10, 10, 30), (20, 10, 30)]
    assert evaluated == [(s, "-".join(map(str, s))) for s in steps]
    for i, (row, step) in enumerate(zip(lines(out), steps, strict=True), 1):
        assert (row.pop("steps"), row.pop("folder")) == (list(step), str(out / evaluated[i - 1][1]))
        assert row == flat(made(first=i))


def test_a_checkpoint_removed_while_it_is_read_is_survived(tmp_path, capsys):
    run, evaluated = tmp_path / "run", Evaluated()
    for model in MODELS:
        save(run, model, 1)

    def open_late(run):
        if (old := run / "decoder" / "checkpoints" / "1").exists():
            shutil.rmtree(old)
            save(run, "decoder", 2)
            (old / "manifest.json").read_text()
        return open_run(run)

    watch(run, tmp_path / "out", iter([None] * 3), open_run=open_late, evaluate=evaluated)
    assert evaluated == [((1, 1, 2), "1-1-2")] and len(lines(tmp_path / "out")) == 1
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "removed while it was read" in said and "manifest.json" in said


def test_what_stays_wrong_is_raised(tmp_path):
    for model in MODELS:
        save(tmp_path, model, 1)

    def broken(run):
        raise CheckpointError("its arrays cannot be read")

    with pytest.raises(CheckpointError, match="its arrays"):
        watch(tmp_path, tmp_path, iter([None]), open_run=broken, evaluate=Evaluated())


def test_scores_are_those_of_the_checkpoints_that_were_read(tmp_path):
    evaluated = Evaluated()
    for model in MODELS:
        save(tmp_path, model, 1)

    def overtaken(run):
        if newest_steps(run) == (1, 1, 1):
            save(run, "planner", 2)
        return open_run(run)

    watch(tmp_path, tmp_path, iter([None] * 2), open_run=overtaken, evaluate=evaluated)
    assert evaluated == [((1, 2, 1), "1-2-1")]
    assert [row["steps"] for row in lines(tmp_path)] == [[1, 2, 1]]


def test_looks_come_at_once_and_then_after_a_rest(monkeypatch):
    rests = []
    monkeypatch.setattr(watching.time, "sleep", rests.append)
    assert [len(rests) for _ in itertools.islice(every(30.0), 3)] == [0, 1, 2]
    assert rests == [30.0, 30.0]
