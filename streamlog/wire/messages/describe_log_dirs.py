"""DescribeLogDirs (API 35): a broker's directories and the replicas in them (KIP-113).

Versions: 2 is flexible; 3 answers an error of the whole request; 4 the volume's size (KIP-827); 5 whether a directory
is cordoned (KIP-1066).
"""

from __future__ import annotations

from typing import Annotated

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import Int16, Int32, Int64, Struct, since


class DescribableLogDirTopic(Struct):
    topic: str = ""
    partitions: list[Int32] = []


class DescribeLogDirsRequest(Request):
    """`topics` None asks for all."""

    api_key = 35
    min_version = 1
    max_version = 5
    flexible_since = 2

    topics: list[DescribableLogDirTopic] | None = []


class DescribeLogDirsPartition(Struct):
    partition_index: Int32 = 0
    partition_size: Int64 = 0
    offset_lag: Int64 = 0
    is_future_key: bool = False


class DescribeLogDirsTopic(Struct):
    name: str = ""
    partitions: list[DescribeLogDirsPartition] = []


class DescribeLogDirsResult(Struct):
    error_code: Int16 = 0
    log_dir: str = ""
    topics: list[DescribeLogDirsTopic] = []
    total_bytes: Annotated[Int64, since(4, ignorable=True)] = -1
    usable_bytes: Annotated[Int64, since(4, ignorable=True)] = -1
    is_cordoned: Annotated[bool, since(5, ignorable=True)] = False


class DescribeLogDirsResponse(Response):
    """Directories. Sizes in bytes, -1 when unknown."""

    api_key = 35
    min_version = 1
    max_version = 5
    flexible_since = 2

    throttle_time_ms: Int32 = 0
    error_code: Annotated[Int16, since(3, ignorable=True)] = 0
    results: list[DescribeLogDirsResult] = []
