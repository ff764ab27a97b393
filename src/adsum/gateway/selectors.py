"""Which instances of a service a route means: all of them, or those with some tags and metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

from adsum.core import model, rules
from adsum.core.model import Instance

MAX_PICKED: Final = 8
"""Tags, and as many pairs of metadata, that one selector asks for; more are refused."""

_METADATA_KEYS: Final = {"tag": "%74ag"}
"""A key that would read as a tag is written so that it can't."""


@dataclass(frozen=True, slots=True)
class Selector:
    """The instances of a service that have all these tags and all these pairs of metadata."""

    service: str
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=model.nothing)

    def __post_init__(self) -> None:
        rules.service_name("service", self.service)
        rules.texts("tags", self.tags, MAX_PICKED)
        rules.mapping("metadata", self.metadata, MAX_PICKED)

    @property
    def whole(self) -> bool:
        """Whether it means every instance."""
        return not self.tags and not self.metadata

    @property
    def name(self) -> str:
        """What names it everywhere: `orders`, `orders?tag=canary`, `orders?version=2`; equal ones have equal names."""
        if self.whole:
            return self.service
        pairs = [("tag", tag) for tag in sorted(self.tags)]
        pairs += [(_METADATA_KEYS.get(key, key), value) for key, value in sorted(self.metadata.items())]
        return f"{self.service}?" + "&".join(f"{key}={quote(value, safe='')}" for key, value in pairs)

    def chooses(self, instance: Instance) -> bool:
        """Whether it means that instance of its service."""
        return all(tag in instance.tags for tag in self.tags) and all(
            instance.metadata.get(key) == value for key, value in self.metadata.items()
        )
