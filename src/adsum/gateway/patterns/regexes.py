r"""Regular expressions as Envoy (RE2) reads and matches them, and that stay small when compiled.

One expression that Envoy refuses would hold back every later change of routes, so what is not surely common ground is
refused here: literals, `.`, escapes of punctuation, \d \w \s and their opposites, classes in brackets, groups (also
`(?:`), `|`, and the repeats `*`, `+`, `?` and `{m,n}`. No anchors: a match is always of the whole value. Envoy has RE2
read bytes (Latin-1): one character that is not ASCII is several to an expression, such as two `.` for an é.
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
"""Characters of an expression; a longer one is refused."""
MAX_REPEAT_COUNT: Final = 100
"""The highest count of a repeat; a higher one is refused."""
MAX_REGEX_STEPS: Final = 90
"""How many steps an expression has when its counted repeats are written out; a larger one is refused."""
MAX_RE2_INSTRUCTIONS: Final = 1_000
"""Instructions that RE2's program for an expression may have at gateways; Envoy refuses a larger one. RE2 lists some
instructions several times, so that programs have more than `MAX_REGEX_STEPS` of them (seen: up to twice as many)."""
MAX_GROUP_DEPTH: Final = 20
"""How deep groups nest; deeper ones are refused."""
MAX_CACHED_REGEXES: Final = 10_240
"""Expressions that are kept ready to match; past it, the one that was used longest ago is read anew."""

_PUNCTUATION: Final = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
_COUNT: Final = re.compile(r"\{(\d{1,3})(?:(,)(\d{1,3})?)?\}")


def _bits(chars: str) -> int:
    return sum(1 << ord(char) for char in set(chars))


_DIGITS: Final = _bits("0123456789")
_SPACES: Final = _bits("\t\n\f\r ")
_WORD: Final = _DIGITS | _bits("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_")
_ANY: Final = ALL_CHARACTERS & ~_bits("\n")


class _Class(NamedTuple):
    """A class of characters, and how many ranges of bytes it is."""

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
    """Raises `Invalid` with what can't be read, and where."""
    problem = _problem(expression)
    if problem is not None:
        raise Invalid(field, problem)


def matches(expression: str, value: str) -> bool:
    """Whether the checked expression matches the whole value, in time linear in the value's length."""
    return _read(expression).automaton.matches(_as_bytes(value))


def captured_groups(expression: str, value: str) -> tuple[str | None, ...] | None:
    """The texts of the groups when the checked expression matches the whole value; None: it does not."""
    read = _read(expression)
    groups = read.automaton.captured_groups(_as_bytes(value), read.groups)
    return None if groups is None else tuple(None if each is None else _as_text(each) for each in groups)


def group_count(expression: str) -> int:
    """How many capturing groups the checked expression has."""
    return _read(expression).groups


def _as_bytes(value: str) -> str:
    """The value with a character for each of its bytes."""
    return value if value.isascii() else value.encode(errors="surrogatepass").decode("latin-1")


def _as_text(value: str) -> str:
    """What `_as_bytes` made of a value, or of a part of it: half a character is left as a surrogate."""
    return value if value.isascii() else value.encode("latin-1").decode(errors="surrogateescape")


class _Read(NamedTuple):
    automaton: Automaton
    groups: int


@lru_cache(maxsize=MAX_CACHED_REGEXES)
def _read(expression: str) -> _Read:
    reader = _Reader(expression)
    return _Read(Automaton(reader.alternatives(0).node), reader.groups)


def _problem(expression: str) -> str | None:
    if not 1 <= len(expression) <= MAX_REGEX_LENGTH:
        return f"must be 1 to {MAX_REGEX_LENGTH} characters, not {len(expression)}"
    if not (expression.isascii() and expression.isprintable()):
        return "must be plain printable ASCII"
    reader = _Reader(expression)
    try:
        size = reader.alternatives(0).size
        if reader.at < len(expression):
            return reader.refusal("a ) without its (")
    except ValueError as refusal:
        return str(refusal)
    return (
        None
        if size <= MAX_REGEX_STEPS
        else f"must have at most {MAX_REGEX_STEPS} steps with its repeats written out, not {size}"
    )


class _Part(NamedTuple):
    """A part of an expression: what it matches, and how many steps it has."""

    node: RegexNode
    size: int


class _Reader:
    """Reads an expression by recursive descent."""

    def __init__(self, expression: str) -> None:
        self.text = expression
        self.at = 0
        self.groups = 0

    def refusal(self, what: str) -> str:
        return f"has {what} at character {self.at + 1}"

    def alternatives(self, depth: int) -> _Part:
        if depth > MAX_GROUP_DEPTH:
            raise ValueError(self.refusal(f"more than {MAX_GROUP_DEPTH} groups in one another"))
        parts = [self._sequence(depth)]
        while self._take("|"):
            parts.append(self._sequence(depth))
        if len(parts) == 1:
            return parts[0]
        return _Part(Alternation(tuple(part.node for part in parts)), sum(part.size + 1 for part in parts) - 1)

    def _sequence(self, depth: int) -> _Part:
        parts: list[_Part] = []
        while self.at < len(self.text) and self.text[self.at] not in "|)":
            parts.append(self._repeated(self._atom(depth)))
        return _Part(Concatenation(tuple(part.node for part in parts)), max(1, sum(part.size for part in parts)))

    def _atom(self, depth: int) -> _Part:
        char = self.text[self.at]
        if char in "*+?{}^$]":
            raise ValueError(self.refusal(f"a {char} where it means nothing"))
        if char == "(":
            return self._group(depth)
        if char == "[":
            return self._set()
        if char == "\\":
            _, chars, size = self._escape()
            return _Part(CharacterClass(chars), size)
        self.at += 1
        return _Part(CharacterClass(_ANY), 2) if char == "." else _Part(CharacterClass(1 << ord(char)), 1)

    def _group(self, depth: int) -> _Part:
        self.at += 1
        number = None
        if not self._take("?"):
            self.groups += 1
            number = self.groups
        elif not self._take(":"):
            raise ValueError(self.refusal("a kind of group other than ( and (?:"))
        node, size = self.alternatives(depth + 1)
        if not self._take(")"):
            raise ValueError(self.refusal("a ( without its )"))
        return _Part(node if number is None else CapturingGroup(number, node), size + 2)

    def _repeated(self, part: _Part) -> _Part:
        """The part with the repeat behind it."""
        node, size = part
        low, high = 0, None
        if self._take("*"):
            size += 1
        elif self._take("+"):
            low, size = 1, size + 1
        elif self._take("?"):
            high, size = 1, size + 1
        elif count := _COUNT.match(self.text, self.at):
            low, most = int(count[1]), int(count[3] or count[1])
            if not low <= most <= MAX_REPEAT_COUNT or (count[2] is None and most == 0):
                raise ValueError(
                    self.refusal(f"a repeat that is not from 1 to {MAX_REPEAT_COUNT}, the lower count first")
                )
            self.at, size = count.end(), size * max(1, most) + most - low + 1
            high = None if count[2] and not count[3] else most
        else:
            return part
        return _Part(Repetition(node, low, high, greedy=not self._take("?")), size)

    def _escape(self) -> tuple[str, int, int]:
        """The character that the escape stands for ("" for a class of them), the bits of all, and the size."""
        after = self.text[self.at + 1 : self.at + 2]
        self.at += 2
        if after in _CLASSES:
            return "", *_CLASSES[after]
        if after in _PUNCTUATION:
            return after, 1 << ord(after), 1
        raise ValueError(self.refusal("an escape other than of punctuation, \\d, \\w and \\s"))

    def _set(self) -> _Part:
        self.at += 1
        inverted = self._take("^")
        size, chars = int(inverted), 0
        empty = True
        while not self._take("]"):
            low, taken, ranges = self._member()
            if self.text[self.at : self.at + 1] == "-" and self.text[self.at + 1 : self.at + 2] not in ("]", ""):
                self.at += 1
                high, _, _ = self._member()
                if not low or not high or low > high:
                    raise ValueError(self.refusal("a range that does not go up"))
                taken = (2 << ord(high)) - (1 << ord(low))
            size, chars, empty = size + ranges, chars | taken, False
        if empty:
            raise ValueError(self.refusal("an empty set"))
        return _Part(CharacterClass(ALL_CHARACTERS & ~chars if inverted else chars), size)

    def _member(self) -> tuple[str, int, int]:
        char = self.text[self.at : self.at + 1]
        if char == "\\":
            return self._escape()
        if char in ("", "[") or self.text[self.at : self.at + 2] in ("--", "&&", "||", "~~"):
            raise ValueError(self.refusal("a set that is not closed, or holds [ or a doubled sign: escape them"))
        self.at += 1
        return char, 1 << ord(char), 1

    def _take(self, char: str) -> bool:
        if self.text[self.at : self.at + 1] == char:
            self.at += 1
            return True
        return False
