"""The ways to brokers: connections made when needed, shared, and made again with a growing pause.

A broker works on one request of a connection at a time. What may block for long gets a connection ("lane") of its
own, so that a fetch waiting for data or a member waiting for its group never holds up a commit.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Container
from enum import Enum

from streamlog.client.config import Address, ConnectionSettings
from streamlog.client.connection import Connection, connect
from streamlog.client.failures import BrokerUnreachable, one_line
from streamlog.client.outages import Outages
from streamlog.client.silence import SilenceWatch
from streamlog.env import Env, Scope
from streamlog.errors import StreamlogError

log = logging.getLogger(__name__)


class Lane(Enum):
    """What a connection is for."""

    CONTROL = "control"  # short requests: metadata, offsets, commits, administration
    PRODUCE = "produce"
    FETCH = "fetch"
    FETCH_ASIDE = "fetch aside"  # for what cannot wait until a waiting fetch is answered
    GROUP = "group"  # join and sync wait for other members


class Link:
    """One lane to one address."""

    def __init__(
        self,
        node_id: int,
        lane: Lane,
        address: Address,
        settings: ConnectionSettings,
        env: Env,
        scope: Scope,
        outages: Outages,
        silence: SilenceWatch,
    ) -> None:
        self.name = f"{node_id} {lane.value}"
        self._is_bootstrap = node_id < 0
        self.address = address
        self.connection: Connection | None = None  # open and shaken hands
        self._settings = settings
        self._env = env
        self._scope = scope
        self._outages = outages
        self._silence = silence
        self._connecting: asyncio.Task[Connection | Exception] | None = None
        self._failures = 0  # in a row
        self._retry_at_ms = 0
        self._closed = False

    @property
    def idle(self) -> bool:
        return self._connecting is None and (self.connection is None or self.connection.in_flight == 0)

    async def open(self) -> Connection:
        """The connection, made if there is none. Waits out the pause after a failure first.

        Raises: BrokerUnreachable, RemoteProtocolError, KafkaError. Cancelled, connecting goes on for others.
        """
        if self.connection is not None:
            return self.connection
        if self._connecting is None:
            self._connecting = self._scope.spawn(f"connect {self.name}", self._connect())
            self._connecting.add_done_callback(self._on_connected)
        connecting = self._connecting
        await asyncio.wait([connecting])
        if connecting.cancelled():
            raise BrokerUnreachable(f"the client is closing; no connection to {self.address}")
        result = connecting.result()
        if isinstance(result, Exception):
            raise result
        return result

    async def _connect(self) -> Connection | Exception:
        pause_ms = self._retry_at_ms - self._env.clock.mono_ms()
        if pause_ms > 0:
            await asyncio.sleep(pause_ms / 1000)
        slow = asyncio.get_running_loop().call_later(self._settings.connect_slow_ms / 1000, self._say_slow)
        try:
            connection = await connect(self.address, self._settings, self._env.clock, self._on_lost, self._silence)
        except StreamlogError as failure:
            self._say_failure(failure)
            return failure  # an answer for who waits, not the end of the client
        finally:
            slow.cancel()
        outage = self._outages.on_success(self.address)
        if outage is not None:
            lasted_s = outage.lasted_s(self._env.clock.mono_ms())
            log.info("broker=%s is back after %.1f s and %d attempts", self.address, lasted_s, outage.attempts)
        return connection

    def _say_slow(self) -> None:
        seconds, most = self._settings.connect_slow_ms / 1000, self._settings.connect_timeout_ms / 1000
        log.warning("broker=%s has not answered for %g s; giving it up to %g s", self.address, seconds, most)

    def _say_failure(self, failure: StreamlogError) -> None:
        now_ms = self._env.clock.mono_ms()
        outage = self._outages.on_failure(self.address, now_ms)
        if outage is None:
            log.debug("broker=%s %s", self.address, one_line(failure))
        elif outage.attempts == 1:
            # An address to begin with is one of several: cluster.py says when none of them is of use.
            level = logging.INFO if self._is_bootstrap else logging.WARNING
            log.log(level, "broker=%s is unreachable, trying again: %s", self.address, one_line(failure))
        else:
            lasted_s = outage.lasted_s(now_ms)
            log.warning(
                "broker=%s is unreachable for %.0f s and %d attempts, trying again: %s",
                *(self.address, lasted_s, outage.attempts, one_line(failure)),
            )

    def _on_connected(self, task: asyncio.Task[Connection | Exception]) -> None:
        self._connecting = None
        if task.cancelled():
            return
        result = task.result()
        if isinstance(result, Connection) and result.closed is None:
            self._failures = 0
            self.connection = result
            if self._closed:
                result.close()
        else:
            self._back_off()

    def _on_lost(self, connection: Connection) -> None:
        if self.connection is connection:
            self.connection = None
            self._back_off()

    def _back_off(self) -> None:
        settings = self._settings
        pause_ms = min(settings.reconnect_backoff_ms << min(self._failures, 16), settings.reconnect_backoff_ms_max)
        self._failures += 1
        jitter = 0.8 + 0.4 * self._env.entropy.random()
        self._retry_at_ms = self._env.clock.mono_ms() + int(pause_ms * jitter)

    def close(self) -> None:
        self._closed = True
        if self.connection is not None:
            self.connection.close()


class Links:
    """All connections of one client, by broker and lane."""

    def __init__(self, settings: ConnectionSettings, env: Env, scope: Scope) -> None:
        self._settings = settings
        self._env = env
        self._scope = scope
        self._outages = Outages()
        self._silence = SilenceWatch()
        self._links: dict[tuple[int, Lane], Link] = {}

    def link(self, node_id: int, lane: Lane, address: Address) -> Link:
        """The link to a broker that is now known to be at `address`."""
        link = self._links.get((node_id, lane))
        if link is None or link.address != address:
            if link is not None:
                link.close()
            link = Link(node_id, lane, address, self._settings, self._env, self._scope, self._outages, self._silence)
            self._links[node_id, lane] = link
        return link

    def keep_only(self, node_ids: Container[int]) -> None:
        """Close the connections to other brokers. Bootstrap addresses (negative ids) only lose idle ones."""
        for (node_id, lane), link in list(self._links.items()):
            if node_id not in node_ids and (node_id >= 0 or link.idle):
                del self._links[node_id, lane]
                link.close()

    def close(self) -> None:
        for link in self._links.values():
            link.close()
