"""server.properties: what is honoured, accepted, refused and warned about."""

from __future__ import annotations

import pytest

from streamlog.broker.config import Listener, load_config, parse_address, parse_properties
from streamlog.broker.replication.settings import replication_settings
from streamlog.errors import UserError

CONTROLLER = {
    "process.roles": "controller",
    "controller.listener.names": "CONTROLLER",
    "listeners": "CONTROLLER://127.0.0.1:0",
}


def test_a_properties_file_is_read_as_java_reads_it() -> None:
    """Comments, separators, continued lines, escapes."""
    text = "# c\n! c\na=1\n b : 2\nc 3\nd=x\\\n   y\n\ne=\nf\\ g=\\u0041\\t\nh=a=b\n"
    assert parse_properties(text) == {
        "a": "1", "b": "2", "c": "3", "d": "xy", "e": "", "f g": "A\t", "h": "a=b",
    }  # fmt: skip


KAFKAS_OWN = """
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=localhost:9093
listeners=PLAINTEXT://:9092,CONTROLLER://:9093
inter.broker.listener.name=PLAINTEXT
advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT
num.network.threads=3
num.io.threads=8
socket.send.buffer.bytes=102400
socket.receive.buffer.bytes=102400
socket.request.max.bytes=104857600
log.dirs=/tmp/kraft-combined-logs
num.partitions=1
num.recovery.threads.per.data.dir=1
offsets.topic.replication.factor=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
log.retention.hours=168
log.segment.bytes=1073741824
log.retention.check.interval.ms=300000
"""


def test_the_file_kafka_ships_is_accepted_without_a_warning() -> None:
    """An existing installation's file works: a quorum of one, which spells itself out."""
    config, warnings = load_config(parse_properties(KAFKAS_OWN))
    assert warnings == []
    assert config.listeners == (Listener("PLAINTEXT", "", 9092),)
    assert config.advertised["PLAINTEXT"] == Listener("PLAINTEXT", "localhost", 9092)
    assert config.controller_listeners == (Listener("CONTROLLER", "", 9093),)
    assert config.is_alone
    assert config.topic_defaults["log.retention.hours"] == "168"


def test_defaults_are_kafkas_but_for_the_interface() -> None:
    """Nobody else reaches a broker without a password by accident."""
    config, _ = load_config({})
    assert config.listeners == (Listener("PLAINTEXT", "127.0.0.1", 9092),)
    assert (config.node_id, config.integer("socket.request.max.bytes")) == (1, 104857600)
    assert config.boolean("auto.create.topics.enable")


def test_an_unknown_name_is_warned_about() -> None:
    """A typo does not pass in silence."""
    assert load_config({"log.retention.hour": "1"})[1] == ["unknown setting log.retention.hour is ignored"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num.partitions": "many"}, "num.partitions"),
        ({"num.partitions": "0"}, "at least 1"),
        ({"default.replication.factor": "32768"}, "at most 32767"),
        ({"offsets.topic.segment.bytes": "1000"}, "at least 1048576"),
        ({"log.segment.bytes": "1000"}, "at least 1048576"),
        ({"log.cleaner.min.cleanable.ratio": "1.5"}, "at most 1"),
        ({"log.cleaner.min.cleanable.ratio": "-0.5"}, "at least 0"),
        ({"log.retention.hours": "soon"}, "log.retention.hours"),
        ({"log.retention.ms": "-2"}, "log.retention.ms"),
        ({"auto.create.topics.enable": "maybe"}, "true or false"),
        ({"listeners": "PLAINTEXT:9092"}, "NAME://HOST:PORT"),
        ({"listeners": "PLAINTEXT://localhost"}, "HOST:PORT"),
        ({"listeners": "SSL://localhost:9092"}, "SSL"),
        ({"listeners": "A://:1,A://:2", "listener.security.protocol.map": "A:PLAINTEXT"}, "twice"),
        ({"listeners": ""}, "no listener"),
        ({"advertised.listeners": "OTHER://h:1"}, "OTHER"),
        ({"inter.broker.listener.name": "ZZZ"}, "inter.broker.listener.name is ZZZ"),
        ({"inter.broker.listener.name": "PLAINTEXT", "controller.listener.names": "PLAINTEXT"}, "no listener"),
        ({"authorizer.class.name": "x.Y"}, "ACLs"),
        ({"sasl.enabled.mechanisms": "PLAIN"}, "SASL"),
        ({"ssl.keystore.location": "/k"}, "TLS"),
        ({"log.dirs": "/a,/b"}, "several directories"),
        ({"process.roles": "broker"}, "process.roles"),
        ({"process.roles": "controller"}, "only a controller"),
        (CONTROLLER | {"listeners": "PLAINTEXT://h:1"}, "only a controller"),
        (CONTROLLER | {"listeners": "CONTROLLER://h:1,PLAINTEXT://h:2"}, "PLAINTEXT"),
        (CONTROLLER | {"controller.quorum.voters": "a@h:1"}, "ID@HOST:PORT"),
        (CONTROLLER | {"controller.quorum.voters": "1@h:1,1@h:2"}, "twice"),
        ({"controller.quorum.voters": "1@a:1,2@b:1"}, "controller.listener.names"),
    ],
)
def test_what_cannot_be_or_must_not_be_ignored_is_refused(values: dict[str, str], message: str) -> None:
    """One sentence that names the setting."""
    with pytest.raises(UserError, match=message):
        load_config(values)


def test_the_listener_between_brokers_is_found_however_it_is_written() -> None:
    """Kafka compares names of listeners in capitals; a name that is not found would end replication."""
    config, _ = load_config({"inter.broker.listener.name": " plaintext"})
    assert replication_settings(config).listener == config.listeners[0].name


@pytest.mark.parametrize(
    ("text", "expected"),
    [("h:1", ("h", 1)), (":9092", ("", 9092)), ("[::1]:5", ("::1", 5)), ("0.0.0.0:0", ("0.0.0.0", 0))],
)
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    """Names, IPv6, every interface, any port."""
    assert parse_address(text, "x") == expected


@pytest.mark.parametrize("text", ["h", "h:", "h:x", "h:65536", "h:-1", "h:\u0661"])
def test_what_is_no_address_is_refused(text: str) -> None:
    """With the setting's name."""
    with pytest.raises(UserError, match="--listen"):
        parse_address(text, "--listen")


def test_a_controller_alone_has_its_own_listeners_and_is_told_of_the_others() -> None:
    """KRaft's settings, with Kafka's names."""
    config, warnings = load_config(
        CONTROLLER
        | {
            "node.id": "3",
            "controller.quorum.voters": "1@a:1,3@[::1]:3",
            "controller.quorum.bootstrap.servers": "a:1, b:2",
        }
    )
    assert not warnings
    assert not config.is_broker
    assert config.controller_listeners == (Listener("CONTROLLER", "127.0.0.1", 0),)
    assert config.quorum_voters == ((1, "a", 1), (3, "::1", 3))
    assert config.quorum_bootstrap == (("a", 1), ("b", 2))


def test_a_node_of_several_can_have_both_roles() -> None:
    """Its controller's listener is for other nodes, the rest is for clients."""
    values = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.listener.names": "CONTROLLER",
        "listeners": "PLAINTEXT://127.0.0.1:1,CONTROLLER://127.0.0.1:2",
        "controller.quorum.bootstrap.servers": "127.0.0.1:2,127.0.0.1:4",
    }
    config, _ = load_config(values)
    assert (config.is_broker, config.is_controller, config.is_alone) == (True, True, False)
    assert [listener.name for listener in config.listeners] == ["PLAINTEXT"]
    assert [listener.name for listener in config.controller_listeners] == ["CONTROLLER"]
    alone, _ = load_config(values | {"controller.quorum.bootstrap.servers": "127.0.0.1:2"})
    assert alone.is_alone


def test_a_broker_alone_looks_for_controllers_elsewhere() -> None:
    """It has no listener for them, and has to be told where they are."""
    values = {"process.roles": "broker", "controller.listener.names": "CTL"}
    config, _ = load_config(values | {"controller.quorum.voters": "9@h:1"})
    assert (config.is_broker, config.is_controller) == (True, False)
    assert config.controller_listener_name == "CTL"
    with pytest.raises(UserError, match="where its controllers are"):
        load_config(values)


def test_the_offsets_topic_gets_what_is_set_or_what_there_can_be() -> None:
    """A cluster that starts does not make do with fewer replicas for good; one node takes any file of Kafka's."""
    several = {
        "process.roles": "broker",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.bootstrap.servers": "127.0.0.1:9093",
    }
    by_default, _ = load_config(several)
    assert [by_default.offsets_replicas(active) for active in (0, 1, 2, 5)] == [1, 1, 2, 3]
    set_to_two, _ = load_config(several | {"offsets.topic.replication.factor": "2"})
    assert [set_to_two.offsets_replicas(active) for active in (1, 5)] == [2, 2]
    alone, _ = load_config({"offsets.topic.replication.factor": "3"})
    assert alone.offsets_replicas(1) == 1
