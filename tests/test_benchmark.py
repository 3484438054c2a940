"""The benchmark counts what a step reads, and says what it found."""

import contextlib
import json
import math
import statistics
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pipeline.abstract import abstract_run
from scripts.bench import kernels
from scripts.bench.generation import SHAPES, decoder_of, ours
from scripts.bench.machine import Machine
from scripts.bench.pages import contract_of, encoding, toy_coder
from scripts.bench.report import Report, shown
from scripts.bench.rows import rows_of
from scripts.bench.sections import data, elsewhere, mfu, startup, train
from scripts.bench.training import TOKENIZERS, code_batch, tokenizer_task
from scripts.bench.training_peers import decoder, rival, tokenizer
from scripts.bench.turns import ratio
from scripts.benchmark import parsed
from tests.bundles import ROOT, finish, start
from train import config as configs
from train.data.encoding import encode

ROOM = ("--turns", "1", "--train-shape", "tiny", "--tokenizer-shape", "tiny", "--train-rows", "2",
        "--tokenizer-rows", "2", "--page-px", "96", "--pages", "8", "--peers", "eager")  # fmt: skip
MACHINE = Machine("x", "cpu", 2, 10e9, 5e9, {"float32": 1e11, "bfloat16": 1e11}, None)


def measured(tmp_path, section, *arguments):
    """What a section finds, in this process."""
    report = Report(MACHINE, tmp_path / "found.json")
    section.measure(report, parsed([*ROOM, *arguments]))
    return json.loads((tmp_path / "found.json").read_text())


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


def test_weights_of_fewer_bits_are_fewer_bytes():
    shape = SHAPES["tiny"]
    exact, half, quarter = (
        shape.step_bytes(1, weights=kind) for kind in ("float32", "bfloat16", "int8")
    )
    assert exact - half == 2 * shape.weights_read and half - quarter == shape.weights_read
    codes = ours(shape, 2, weights="int8")()
    assert codes.shape == (2, 4, 4, 1) and (codes == ours(shape, 2)()).mean() > 0.2


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
    path = tmp_path / "found.json"
    said = finish(start(
        "benchmark", *ROOM, "--only", "generation", "--shape", "tiny", "--batch", 1, 2, "--dtype",
        "bfloat16", "--markdown", "--floor-mib", 16, "--json", path, "--peers", "eager", "compiled",
    ))  # fmt: skip
    found = json.loads(path.read_text())
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
        for peer in ("eager", "compiled"):
            wanted = pytest.approx(speed["ours"] / speed[peer])
            assert one[f"ratio_to_{peer}_peer"][batch] == wanted
        assert one["mfu"][batch] is None and one["failed"][batch] == {}
        assert one["peak_bytes"][batch]["ours"] > one["weight_bytes"][batch] > 0
    assert "times eager" in said and "| tiny | bfloat16 | 2 |" in said


def test_training_and_data_are_measured(tmp_path, capsys):
    report = Report(MACHINE, tmp_path / "found.json")
    args = parsed([*ROOM, "--dtype", "bfloat16"])
    train.measure(report, args)
    data.measure(report, args)
    said, found = capsys.readouterr().out, json.loads((tmp_path / "found.json").read_text())
    for kind, unit in (("decoder", "tokens_per_s"), ("tokenizer", "images_per_s")):
        row = found["train"][kind]
        assert row["peer_params"] == {"eager": row["num_params"]}
        assert row["share_of_matmul_rate"] == pytest.approx(row["flops_per_s"] / 1e11)
        assert np.isfinite([*row["losses"].values()]).all() and len(row["losses"]) == 2
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
    tiny = SHAPES["tiny"]
    flops = found["train"]["decoder"]["step_flops"]
    assert flops > 6 * 2 * tiny.num_codes * (tiny.weights_read - tiny.width)  # 6 N a token


def test_the_rest_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(elsewhere, "BATCHES", (1, 2))
    told = ("--planner", str(ROOT / "configs/tiny/planner.py"), "--prompts", "2")
    rest = measured(tmp_path, elsewhere, *told)["elsewhere"]
    assert all(rest["tokenizer"][n][f"{half}_images_per_s"] > 0
               for n in ("1", "2") for half in ("encode", "decode"))  # fmt: skip
    plan, coded = rest["planner"], rest["encode"]
    assert plan["ids_per_s"] == pytest.approx(plan["blueprints_per_s"] * plan["ids_a_blueprint"])
    assert coded["bound_pages_per_s"] <= min(coded["drawing"]["per_core_s"],
                                             coded["device"]["per_s"])  # fmt: skip
    assert coded["share_of_bound"] * coded["bound_pages_per_s"] == pytest.approx(
        coded["pages_per_s"]
    )


def test_a_start_finds_what_the_one_before_compiled(tmp_path):
    empty, filled = (startup.run("train", ["tiny", "float32", "2"], tmp_path) for _ in range(2))
    assert filled["compile_s"] < empty["compile_s"]
    for said in (empty, filled):
        parts = ("import_s", "build_s", "compile_s", "first_run_s")
        assert sum(said[n] for n in parts) == pytest.approx(said["total_s"])
        assert said["import_s"] > 0 and said["compile_s"] > 0


def test_a_start_that_fails_says_why():
    with pytest.raises(RuntimeError, match=r"start-up of bundle failed: .*no-such-folder"):
        startup.run("bundle", ["no-such-folder"], None)


def test_a_configs_whole_step_is_measured(tmp_path, capsys):
    told = ("--rows", "2", "--remat", "dots", "--kernels", "3", "--dtype", "bfloat16",
            "--config.model.objective=causal", "--config.model.blocks.dtype=bfloat16")  # fmt: skip
    (row,) = measured(tmp_path, mfu, *told)["mfu"]
    assert row["config"] == "configs/tiny/decoder.py" and row["remat"] == "dots"
    assert row["flops_per_s"] == pytest.approx(row["step_flops"] / row["step_s"])
    assert row["share_of_matmul_rate"] == pytest.approx(row["flops_per_s"] / 1e11)
    assert row["mfu"] is None and row["kernels_s"] == {}  # it is a CPU's trace
    assert np.isfinite(row["loss"]) and row["held_bytes"] > 12 * row["num_params"]
    assert row["amounts"]["rows"] == 2 and "configs/tiny/decoder.py" in capsys.readouterr().out


@pytest.mark.parametrize(("said", "kept"), [("RESOURCE_EXHAUSTED: 99 GB", True), ("other", False)])
def test_what_does_not_fit_is_said_and_the_next_measured(said, kept, tmp_path, monkeypatch):
    def full(*_):
        raise jax.errors.JaxRuntimeError(said)

    monkeypatch.setattr(mfu, "ours", full)
    with contextlib.nullcontext() if kept else pytest.raises(jax.errors.JaxRuntimeError):
        found = measured(tmp_path, mfu, "--rows", "1", "2")["mfu"]
        assert [(row["rows"], row["problem"]) for row in found] == [(1, said), (2, said)]


def test_only_configs_take_what_no_flag_says():
    assert parsed(["--config.model.remat=full"]).changes == ["--config.model.remat=full"]
    with pytest.raises(SystemExit):
        parsed(["--kernel", "--turm"])


@pytest.mark.parametrize("name", ["decoder", "planner"])
def test_rows_are_what_the_config_trains_on(name):
    made = rows_of(ROOT / f"configs/tiny/{name}.py", 3)
    shapes = abstract_run(configs.load(ROOT / f"configs/tiny/{name}.py")).batch
    assert made.batch.keys() == shapes.keys() and made.loop.mesh == {"data": 1}
    for key, array in made.batch.items():
        assert (len(array), *array.shape[1:]) == (3, *shapes[key].shape[1:])
        assert array.dtype == shapes[key].dtype
    told = "letters" if name == "decoder" else "ids"
    assert (made.batch[told][0] != made.batch[told][1]).any() and made.batch[told].any()


def test_rows_that_need_more_than_pages_are_refused():
    changes = ["--config.losses.text_edges=0.2"]
    with pytest.raises(configs.ConfigError, match=r"tokenizer.py: rows of .* are not drawn here"):
        rows_of(ROOT / "configs/tiny/tokenizer.py", 1, changes)


def test_kernels_are_added_up_by_kind():
    kinds = {
        "nvjet_sm90_tst_128x160": "products", "gemm_fusion_dot_3": "products",
        "cudnn_sdpa_sm90_flash_bprop": "attention", "sm90_xmma_fprop_implicit_gemm": "convolutions",
        "memcpy128": "copies", "void cudnn::fusion::compute_dot_do_o<true>": "attention",
        "loop_convert_fusion": "fusions", "input_reduce_fusion_1": "fusions",
    }  # fmt: skip
    assert {name: kernels.kind(name) for name in kinds} == kinds
    event = lambda name, ns, **stats: SimpleNamespace(  # noqa: E731
        name=name, duration_ns=ns, stats=list(stats.items())
    )
    events = [event("loop_add_fusion_3", 1000), event("loop_add_fusion_3", 3000),
              event("nvjet", 9000, hlo_op="dot.7")]  # fmt: skip
    lines = [SimpleNamespace(name="Stream #1(Compute)", events=events),
             SimpleNamespace(name="XLA Modules", events=[event("jit_step", 99000)])]  # fmt: skip
    planes = [SimpleNamespace(name="/device:GPU:0", lines=lines),
              SimpleNamespace(name="/host:CPU", lines=lines)]  # fmt: skip
    found = list(kernels.read(SimpleNamespace(planes=planes)))
    assert kernels.by_kind(found) == pytest.approx({"products": 9e-6, "fusions": 4e-6})
    text = """
  %loop_add_fusion.3 = f32[2]{0} fusion(%p), metadata={op_name="jit(step)/add" stack_frame_id=1}
  ROOT %dot.7 = f32[2]{0} custom-call(%q), metadata={op_type="x" op_name="jit(step)/dot"}
  %other = f32[2]{0} copy(%q)
"""
    written = kernels.sources(text)
    assert written == {"loop_add_fusion.3": "jit(step)/add", "dot.7": "jit(step)/dot"}
    (first, second) = kernels.longest(found, 2, written)
    assert first["kernel"] == "nvjet" and first["source"] == "jit(step)/dot"
    assert second["times"] == 2 and second["seconds"] == pytest.approx(4e-6)
    assert second["source"] == "jit(step)/add" and second["instructions"] == 1
    assert kernels.longest(found, 1, written) == [first]


def test_a_peer_learns():
    shape = SHAPES["tiny"]
    peer = rival(decoder(shape), code_batch(shape, 4), compiled=False)
    assert peer.num_params == shape.num_params
    losses = [peer.run() for _ in range(3)]
    assert losses[0] == pytest.approx(math.log(shape.codebook_size), abs=0.7)
    assert losses[2] < losses[0]


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
