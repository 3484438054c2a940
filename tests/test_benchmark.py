"""The benchmark counts what a step reads, and says what it found."""

import json
import math
import statistics

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from scripts.bench import training
from scripts.bench.generation import SHAPES, decoder_of, ours
from scripts.bench.machine import Machine
from scripts.bench.pages import contract_of, encoding, toy_coder
from scripts.bench.report import Report, shown
from scripts.bench.training import TOKENIZERS, code_batch, page_batch, tokenizer_task
from scripts.bench.training_peers import decoder, rival, tokenizer
from scripts.bench.turns import ratio
from tests.bundles import finish, start
from train.data.encoding import encode

ROOM = ("--floor-mib", 16, "--turns", 1, "--train-shape", "tiny", "--tokenizer-shape", "tiny",
        "--train-rows", 2, "--tokenizer-rows", 2, "--page-px", 96, "--pages", 8)  # fmt: skip


def told(tmp_path, *arguments):
    """What a run of the script prints and writes."""
    path = tmp_path / "found.json"
    said = finish(start("benchmark", *ROOM, "--json", path, *arguments))
    return said, json.loads(path.read_text())


@pytest.mark.parametrize("name", SHAPES)
def test_a_step_reads_all_weights_but_those_that_are_looked_up(name):
    shape = SHAPES[name]
    model = nnx.eval_shape(lambda: decoder_of(shape).init(nnx.Rngs(0)))
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    sizes = {
        key: sum(math.prod(x.shape) for x in jax.tree.leaves(tree)) for key, tree in params.items()
    }
    assert shape.weights_read == sizes["blocks"] + sizes["norm"] + sizes["head"]
    assert sizes.keys() == {"blocks", "norm", "head", "codes_in", "classes_in"}
    assert shape.num_params == sum(sizes.values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_pages_differ_and_come_again(dtype):
    run = ours(SHAPES["tiny"], 2, dtype=dtype)
    first = run()
    assert first.shape == (2, 4, 4, 1) and (first[0] != first[1]).any()
    assert (run() == first).all()


def test_pages_of_fewer_codes_are_square():
    assert SHAPES["xl"].of(64).num_codes == 64
    with pytest.raises(ValueError, match="60 codes are no square page"):
        SHAPES["xl"].of(60)


def test_the_floor_is_the_slower_of_bytes_and_products():
    machine = Machine("x", "cpu", 2, 10.0, 5.0, {"float32": 100.0}, None)
    assert machine.floor_s(20.0, 100.0, dtype="float32", only_read=False) == 2.0
    assert machine.floor_s(20.0, 100.0, dtype="float32", only_read=True) == 4.0
    assert machine.floor_s(20.0, 900.0, dtype="float32", only_read=True) == 9.0


def test_ratios_are_of_pairs():
    took = {"ours": [1.0, 2.0, 4.0], "theirs": [3.0, 2.0, 2.0]}
    assert ratio(took, "theirs") == statistics.median([3.0, 1.0, 0.5])


def test_it_says_how_far_from_the_floor(tmp_path):
    said, found = told(
        tmp_path, "--only", "generation", "--shape", "tiny", "--batch", 1, 2, "--peers", "eager",
        "--dtype", "bfloat16", "--markdown",
    )  # fmt: skip
    one, machine = found["generation"], found["machine"]
    assert one == found["shapes"]["tiny"]
    assert one["step_bytes"]["2"] > one["step_bytes"]["1"] == SHAPES["tiny"].step_bytes(1, 2)
    for batch in ("1", "2"):
        products = one["step_flops"][batch] / machine["matmul_flops_per_s"]["bfloat16"]
        for key, rate in (("floor", "copy"), ("read_floor", "read")):
            moved = one["step_bytes"][batch] / machine[f"{rate}_bytes_per_s"]
            floor = int(batch) / max(moved, products)
            assert one[f"{key}_codes_per_s"][batch] == pytest.approx(floor)
            share = one["codes_per_s"][batch]["ours"] / floor
            assert one[f"share_of_{key}"][batch] == pytest.approx(share)
        speed = one["codes_per_s"][batch]
        assert one["ratio_to_eager_peer"][batch] == pytest.approx(speed["ours"] / speed["eager"])
        assert one["mfu"][batch] is None and one["failed"][batch] == {}
        assert one["peak_bytes"][batch]["ours"] > one["weight_bytes"][batch] > 0
    assert "times eager" in said and "| tiny | bfloat16 | 2 |" in said


def test_training_data_and_codes_are_measured(tmp_path):
    said, found = told(tmp_path, "--only", "train", "data", "--peers", "eager")
    for kind, unit in (("decoder", "tokens_per_s"), ("tokenizer", "images_per_s")):
        row = found["train"][kind]
        assert row["peer_params"] == {"eager": row["num_params"]}
        assert row["ratio_to_eager_peer"] == pytest.approx(
            row["step_s"]["eager"] / row["step_s"]["ours"]
        )
        amount = 2 * (SHAPES["tiny"].num_codes if kind == "decoder" else 1)
        assert row[unit]["ours"] == pytest.approx(amount / row["step_s"]["ours"])
        assert row["flops_per_s"] == pytest.approx(row["step_flops"] / row["step_s"]["ours"])
        eaten = found["data"][kind]
        assert eaten["step_rows_per_s"] == row["rows_per_s"]
        cores = row["rows_per_s"] / eaten["per_core_s"]
        assert eaten["cores_a_device"] == pytest.approx(cores) and cores > 0
    assert found["data"]["pages"]["per_core_s"] > 0 and "rows for a tokenizer" in said


def test_the_rest_is_measured(tmp_path):
    _, found = told(
        tmp_path, "--only", "elsewhere", "--planner", "configs/tiny/planner.py", "--prompts", 2,
        "--num-workers", 0,
    )  # fmt: skip
    rest = found["elsewhere"]
    assert all(rest["tokenizer"][n][f"{half}_images_per_s"] > 0
               for n in ("1", "16") for half in ("encode", "decode"))  # fmt: skip
    plan, coded = rest["planner"], rest["encode"]
    assert plan["ids_per_s"] == pytest.approx(plan["blueprints_per_s"] * plan["ids_a_blueprint"])
    assert coded["bound_pages_per_s"] <= min(coded["drawing"]["per_core_s"],
                                             coded["device"]["per_s"])  # fmt: skip
    assert coded["share_of_bound"] * coded["bound_pages_per_s"] == pytest.approx(
        coded["pages_per_s"]
    )


def test_a_start_finds_what_the_one_before_compiled(tmp_path):
    _, found = told(tmp_path, "--only", "startup")
    for caches in (found["startup"]["train"], found["startup"]["generation"]):
        assert list(caches) == ["off", "empty", "filled"]
        assert caches["filled"]["compile_s"] < caches["empty"]["compile_s"]
        for said in caches.values():
            parts = ("import_s", "build_s", "compile_s", "first_run_s")
            assert sum(said[n] for n in parts) == pytest.approx(said["total_s"])
            assert said["import_s"] > 0 and said["compile_s"] > 0


def test_the_peers_learn_the_same_shape_in_bfloat16():
    shape, page_px, dtype = SHAPES["tiny"], 16, "bfloat16"
    codes, pages = code_batch(shape, 4), page_batch(page_px, 4)
    pairs = [
        (training.ours(decoder_of(shape, dtype=dtype), codes), decoder(shape), codes),
        (
            training.ours(tokenizer_task("tiny", dtype=dtype), pages),
            tokenizer(TOKENIZERS["tiny"]), pages,
        ),
    ]  # fmt: skip
    for own, model, batch in pairs:
        peer = rival(model, batch, compiled=False, dtype=dtype)
        assert own.num_params == peer.num_params
        for each in (own, peer):
            losses = [each.run() for _ in range(3)]
            assert np.isfinite(losses).all() and len(set(losses)) > 1  # something moved
    assert pairs[0][0].flops > 6 * 16 * 4 * (shape.weights_read - shape.width)  # 6 N a token


@pytest.mark.parametrize("name", TOKENIZERS)
def test_peers_of_tokenizers_have_the_parameters_of_ours(name):
    model = nnx.eval_shape(lambda: tokenizer_task(name, dtype="float32").init(nnx.Rngs(0)))
    size = sum(math.prod(x.shape) for x in jax.tree.leaves(nnx.state(model, nnx.Param)))
    import torch

    with torch.device("meta"):
        assert sum(p.numel() for p in tokenizer(TOKENIZERS[name]).parameters()) == size


def test_codes_that_cost_nothing_come_again(tmp_path):
    contract = contract_of("tiny", 96)
    header = encode(encoding(toy_coder(contract), 96, 5, tmp_path))
    assert header["num_records"] == 5 and header["checked"]["codes_equal"] == 1.0
    assert jnp.max(toy_coder(contract).encode(np.full((1, 96, 96, 3), 255))) < 32


def test_what_begins_too_late_is_left_out_and_named(tmp_path, capsys):
    machine = Machine("x", "cpu", 2, 10.0, 5.0, {}, None)
    report = Report(machine, tmp_path / "f.json", limit_s=1.0)
    assert not report.is_late("early")
    report.began -= 2
    assert report.is_late("late")
    report.put("other", 1)
    assert json.loads((tmp_path / "f.json").read_text()) == {"left_out": ["late"], "other": 1}
    assert "late: left out" in capsys.readouterr().out


def test_cells_have_three_figures():
    assert [shown(x) for x in (None, 12345.6, 1.23456, 7, "a")] == ["-", "12346", "1.23", "7", "a"]
