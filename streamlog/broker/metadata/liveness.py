"""Which brokers are alive, as far as the active controller can tell. Soft state: nobody replicates it.

A broker that is not fenced has a session, which each heartbeat extends. When it runs out the broker is fenced, which
takes its leaderships away. A new active controller knows nothing about heartbeats to the one before, and gives a fresh
session to everybody of whom it has not heard itself a short while ago, as the leader that it followed or when it was
active before: a failover may fence late, never early. They count as lost until they beat: a broker that starts anew
need not wait for its own old session.

A session that runs out is the slow signal: a frozen broker, or a cut cable. The quick one is a connection that ends:
a process that is killed has its connections closed by its kernel. That alone proves nothing (a proxy, an idle
timeout), so the driver asks the broker's listener; if nobody listens there the broker is dead, and `is_lost` says
that nothing was heard of it since its connection ended.

Whether a broker is fenced is the image's to say; here is only what the image does not have.

Sources: KIP-631 (sessions), KIP-500; `docs/decisions/0041-a-dead-broker-is-noticed-by-its-connections.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from streamlog.broker.metadata.image import BrokerRegistration, MetadataImage

NOT_SHUTTING_DOWN: Final = -1

FIRST_HEARTBEAT_MS: Final = 500
"""How long after an election every broker can be heard of: it takes a look for the new controller, which costs some
ten milliseconds, or a quarter of a second when a heartbeat has just failed."""

NOTHING_HEARD: Final[Mapping[int, int]] = MappingProxyType({})


@dataclass(slots=True)
class Session:
    epoch: int
    """Of the broker; a session belongs to one incarnation."""
    last_heard_ms: int
    metadata_offset: int = -1
    """How far the broker has read the metadata, by its last heartbeat."""
    shutdown_offset: int = NOT_SHUTTING_DOWN
    """The last record of those that moved its leaderships: who is active has to have read it before the broker may
    leave."""
    is_lost: bool = False
    """Its connection to this controller has ended, or there never was one, and it has not been heard of since."""


class Liveness:
    """Sessions by broker. Times are monotonic, in milliseconds."""

    def __init__(self, session_timeout_ms: int, own_broker_id: int | None = None) -> None:
        """`own_broker_id`: the broker of this very process. It lives while somebody asks, so it never runs out."""
        self.session_timeout_ms = session_timeout_ms
        self.own_broker_id = own_broker_id
        self.sessions: dict[int, Session] = {}

    def begin(self, image: MetadataImage, now_ms: int, heard_ms: Mapping[int, int] = NOTHING_HEARD) -> None:
        """This controller has become active: everybody is as if heard of just now.

        But who led before, and is a broker too, was last heard of when this node last heard its controller: a process
        that is frozen is so as a whole. `heard_ms`: those times, by broker. However many elections it took, such a
        session goes on where it was; with time left for one heartbeat to find its way to us. One that has run out says
        nothing: if somebody was active meanwhile it is over, and otherwise nobody could be heard.
        """
        before, self.sessions = self.sessions, {}
        for broker in image.brokers.values():
            heard = [heard_ms[broker.id]] if broker.id in heard_ms else []
            session = before.get(broker.id)
            if session is not None and session.epoch == broker.epoch:
                heard.append(session.last_heard_ms)
            last_ms = max(heard, default=now_ms)
            if last_ms + self.session_timeout_ms < now_ms:
                last_ms = now_ms
            last_ms = max(last_ms, now_ms + FIRST_HEARTBEAT_MS - self.session_timeout_ms)
            self.sessions[broker.id] = Session(broker.epoch, min(now_ms, last_ms), is_lost=True)

    def on_registered(self, broker_id: int, epoch: int, now_ms: int) -> None:
        """A broker has registered; as the same incarnation, its session goes on."""
        session = self.sessions.get(broker_id)
        if session is None or session.epoch != epoch:
            self.sessions[broker_id] = Session(epoch, now_ms)
        else:
            session.last_heard_ms, session.is_lost = now_ms, False

    def on_heartbeat(self, broker_id: int, epoch: int, metadata_offset: int, now_ms: int) -> None:
        session = self._session(broker_id, epoch, now_ms)
        session.last_heard_ms = now_ms
        session.metadata_offset = metadata_offset
        session.is_lost = False

    def on_shutdown_begun(self, broker_id: int, epoch: int, offset: int, now_ms: int) -> None:
        """The record at `offset` is the last that moves leaderships. Only the first call counts."""
        session = self._session(broker_id, epoch, now_ms)
        if session.shutdown_offset == NOT_SHUTTING_DOWN:
            session.shutdown_offset = offset

    def on_connection_lost(self, broker_id: int, epoch: int) -> None:
        session = self.sessions.get(broker_id)
        if session is not None and session.epoch == epoch:
            session.is_lost = True

    def on_gone(self, broker_id: int) -> None:
        """Fenced or unregistered: no session any more."""
        self.sessions.pop(broker_id, None)

    def on_stalled(self, lost_ms: int) -> None:
        """This process stood still: it could not hear anybody, so nobody was silent in that time."""
        for session in self.sessions.values():
            session.last_heard_ms += lost_ms

    def _session(self, broker_id: int, epoch: int, now_ms: int) -> Session:
        session = self.sessions.get(broker_id)
        if session is None or session.epoch != epoch:
            session = self.sessions[broker_id] = Session(epoch, now_ms)
        return session

    # -- asking ---------------------------------------------------------------------------------------------------

    def is_alive(self, image: MetadataImage, broker_id: int, now_ms: int) -> bool:
        """Whether a broker is unfenced and its session has not run out. A lost one counts until it is fenced."""
        broker = image.brokers.get(broker_id)
        session = self.sessions.get(broker_id)
        if broker is None or broker.fenced or session is None or session.epoch != broker.epoch:
            return False
        return now_ms <= session.last_heard_ms + self.session_timeout_ms

    def is_lost(self, broker_id: int) -> bool:
        session = self.sessions.get(broker_id)
        return session is None or session.is_lost

    def expired(self, image: MetadataImage, now_ms: int) -> int | None:
        """The unfenced broker that has been silent for longest, if that is too long."""
        found = [
            (self._last_heard_ms(broker_id), broker_id)
            for broker_id, broker in image.brokers.items()
            if self._can_expire(broker) and not self.is_alive(image, broker_id, now_ms)
        ]
        return min(found)[1] if found else None

    def deadline_ms(self, image: MetadataImage) -> int | None:
        """When the next session runs out (after this instant, not at it)."""
        return min(
            (
                self._last_heard_ms(broker.id) + self.session_timeout_ms + 1
                for broker in image.brokers.values()
                if self._can_expire(broker)
            ),
            default=None,
        )

    def _can_expire(self, broker: BrokerRegistration) -> bool:
        return not broker.fenced and broker.id != self.own_broker_id

    def _last_heard_ms(self, broker_id: int) -> int:
        session = self.sessions.get(broker_id)
        return 0 if session is None else session.last_heard_ms

    def lowest_active_offset(self, image: MetadataImage) -> int | None:
        """How far every active broker has read the metadata; None: nobody is active."""
        return min(
            (
                session.metadata_offset
                for broker_id, session in self.sessions.items()
                if (broker := image.brokers.get(broker_id)) is not None and broker.is_active
            ),
            default=None,
        )

    def shutdown_offset(self, broker_id: int) -> int:
        session = self.sessions.get(broker_id)
        return NOT_SHUTTING_DOWN if session is None else session.shutdown_offset
