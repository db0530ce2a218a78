"""Which feature levels can be set, and what becomes of partitions when one is taken back."""

from __future__ import annotations

from uuid import UUID

import pytest

from streamlog.broker.features import ELIGIBLE_LEADER_REPLICAS, KRAFT_VERSION, METADATA_VERSION
from streamlog.broker.metadata.changes import MIN_ISR
from streamlog.broker.metadata.decision import ControllerSettings
from streamlog.broker.metadata.feature_levels import UpgradeType, update_features
from streamlog.broker.metadata.image import NO_LEADER, RESOURCE_BROKER
from streamlog.broker.metadata.partition_change import RECOVERING
from streamlog.wire.error_codes import ErrorCode
from streamlog.wire.messages.update_features import FeatureUpdateKey, UpdateFeaturesRequest
from tests.broker.metadata.cluster import Cluster

E = ErrorCode
UP, SAFE, UNSAFE = UpgradeType.UPGRADE, UpgradeType.SAFE_DOWNGRADE, UpgradeType.UNSAFE_DOWNGRADE


def update(cluster: Cluster, *updates: tuple[str, int, int], validate_only: bool = False) -> ErrorCode:
    keys = [FeatureUpdateKey(feature=name, max_version_level=level, upgrade_type=kind) for name, level, kind in updates]
    request = UpdateFeaturesRequest(feature_updates=keys, validate_only=validate_only)
    return E.of(cluster.take(lambda image: update_features(image, cluster.settings, request, 2)).error_code)


def test_a_feature_goes_up_and_down() -> None:
    """Down only if that was meant."""
    cluster = Cluster(brokers=2, elr=False)
    assert update(cluster, (ELIGIBLE_LEADER_REPLICAS, 1, UP), validate_only=True) is E.NONE
    assert ELIGIBLE_LEADER_REPLICAS not in cluster.image.features
    assert update(cluster, (ELIGIBLE_LEADER_REPLICAS, 1, UP)) is E.NONE
    assert cluster.image.features[ELIGIBLE_LEADER_REPLICAS] == 1
    assert update(cluster, (ELIGIBLE_LEADER_REPLICAS, 0, UP)) is E.INVALID_UPDATE_VERSION
    assert update(cluster, (ELIGIBLE_LEADER_REPLICAS, 0, SAFE)) is E.NONE
    assert ELIGIBLE_LEADER_REPLICAS not in cluster.image.features


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ((ELIGIBLE_LEADER_REPLICAS, 2, UP), E.INVALID_UPDATE_VERSION),
        ((ELIGIBLE_LEADER_REPLICAS, -1, SAFE), E.INVALID_UPDATE_VERSION),
        ((ELIGIBLE_LEADER_REPLICAS, 0, 9), E.INVALID_UPDATE_VERSION),
        ((METADATA_VERSION, 29, UNSAFE), E.INVALID_UPDATE_VERSION),
        ((METADATA_VERSION, 31, UP), E.INVALID_UPDATE_VERSION),
        ((METADATA_VERSION, 30, UP), E.NONE),
        ((KRAFT_VERSION, 1, UP), E.NONE),
        ((KRAFT_VERSION, 0, UNSAFE), E.INVALID_UPDATE_VERSION),
        (("absent", 1, UP), E.INVALID_UPDATE_VERSION),
    ],
)
def test_levels_that_cannot_be_are_refused(asked: tuple[str, int, int], code: ErrorCode) -> None:
    """Unknown, out of range, or of a kind that there is not."""
    cluster = Cluster()
    assert update(cluster, asked) is code
    assert cluster.last == ()


def test_one_that_is_refused_takes_the_others_along() -> None:
    """All or nothing; the older versions tell it for each."""
    cluster = Cluster(elr=False)
    assert update(cluster, (ELIGIBLE_LEADER_REPLICAS, 1, UP), ("absent", 1, UP)) is E.INVALID_UPDATE_VERSION
    assert cluster.last == ()
    keys = [FeatureUpdateKey(feature=ELIGIBLE_LEADER_REPLICAS, max_version_level=1), FeatureUpdateKey(feature="absent")]
    request = UpdateFeaturesRequest(feature_updates=keys)
    response = cluster.take(lambda image: update_features(image, cluster.settings, request, 0))
    assert [E.of(result.error_code) for result in response.results] == [E.INVALID_UPDATE_VERSION] * 2
    assert update(cluster, *[(ELIGIBLE_LEADER_REPLICAS, 1, UP)] * 2) is E.INVALID_REQUEST


def test_a_level_that_a_broker_does_not_support_is_refused() -> None:
    """A broker that does not name the feature has it at level 0 only."""
    cluster = Cluster(elr=False)
    request = cluster.registration(2)
    request.features = [feature for feature in request.features if feature.name != ELIGIBLE_LEADER_REPLICAS]
    cluster.register(request)
    assert update(cluster, (ELIGIBLE_LEADER_REPLICAS, 1, UP)) is E.INVALID_UPDATE_VERSION


def test_without_the_feature_who_was_eligible_is_in_sync() -> None:
    """They have everything that is committed, and only an ISR can say so any more."""
    cluster = Cluster(brokers=3)
    cluster.place("t", 1, 2, 3, min_insync_replicas="2")
    cluster.place("u", 1, 2, min_insync_replicas="2")
    cluster.fence(1, 2, 3)
    cluster.start(1)
    assert cluster.partition("u").leader == 1
    assert update(cluster, (ELIGIBLE_LEADER_REPLICAS, 0, SAFE)) is E.NONE
    found = cluster.partition("t")
    assert (found.leader, found.isr, found.eligible_leader_replicas, found.last_known_elr) == (
        NO_LEADER,
        (2, 3),
        (),
        (),
    )
    assert (cluster.partition("u").isr, cluster.partition("u").eligible_leader_replicas) == ((1,), ())
    cluster.beat(3)
    assert (cluster.partition("t").leader, cluster.partition("t").leader_recovery_state) == (3, 0)


@pytest.mark.parametrize("is_lost", [False, True])
def test_without_the_feature_who_led_last_is_in_sync_where_nobody_was_eligible(is_lost: bool) -> None:
    """Both nodes were killed: it would have led again, and without an ISR nobody ever could. Its disk may be lost."""
    cluster = Cluster(brokers=2)
    cluster.place("t", 1, 2, min_insync_replicas="2")
    cluster.fence(2, 1)
    for number in (2, 1):
        cluster.liveness.on_gone(number)
        request = cluster.registration(number, clean=False)
        request.log_dirs = [UUID(int=7)] if is_lost and number == 1 else request.log_dirs
        cluster.register(request)
    before = cluster.partition()
    assert (before.isr, before.eligible_leader_replicas) == ((), ())
    assert update(cluster, (ELIGIBLE_LEADER_REPLICAS, 0, SAFE)) is E.NONE
    expected = 2 if is_lost else 1
    cluster.beat(3 - expected)
    found = cluster.partition()
    assert (found.leader, found.isr, found.last_known_elr) == (NO_LEADER, (expected,), ())
    cluster.beat(expected)
    found = cluster.partition()
    assert (found.leader, found.isr, found.leader_recovery_state) == (expected, (expected,), RECOVERING)


def min_isr_configs(cluster: Cluster) -> dict[str, str]:
    return {
        name: values[MIN_ISR]
        for (kind, name), values in cluster.image.configs.items()
        if kind == RESOURCE_BROKER and MIN_ISR in values
    }


def test_with_the_feature_min_isr_is_one_number_for_the_cluster() -> None:
    """The controller's own, in the same batch, and no broker's: what its leaders count with, the controller does."""
    settings = ControllerSettings(topic_defaults={MIN_ISR: "2"})
    cluster = Cluster(brokers=3, settings=settings, elr=False)
    cluster.configure("1", MIN_ISR, "1", kind=RESOURCE_BROKER)
    cluster.configure("2", "log.retention.ms", "5", kind=RESOURCE_BROKER)
    assert update(cluster, (ELIGIBLE_LEADER_REPLICAS, 1, UP)) is E.NONE
    assert min_isr_configs(cluster) == {"": "2"}
    assert cluster.image.config(RESOURCE_BROKER, "2") == {"log.retention.ms": "5"}


def test_a_min_isr_that_was_set_for_the_cluster_stays() -> None:
    """Somebody has chosen it."""
    cluster = Cluster(settings=ControllerSettings(topic_defaults={MIN_ISR: "2"}), elr=False)
    cluster.configure("", MIN_ISR, "3", kind=RESOURCE_BROKER)
    assert update(cluster, (ELIGIBLE_LEADER_REPLICAS, 1, UP)) is E.NONE
    assert min_isr_configs(cluster) == {"": "3"}
    assert update(cluster, (ELIGIBLE_LEADER_REPLICAS, 1, UP)) is E.NONE
    assert cluster.last == ()
