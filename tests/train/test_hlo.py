"""Reading a compiled program: its groups, its loops, its products, its collectives."""

import jax
import jax.numpy as jnp
import pytest

from train.preflight.hlo import arrays_of, groups_of, parse, visits
from train.preflight.work import axes_of, collectives, work

MESH = {"data": 2, "fsdp": 4}
FSDP, DATA = [[0, 1, 2, 3], [4, 5, 6, 7]], [[0, 4], [1, 5], [2, 6], [3, 7]]
ALL = [[0, 1, 2, 3, 4, 5, 6, 7]]


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add", FSDP),
        ("replica_groups=[2,4]<=[8], to_apply=%add", FSDP),
        ("replica_groups=[4,2]<=[2,4]T(1,0), to_apply=%add", DATA),
        ("replica_groups={}, to_apply=%add", ALL),
        ("replica_groups=[1,8]<=[8]", ALL),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, dimensions={0}", FSDP),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0'}", DATA),
        ("replica_groups=mesh['a'=8] {'a':(2)4}, x={0}", FSDP),
        ("replica_groups=mesh['a'=8] {'a':(1)2}, x={0}", DATA),
        ("replica_groups=mesh['a'=4,'b'=1,'c'=2], device_ids=([2,4]T(1,0)) {'a'}, x={}", FSDP),
        ("replica_groups=mesh['a'=2,'b'=4] {'a','b'}", ALL),
        ("source_target_pairs={{0,1},{1,0}}", [[0, 1], [1, 0]]),
    ],
)
def test_groups_in_every_form(text, groups):
    assert groups_of(f"channel_id=1, {text}, use_global_device_ids=true", 8) == groups


@pytest.mark.parametrize(
    ("group", "axes"),
    [((0, 1, 2, 3), "fsdp"), ((1, 5), "data"), (tuple(range(8)), "data+fsdp"), ((3,), "none")],
)
def test_a_group_has_its_axes(group, axes):
    assert axes_of(group, MESH) == axes


def test_arrays_have_their_bytes_and_their_memory():
    text = "(bf16[2,3]{1,0:T(8,128)(2,1)}, f32[]{:T(128)S(6)}, /*index=2*/pred[5]{0}, s4[8]{0})"
    found = arrays_of(text)
    assert [a.num_bytes for a in found] == [12, 4, 5, 4]
    assert [a.memory for a in found] == [0, 6, 0, 0]


# 64 float32 numbers are 256 bytes; a group has four chips, which send 3/4 of the whole by a ring.
KINDS = {
    "all-gather": ("%r = f32[256]{0} all-gather(%x), FSDP, dimensions={0}", 768),
    "reduce-scatter": ("%r = f32[16]{0} reduce-scatter(%x), FSDP, to_apply=%add", 192),
    "all-reduce": ("%r = f32[64]{0} all-reduce(%x), FSDP, to_apply=%add", 384),
    "all-to-all": ("%r = f32[64]{0} all-to-all(%x), FSDP, dimensions={0}", 192),
    "collective-permute": (
        "%r = f32[64]{0} collective-permute(%x), source_target_pairs={{0,1},{1,2}}",
        256,
    ),
}
PROGRAM = """HloModule m, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {{
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %c = f32[] add(%a, %b)
}}

ENTRY %main (x: f32[64]) -> f32[64] {{
  %x = f32[64]{{0}} parameter(0)
{body}
  ROOT %out = f32[64]{{0}} negate(%x)
}}
"""


def talk(body, num_devices=8):
    lines = body.replace("FSDP", "channel_id=1, replica_groups=[2,4]<=[8]").split("\n")
    text = PROGRAM.format(body="\n".join(f"  {line}" for line in lines))
    return [(c.kind, axes_of(c.group, MESH), c.times, c.wire_bytes)
            for c in work(text, num_devices).collectives]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_sends_what_a_ring_sends(kind):
    line, sent = KINDS[kind]
    assert talk(line) == [(kind, "fsdp", 1, sent)]


def test_what_is_started_and_done_is_one():
    body = """%s = (f32[64]{0}, f32[256]{0}) all-gather-start(%x), FSDP, dimensions={0}
%d = f32[256]{0} all-gather-done(%s)"""
    assert talk(body) == [("all-gather", "fsdp", 1, 768)]


def test_several_arrays_go_together():
    body = "%r = (f32[64]{0}, f32[64]{0}) all-reduce(%x, %x), FSDP, to_apply=%add"
    assert talk(body) == [("all-reduce", "fsdp", 1, 768)]


LOOPS = """HloModule m

%all-reduce-scatter.3 (input: f32[64]) -> f32[16] {
  %input = f32[64]{0} parameter(0)
  %z = s32[] constant(0)
  %ar = f32[64]{0} all-reduce(%input), channel_id=4, replica_groups={{0,1,2,3},{4,5,6,7}}
  ROOT %ds = f32[16]{0} dynamic-slice(%ar, %z), dynamic_slice_sizes={16}
}

%body (p: (s32[], f32[64])) -> (s32[], f32[64]) {
  %p = (s32[], f32[64]{0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[64]{0} get-tuple-element(%p), index=1
  %one = s32[] constant(1)
  %j = s32[] add(%i, %one)
  %own = f32[16]{0} fusion(%x), kind=kCustom, calls=%all-reduce-scatter.3
  %g = f32[64]{0} all-gather(%own), channel_id=2, replica_groups=[2,4]<=[8], dimensions={0}
  ROOT %t = (s32[], f32[64]{0}) tuple(%j, %g)
}

%condition (p: (s32[], f32[64])) -> pred[] {
  %p = (s32[], f32[64]{0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %n = s32[]{:T(128)} constant(32)
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (x: f32[64]) -> f32[64] {
  %x = f32[64]{0} parameter(0)
  %zero = s32[] constant(START)
  %init = (s32[], f32[64]{0}) tuple(%zero, %x)
  %w = (s32[], f32[64]{0}) while(%init), condition=%condition, body=%bodyNOTED
  ROOT %out = f32[64]{0} get-tuple-element(%w), index=1
}
"""


@pytest.mark.parametrize(
    ("start", "noted", "turns"),
    [
        ("0", "", 32),
        ("2", "", 30),
        ("0", ', backend_config={"known_trip_count":{"n":"7"},"x":{}}', 7),
    ],
)
def test_a_loop_counts_as_often_as_it_turns(start, noted, turns):
    module = parse(LOOPS.replace("START", start).replace("NOTED", noted))
    found = [(c.kind, c.times, c.wire_bytes) for c in collectives(module, 8)]
    assert found == [
        ("reduce-scatter", turns, turns * 192), ("all-gather", turns, turns * 192),
    ]  # fmt: skip


def test_a_loop_that_data_ends_is_said():
    text = LOOPS.replace("START", "0").replace("NOTED", "").replace("constant(32)", "parameter(1)")
    assert work(text, 8).unknown_loops == 1
    assert all(v.known for v in visits(parse(LOOPS.replace("START", "0").replace("NOTED", ""))))


def test_a_gather_by_all_reduce_is_seen():
    body = """%z = f32[256]{0} broadcast(%x), dimensions={}
%n = s32[] constant(0)
%own = f32[256]{0} dynamic-update-slice(%z, %x, %n)
%r = f32[256]{0} all-reduce(%own), FSDP, to_apply=%add"""
    lines = body.replace("FSDP", "replica_groups=[2,4]<=[8]").split("\n")
    found = work(PROGRAM.format(body="\n".join(f"  {line}" for line in lines)), 8)
    assert [c.is_gather for c in found.collectives] == [True]


def test_batched_products_of_a_tpu_meet_no_holes():
    """As libtpu writes the scores of 8 groups of 4 heads: [b 2048, g 8, h 4, 128] by keys."""
    body = """%q = bf16[8,32,4,128]{3,2,1,0} parameter(1)
%k = bf16[32,128,8,1]{3,2,1,0} parameter(2)
%c = f32[8,32,4,32]{3,2,1,0} convolution(%q, %k), window={size=8x1 stride=7x1 lhs_dilate=8x1}, \
dim_labels=0b1f_o0i1->0b1f"""
    body = body.replace("bf16[32,128,8,1]", "bf16[32,8,128,1]")
    found = work(PROGRAM.format(body="\n".join(f"  {line}" for line in body.split("\n"))), 1)
    assert found.flops == 2 * 8 * 4 * 32 * 32 * 128


def test_a_compiled_scan_is_counted_whole_and_reads_slices():
    def f(x, stack):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, stack)[0]

    x, stack = jnp.zeros((8, 256)), jnp.zeros((6, 256, 256))
    text = jax.jit(f).lower(x, stack).compile().as_text()
    found = work(text, 1)
    assert found.flops == 6 * 2 * 8 * 256 * 256
    once = stack.nbytes
    assert once < found.hbm_bytes < 4 * once  # not six times the whole stack
    assert not found.collectives and not found.unknown_loops


@pytest.mark.parametrize(
    ("table", "kernel", "products"),
    [("", "fwd", 2), ("s8[1,3,3]{2,1,0}", "fwd", 2 * 4 / 6), ("s8[1,3,3]{2,1,0}", "dkv", 4 * 4 / 6),
     ("s8[1,3,3]{2,1,0}", "dq", 3 * 4 / 6)],
)  # fmt: skip
@pytest.mark.parametrize("rows", ["2,", ""])
def test_a_kernel_of_splash_attention_is_counted_by_its_blocks(table, kernel, products, rows):
    """Two rows of four heads of 16 over 384 positions, of whose nine blocks a causal mask leaves
    six; two kv heads serve them."""
    lines = ["  %t = " + table + " parameter(0)"] if table else []
    lines += [
        "  %q = bf16[ROWS4,384,16] parameter(1)",
        "  %k = bf16[ROWS2,384,16] parameter(2)",
        f"  ROOT %splash_mha_{kernel}_no_residuals.1 = bf16[ROWS4,384,16] custom-call("
        + ("%t, " if table else "") + "%q, %k, %k), custom_call_target=\"tpu_custom_call\"",
    ]  # fmt: skip
    text = "ENTRY %main (x: f32[]) -> f32[] {\n" + "\n".join(lines) + "\n}\n"
    flops = products * 2 * 4 * 384 * 384 * 16
    assert work(text.replace("ROWS", rows), 1).flops == flops * (2 if rows else 1)
