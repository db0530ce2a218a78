"""What a partition answers instead of doing what it was asked, with Kafka's error code for the client."""

from __future__ import annotations

from streamlog.wire.error_codes import ErrorCode, KafkaError


class AppendRefused(KafkaError):
    """A batch was not appended."""

    def __init__(self, code: ErrorCode, message: str, record_indexes: tuple[int, ...] = ()) -> None:
        super().__init__(code, message)
        self.record_indexes = record_indexes
        """Which records of the batch are to blame, for the response's record_errors."""


class OffsetOutOfRange(KafkaError):
    """An offset below the log start or beyond the log end."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.OFFSET_OUT_OF_RANGE, message)


class PartitionOffline(KafkaError):
    """The disk failed this partition, or its bytes are damaged. The message names the file."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.KAFKA_STORAGE_ERROR, message)
