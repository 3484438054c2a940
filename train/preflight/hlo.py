"""A compiled program's text as instructions, and the places on it that a step visits.

XLA prints one program for all devices: shapes are one chip's share. A body of a loop stands there
once, and is run as often as its loop turns.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence

_DTYPE_BITS = {
    "pred": 8, "token": 0, "opaque": 0, "bf16": 16, "f16": 16, "f32": 32, "f64": 64, "c64": 64,
    "c128": 128, **{f"{sign}{bits}": bits for sign in "su" for bits in (2, 4, 8, 16, 32, 64)},
}  # fmt: skip
_ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,<=]*)\](\{[^{}]*\})?")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_CALLED = re.compile(r"(calls|to_apply|body|condition|branch_computations|called_computations)=")
_NAME = re.compile(r"%([\w.\-]+)")
_TRIPS = re.compile(r'known_trip_count"?:\{"?n"?:"?(\d+)')


@dataclasses.dataclass(frozen=True)
class Array:
    """One array of a (tuple) type; `memory` is the S(n) of its layout: 0 is the chip's HBM."""

    dtype: str
    shape: tuple[int, ...]
    memory: int = 0

    @property
    def num_bytes(self) -> int:
        """Its size without padding; float8 types of any name have one byte."""
        bits = _DTYPE_BITS.get(self.dtype, 8 if self.dtype.startswith("f8") else 32)
        return math.prod(self.shape) * bits // 8


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line: `attributes` is what stands behind its operands."""

    name: str
    opcode: str
    arrays: tuple[Array, ...]
    operands: tuple[str, ...]
    attributes: str
    is_root: bool

    def called(self, kind: str) -> tuple[str, ...]:
        """The computations it names under `calls`, `body` and the like."""
        found = re.search(rf"\b{kind}=(\{{[^}}]*\}}|%[\w.\-]+)", self.attributes)
        return tuple(_NAME.findall(found[1])) if found else ()

    @property
    def num_bytes(self) -> int:
        """All its arrays together."""
        return sum(array.num_bytes for array in self.arrays)


Computation = Mapping[str, Instruction]


@dataclasses.dataclass(frozen=True)
class Module:
    """All computations of a program by name."""

    computations: Mapping[str, Computation]
    entry: str


@dataclasses.dataclass(frozen=True)
class Visit:
    """An instruction and how often a run of the program comes to it; `known` is False where a
    loop does not say how often it turns (it is taken to turn once)."""

    instruction: Instruction
    computation: Computation
    times: int
    known: bool = True
    inside: str = ""


def arrays_of(text: str) -> tuple[Array, ...]:
    """The arrays of a type as XLA prints it, those of a tuple in order."""
    found = []
    for dtype, sizes, layout in _ARRAY.findall(text):
        memory = re.search(r"S\((\d+)\)", layout)
        shape = tuple(int(size.lstrip("<=")) for size in sizes.split(",") if size)
        found.append(Array(dtype, shape, int(memory[1]) if memory else 0))
    return tuple(found)


def _closing(text: str, start: int) -> int:
    """Where the parenthesis that opens at `start` closes."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if depth == 0:
            return i
    raise ValueError(f"a parenthesis is never closed in {text[:80]!r}")


def _instruction(line: str) -> Instruction | None:
    matched = _LINE.match(line)
    if not matched:
        return None
    root, name, rest = matched.groups()
    # a tuple's type has parentheses of its own, and so have the tiles of a layout
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    kind, rest = rest[:end], rest[end:].lstrip()
    opened = rest.index("(")
    closed = _closing(rest, opened)
    inner = rest[opened + 1 : closed]
    opcode, attributes = rest[:opened], rest[closed + 1 :]
    if opcode in ("constant", "parameter"):
        operands, attributes = (), f"{inner}{attributes}"
    else:
        operands = tuple(_NAME.findall(inner))
    return Instruction(name, opcode, arrays_of(kind), operands, attributes, bool(root))


def parse(text: str) -> Module:
    """The text of `compiled.as_text()`; raises `ValueError` when it has no entry."""
    computations: dict[str, dict[str, Instruction]] = {}
    here: dict[str, Instruction] = {}
    entry = ""
    for line in text.splitlines():
        head = _HEAD.match(line) if line[:1] not in ("", " ", "}") else None
        if head and not line.startswith("HloModule"):
            here = computations.setdefault(head[2], {})
            entry = head[2] if head[1] else entry
        elif found := _instruction(line) if line.startswith(" ") else None:
            here[found.name] = found
    if not entry:
        raise ValueError("this is no HLO module: it has no ENTRY computation")
    return Module(computations, entry)


def _induction(instruction: Instruction, computation: Computation) -> tuple[int, int] | None:
    """The (start, step) of a counter, where its text says them."""
    if instruction.opcode == "constant" and instruction.attributes[:12].split(",")[0].isdigit():
        return int(instruction.attributes.split(",")[0]), 0
    if instruction.opcode in ("copy", "bitcast") and instruction.operands:
        return _induction(computation[instruction.operands[0]], computation)
    return None


def num_trips(loop: Instruction, module: Module, computation: Computation) -> int | None:
    """How often a `while` turns: as XLA noted it, else by `counter < constant` of its condition
    with a counter that starts at a constant (0 if that cannot be seen); None if it is data."""
    if noted := _TRIPS.search(loop.attributes):
        return int(noted[1])
    condition = module.computations[loop.called("condition")[0]]
    (root,) = (i for i in condition.values() if i.is_root)
    if root.opcode == "fusion":  # the compare may stand in a fusion of its own, the limit outside
        outer, inner = root, module.computations[root.called("calls")[0]]
        (root,) = (i for i in inner.values() if i.is_root)
        given = [condition[name] for name in outer.operands]
        condition = {
            **inner,
            **{
                i.name: given[int(i.attributes.split(",")[0])]
                for i in inner.values()
                if i.opcode == "parameter"
            },
        }
    if root.opcode != "compare" or "direction=LT" not in root.attributes:
        return None
    counter, limit = (condition[name] for name in root.operands)
    end = _induction(limit, condition)
    index = re.search(r"index=(\d+)", counter.attributes)
    if end is None or index is None or counter.opcode != "get-tuple-element":
        return None
    given = computation.get(loop.operands[0])
    start = None
    if given and given.opcode == "tuple":
        start = _induction(computation[given.operands[int(index[1])]], computation)
    return end[0] - (start[0] if start else 0)


def visits(module: Module, *, fusions: bool = False) -> Iterator[Visit]:
    """Every instruction that a run comes to, with how often; those inside of fusions on request.

    Each branch of a conditional is counted as taken: an upper bound.
    """

    def of(name: str, times: int, known: bool) -> Iterator[Visit]:
        computation = module.computations[name]
        for found in computation.values():
            yield Visit(found, computation, times, known, name)
            if found.opcode == "while":
                trips = num_trips(found, module, computation)
                inner = times * (1 if trips is None else trips), known and trips is not None
                for body in found.called("body"):
                    yield from of(body, *inner)
            elif found.opcode in ("call", "conditional", "async-start") or (
                fusions and found.opcode == "fusion"
            ):
                for kind in ("calls", "to_apply", "branch_computations", "called_computations"):
                    for called in found.called(kind):
                        yield from of(called, times, known)
                if found.opcode == "conditional":
                    for kind in ("true_computation", "false_computation"):
                        for called in found.called(kind):
                            yield from of(called, times, known)

    yield from of(module.entry, 1, True)


def groups_of(attributes: str, num_devices: int) -> list[list[int]]:
    """The devices that talk to each other, of `replica_groups` in any of its forms: a list of
    lists (empty: all), an iota `[4,2]<=[2,4]T(1,0)`, or axes of a mesh of XLA's own. Of a
    permutation the pairs."""
    if found := re.search(r"source_target_pairs=\{\{(.*?)\}\}", attributes):
        return [[int(i) for i in pair.split(",")] for pair in found[1].split("},{")]
    found = re.search(r"replica_groups=(.*)", attributes)
    rest = found[1] if found else "{}"
    if lists := re.match(r"\{\{(.*?)\}\}", rest):
        return [[int(i) for i in group.split(",")] for group in lists[1].split("},{")]
    if iota := re.match(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", rest):
        return _rows(_iota(iota[2], iota[3]), int(iota[1].split(",")[-1]))
    if mesh := re.match(r"mesh\[(.*?)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? ?"
                        r"\{(.*?)\}", rest):  # fmt: skip
        return _mesh_groups(*mesh.groups())
    return [list(range(num_devices))]


def _ints(text: str) -> list[int]:
    return [int(i) for i in text.split(",") if i]


def _iota(dims: str, order: str | None) -> list[int]:
    """0, 1, ... as an array of `dims`, transposed by `order`, flat."""
    sizes = _ints(dims)
    axes = _ints(order) if order else list(range(len(sizes)))
    return _transposed(list(range(math.prod(sizes))), sizes, axes)


def _transposed(flat: Sequence[int], sizes: Sequence[int], axes: Sequence[int]) -> list[int]:
    strides = [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]
    places = [0]
    for axis in axes:
        places = [p + i * strides[axis] for p in places for i in range(sizes[axis])]
    return [flat[p] for p in places]


def _rows(flat: Sequence[int], size: int) -> list[list[int]]:
    return [list(flat[i : i + size]) for i in range(0, len(flat), size)]


def _mesh_groups(
    dims: str, device_dims: str | None, device_order: str | None, used: str
) -> list[list[int]]:
    """Groups over `'axis_1', 'axis_2':(1)4` of `'axis_0'=16,'axis_1'=4`: a part of an axis is
    (what stands before it)size, as Shardy writes it."""
    named = re.findall(r"'([\w.]+)'=(\d+)", dims)
    taken = {
        name: (int(before or 1), int(size or 0))
        for name, before, size in re.findall(r"'([\w.]+)'(?::\((\d+)\)(\d+))?", used)
    }
    sizes, mine = [], []
    for name, text in named:
        size = int(text)
        before, part = taken.get(name, (1, 1))
        part = part or size
        sizes += [before, part, size // before // part]
        mine.append(len(sizes) - 2)
    others = [i for i in range(len(sizes)) if i not in mine]
    devices = _iota(device_dims, device_order) if device_dims else range(math.prod(sizes))
    group = math.prod(sizes[i] for i in mine)
    return _rows(_transposed(list(devices), sizes, [*others, *mine]), group)
