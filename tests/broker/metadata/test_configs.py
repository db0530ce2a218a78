"""Altering configs: what is taken, what is refused, what stays."""

from __future__ import annotations

import pytest

from streamlog.broker.metadata.changes import MIN_ISR
from streamlog.broker.metadata.configs import Operation, alter_configs, incremental_alter_configs
from streamlog.broker.metadata.image import RESOURCE_BROKER, RESOURCE_TOPIC
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.internal.metadata import RemoveTopicRecord
from streamlog.wire.messages import alter_configs as full
from streamlog.wire.messages import incremental_alter_configs as incremental
from tests.broker.metadata.cluster import Cluster, topic

E = ErrorCode
Change = tuple[str, Operation, str | None]


@pytest.fixture
def cluster() -> Cluster:
    made = Cluster()
    made.create(topic("t"))
    return made


def alter(
    cluster: Cluster, *changes: Change, kind: int = RESOURCE_TOPIC, name: str = "t", validate_only: bool = False
) -> ErrorCode:
    rows = [incremental.AlterableConfig(name=n, config_operation=o, value=v) for n, o, v in changes]
    resource = incremental.AlterConfigsResource(resource_type=kind, resource_name=name, configs=rows)
    request = incremental.IncrementalAlterConfigsRequest(resources=[resource], validate_only=validate_only)
    response = cluster.take(lambda image: incremental_alter_configs(image, cluster.settings, request))
    return ErrorCode.of(response.responses[0].error_code)


def test_set_and_delete_change_what_they_name(cluster: Cluster) -> None:
    """KIP-339: the rest stays."""
    assert alter(cluster, ("retention.ms", Operation.SET, "5"), ("segment.ms", Operation.SET, "6")) == E.NONE
    assert alter(cluster, ("retention.ms", Operation.DELETE, None)) == E.NONE
    assert dict(cluster.image.config(RESOURCE_TOPIC, "t")) == {"segment.ms": "6"}


def test_lists_are_appended_to_and_subtracted_from(cluster: Cluster) -> None:
    """What is there already is not there twice."""
    alter(cluster, ("cleanup.policy", Operation.APPEND, "compact,delete"))
    assert cluster.image.config(RESOURCE_TOPIC, "t")["cleanup.policy"] == "delete,compact"
    alter(cluster, ("cleanup.policy", Operation.SUBTRACT, "delete"))
    assert cluster.image.config(RESOURCE_TOPIC, "t")["cleanup.policy"] == "compact"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ([("no.such", Operation.SET, "1")], E.INVALID_CONFIG),
        ([("retention.ms", Operation.SET, "soon")], E.INVALID_CONFIG),
        ([("retention.ms", Operation.APPEND, "1")], E.INVALID_CONFIG),
        ([("retention.ms", Operation.SET, None)], E.INVALID_REQUEST),
        ([("retention.ms", Operation.SET, "1"), ("retention.ms", Operation.DELETE, None)], E.INVALID_REQUEST),
        ([("retention.ms", 7, "1")], E.INVALID_REQUEST),
        ([("segment.ms", Operation.SET, "5"), ("retention.ms", Operation.SET, "-7")], E.INVALID_CONFIG),
    ],
)
def test_a_bad_change_is_refused_whole(cluster: Cluster, changes: list[Change], code: ErrorCode) -> None:
    """Row 32: nothing of it is taken."""
    assert alter(cluster, *changes) == code
    assert dict(cluster.image.config(RESOURCE_TOPIC, "t")) == {}


def test_validate_only_changes_nothing(cluster: Cluster) -> None:
    """It only says whether it would."""
    assert alter(cluster, ("retention.ms", Operation.SET, "5"), validate_only=True) == E.NONE
    assert dict(cluster.image.config(RESOURCE_TOPIC, "t")) == {}


def test_resources_that_do_not_exist_are_refused(cluster: Cluster) -> None:
    """Topic, broker, kind."""
    assert alter(cluster, name="absent") == E.UNKNOWN_TOPIC_OR_PARTITION
    assert alter(cluster, kind=RESOURCE_BROKER, name="9") == E.INVALID_REQUEST
    assert alter(cluster, kind=RESOURCE_BROKER, name="one") == E.INVALID_REQUEST
    assert alter(cluster, kind=77) == E.INVALID_REQUEST


def test_brokers_take_defaults_of_topic_configs(cluster: Cluster) -> None:
    """For all brokers and for one (KIP-226); what is only read at start is refused."""
    for name in ("", "1"):
        assert alter(cluster, ("log.retention.ms", Operation.SET, "5"), kind=RESOURCE_BROKER, name=name) == E.NONE
        assert dict(cluster.image.config(RESOURCE_BROKER, name)) == {"log.retention.ms": "5"}
    assert alter(cluster, ("listeners", Operation.SET, "x"), kind=RESOURCE_BROKER, name="1") == E.INVALID_REQUEST
    assert alter(cluster, ("log.retention.ms", Operation.SET, "x"), kind=RESOURCE_BROKER, name="") == E.INVALID_CONFIG


@pytest.mark.parametrize(
    ("name", "code", "told"),
    [
        ("nosuch", E.INVALID_CONFIG, "brokers know no setting nosuch"),
        ("retention.ms", E.INVALID_CONFIG, "brokers know no setting retention.ms"),
        ("node.id", E.INVALID_REQUEST, "node.id cannot be altered on a running broker"),
        ("broker.id", E.INVALID_REQUEST, "broker.id cannot be altered on a running broker"),
        ("num.io.threads", E.INVALID_REQUEST, "num.io.threads cannot be altered on a running broker"),
        ("quota.window.num", E.INVALID_REQUEST, "quota.window.num cannot be altered on a running broker"),
        ("ssl.keystore.location", E.INVALID_REQUEST, "ssl.keystore.location cannot be altered on a running broker"),
    ],
)
def test_a_broker_setting_that_does_not_exist_is_told_as_that(
    cluster: Cluster, name: str, code: ErrorCode, told: str
) -> None:
    """Putting it into the properties file would not help."""
    rows = [incremental.AlterableConfig(name=name, config_operation=Operation.SET, value="1")]
    resource = incremental.AlterConfigsResource(resource_type=RESOURCE_BROKER, resource_name="1", configs=rows)
    request = incremental.IncrementalAlterConfigsRequest(resources=[resource])
    (answer,) = cluster.take(lambda image: incremental_alter_configs(image, cluster.settings, request)).responses
    assert (E.of(answer.error_code), (answer.error_message or "")[: len(told)]) == (code, told)


def test_the_older_request_replaces_everything(cluster: Cluster) -> None:
    """AlterConfigs: what is not named goes."""
    alter(cluster, ("segment.ms", Operation.SET, "6"))
    rows = [full.AlterableConfig(name="retention.ms", value="5")]
    resource = full.AlterConfigsResource(resource_type=RESOURCE_TOPIC, resource_name="t", configs=rows)
    cluster.take(lambda image: alter_configs(image, cluster.settings, full.AlterConfigsRequest(resources=[resource])))
    assert dict(cluster.image.config(RESOURCE_TOPIC, "t")) == {"retention.ms": "5"}


def test_a_resource_named_twice_is_refused(cluster: Cluster) -> None:
    """In both requests."""
    resource = full.AlterConfigsResource(resource_type=RESOURCE_TOPIC, resource_name="t")
    response = cluster.take(
        lambda image: alter_configs(image, cluster.settings, full.AlterConfigsRequest(resources=[resource, resource]))
    )
    assert {result.error_code for result in response.responses} == {E.INVALID_REQUEST}


def test_configs_leave_with_their_topic(cluster: Cluster) -> None:
    """A topic of the same name starts without them."""
    alter(cluster, ("retention.ms", Operation.SET, "5"))
    cluster.image.apply(RemoveTopicRecord(topic_id=cluster.image.topics["t"].id), cluster.next_offset)
    cluster.create(topic("t"))
    assert dict(cluster.image.config(RESOURCE_TOPIC, "t")) == {}


def test_a_smaller_min_isr_empties_the_elr_of_those_who_have_enough_now() -> None:
    """KIP-966: from then on the high watermark moves without who is eligible."""
    cluster = Cluster(brokers=3)
    cluster.place("t", 1, 2, 3, min_insync_replicas="2")
    cluster.place("u", 1, 2, 3, min_insync_replicas="2")
    for name in ("t", "u"):
        cluster.set_isr(name, 1)
        assert cluster.partition(name).eligible_leader_replicas == (2, 3)
    alter(cluster, ("min.insync.replicas", Operation.SET, "1"))
    assert cluster.partition("t").eligible_leader_replicas == ()
    assert cluster.partition("u").eligible_leader_replicas == (2, 3)


def test_who_is_eligible_for_a_partition_without_a_leader_stays_so() -> None:
    """Nothing can have been written meanwhile."""
    cluster = Cluster(brokers=3)
    cluster.place("t", 1, 2, 3, min_insync_replicas="2")
    cluster.fence(1, 2, 3)
    alter(cluster, ("min.insync.replicas", Operation.SET, "1"))
    assert cluster.partition().eligible_leader_replicas == (2, 3)


def test_a_topic_that_allows_unclean_elections_gets_its_leader_at_once() -> None:
    """Whoever allows them is waiting for one."""
    cluster = Cluster(brokers=2)
    cluster.place("t", 1, 2)
    cluster.set_isr("t", 1)
    cluster.fence(1)
    assert cluster.partition().leader == -1
    alter(cluster, ("unclean.leader.election.enable", Operation.SET, "true"))
    assert (cluster.partition().leader, cluster.partition().leader_recovery_state) == (2, 1)


def test_one_broker_alone_cannot_have_another_min_isr() -> None:
    """Its leaders would move the high watermark by another number than the controller counts with."""
    cluster = Cluster(brokers=1)
    assert (
        alter(cluster, ("min.insync.replicas", Operation.SET, "2"), name="1", kind=RESOURCE_BROKER) == E.INVALID_CONFIG
    )
    assert alter(cluster, ("min.insync.replicas", Operation.SET, "2"), name="", kind=RESOURCE_BROKER) == E.NONE


def test_the_clusters_min_isr_can_be_changed_and_not_removed() -> None:
    """Without it each node would go by its own properties file."""
    cluster = Cluster(brokers=1)
    assert alter(cluster, (MIN_ISR, Operation.SET, "2"), name="", kind=RESOURCE_BROKER) == E.NONE
    assert alter(cluster, (MIN_ISR, Operation.DELETE, ""), name="", kind=RESOURCE_BROKER) == E.INVALID_CONFIG
    assert alter(cluster, (MIN_ISR, Operation.SET, "1"), name="", kind=RESOURCE_BROKER) == E.NONE
    without = Cluster(brokers=1, elr=False)
    for operation, value in ((Operation.SET, "2"), (Operation.DELETE, "")):
        assert alter(without, (MIN_ISR, operation, value), name="", kind=RESOURCE_BROKER) == E.NONE
