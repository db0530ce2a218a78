"""The broker's settings, under Kafka's names and with Kafka's defaults.

Three kinds of names. `BROKER_CONFIGS` and the broker-side names of topic configs (`log.retention.hours`) do what they
do in Kafka. Names in `ACCEPTED_CONFIGS` tune machinery this broker does not have, thread counts for example: an
existing `server.properties` may keep them. Everything that would be wrong to ignore, security above all, is refused;
a name nobody knows is warned about, as Kafka does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from streamlog.broker.topic_configs import INT_MAX, LONG_MAX, TOPIC_CONFIGS, ConfigType, InvalidConfig, broker_names
from streamlog.errors import UserError

DEFAULT_LISTEN: Final = "127.0.0.1:9092"
"""Loopback, where Kafka's default is every interface: nobody else should reach a broker that asks for no password
because somebody tried it out."""

DEFAULT_NODE_ID: Final = 1

DEFAULT_CONTROLLER_LISTENER: Final = "CONTROLLER"


class BrokerSetting(NamedTuple):
    """One setting of the broker."""

    name: str
    type: ConfigType
    default: str
    documentation: str
    minimum: int | None = None
    maximum: int | None = None

    def validate(self, value: str) -> None:
        """Raise InvalidConfig when the broker cannot have this value."""
        reason: str | None = None
        if self.type is ConfigType.BOOLEAN:
            if value.strip().lower() not in ("true", "false"):
                reason = "expected true or false"
        elif self.type in (ConfigType.INT, ConfigType.SHORT, ConfigType.LONG):
            widest = LONG_MAX if self.type is ConfigType.LONG else INT_MAX if self.type is ConfigType.INT else 32767
            try:
                number = int(value.strip())
            except ValueError:
                reason = f"not a number of type {self.type.name}"
            else:
                maximum = widest if self.maximum is None else self.maximum
                if self.minimum is not None and number < self.minimum:
                    reason = f"must be at least {self.minimum}"
                elif not -widest - 1 <= number <= maximum:
                    reason = f"must be at most {maximum}"
        if reason is not None:
            raise InvalidConfig(f"Invalid value {value} for configuration {self.name}: {reason}")


_B, _S, _H, _I, _L = ConfigType.BOOLEAN, ConfigType.STRING, ConfigType.SHORT, ConfigType.INT, ConfigType.LONG

_ROWS = (
    BrokerSetting("advertised.listeners", ConfigType.LIST, "", "Addresses given to clients; default: the listeners."),
    BrokerSetting("auto.create.topics.enable", _B, "true", "Create a topic when a client asks for its metadata."),
    BrokerSetting("auto.leader.rebalance.enable", _B, "true", "Preferred replicas get their leaderships back."),
    BrokerSetting("broker.heartbeat.interval.ms", _I, "500", "How often a broker tells the controller it lives.", 1),
    BrokerSetting("broker.rack", _S, "", "Where the broker stands, for rack-aware assignment."),
    BrokerSetting("broker.session.timeout.ms", _I, "3000", "Silence after which a broker is taken for dead.", 1),
    BrokerSetting("connections.max.idle.ms", _L, "600000", "Close a connection that is idle for longer.", 1),
    BrokerSetting("controller.quorum.auto.join.enable", _B, "false", "A controller makes itself a voter."),
    BrokerSetting("controller.quorum.bootstrap.servers", ConfigType.LIST, "", "Where to look for the quorum."),
    BrokerSetting("controller.quorum.election.backoff.max.ms", _I, "1000", "Longest pause after a lost election.", 0),
    BrokerSetting("controller.quorum.election.timeout.ms", _I, "1000", "How long to wait for a leader.", 1),
    BrokerSetting("controller.quorum.fetch.max.bytes", _I, "1048576", "Of metadata in one answer.", 1),
    BrokerSetting("controller.quorum.fetch.snapshot.max.bytes", _I, "1048576", "Of a snapshot in one answer.", 1),
    BrokerSetting("controller.quorum.fetch.timeout.ms", _I, "1500", "How long a leader may be silent.", 1),
    BrokerSetting("controller.quorum.request.timeout.ms", _I, "2000", "How long to wait for an answer.", 1),
    BrokerSetting("controller.quorum.retry.backoff.ms", _I, "20", "Pause after an answer that did not come.", 1),
    BrokerSetting("controller.quorum.voters", ConfigType.LIST, "", "Voters that do not change: ID@HOST:PORT."),
    BrokerSetting("default.replication.factor", _I, "1", "Replication factor of topics that name none.", 1, 32767),
    BrokerSetting("delete.topic.enable", _B, "true", "Whether topics can be deleted."),
    BrokerSetting("fetch.max.bytes", _I, "57671680", "The most one fetch response carries.", 1024),
    BrokerSetting("group.initial.rebalance.delay.ms", _I, "3000", "How long a new group waits for more members.", 0),
    BrokerSetting("group.max.session.timeout.ms", _I, "1800000", "Longest session timeout of a member.", 1),
    BrokerSetting("group.max.size", _I, "2147483647", "Most members of a group.", 1),
    BrokerSetting("group.min.session.timeout.ms", _I, "6000", "Shortest session timeout of a member.", 1),
    BrokerSetting("inter.broker.listener.name", _S, "", "By which of their listeners brokers reach each other."),
    BrokerSetting("listeners", ConfigType.LIST, f"PLAINTEXT://{DEFAULT_LISTEN}", "Addresses the broker listens on."),
    BrokerSetting("leader.imbalance.check.interval.seconds", _I, "300", "How often leaderships are given back.", 1),
    BrokerSetting("log.cleaner.backoff.ms", _L, "15000", "Pause of the cleaner when nothing is to be cleaned.", 0),
    BrokerSetting("log.cleaner.enable", _B, "true", "Whether compacted topics are compacted."),
    BrokerSetting("log.dirs", ConfigType.LIST, "", "The data directory; exactly one."),
    BrokerSetting(
        "log.flush.offset.checkpoint.interval.ms", _I, "60000", "How often recovery points are written.", 0
    ),
    BrokerSetting("log.retention.check.interval.ms", _L, "300000", "How often retention is applied.", 1),
    BrokerSetting("max.connections", _I, "2147483647", "Most connections at a time.", 0),
    BrokerSetting("max.connections.per.ip", _I, "2147483647", "Most connections of one address at a time.", 0),
    BrokerSetting("max.incremental.fetch.session.cache.slots", _I, "1000", "Most fetch sessions kept.", 0),
    BrokerSetting("max.request.partition.size.limit", _I, "2000", "Most partitions DescribeTopicPartitions gives.", 1),
    BrokerSetting("metadata.log.max.record.bytes.between.snapshots", _L, "20971520", "When metadata is snapshot.", 1),
    BrokerSetting("node.id", _I, str(DEFAULT_NODE_ID), "The broker's number in its cluster.", 0),
    BrokerSetting("num.partitions", _I, "1", "Partitions of topics that name no number.", 1),
    BrokerSetting("offset.metadata.max.bytes", _I, "4096", "Longest metadata of a committed offset.", 0),
    BrokerSetting("offsets.retention.check.interval.ms", _L, "600000", "How often offsets are expired.", 1),
    BrokerSetting("offsets.retention.minutes", _I, "10080", "How long an empty group's offsets are kept.", 1),
    BrokerSetting("offsets.topic.num.partitions", _I, "50", "Partitions of __consumer_offsets.", 1),
    BrokerSetting("offsets.topic.replication.factor", _H, "3", "Replicas of __consumer_offsets. [at most 3]"),
    BrokerSetting("offsets.topic.segment.bytes", _I, "104857600", "Segment size of __consumer_offsets.", 1048576),
    BrokerSetting("producer.id.expiration.ms", _I, "86400000", "When an idle producer's state is forgotten.", 1),
    BrokerSetting("replica.fetch.backoff.ms", _I, "1000", "Longest pause of a follower that cannot fetch.", 1),
    BrokerSetting("replica.fetch.max.bytes", _I, "1048576", "The most a follower fetches of one partition.", 0),
    BrokerSetting("replica.fetch.min.bytes", _I, "1", "What a follower's fetch waits for.", 0),
    BrokerSetting("replica.fetch.response.max.bytes", _I, "10485760", "The most a follower fetches at a time.", 1),
    BrokerSetting("replica.fetch.wait.max.ms", _I, "500", "How long a follower's fetch waits for records.", 1),
    BrokerSetting("replica.lag.time.max.ms", _L, "30000", "A follower that lags for longer leaves the ISR.", 1),
    BrokerSetting("replica.selector.class", _S, "", "How consumers are sent to a nearer replica (KIP-392)."),
    BrokerSetting("replica.socket.timeout.ms", _I, "30000", "How long a follower waits for its leader's answer.", 1),
    BrokerSetting("socket.request.max.bytes", _I, "104857600", "Largest request.", 1),
)  # fmt: skip

BROKER_CONFIGS: Final[Mapping[str, BrokerSetting]] = {row.name: row for row in _ROWS}

OTHER_NAMES: Final = {"broker.id": "node.id", "log.dir": "log.dirs"}
"""Older names of two of them."""

ACCEPTED_CONFIGS: Final = frozenset(
    {
        "alter.log.dirs.replication.quota.window.num",
        "background.threads",
        "controlled.shutdown.enable",
        "controller.listener.names",
        "controller.socket.timeout.ms",
        "listener.security.protocol.map",
        "log.cleaner.dedupe.buffer.size",
        "log.cleaner.io.buffer.load.factor",
        "log.cleaner.io.buffer.size",
        "log.cleaner.io.max.bytes.per.second",
        "log.cleaner.threads",
        "log.flush.start.offset.checkpoint.interval.ms",
        "max.connection.creation.rate",
        "num.io.threads",
        "num.network.threads",
        "num.recovery.threads.per.data.dir",
        "num.replica.alter.log.dirs.threads",
        "num.replica.fetchers",
        "offsets.commit.timeout.ms",
        "offsets.load.buffer.size",
        "offsets.topic.compression.codec",
        "process.roles",
        "queued.max.requests",
        "replica.high.watermark.checkpoint.interval.ms",
        "request.timeout.ms",
        "socket.listen.backlog.size",
        "socket.receive.buffer.bytes",
        "socket.send.buffer.bytes",
    }
)
"""Settings of machinery this broker does not have, or has without knobs. Accepted without a word."""

ACCEPTED_PREFIXES: Final = (
    "controller.quorum.", "group.consumer.", "group.coordinator.", "group.share.", "group.streams.", "metadata.",
    "metric", "quota.", "replica.", "replication.quota.", "share.coordinator.", "transaction", "transactional.",
    "delete.records.purgatory.", "fetch.purgatory.", "producer.purgatory.", "remote.log.",
)  # fmt: skip
"""Families of such settings."""

REFUSED_PREFIXES: Final = ("ssl.", "sasl.", "authorizer.", "delegation.token.", "security.", "principal.builder.")
"""Ignoring one of these would leave open what its author believes is closed."""


class Listener(NamedTuple):
    name: str
    host: str
    """Empty: every interface."""
    port: int


@dataclass(frozen=True, slots=True)
class BrokerConfig:
    """Validated settings. `values` holds what was set; the getters fall back to the defaults."""

    values: Mapping[str, str] = field(default_factory=dict)
    listeners: tuple[Listener, ...] = (Listener("PLAINTEXT", "127.0.0.1", 9092),)
    advertised: Mapping[str, Listener] = field(default_factory=dict)
    """By listener name, where it differs from the listener itself. Port 0 means the listener's own."""
    is_broker: bool = True
    is_controller: bool = True
    controller_listeners: tuple[Listener, ...] = ()
    """By which the quorum's replicas and all brokers reach this node, in the order of controller.listener.names."""
    controller_listener_name: str = DEFAULT_CONTROLLER_LISTENER
    """The one by which this node reaches controllers."""
    quorum_voters: tuple[tuple[int, str, int], ...] = ()
    """controller.quorum.voters: number, host, port. Empty where the quorum's own log says who votes."""
    quorum_bootstrap: tuple[tuple[str, int], ...] = ()
    """controller.quorum.bootstrap.servers."""

    def offsets_replicas(self, active: int) -> int:
        """How many replicas __consumer_offsets gets while so many brokers are alive.

        As many as the setting says, if it is set: a cluster that has just begun to start must not make do with fewer
        for good, and who asks for a group meanwhile asks again. By default as many as there can be, at most three:
        Kafka's default of three leaves small clusters without groups.
        """
        wanted = self.integer("offsets.topic.replication.factor")
        if "offsets.topic.replication.factor" in self.values and not self.is_alone:
            return wanted
        return max(1, min(wanted, active))

    @property
    def is_alone(self) -> bool:
        """A quorum of one, as far as the settings say: no other node is named."""
        return not self.quorum_voters and not self.quorum_bootstrap

    def text(self, name: str) -> str:
        return self.values.get(name, BROKER_CONFIGS[name].default)

    def integer(self, name: str) -> int:
        return int(self.text(name))

    def boolean(self, name: str) -> bool:
        return self.text(name).strip().lower() == "true"

    @property
    def node_id(self) -> int:
        return self.integer("node.id")

    @property
    def topic_defaults(self) -> Mapping[str, str]:
        """What `LogConfig.from_topic` takes: the broker-side names of topic configs."""
        return self.values


def parse_properties(text: str) -> dict[str, str]:
    """Read a Java properties file: `name=value` lines, `#` and `!` comments, a backslash continues a line."""
    values: dict[str, str] = {}
    for line in _logical_lines(text):
        match = re.match(r"((?:\\.|[^\\=:\s])*)\s*[=:\s]?\s*(.*)", line, re.DOTALL)
        assert match is not None, "the pattern matches every line"
        values[_unescape(match[1])] = _unescape(match[2])
    return values


def _logical_lines(text: str) -> Iterator[str]:
    pending = ""
    for raw in text.splitlines():
        line = raw.lstrip()
        if not pending and (not line or line[0] in "#!"):
            continue
        line = pending + line
        if (len(line) - len(line.rstrip("\\"))) % 2:
            pending = line[:-1]
            continue
        pending = ""
        yield line.rstrip()
    if pending:
        yield pending


_ESCAPES: Final = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    return re.sub(
        r"\\(u[0-9a-fA-F]{4}|.)",
        lambda m: chr(int(m[1][1:], 16)) if len(m[1]) == 5 else _ESCAPES.get(m[1], m[1]),
        text,
        flags=re.DOTALL,
    )


def is_known_setting(name: str) -> bool:
    """Whether a properties file may have it: taken, accepted without a word, or refused for what it would mean."""
    return (
        name in BROKER_CONFIGS
        or name in broker_names()
        or name in OTHER_NAMES
        or name in ACCEPTED_CONFIGS
        or name.startswith((*ACCEPTED_PREFIXES, *REFUSED_PREFIXES))
    )


def load_config(values: Mapping[str, str]) -> tuple[BrokerConfig, list[str]]:
    """Validate settings. Returns the config, and warnings for the log.

    Raises UserError for a value that cannot be, and for a setting that must not be ignored.
    """
    known_topic_names = frozenset(broker_names())
    kept: dict[str, str] = {}
    warnings: list[str] = []
    for name, value in values.items():
        if name in OTHER_NAMES:
            kept.setdefault(OTHER_NAMES[name], value)
        elif name in BROKER_CONFIGS or name in known_topic_names:
            kept[name] = value
        elif name.startswith(REFUSED_PREFIXES):
            if not _is_off(name, value):
                raise UserError(
                    f"{name} is set, and this broker has no TLS, SASL or ACLs yet; remove it if a PLAINTEXT "
                    "listener is really what you want"
                )
        elif name not in ACCEPTED_CONFIGS and not name.startswith(ACCEPTED_PREFIXES):
            warnings.append(f"unknown setting {name} is ignored")
    _validate(kept)
    return _with_roles(values, kept), warnings


def _with_roles(values: Mapping[str, str], kept: Mapping[str, str]) -> BrokerConfig:
    """Listeners and the quorum, as KRaft's settings have them (KIP-631, KIP-853)."""
    is_broker, is_controller = _roles(values)
    names = [name.strip().upper() for name in values.get("controller.listener.names", "").split(",") if name.strip()]
    named = _parse_listeners("listeners", kept.get("listeners", BROKER_CONFIGS["listeners"].default))
    told = _parse_listeners("advertised.listeners", kept.get("advertised.listeners", ""))
    advertised = {listener.name: listener for listener in told}
    security = dict.fromkeys(names, "PLAINTEXT") | _security_map(values.get("listener.security.protocol.map", ""))
    _validate_listeners(named, advertised, security)
    by_name = {listener.name: listener for listener in named}
    for_clients = tuple(listener for listener in named if listener.name not in names)
    for_controllers = tuple(by_name[name] for name in names if name in by_name)
    if is_broker and not for_clients:
        raise UserError("listeners names no listener for clients; add one, PLAINTEXT://127.0.0.1:9092 for example")
    if not is_broker and for_clients:
        raise UserError(f"{for_clients[0].name} is no controller's listener, and this node is only a controller")
    between = inter_broker_listener(kept)
    if is_broker and between and between not in {listener.name for listener in for_clients}:
        raise UserError(
            f"inter.broker.listener.name is {between}, which is no listener of this broker: its own are "
            f"{', '.join(listener.name for listener in for_clients)}"
        )
    if not is_controller and for_controllers:
        raise UserError(f"{for_controllers[0].name} is a controller's listener, and this node is no controller")
    config = BrokerConfig(
        kept,
        for_clients,
        advertised,
        is_broker=is_broker,
        is_controller=is_controller,
        controller_listeners=for_controllers,
        controller_listener_name=names[0] if names else DEFAULT_CONTROLLER_LISTENER,
        quorum_voters=_parse_voters(kept.get("controller.quorum.voters", "")),
        quorum_bootstrap=tuple(
            parse_address(part.strip(), "controller.quorum.bootstrap.servers")
            for part in kept.get("controller.quorum.bootstrap.servers", "").split(",")
            if part.strip()
        ),
    )
    if is_controller and _names_only_itself(config):
        return replace(config, quorum_voters=(), quorum_bootstrap=())
    missing = [name for name in names if name not in by_name]
    if is_controller and (missing or not names) and not (is_broker and config.is_alone):
        raise UserError(
            f"controller.listener.names names {missing[0] if missing else 'no listener'}; listeners has {list(by_name)}"
        )
    if not is_controller and config.is_alone:
        raise UserError(
            "process.roles is broker, and neither controller.quorum.bootstrap.servers nor "
            "controller.quorum.voters says where its controllers are"
        )
    return config


def inter_broker_listener(values: Mapping[str, str]) -> str:
    """The name as listeners have it; "": none is named."""
    return values.get("inter.broker.listener.name", "").strip().upper()


def _names_only_itself(config: BrokerConfig) -> bool:
    """Whether the settings spell out a quorum of one, as the server.properties that Kafka comes with does."""
    if any(number != config.node_id for number, _, _ in config.quorum_voters):
        return False
    mine = [*config.controller_listeners]
    mine += [config.advertised[listener.name] for listener in mine if listener.name in config.advertised]
    here = {"localhost", "127.0.0.1", "::1", *(listener.host for listener in mine)}
    ports = {listener.port for listener in mine}
    return all(host in here and port in ports for host, port in config.quorum_bootstrap)


def _validate(values: Mapping[str, str]) -> None:
    for name, value in values.items():
        try:
            if name in BROKER_CONFIGS:
                BROKER_CONFIGS[name].validate(value)
            else:
                validate_topic_default(name, value)
        except InvalidConfig as error:
            raise UserError(str(error)) from None
    if len([part for part in values.get("log.dirs", "").split(",") if part.strip()]) > 1:
        raise UserError("log.dirs names several directories; this broker keeps its data in one")


def validate_topic_default(name: str, value: str) -> None:
    """A broker-side name of a topic config is held to that config's limits, in its own unit."""
    for row in TOPIC_CONFIGS.values():
        for synonym in row.synonyms:
            if synonym.broker_name != name:
                continue
            try:
                scaled = value if synonym.factor == 1 or int(value) < 0 else str(int(value) * synonym.factor)
            except ValueError:
                raise InvalidConfig(f"Invalid value {value} for configuration {name}: not a number") from None
            try:
                row.validate(scaled)
            except InvalidConfig as error:
                raise InvalidConfig(
                    str(error).replace(f"configuration {row.name}:", f"configuration {name}:")
                ) from None


def _roles(values: Mapping[str, str]) -> tuple[bool, bool]:
    """Whether this node is a broker, and whether it is a controller."""
    roles = {role.strip() for role in values.get("process.roles", "broker,controller").split(",") if role.strip()}
    if not roles or not roles <= {"broker", "controller"}:
        raise UserError(
            f"process.roles is {values['process.roles']!r}; a node is broker, controller, or broker,controller"
        )
    return "broker" in roles, "controller" in roles


def _parse_voters(text: str) -> tuple[tuple[int, str, int], ...]:
    found: list[tuple[int, str, int]] = []
    for part in (part.strip() for part in text.split(",")):
        if not part:
            continue
        number, separator, address = part.partition("@")
        if not separator or not number.isascii() or not number.isdigit():
            raise UserError(f"controller.quorum.voters: {part!r} is not ID@HOST:PORT")
        found.append((int(number), *parse_address(address, "controller.quorum.voters")))
    if len({number for number, _, _ in found}) < len(found):
        raise UserError("controller.quorum.voters names one node twice")
    return tuple(found)


def _validate_listeners(
    listeners: list[Listener], advertised: Mapping[str, Listener], security: Mapping[str, str]
) -> None:
    if len({listener.name for listener in listeners}) < len(listeners):
        raise UserError("listeners names one listener twice; give each its own name")
    for listener in listeners:
        protocol = security.get(listener.name, listener.name)
        if protocol != "PLAINTEXT":
            raise UserError(f"listener {listener.name} wants {protocol}; this broker speaks PLAINTEXT so far")
    for name in advertised:
        if name not in {listener.name for listener in listeners}:
            raise UserError(f"advertised.listeners names {name}, which is not among listeners")


def _security_map(text: str) -> dict[str, str]:
    entries = (part.strip().split(":") for part in text.split(",") if part.strip())
    return {entry[0]: entry[1] for entry in entries if len(entry) == 2}


def _parse_listeners(setting: str, text: str) -> list[Listener]:
    listeners: list[Listener] = []
    for part in (part.strip() for part in text.split(",")):
        if not part:
            continue
        name, separator, address = part.partition("://")
        if not separator:
            raise UserError(f"{setting}: {part!r} is not NAME://HOST:PORT")
        host, port = parse_address(address, setting)
        listeners.append(Listener(name.upper(), host, port))
    return listeners


def parse_address(text: str, setting: str) -> tuple[str, int]:
    """`HOST:PORT`, `[IPV6]:PORT` or `:PORT`. Raises UserError naming the setting."""
    host, separator, port = text.rpartition(":")
    if not separator or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise UserError(f"{setting}: {text!r} is not HOST:PORT; 127.0.0.1:9092 would be one, port 0 picks a free one")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _is_off(name: str, value: str) -> bool:
    """Security settings that say "none", which is what there is."""
    return value.strip() in ("", "none", "PLAINTEXT") or name == "ssl.endpoint.identification.algorithm"
