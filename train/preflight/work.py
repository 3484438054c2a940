"""What a compiled program does on one chip: products, bytes through its memory, bytes to others."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping

import numpy as np

from train.preflight.hlo import (
    Array,
    Computation,
    Instruction,
    Module,
    groups_of,
    num_trips,
    parse,
    visits,
)

KINDS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "call", "after-all",
    "conditional", "partition-id", "replica-id", "opt-barrier", "iota", "async-start",
}  # fmt: skip

_SPLASH = re.compile(r"splash_m[hq]a_(fwd|dkv|dq)")
_SPLASH_PRODUCTS = {"fwd": 2, "dq": 3, "dkv": 4}  # scores anew, and what each gradient is of


@dataclasses.dataclass(frozen=True)
class Collective:
    """Collectives of one kind over one set of devices.

    `wire_bytes` is what a chip sends in one run of the program by a ring, the least there is:
    (n - 1) / n of the whole for a gather, a scatter or an all-to-all, twice that for an all-reduce.
    """

    kind: str
    group: tuple[int, ...]
    times: int
    wire_bytes: int
    is_gather: bool = False  # an all-reduce of zeros but for the own share


@dataclasses.dataclass(frozen=True)
class Work:
    """Of one chip in one run: `flops` of products and convolutions (2 a multiply-add),
    `hbm_bytes` read and written between instructions, `collectives`, and how many loops did not
    say how often they turn (counted once)."""

    flops: int
    hbm_bytes: int
    collectives: tuple[Collective, ...]
    unknown_loops: int


def work(text: str, num_devices: int) -> Work:
    """The work of a program's text, loops times their turns."""
    module = parse(text)
    flops = sum(v.times * flops_of(v.instruction, v.computation)
                for v in visits(module, fusions=True))  # fmt: skip
    outer = list(visits(module))
    hbm = sum(v.times * hbm_bytes(v.instruction, v.computation, module) for v in outer)
    unknown = sum(
        1 for v in outer
        if v.instruction.opcode == "while"
        and num_trips(v.instruction, module, v.computation) is None
    )  # fmt: skip
    return Work(flops, hbm, tuple(collectives(module, num_devices)), unknown)


def flops_of(instruction: Instruction, computation: Computation) -> int:
    """2 a multiply-add; of what is no product 0. A kernel of another compiler says its own."""
    if instruction.opcode == "dot":
        left = computation[instruction.operands[0]].arrays[0]
        dims = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)
        summed = [left.shape[int(i)] for i in dims[1].split(",") if i] if dims else []
        return 2 * math.prod(instruction.arrays[0].shape) * math.prod(summed)
    if instruction.opcode == "convolution":
        return _convolution(instruction, computation)
    if instruction.opcode == "custom-call":
        if kernel := _SPLASH.match(instruction.name):
            return _splash(kernel[1], [computation[name] for name in instruction.operands])
        said = re.search(r'"flops":"?(\d+)', instruction.attributes)
        return int(said[1]) if said else 0
    return 0


def _splash(kernel: str, operands: list[Instruction]) -> int:
    """Products of one of Splash attention's kernels, which says nothing itself: each is over all
    pairs of queries and keys, or where a table of blocks [1 n n] is given, over the blocks on and
    under its diagonal (n + 1 of 2n)."""
    arrays = [operand.arrays[0] for operand in operands]
    query, key = [array.shape for array in arrays if "f" in array.dtype][:2]  # [.. N T H]
    tables = [array.shape for array in arrays if array.dtype.startswith("s") and
              len(array.shape) == 3 and array.shape[0] == 1]  # fmt: skip
    pairs = math.prod(query) * key[-2]
    if tables and tables[0][1] == tables[0][2]:
        n = tables[0][1]
        pairs = pairs * (n + 1) // (2 * n)
    return 2 * _SPLASH_PRODUCTS[kernel] * pairs


def _convolution(instruction: Instruction, computation: Computation) -> int:
    """Only the taps that meet a number of the input: TPUs write batched products as convolutions
    whose windows meet mostly the holes between them."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
    assert labels is not None, instruction.name
    left, right, out = labels.groups()
    image, kernel = (computation[name].arrays[0].shape for name in instruction.operands[:2])
    window = re.search(r"window=\{([^}]*)\}", instruction.attributes)
    told = dict(re.findall(r"(\w+)=(\S+)", window[1] if window else ""))
    spatial = sorted(c for c in left if c.isdigit())
    groups = re.search(r"batch_group_count=(\d+)", instruction.attributes)
    shape = instruction.arrays[0].shape
    count = 2 * shape[out.index("f")] * kernel[right.index("i")]
    count = count * shape[out.index("b")]
    for i, dim in enumerate(spatial):
        at = lambda key, default, i=i: int((told.get(key, "") or default).split("x")[i])  # noqa: E731
        ones = "x".join("1" * len(spatial))
        pad = told.get("pad", "x".join(["0_0"] * len(spatial))).split("x")[i]
        count *= _taps(
            image[left.index(dim)], shape[out.index(dim)], kernel[right.index(dim)],
            low=int(pad.split("_")[0]), stride=at("stride", ones),
            holes=(at("lhs_dilate", ones), at("rhs_dilate", ones)),
        )  # fmt: skip
    return count // (int(groups[1]) if groups else 1)


def _taps(
    size: int, num_out: int, num_kernel: int, *, low: int, stride: int, holes: tuple[int, int]
) -> int:
    """Pairs of output and kernel positions that meet an input along one dimension."""
    ours, theirs = holes
    met = 0
    for start in range(0, num_kernel * theirs, theirs):
        at = np.arange(num_out) * stride + (start - low)
        met += int(((at % ours == 0) & (at >= 0) & (at // ours < size)).sum())
    return met


def _hbm(arrays: Iterable[Array]) -> int:
    return sum(array.num_bytes for array in arrays if array.memory == 0)


def hbm_bytes(instruction: Instruction, computation: Computation, module: Module) -> int:
    """Bytes that it reads and writes in the chip's memory; a slice of an array reads the slice, an
    update in place writes the update. What lies in a faster memory (S(1) of a TPU) is free."""
    opcode = instruction.opcode
    if opcode in _FREE or opcode.endswith("-done"):
        return 0
    operands = [computation[name] for name in instruction.operands if name in computation]
    if opcode == "fusion":
        inner = module.computations[instruction.called("calls")[0]]
        read = sum(_read(inner, i, o, module) for i, o in enumerate(operands))
        return read + _written(inner, instruction)
    if opcode in ("dynamic-slice", "gather", "slice"):
        return 2 * _hbm(instruction.arrays)
    if opcode in ("dynamic-update-slice", "scatter"):
        return 2 * _hbm(operands[-1 if opcode == "scatter" else 1].arrays)
    written = instruction.arrays[:1] if opcode.endswith("-start") else instruction.arrays
    return sum(_hbm(o.arrays) for o in operands) + _hbm(written)


def _read(inner: Computation, index: int, operand: Instruction, module: Module) -> int:
    """What a fusion reads of its operand: all of it, unless it only takes slices of it."""
    if _hbm(operand.arrays) == 0:
        return 0
    (own,) = (
        i.name for i in inner.values()
        if i.opcode == "parameter" and i.attributes.split(",")[0] == str(index)
    )  # fmt: skip
    sliced = _sliced(inner, own, module)
    return _hbm(operand.arrays) if sliced is None else sliced


def _sliced(inner: Computation, name: str, module: Module) -> int | None:
    total = 0
    for user in inner.values():
        if name not in user.operands:
            continue
        if user.opcode in ("dynamic-slice", "gather", "slice") and user.operands[0] == name:
            total += user.num_bytes
        elif user.opcode == "dynamic-update-slice" and user.operands[0] == name:
            continue
        elif user.opcode in ("bitcast", "fusion"):
            part = None
            if user.opcode == "bitcast":
                part = _sliced(inner, user.name, module)
            else:
                nested = module.computations[user.called("calls")[0]]
                at = str(user.operands.index(name))
                for i in nested.values():
                    if i.opcode == "parameter" and i.attributes.split(",")[0] == at:
                        part = _sliced(nested, i.name, module)
            if part is None:
                return None
            total += part
        else:
            return None
    return total


def _written(inner: Computation, fusion: Instruction) -> int:
    """What a fusion writes: where its root updates a slice in place, the slice."""
    (root,) = (i for i in inner.values() if i.is_root)
    results = [inner[n] for n in root.operands] if root.opcode == "tuple" else [root]
    total = 0
    for array, result in zip(fusion.arrays, results, strict=False):
        while result.opcode in ("bitcast", "copy") and result.operands:
            result = inner[result.operands[0]]
        if result.opcode == "dynamic-update-slice" and array.memory == 0:
            total += inner[result.operands[1]].num_bytes
        else:
            total += _hbm([array])
    return total


def collectives(module: Module, num_devices: int) -> list[Collective]:
    """Every collective with its wire bytes, started ones once; an all-reduce that a TPU fuses with
    the slice that follows counts as the reduce-scatter it is."""
    found = []
    for visit in visits(module, fusions=True):
        instruction = visit.instruction
        kind = instruction.opcode.removesuffix("-start")
        if kind not in KINDS or "async-collective-done" in visit.inside:
            continue
        given = [visit.computation[name] for name in instruction.operands]
        group = groups_of(instruction.attributes, num_devices)[0]
        n, payload = len(group), sum(o.num_bytes for o in given)
        scattered = kind == "all-reduce" and visit.inside.startswith("all-reduce-scatter")
        kind = "reduce-scatter" if scattered else kind
        wire = {
            "all-gather": payload * (n - 1), "reduce-scatter": payload * (n - 1) // n,
            "all-reduce": 2 * payload * (n - 1) // n, "all-to-all": payload * (n - 1) // n,
            "collective-permute": payload,
        }[kind]  # fmt: skip
        spread = kind == "all-reduce" and bool(given) and all(_spreads(o, module) for o in given)
        found.append(Collective(kind, tuple(group), visit.times, visit.times * wire, spread))
    return found


def _spreads(operand: Instruction, module: Module) -> bool:
    """Whether an operand is zeros with the own share put in its place."""
    if operand.opcode == "fusion":
        inner = module.computations[operand.called("calls")[0]]
        return any(i.is_root and _spreads(i, module) for i in inner.values())
    return operand.opcode == "dynamic-update-slice"


def axes_of(group: tuple[int, ...], mesh: Mapping[str, int]) -> str:
    """The mesh axes along which a group's devices differ, joined by `+`, as `data+fsdp`; devices
    are numbered as the mesh lays them out, its last axis fastest."""
    names, sizes = list(mesh), list(mesh.values())
    strides = [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]
    places = [[device // s % size for device in group] for s, size in zip(strides, sizes,
              strict=True)]  # fmt: skip
    varying = [name for name, at in zip(names, places, strict=True) if len(set(at)) > 1]
    return "+".join(varying) or "none"
