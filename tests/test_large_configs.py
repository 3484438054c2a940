"""The large runs: their sizes against published ones, and that their heads say what they are.

Nothing is compiled and no array is made: parameters are counted by `nnx.eval_shape`.
"""

import functools
import math
import re
from pathlib import Path

import jax
import pytest
from flax import nnx

import pipeline
from configs import large
from decoder.conditioning import ConditioningConfig, condition
from layers.axes import axes_tree, partition_spec
from layers.norm import RMSNorm
from planner.examples import example
from tokenizer.lines import line_boxes
from train.config import build, load
from train.data.posters.canvas import PageStyle
from train.data.posters.pages import plan
from train.data.sources import DataConfig
from train.plan import LoopConfig
from train.state import by_names, names

ROOT = Path(__file__).resolve().parents[1]
TASKS = {
    "decoder": pipeline.decoder_task, "planner": pipeline.planner_task,
    "tokenizer": pipeline.tokenizer_task,
}  # fmt: skip
RUNS = [
    f"{path.parent.name}/{path.stem}"
    for room in TASKS
    for path in sorted((ROOT / "configs" / room).glob("*.py"))
    if path.stem != "__init__"
]
DEVICES = {"v5p-256": 128, "v6e-256": 256, "64 H100s": 64, "v5p:8x8x8": 512}

# What LlamaGen's README (7B: its gpt.py) gives, and what it counts: the trunk, its norm, a table of
# 1001 classes, one of 16384 codes, and as many rows of the head.
LLAMAGEN = {"b": 111e6, "xl": 775e6, "3b": 3.1e9, "7b": 6.6e9}
# All parameters of Llama-3.2-1B and of Llama-3-8B, and how often its table of 128,256 ids is there:
# once where the head is tied to it.
LLAMA = {"1b": (1_235_814_400, 1), "8b": (8_030_261_248, 2)}
LLAMA_IDS = 128_256
TOKENIZERS = {"vq16": 72e6, "legible": 70e6}  # VQ-16 and VQ-8 in LlamaGen's README


def path_of(run):
    return ROOT / "configs" / f"{run}.py"


@functools.cache
def model_of(run, *overrides):
    config = load(path_of(run), overrides)
    task = TASKS[config.task](config)
    return nnx.eval_shape(lambda: task.init(nnx.Rngs(0)))


def counts(model):
    """Parameters by the name of the part that has them."""
    parts = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    return {name: sum(x.size for x in jax.tree.leaves(part)) for name, part in parts.items()}


def ways(spec, mesh):
    """Into how many parts a spec cuts an array."""
    parts = [(part,) if isinstance(part, str) else part or () for part in spec]
    return math.prod(mesh[name] for part in parts for name in part)


def head_of(run):
    """A config's docstring, on one line."""
    return " ".join(path_of(run).read_text().split('"""')[1].split())


def overrides_in(path):
    text = path.read_text().split('"""')[1]
    return re.findall(r"^ {4}(--config\.\S+)$", text, flags=re.MULTILINE)


def test_all_of_them_are_here():
    assert {run.split("/")[1] for run in RUNS} == {*LLAMAGEN, *LLAMA, *TOKENIZERS}


@pytest.mark.parametrize("size", LLAMAGEN)
def test_a_decoder_has_the_parameters_of_llamagen(size):
    run = f"decoder/{size}"
    theirs = counts(model_of(run, "--config.model.num_classes=1000"))
    assert set(theirs) == {"blocks", "classes_in", "codes_in", "head", "norm"}
    total = sum(theirs.values())
    assert total == pytest.approx(LLAMAGEN[size], rel=0.01)
    ours = counts(model_of(run))  # with our conditioning, and without classes
    shared = {name: ours[name] for name in ("blocks", "codes_in", "head", "norm")}
    assert shared == {name: count for name, count in theirs.items() if name != "classes_in"}
    for number in (total, sum(shared.values()), sum(ours.values())):
        assert f"{number:,}" in head_of(run)


@pytest.mark.parametrize("size", LLAMA)
def test_a_planner_has_the_trunk_of_llama(size):
    total, tables = LLAMA[size]
    run, config = f"planner/{size}", load(path_of(f"planner/{size}")).model
    ours = counts(model_of(run))
    trunk = total - tables * LLAMA_IDS * config.blocks.width
    assert ours["blocks"] + ours["norm"] == trunk
    of_ids = tables * config.vocab_size * config.blocks.width
    assert sum(ours.values()) == trunk + of_ids
    for number in (trunk, trunk + of_ids, total):
        assert f"{number:,}" in head_of(run)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_has_the_parameters_of_llamagen(name):
    model = model_of(f"tokenizer/{name}")
    parts = counts(model)
    halves = parts["encoder"], parts["decoder"]
    total = sum(halves) + parts.get("quantizer", 0)
    assert total == pytest.approx(TOKENIZERS[name], rel=0.01)
    learnt_or_gathered = 16384 * 8 if name == "vq16" else 8 * 4096 * 8
    assert f"{learnt_or_gathered:,}" in head_of(f"tokenizer/{name}")
    for number in (total, *halves, parts["critic"]):
        assert f"{number:,}" in head_of(f"tokenizer/{name}")


def test_tokenizers_have_the_codes_they_should():
    vq16, legible = (load(path_of(f"tokenizer/{name}")).model for name in ("vq16", "legible"))
    assert (vq16.quantizer.codebook.size, vq16.quantizer.codebook.width) == (16384, 8)
    assert vq16.quantizer.codebook.cosine and vq16.quantizer.num_codes == 1
    bits = {
        model.backbone.downsampling: model.quantizer.num_codes
        * math.log2(model.quantizer.codebook.size)
        for model in (vq16, legible)
    }
    assert bits == {16: 14, 8: 96}
    for size in LLAMAGEN:
        model = load(path_of(f"decoder/{size}")).model
        assert (model.num_codes, model.codebook_size) == (1, 16384)
        assert model.conditioning.downsampling == 16


@pytest.mark.parametrize("run", RUNS)
def test_a_run_says_how_long_it_is_and_what_is_not_measured(run):
    """Tokens are codes of a page, or the places that a planner's pages fill."""
    config, head = load(path_of(run)), head_of(run)
    data, loop = build(DataConfig, config.data), build(LoopConfig, config.loop)
    if config.task == "planner":
        places = config.model.max_length
    else:
        model = config.model
        f = (model.conditioning if config.task == "decoder" else model.backbone).downsampling
        codes = model.num_codes if config.task == "decoder" else model.quantizer.num_codes
        places = data.page.width_px // f * (data.page.height_px // f) * codes
    tokens = data.batch_size * loop.num_steps * places
    assert f"Expected tokens: {tokens / 1e9:.1f} billion" in head
    assert f"{loop.num_steps:,} steps in all" in head and "HBM per chip (preflight): " in head
    rate = loop.optimizers["hidden"].learning_rate
    assert float(re.search(r"AdamW at ([\d.e-]+),", head)[1]) == rate
    assert f"{loop.optimizers['hidden'].warmup_steps:,} steps of warm-up" in head
    groups = {"hidden", "rest"} | ({"critic"} if config.task == "tokenizer" else set())
    assert set(loop.optimizers) == groups
    assert f"--config configs/{run}.py" in head


@pytest.mark.parametrize("run", RUNS)
def test_overrides_that_a_head_gives_are_good_ones(run):
    for argument in overrides_in(path_of(run)):
        config = load(path_of(run), [argument])
        assert config != load(path_of(run)), argument
        build(LoopConfig, config.loop)
        TASKS[config.task](config)


def test_a_decoder_of_legible_codes_by_overrides():
    arguments = overrides_in(ROOT / "configs" / "large.py")
    arguments = [argument for argument in arguments if ".mesh=" not in argument]
    told = load(path_of("decoder/xl"), arguments, sections={"loop": LoopConfig})
    assert told.loop.microbatches == 0
    legible = load(path_of("tokenizer/legible"))
    model = pipeline.decoder_task(told).model
    assert model.num_codes == legible.model.quantizer.num_codes
    assert model.codebook_size == legible.model.quantizer.codebook.size
    assert model.conditioning.downsampling == legible.model.backbone.downsampling
    assert told.data.page == legible.data.page
    assert model.objective == "masked" and model.conditioning.max_characters == 512


@pytest.mark.parametrize("hardware", DEVICES)
@pytest.mark.parametrize("run", RUNS)
def test_batches_and_large_arrays_are_cut_over_every_chip(run, hardware):
    """No chip holds more than its share of the parameters, but for 2 %; a whole number of pages."""
    config, num_devices = load(path_of(run)), DEVICES[hardware]
    mesh = dict(config.loop.mesh.to_dict())
    if hardware == "64 H100s" and "fsdp" in mesh:
        mesh["fsdp"] = 8
    cut = mesh.get("fsdp", 1)
    mesh["data"] = num_devices // cut
    rules = config.loop.rules.to_dict()
    rows = config.data.batch_size
    if not (config.task == "tokenizer" and num_devices > rows):
        assert ways(partition_spec("B", (rows,), rules, mesh), mesh) == num_devices
    model = model_of(run)
    letters = by_names(axes_tree(model))
    own, total = 0, 0
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        spec = partition_spec(letters[names(path)], leaf.shape, rules, mesh)
        own, total = own + leaf.size / ways(spec, mesh), total + leaf.size
    assert own <= 1.02 * total / cut


@pytest.mark.parametrize("run", ["decoder/b", "planner/1b", "planner/8b", "tokenizer/legible"])
def test_pages_keep_to_the_limits(run):
    """A few of them; the counts in `configs/large.py` are of hundreds."""
    config = load(path_of(run))
    style = build(PageStyle, config.data.page)
    for seed in range(40):
        prompt, blueprint = plan(seed, style)
        record = {"prompt": prompt, "blueprint": blueprint}
        match config.task:
            case "decoder":
                told = condition(blueprint, build(ConditioningConfig, config.model.conditioning))
                assert told["letters"].shape == (128,) and told["regions"].shape[:2] == (32, 32)
            case "planner":
                assert example(record, config.model.max_length)["planned"].any()
            case _:
                assert line_boxes(blueprint, config.text.max_lines).any()


@pytest.mark.parametrize("run", ["planner/1b", "planner/8b", "tokenizer/vq16", "tokenizer/legible"])
def test_a_run_is_made_without_data_on_disk(run):
    made = pipeline.run(load(path_of(run)))
    assert type(made.task) is type(TASKS[run.split("/")[0]](load(path_of(run))))
    assert made.loop.num_steps >= 100_000 and made.evaluate is not None


@pytest.mark.parametrize("run", ["decoder/3b", "planner/1b"])
def test_norms_add_what_llama_adds(run):
    model = model_of(run, *(["--config.model.num_classes=1000"] if "decoder" in run else []))
    norms = [module for _, module in nnx.iter_modules(model) if isinstance(module, RMSNorm)]
    assert [norm.eps for norm in norms] == [1e-5] * 3  # two of the stacked block, and the last


def test_llamagens_hidden_sizes():
    """8/3 of the width, rounded up to a multiple of 256."""
    wanted = {768: 2048, 1024: 2816, 1280: 3584, 1536: 4096, 2048: 5632, 3200: 8704, 4096: 11008}
    made = {width: large.llamagen(width=width, num_layers=1, num_heads=2) for width in wanted}
    assert {width: blocks["hidden"] for width, blocks in made.items()} == wanted
