"""Three controllers over sockets and files: elections, replication, restarts, snapshots, voters that come and go."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamlog.broker.config import load_config
from streamlog.broker.controller_node import start_controller
from streamlog.broker.raft.messages import RemoveVoterRequest
from streamlog.env import real_env
from streamlog.errors import UserError
from streamlog.wire.error_codes import ErrorCode, KafkaError
from streamlog.wire.internal.quorum_state import decode_quorum_state
from tests.broker.raft.controllers import Controllers, controllers, free_ports


def images(found: Controllers) -> list[object]:
    return [(node.controller.image.configs, node.controller.image.features) for node in found.nodes.values()]


def all_equal(found: Controllers) -> bool:
    first, *others = images(found)
    return all(other == first for other in others)


async def test_what_the_leader_writes_is_everywhere(tmp_path: Path) -> None:
    """Committed on the leader, and then folded by everybody."""
    async with controllers(tmp_path) as found:
        await found.start()
        await found.write("a", times=5)
        await found.agreed()
        assert all_equal(found)
        assert "test.a.4" in str(images(found)[0])


async def test_followers_do_not_decide(tmp_path: Path) -> None:
    """They say that another node is the active controller."""
    async with controllers(tmp_path) as found:
        await found.start()
        leader = await found.leader()
        follower = next(node for node in found.nodes.values() if node is not leader)
        with pytest.raises(KafkaError) as refused:
            await follower.controller.write_records([])
        assert refused.value.code is ErrorCode.NOT_CONTROLLER


@pytest.mark.parametrize("clean", [True, False])
async def test_another_leads_when_the_leader_is_gone(tmp_path: Path, clean: bool) -> None:
    """Nothing that was committed is missing, and the old one comes back as a follower."""
    async with controllers(tmp_path) as found:
        await found.start()
        for value in ("a", "b", "c"):
            await found.write(value)
            leader = await found.leader()
            await found.stop(leader.node_id, clean=clean)
            await found.write(f"after-{value}")
            await found.start(leader.node_id)
        await found.agreed()
        assert all_equal(found)
        assert all(f"test.{name}.0" in str(images(found)[0]) for name in ("a", "b", "c", "after-a", "after-c"))


async def test_all_of_them_restart(tmp_path: Path) -> None:
    """The files have everything, the epoch too."""
    async with controllers(tmp_path) as found:
        await found.start()
        await found.write("a", times=3)
        epoch = (await found.leader()).quorum.epoch
        for number in (1, 2, 3):
            await found.stop(number, clean=number == 2)
        await found.start()
        leader = await found.leader()
        await found.agreed()
        assert leader.quorum.epoch > epoch
        assert "test.a.2" in str(images(found)[0])
        state, version = decode_quorum_state((tmp_path / "1" / "__cluster_metadata-0" / "quorum-state").read_bytes())
        assert (state.leader_epoch, state.leader_id, version) == (leader.quorum.epoch, leader.node_id, 1)


async def test_who_was_away_for_long_gets_the_snapshot(tmp_path: Path) -> None:
    """The log it would need is gone on the leader."""
    async with controllers(tmp_path, metadata_log_max_record_bytes_between_snapshots="2000") as found:
        await found.start()
        leader = await found.leader()
        away = next(number for number in found.nodes if number != leader.node_id)
        await found.stop(away)
        await found.write("x" * 100, times=60)
        leader = await found.leader()
        assert leader.quorum.log.start_offset > 0
        await found.start(away)
        await found.agreed()
        assert all_equal(found)
        assert found.nodes[away].quorum.log.start_offset > 0
        assert sorted((tmp_path / str(away) / "__cluster_metadata-0").glob("*.part")) == []


async def test_a_controller_joins_by_itself_and_is_removed_again(tmp_path: Path) -> None:
    """controller.quorum.auto.join.enable; then RemoveRaftVoter."""
    async with controllers(tmp_path, count=4, voters=3) as found:
        await found.start(1, 2, 3)
        await found.write("a")
        await found.start(4, controller_quorum_auto_join_enable="true")
        await found.until(lambda: all(len(node.quorum.core.voters) == 4 for node in found.nodes.values()))
        await found.stop(4)
        leader = await found.leader()
        voter = leader.quorum.core.voters.get(4)
        assert voter is not None
        await leader.quorum.ask(RemoveVoterRequest(voter.key))
        await found.until(lambda: all(len(node.quorum.core.voters) == 3 for node in found.nodes.values()))


async def test_a_voter_that_listens_elsewhere_tells_the_leader(tmp_path: Path) -> None:
    """UpdateRaftVoter: the log then says where it is, and everybody finds it there."""
    async with controllers(tmp_path) as found:
        await found.start()
        leader = await found.leader()
        moved = next(number for number in found.nodes if number != leader.node_id)
        await found.stop(moved)
        (found.ports[moved - 1],) = free_ports(1)
        await found.start(moved)

        def known() -> set[tuple[str, int] | None]:
            voters = [node.quorum.core.voters.get(moved) for node in found.nodes.values()]
            return {None if voter is None else voter.address("CONTROLLER") for voter in voters}

        await found.until(lambda: known() == {("127.0.0.1", found.ports[moved - 1])})


async def test_static_voters_of_the_settings(tmp_path: Path) -> None:
    """controller.quorum.voters: kraft.version 0, no directories, the old quorum-state."""
    found = Controllers(tmp_path, count=3, voters=0)
    voters = ",".join(f"{number}@127.0.0.1:{port}" for number, port in enumerate(found.ports, 1))
    try:
        await found.start(controller_quorum_voters=voters, controller_quorum_bootstrap_servers="")
        await found.write("a")
        await found.agreed()
        leader = await found.leader()
        assert leader.quorum.core.kraft_version == 0
        _, version = decode_quorum_state((tmp_path / "1" / "__cluster_metadata-0" / "quorum-state").read_bytes())
        assert version == 0
        await found.stop(leader.node_id, clean=False)
        await found.write("b")
        await found.agreed()
        assert "test.b.0" in str(images(found)[0])
    finally:
        await found.close()


async def test_a_node_of_another_cluster_stays_outside(tmp_path: Path) -> None:
    """It is refused, and disturbs nobody."""
    async with controllers(tmp_path) as found:
        properties = tmp_path / "3" / "meta.properties"
        properties.write_text(properties.read_text().replace("cluster.id=AAAA", "cluster.id=BBBB"))
        await found.start(1, 2)
        leader = await found.leader()
        epoch = leader.quorum.epoch
        await found.start(3)
        await found.write_on(leader, "a")
        assert found.nodes[3].quorum.committed_end_offset == 0
        assert leader.quorum.epoch == epoch


async def test_peers_want_a_formatted_directory(tmp_path: Path) -> None:
    """Each would make up a cluster of its own otherwise."""
    config, _ = load_config(
        {
            "process.roles": "controller",
            "controller.listener.names": "CONTROLLER",
            "listeners": "CONTROLLER://127.0.0.1:0",
            "controller.quorum.bootstrap.servers": "127.0.0.1:1",
        }
    )
    with pytest.raises(UserError, match="streamlog format"):
        await start_controller(real_env(), config, str(tmp_path / "new"))
