"""Name tables, tensors in files and a run's `weights/`: what every format of weights stands on."""

import dataclasses
import functools
import json
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from tests.train.toys import NetTask
from train.checkpoint import CheckpointError, DamageError
from train.export import ExportError, FormatError, Parity, Row, Table, Writer, open_tensors
from train.export.folder import model_arrays, open_weights, read_weights, write_weights
from train.export.tensors import fresh_folder

rng = np.random.default_rng(0)
OURS = {
    "params/layer/query": rng.normal(size=(2, 6, 3, 4)).astype(np.float32),  # L D N H
    "params/layer/key": rng.normal(size=(2, 6, 1, 4)).astype(np.float32),
    "params/table": rng.normal(size=(5, 6)).astype(np.float32),
    "extra/count": np.arange(5, dtype=np.int32),
    "params/ours_alone": np.ones((2,), np.float32),
}
PAIRS = {"two": 2}
TABLE = Table(
    (
        Row("layers.{}.qk", "params/layer/query", "D N (two P) -> (N P two) D", PAIRS),
        Row("layers.{}.qk", "params/layer/key", "D N (two P) -> (N P two) D", PAIRS),
        Row("table", "params/table", "V D -> V D", change=lambda x: 2 * x, back=lambda x: x / 2),
        Row("count", "extra/count"),
    ),
    left_out=("params/ours_alone",),
    unused=("*.inv_freq",),
    constants={"used": np.zeros((3,), np.float32)},
)
SHAPES = {name: (array.dtype, array.shape) for name, array in OURS.items()}


def _out(folder, table=TABLE, ours=OURS, dtype=None, **options):
    folder.mkdir()
    shapes = {n: (a.dtype, a.shape) for n, a in ours.items()}
    with Writer(folder, table.their_shapes(shapes, dtype), **options) as writer:
        table.export(ours, writer)
    return open_tensors(folder)


def test_a_table_cuts_stacked_layers_and_joins_parts(tmp_path):
    theirs = _out(tmp_path / "out")
    assert {n: t.shape for n, t in theirs.items()} == {
        "layers.0.qk": (16, 6), "layers.1.qk": (16, 6), "table": (5, 6), "count": (5,),
        "used": (3,),
    }  # fmt: skip
    query = OURS["params/layer/query"][1]  # pairs (i, i + 2) of a head become neighbours
    expected = np.stack([query[:, 2, 0], query[:, 2, 2], query[:, 2, 1], query[:, 2, 3]])
    np.testing.assert_array_equal(theirs["layers.1.qk"][8:12], expected)
    np.testing.assert_array_equal(
        theirs["layers.1.qk"][12:][0], OURS["params/layer/key"][1, :, 0, 0]
    )
    np.testing.assert_array_equal(theirs["table"][...], 2 * OURS["params/table"])


def test_the_way_back_ends_in_the_same_bytes(tmp_path):
    theirs = dict(_out(tmp_path / "out")) | {"layers.0.inv_freq": np.zeros(2)}
    (tmp_path / "back").mkdir()
    fresh = {"params/ours_alone": np.full((2,), 7, np.float32)}
    with Writer(tmp_path / "back", SHAPES) as writer:
        assert TABLE.bring_in(theirs, SHAPES, writer, fresh) == ["params/ours_alone"]
    back = open_tensors(tmp_path / "back")
    parity = Parity("itself")
    parity.arrays("there and back", {**OURS, **fresh}, back)
    assert parity.ok and parity.found["there and back"]["arrays"] == 5
    given = dataclasses.replace(TABLE, left_out=(), given={"params/ours_alone": np.full((2,), 9.0)})
    with Writer(tmp_path / "back", SHAPES, stem="given") as writer:
        given.bring_in(theirs, SHAPES, writer, {})
    alone = open_tensors(tmp_path / "back" / "given.safetensors")
    np.testing.assert_array_equal(alone["params/ours_alone"][...], [9, 9])
    parity.arrays("changed", OURS, back)
    assert parity.found["changed"]["different"] == ["params/ours_alone"] and not parity.ok


def test_rows_that_are_made_of_ours_go_out_and_are_not_read_back(tmp_path):
    twice = functools.partial(np.repeat, repeats=2, axis=0)
    own = {"params/table": OURS["params/table"]}
    rows = (Row("table", "params/table"), Row("table", "params/table", change=twice, made=10),
            Row("head", "params/table", "V D -> D V", change=lambda x: -x, made=6))  # fmt: skip
    theirs = _out(tmp_path / "out", Table(rows), own)
    assert theirs["table"].shape == (15, 6) and theirs["head"].shape == (6, 5)
    np.testing.assert_array_equal(theirs["table"][5:7], own["params/table"][[0, 0]])
    np.testing.assert_array_equal(theirs["head"][...], -own["params/table"].T)
    shapes = {"params/table": SHAPES["params/table"]}
    with pytest.raises(ExportError, match=r"table is \[5, 6\] and the config makes it \[15, 6\]"):
        Table(rows).require({**theirs, "table": own["params/table"]}, shapes)
    (tmp_path / "back").mkdir()
    with Writer(tmp_path / "back", shapes) as writer:
        Table(rows).bring_in(theirs, shapes, writer, {})
    back = open_tensors(tmp_path / "back")["params/table"][...]
    np.testing.assert_array_equal(back, own["params/table"])


def test_everything_that_does_not_fit_is_named_at_once(tmp_path):
    theirs = dict(_out(tmp_path / "out"))
    theirs["table"] = np.zeros((4, 6), np.float32)
    del theirs["layers.0.qk"]
    theirs["stranger"] = np.zeros(1)
    with pytest.raises(ExportError) as problem:
        TABLE.require(theirs, SHAPES)
    for said in ("3 tensors", "layers.0.qk is missing", "stranger is unknown", "[4, 6]", "[5, 6]"):
        assert said in str(problem.value)
    with pytest.raises(ExportError, match=r"no params/table; params/more has no place"):
        renamed = {n.replace("params/table", "params/more"): v for n, v in SHAPES.items()}
        TABLE.pieces(renamed)
    wrong = Table((Row("a", "params/table", "(N H) D -> H N D", {"N": 2}),))
    with pytest.raises(ExportError, match=r"\[5, 6\]"):
        wrong.pieces({"params/table": SHAPES["params/table"]})


def test_files_are_cut_at_a_size_and_say_so(tmp_path):
    theirs = _out(tmp_path / "out", dtype=ml_dtypes.bfloat16, shard_bytes=200)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)] + [
        "model.safetensors.index.json"
    ]
    index = json.loads((tmp_path / "out" / names[-1]).read_text())
    assert index["metadata"]["total_size"] == 2 * (2 * 96 + 30) + 20 + 12
    assert theirs["table"].dtype == ml_dtypes.bfloat16 and theirs["count"].dtype == np.int32
    alone = load_file(tmp_path / "out" / index["weight_map"]["table"])  # the library agrees
    np.testing.assert_array_equal(
        alone["table"], (2 * OURS["params/table"]).astype(ml_dtypes.bfloat16)
    )


def test_a_writer_that_was_not_given_everything_complains(tmp_path):
    with (
        pytest.raises(ValueError, match=r"written: a$"),
        Writer(tmp_path, {"a": (np.float32, (2, 2)), "b": (np.float32, ())}) as writer,
    ):
        writer.put("b", np.float32(3))
        writer.put("a", np.ones((1, 2)), row=1)
        with pytest.raises(ValueError, match=r"\[2, 2\], and \[1, 2\] is no part"):
            writer.put("a", np.ones((1, 2)), row=2)


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda f: (f / "model.safetensors").write_bytes(b"\0" * 40), "no whole"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 8), "no whole"),
        (lambda f: _cut(f / "model.safetensors"), "no whole"),
        (
            lambda f: _index(f, {"table": "gone.safetensors"}),
            r"names gone\.safetensors",
        ),
        (lambda f: _index(f, {"table": "../out/model.safetensors"}), "no file of its folder"),
        (lambda f: _index(f, {"table": "/etc/passwd"}), "no file of its folder"),
        (lambda f: _index(f, {"table": "model.safetensors"}), "differ in count"),
        (lambda f: _index(f, ["model.safetensors"]), "no index of safetensors"),
        (lambda f: save_file({"table": np.ones(1)}, f / "b.safetensors"), "table is in"),
    ],
)
def test_damaged_and_malicious_files_are_refused_by_name(tmp_path, spoil, said):
    _out(tmp_path / "out")
    spoil(tmp_path / "out")
    with pytest.raises(FormatError, match=said):
        open_tensors(tmp_path / "out")


def _cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def _index(folder, weight_map):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    _out(tmp_path / "out")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "m.safetensors").symlink_to(tmp_path / "out" / "model.safetensors")
    _index(tmp_path / "in", {"table": "m.safetensors"})
    with pytest.raises(FormatError, match="no file of its folder"):
        open_tensors(tmp_path / "in")


def test_converting_holds_one_array_at_a_time(tmp_path):
    ours = {f"params/{i}": np.ones((256, 1024), np.float32) for i in range(16)}
    table = Table(tuple(Row(f"{i}", f"params/{i}", "A B -> B A") for i in range(16)))
    (tmp_path / "back").mkdir()
    theirs = _out(tmp_path / "out", table, ours)
    shapes = {n: (a.dtype, a.shape) for n, a in ours.items()}
    tracemalloc.start()
    with Writer(tmp_path / "back", shapes) as writer:
        table.bring_in(theirs, shapes, writer, {})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * ours["params/0"].nbytes  # of 16


def test_a_run_keeps_weights_beside_checkpoints(tmp_path):
    task = NetTask()
    shapes = model_arrays(task)
    module = task.init(nnx.Rngs(3))
    values = {name: np.asarray(rng.normal(size=s), d) for name, (d, s) in shapes.items()}
    assert values and nnx.state(module)
    with write_weights(tmp_path, shapes, {"step": 5, "identity": {}}) as writer:
        for name, value in values.items():
            writer.put(name, value)
    found, noted = open_weights(tmp_path)
    assert noted["step"] == 5 and found.keys() == shapes.keys()
    weights, _, _ = read_weights(tmp_path, task)
    flat = nnx.to_pure_dict(nnx.state(module, nnx.Param))
    assert weights.keys() == flat.keys()
    with (
        pytest.raises(CheckpointError, match="holds weights already"),
        write_weights(tmp_path, shapes, {}),
    ):
        pass
    path = tmp_path / "weights" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamageError, match=r"model\.safetensors is not as it was written"):
        open_weights(tmp_path)


def test_a_folder_is_whole_or_not_there(tmp_path):
    with pytest.raises(OSError, match="disk"), fresh_folder(tmp_path / "out") as partial:
        (partial / "a").write_text("half")
        raise OSError("disk")
    assert list(tmp_path.iterdir()) == []
    with fresh_folder(tmp_path / "out") as partial:
        (partial / "a").write_text("whole")
    assert (tmp_path / "out" / "a").read_text() == "whole"
    with pytest.raises(FileExistsError, match="is there already"), fresh_folder(tmp_path / "out"):
        pass


def test_parity_says_how_far_apart(tmp_path):
    parity = Parity("a library 1.0")
    assert not parity.ok  # nothing was compared
    ours = np.eye(3)
    parity.numbers("logits", ours, ours + 5e-5)
    parity.ids("greedy", [1, 2, 3], [1, 2, 3])
    assert parity.ok and parity.found["logits"]["max_abs"] == pytest.approx(5e-5)
    assert parity.found["logits"]["top1_agreement"] == 1.0
    parity.ids("codes", [1, 2, 3, 4], [1, 2, 3, 5])
    assert parity.found["codes"]["equal"] == 0.75 and not parity.ok
    parity.numbers("broken", ours, ours * np.nan)
    assert parity.found["broken"]["max_abs"] is None
    parity.notes.append("what is to be known")
    parity.write(tmp_path / "parity.json")
    said = json.loads((tmp_path / "parity.json").read_text())
    assert said["versus"] == "a library 1.0" and said["ok"] is False
    parity.arrays("signs", {"a": np.zeros(2)}, {"a": -np.zeros(2)})
    assert parity.found["signs"]["different"] == ["a"]
    parity.notes.append("fresh: params/head")
    parity.write(tmp_path / "parity.json")
    assert json.loads((tmp_path / "parity.json").read_text())["notes"] == parity.notes
    assert str(parity).endswith("note: fresh: params/head")
    assert "FAIL codes: equal 0.75" in str(parity) and dataclasses.is_dataclass(parity)
