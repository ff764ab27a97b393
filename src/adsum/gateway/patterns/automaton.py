"""An automaton that matches a regular expression in time linear in the value's length, with RE2's meaning.

The automaton never backtracks. It has a state for each position in the expression that takes a character, and for each
state the states that may follow (Glushkov's automaton: Navarro and Raffinot, "Flexible Pattern Matching in Strings",
chapter 5). A set of states is an integer with a bit for each state. The states that follow a state are in the order in
which RE2 prefers them, so that the groups of a match are RE2's, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

NON_ASCII_BIT: Final = 128
"""The bit of `CharacterClass` for all non-ASCII bytes. Expressions are ASCII, so they can't tell them apart."""
ALL_CHARACTERS: Final = (1 << (NON_ASCII_BIT + 1)) - 1
"""The bits of all characters."""
MAX_CACHED_STATE_SETS: Final = 256
"""State sets whose neighbours an automaton caches; past it, the neighbours of further sets are computed each time."""
STATES_PER_LOOKUP: Final = 4
"""States whose neighbours are found with one look-up."""


@dataclass(frozen=True, slots=True)
class CharacterClass:
    """One character. `accepted` has the bit of each accepted ASCII character, and `NON_ASCII_BIT` for all others."""

    accepted: int


@dataclass(frozen=True, slots=True)
class Concatenation:
    """All parts, one after the other. Without parts, it matches the empty text."""

    parts: tuple[RegexNode, ...]


@dataclass(frozen=True, slots=True)
class Alternation:
    """One of the parts; earlier parts are preferred."""

    parts: tuple[RegexNode, ...]


@dataclass(frozen=True, slots=True)
class Repetition:
    """The part from `low` to `high` times (None: no limit); as often as possible if `greedy`, else as rarely."""

    part: RegexNode
    low: int
    high: int | None
    greedy: bool


@dataclass(frozen=True, slots=True)
class CapturingGroup:
    """A part whose text is captured. Groups are numbered from 1."""

    number: int
    part: RegexNode


RegexNode = CharacterClass | Concatenation | Alternation | Repetition | CapturingGroup


class _Step(NamedTuple):
    """A state that may come next, and the edges of groups (`_Edge`) that are passed before it."""

    state: int
    edges: tuple[int, ...]


class Automaton:
    """A compiled expression."""

    def __init__(self, expression: RegexNode) -> None:
        program = _Program(expression)
        self._accepted = [chars for chars, _ in program.states]
        self._end = len(self._accepted)
        """The final state, which no state follows."""
        self._first = program.next_steps(program.start)
        self._next = [program.next_steps(target) for _, target in program.states]
        self._after = _Neighbours([_bits(step.state for step in steps) for steps in self._next])
        self._by_char: dict[str, int] = {}

    def matches(self, value: str) -> bool:
        """Returns whether the expression matches the whole value."""
        states = _bits(step.state for step in self._first)
        for char in value:
            states = self._after.union(states & self._accepting(char))
            if not states:
                return False
        return bool(states >> self._end & 1)

    def captured_groups(self, value: str, count: int) -> tuple[str | None, ...] | None:
        """Returns the texts of the groups in a match of the whole value (None: unused); None if there is no match."""
        edges: dict[int, int] = {}
        steps = self._first
        for position, states in enumerate(self._alive(value)):
            step = next((step for step in steps if states >> step.state & 1), None)
            if step is None:
                return None
            edges.update(dict.fromkeys(step.edges, position))
            if step.state < self._end:
                steps = self._next[step.state]
        return tuple(
            value[edges[2 * n] : edges[2 * n + 1]] if 2 * n + 1 in edges else None for n in range(1, count + 1)
        )

    def _alive(self, value: str) -> list[int]:
        """Returns, for each position in the value and for its end, the states from which the rest of it matches."""
        states = 1 << self._end
        alive = [states]
        for char in reversed(value):
            states = self._before.union(states) & self._accepting(char)
            alive.append(states)
        alive.reverse()
        return alive

    @cached_property
    def _before(self) -> _Neighbours:
        """The states that precede each state. Only `captured_groups` needs them, so they are computed on first use."""
        before = [0] * (self._end + 1)
        for state, steps in enumerate(self._next):
            for step in steps:
                before[step.state] |= 1 << state
        return _Neighbours(before)

    def _accepting(self, char: str) -> int:
        """Returns the states that accept the character."""
        key = char if char < "\x80" else "\x80"
        states = self._by_char.get(key)
        if states is None:
            states = _bits(state for state, accepted in enumerate(self._accepted) if accepted >> ord(key) & 1)
            self._by_char[key] = states
        return states


class _Neighbours:
    """The neighbours of each state. It finds the neighbours of `STATES_PER_LOOKUP` states of a set at once."""

    def __init__(self, neighbours: list[int]) -> None:
        self._cache: dict[int, int] = {}
        self._chunks = [
            _unions(neighbours[start : start + STATES_PER_LOOKUP])
            for start in range(0, len(neighbours), STATES_PER_LOOKUP)
        ]

    def union(self, states: int) -> int:
        """Returns the neighbours of all states of the set."""
        cached = self._cache.get(states)
        if cached is not None:
            return cached
        union, rest = 0, states
        for unions in self._chunks:
            union |= unions[rest & (1 << STATES_PER_LOOKUP) - 1]
            rest >>= STATES_PER_LOOKUP
        if len(self._cache) < MAX_CACHED_STATE_SETS:
            self._cache[states] = union
        return union


def _unions(sets: list[int]) -> list[int]:
    """Returns the union of every choice of the sets, at the index whose bits choose them."""
    unions = [0]
    for states in sets:
        unions += [union | states for union in unions]
    return unions + [0] * ((1 << STATES_PER_LOOKUP) - len(unions))


def _bits(states: Iterable[int]) -> int:
    bits = 0
    for state in states:
        bits |= 1 << state
    return bits


class _Fork(NamedTuple):
    """Continues at any of the targets; earlier targets are preferred."""

    targets: list[int]


class _Edge(NamedTuple):
    """The start of a group (`edge` is twice its number) or its end (one more)."""

    edge: int
    target: int


class _Take(NamedTuple):
    """Takes a character in that state and continues after it."""

    state: int


class _Program:
    """The expression as instructions, written from its end to its start as RE2's compiler does."""

    def __init__(self, expression: RegexNode) -> None:
        self.states: list[tuple[int, int]] = []
        """The characters that each state accepts, and the index of the instruction after it."""
        self._instructions: list[_Fork | _Edge | _Take | None] = [None]
        self.start = self._write(expression, 0)

    def next_steps(self, start: int) -> tuple[_Step, ...]:
        """Returns the states that may come next from that instruction, the preferred one first."""
        steps: list[_Step] = []
        seen: set[int] = set()
        pending: list[tuple[int, tuple[int, ...]]] = [(start, ())]
        while pending:
            index, edges = pending.pop()
            if index in seen:
                continue
            seen.add(index)
            instruction = self._instructions[index]
            if instruction is None:
                steps.append(_Step(len(self.states), edges))
            elif isinstance(instruction, _Take):
                steps.append(_Step(instruction.state, edges))
            elif isinstance(instruction, _Edge):
                pending.append((instruction.target, (*edges, instruction.edge)))
            else:
                pending.extend((target, edges) for target in reversed(instruction.targets))
        return tuple(steps)

    def _write(self, node: RegexNode, then: int) -> int:
        """Writes instructions that match the node and continue at `then`. Returns the index of the first one."""
        match node:
            case CharacterClass(accepted):
                self.states.append((accepted, then))
                return self._add(_Take(len(self.states) - 1))
            case Concatenation(parts):
                for part in reversed(parts):
                    then = self._write(part, then)
                return then
            case Alternation(parts):
                return self._add(_Fork([self._write(part, then) for part in parts]))
            case CapturingGroup(number, part):
                end = self._add(_Edge(2 * number + 1, then))
                return self._add(_Edge(2 * number, self._write(part, end)))
            case Repetition():
                return self._repeated(node, then)

    def _repeated(self, node: Repetition, then: int) -> int:
        part, order = node.part, _greedy if node.greedy else _lazy
        if node.high is None:
            loop = self._add(fork := _Fork([]))
            body = self._write(part, loop)
            fork.targets.extend(order(body, then))
            if node.low == 0:
                # A part that may be empty is entered by a fork of its own: else the order of preference would differ.
                return self._add(_Fork(order(body, then))) if _may_be_empty(part) else loop
            then, required = body, node.low - 1
        else:
            required, end = node.low, then
            for _ in range(node.high - node.low):
                then = self._add(_Fork(order(self._write(part, then), end)))
        for _ in range(required):
            then = self._write(part, then)
        return then

    def _add(self, instruction: _Fork | _Edge | _Take) -> int:
        self._instructions.append(instruction)
        return len(self._instructions) - 1


def _greedy(part: int, then: int) -> list[int]:
    return [part, then]


def _lazy(part: int, then: int) -> list[int]:
    return [then, part]


def _may_be_empty(node: RegexNode) -> bool:
    match node:
        case CharacterClass():
            return False
        case Concatenation(parts):
            return all(map(_may_be_empty, parts))
        case Alternation(parts):
            return any(map(_may_be_empty, parts))
        case CapturingGroup(_, part):
            return _may_be_empty(part)
        case Repetition(part, low):
            return low == 0 or _may_be_empty(part)
