"""The same bytes to two brokers, and what can be compared of their answers."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from typing import Any, Self, TypeAlias
from uuid import UUID

from streamlog.wire.apis import API_TABLE
from streamlog.wire.frames import decode_response, encode_request
from streamlog.wire.message import Request, Response
from streamlog.wire.messages.create_topics import (
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequest,
    CreateTopicsResponse,
)
from streamlog.wire.messages.describe_groups import DescribeGroupsRequest, DescribeGroupsResponse
from streamlog.wire.messages.find_coordinator import FindCoordinatorRequest, FindCoordinatorResponse
from streamlog.wire.messages.init_producer_id import InitProducerIdRequest
from streamlog.wire.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopic,
)
from streamlog.wire.messages.metadata import (
    MetadataRequest,
    MetadataRequestTopic,
    MetadataResponse,
    MetadataResponseTopic,
)
from streamlog.wire.schema import Struct

Seen: TypeAlias = Any
"""Plain lists, dicts and numbers: an answer without what must differ."""

UNKNOWN_TOPIC = 3
CLOSED = "closed"
SILENT = "silent"
ANSWER_SECONDS_MAX = 15.0
READY_SECONDS_MAX = 30.0

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

    def see(self, request: Request, version: int) -> Seen:
        """What can be compared of the answer to one request, CLOSED or SILENT."""
        with self.connect() as wire:
            return wire.see(request, version)

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
        self.wait_for_topic(name)  # Kafka answers before every part of it knows
        return made.topics[0].topic_id

    def wait_for_topic(self, name: str) -> int:
        """Return how many partitions a topic has once all of them are led."""
        for topic in self._looks(name):
            if not topic.error_code and all(not one.error_code for one in topic.partitions):
                count = len(topic.partitions)
                # Metadata knows a leader before the leader knows that it is one.
                asked = ListOffsetsTopic(name, [ListOffsetsPartition(index, timestamp=-1) for index in range(count)])
                found = self.ask(ListOffsetsRequest(-1, topics=[asked]), 5, ListOffsetsResponse)
                assert isinstance(found, ListOffsetsResponse)
                if not any(one.error_code for one in found.topics[0].partitions):
                    return count
        raise AssertionError(f"{name} is not there")

    def wait_until_gone(self, name: str) -> None:
        """Return when nobody knows the topic any more."""
        for topic in self._looks(name):
            if topic.error_code == UNKNOWN_TOPIC:
                return
        raise AssertionError(f"{name} is still there")

    def _looks(self, name: str) -> Iterator[MetadataResponseTopic]:
        """What metadata says about a topic, again and again while there is patience."""
        deadline = time.monotonic() + READY_SECONDS_MAX
        asked = MetadataRequest(topics=[MetadataRequestTopic(name=name)], allow_auto_topic_creation=False)
        while time.monotonic() < deadline:
            known = self.ask(asked, 12, MetadataResponse)
            assert isinstance(known, MetadataResponse)
            yield known.topics[0]
            time.sleep(0.01)

    def wait_for_producer_ids(self) -> None:
        """Return when there are some: Kafka fetches its first block of ids meanwhile."""
        deadline = time.monotonic() + READY_SECONDS_MAX
        while time.monotonic() < deadline:
            if self.see(InitProducerIdRequest(None, 1000), 4)["error_code"] == 0:
                return
            time.sleep(0.05)
        raise AssertionError("no producer ids")

    def wait_for_coordinator(self, group: str) -> None:
        """Return when the group's coordinator is there: Kafka makes its topic meanwhile."""
        deadline = time.monotonic() + READY_SECONDS_MAX
        while time.monotonic() < deadline:
            asked = FindCoordinatorRequest(key_type=0, coordinator_keys=[group])
            answer = self.ask(asked, 4, FindCoordinatorResponse)
            assert isinstance(answer, FindCoordinatorResponse)
            if answer.coordinators[0].error_code == 0:
                probe = self.ask(DescribeGroupsRequest([group]), 5, DescribeGroupsResponse)
                assert isinstance(probe, DescribeGroupsResponse)
                if probe.groups[0].error_code not in (14, 15, 16):
                    return
            time.sleep(0.05)
        raise AssertionError("no coordinator")


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

    def see(self, request: Request, version: int) -> Seen:
        """What can be compared of the answer, CLOSED or SILENT."""
        self.send(encode_request(request, version, 7, "test"))
        frame = self.read_frame()
        if isinstance(frame, str):
            return frame
        return comparable(decode_response(API_TABLE[request.api_key].response, version, frame)[1])

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


def by_name(answers: Seen) -> Seen:
    """Answers about topics, in an order: Kafka keeps some of them in hash maps."""
    return sorted(answers, key=lambda one: str(one["name"]))


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
