"""A node that follows a controller of Apache Kafka may meet records that mean nothing to it: it ends and says why."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import UUID

import pytest

from streamlog.broker.config import load_config
from streamlog.broker.node import Node, start_node
from streamlog.errors import EnvironmentFailure
from streamlog.wire.internal.framing import MetadataRecord, encode_metadata_record
from streamlog.wire.internal.metadata import (
    AccessControlEntryRecord,
    ClientQuotaRecord,
    DelegationTokenRecord,
    EntityData,
    UserScramCredentialRecord,
)
from tests.broker.nodes import BROKER, CONTROLLER, Nodes, nodes

FOREIGN: list[tuple[MetadataRecord, str]] = [
    (
        AccessControlEntryRecord(
            id=UUID(int=7), resource_type=2, resource_name="t", pattern_type=3, principal="User:a", host="*",
            operation=3, permission_type=3,
        ),
        "ACLs",
    ),
    (ClientQuotaRecord(entity=[EntityData("user", "a")], key="producer_byte_rate", value=1e6), "client quotas"),
    (
        UserScramCredentialRecord(
            name="a", mechanism=1, salt=b"s", stored_key=b"k", server_key=b"v", iterations=4096
        ),
        "SCRAM credentials",
    ),
    (
        DelegationTokenRecord(
            owner="User:a", requester="User:a", renewers=[], issue_timestamp=1, max_timestamp=2,
            expiration_timestamp=2, token_id="t",
        ),
        "delegation tokens",
    ),
]  # fmt: skip


async def broker_of(found: Nodes, failures: list[BaseException]) -> Node:
    config, _ = load_config(found.values(11))
    return await start_node(found.env, config, found.directory(11), on_failure=failures.append)


@pytest.mark.parametrize(("record", "what"), FOREIGN, ids=[what for _, what in FOREIGN])
async def test_a_running_broker_that_meets_one_ends_with_what_it_is(
    tmp_path: Path, record: MetadataRecord, what: str
) -> None:
    """One message, with what to do. To go on without them would be to serve what an ACL forbids."""
    async with nodes(tmp_path, {1: CONTROLLER, 11: BROKER}) as found:
        await found.start(1)
        failures: list[BaseException] = []
        node = await broker_of(found, failures)
        found.controllers[1].quorum.append([encode_metadata_record(record, 0)], 0)
        await found.until(lambda: bool(failures))
        await node.close()
        assert isinstance(failures[0], EnvironmentFailure)
        assert f"{what} ({type(record).__name__})" in str(failures[0])


async def test_a_broker_that_starts_into_them_says_the_same(tmp_path: Path) -> None:
    """At every start, instead of waiting for metadata that it will never have read."""
    async with nodes(tmp_path, {1: CONTROLLER, 11: BROKER}) as found:
        await found.start(1)
        found.controllers[1].quorum.append([encode_metadata_record(FOREIGN[0][0], 0)], 0)
        for _ in range(2):
            with pytest.raises(EnvironmentFailure, match="ACLs"):
                await asyncio.wait_for(broker_of(found, []), 20)
