"""Records of the topic __transaction_state: transactions are their fold (KIP-98).

A key without a value is a tombstone.
"""

from __future__ import annotations

from typing import Annotated

from streamlog.wire.internal.framing import CoordinatorKey, CoordinatorRecords, CoordinatorValue
from streamlog.wire.schema import Int8, Int16, Int32, Int64, Struct, since


class TransactionLogKey(CoordinatorKey):
    record_type = 0

    transactional_id: str = ""


class PartitionsSchema(Struct):
    topic: str = ""
    partition_ids: list[Int32] = []


class TransactionLogValue(CoordinatorValue):
    """One transactional id's producer and transaction.

    Version 1 is flexible, and its tagged fields carry KIP-890's.

    `transaction_status`: 0 empty, 1 ongoing, 2 prepare commit, 3 prepare abort, 4 complete commit, 5 complete
    abort, 6 dead, 7 prepare epoch fence. `transaction_partitions` None: none yet.
    """

    record_type = 0
    max_version = 1
    flexible_since = 1

    producer_id: Int64 = 0
    previous_producer_id: Annotated[Int64, since(1, tag=0)] = -1
    next_producer_id: Annotated[Int64, since(1, tag=1)] = -1
    producer_epoch: Int16 = 0
    next_producer_epoch: Annotated[Int16, since(1, tag=3)] = -1
    transaction_timeout_ms: Int32 = 0
    transaction_status: Int8 = 0
    transaction_partitions: list[PartitionsSchema] | None = []
    transaction_last_update_timestamp_ms: Int64 = 0
    transaction_start_timestamp_ms: Int64 = 0
    client_transaction_version: Annotated[Int16, since(1, tag=2)] = 0


TRANSACTION_RECORDS: CoordinatorRecords = {
    TransactionLogKey.record_type: (TransactionLogKey, TransactionLogValue),
}
