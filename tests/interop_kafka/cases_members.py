"""Members of classic groups: static ones, ids that are not known yet, protocols that do not fit, older versions."""

from __future__ import annotations

from streamlog.wire.messages import (
    describe_groups,
    heartbeat,
    join_group,
    leave_group,
    offset_commit,
    sync_group,
)
from tests.interop_kafka.cases import case
from tests.interop_kafka.cases_groups import joining
from tests.interop_kafka.peers import Peer, Seen, Wire

MEMBER_ID_REQUIRED = 79


def joined(wire: Wire, request: join_group.JoinGroupRequest, version: int = 9) -> tuple[str, Seen]:
    """The member's id, and what can be compared; a member that is told its id asks again with it."""
    answer = wire.ask(request, version, join_group.JoinGroupResponse)
    assert isinstance(answer, join_group.JoinGroupResponse)
    if answer.error_code == MEMBER_ID_REQUIRED:
        request.member_id = answer.member_id
        answer = wire.ask(request, version, join_group.JoinGroupResponse)
        assert isinstance(answer, join_group.JoinGroupResponse)
    leads = answer.leader == answer.member_id
    members = sorted((one.group_instance_id or "", one.metadata) for one in answer.members)
    seen = answer.error_code, answer.generation_id, answer.protocol_type, answer.protocol_name, leads, members
    return answer.member_id, (*seen, answer.skip_assignment)


def synced(group: str, generation: int, member: str, instance: str | None = None, given: bytes = b"") -> Seen:
    """A SyncGroup request; `given` is what a leader hands out to itself."""
    assignments = [sync_group.SyncGroupRequestAssignment(member, given)] if given else []
    return sync_group.SyncGroupRequest(group, generation, member, instance, "consumer", "range", assignments)


@case
def a_static_member_comes_back(peer: Peer) -> Seen:
    """KIP-345: no rebalance, a new member id, and the old id is fenced everywhere."""
    peer.make_topic("static")
    peer.wait_for_coordinator("static")
    seen: list[Seen] = []
    with peer.connect() as wire:
        first, answer = joined(wire, joining("static", group_instance_id="one"))
        seen.append((answer, first.startswith("one-")))
        seen.append(wire.see(synced("static", 1, first, "one", given=b"mine"), 5))
        second, answer = joined(wire, joining("static", group_instance_id="one"))
        seen.append((answer, second != first))
        seen.append(wire.see(synced("static", 1, second, "one"), 5))
        topics = [
            offset_commit.OffsetCommitRequestTopic(
                "static", partitions=[offset_commit.OffsetCommitRequestPartition(0, 3)]
            )
        ]
        for generation, member, instance in [
            (1, second, "one"),
            (1, first, "one"),
            (1, first, None),
            (1, second, None),
            (1, second, "two"),
            (1, "", "one"),
            (2, second, "one"),
            (2, first, "one"),
        ]:
            seen.append(wire.see(heartbeat.HeartbeatRequest("static", generation, member, instance), 4))
            seen.append(wire.see(synced("static", generation, member, instance), 5))
            commit = offset_commit.OffsetCommitRequest("static", generation, member, instance, topics=topics)
            seen.append(wire.see(commit, 8))
        seen.append(joined(wire, joining("static", group_instance_id="one", member_id=first))[1])
        seen.append(joined(wire, joining("static", group_instance_id="two", member_id=second))[1])
        seen.append(joined(wire, joining("static", group_instance_id="", member_id=""))[1])
        identity = leave_group.MemberIdentity
        for leaving in (
            [identity(first, "one")],
            [identity("", "two")],
            [identity(second, "two")],
            [identity("", "one"), identity("nobody")],
            [identity("", "one")],
        ):
            seen.append([one["error_code"] for one in wire.see(_leave("static", leaving), 5)["members"]])
        seen.append(wire.see(describe_groups.DescribeGroupsRequest(["static"]), 5))
    return seen


def _leave(group: str, members: list[leave_group.MemberIdentity]) -> leave_group.LeaveGroupRequest:
    return leave_group.LeaveGroupRequest(group, members=members)


@case
def a_static_leader_comes_back_with_other_topics(peer: Peer) -> Seen:
    """Metadata that changed makes a rebalance necessary even for a static member."""
    peer.wait_for_coordinator("moved")
    other = [join_group.JoinGroupRequestProtocol("range", b"other")]
    with peer.connect() as wire:
        first, one = joined(wire, joining("moved", group_instance_id="one"))
        given = wire.see(synced("moved", 1, first, "one", given=b"mine"), 5)
        _, two = joined(wire, joining("moved", group_instance_id="one", protocols=other))
        return one, given, two


@case
def members_without_ids_in_every_version(peer: Peer) -> Seen:
    """KIP-394: since version 4 a member has to come back with the id it was given; before, it is in at once."""
    peer.wait_for_coordinator("v")
    seen: list[Seen] = []
    for version in range(10):
        with peer.connect() as wire:
            answer = wire.ask(joining(f"version-{version}"), version, join_group.JoinGroupResponse)
            assert isinstance(answer, join_group.JoinGroupResponse)
            told = answer.error_code, answer.generation_id, answer.protocol_name, bool(answer.member_id)
            seen.append((version, told))
            member, again = joined(wire, joining(f"version-{version}", member_id=answer.member_id), version)
            sync = synced(f"version-{version}", again[1], member, given=b"mine")
            seen.append((again, wire.see(sync, min(version, 5))))
            seen.append(wire.see(heartbeat.HeartbeatRequest(f"version-{version}", again[1], member), min(version, 4)))
            gone = leave_group.LeaveGroupRequest(f"version-{version}", member)
            if version >= 3:
                gone = _leave(f"version-{version}", [leave_group.MemberIdentity(member)])
            left = wire.see(gone, min(version, 5))
            seen.append((left["error_code"], [one["error_code"] for one in left["members"]]))
    return seen


@case
def members_that_do_not_fit_the_group(peer: Peer) -> Seen:
    """Another protocol type, no protocol in common, none at all; while the group is empty, anything goes."""
    peer.wait_for_coordinator("fit")
    seen: list[Seen] = []
    range_, sticky = (join_group.JoinGroupRequestProtocol(name, b"m") for name in ("range", "sticky"))
    with peer.connect() as wire:
        member, answer = joined(wire, joining("fit", protocols=[range_]))
        seen += [answer, wire.see(synced("fit", 1, member, given=b"x"), 5)]
        variants: tuple[dict[str, object], ...] = (
            {"protocols": [sticky]},
            {"protocol_type": "connect"},
            {"protocols": []},
            {"protocol_type": ""},
            {"protocols": [range_, range_], "member_id": "nobody"},
            {"member_id": "nobody"},
        )
        for changes in variants:
            seen.append(joined(wire, joining("fit", **changes))[1])
        for kind, name in (("consumer", "sticky"), ("connect", "range"), (None, None), ("consumer", None)):
            request = sync_group.SyncGroupRequest("fit", 1, member, None, kind, name)
            seen.append(wire.see(request, 5))
        seen.append([one["error_code"] for one in wire.see(_leave("fit", _identities(member)), 5)["members"]])
        _, answer = joined(wire, joining("fit", protocols=[sticky], protocol_type="connect"))
        seen.append(answer)
    return seen


def _identities(*members: str) -> list[leave_group.MemberIdentity]:
    return [leave_group.MemberIdentity(member) for member in members]


@case
def a_member_that_joins_again_unchanged(peer: Peer) -> Seen:
    """The leader asks for a rebalance by joining again; its generation counts on and old requests are refused."""
    peer.wait_for_coordinator("rejoin")
    seen: list[Seen] = []
    with peer.connect() as wire:
        member, answer = joined(wire, joining("rejoin"))
        seen += [answer, wire.see(synced("rejoin", 1, member, given=b"x"), 5)]
        _, answer = joined(wire, joining("rejoin", member_id=member))
        seen += [answer, wire.see(heartbeat.HeartbeatRequest("rejoin", 1, member), 4)]
        seen += [wire.see(heartbeat.HeartbeatRequest("rejoin", 2, member), 4)]
        seen += [wire.see(synced("rejoin", 1, member), 5), wire.see(synced("rejoin", 2, member, given=b"y"), 5)]
        seen += [wire.see(describe_groups.DescribeGroupsRequest(["rejoin"], False), 5)["groups"][0]["group_state"]]
    return seen
