"""The client's picture of the cluster and its ways to brokers, kept fresh by one task.

`Cluster` answers "who leads this partition" from memory, fetches metadata when somebody learned that memory is wrong,
and carries requests to a broker, to any broker, or to the coordinator of a group. Producer, consumer and admin each
own one.

While no broker answers, it keeps trying every address it knows: brokers first, the bootstrap list again when they are
all gone, with pauses that grow. Callers bound their own patience with a timeout; its error names the addresses.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from streamlog.client.config import Address, ConnectionSettings, parse_bootstrap
from streamlog.client.connection import Connection
from streamlog.client.failures import BrokerUnreachable, one_line
from streamlog.client.links import Lane, Links
from streamlog.client.metadata import Broker, Metadata, is_topic_name
from streamlog.client.refusals import RefusalWatch
from streamlog.client.values import TopicPartition
from streamlog.env import Env, Scope
from streamlog.errors import EnvironmentFailure, RemoteProtocolError, StreamlogError, UserError
from streamlog.wire.apis import ApiKey
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.message import Request, Response
from streamlog.wire.messages import (
    FindCoordinatorRequest,
    FindCoordinatorResponse,
    MetadataRequest,
    MetadataResponse,
)
from streamlog.wire.messages.metadata import MetadataRequestTopic

R = TypeVar("R", bound=Response)
T = TypeVar("T")

log = logging.getLogger(__name__)

GROUP_COORDINATOR = 0
TRANSACTION_COORDINATOR = 1

CONCURRENT_TRANSACTIONS_PAUSE_S = 0.01
"""The transaction before is being completed, which takes milliseconds."""

TOPIC_NAME_SHOWN_MAX = 300
"""Of a topic's name in an error message; a bit more than the longest legal one."""

SILENCE_S_MAX = 2.0
"""After so long somebody who waits for a first answer is told so."""

BOOTSTRAP_NODE_ID = -1
"""Node ids from here downwards stand for the addresses of the bootstrap list, whose ids are not known."""


class Cluster:
    """See the module's essay. `open` before use, `close` in the end."""

    def __init__(
        self,
        bootstrap: str | Sequence[str],
        env: Env,
        settings: ConnectionSettings | None = None,
        *,
        auto_create_topics: bool = False,
    ) -> None:
        self.env = env
        self.settings = settings or ConnectionSettings()
        self.metadata = Metadata()
        self.bootstrap = parse_bootstrap(bootstrap)
        self.scope = Scope(f"client {self.settings.client_id}", on_failure=self._on_crash)
        self.crashed: BaseException | None = None  # a bug of ours ended a task; everything raises it from then on
        self._auto_create_topics = auto_create_topics
        self._links = Links(self.settings, env, self.scope)
        self._listeners: list[Callable[[], None]] = []
        self._topics: dict[str, None] = {}  # what is asked for at every refresh, in order of first interest
        self._wanted = asyncio.Event()
        self._asked = 0  # number of the last refresh anybody wants
        self._answered = 0  # number of the last refresh that is done
        self._answer = asyncio.Event()  # replaced after every refresh
        self._attempts = 0  # failed refreshes in a row
        self._fetched_at_ms: int | None = None  # when the last refresh was done
        self._last_failure: Exception | None = None
        self._new_topics = False  # the next refresh is about something nobody asked before: no pause
        self._turn = 0  # whom to ask next
        self._coordinators: dict[tuple[int, str], int] = {}  # (type, key) -> node id

    # -- life

    async def open(self, timeout_ms: int | None = None) -> None:
        """Reach the cluster. Raises BrokerUnreachable when nobody answers in time; KafkaError when refused."""
        self._turn = self.env.entropy.randrange(len(self.bootstrap))
        self.scope.spawn("metadata", self._keep_fresh())
        patience_ms = self.settings.api_timeout_ms if timeout_ms is None else timeout_ms
        silence = asyncio.get_running_loop().call_later(SILENCE_S_MAX, self._say_that_we_wait, patience_ms)
        try:
            await self.refresh(timeout_ms=patience_ms)
        finally:
            silence.cancel()

    def _say_that_we_wait(self, patience_ms: int) -> None:
        if self._last_failure is None:
            addresses = ", ".join(map(str, self.bootstrap))
            log.warning("no answer from %s yet; trying for %g s", addresses, patience_ms / 1000)

    async def close(self) -> None:
        """Close every connection and end every task. Idempotent."""
        self._links.close()
        await self.scope.close()

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every change of the metadata, and when the client crashed."""
        self._listeners.append(listener)

    def check(self) -> None:
        """Raise what ended this client, if something did."""
        if self.crashed is not None:
            raise EnvironmentFailure(f"the client stopped after an internal error: {self.crashed!r}") from self.crashed

    def _on_crash(self, error: BaseException) -> None:
        log.error("client %s stopped after an internal error", self.settings.client_id, exc_info=error)
        self.crashed = error
        self._announce()

    def _announce(self) -> None:
        answer, self._answer = self._answer, asyncio.Event()
        answer.set()
        for listener in self._listeners:
            listener()

    # -- metadata

    def track(self, topics: Iterable[str]) -> bool:
        """Keep these topics in the picture from now on. Whether all of them are in it already."""
        known = True
        for topic in topics:
            if topic not in self._topics:
                self._topics[topic] = None
                self._new_topics = True
            known = known and topic in self.metadata.topics
        if not known:
            self.refresh_nowait()
        return known

    def untrack_others(self, topics: Iterable[str]) -> None:
        """Keep only these topics in the picture."""
        self._topics = dict.fromkeys(topics)

    def refresh_nowait(self) -> int:
        """Have metadata fetched soon. Returns the number of that refresh."""
        if not self._wanted.is_set():
            self._asked += 1
            self._wanted.set()
        return self._asked

    async def refresh(self, topics: Iterable[str] = (), *, timeout_ms: int | None = None) -> None:
        """Metadata that was asked for after this call began. Raises BrokerUnreachable, KafkaError."""
        self.track(topics)
        number = self.refresh_nowait()
        patience_ms = self.settings.api_timeout_ms if timeout_ms is None else timeout_ms
        try:
            async with asyncio.timeout(patience_ms / 1000):
                while self._answered < number:
                    self.check()
                    await self._answer.wait()
        except TimeoutError:
            raise self._nobody_answers(patience_ms) from None
        self.check()

    def answered(self, number: int) -> bool:
        """Whether the refresh that `refresh_nowait` numbered is done."""
        return self._answered >= number

    async def partition_count(self, topic: str, *, timeout_ms: int | None = None) -> int:
        """Partitions of a topic, waiting for it to appear.

        Raises: KafkaError UNKNOWN_TOPIC_OR_PARTITION when it has not in time, or why it may not be seen.
        """
        patience_ms = self.settings.api_timeout_ms if timeout_ms is None else timeout_ms
        deadline_ms = self.env.clock.mono_ms() + patience_ms
        if not is_topic_name(topic):
            raise topic_error(topic, ErrorCode.INVALID_TOPIC_EXCEPTION)
        self.track([topic])
        while not self.metadata.partition_count(topic):
            left_ms = deadline_ms - self.env.clock.mono_ms()
            code = self.metadata.errors.get(topic, ErrorCode.LEADER_NOT_AVAILABLE)
            if topic in self.metadata.errors and (left_ms <= 0 or not code.retriable):
                raise topic_error(topic, code)
            try:
                await self.refresh([topic], timeout_ms=max(left_ms, 1))
            except BrokerUnreachable:
                if topic not in self.metadata.errors:
                    raise
                raise topic_error(topic, self.metadata.errors[topic]) from None
        return self.metadata.partition_count(topic)

    def learn_leader(self, one: TopicPartition, leader: int, leader_epoch: int, endpoints: dict[int, Broker]) -> bool:
        """A Produce or Fetch answer named a leader. Whether that is news; without news, metadata is fetched."""
        if self.metadata.apply_leader(one, leader, leader_epoch, endpoints):
            self._announce()
            return True
        self.refresh_nowait()
        return False

    async def _keep_fresh(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self.settings.metadata_max_age_ms / 1000):
                    await self._wanted.wait()
            except TimeoutError:
                self.refresh_nowait()
            if self._attempts or (not self._new_topics and self._fetched_lately()):
                await self._pause(self._attempts)
            self._wanted.clear()
            self._new_topics = False
            number, topics = self._asked, list(self._topics)
            try:
                response = await self._ask_for_metadata(topics)
            except (EnvironmentFailure, KafkaError, RemoteProtocolError) as failure:
                self._on_refresh_failure(failure)
                continue
            if self._last_failure is not None:
                log.info("cluster=%s is back after %d attempts", response.cluster_id, self._attempts)
            self._last_failure = None
            self._fetched_at_ms = self.env.clock.mono_ms()
            self.metadata.apply(response, topics)
            self._links.keep_only(self.metadata.brokers)
            self._answered = number
            if any(code.retriable for name, code in self.metadata.errors.items() if name in self._topics):
                self._attempts += 1  # a topic in the making, or one that will never be: ask less and less often
            else:
                self._attempts = 0
            self._announce()

    def _fetched_lately(self) -> bool:
        at_ms = self._fetched_at_ms
        return at_ms is not None and self.env.clock.mono_ms() < at_ms + self.settings.retry_backoff_ms

    def _on_refresh_failure(self, failure: Exception) -> None:
        if self._last_failure is None:
            # Of brokers that were there before, links.py says it, by address.
            known = self.metadata.brokers and isinstance(failure, BrokerUnreachable)
            level = logging.INFO if known else logging.WARNING
            log.log(level, "no broker reached, trying again: %s", one_line(failure))
        self._last_failure = failure
        self._attempts += 1
        self._wanted.set()

    async def _ask_for_metadata(self, topics: Sequence[str]) -> MetadataResponse:
        connection = await self._any_connection()
        request = MetadataRequest(
            # One name that no request can say would keep us from asking about all the others.
            topics=[MetadataRequestTopic(name=name) for name in topics if is_topic_name(name)],
            allow_auto_topic_creation=self._auto_create_topics,
        )
        # Version 0 cannot say "no topics" and version 4 introduced the switch for auto creation.
        if connection.version_of(ApiKey.METADATA) < 4:
            raise KafkaError(
                ErrorCode.UNSUPPORTED_VERSION, f"the broker at {connection.address} is older than Kafka 1.0"
            )
        response = await self._answer_in_time(connection, request, MetadataResponse, self._attempts)
        if response.error_code:
            raise KafkaError(ErrorCode.of(response.error_code), f"metadata from {connection.address}")
        if not response.brokers:
            raise BrokerUnreachable(f"the broker at {connection.address} knows of no brokers yet")
        return response

    async def _pause(self, attempts: int) -> None:
        backoff_ms = self.settings.retry_backoff_ms << min(max(attempts - 1, 0), 16)
        backoff_ms = min(backoff_ms, self.settings.retry_backoff_ms_max)
        await asyncio.sleep(backoff_ms * (0.8 + 0.4 * self.env.entropy.random()) / 1000)

    def _nobody_answers(self, patience_ms: int) -> Exception:
        if isinstance(self._last_failure, KafkaError):
            return self._last_failure
        if self.metadata.brokers:
            addresses = ", ".join(str(one.address) for one in self.metadata.brokers.values())
        else:
            addresses = ", ".join(map(str, self.bootstrap))
        why = f" ({one_line(self._last_failure)})" if self._last_failure is not None else ""
        return BrokerUnreachable(
            f"no broker answered at {addresses} within {patience_ms / 1000:g} s{why}; "
            "check that the broker runs and that the address is right"
        )

    # -- connections and requests

    async def connection(self, node_id: int, lane: Lane = Lane.CONTROL) -> Connection:
        """The connection to a broker on a lane. Raises BrokerUnreachable; the next call tries again."""
        return await self._links.link(node_id, lane, self._address(node_id)).open()

    def open_connection(self, node_id: int, lane: Lane) -> Connection | None:
        """The connection if it is open right now."""
        if node_id not in self.metadata.brokers:
            return None
        return self._links.link(node_id, lane, self._address(node_id)).connection

    def _address(self, node_id: int) -> Address:
        if node_id <= BOOTSTRAP_NODE_ID:
            return self.bootstrap[BOOTSTRAP_NODE_ID - node_id]
        broker = self.metadata.brokers.get(node_id)
        if broker is None:
            raise BrokerUnreachable(f"broker {node_id} is not part of the cluster right now")
        return broker.address

    def question_timeout_ms(self, failures: int) -> int:
        """How long to wait for a broker before another is asked, after so many failures in a row."""
        settings = self.settings
        if len(self.metadata.brokers) < 2 and len(self.bootstrap) < 2:
            return settings.request_timeout_ms
        return min(settings.request_timeout_ms, settings.question_timeout_ms << min(failures, 16))

    async def _any_connection(self) -> Connection:
        """A connection to whoever answers, one that is there and idle rather than another.

        Every call begins with the next broker. Who owes us an answer comes last: it may be frozen.
        """
        candidates = sorted(self.metadata.brokers)
        open_now = {one: self.open_connection(one, Lane.CONTROL) for one in candidates}
        idle = [one for one, connection in open_now.items() if connection is not None and connection.in_flight == 0]
        busy = [one for one, connection in open_now.items() if connection is not None and connection.in_flight]
        others = [one for one, connection in open_now.items() if connection is None]
        bootstrap = [BOOTSTRAP_NODE_ID - index for index in range(len(self.bootstrap))]
        failure: Exception | None = None
        for group in (idle, others, busy, bootstrap):
            for index in range(len(group)):
                node_id = group[(self._turn + index) % len(group)]
                try:
                    connection = await self._connection_in_time(node_id)
                except (BrokerUnreachable, RemoteProtocolError) as error:
                    failure = error
                    continue
                self._turn += 1
                return connection
        assert failure is not None, "there is always a bootstrap address to try"
        raise failure

    async def _connection_in_time(self, node_id: int) -> Connection:
        try:
            async with asyncio.timeout(self.question_timeout_ms(self._attempts) / 1000):
                return await self.connection(node_id)
        except TimeoutError:
            raise BrokerUnreachable(f"the broker at {self._address(node_id)} does not answer") from None

    async def request(
        self,
        node_id: int,
        message: Request,
        response: type[R],
        *,
        lane: Lane = Lane.CONTROL,
        timeout_ms: int | None = None,
        version_max: int | None = None,
    ) -> R:
        """One attempt at one broker. Raises BrokerUnreachable, RemoteProtocolError, KafkaError UNSUPPORTED_VERSION."""
        connection = await self.connection(node_id, lane)
        return await connection.request(message, response, timeout_ms=timeout_ms, version_max=version_max)

    async def request_any(self, message: Request, response: type[R], *, failures: int | None = None) -> R:
        """One attempt at some broker; the next one is asked another broker.

        `failures` in a row say how patient to be with this one; None: what is asked must not be asked twice.
        """
        connection = await self._any_connection()
        if failures is None:
            return await connection.request(message, response)
        return await self._answer_in_time(connection, message, response, failures)

    async def _answer_in_time(self, connection: Connection, message: Request, response: type[R], failures: int) -> R:
        timeout_ms = self.question_timeout_ms(failures)
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                return await connection.request(message, response)
        except TimeoutError:
            why = f"the broker at {connection.address} has not answered for {timeout_ms / 1000:g} s"
            raise BrokerUnreachable(why) from None

    # -- coordinators

    async def coordinator(self, key_type: int, key: str) -> int:
        """The broker that coordinates a group or a transactional id; remembered until forgotten. One attempt.

        Raises: BrokerUnreachable; KafkaError, COORDINATOR_NOT_AVAILABLE among them, which passes.
        """
        known = self._coordinators.get((key_type, key))
        if known is not None and known in self.metadata.brokers:
            return known
        connection = await self._any_connection()
        batched = connection.version_of(ApiKey.FIND_COORDINATOR) >= 4
        request = FindCoordinatorRequest(
            key="" if batched else key, key_type=key_type, coordinator_keys=[key] if batched else []
        )
        answer = await connection.request(request, FindCoordinatorResponse)
        one = answer.coordinators[0] if batched and answer.coordinators else answer
        if one.error_code:
            raise KafkaError(ErrorCode.of(one.error_code), one.error_message or f"no coordinator for '{key}'")
        if one.node_id not in self.metadata.brokers:
            await self.refresh()
        if one.node_id not in self.metadata.brokers:
            raise KafkaError(ErrorCode.COORDINATOR_NOT_AVAILABLE, f"coordinator {one.node_id} is not in the metadata")
        self._coordinators[key_type, key] = one.node_id
        return one.node_id

    def forget_coordinator(self, key_type: int, key: str) -> None:
        self._coordinators.pop((key_type, key), None)

    async def retrying(self, what: str, attempt: Callable[[], Awaitable[T]], *, timeout_ms: int | None = None) -> T:
        """`attempt` until it works, with growing pauses, as long as its errors are of the passing kind.

        Raises: what is not retriable, at once; the last passing error, or BrokerUnreachable, when time is up.
        """
        patience_ms = self.settings.api_timeout_ms if timeout_ms is None else timeout_ms
        deadline_ms = self.env.clock.mono_ms() + patience_ms
        refusals = RefusalWatch()
        failure: Exception | None = None
        attempts = 0
        while (left_ms := deadline_ms - self.env.clock.mono_ms()) > 0:
            self.check()
            try:
                async with asyncio.timeout(left_ms / 1000):
                    result = await attempt()
                refusals.accepted(self.env.clock.mono_ms())
                return result
            except TimeoutError:
                break
            except KafkaError as error:
                if not error.retriable:
                    raise
                failure = error
                refusals.refused(what, one_line(error), self.env.clock.mono_ms())
                if error.refresh_metadata:
                    self.refresh_nowait()
            except (BrokerUnreachable, RemoteProtocolError) as error:
                failure = error
                self.refresh_nowait()
            if isinstance(failure, KafkaError) and failure.code is ErrorCode.CONCURRENT_TRANSACTIONS:
                await asyncio.sleep(CONCURRENT_TRANSACTIONS_PAUSE_S)
                continue
            attempts += 1
            await self._pause(attempts)
        if isinstance(failure, KafkaError):
            raise failure
        why = f": {one_line(failure)}" if failure is not None else ""
        raise BrokerUnreachable(
            f"{what} did not succeed within {patience_ms / 1000:g} s{why}; check that the broker runs"
        )


def topic_error(topic: str, code: ErrorCode) -> StreamlogError:
    """Why a topic cannot be used, as one sentence with what to do."""
    if code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
        return KafkaError(code, f"topic '{topic}' does not exist; create it first")
    if code == ErrorCode.INVALID_TOPIC_EXCEPTION:
        shown = topic if len(str(topic)) <= TOPIC_NAME_SHOWN_MAX else f"{topic[:TOPIC_NAME_SHOWN_MAX]}..."
        return UserError(f"{shown!r} is not a topic name; letters, digits, '.', '_' and '-' are allowed, 249 at most")
    return KafkaError(code, f"topic '{topic}'")
