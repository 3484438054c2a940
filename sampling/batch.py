"""Rows of an engine: the slots that stand on the device, and the rules that the host keeps for
each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, UInt32

from sampling.drafting import Slots, Tables

_PROMPT_IDS, _STATES, _REFILL = 64, 256, 8  # buckets: of ids, of states, and of rows by powers


@runtime_checkable
class Constraint(Protocol):
    """What may come next: `allowed()` has one byte an id."""

    finished: bool

    def allowed(self) -> bytes:
        """1 at each id that may come next."""
        ...

    def advance(self, token: int) -> None:
        """Take one of them."""
        ...


@runtime_checkable
class Automaton(Protocol):
    """What a device knows of a constraint beforehand: see `blueprint.draft.Draft`."""

    @property
    def allowed(self) -> np.ndarray:
        """Of each state, the set of ids or the one id that it allows."""
        ...

    @property
    def after(self) -> np.ndarray:
        """Of each state and class of ids, the state that follows."""
        ...


@dataclasses.dataclass(frozen=True)
class Request:
    """A row to be made: its prompt, what starts its constraint afresh, the data of its key and, if
    anything is known of the constraint, its automaton (over the engine's alphabet)."""

    prompt: Sequence[int]
    start: Callable[[], Constraint]
    key: UInt32[np.ndarray, " _"]
    automaton: Automaton | None = None


@dataclasses.dataclass(frozen=True)
class Alphabet:
    """The sets of ids [M V] that automata's states name, all ids the first of them, and the class
    of each id [V]. Raises `ValueError` when the first is another: of a row without an automaton
    nothing is known."""

    masks: np.ndarray
    classes: np.ndarray

    def __post_init__(self) -> None:
        if not self.masks[0].all():
            raise ValueError("an alphabet's first set leaves ids out: put that of all first")


def bucket(count: int, step: int) -> int:
    """The least of step, 2 step, 4 step, ... that holds so many."""
    size = step
    while size < count:
        size *= 2
    return size


@dataclasses.dataclass
class _Row:
    """A row in a slot: what is certain, and how much of the draft its rules let through (none of
    one that was just filled in: -1)."""

    index: int
    request: Request
    constraint: Constraint
    ids: list[int]
    known: int = -1

    def settle(self, right: int, last: int, draft: Sequence[int]) -> None:
        """Take what was right of the draft, and the id that stands behind a wrong one."""
        if self.known < 0:
            return
        if right < self.known:  # the rules went on with what was not chosen under them
            self.constraint = self.request.start()
            for token in (*self.ids, *draft[:right]):
                self.constraint.advance(token)
        self.ids += draft[:right]
        if right < len(draft) and not self.constraint.finished:
            self.constraint.advance(last)
            self.ids.append(last)
        self.known = 0

    def read(self, draft: Sequence[int], masks: np.ndarray) -> None:
        """Follow a new draft as far as the rules let it through, and note what they allow."""
        self.known = 0
        for token, mask in zip(draft, masks, strict=True):
            if self.constraint.finished:
                return
            mask[:] = np.frombuffer(self.constraint.allowed(), np.uint8)
            if not mask[token]:
                return
            self.constraint.advance(token)
            self.known += 1

    def require_room(self, capacity: int) -> None:
        """Raise `ValueError` when the row is longer than the cache, or will be."""
        length = len(self.request.prompt) + len(self.ids) + max(self.known, 0)
        if length + (not self.constraint.finished) > capacity:
            raise ValueError(
                f"row {self.index} goes on beyond the {capacity} ids that the cache holds"
            )


@dataclasses.dataclass(frozen=True)
class Programs:
    """What runs on the device, and whether the choice of an id depends on what else is allowed."""

    open: Callable[..., Slots]
    fill: Callable[..., Slots]
    round: Callable[..., tuple[Slots, Array]]
    truncates: bool


class Batch:
    """Slots on the device and the rows that stand in them."""

    def __init__(
        self, programs: Programs, alphabet: Alphabet | None, num_slots: int, ahead: int
    ) -> None:
        self._do = programs
        self._rows: list[_Row | None] = [None] * num_slots
        self._slots = programs.open(np.zeros((num_slots, 2), np.uint32), ahead=ahead)
        B, W, V = self._slots.logits.shape
        self._capacity = jax.tree.leaves(self._slots.cache)[0].shape[2]
        if alphabet is None:
            alphabet = Alphabet(np.ones((1, V), bool), np.zeros(V, np.int32))
        self._alphabet = jax.device_put(alphabet.masks), jax.device_put(alphabet.classes)
        self._num_classes = int(alphabet.classes.max()) + 1
        self._allowed = np.zeros((B, 1), np.int32)
        self._after = np.zeros((B, 1, self._num_classes), np.int32)
        self._tables: Tables | None = None
        self._masks = np.zeros((B, W, V), bool)
        self._drafts = np.zeros((B, W), np.int32)
        self._said: Array | None = None

    @property
    def is_busy(self) -> bool:
        """Whether there is a row in some slot."""
        return any(self._rows)

    def launch(self) -> None:
        """Start the next round, if there is anything to be made."""
        if not self.is_busy:
            return
        if self._tables is None:
            self._tables = Tables(*self._alphabet, *jax.device_put((self._allowed, self._after)))
        known = np.array([-1 if row is None else row.known for row in self._rows], np.int32)
        # the masks are written into again while the device may still read them
        given = self._slots, self._tables, self._masks.copy(), known
        self._slots, self._said = self._do.round(*given)

    def collect(self) -> Iterator[tuple[int, list[int]]]:
        """What the round made, and the rows that are done with it."""
        if self._said is None:
            return
        said, self._said = np.asarray(self._said), None
        self._masks[:] = False
        for slot, row in enumerate(self._rows):
            if row is None:
                continue
            right, last, draft = said[slot, 0], said[slot, 1], said[slot, 2:]
            row.settle(int(right), int(last), self._drafts[slot].tolist())
            if not row.constraint.finished:
                row.read(draft.tolist(), self._masks[slot])
                if row.constraint.finished and not self._do.truncates:
                    row.ids += draft[: row.known].tolist()
                    row.known = 0
            row.require_room(self._capacity)
            if row.constraint.finished and not row.known:
                self._rows[slot] = None
                yield row.index, row.ids
        self._drafts = said[:, 2:]

    def refill(self, waiting: Iterator[tuple[int, Request]]) -> Iterator[tuple[int, list[int]]]:
        """Put waiting rows into free slots, once an eighth of them is free; those that are done
        before they begin come back."""
        free = [slot for slot, row in enumerate(self._rows) if row is None]
        if len(free) < max(1, len(self._rows) // _REFILL):
            return
        taken: dict[int, _Row] = {}
        while len(taken) < len(free) and (following := next(waiting, None)) is not None:
            index, request = following
            _require_prompt(index, request.prompt, self._capacity)
            row = _Row(index, request, request.start(), [])
            if row.constraint.finished:
                yield index, []
            else:
                taken[free[len(taken)]] = row
        if taken:
            self._fill(taken)

    def _fill(self, taken: dict[int, _Row]) -> None:
        B, prompts = len(self._rows), [row.request.prompt for row in taken.values()]
        num_rows = 1
        while num_rows < len(taken):
            num_rows *= _REFILL
        num_rows = min(num_rows, B)
        width = min(bucket(max(map(len, prompts)), _PROMPT_IDS), self._capacity)
        ids, lengths = np.zeros((num_rows, width), np.int32), np.ones(num_rows, np.int32)
        where, keys = np.full(num_rows, B, np.int32), np.zeros((num_rows, 2), np.uint32)
        for i, (slot, row) in enumerate(taken.items()):
            prompt = row.request.prompt
            ids[i, : len(prompt)], lengths[i], where[i] = prompt, len(prompt), slot
            keys[i] = row.request.key
            self._rows[slot] = row
            self._note(slot, row.request.automaton)
        self._slots = self._do.fill(self._slots, where, ids, lengths, keys)
        self._tables = None

    def _note(self, slot: int, automaton: Automaton | None) -> None:
        """Take up a row's automaton: one of its own state that allows anything, for none."""
        self._allowed[slot], self._after[slot] = 0, 0
        if automaton is None:
            return
        count = len(automaton.allowed)
        more = bucket(count, _STATES) - self._allowed.shape[1]
        if more > 0:
            self._allowed = np.pad(self._allowed, ((0, 0), (0, more)))
            self._after = np.pad(self._after, ((0, 0), (0, more), (0, 0)))
        self._allowed[slot, :count], self._after[slot, :count] = automaton.allowed, automaton.after


def _require_prompt(index: int, prompt: Sequence[int], capacity: int) -> None:
    if not 0 < len(prompt) <= capacity:
        size = f"has {len(prompt)} ids" if prompt else "is empty"
        raise ValueError(f"prompt {index} {size} and the cache holds {capacity}")
