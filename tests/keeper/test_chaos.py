"""Random histories of a node, each from one seed."""

from __future__ import annotations

from random import Random

import pytest

from adsum.core.errors import AdsumError, UnknownInstance
from adsum.core.liveness.leases import LeasePhase
from adsum.core.model import Key, LeaseState
from adsum.core.provenance import Cause
from tests.keeper.world import KeeperWorld

KEYS = [Key(service, f"{service}-{n}") for service in ("orders", "users") for n in range(4)]
TTL, GRACE = 6.0, 4.0


class RandomHistory:
    """Random actions of providers, stores and machines. It remembers when each lease was last renewed."""

    def __init__(self, world: KeeperWorld, rng: Random) -> None:
        self.world = world
        self.rng = rng
        self.renewed_at: dict[Key, float] = {}

    async def step(self) -> None:
        key = self.rng.choice(KEYS)
        actions = [self.renew, self.renew, self.renew, self.register, self.deregister, self.wait, self.wait, self.store]
        await self.rng.choice(actions)(key)

    async def renew(self, key: Key) -> None:
        for renewed in [key, *self.rng.sample(KEYS, 5)]:
            try:
                self.world.keeper.renew(renewed)
                self.renewed_at[renewed] = self.world.clock.now()
            except UnknownInstance:
                self.renewed_at.pop(renewed, None)

    async def register(self, key: Key) -> None:
        try:
            await self.world.register(key.id, key.service, ttl=TTL, grace=GRACE)
            self.world.keeper.renew(key)
            self.renewed_at[key] = self.world.clock.now()
        except AdsumError:
            assert self.world.store.is_unavailable

    async def deregister(self, key: Key) -> None:
        if not self.world.store.is_unavailable and self.rng.random() < 0.3:
            await self.world.deregister(key)
            self.renewed_at.pop(key, None)

    async def wait(self, key: Key) -> None:
        if self.rng.random() < 0.05:
            self.world.clock.jump(self.rng.uniform(10.0, 10_000.0))
        await self.world.clock.advance(self.rng.uniform(0.0, 4.0))

    async def store(self, key: Key) -> None:
        self.world.store.is_unavailable = self.rng.random() < 0.3

    def check(self) -> None:
        """Asserts that every instance that renewed in time is listed."""
        now = self.world.clock.now()
        for key, renewed_at in self.renewed_at.items():
            if now < renewed_at + TTL + GRACE:
                assert self.world.find(key) is not None, f"{key} left {now - renewed_at:.1f} s after it was renewed"


@pytest.mark.parametrize("seed", range(8))
async def test_no_instance_is_removed_early_and_at_rest_catalog_and_leases_agree(seed: int) -> None:
    async with KeeperWorld() as world:
        history = RandomHistory(world, Random(seed))
        for _ in range(400):
            await history.step()
            history.check()
        world.store.is_unavailable = False
        await world.clock.advance(30.0)
        for key in KEYS:
            listing, phase = world.find(key), world.keeper.leases.phase(key)
            if listing is None:
                assert phase is None
            else:
                assert (listing.lease is LeaseState.HELD) == (phase is LeasePhase.HELD)
            causes = world.causes(key)
            before_expiry = [causes[n - 1] for n, cause in enumerate(causes) if cause is Cause.LEASE_EXPIRED]
            assert set(before_expiry) <= {Cause.LEASE_LAPSED}
        await world.clock.advance(3600.0 + 2 * (TTL + GRACE))
        assert [key for key in KEYS if world.find(key) is not None] == []
        assert len(world.keeper.leases) == 0
