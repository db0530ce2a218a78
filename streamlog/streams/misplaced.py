"""Refuses keys whose rows are on another partition than the task that asks for them.

Kept on each partition that wrote it, a key would have several values; read on another partition than its own, it would
have none, and the table's default would pass for its value. So neither is done. A row that is here answers for itself:
only what is absent is asked about, when it is first used (`TableState`), so it costs nothing where keys repeat.

The default partitioner, which all of ours use, says where a key belongs. Other producers may have chosen in another
way. What shows it is believed: the event's own key is where it is; and where a table that follows a topic has a row of
another partition's key, by our count, nobody here can tell where a missing one would be: that is said once, and a read
finds nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from streamlog.client.partitioner import partition_for_key
from streamlog.errors import UserError
from streamlog.streams.cursor import current
from streamlog.streams.tables import Table

log = logging.getLogger(__name__)

ROWS_ASKED_MAX: Final = 64
"""Rows that are looked at before a read is refused. With two partitions, half of the rows that another partitioner
placed are where ours would have them: that 64 in a row are is no chance."""


class KeyCheck:
    """One table's part on one task."""

    def __init__(self, table: Table[Any, Any], partition: int, partitions: int) -> None:
        self._table, self._partition, self._partitions = table, partition, partitions
        self._foreign = False  # another partitioner chose where the table's rows are

    def on_new_key(self, key: bytes) -> None:
        """A key without a row is about to be written. Raises: UserError."""
        if self._belongs(key):
            return
        raise UserError(
            f"{_who()}wrote key {self._name(key)} to table {self._table.name} on partition {self._partition}, but the "
            f"key belongs to partition {self._home(key)} of {self._partitions}: the events are not keyed by it. Move "
            f"them first: iterate over stream.group_by(<field that is the table's key>)"
        )

    def on_absent_key(self, key: bytes) -> None:
        """A key without a row was looked up. Raises: UserError."""
        cursor = current.get(None)  # as in `_belongs`, in one call less: a table of new keys pays it for each
        if cursor is not None and cursor.index >= 0 and cursor.batch.columns.keys[cursor.index] == key:
            return
        if self._home(key) == self._partition:
            return
        raise UserError(
            f"{_who()}looked up key {self._name(key)} in table {self._table.name} on partition {self._partition}, but "
            f"the key belongs to partition {self._home(key)} of {self._partitions}, and a task has the rows of its own "
            f"partition only. Move the events to them: stream.group_by(<field that is the table's key>); or have all "
            f"rows everywhere: app.GlobalTable; or, outside an agent, read them with streamlog.connect"
        )

    def on_absent_key_beside(self, key: bytes, rows: Callable[[int], list[bytes]]) -> None:
        """The same in a table that follows a topic; `rows` gives keys that it has here. Raises: UserError."""
        if self._foreign or self._belongs(key):
            return
        if all(self._home(row) == self._partition for row in rows(ROWS_ASKED_MAX)):
            self.on_absent_key(key)
        self._foreign = True
        log.warning(
            "table=%s partition=%s: producers of topic %s choose partitions in another way than ours (murmur2 of the "
            "key), so it cannot be told whether a key that is looked up and not found is on another partition",
            self._table.name,
            self._partition,
            self._table.changelog,
        )

    def _belongs(self, key: bytes) -> bool:
        cursor = current.get(None)
        return (cursor is not None and cursor.has_event and cursor.key == key) or self._home(key) == self._partition

    def _home(self, key: bytes) -> int:
        return partition_for_key(key, self._partitions)

    def _name(self, key: bytes) -> str:
        return repr(self._table.key_serde.decode(key))


def _who() -> str:
    cursor = current.get(None)
    return "" if cursor is None else f"agent {cursor.lane.plan.name} "
