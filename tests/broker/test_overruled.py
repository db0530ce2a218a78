"""Settings of a node's file that something else decides: which they are, and what is said of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from streamlog.broker.config import BrokerConfig, load_config
from streamlog.broker.controller_node import start_controller
from streamlog.broker.metadata.image import RESOURCE_BROKER, MetadataImage
from streamlog.broker.node import start_node
from streamlog.broker.overruled import (
    DECIDED_BY_CONTROLLERS,
    QUORUM_PREFIX,
    READ_BY_CONTROLLERS,
    meant_for_brokers,
    meant_for_controllers,
    overruled,
)
from streamlog.broker.topic_configs import broker_names
from streamlog.wire.internal.metadata import ConfigRecord
from tests.broker.nodes import BROKER, CONTROLLER, nodes

ROLES: dict[str, dict[str, str]] = {
    "both": {},
    BROKER: {"process.roles": "broker", "controller.quorum.bootstrap.servers": "127.0.0.1:1"},
    CONTROLLER: {
        "process.roles": "controller",
        "controller.listener.names": "CONTROLLER",
        "listeners": "CONTROLLER://127.0.0.1:0",
        "controller.quorum.bootstrap.servers": "127.0.0.1:1",
    },
}


def config_of(role: str, *settings: str) -> BrokerConfig:
    values = dict(setting.split("=") for setting in settings)
    return load_config(ROLES[role] | {"node.id": "3"} | values)[0]


def image_with(**configs: str) -> MetadataImage:
    """`all_` or `broker3_`, then a config's name with `_` for `.`."""
    image = MetadataImage()
    for offset, (key, value) in enumerate(configs.items()):
        whose, _, name = key.partition("_")
        image.apply(
            ConfigRecord(
                resource_type=RESOURCE_BROKER,
                resource_name=whose.removeprefix("broker") if whose != "all" else "",
                name=name.replace("_", "."),
                value=value,
            ),
            offset,
        )
    return image


@pytest.mark.parametrize("role", ROLES)
def test_a_min_isr_that_is_not_the_clusters_is_told_with_the_commands_that_change_it(role: str) -> None:
    """Everywhere, as people may look for it in any of the files."""
    image = image_with(all_min_insync_replicas="1")
    (line,) = overruled(config_of(role, "min.insync.replicas=2"), image)
    assert line == (
        "min.insync.replicas=2 in this node's file has no effect: the cluster has min.insync.replicas=1, and that goes "
        "before files. To change it: `streamlog configs alter all -c min.insync.replicas=2`, or kafka-configs.sh "
        "--entity-type brokers --entity-default --alter --add-config min.insync.replicas=2. To keep it: take the "
        "file's line out"
    )
    for settings in (["min.insync.replicas= 1 "], []):
        assert list(overruled(config_of(role, *settings), image)) == []


def test_other_settings_are_told_under_the_name_and_in_the_unit_of_what_overrules_them() -> None:
    """What one broker has goes before what all have; what says the same in another unit overrules nothing."""
    hours = config_of("both", "log.retention.hours=2")
    (line,) = overruled(hours, image_with(all_log_retention_minutes="30"))
    assert line.startswith("log.retention.hours=2 in this node's file has no effect: ")
    assert "the cluster has log.retention.minutes=30, " in line
    assert "alter all -c log.retention.minutes=120`" in line
    (line,) = overruled(hours, image_with(all_log_retention_ms="7200000", broker3_log_retention_ms="5"))
    assert "has no effect: broker 3 has log.retention.ms=5" in line
    assert "alter 3 -c log.retention.ms=7200000`" in line
    assert "--entity-name 3 " in line
    assert list(overruled(hours, image_with(all_log_retention_ms="7200000"))) == []
    assert list(overruled(hours, image_with(broker4_log_retention_ms="5"))) == []
    assert list(overruled(config_of("both", "log.retention.ms=9"), image_with(all_log_retention_hours="1"))) == []
    assert list(overruled(config_of(CONTROLLER, "log.retention.hours=2"), image_with(all_log_retention_ms="5"))) == []


def test_what_controllers_decide_is_told_by_a_broker_that_is_none() -> None:
    """Unless it is the default, which surprises nobody, or the metadata have it."""
    unclean = "unclean.leader.election.enable=true"
    settings = ["delete.topic.enable=false", "auto.leader.rebalance.enable=TRUE", unclean, "log.retention.ms=5"]
    lines = list(meant_for_controllers(config_of(BROKER, *settings), MetadataImage()))
    why = "in this broker's file has no effect: controllers decide that, each by its own file"
    everywhere = f"`streamlog configs alter all -c {unclean}` for the whole cluster"
    assert lines == [f"delete.topic.enable=false {why}", f"{unclean} {why}, or {everywhere}"]
    for value, overrules in (("true", False), ("false", True)):
        image = image_with(all_unclean_leader_election_enable=value)
        assert list(meant_for_controllers(config_of(BROKER, unclean), image)) == []
        assert bool(list(overruled(config_of(BROKER, unclean), image))) is overrules
    assert list(meant_for_controllers(config_of("both", *settings), MetadataImage())) == []
    assert meant_for_brokers(config_of(CONTROLLER, *settings)) == ["log.retention.ms"]
    assert meant_for_brokers(config_of("both", *settings)) == []


class Recorder(Mapping[str, str]):
    """Settings that remember which of them were looked for."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.read.add(name)
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


async def test_the_lists_say_who_looks_at_which_setting(tmp_path: Path) -> None:
    """A setting that controllers begin to read, or brokers, has to be told of in another way then."""
    before_the_start = {"advertised.listeners", "listeners", "log.dirs"}
    async with nodes(tmp_path, {1: CONTROLLER, 2: CONTROLLER, 11: BROKER}, voters=[1]) as found:
        by_controller, by_broker = (Recorder(load_config(found.values(number))[0].values) for number in (1, 11))
        controller = replace(load_config(found.values(1))[0], values=by_controller)
        found.controllers[1] = await start_controller(found.env, controller, found.directory(1))
        broker = replace(load_config(found.values(11))[0], values=by_broker)
        found.brokers[11] = await start_node(found.env, broker, found.directory(11))
        await found.until(lambda: "min.insync.replicas" in by_controller.read)
    of_topics = set(broker_names())
    looked_at = {name for name in by_controller.read - of_topics if not name.startswith(QUORUM_PREFIX)}
    assert looked_at == READ_BY_CONTROLLERS - of_topics - before_the_start
    assert not by_broker.read & (DECIDED_BY_CONTROLLERS - of_topics)


async def test_each_node_tells_once_when_it_knows_the_metadata(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The first controller's number is the cluster's; a broker and a controller that start later have others."""

    def told() -> list[str]:
        return [line for line in caplog.messages if line.startswith("min.insync.replicas=")]

    async with nodes(tmp_path, {1: CONTROLLER, 2: CONTROLLER, 11: BROKER, 12: BROKER}, voters=[1]) as found:
        await found.start(1, min_insync_replicas="1")
        await found.start(11, 12, min_insync_replicas="1")
        assert told() == []
        await found.stop(12)
        await found.start(12, min_insync_replicas="2")
        (line,) = told()
        assert line.startswith("min.insync.replicas=2 in this node's file has no effect: the cluster has ")
        await found.start(2, min_insync_replicas="3")
        await found.until(lambda: len(told()) == 2)
        assert told()[1].startswith("min.insync.replicas=3 ")
