"""The image is the fold of its records: replayed, snapshot, copied, it is the same."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from streamlog.broker.metadata.configs import Operation, incremental_alter_configs
from streamlog.broker.metadata.image import RESOURCE_TOPIC, KnownRecord, MetadataDelta, MetadataImage, image_records
from streamlog.broker.metadata.records import decode_record, encode_record
from streamlog.broker.metadata.registration import allocate_producer_ids
from streamlog.broker.metadata.topics import create_partitions, delete_topics
from streamlog.wire.messages.create_partitions import CreatePartitionsRequest, CreatePartitionsTopic
from streamlog.wire.messages.delete_topics import DeleteTopicsRequest
from streamlog.wire.messages.incremental_alter_configs import (
    AlterableConfig,
    AlterConfigsResource,
    IncrementalAlterConfigsRequest,
)
from tests.broker.metadata.cluster import Cluster, topic

NAMES = st.sampled_from(["a", "b", "c.d", "c_d", "", "e"])


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("create"), NAMES, st.integers(-2, 4), st.integers(-1, 3)),
        st.tuples(st.just("delete"), NAMES, st.just(0), st.just(0)),
        st.tuples(st.just("grow"), NAMES, st.integers(0, 6), st.just(0)),
        st.tuples(st.just("alter"), NAMES, st.integers(-2, 3), st.just(0)),
        st.tuples(st.just("ids"), NAMES, st.just(0), st.just(0)),
        st.tuples(st.just("fence"), NAMES, st.integers(1, 2), st.just(0)),
        st.tuples(st.just("shrink"), NAMES, st.just(0), st.just(0)),
        st.tuples(st.just("stop"), NAMES, st.integers(1, 2), st.just(0)),
        st.tuples(st.just("restart"), NAMES, st.integers(1, 2), st.booleans().map(int)),
    ),
    max_size=25,
)


def perform(cluster: Cluster, action: tuple[str, str, int, int]) -> None:
    kind, name, number, other = action
    if kind == "create":
        cluster.create(topic(name, number, other))
    elif kind == "delete":
        request = DeleteTopicsRequest(topic_names=[name])
        cluster.take(lambda image: delete_topics(image, cluster.settings, request))
    elif kind == "grow":
        grown = CreatePartitionsRequest(topics=[CreatePartitionsTopic(name=name, count=number, assignments=None)])
        cluster.take(lambda image: create_partitions(image, grown))
    elif kind == "alter":
        row = AlterableConfig(name="retention.ms", config_operation=Operation.SET, value=str(number))
        resource = AlterConfigsResource(resource_type=RESOURCE_TOPIC, resource_name=name, configs=[row])
        altered = IncrementalAlterConfigsRequest(resources=[resource])
        cluster.take(lambda image: incremental_alter_configs(image, cluster.settings, altered))
    elif kind == "ids":
        allocate(cluster)
    elif kind == "fence":
        cluster.fence(number)
    elif kind == "shrink":
        partition = cluster.image.partition(name, 0)
        if partition is not None and partition.leader >= 0:
            cluster.set_isr(name, partition.leader)
    elif kind == "stop":
        cluster.beat(number, stop=True)
    else:
        cluster.start(number, clean=bool(other))


def allocate(cluster: Cluster) -> range:
    epoch = cluster.image.brokers[1].epoch
    return cluster.take(lambda image: allocate_producer_ids(image, 1, epoch))


def fold(records: list[KnownRecord]) -> MetadataImage:
    image = MetadataImage()
    for offset, record in enumerate(records):
        image.apply(record, offset)
    return image


@settings(max_examples=150, deadline=None)
@given(ACTIONS)
def test_folding_the_log_gives_the_live_image(actions: list[tuple[str, str, int, int]]) -> None:
    """For any requests: replay, snapshot and copy all equal what the controller holds."""
    cluster = Cluster(brokers=2)
    for action in actions:
        perform(cluster, action)
    live = cluster.image
    assert fold([decode_record(value) for value in cluster.log]) == live
    snapshot = fold([decode_record(encode_record(record)) for record in image_records(live)])
    snapshot.applied_offset = live.applied_offset
    assert snapshot == live
    assert live.copy() == live


def test_a_decision_changes_nothing() -> None:
    """`handle` reads; only `apply` writes."""
    cluster = Cluster()
    before = cluster.image.copy()
    cluster.create(topic("t", 3), validate_only=True)
    allocate_producer_ids(cluster.image, 1, cluster.image.brokers[1].epoch)
    assert cluster.image == before


def test_a_copy_changes_on_its_own() -> None:
    """The controller's image runs ahead of the broker's."""
    cluster = Cluster()
    cluster.create(topic("t"))
    before = cluster.image.copy()
    grown = CreatePartitionsRequest(topics=[CreatePartitionsTopic(name="t", count=3, assignments=None)])
    cluster.take(lambda image: create_partitions(image, grown))
    assert len(before.topics["t"].partitions) == 1
    assert len(before.topics_by_id[before.topics["t"].id].partitions) == 1


def test_the_delta_names_what_was_touched() -> None:
    """So that a broker looks at nothing else."""
    cluster = Cluster()
    cluster.create(topic("old"))
    old = cluster.image.topics["old"]
    delta = MetadataDelta()
    request = DeleteTopicsRequest(topic_names=["old"])
    for record in delete_topics(cluster.image, cluster.settings, request).records:
        cluster.image.apply(record, cluster.next_offset, delta)
    assert (dict(delta.topics), dict(delta.deleted)) == ({}, {old.id: old})


def test_an_unclean_restart_begins_new_leader_epochs() -> None:
    """A reader can tell that unflushed records may be gone (KIP-320); a clean one keeps them."""
    cluster = Cluster(brokers=2)
    cluster.create(topic("t", 2, 1))
    cluster.start(1, clean=False)
    cluster.start(2)
    epochs = {p.leader: p.leader_epoch for p in cluster.image.topics["t"].partitions.values()}
    assert epochs == {1: 2, 2: 0}


def test_producer_ids_are_given_out_once() -> None:
    """Blocks of a thousand, one behind the other."""
    cluster = Cluster()
    assert (allocate(cluster), allocate(cluster)) == (range(1000), range(1000, 2000))
