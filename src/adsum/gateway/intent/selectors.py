"""Selectors: the instances of a service that a route targets, by the tags and metadata that they have or lack."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final
from urllib.parse import quote

from adsum.core import model, validation
from adsum.core.errors import Invalid
from adsum.core.model import Instance

MAX_SELECTOR_CONDITIONS: Final = 8
"""Entries in each condition of a selector (tags, metadata, without_tags, without_metadata); more are refused."""

MAX_SELECTOR_NAME_LENGTH: Final = 128
"""Characters of a selector's name; the end of a longer text is replaced by a hash of the whole text."""

_HASH_BYTES: Final = 16
_HASH_MARK: Final = "#"
"""Precedes the hash. No text contains it, so that no full text looks like a shortened one."""
_METADATA_KEYS: Final = {"tag": "%74ag"}
"""Escaped forms of the metadata keys that would read as a tag."""


@dataclass(frozen=True, slots=True)
class Selector:
    """The instances of a service that have all of `tags` and `metadata`, and none of the `without` ones."""

    service: str
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=model.empty_mapping)
    without_tags: tuple[str, ...] = ()
    without_metadata: Mapping[str, str] = field(default_factory=model.empty_mapping)

    def __post_init__(self) -> None:
        validation.service_name("service", self.service)
        validation.texts("tags", self.tags, MAX_SELECTOR_CONDITIONS)
        validation.mapping("metadata", self.metadata, MAX_SELECTOR_CONDITIONS)
        validation.texts("without_tags", self.without_tags, MAX_SELECTOR_CONDITIONS)
        validation.mapping("without_metadata", self.without_metadata, MAX_SELECTOR_CONDITIONS)
        if not set(self.tags).isdisjoint(self.without_tags):
            raise Invalid("without_tags", "must share no tag with tags: no instance both has and lacks it")
        if not set(self.metadata.items()).isdisjoint(self.without_metadata.items()):
            raise Invalid("without_metadata", "must share no pair with metadata: no instance both has and lacks it")

    @property
    def selects_all(self) -> bool:
        """True if the selector selects every instance of its service."""
        return not (self.tags or self.metadata or self.without_tags or self.without_metadata)

    @property
    def text(self) -> str:
        """The form that people write: `orders`, `orders?tag=canary`, `orders?version!=2`.

        Equal selectors have equal texts.
        """
        if self.selects_all:
            return self.service
        pairs = [*_pairs("=", self.tags, self.metadata), *_pairs("!=", self.without_tags, self.without_metadata)]
        return f"{self.service}?{'&'.join(pairs)}"

    @property
    def name(self) -> str:
        """The name of the selector's cluster and assignment: ASCII of at most `MAX_SELECTOR_NAME_LENGTH` characters.

        It is the text, or the beginning of a long text and a hash of the whole. Different selectors have different
        names.
        """
        text = self.text
        if len(text) <= MAX_SELECTOR_NAME_LENGTH:
            return text
        digest = _HASH_MARK + blake2b(text.encode(), digest_size=_HASH_BYTES).hexdigest()
        return text[: MAX_SELECTOR_NAME_LENGTH - len(digest)] + digest

    def selects(self, instance: Instance) -> bool:
        """Returns whether the selector selects that instance of its service."""
        has = instance.metadata.get
        return (
            all(tag in instance.tags for tag in self.tags)
            and all(has(key) == value for key, value in self.metadata.items())
            and not any(tag in instance.tags for tag in self.without_tags)
            and not any(has(key) == value for key, value in self.without_metadata.items())
        )


def service_of_cluster(cluster: str) -> str:
    """Returns the service of the cluster with that name."""
    return cluster.partition("?")[0]


def _pairs(sign: str, tags: Iterable[str], metadata: Mapping[str, str]) -> Iterator[str]:
    for tag in sorted(tags):
        yield f"tag{sign}{quote(tag, safe='')}"
    for key, value in sorted(metadata.items()):
        yield f"{_METADATA_KEYS.get(key, key)}{sign}{quote(value, safe='')}"
