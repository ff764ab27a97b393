"""Matches a value with a regular expression in time linear in the value's length, with RE2's meaning.

An expression becomes an automaton that never backtracks: a state for each place in the expression that takes a
character, and behind each state those that may follow (Glushkov's automaton: Navarro and Raffinot, "Flexible Pattern
Matching in Strings", chapter 5). A set of states is a whole number with a bit for each. The states behind a state are
kept in the order in which RE2 prefers them, so that the groups of a match are RE2's, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

NON_ASCII_BIT: Final = 128
"""The bit of `CharacterClass` for every byte that is not ASCII: expressions are ASCII, and do not tell those apart."""
ALL_CHARACTERS: Final = (1 << (NON_ASCII_BIT + 1)) - 1
"""The bits of all characters."""
MAX_CACHED_STATE_SETS: Final = 256
"""Sets of states whose neighbours an automaton remembers; past it, those of another one are joined each time."""
STATES_PER_LOOKUP: Final = 4
"""States whose neighbours are joined by one look-up."""


@dataclass(frozen=True, slots=True)
class CharacterClass:
    """One character. `taken` has the bit of each ASCII character that it may be, and `NON_ASCII_BIT` for all others."""

    accepted: int


@dataclass(frozen=True, slots=True)
class Concatenation:
    """All parts, one after the other; without any: the empty text."""

    parts: tuple[RegexNode, ...]


@dataclass(frozen=True, slots=True)
class Alternation:
    """One of the parts; an earlier one is preferred."""

    parts: tuple[RegexNode, ...]


@dataclass(frozen=True, slots=True)
class Repetition:
    """The part from `low` to `high` times (None: without end); as often as possible if `greedy`, else as seldom."""

    part: RegexNode
    low: int
    high: int | None
    greedy: bool


@dataclass(frozen=True, slots=True)
class CapturingGroup:
    """A part whose text is captured; groups are counted from 1."""

    number: int
    part: RegexNode


RegexNode = CharacterClass | Concatenation | Alternation | Repetition | CapturingGroup


class _Step(NamedTuple):
    """A state that may come next; before it, the edges of groups that lie at this place of the value."""

    state: int
    edges: tuple[int, ...]


class Automaton:
    """An expression, ready to match."""

    def __init__(self, expression: RegexNode) -> None:
        program = _Program(expression)
        self._taken = [chars for chars, _ in program.states]
        self._last = len(self._taken)
        """The state after which nothing may come: the end."""
        self._first = program.behind(program.start)
        self._behind = [program.behind(after) for _, after in program.states]
        self._after = _Neighbours([_bits(step.state for step in steps) for steps in self._behind])
        self._by_char: dict[str, int] = {}

    def matches(self, value: str) -> bool:
        """Whether it matches the whole value."""
        states = _bits(step.state for step in self._first)
        for char in value:
            states = self._after.of(states & self._taking(char))
            if not states:
                return False
        return bool(states >> self._last & 1)

    def captured_groups(self, value: str, count: int) -> tuple[str | None, ...] | None:
        """The text of each of its groups in a match of the whole value, None for one not used; None: no match."""
        alive = self._alive(value)
        edges: dict[int, int] = {}
        steps = self._first
        for place, states in enumerate(alive):
            step = next((step for step in steps if states >> step.state & 1), None)
            if step is None:
                return None
            edges.update(dict.fromkeys(step.edges, place))
            if step.state < self._last:
                steps = self._behind[step.state]
        return tuple(
            value[edges[2 * n] : edges[2 * n + 1]] if 2 * n + 1 in edges else None for n in range(1, count + 1)
        )

    def _alive(self, value: str) -> list[int]:
        """For each place in the value, and its end: the states from which the rest of it matches."""
        states = 1 << self._last
        alive = [states]
        for char in reversed(value):
            states = self._before.of(states) & self._taking(char)
            alive.append(states)
        alive.reverse()
        return alive

    @cached_property
    def _before(self) -> _Neighbours:
        """The states behind which a state may come: for groups only, so that few expressions need it."""
        before = [0] * (self._last + 1)
        for state, steps in enumerate(self._behind):
            for step in steps:
                before[step.state] |= 1 << state
        return _Neighbours(before)

    def _taking(self, char: str) -> int:
        """The states that take that character."""
        key = char if char < "\x80" else "\x80"
        known = self._by_char.get(key)
        if known is None:
            known = _bits(state for state, taken in enumerate(self._taken) if taken >> ord(key) & 1)
            self._by_char[key] = known
        return known


class _Neighbours:
    """The union of what lies beside each state of a set, looked up for `STATES_PER_LOOKUP` states at once."""

    def __init__(self, beside: list[int]) -> None:
        self._known: dict[int, int] = {}
        self._chunks = [_unions(beside[at : at + STATES_PER_LOOKUP]) for at in range(0, len(beside), STATES_PER_LOOKUP)]

    def of(self, states: int) -> int:
        known = self._known.get(states)
        if known is not None:
            return known
        union, left = 0, states
        for unions in self._chunks:
            union |= unions[left & (1 << STATES_PER_LOOKUP) - 1]
            left >>= STATES_PER_LOOKUP
        if len(self._known) < MAX_CACHED_STATE_SETS:
            self._known[states] = union
        return union


def _unions(beside: list[int]) -> list[int]:
    """The union of every choice of them: the bits of an index choose."""
    unions = [0]
    for each in beside:
        unions += [union | each for union in unions]
    return unions + [0] * ((1 << STATES_PER_LOOKUP) - len(unions))


def _bits(states: Iterable[int]) -> int:
    bits = 0
    for state in states:
        bits |= 1 << state
    return bits


class _Fork(NamedTuple):
    """Goes on at any of these places, the first of them preferred."""

    to: list[int]


class _Edge(NamedTuple):
    """The beginning (twice its number) or the end (one more) of a group."""

    edge: int
    then: int


class _Take(NamedTuple):
    """Takes a character and goes on behind it."""

    state: int


class _Program:
    """The expression as instructions, written from its end to its beginning as RE2's compiler would."""

    def __init__(self, expression: RegexNode) -> None:
        self.states: list[tuple[int, int]] = []
        """The characters that each state takes, and the instruction behind it."""
        self._instructions: list[_Fork | _Edge | _Take | None] = [None]
        self.start = self._write(expression, 0)

    def behind(self, place: int) -> tuple[_Step, ...]:
        """The states that may come next at that instruction, the preferred one first."""
        steps: list[_Step] = []
        seen: set[int] = set()
        left: list[tuple[int, tuple[int, ...]]] = [(place, ())]
        while left:
            at, edges = left.pop()
            if at in seen:
                continue
            seen.add(at)
            instruction = self._instructions[at]
            if instruction is None:
                steps.append(_Step(len(self.states), edges))
            elif isinstance(instruction, _Take):
                steps.append(_Step(instruction.state, edges))
            elif isinstance(instruction, _Edge):
                left.append((instruction.then, (*edges, instruction.edge)))
            else:
                left.extend((to, edges) for to in reversed(instruction.to))
        return tuple(steps)

    def _write(self, node: RegexNode, then: int) -> int:
        """Write what matches the node and goes on at `then`; where it begins."""
        match node:
            case CharacterClass(taken):
                self.states.append((taken, then))
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
            again = self._add(fork := _Fork([]))
            body = self._write(part, again)
            fork.to.extend(order(body, then))
            if node.low == 0:
                # What may be empty is entered by a fork of its own: else the loop's order would be another.
                return self._add(_Fork(order(body, then))) if _may_be_empty(part) else again
            then, needed = body, node.low - 1
        else:
            needed, behind = node.low, then
            for _ in range(node.high - node.low):
                then = self._add(_Fork(order(self._write(part, then), behind)))
        for _ in range(needed):
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
