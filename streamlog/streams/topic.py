"""`Topic`: a name, the types of its keys and values, and where event time comes from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from streamlog.errors import UserError
from streamlog.serde import Format, Serde, SerdeError, can_change, copier, key_serde_for, serde_for
from streamlog.state.changelog import ANY_TIME
from streamlog.streams.batches import Reader
from streamlog.streams.context import Cell, Outbox, Outside
from streamlog.streams.cursor import Cursor, current
from streamlog.streams.feed import LaneTopic
from streamlog.streams.record import Selector, allows_none, selector, to_timestamp_ms
from streamlog.streams.stream import Declared, Stream

K = TypeVar("K")
V = TypeVar("V")

Kind: TypeAlias = Literal["declared", "agent", "repartition"]
Headers: TypeAlias = Mapping[str, bytes | str] | Sequence[tuple[str, bytes | None]]

_LEGAL = re.compile(r"[a-zA-Z0-9._-]{1,249}")


def check_name(name: object, what: str) -> str:
    """Kafka's rule for topic names, which names of apps, agents and tables share, since topics are named after them."""
    if not isinstance(name, str) or not _LEGAL.fullmatch(name) or name in (".", ".."):
        raise UserError(f"{what} {name!r}: use 1 to 249 letters, digits, '.', '_' and '-'")
    return name


def unprocessed_configs() -> dict[str, str]:
    """Configuration of topics between the lanes of an app. Brokers delete by event time, which may be years ago or in
    the future; here nothing may be deleted or refused before it was processed, however long the workers were away."""
    return {"cleanup.policy": "delete", "retention.ms": "-1", **ANY_TIME}


class Topic(Generic[K, V]):
    """A topic as the program sees it. Declaring it does nothing; a worker creates it if it has to."""

    __slots__ = (
        "_cell",
        "_encode_key",
        "_encode_value",
        "configs",
        "format",
        "key_serde",
        "kind",
        "name",
        "partitions",
        "reader",
        "timestamp",
        "value_serde",
    )

    def __init__(
        self,
        name: str,
        key: Any,
        value: Any,
        *,
        cell: Cell,
        timestamp: Any = None,
        partitions: int | None = None,
        format: Format = "json",  # noqa: A002 - the word users know
        configs: Mapping[str, str] | None = None,
        kind: Kind = "declared",
    ) -> None:
        self.name = check_name(name, "topic")
        self.key_serde: Serde[K] = key_serde_for(key, format, f"topic {name}, key")
        self.value_serde: Serde[V] = serde_for(value, format, f"topic {name}")
        self.format = format
        self.partitions = check_partitions(partitions, f"topic {name}")
        self.configs: dict[str, str] = dict(configs or {})
        self.kind: Kind = kind
        self.timestamp: Selector | None = None
        if timestamp is not None:
            self.timestamp = selector(timestamp, f"topic {name}, timestamp=")
            _check_owner(self.timestamp, value, name)
        take = None if self.timestamp is None else self.timestamp.select
        self.reader = Reader(
            self.value_serde.decode,
            take,
            allows_none(value),
            self.value_serde.read,
            shares=not can_change(value),
            copy=copier(value),
        )
        self._cell = cell
        self._encode_key = self.key_serde.encode
        self._encode_value = self.value_serde.encode

    def __repr__(self) -> str:
        return f"<Topic {self.name}: {self.key_serde.name} -> {self.value_serde.name}>"

    def stream(self) -> Stream[K, V]:
        """The topic's events, to be refined and given to `@app.agent`."""
        return Stream(Declared((self,)))

    async def send(
        self,
        value: V | None,
        *,
        key: K | None = None,
        timestamp: datetime | float | None = None,
        headers: Headers = (),
        partition: int | None = None,
    ) -> None:
        """Send one record; a value of None is a tombstone.

        Inside an agent it returns at once: the event being processed is committed only after the record is
        acknowledged. Elsewhere it returns when the record is acknowledged.

        Args:   timestamp: of the record: datetime, ms as int or seconds as float; default that of the event being
                           processed, and outside agents now. Brokers delete by it, so it should not be years ago in a
                           topic whose retention is days; readers with a `timestamp=` take the event's time from the
                           value anyway.
        Raises: UserError: no worker runs, or the value does not fit. KafkaError: the log refused it (outside agents).
        """
        cursor = current.get(None)
        if cursor is not None:
            outbox = cursor.lane.outbox
            if outbox.full:
                await outbox.room()
            if partition is not None or timestamp is not None or cursor.index < 0:
                self.append(value, key, timestamp, headers, partition)
                return
            try:  # the same in fewer calls: this is what an agent pays per output
                data = None if value is None else self._encode_value(value)
            except SerdeError as error:
                raise _with_key(error, key) from error
            outbox.sender(self.name)(
                None if key is None else self._encode_key(key),
                data,
                cursor.reading.timestamps_ms[cursor.index],
                encode_headers(headers) if headers else (),
            )
            return
        runtime = self._cell.get(f"sending to topic {self.name}")
        await runtime.know_topic(self.name)
        timestamp_ms = self._time_ms(timestamp, None)
        await runtime.outbox.send(self.name, partition, *self._encoded(key, value), timestamp_ms, _encoded(headers))

    def append(
        self,
        value: V | None,
        key: K | None = None,
        timestamp: datetime | float | None = None,
        headers: Headers = (),
        partition: int | None = None,
    ) -> None:
        """`send` without waiting for anything: inside an agent the same, elsewhere nobody says whether it arrived."""
        cursor = current.get(None)
        timestamp_ms = self._time_ms(timestamp, cursor)
        outbox: Outbox | Outside
        outbox = self._cell.get(f"sending to topic {self.name}").outbox if cursor is None else cursor.lane.outbox
        outbox.append(self.name, partition, *self._encoded(key, value), timestamp_ms, _encoded(headers))

    def _encoded(self, key: K | None, value: V | None) -> tuple[bytes | None, bytes | None]:
        try:
            data = None if value is None else self._encode_value(value)
        except SerdeError as error:
            raise _with_key(error, key) from error
        return None if key is None else self._encode_key(key), data

    def _time_ms(self, timestamp: datetime | float | None, cursor: Cursor | None) -> int:
        if timestamp is not None:
            return to_timestamp_ms(timestamp)
        if cursor is not None and cursor.has_event:
            return cursor.timestamp_ms
        return self._cell.get(f"sending to topic {self.name}").wall_ms()

    def lane_topic(self) -> LaneTopic:
        """How lanes read this topic."""
        return LaneTopic(self.name, self.reader, self.key_serde.decode)

    def same_as(self, other: Topic[Any, Any]) -> bool:
        """Whether both declare the same thing."""
        return (
            self.key_serde.name == other.key_serde.name
            and self.value_serde.type == other.value_serde.type
            and self.format == other.format
            and self.partitions == other.partitions
            and self.configs == other.configs
        )

    def _types(self) -> tuple[K, V]:
        raise AssertionError("exists for type checkers only")


def _with_key(error: SerdeError, key: object) -> SerdeError:
    """Which value of many it was."""
    return error if key is None else SerdeError(f"{error} (the record's key: {key!r})")


def check_partitions(partitions: Any, what: str) -> int | None:
    if partitions is None:
        return None
    if not isinstance(partitions, int) or isinstance(partitions, bool) or partitions < 1:
        raise UserError(f"{what}: partitions={partitions!r} has to be a whole number from 1 on")
    return partitions


def _encoded(headers: Headers) -> Sequence[tuple[str, bytes | None]]:
    return encode_headers(headers) if headers else ()


def encode_headers(headers: Headers) -> list[tuple[str, bytes | None]]:
    """Headers as the log takes them. Raises UserError: neither bytes nor str."""
    pairs: Iterable[tuple[Any, Any]] = headers.items() if isinstance(headers, Mapping) else headers
    encoded: list[tuple[str, bytes | None]] = []
    for name, value in pairs:
        if isinstance(value, str):
            value = value.encode()
        if not isinstance(name, str) or not isinstance(value, bytes | None):
            raise UserError(f"header {name!r}: {value!r}: names are str, values bytes or str")
        encoded.append((name, value))
    return encoded


def _check_owner(by: Selector, value: Any, topic: str) -> None:
    """A field reference has to be a field of the topic's own values."""
    if by.owner is not None and isinstance(value, type) and not issubclass(value, by.owner):
        raise UserError(
            f"topic {topic}: timestamp={by.owner.__name__}.{by.name} is a field of {by.owner.__name__}, and the "
            f"topic's values are "
            f"{value.__name__}"
        )
