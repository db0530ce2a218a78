"""Authorized operations as responses carry them (KIP-430): bit n for AclOperation n.

There are no ACLs yet, so everybody may do whatever a resource of that kind knows.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class AclOperation(IntEnum):
    """Kafka's numbers."""

    READ = 3
    WRITE = 4
    CREATE = 5
    DELETE = 6
    ALTER = 7
    DESCRIBE = 8
    CLUSTER_ACTION = 9
    DESCRIBE_CONFIGS = 10
    ALTER_CONFIGS = 11
    IDEMPOTENT_WRITE = 12


def _bits(*operations: AclOperation) -> int:
    return sum(1 << operation for operation in operations)


_OP = AclOperation

NOT_ASKED: Final = -0x8000_0000
"""What stands in a response whose request did not ask."""

TOPIC_OPERATIONS: Final = _bits(
    _OP.READ, _OP.WRITE, _OP.CREATE, _OP.DELETE, _OP.ALTER, _OP.DESCRIBE, _OP.DESCRIBE_CONFIGS, _OP.ALTER_CONFIGS
)
GROUP_OPERATIONS: Final = _bits(_OP.READ, _OP.DELETE, _OP.DESCRIBE, _OP.DESCRIBE_CONFIGS, _OP.ALTER_CONFIGS)
CLUSTER_OPERATIONS: Final = _bits(
    _OP.CREATE,
    _OP.ALTER,
    _OP.DESCRIBE,
    _OP.CLUSTER_ACTION,
    _OP.DESCRIBE_CONFIGS,
    _OP.ALTER_CONFIGS,
    _OP.IDEMPOTENT_WRITE,
)
