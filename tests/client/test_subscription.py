"""The group protocol's bytes: ours read back, Java's read, garbage refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamlog.client.subscription import (
    Assignment,
    Subscription,
    decode_assignment,
    decode_subscription,
    encode_assignment,
    encode_subscription,
)
from streamlog.client.values import TopicPartition
from streamlog.errors import RemoteProtocolError

PARTITIONS = st.lists(st.builds(TopicPartition, st.sampled_from(["a", "bb"]), st.integers(0, 9)), unique=True)


@given(
    st.lists(st.text(max_size=5)),
    st.none() | st.binary(max_size=9),
    PARTITIONS,
    st.integers(-1, 9),
    st.none() | st.text(),
)
def test_subscriptions_survive_the_wire(
    topics: list[str], userdata: bytes | None, owned: list[TopicPartition], generation_id: int, rack_id: str | None
) -> None:
    """What a member says is what the leader hears."""
    said = Subscription(tuple(topics), userdata, tuple(sorted(owned)), generation_id, rack_id)
    assert decode_subscription(encode_subscription(said)) == said


@given(PARTITIONS, st.none() | st.binary(max_size=9))
def test_assignments_survive_the_wire(partitions: list[TopicPartition], userdata: bytes | None) -> None:
    """What the leader decides is what the member gets."""
    said = Assignment(tuple(sorted(partitions)), userdata)
    assert decode_assignment(encode_assignment(said)) == said


def test_no_bytes_mean_nothing_assigned() -> None:
    """A member the leader forgot gets an empty assignment, not an error."""
    assert decode_assignment(b"") == Assignment(())


def test_old_subscriptions_have_no_owned_partitions() -> None:
    """Version 0 ends after the userdata."""
    assert decode_subscription(bytes.fromhex("0000000000010001 74 ffffffff")) == Subscription(("t",))


@given(st.binary(max_size=60))
def test_garbage_is_refused_and_nothing_else_happens(data: bytes) -> None:
    """Whatever another member sends is read or refused as its fault."""
    for decode in (decode_subscription, decode_assignment):
        try:
            decode(data)
        except RemoteProtocolError:
            continue


def test_a_huge_array_is_refused_before_it_is_built() -> None:
    """A count that cannot fit the bytes is refused at once."""
    with pytest.raises(RemoteProtocolError):
        decode_assignment(bytes.fromhex("0000 7fffffff 0000"))
