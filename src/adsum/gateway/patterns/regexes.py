r"""Regular expressions with the meaning that they have in Envoy (RE2), restricted so that they stay small.

An expression that Envoy refuses would block every later change of routes. So this module accepts only what RE2 surely
accepts: literals, `.`, escapes of punctuation, \d \w \s and their opposites, classes in brackets, groups (also `(?:`),
`|`, and the repeats `*`, `+`, `?` and `{m,n}`. There are no anchors: a match is always of the whole value. Envoy lets
RE2 match bytes (Latin-1), so a non-ASCII character counts as several characters: an é matches two `.`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

from adsum.core.errors import Invalid
from adsum.gateway.patterns.automaton import (
    ALL_CHARACTERS,
    Alternation,
    Automaton,
    CapturingGroup,
    CharacterClass,
    Concatenation,
    RegexNode,
    Repetition,
)

MAX_REGEX_LENGTH: Final = 256
"""Characters of an expression; a longer expression is refused."""
MAX_REPEAT_COUNT: Final = 100
"""The highest count of a repeat; a higher count is refused."""
MAX_REGEX_STEPS: Final = 90
"""Steps of an expression with its counted repeats written out; a larger expression is refused."""
MAX_RE2_INSTRUCTIONS: Final = 1_000
"""Instructions that RE2's program for an expression may have at gateways; Envoy refuses a larger one. RE2 lists some
instructions several times, so a program can have more than `MAX_REGEX_STEPS` (observed: up to twice as many)."""
MAX_GROUP_DEPTH: Final = 20
"""Nesting depth of groups; a deeper expression is refused."""
MAX_CACHED_REGEXES: Final = 10_240
"""Compiled expressions in the cache; past it, the least recently used one is dropped and compiled again on use."""

_PUNCTUATION: Final = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
_COUNT: Final = re.compile(r"\{(\d{1,3})(?:(,)(\d{1,3})?)?\}")


def _bits(chars: str) -> int:
    return sum(1 << ord(char) for char in set(chars))


_DIGITS: Final = _bits("0123456789")
_SPACES: Final = _bits("\t\n\f\r ")
_WORD: Final = _DIGITS | _bits("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_")
_ANY: Final = ALL_CHARACTERS & ~_bits("\n")


class _Class(NamedTuple):
    """A class of characters as a bit set, and its size: the number of byte ranges."""

    chars: int
    size: int


_CLASSES: Final = {
    "d": _Class(_DIGITS, 1),
    "D": _Class(ALL_CHARACTERS & ~_DIGITS, 2),
    "s": _Class(_SPACES, 3),
    "S": _Class(ALL_CHARACTERS & ~_SPACES, 4),
    "w": _Class(_WORD, 4),
    "W": _Class(ALL_CHARACTERS & ~_WORD, 5),
}


def check(field: str, expression: str) -> None:
    """Raises `Invalid`, naming `field`, with the first problem of the expression and its position."""
    problem = _problem(expression)
    if problem is not None:
        raise Invalid(field, problem)


def matches(expression: str, value: str) -> bool:
    """Returns whether a checked expression matches the whole value, in time linear in the value's length."""
    return _compile(expression).automaton.matches(_as_bytes(value))


def captured_groups(expression: str, value: str) -> tuple[str | None, ...] | None:
    """Returns the texts of the groups when a checked expression matches the whole value; None: it does not match.

    The text of a group that the match did not use is None.
    """
    compiled = _compile(expression)
    groups = compiled.automaton.captured_groups(_as_bytes(value), compiled.group_count)
    return None if groups is None else tuple(None if group is None else _as_text(group) for group in groups)


def group_count(expression: str) -> int:
    """Returns the number of capturing groups of a checked expression."""
    return _compile(expression).group_count


def _as_bytes(value: str) -> str:
    """Returns the value with one character for each of its bytes."""
    return value if value.isascii() else value.encode(errors="surrogatepass").decode("latin-1")


def _as_text(value: str) -> str:
    """Reverts `_as_bytes` for a value or a part of it. A part of a character becomes surrogates."""
    return value if value.isascii() else value.encode("latin-1").decode(errors="surrogateescape")


class _Compiled(NamedTuple):
    automaton: Automaton
    group_count: int


@lru_cache(maxsize=MAX_CACHED_REGEXES)
def _compile(expression: str) -> _Compiled:
    parser = _Parser(expression)
    return _Compiled(Automaton(parser.alternatives(0).node), parser.group_count)


def _problem(expression: str) -> str | None:
    if not 1 <= len(expression) <= MAX_REGEX_LENGTH:
        return f"must be 1 to {MAX_REGEX_LENGTH} characters, not {len(expression)}"
    if not (expression.isascii() and expression.isprintable()):
        return "must be printable ASCII"
    parser = _Parser(expression)
    try:
        size = parser.alternatives(0).size
        if parser.position < len(expression):
            return parser.problem("a ) without its (")
    except ValueError as error:
        return str(error)
    if size > MAX_REGEX_STEPS:
        return f"must have at most {MAX_REGEX_STEPS} steps with its repeats written out, not {size}"
    return None


class _Part(NamedTuple):
    """A parsed part of an expression and its number of steps."""

    node: RegexNode
    size: int


class _Parser:
    """A recursive descent parser of expressions."""

    def __init__(self, expression: str) -> None:
        self.text = expression
        self.position = 0
        self.group_count = 0

    def problem(self, description: str) -> str:
        """Returns the sentence about what is wrong at the current position."""
        return f"has {description} at character {self.position + 1}"

    def alternatives(self, depth: int) -> _Part:
        """Parses up to the end of the group or of the expression. Raises `ValueError`."""
        if depth > MAX_GROUP_DEPTH:
            raise ValueError(self.problem(f"more than {MAX_GROUP_DEPTH} nested groups"))
        parts = [self._sequence(depth)]
        while self._take("|"):
            parts.append(self._sequence(depth))
        if len(parts) == 1:
            return parts[0]
        return _Part(Alternation(tuple(part.node for part in parts)), sum(part.size + 1 for part in parts) - 1)

    def _sequence(self, depth: int) -> _Part:
        parts: list[_Part] = []
        while self.position < len(self.text) and self.text[self.position] not in "|)":
            parts.append(self._repeated(self._atom(depth)))
        return _Part(Concatenation(tuple(part.node for part in parts)), max(1, sum(part.size for part in parts)))

    def _atom(self, depth: int) -> _Part:
        char = self.text[self.position]
        if char in "*+?{}^$]":
            raise ValueError(self.problem(f"a {char} where it has no meaning"))
        if char == "(":
            return self._group(depth)
        if char == "[":
            return self._set()
        if char == "\\":
            _, chars, size = self._escape()
            return _Part(CharacterClass(chars), size)
        self.position += 1
        return _Part(CharacterClass(_ANY), 2) if char == "." else _Part(CharacterClass(1 << ord(char)), 1)

    def _group(self, depth: int) -> _Part:
        self.position += 1
        number = None
        if not self._take("?"):
            self.group_count += 1
            number = self.group_count
        elif not self._take(":"):
            raise ValueError(self.problem("a kind of group other than ( and (?:"))
        node, size = self.alternatives(depth + 1)
        if not self._take(")"):
            raise ValueError(self.problem("a ( without its )"))
        return _Part(node if number is None else CapturingGroup(number, node), size + 2)

    def _repeated(self, part: _Part) -> _Part:
        """Returns the part with the repeat that follows it, if any."""
        node, size = part
        low, high = 0, None
        if self._take("*"):
            size += 1
        elif self._take("+"):
            low, size = 1, size + 1
        elif self._take("?"):
            high, size = 1, size + 1
        elif count := _COUNT.match(self.text, self.position):
            low, most = int(count[1]), int(count[3] or count[1])
            if not low <= most <= MAX_REPEAT_COUNT or (count[2] is None and most == 0):
                raise ValueError(
                    self.problem(f"a repeat that is not from 1 to {MAX_REPEAT_COUNT}, the lower count first")
                )
            self.position, size = count.end(), size * max(1, most) + most - low + 1
            high = None if count[2] and not count[3] else most
        else:
            return part
        return _Part(Repetition(node, low, high, greedy=not self._take("?")), size)

    def _escape(self) -> tuple[str, int, int]:
        """Returns the escaped character ("" for a class), the bits of all its characters, and the size."""
        char = self._peek(1, 1)
        self.position += 2
        if char in _CLASSES:
            return "", *_CLASSES[char]
        if char in _PUNCTUATION:
            return char, 1 << ord(char), 1
        raise ValueError(self.problem("an escape other than of punctuation, \\d, \\w and \\s"))

    def _set(self) -> _Part:
        self.position += 1
        inverted = self._take("^")
        size, chars = int(inverted), 0
        empty = True
        while not self._take("]"):
            low, member, ranges = self._member()
            if self._peek() == "-" and self._peek(1, 1) not in ("]", ""):
                self.position += 1
                high, _, _ = self._member()
                if not low or not high or low > high:
                    raise ValueError(self.problem("a range whose end comes before its start"))
                member = (2 << ord(high)) - (1 << ord(low))
            size, chars, empty = size + ranges, chars | member, False
        if empty:
            raise ValueError(self.problem("an empty set"))
        return _Part(CharacterClass(ALL_CHARACTERS & ~chars if inverted else chars), size)

    def _member(self) -> tuple[str, int, int]:
        char = self._peek()
        if char == "\\":
            return self._escape()
        if char in ("", "[") or self._peek(2) in ("--", "&&", "||", "~~"):
            raise ValueError(self.problem("a set that is not closed, or has an unescaped [ or a doubled -, &, | or ~"))
        self.position += 1
        return char, 1 << ord(char), 1

    def _peek(self, count: int = 1, skip: int = 0) -> str:
        """Returns the next `count` characters after `skip` others; fewer at the end."""
        start = self.position + skip
        return self.text[start : start + count]

    def _take(self, char: str) -> bool:
        if self._peek() == char:
            self.position += 1
            return True
        return False
