"""CreateTopics (API 19): make new topics.

Versions: 4 allows the cluster's defaults for partitions and replicas, -1 (KIP-464); 5 is flexible and answers what
was made (KIP-525); 6 may be throttled, THROTTLING_QUOTA_EXCEEDED (KIP-599); 7 answers topic ids (KIP-516).
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import ZERO_UUID, Int8, Int16, Int32, Struct, since


class CreatableReplicaAssignment(Struct):
    partition_index: Int32 = 0
    broker_ids: list[Int32] = []


class CreatableTopicConfig(Struct):
    name: str = ""
    value: str | None = ""


class CreatableTopic(Struct):
    name: str = ""
    num_partitions: Int32 = 0
    replication_factor: Int16 = 0
    assignments: list[CreatableReplicaAssignment] = []
    configs: list[CreatableTopicConfig] = []


class CreateTopicsRequest(Request):
    """Topics to make: either counts, or `assignments` and -1 for both counts."""

    api_key = 19
    min_version = 2
    max_version = 7
    flexible_since = 5

    topics: list[CreatableTopic] = []
    timeout_ms: Int32 = 60000
    validate_only: bool = False


class CreatableTopicConfigs(Struct):
    name: str = ""
    value: str | None = ""
    read_only: bool = False
    config_source: Int8 = -1
    is_sensitive: bool = False


class CreatableTopicResult(Struct):
    name: str = ""
    topic_id: Annotated[UUID, since(7, ignorable=True)] = ZERO_UUID
    error_code: Int16 = 0
    error_message: str | None = ""
    topic_config_error_code: Annotated[Int16, since(5, tag=0, ignorable=True)] = 0
    num_partitions: Annotated[Int32, since(5, ignorable=True)] = -1
    replication_factor: Annotated[Int16, since(5, ignorable=True)] = -1
    configs: Annotated[list[CreatableTopicConfigs] | None, since(5, ignorable=True)] = []


class CreateTopicsResponse(Response):
    """One result per topic. `configs` None: no permission to see them."""

    api_key = 19
    min_version = 2
    max_version = 7
    flexible_since = 5

    throttle_time_ms: Int32 = 0
    topics: list[CreatableTopicResult] = []
