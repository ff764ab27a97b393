r"""Regular expressions that Envoy (RE2) and Python read alike, and that stay small when compiled.

One expression that Envoy refuses would hold back every later change of routes, so what is not surely common ground is
refused here: literals, `.`, escapes of punctuation, \d \w \s and their opposites, classes in brackets, groups (also
`(?:`), `|`, and the repeats `*`, `+`, `?` and `{m,n}`. No anchors: a match is always of the whole value.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from adsum.core.errors import Invalid

MAX_LENGTH: Final = 256
"""Characters of an expression; a longer one is refused."""
MAX_REPEAT: Final = 100
"""The highest count of a repeat; a higher one is refused."""
MAX_SIZE: Final = 90
"""How many steps an expression has when its counted repeats are written out; a larger one is refused.

Envoy refuses programs of more than 100 steps, unless its bootstrap allows more: this keeps a few in hand.
"""
MAX_DEPTH: Final = 20
"""How deep groups nest; deeper ones are refused."""

_PUNCTUATION: Final = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
_CLASSES: Final = {"d": 1, "D": 2, "s": 3, "S": 4, "w": 4, "W": 5}
"""Classes of characters, and how many ranges of bytes each is."""
_COUNT: Final = re.compile(r"\{(\d{1,3})(?:(,)(\d{1,3})?)?\}")


def check(field: str, expression: str) -> None:
    """Raises `Invalid` with what can't be read, and where."""
    problem = _problem(expression)
    if problem is not None:
        raise Invalid(field, problem)


def matches(expression: str, value: str) -> bool:
    """Whether the checked expression matches the whole value."""
    return _compiled(expression).fullmatch(value) is not None


def groups(expression: str) -> int:
    """How many capturing groups the checked expression has."""
    return _compiled(expression).groups


@lru_cache(maxsize=1_024)
def _compiled(expression: str) -> re.Pattern[str]:
    return re.compile(expression, re.ASCII)


def _problem(expression: str) -> str | None:
    if not 1 <= len(expression) <= MAX_LENGTH:
        return f"must be 1 to {MAX_LENGTH} characters, not {len(expression)}"
    if not (expression.isascii() and expression.isprintable()):
        return "must be plain printable ASCII"
    reader = _Reader(expression)
    try:
        size = reader.alternatives(0)
        if reader.at < len(expression):
            return reader.refusal("a ) without its (")
    except ValueError as refusal:
        return str(refusal)
    return None if size <= MAX_SIZE else f"must have at most {MAX_SIZE} steps with its repeats written out, not {size}"


class _Reader:
    """Reads an expression by recursive descent; each step returns an upper bound of RE2's program."""

    def __init__(self, expression: str) -> None:
        self.text = expression
        self.at = 0

    def refusal(self, what: str) -> str:
        return f"has {what} at character {self.at + 1}"

    def alternatives(self, depth: int) -> int:
        if depth > MAX_DEPTH:
            raise ValueError(self.refusal(f"more than {MAX_DEPTH} groups in one another"))
        size = self._sequence(depth)
        while self._take("|"):
            size += 1 + self._sequence(depth)
        return size

    def _sequence(self, depth: int) -> int:
        size = 0
        while self.at < len(self.text) and self.text[self.at] not in "|)":
            size += self._repeated(self._atom(depth))
        return max(1, size)

    def _atom(self, depth: int) -> int:
        char = self.text[self.at]
        if char in "*+?{}^$]":
            raise ValueError(self.refusal(f"a {char} where it means nothing"))
        if char == "(":
            return self._group(depth)
        if char == "[":
            return self._set()
        if char == "\\":
            return self._escape()[1]
        self.at += 1
        return 2 if char == "." else 1

    def _group(self, depth: int) -> int:
        self.at += 1
        if self._take("?") and not self._take(":"):
            raise ValueError(self.refusal("a kind of group other than ( and (?:"))
        size = self.alternatives(depth + 1)
        if not self._take(")"):
            raise ValueError(self.refusal("a ( without its )"))
        return size + 2

    def _repeated(self, size: int) -> int:
        """How large an atom of that size becomes by the repeat behind it."""
        if self._take("*") or self._take("+") or self._take("?"):
            size += 1
        elif count := _COUNT.match(self.text, self.at):
            low, high = int(count[1]), int(count[3] or count[1])
            if not low <= high <= MAX_REPEAT or (count[2] is None and high == 0):
                raise ValueError(self.refusal(f"a repeat that is not from 1 to {MAX_REPEAT}, the lower count first"))
            self.at, size = count.end(), size * max(1, high) + high - low + 1
        else:
            return size
        self._take("?")
        return size

    def _escape(self) -> tuple[str, int]:
        """The character that the escape stands for ("" for a class of them), and its size."""
        after = self.text[self.at + 1 : self.at + 2]
        self.at += 2
        if after in _CLASSES:
            return "", _CLASSES[after]
        if after in _PUNCTUATION:
            return after, 1
        raise ValueError(self.refusal("an escape other than of punctuation, \\d, \\w and \\s"))

    def _set(self) -> int:
        self.at += 1
        size = int(self._take("^"))
        empty = True
        while not self._take("]"):
            low, ranges = self._member()
            if self.text[self.at : self.at + 1] == "-" and self.text[self.at + 1 : self.at + 2] not in ("]", ""):
                self.at += 1
                high, _ = self._member()
                if not low or not high or low > high:
                    raise ValueError(self.refusal("a range that does not go up"))
            size, empty = size + ranges, False
        if empty:
            raise ValueError(self.refusal("an empty set"))
        return size

    def _member(self) -> tuple[str, int]:
        char = self.text[self.at : self.at + 1]
        if char == "\\":
            return self._escape()
        if char in ("", "[") or self.text[self.at : self.at + 2] in ("--", "&&", "||", "~~"):
            raise ValueError(self.refusal("a set that is not closed, or holds [ or a doubled sign: escape them"))
        self.at += 1
        return char, 1

    def _take(self, char: str) -> bool:
        if self.text[self.at : self.at + 1] == char:
            self.at += 1
            return True
        return False
