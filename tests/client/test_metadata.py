"""What the client believes of the cluster never goes back in time."""

from __future__ import annotations

from uuid import UUID

import pytest

from streamlog.client.config import Address, parse_bootstrap
from streamlog.client.metadata import Broker, Metadata
from streamlog.client.values import TopicPartition
from streamlog.errors import UserError
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages import MetadataResponse
from streamlog.wire.messages.metadata import MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic

ZERO = TopicPartition("t", 0)


def answer(leader: int, leader_epoch: int, *, topic_id: int = 1, error_code: int = 0) -> MetadataResponse:
    partitions = [MetadataResponsePartition(partition_index=0, leader_id=leader, leader_epoch=leader_epoch)]
    return MetadataResponse(
        brokers=[MetadataResponseBroker(node_id=number, host="h", port=9_000 + number) for number in (1, 2)],
        topics=[
            MetadataResponseTopic(
                name="t",
                topic_id=UUID(int=topic_id),
                error_code=error_code,
                partitions=[] if error_code else partitions,
            )
        ],
    )


def test_a_lower_leader_epoch_is_not_believed() -> None:
    """A broker that lags does not send the client back to a deposed leader."""
    metadata = Metadata()
    metadata.apply(answer(2, 5), ["t"])
    metadata.apply(answer(1, 4), ["t"])
    assert (metadata.leader("t", 0), metadata.leader_epoch(ZERO)) == (2, 5)
    metadata.apply(answer(1, 6), ["t"])
    assert metadata.leader("t", 0) == 1


def test_a_topic_made_again_is_another_topic() -> None:
    """Its epochs begin anew, and its old id names nothing any more."""
    metadata = Metadata()
    metadata.apply(answer(2, 5), ["t"])
    metadata.apply(answer(1, 0, topic_id=9), ["t"])
    assert (metadata.leader("t", 0), metadata.leader_epoch(ZERO)) == (1, 0)
    assert metadata.topic_name(UUID(int=9)) == "t"
    assert metadata.topic_name(UUID(int=1)) is None


def test_an_answer_that_names_a_new_leader_is_believed_if_it_is_newer() -> None:
    """KIP-951, with the address of a broker that was not known."""
    metadata = Metadata()
    metadata.apply(answer(1, 3), ["t"])
    third = Broker(3, Address("h", 9_003))
    assert not metadata.apply_leader(ZERO, 3, 3, {3: third})
    assert not metadata.apply_leader(ZERO, 3, 4, {}), "nobody knows where it is"
    assert metadata.apply_leader(ZERO, 3, 4, {3: third})
    assert (metadata.leader("t", 0), metadata.leader_epoch(ZERO)) == (3, 4)


def test_a_topic_that_is_gone_is_forgotten_with_the_reason() -> None:
    """Said by the broker, or by leaving it out."""
    metadata = Metadata()
    metadata.apply(answer(1, 3), ["t"])
    metadata.apply(answer(1, 3, error_code=ErrorCode.TOPIC_AUTHORIZATION_FAILED), ["t", "u"])
    assert metadata.errors == {
        "t": ErrorCode.TOPIC_AUTHORIZATION_FAILED,
        "u": ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    }
    assert metadata.partition_count("t") == 0


def test_a_leader_without_an_address_is_no_leader() -> None:
    """-1, or a broker that the answer does not list."""
    metadata = Metadata()
    metadata.apply(answer(-1, 3), ["t"])
    assert metadata.leader("t", 0) is None
    metadata.apply(answer(7, 4), ["t"])
    assert metadata.leader("t", 0) is None


def test_bootstrap_addresses_are_read_in_every_usual_form() -> None:
    """Strings with commas, lists, kafka:// in front, IPv6 in brackets, no port."""
    assert parse_bootstrap("a:1,b:2") == [Address("a", 1), Address("b", 2)]
    assert parse_bootstrap(["kafka://a:1", "b:2,c"]) == [Address("a", 1), Address("b", 2), Address("c", 9092)]
    assert [str(one) for one in parse_bootstrap("[::1]:9092,[::1]")] == ["[::1]:9092", "[::1]:9092"]


@pytest.mark.parametrize("text", ["", "host:", "host:port", "host:0", "host:70000", "http://x:1", ":9092"])
def test_what_is_no_address_is_said(text: str) -> None:
    """With an example of one."""
    with pytest.raises(UserError, match="for example localhost:9092"):
        parse_bootstrap(text)
