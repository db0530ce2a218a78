"""Every API that is advertised answers every version that is advertised, and nothing else is served."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from streamlog.broker.api.serve import SERVED
from streamlog.wire.apis import API_TABLE, ApiKey
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages.api_versions import ApiVersionsRequest, ApiVersionsResponse
from tests.broker.api.every_request import REFUSED, TOPIC, Situation, error_codes, mentions
from tests.broker.running import client_of, make_topic, running_node


@pytest.mark.parametrize("key", [ApiKey(key) for key in SERVED], ids=lambda key: key.name)
async def test_every_version_of_an_api_does_what_it_is_asked(tmp_path: Path, key: ApiKey) -> None:
    """The lowest, the highest and all between: no error but those that one node has to say, and what it has to."""
    service = SERVED[key]
    async with running_node(tmp_path) as node, client_of(node) as client:
        await make_topic(client, TOPIC)
        versions = range(service.min_version, service.max_version + 1)
        if key is ApiKey.DELETE_TOPICS:
            for version in versions:
                await make_topic(client, f"old-{version}")
        image = node.broker.image
        situation = Situation(client, image.topics[TOPIC].id, node.broker.cluster_id)
        await situation.prepare()
        for version in versions:
            answer = await situation.ask(key, version, API_TABLE[key].response)
            assert isinstance(answer, API_TABLE[key].response)
            codes = {ErrorCode.of(code) for code in error_codes(answer)}
            assert codes <= REFUSED.get(key, {ErrorCode.NONE}), f"version {version}: {answer}"
            assert mentions(key, version) in repr(answer), f"version {version}"


@pytest.mark.parametrize("key", [ApiKey(key) for key in SERVED if key != ApiKey.API_VERSIONS], ids=lambda key: key.name)
async def test_a_version_outside_the_range_closes_the_connection(tmp_path: Path, key: ApiKey) -> None:
    """Row 3; Produce 0 to 2 too, although they are advertised (KAFKA-18659)."""
    service = SERVED[key]
    versions = [service.max_version + 1, 0x7FFF]
    if service.min_version > 0:
        versions.append(service.min_version - 1)
    async with running_node(tmp_path) as node:
        for version in versions:
            async with client_of(node) as client:
                header = key.to_bytes(2, "big") + version.to_bytes(2, "big") + bytes(4) + b"\xff\xff\x00"
                client.send_frame(header + bytes(40))
                assert await client.is_closed()


@pytest.mark.parametrize("key", [-1, 4, 5, 6, 7, 999, 0x7FFF])
async def test_an_api_that_does_not_exist_closes_the_connection(tmp_path: Path, key: int) -> None:
    """Row 3: unknown and negative keys, and APIs between brokers that no client calls."""
    async with running_node(tmp_path) as node, client_of(node) as client:
        client.send_frame(key.to_bytes(2, "big", signed=True) + bytes(30))
        assert await client.is_closed()


@pytest.mark.parametrize("version", [-1, 5, 100, 0x7FFF])
async def test_an_unknown_version_of_api_versions_is_answered_in_version_0(tmp_path: Path, version: int) -> None:
    """Row 4: clients step down by this (KIP-511)."""
    async with running_node(tmp_path) as node, client_of(node) as client:
        header = b"\x00\x12" + version.to_bytes(2, "big", signed=True) + (7).to_bytes(4, "big")
        client.send_frame(header + b"\x00\x01x\x00" + b"\x02a\x02b\x00")
        answer = await client.frame()
        response = ApiVersionsResponse.decode(answer, 0, 4)
        assert answer[:4] == (7).to_bytes(4, "big")
        assert response.error_code == 35
        assert [(api.api_key, api.min_version, api.max_version) for api in response.api_keys] == [(18, 0, 4)]


@pytest.mark.parametrize(
    ("name", "version"),
    [("", "1.0"), ("bad name", "1.0"), ("-a", "1.0"), ("a", ""), ("a", "1.0\n"), ("a.", "1"), ("é", "1")],
)
async def test_a_client_that_names_its_software_badly_is_told_so(tmp_path: Path, name: str, version: str) -> None:
    """Row 5: the names end up in logs."""
    async with running_node(tmp_path) as node, client_of(node) as client:
        request = ApiVersionsRequest(client_software_name=name, client_software_version=version)
        answer = await client.ask(request, 3, ApiVersionsResponse)
        assert isinstance(answer, ApiVersionsResponse)
        assert answer.error_code == 42


async def test_api_versions_advertises_what_is_served(tmp_path: Path) -> None:
    """No more and no less; Produce from 0 for old librdkafka."""
    async with running_node(tmp_path) as node, client_of(node) as client:
        request = ApiVersionsRequest(client_software_name="test", client_software_version="1.0")
        answer = await client.ask(request, 4, ApiVersionsResponse)
        assert isinstance(answer, ApiVersionsResponse)
        advertised = {api.api_key: (api.min_version, api.max_version) for api in answer.api_keys}
        expected = {key: (service.min_version, service.max_version) for key, service in SERVED.items()}
        expected[ApiKey.PRODUCE] = (0, 13)
        assert advertised == expected
        assert advertised[ApiKey.INIT_PRODUCER_ID] == (0, 5)
        levels = {feature.name: feature.max_version_level for feature in answer.finalized_features}
        assert levels == {"metadata.version": 30, "eligible.leader.replicas.version": 1, "kraft.version": 1}


async def test_bodies_cut_anywhere_close_the_connection(tmp_path: Path) -> None:
    """Row 6: a truncated request is no request; the broker lives on."""
    async with running_node(tmp_path) as node:
        async with client_of(node) as client:
            situation = Situation(client, UUID(int=1), "")
        for key in (ApiKey.METADATA, ApiKey.FETCH, ApiKey.PRODUCE, ApiKey.CREATE_TOPICS):
            service = SERVED[key]
            version = service.max_version
            header = key.to_bytes(2, "big") + version.to_bytes(2, "big") + bytes(4) + b"\xff\xff\x00"
            body = situation.request(key, version).encode(version)
            for cut in range(0, len(body) - 1, 7):
                async with client_of(node) as client:
                    client.send_frame(header + body[:cut])
                    assert await client.is_closed()
        async with client_of(node) as client:
            await make_topic(client, "still-works")
