"""Every way a group request can be wrong, and the code it gets: one row per case, as Kafka 4.3 answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from streamlog.broker.coordinator.group.limits import GroupLimits
from streamlog.broker.coordinator.group.state import GroupState
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages.heartbeat import HeartbeatRequest, HeartbeatResponse
from streamlog.wire.messages.join_group import JoinGroupRequest, JoinGroupResponse
from streamlog.wire.messages.leave_group import LeaveGroupRequest, LeaveGroupResponse
from streamlog.wire.messages.sync_group import SyncGroupResponse
from tests.broker.coordinator.bench import GROUP, SESSION_MS, TOPIC, Bench


@dataclass
class Scene:
    """A bench with a group in some state. `member` and `other` are its members, `generation` its last."""

    bench: Bench
    member: str = ""
    other: str = ""
    generation: int = 0


def nothing() -> Scene:
    return Scene(Bench())


def empty() -> Scene:
    bench = Bench()
    (member,), generation = bench.stable_group(1)
    bench.leave(member)
    return Scene(bench, member, generation=generation + 1)


def stable() -> Scene:
    bench = Bench()
    (member, other), generation = bench.stable_group(2)
    return Scene(bench, member, other, generation)


def preparing() -> Scene:
    scene = stable()
    scene.bench.join(scene.member)
    assert scene.bench.state() is GroupState.PREPARING_REBALANCE
    return scene


def completing() -> Scene:
    scene = stable()
    scene.bench.join(scene.member)
    scene.bench.join(scene.other)
    assert scene.bench.state() is GroupState.COMPLETING_REBALANCE
    return Scene(scene.bench, scene.member, scene.other, scene.generation + 1)


def static() -> Scene:
    bench = Bench()
    token = bench.join(instance="one")
    bench.wait(0)
    generation = bench.settle([token])
    return Scene(bench, bench.reply(token, JoinGroupResponse).member_id, generation=generation)


def full() -> Scene:
    bench = Bench(GroupLimits(group_max_size=1, group_initial_rebalance_delay_ms=0))
    (member,), generation = bench.stable_group(1)
    return Scene(bench, member, generation=generation)


def join_code(**options: object) -> Callable[[Scene], int]:
    def act(scene: Scene) -> int:
        token = scene.bench.join(**options)  # type: ignore[arg-type]  # rows name their own options
        return scene.bench.reply(token, JoinGroupResponse).error_code

    return act


def sync_code(**options: object) -> Callable[[Scene], int]:
    def act(scene: Scene) -> int:
        arguments: dict[str, object] = {"member_id": scene.other or scene.member, "generation_id": scene.generation}
        token = scene.bench.sync(**(arguments | options))  # type: ignore[arg-type]  # rows name their own options
        return scene.bench.reply(token, SyncGroupResponse).error_code

    return act


def heartbeat_code(**options: object) -> Callable[[Scene], int]:
    def act(scene: Scene) -> int:
        arguments: dict[str, object] = {"member_id": scene.member, "generation_id": scene.generation}
        return scene.bench.heartbeat(**(arguments | options))  # type: ignore[arg-type]  # rows name their own options

    return act


def commit_code(**options: object) -> Callable[[Scene], int]:
    def act(scene: Scene) -> int:
        arguments: dict[str, object] = {"offset": 1, "member_id": scene.member, "generation_id": scene.generation}
        return scene.bench.commit(**(arguments | options))  # type: ignore[arg-type]  # rows name their own options

    return act


def leave_code(member_id: str) -> Callable[[Scene], int]:
    return lambda scene: scene.bench.leave(member_id)[0]


ROWS: list[tuple[str, Callable[[], Scene], Callable[[Scene], int], ErrorCode]] = [
    ("join: session too short", nothing, join_code(session_ms=5_999), ErrorCode.INVALID_SESSION_TIMEOUT),
    ("join: session too long", nothing, join_code(session_ms=1_800_001), ErrorCode.INVALID_SESSION_TIMEOUT),
    ("join: no id yet", nothing, join_code(), ErrorCode.MEMBER_ID_REQUIRED),
    ("join: an id of a group nobody knows", nothing, join_code(member_id="x"), ErrorCode.UNKNOWN_MEMBER_ID),
    ("join: an id the group does not know", stable, join_code(member_id="x"), ErrorCode.UNKNOWN_MEMBER_ID),
    ("join: an old id of an empty group", empty, join_code(member_id="x"), ErrorCode.UNKNOWN_MEMBER_ID),
    ("join: no protocol type", nothing, join_code(protocol_type=""), ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
    ("join: another protocol type", stable, join_code(protocol_type="x"), ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
    ("join: no common protocol", stable, join_code(protocols={"x": b""}), ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
    ("join: no room", full, join_code(), ErrorCode.GROUP_MAX_SIZE_REACHED),
    ("join: unknown instance with an id", stable, join_code(member_id="x", instance="i"), ErrorCode.UNKNOWN_MEMBER_ID),
    (
        "join: instance with a foreign id",
        static,
        join_code(member_id="x", instance="one"),
        ErrorCode.FENCED_INSTANCE_ID,
    ),
    ("sync: unknown group", nothing, sync_code(), ErrorCode.UNKNOWN_MEMBER_ID),
    ("sync: empty group", empty, sync_code(), ErrorCode.UNKNOWN_MEMBER_ID),
    ("sync: unknown member", stable, sync_code(member_id="x"), ErrorCode.UNKNOWN_MEMBER_ID),
    ("sync: unknown instance", stable, sync_code(instance="x"), ErrorCode.UNKNOWN_MEMBER_ID),
    ("sync: fenced", static, sync_code(member_id="x", instance="one"), ErrorCode.FENCED_INSTANCE_ID),
    ("sync: old generation", stable, sync_code(generation_id=0), ErrorCode.ILLEGAL_GENERATION),
    ("sync: another type", stable, sync_code(protocol_type="x"), ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
    ("sync: another protocol", stable, sync_code(protocol_name="x"), ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
    ("sync: v5 without type", stable, sync_code(protocol_type=None), ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
    ("sync: v5 without name", stable, sync_code(protocol_name=None), ErrorCode.INCONSISTENT_GROUP_PROTOCOL),
    ("sync: v4 without both", stable, sync_code(protocol_name=None, protocol_type=None, api_version=4), ErrorCode.NONE),
    ("sync: rejoin first", preparing, sync_code(), ErrorCode.REBALANCE_IN_PROGRESS),
    ("sync: again", stable, sync_code(), ErrorCode.NONE),
    ("heartbeat: unknown group", nothing, heartbeat_code(), ErrorCode.UNKNOWN_MEMBER_ID),
    ("heartbeat: empty group", empty, heartbeat_code(), ErrorCode.UNKNOWN_MEMBER_ID),
    ("heartbeat: unknown member", stable, heartbeat_code(member_id="x"), ErrorCode.UNKNOWN_MEMBER_ID),
    ("heartbeat: unknown instance", stable, heartbeat_code(instance="x"), ErrorCode.UNKNOWN_MEMBER_ID),
    ("heartbeat: fenced", static, heartbeat_code(member_id="x", instance="one"), ErrorCode.FENCED_INSTANCE_ID),
    ("heartbeat: old generation", stable, heartbeat_code(generation_id=0), ErrorCode.ILLEGAL_GENERATION),
    ("heartbeat: preparing", preparing, heartbeat_code(), ErrorCode.REBALANCE_IN_PROGRESS),
    ("heartbeat: completing", completing, heartbeat_code(), ErrorCode.NONE),
    ("heartbeat: stable", stable, heartbeat_code(), ErrorCode.NONE),
    ("leave: unknown group", nothing, leave_code("x"), ErrorCode.UNKNOWN_MEMBER_ID),
    ("leave: empty group", empty, leave_code("x"), ErrorCode.UNKNOWN_MEMBER_ID),
    ("leave: unknown member", stable, leave_code("x"), ErrorCode.UNKNOWN_MEMBER_ID),
    ("leave: nobody", stable, leave_code(""), ErrorCode.UNKNOWN_MEMBER_ID),
    ("commit: simple", nothing, commit_code(member_id="", generation_id=-1), ErrorCode.NONE),
    ("commit: unknown group, new", nothing, commit_code(generation_id=1), ErrorCode.GROUP_ID_NOT_FOUND),
    ("commit: unknown group, old", nothing, commit_code(generation_id=1, api_version=8), ErrorCode.ILLEGAL_GENERATION),
    ("commit: into an empty group", empty, commit_code(member_id="", generation_id=-1), ErrorCode.NONE),
    ("commit: as a member that left", empty, commit_code(), ErrorCode.UNKNOWN_MEMBER_ID),
    ("commit: from outside", stable, commit_code(member_id="", generation_id=-1), ErrorCode.UNKNOWN_MEMBER_ID),
    ("commit: unknown member", stable, commit_code(member_id="x"), ErrorCode.UNKNOWN_MEMBER_ID),
    ("commit: no generation", stable, commit_code(generation_id=-1), ErrorCode.ILLEGAL_GENERATION),
    ("commit: old generation", stable, commit_code(generation_id=0), ErrorCode.ILLEGAL_GENERATION),
    ("commit: fenced", static, commit_code(member_id="x", instance="one"), ErrorCode.FENCED_INSTANCE_ID),
    ("commit: preparing", preparing, commit_code(), ErrorCode.NONE),
    ("commit: completing", completing, commit_code(), ErrorCode.REBALANCE_IN_PROGRESS),
    ("commit: much metadata", stable, commit_code(metadata="x" * 4_097), ErrorCode.OFFSET_METADATA_TOO_LARGE),
    ("commit: metadata that fits", stable, commit_code(metadata="x" * 4_096), ErrorCode.NONE),
    ("offset delete: unknown group", nothing, lambda s: s.bench.delete_offset(), ErrorCode.GROUP_ID_NOT_FOUND),
    ("offset delete: consumed", stable, lambda s: s.bench.delete_offset(), ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC),
    ("offset delete: other topic", stable, lambda s: s.bench.delete_offset(topic="x"), ErrorCode.NONE),
    ("offset delete: empty group", empty, lambda s: s.bench.delete_offset(), ErrorCode.NONE),
    ("delete: unknown group", nothing, lambda s: s.bench.delete_group(), ErrorCode.GROUP_ID_NOT_FOUND),
    ("delete: stable group", stable, lambda s: s.bench.delete_group(), ErrorCode.NON_EMPTY_GROUP),
    ("delete: preparing group", preparing, lambda s: s.bench.delete_group(), ErrorCode.NON_EMPTY_GROUP),
    ("delete: empty group", empty, lambda s: s.bench.delete_group(), ErrorCode.NONE),
    ("describe: unknown group", nothing, lambda s: s.bench.describe().error_code, ErrorCode.GROUP_ID_NOT_FOUND),
    ("describe: unknown, old", nothing, lambda s: s.bench.describe(api_version=5).error_code, ErrorCode.NONE),
]


@pytest.mark.parametrize(("scene", "act", "code"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_row(scene: Callable[[], Scene], act: Callable[[Scene], int], code: ErrorCode) -> None:
    """The request of the row, in the state of the row, gets the code of the row."""
    assert ErrorCode(act(scene())) is code


@pytest.mark.parametrize(("scene", "act", "code"), [row[1:] for row in ROWS if row[3] != 0])
def test_a_refused_request_writes_nothing(
    scene: Callable[[], Scene], act: Callable[[Scene], int], code: ErrorCode
) -> None:
    """Except that a new group is written down when it hands out its first member id."""
    ready = scene()
    before = len(ready.bench.log)
    act(ready)
    assert len(ready.bench.log) - before == (1 if code is ErrorCode.MEMBER_ID_REQUIRED else 0)


def test_other_protocol_types_cannot_delete_offsets_while_they_have_members() -> None:
    """The coordinator cannot know what they read."""
    bench = Bench()
    bench.stable_group(1, protocol_type="connect")
    assert bench.delete_offset() is ErrorCode.NON_EMPTY_GROUP


def test_an_unknown_group_is_described_as_dead() -> None:
    """With a message from version 6 on (KIP-1043)."""
    bench = Bench()
    described = bench.describe()
    assert described.group_state == "Dead"
    assert described.error_message == f"Group {GROUP} not found."
    assert bench.describe(api_version=5).error_message is None


def test_errors_before_version_7_have_an_empty_protocol() -> None:
    """The field cannot be null there, and the answer has to be encodable."""
    bench = Bench()
    for version in range(10):
        response = bench.reply(bench.join("x", api_version=version), JoinGroupResponse)
        assert response.protocol_name == (None if version >= 7 else "")
        response.encode(version)


def test_version_0_uses_the_session_timeout_for_rebalances() -> None:
    """It has no rebalance timeout."""
    bench = Bench()
    bench.ask(JoinGroupRequest(group_id=GROUP, session_timeout_ms=SESSION_MS, protocol_type="x"), 0)
    assert GROUP not in bench.shard.table.groups
    bench.join(api_version=0, rebalance_ms=-1)
    (member,) = bench.shard.table.groups[GROUP].members.values()
    assert member.rebalance_timeout_ms == SESSION_MS


def test_old_leave_requests_name_one_member() -> None:
    """Their error is the request's."""
    bench = Bench()
    (first, _), _ = bench.stable_group(2)
    gone = bench.reply(bench.ask(LeaveGroupRequest(group_id=GROUP, member_id=first), 2), LeaveGroupResponse)
    assert gone.error_code == ErrorCode.NONE
    again = bench.reply(bench.ask(LeaveGroupRequest(group_id=GROUP, member_id=first), 2), LeaveGroupResponse)
    assert again.error_code == ErrorCode.UNKNOWN_MEMBER_ID
    assert again.encode(2)


def test_a_commit_keeps_the_session_alive() -> None:
    """A member that commits is there (KIP-62)."""
    bench = Bench()
    (member,), generation = bench.stable_group(1)
    bench.wait(SESSION_MS - 1)
    assert bench.commit(1, member_id=member, generation_id=generation, topic=TOPIC) is ErrorCode.NONE
    bench.wait(SESSION_MS - 1)
    request = HeartbeatRequest(group_id=GROUP, generation_id=generation, member_id=member)
    assert bench.reply(bench.ask(request, 4), HeartbeatResponse).error_code == ErrorCode.NONE
