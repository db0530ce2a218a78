"""Several nodes as one cluster: combined and separate roles, who decides, and what every broker can be asked."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import UUID

import pytest

from streamlog.broker.config import load_config
from streamlog.broker.format import format_directory
from streamlog.broker.lifecycle import BrokerState
from streamlog.broker.metadata.image import RESOURCE_BROKER, MetadataImage
from streamlog.broker.node import FAREWELL_MS, Node, start_node
from streamlog.broker.peer import PeerGone, connect
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.frames import decode_response, encode_request
from streamlog.wire.message import Request
from streamlog.wire.messages.broker_heartbeat import BrokerHeartbeatRequest
from streamlog.wire.messages.create_topics import CreatableTopic, CreateTopicsRequest, CreateTopicsResponse
from streamlog.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicsResponse
from streamlog.wire.messages.describe_cluster import DescribeClusterRequest, DescribeClusterResponse
from streamlog.wire.messages.envelope import EnvelopeRequest, EnvelopeResponse
from streamlog.wire.messages.init_producer_id import InitProducerIdRequest, InitProducerIdResponse
from streamlog.wire.messages.metadata import MetadataRequest, MetadataRequestTopic, MetadataResponse
from streamlog.wire.messages.produce import ProduceResponse
from streamlog.wire.messages.unregister_broker import UnregisterBrokerRequest, UnregisterBrokerResponse
from streamlog.wire.uuids import uuid_to_text
from tests.broker.batches import new_batch, produce_request
from tests.broker.nodes import BROKER, CLUSTER_ID, COMBINED, CONTROLLER, Nodes, combined, nodes
from tests.broker.running import client_of, make_topic

SEPARATE = {1: CONTROLLER, 2: CONTROLLER, 3: CONTROLLER, 11: BROKER, 12: BROKER}


def image_of(node: Node) -> tuple[object, ...]:
    image: MetadataImage = node.broker.image
    return image.topics, image.configs, image.brokers, image.features, image.producer_ids


async def agree(found: Nodes) -> None:
    await found.until(lambda: len({node.broker.image.applied_offset for node in found.brokers.values()}) == 1)
    first, *others = (image_of(node) for node in found.brokers.values())
    assert all(other == first for other in others)


async def metadata_of(node: Node, *topics: str) -> MetadataResponse:
    async with client_of(node) as client:
        request = MetadataRequest(topics=[MetadataRequestTopic(name=name) for name in topics])
        response = await client.ask(request, 12, MetadataResponse)
        assert isinstance(response, MetadataResponse)
        return response


@pytest.mark.parametrize("roles", [combined(), SEPARATE], ids=["combined", "separate"])
async def test_any_broker_creates_topics_and_all_know_them(tmp_path: Path, roles: dict[int, str]) -> None:
    """Whichever is asked, the active controller decides; every broker names all brokers and partitions."""
    async with nodes(tmp_path, roles) as found:
        await found.start()
        for number, node in found.brokers.items():
            async with client_of(node) as client:
                await make_topic(client, f"t{number}", partitions=6)
            response = await metadata_of(node, f"t{number}")
            assert len(response.topics[0].partitions) == 6, "who was answered finds its topic at once"
        await agree(found)
        for node in found.brokers.values():
            response = await metadata_of(node, *(f"t{number}" for number in found.brokers))
            assert {(broker.node_id, broker.port) for broker in response.brokers} == {
                (number, other.listening[0].port) for number, other in found.brokers.items()
            }
            assert response.controller_id in found.brokers
            leaders = [partition.leader_id for topic in response.topics for partition in topic.partitions]
            assert set(leaders) == set(found.brokers)
            assert [topic.error_code for topic in response.topics] == [0] * len(found.brokers)


async def test_a_topic_that_a_client_asks_for_is_made_as_its_broker_says(tmp_path: Path) -> None:
    """As in Kafka: num.partitions and default.replication.factor are the broker's where a topic is created on the way,
    and the controllers' where CreateTopics names none."""
    async with nodes(tmp_path, {1: CONTROLLER, 11: BROKER, 12: BROKER}) as found:
        await found.start(1, num_partitions="2")
        await found.start(11, num_partitions="3", default_replication_factor="2")
        await found.start(12)
        shapes: dict[str, tuple[int, int]] = {}
        for number, node in found.brokers.items():
            async with client_of(node) as client:
                wanted = CreatableTopic(name=f"created-{number}", num_partitions=-1, replication_factor=-1)
                created = await client.ask(CreateTopicsRequest(topics=[wanted]), 7, CreateTopicsResponse)
                assert isinstance(created, CreateTopicsResponse)
                shapes["created"] = (created.topics[0].num_partitions, created.topics[0].replication_factor)
            partitions = (await metadata_of(node, f"asked-{number}")).topics[0].partitions
            shapes[f"asked-{number}"] = len(partitions), len(partitions[0].replica_nodes)
    assert shapes == {"created": (2, 1), "asked-11": (3, 2), "asked-12": (1, 1)}


async def test_the_controller_that_clients_are_told_is_the_active_one(tmp_path: Path) -> None:
    """Where clients can reach it; brokers alone name themselves, and ask it."""
    async with nodes(tmp_path, combined()) as found:
        await found.start()
        active = await found.active()
        await agree(found)
        for node in found.brokers.values():
            assert (await metadata_of(node)).controller_id == active
            async with client_of(node) as client:
                described = await client.ask(DescribeClusterRequest(), 1, DescribeClusterResponse)
                assert isinstance(described, DescribeClusterResponse)
                assert described.controller_id == active
                assert len(described.brokers) == 3


@pytest.mark.parametrize("clean", [True, False])
async def test_the_cluster_decides_without_one_of_three(tmp_path: Path, clean: bool) -> None:
    """The active controller's node goes, and comes back with what it has missed."""
    async with nodes(tmp_path, combined()) as found:
        await found.start()
        gone = await found.active()
        await found.stop(gone, clean=clean)
        for number, node in found.brokers.items():
            async with client_of(node) as client:
                await make_topic(client, f"t{number}")
        await found.start(gone)
        await agree(found)
        assert {f"t{number}" for number in found.brokers if number != gone} <= set(
            found.brokers[gone].broker.image.topics
        )


async def test_a_request_under_way_outlives_the_active_controller(tmp_path: Path) -> None:
    """Who asked a broker while there was no controller gets the answer of the next."""
    async with nodes(tmp_path, combined()) as found:
        await found.start()
        gone = await found.active()
        node = next(node for number, node in found.brokers.items() if number != gone)
        async with client_of(node) as client:
            await found.stop(gone, clean=False)
            request = CreateTopicsRequest(topics=[CreatableTopic(name="t", num_partitions=1, replication_factor=1)])
            response = await asyncio.wait_for(client.ask(request, 7, CreateTopicsResponse), 20)
            assert isinstance(response, CreateTopicsResponse)
            assert response.topics[0].error_code == 0


async def test_a_forwarded_request_keeps_its_version(tmp_path: Path) -> None:
    """DeleteTopics names topics differently in older versions."""
    async with nodes(tmp_path, SEPARATE) as found:
        await found.start()
        async with client_of(found.brokers[11]) as client:
            for version in (1, 5):
                await make_topic(client, "t")
                response = await client.ask(DeleteTopicsRequest(topic_names=["t"]), version, DeleteTopicsResponse)
                assert isinstance(response, DeleteTopicsResponse)
                assert [(result.name, result.error_code) for result in response.responses] == [("t", 0)]


async def test_producer_ids_are_unique_in_the_cluster(tmp_path: Path) -> None:
    """Each broker has blocks of its own."""
    async with nodes(tmp_path, combined()) as found:
        await found.start()
        ids: list[int] = []
        for node in found.brokers.values():
            async with client_of(node) as client:
                for _ in range(3):
                    response = await client.ask(InitProducerIdRequest(transactional_id=None), 4, InitProducerIdResponse)
                    assert isinstance(response, InitProducerIdResponse)
                    assert response.error_code == 0
                    ids.append(response.producer_id)
        assert len(set(ids)) == 9


async def test_all_nodes_restart(tmp_path: Path) -> None:
    """As new incarnations with the same metadata."""
    async with nodes(tmp_path, SEPARATE) as found:
        await found.start()
        async with client_of(found.brokers[11]) as client:
            await make_topic(client, "t", partitions=4)
        epochs = {number: node.broker.image.brokers[number].epoch for number, node in found.brokers.items()}
        for number in SEPARATE:
            await found.stop(number, clean=number % 2 == 0)
        await found.start()
        await agree(found)
        for number, node in found.brokers.items():
            assert node.broker.image.brokers[number].epoch > epochs[number]
            assert len(node.broker.image.topics["t"].partitions) == 4


@pytest.mark.parametrize("roles", [combined(), SEPARATE], ids=["combined", "separate"])
async def test_a_dead_broker_is_fenced_long_before_its_session_ends(tmp_path: Path, roles: dict[int, str]) -> None:
    """Its connection to the controller has ended, and nobody listens where it did."""
    async with nodes(tmp_path, roles, broker_session_timeout_ms="60000") as found:
        await found.start()
        active = await found.active()
        gone = next(number for number in found.brokers if number != active)
        await found.stop(gone, clean=False)
        began = asyncio.get_running_loop().time()
        await found.until(lambda: all(node.broker.image.brokers[gone].fenced for node in found.brokers.values()))
        assert asyncio.get_running_loop().time() - began < 5
        await found.start(gone)
        assert not found.brokers[gone].broker.image.brokers[gone].fenced


async def test_the_next_controller_fences_the_broker_that_died_with_the_last(tmp_path: Path) -> None:
    """It asks after everybody when it becomes active."""
    async with nodes(tmp_path, combined(), broker_session_timeout_ms="60000") as found:
        await found.start()
        gone = await found.active()
        await found.stop(gone, clean=False)
        began = asyncio.get_running_loop().time()
        await found.until(lambda: all(node.broker.image.brokers[gone].fenced for node in found.brokers.values()))
        assert asyncio.get_running_loop().time() - began < 5


@pytest.mark.parametrize("roles", [combined(), SEPARATE], ids=["combined", "separate"])
async def test_a_broker_that_is_stopped_leads_nothing_any_more(tmp_path: Path, roles: dict[int, str]) -> None:
    """Everybody knows the new leaders before its process ends; it is back with the same records."""
    async with nodes(tmp_path, roles) as found:
        await found.start()
        first, *others = found.brokers
        async with client_of(found.brokers[first]) as client:
            request = CreateTopicsRequest(topics=[CreatableTopic(name="t", num_partitions=6, replication_factor=2)])
            await client.ask(request, 7, CreateTopicsResponse)
        led = [p for p in found.brokers[first].broker.image.topics["t"].partitions.values() if p.leader == first]
        assert led
        await found.stop(first)
        for number in others:
            image = found.brokers[number].broker.image
            assert image.brokers[first].fenced or image.brokers[first].in_controlled_shutdown
            for partition in image.topics["t"].partitions.values():
                assert partition.leader in others
                assert first not in partition.isr
        await found.start(first)
        await found.until(lambda: not found.brokers[others[0]].broker.image.brokers[first].fenced)


async def test_a_process_that_lost_its_number_ends(tmp_path: Path) -> None:
    """Unregistered by an operator: the cluster does not count on it any more."""
    failures: list[BaseException] = []
    async with nodes(tmp_path, combined(), broker_heartbeat_interval_ms="50") as found:
        await found.start()
        gone = found.brokers[3]
        gone.scope.on_failure = failures.append
        async with client_of(found.brokers[1]) as client:
            answer = await client.ask(UnregisterBrokerRequest(broker_id=3), 0, UnregisterBrokerResponse)
            assert isinstance(answer, UnregisterBrokerResponse)
            assert answer.error_code == 0
        await found.until(lambda: bool(failures))
        assert "unregistered" in str(failures[0])
        assert 3 not in found.brokers[1].broker.image.brokers


async def test_controllers_say_where_they_listen(tmp_path: Path) -> None:
    """Every one of them, as a new incarnation with each start (KIP-919)."""
    async with nodes(tmp_path, SEPARATE) as found:
        await found.start()
        image = found.brokers[11].broker.image

        def known() -> dict[int, int]:
            return {number: record.end_points[0].port for number, record in image.controllers.items()}

        await found.until(lambda: known() == found.controller_ports)
        before = image.controllers[2].incarnation_id
        await found.stop(2)
        await found.start(2)
        await found.until(lambda: image.controllers[2].incarnation_id != before)


async def test_a_broker_that_falls_silent_is_fenced_when_its_session_ends(tmp_path: Path) -> None:
    """Its listener still accepts, so that nobody can say it is dead; heard of again, it is unfenced."""
    async with nodes(tmp_path, combined(), broker_session_timeout_ms="700") as found:
        await found.start()
        active = await found.active()
        silent = next(number for number in found.brokers if number != active)
        overseen = found.brokers[active].broker.image.brokers
        lifecycle = found.brokers[silent].lifecycle.core
        lifecycle.heartbeat_ms = 3_000
        await found.until(lambda: overseen[silent].fenced)
        await found.until(lambda: not overseen[silent].fenced)
        assert lifecycle.state is BrokerState.RUNNING


async def test_leaderships_go_back_to_preferred_replicas(tmp_path: Path) -> None:
    """Some time after a broker is back and in sync, it leads what it led."""
    async with nodes(tmp_path, combined(), leader_imbalance_check_interval_seconds="1") as found:
        await found.start()
        async with client_of(found.brokers[1]) as client:
            request = CreateTopicsRequest(topics=[CreatableTopic(name="t", num_partitions=6, replication_factor=3)])
            answer = await client.ask(request, 7, CreateTopicsResponse)
            assert isinstance(answer, CreateTopicsResponse)
            assert [topic.error_code for topic in answer.topics] == [0]

        def led_by_others() -> bool:
            partitions = found.brokers[1].broker.image.topics["t"].partitions.values()
            return any(partition.leader != partition.replicas[0] for partition in partitions)

        await found.stop(3)
        await found.until(led_by_others)
        await found.start(3)
        await found.until(lambda: not led_by_others())


def enveloped(request: Request, version: int, *, claimed: int | None = None) -> EnvelopeRequest:
    """`claimed`: the version that the header names instead."""
    data = encode_request(request, version, 7, "client")[4:]
    if claimed is not None:
        data = data[:2] + claimed.to_bytes(2, "big") + data[4:]
    return EnvelopeRequest(request_data=data, request_principal=b"", client_host_address=b"\x7f\0\0\1")


async def test_controllers_take_out_of_envelopes_what_clients_may_ask(tmp_path: Path) -> None:
    """The rest is refused, and followers send whoever asks to the leader."""
    async with nodes(tmp_path, {1: CONTROLLER, 2: CONTROLLER}) as found:
        await found.start()
        active = await found.active()
        wanted = CreateTopicsRequest(topics=[CreatableTopic(name="t", num_partitions=1, replication_factor=1)])
        refused = (
            (active, enveloped(BrokerHeartbeatRequest(), 1), ErrorCode.INVALID_REQUEST),
            (active, enveloped(enveloped(wanted, 7), 0), ErrorCode.INVALID_REQUEST),
            (active, enveloped(wanted, 7, claimed=99), ErrorCode.UNSUPPORTED_VERSION),
            (3 - active, enveloped(wanted, 7), ErrorCode.NOT_CONTROLLER),
        )
        for number, envelope, code in refused:
            connection = await connect(found.env, "127.0.0.1", found.controller_ports[number], "test")
            response = await connection.request(envelope)
            assert isinstance(response, EnvelopeResponse)
            assert (response.error_code, response.response_data) == (code, None)
            connection.close()
        connection = await connect(found.env, "127.0.0.1", found.controller_ports[active], "test")
        response = await connection.request(enveloped(wanted, 7))
        assert isinstance(response, EnvelopeResponse)
        correlation_id, answer = decode_response(CreateTopicsResponse, 7, response.response_data or b"")
        assert correlation_id == 7
        assert [topic.error_code for topic in answer.topics] == [ErrorCode.INVALID_REPLICATION_FACTOR], "no brokers"
        connection.close()


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\x13\0\7\0\0\0\1\xff\xff", b"\xff" * 40])
async def test_a_damaged_envelope_costs_its_sender_the_connection(tmp_path: Path, data: bytes) -> None:
    """And nobody else anything."""
    async with nodes(tmp_path, {1: CONTROLLER}) as found:
        await found.start()
        connection = await connect(found.env, "127.0.0.1", found.controller_ports[1], "test")
        with pytest.raises(PeerGone):
            await connection.request(EnvelopeRequest(request_data=data, request_principal=b"", client_host_address=b""))
        other = await connect(found.env, "127.0.0.1", found.controller_ports[1], "test")
        other.close()


async def test_a_new_cluster_has_one_min_isr_whatever_the_properties_files_say(tmp_path: Path) -> None:
    """The first controller's is written down (KIP-966); a broker with another setting goes by that."""
    async with nodes(tmp_path, {1: COMBINED, 11: BROKER}) as found:
        await found.start(1, min_insync_replicas="2")
        await found.start(11, min_insync_replicas="1")
        async with client_of(found.brokers[11]) as client:
            await make_topic(client, "t", partitions=2)
        await agree(found)
        for node in found.brokers.values():
            assert node.broker.image.config(RESOURCE_BROKER, "") == {"min.insync.replicas": "2"}
            assert {partition.log.config.min_insync_replicas for partition in node.broker.partitions} == {2}


async def test_a_node_that_stops_tells_clients_that_others_lead(tmp_path: Path) -> None:
    """Who came back to it for want of better knowledge would meet a connection that is refused."""
    async with nodes(tmp_path, combined()) as found:
        await found.start()
        async with client_of(found.brokers[1]) as client, asyncio.TaskGroup() as group:
            request = CreateTopicsRequest(topics=[CreatableTopic(name="t", num_partitions=6, replication_factor=3)])
            answer = await client.ask(request, 7, CreateTopicsResponse)
            assert isinstance(answer, CreateTopicsResponse)
            assert [one.error_code for one in answer.topics] == [0]
            node = found.brokers[1]

            def leaders() -> set[int]:
                """As node 2 knows them, which learns of the topic in its own time."""
                topic = found.brokers[2].broker.image.topics.get("t")
                return set() if topic is None else {one.leader for one in topic.partitions.values()}

            await found.until(lambda: leaders() == {1, 2, 3})
            group.create_task(found.stop(1))
            await found.until(lambda: leaders() == {2, 3})
            for index in [*range(6), *range(6)]:
                await asyncio.sleep(FAREWELL_MS / 20_000)  # by and by more than half of that time
                answer = await client.ask(produce_request("t", new_batch(b"v"), partition=index), 12, ProduceResponse)
                assert isinstance(answer, ProduceResponse)
                assert answer.responses[0].partition_responses[0].error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
            async with client_of(node):
                pass


async def test_a_second_process_with_a_number_is_told_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Once, however often it asks. It has a directory of its own, so nothing else keeps it from starting."""
    async with nodes(tmp_path, combined()) as found:
        await found.start()
        number = 1 + await found.active() % 3  # not who leads the quorum: it would look for itself there
        directory = str(tmp_path / "second")
        format_directory(found.env, directory, cluster_id=CLUSTER_ID, node_id=number, voters=None)
        config, _ = load_config(found.values(number, process_roles="broker", listeners="PLAINTEXT://127.0.0.1:0"))
        second = asyncio.ensure_future(start_node(found.env, config, directory))
        await found.until(lambda: "DUPLICATE_BROKER_REGISTRATION" in caplog.text)
        await asyncio.sleep(0.5)  # it asks several times more
        assert caplog.text.count("DUPLICATE_BROKER_REGISTRATION") == 1
        second.cancel()
        await asyncio.wait([second])


async def test_a_node_of_another_cluster_is_told_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its own cluster is named, and the controllers that belong to another one."""
    async with nodes(tmp_path, combined()) as found:
        await found.start()
        directory = str(tmp_path / "stranger")
        other = uuid_to_text(UUID(int=12345))
        format_directory(found.env, directory, cluster_id=other, node_id=4, voters=None)
        values = found.values(3, process_roles="broker", listeners="PLAINTEXT://127.0.0.1:0", node_id="4")
        stranger = asyncio.ensure_future(start_node(found.env, load_config(values)[0], directory))
        await found.until(lambda: caplog.text.count("belongs to another cluster") == len(found.controller_ports))
        assert other in caplog.text
        await asyncio.sleep(0.5)
        assert caplog.text.count("belongs to another cluster") == len(found.controller_ports)
        stranger.cancel()
        await asyncio.wait([stranger])
