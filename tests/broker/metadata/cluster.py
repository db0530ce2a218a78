"""A controller's image with brokers in it, and what a decision does to it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import TypeVar
from uuid import UUID

from streamlog.broker.metadata.decision import ControllerSettings, Decision
from streamlog.broker.metadata.image import BrokerRegistration, MetadataImage
from streamlog.broker.metadata.records import encode_record
from streamlog.broker.metadata.registration import register_broker, unfence_broker
from streamlog.broker.metadata.topics import create_topics
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages.create_topics import CreatableTopic, CreateTopicsRequest, CreateTopicsResponse

A = TypeVar("A")


class Cluster:
    """Decides and applies, as the controller does, without a log."""

    def __init__(self, brokers: int = 1, settings: ControllerSettings | None = None) -> None:
        self.image = MetadataImage()
        self.settings = settings or ControllerSettings()
        self.next_offset = 0
        self.log: list[bytes] = []
        """Every record as the bytes the metadata log would hold."""
        self._uuids = count(100)
        for number in range(1, brokers + 1):
            self.register(number)

    def new_uuid(self) -> UUID:
        return UUID(int=next(self._uuids))

    def take(self, decide: Callable[[MetadataImage], Decision[A]]) -> A:
        decision = decide(self.image)
        for record in decision.records:
            self.log.append(encode_record(record))
            self.image.apply(record, self.next_offset)
            self.next_offset += 1
        return decision.response

    def register(self, number: int, *, unfence: bool = True) -> None:
        broker = BrokerRegistration(
            id=number,
            epoch=-1,
            incarnation_id=self.new_uuid(),
            endpoints=(),
            features=(),
            rack=None,
            fenced=True,
            in_controlled_shutdown=False,
            directories=(UUID(int=number),),
        )
        self.take(lambda image: register_broker(image, broker, self.next_offset))
        if unfence:
            self.take(lambda image: unfence_broker(image, number, stopped_cleanly=True))

    def create(self, *topics: CreatableTopic, validate_only: bool = False) -> CreateTopicsResponse:
        request = CreateTopicsRequest(topics=list(topics), validate_only=validate_only)
        return self.take(lambda image: create_topics(image, self.settings, request, self.new_uuid))

    def create_codes(self, *topics: CreatableTopic) -> list[ErrorCode]:
        return [ErrorCode.of(result.error_code) for result in self.create(*topics).topics]


def topic(name: str, partitions: int = 1, replicas: int = 1) -> CreatableTopic:
    return CreatableTopic(name=name, num_partitions=partitions, replication_factor=replicas)
