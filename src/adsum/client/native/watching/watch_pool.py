"""The watches of one client: one stream for all its services, as far as they can share it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable

from adsum.client.consumer_identity import ConsumerIdentity
from adsum.client.native.watching.joint_watch import JointWatch, WatchSubscription
from adsum.client.native.watching.registry_access import RegistryAccess
from adsum.client.native.watching.subscription import ServiceSubscription
from adsum.client.sources.source import ConnectionLost, ServiceUpdate, ViewPosition


class WatchPool:
    """Follows services. Each is added to a watch that takes it, or else to a new one."""

    def __init__(self, registry: RegistryAccess) -> None:
        self._registry = registry
        self._watches: dict[WatchSubscription, JointWatch] = {}
        """The watch of each subscription."""

    async def follow(
        self, service: str, position: Callable[[], ViewPosition | None], consumer: ConsumerIdentity | None
    ) -> AsyncGenerator[ServiceUpdate | ConnectionLost, None]:
        """Follows a service, as `Source.watch` does. Without a `consumer` no drain waits for it."""
        subscription: WatchSubscription = ServiceSubscription(service, position, consumer)
        self._assign(subscription)
        try:
            while True:
                event = await subscription.next()
                if isinstance(event, ConnectionLost):
                    yield event
                    continue
                self._watches[subscription].note_taken()
                yield event.update
                event.connection.acknowledge(service, event)
                self._watches[subscription].fail_over_if_stale(event)
        finally:
            await self._release(subscription)

    def _assign(self, subscription: WatchSubscription) -> None:
        for watch in set(self._watches.values()):
            if watch.may_add(subscription.service):
                watch.add(subscription)
                self._watches[subscription] = watch
                return
        self._open(subscription, is_exclusive=False, takes_joins=True)

    def _open(self, subscription: WatchSubscription, *, is_exclusive: bool, takes_joins: bool) -> None:
        self._watches[subscription] = JointWatch(
            self._registry,
            subscription,
            is_exclusive=is_exclusive,
            takes_joins=takes_joins,
            on_moved=self._moved,
            on_joinable=self._joinable,
        )

    def _moved(self, subscription: WatchSubscription, always: bool) -> None:
        """Gives a service a watch of its own; `always` false: until services can join at its node."""
        self._open(subscription, is_exclusive=always, takes_joins=False)

    def _joinable(self, watch: JointWatch) -> None:
        """Joins the services of a watch to another one, if there is one that takes them."""
        for subscription in watch.subscriptions:
            for other in set(self._watches.values()) - {watch}:
                if other.may_add(subscription.service):
                    watch.remove(subscription)
                    other.add(subscription)
                    self._watches[subscription] = other
                    break

    async def _release(self, subscription: WatchSubscription) -> None:
        watch = self._watches.pop(subscription)
        watch.remove(subscription)
        if watch.is_empty:
            await watch.close()
