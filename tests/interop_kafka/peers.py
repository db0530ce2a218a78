"""The same bytes to two brokers, and what can be compared of their answers."""

from __future__ import annotations

import socket
import struct
from typing import Any, Self, TypeAlias
from uuid import UUID

from streamlog.wire.frames import decode_response, encode_request
from streamlog.wire.message import Request, Response
from streamlog.wire.messages.create_topics import (
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequest,
    CreateTopicsResponse,
)
from streamlog.wire.messages.metadata import MetadataRequest, MetadataRequestTopic, MetadataResponse
from streamlog.wire.schema import Struct

Seen: TypeAlias = Any
"""Plain lists, dicts and numbers: an answer without what must differ."""

CLOSED = "closed"
SILENT = "silent"
ANSWER_SECONDS_MAX = 8.0

DIFFERS = frozenset(
    {
        "cluster_id",
        "error_message",
        "finalized_features_epoch",
        "host",
        "log_append_time_ms",
        "member_id",
        "batch_index_error_message",
        "leader",
        "port",
        "producer_id",
        "session_id",
        "throttle_time_ms",
        "topic_id",
        "controller_id",
    }
)
"""Fields that differ between any two clusters, and texts for people."""


class Peer:
    """A broker at an address."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        host, _, port = address.rpartition(":")
        self._address = (host, int(port))

    def connect(self) -> Wire:
        return Wire(socket.create_connection(self._address, timeout=ANSWER_SECONDS_MAX))

    def ask(self, request: Request, version: int, response: type[Response]) -> Response:
        """One request on a connection of its own."""
        with self.connect() as wire:
            return wire.ask(request, version, response)

    def frame(self, body: bytes) -> Seen:
        """What becomes of a connection after this frame: an answer's bytes, CLOSED or SILENT."""
        return self.raw(struct.pack(">i", len(body)) + body)

    def raw(self, data: bytes) -> Seen:
        with self.connect() as wire:
            wire.send(data)
            return wire.outcome()

    def make_topic(self, name: str, partitions: int = 1, **configs: str) -> UUID:
        """A topic; its id."""
        wanted = [CreatableTopicConfig(name=key.replace("_", "."), value=value) for key, value in configs.items()]
        topic = CreatableTopic(name=name, num_partitions=partitions, replication_factor=1, configs=wanted)
        made = self.ask(CreateTopicsRequest(topics=[topic]), 7, CreateTopicsResponse)
        assert isinstance(made, CreateTopicsResponse)
        assert made.topics[0].error_code == 0, made
        for _ in range(200):  # Kafka answers before every part of it knows
            known = self.ask(MetadataRequest(topics=[MetadataRequestTopic(name=name)]), 12, MetadataResponse)
            assert isinstance(known, MetadataResponse)
            if not known.topics[0].error_code and all(not p.error_code for p in known.topics[0].partitions):
                break
        return made.topics[0].topic_id


class Wire:
    """A connection."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._peer.close()

    def send(self, data: bytes) -> None:
        self._peer.sendall(data)

    def ask(self, request: Request, version: int, response: type[Response]) -> Response:
        self.send(encode_request(request, version, 7, "test"))
        frame = self.read_frame()
        assert isinstance(frame, bytes), f"{type(request).__name__} v{version}: {frame}"
        correlation_id, answer = decode_response(response, version, frame)
        assert correlation_id == 7
        return answer

    def outcome(self) -> Seen:
        frame = self.read_frame()
        return frame.hex() if isinstance(frame, bytes) else frame

    def read_frame(self) -> bytes | str:
        try:
            head = self._read(4)
            return self._read(struct.unpack(">i", head)[0])
        except TimeoutError:
            return SILENT
        except ConnectionError:
            return CLOSED

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._peer.recv(size - len(data))
            if not more:
                raise ConnectionResetError
            data += more
        return data


def comparable(answer: object) -> Seen:
    """An answer as plain values, without the fields that must differ."""
    if isinstance(answer, Struct):
        fields = {name: getattr(answer, name) for name in type(answer).__struct_fields__}
        if fields.get("aborted_transactions") == []:
            fields["aborted_transactions"] = None  # Kafka itself says both for none
        return {name: comparable(value) for name, value in fields.items() if name not in DIFFERS}
    if isinstance(answer, list):
        return [comparable(value) for value in answer]
    if isinstance(answer, bytes | bytearray | memoryview):
        return len(answer)
    return answer


def differences(ours: Seen, theirs: Seen, path: str = "") -> list[str]:
    """Where two observations part, one line each."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys = [*ours, *(key for key in theirs if key not in ours)]
        return [
            line for key in keys for line in differences(ours.get(key), theirs.get(key), f"{path}.{key}".strip("."))
        ]
    if isinstance(ours, list | tuple) and isinstance(theirs, list | tuple) and len(ours) == len(theirs):
        pairs = enumerate(zip(ours, theirs, strict=True))
        return [line for number, (a, b) in pairs for line in differences(a, b, f"{path}[{number}]")]
    return [] if ours == theirs else [f"{path}: ours {ours!r}, Kafka's {theirs!r}"]
