"""Who answers for which partition: read from the consumer group, remembered until somebody says it is not so.

Workers say in their group's member data where their HTTP server listens (streams/assignor.py), and the group's
assignment says which partitions each has. During a rebalance the coordinator tells the assignments of before, in which
the leader has repeated the addresses, and later none, so that what was known stays in use: an owner of before says
itself that it is none any more.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from streamlog.client.admin import Admin, GroupDescription
from streamlog.env import Clock
from streamlog.errors import EnvironmentFailure, UserError
from streamlog.streams.assignor import NAME as ASSIGNOR
from streamlog.streams.assignor import decode_member_data

REFRESH_MS_MIN = 100
"""Between two questions to the coordinator, however many requests want fresh routes."""


class NoWorkers(EnvironmentFailure):
    """The app exists, and nobody runs it now."""


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """One member of the app's group."""

    member_id: str
    endpoint: str | None
    """host:port of its HTTP server; None when it has none."""
    host: str
    process_id: str
    partitions: tuple[int, ...]


class Routes:
    """Owners of one app's partitions."""

    def __init__(self, admin: Admin, app_id: str, clock: Clock) -> None:
        self.workers: tuple[WorkerInfo, ...] = ()
        self.state = ""
        """The group's, as of the last refresh."""
        self._admin, self._app_id, self._clock = admin, app_id, clock
        self._owners: dict[int, str] = {}
        self._silent: dict[int, WorkerInfo] = {}  # owners without an HTTP server
        self._turn = -1
        self._refreshed_ms: int | None = None
        self._lock = asyncio.Lock()

    def owner(self, partition: int) -> str | None:
        """Endpoint of the worker that has the partition, as far as is known."""
        return self._owners.get(partition)

    def silent_owner(self, partition: int) -> WorkerInfo | None:
        """The worker that has the partition and no HTTP server, once the workers have settled: nobody else has its
        rows, and asking again would not help."""
        return self._silent.get(partition) if self.state == "Stable" else None

    def any_worker(self) -> str | None:
        """Endpoint of some worker, for what every worker knows: another one each time, since some may be gone."""
        endpoints = [one.endpoint for one in self.workers if one.endpoint is not None]
        self._turn += 1
        return endpoints[self._turn % len(endpoints)] if endpoints else None

    def nobody_listens(self) -> bool:
        """Whether the workers have settled, and none of them has an HTTP server: asking again would not help."""
        return self.state == "Stable" and bool(self.workers) and self.any_worker() is None

    async def refresh(self) -> None:
        """Ask the coordinator, unless somebody just did.

        Raises: UserError: there is no such app, or its group is no app's. NoWorkers. KafkaError, EnvironmentFailure:
                the brokers.
        """
        asked_ms = self._clock.mono_ms()
        async with self._lock:
            if self._refreshed_ms is not None:
                if self._refreshed_ms > asked_ms:
                    return
                left_ms = self._refreshed_ms + REFRESH_MS_MIN - asked_ms
                if left_ms > 0:
                    await asyncio.sleep(left_ms / 1000)
            group = (await self._admin.describe_groups([self._app_id]))[self._app_id]
            self._refreshed_ms = self._clock.mono_ms()
            await self._learn(group)

    async def _learn(self, group: GroupDescription) -> None:
        self.state = group.state
        if group.state == "Dead":
            raise UserError(await self._no_such_app())
        if group.state == "Empty" or not group.members:
            self.workers, self._owners, self._silent = (), {}, {}
            raise NoWorkers(
                f"no worker of app {self._app_id!r} is running: start one with `streamlog -A module:app worker`"
            )
        if group.assignor and group.assignor != ASSIGNOR:
            raise UserError(
                f"group {self._app_id!r} is not a streamlog app: its members are plain consumers ({group.assignor})"
            )
        workers = []
        for member in group.members:
            if group.state != "Stable" and not member.assigned_userdata:
                continue  # it has just come, or the assignments of before are dropped already
            data = decode_member_data(member.userdata or member.assigned_userdata)
            partitions = tuple(sorted({one.partition for one in member.partitions}))
            workers.append(WorkerInfo(member.member_id, data.endpoint, member.client_host, data.process_id, partitions))
        if not workers:
            return
        self.workers = tuple(sorted(workers, key=lambda one: one.member_id))
        self._owners = {
            partition: one.endpoint for one in self.workers if one.endpoint is not None for partition in one.partitions
        }
        self._silent = {partition: one for one in self.workers if one.endpoint is None for partition in one.partitions}

    async def _no_such_app(self) -> str:
        apps = [
            one.group_id
            for one in await self._admin.list_groups()
            if not one.group_id.startswith("_") and one.protocol_type == "consumer"
        ]
        known = f"; groups there: {', '.join(apps[:10])}" if apps else "; no app ever ran there"
        return f"there is no app {self._app_id!r} on these brokers{known}"
