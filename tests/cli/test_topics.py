"""`streamlog topics`, `configs` and `groups` against a real broker."""

from __future__ import annotations

import asyncio
import json
import re

from streamlog.client.admin import Admin
from streamlog.client.values import OffsetAndMetadata, TopicPartition
from streamlog.env import real_env
from streamlog.state.changelog import ANY_TIME
from streamlog.streams.progress import Progress, decode_progress, encode_progress
from tests.cli.shell import Shell

PLACE = TopicPartition("ahead", 0)


def test_a_topic_is_created_listed_described_altered_and_deleted(on_broker: Shell) -> None:
    """The life of a topic, as its owner types it."""
    assert on_broker.ok("topics", "create", "life", "-p", "3", "-c", "retention.ms=1000") == (
        "Created life with 3 partitions.\n"
    )
    listed = {row["name"]: row for row in on_broker.run("topics", "list", "--json").json}
    assert listed["life"] == {"name": "life", "partitions": 3, "replicas": 1, "offsets": 0}
    (described,) = on_broker.run("topics", "describe", "life", "--json").json
    assert described["configs"] == {"retention.ms": "1000"}
    assert [one["partition"] for one in described["partitions"]] == [0, 1, 2]
    assert on_broker.ok("topics", "alter", "life", "-p", "4", "--unset", "retention.ms") == (
        "Changed life: retention.ms back to its default, 4 partitions.\n"
    )
    (described,) = on_broker.run("topics", "describe", "life", "--json").json
    assert described["configs"] == {}
    assert len(described["partitions"]) == 4
    assert on_broker.ok("topics", "delete", "life") == "Deleted life.\n"
    assert "life" not in {row["name"] for row in on_broker.run("topics", "list", "--json").json}


def test_listings_are_columns_for_people(on_broker: Shell) -> None:
    """Headings, numbers to the right, and nothing else."""
    on_broker.ok("topics", "create", "columns", "-p", "2")
    on_broker.ok("produce", "columns", "-q", stdin="a\nb\n")
    lines = on_broker.ok("topics", "list").splitlines()
    assert lines[0].split() == ["NAME", "PARTITIONS", "REPLICAS", "OFFSETS"]
    assert ["columns", "2", "1", "2"] in [line.split() for line in lines]


def test_topics_of_apps_are_described_without_numbers_that_mean_no_bound(on_broker: Shell) -> None:
    """Two settings of every such topic are one line for people, and what they are for programs."""
    settings = [f"--config={name}={value}" for name, value in ANY_TIME.items()]
    on_broker.ok("topics", "create", "of-an-app", "-p", "1", "-c", "retention.ms=-1", *settings)
    lines = on_broker.ok("topics", "describe", "of-an-app").splitlines()
    assert lines[1:3] == ["  retention.ms=-1", "  takes records of any time (message.timestamp.*.max.ms)"]
    (described,) = on_broker.run("topics", "describe", "of-an-app", "--json").json
    assert described["configs"] == {"retention.ms": "-1", **ANY_TIME}
    on_broker.ok("topics", "alter", "of-an-app", "--unset", "message.timestamp.before.max.ms")
    lines = on_broker.ok("topics", "describe", "of-an-app").splitlines()
    assert lines[1] == "  message.timestamp.after.max.ms=4611686018427387904"


def test_what_is_wrong_is_one_sentence_and_exit_code_1(on_broker: Shell) -> None:
    """A name that is taken, a name that is not there, a setting that nobody knows."""
    on_broker.ok("topics", "create", "taken")
    done = on_broker.run("topics", "create", "taken")
    assert (done.code, done.err) == (1, "streamlog: Topic 'taken' already exists (TOPIC_ALREADY_EXISTS)\n")
    done = on_broker.run("topics", "describe", "nowhere")
    assert done.code == 1
    assert done.err == "streamlog: topic 'nowhere' does not exist; create it first (UNKNOWN_TOPIC_OR_PARTITION)\n"
    done = on_broker.run("topics", "alter", "taken", "-c", "retention.days=7")
    assert done.code == 1
    assert "Unknown topic config name: retention.days" in done.err
    done = on_broker.run("topics", "alter", "taken", "-c", "retention.ms")
    assert (done.code, done.err) == (
        1,
        "streamlog: 'retention.ms' is not NAME=VALUE; for example: --config retention.ms=86400000\n",
    )


def test_a_broker_that_is_not_part_of_the_cluster_is_said_at_once(on_broker: Shell) -> None:
    """Nobody can answer for it, however long one asks."""
    for arguments in (("describe", "9"), ("alter", "9", "-c", "log.cleaner.threads=2")):
        done = on_broker.run("configs", *arguments)
        assert done.code == 1
        assert re.fullmatch(r"streamlog: broker 9 is not part of the cluster right now; its brokers: \d+\n", done.err)


def test_a_wrong_command_line_is_exit_code_2(on_broker: Shell) -> None:
    """And says how to get help."""
    done = on_broker.run("topics", "alter", "x")
    assert done.code == 2
    assert "nothing to change" in done.err
    done = on_broker.run("nonsense")
    assert done.code == 2
    assert "No such command 'nonsense'" in done.err
    assert "streamlog -A module:app COMMAND" in done.err


def test_a_broker_that_is_not_there_is_exit_code_3(shell: Shell) -> None:
    """Named with its address, and no traceback."""
    done = shell.run("topics", "list", "--broker", "kafka://127.0.0.1:1")
    assert done.code == 3
    assert "no broker answered at 127.0.0.1:1" in done.err
    assert "Traceback" not in done.err


def test_without_any_broker_the_message_says_how_to_name_one(shell: Shell) -> None:
    """There is no embedded log in this directory, and reading commands do not make one."""
    done = shell.run("topics", "list")
    assert done.code == 1
    assert "--broker HOST:PORT" in done.err
    assert "STREAMLOG_BROKER" in done.err
    assert not (shell.path / "streamlog-data").exists()


def test_groups_show_lag_and_their_offsets_can_be_reset(on_broker: Shell) -> None:
    """From a first read to a group that is gone."""
    on_broker.ok("topics", "create", "lagging", "-p", "1")
    on_broker.ok("produce", "lagging", "-q", stdin="".join(f"{number}\n" for number in range(10)))
    assert on_broker.ok("consume", "lagging", "-g", "readers", "--from-beginning", "-n", "4") == "0\n1\n2\n3\n"
    (group,) = on_broker.run("groups", "describe", "readers", "--json").json
    assert [(one["committed"], one["end"], one["lag"]) for one in group["partitions"]] == [(4, 10, 6)]
    assert "readers" in {row["group"] for row in on_broker.run("groups", "list", "--json").json}

    shown = on_broker.run("groups", "reset-offsets", "readers", "--all-topics", "--to-earliest", "--dry-run", "--json")
    assert shown.json == [{"topic": "lagging", "partition": 0, "before": 4, "after": 0}]
    (group,) = on_broker.run("groups", "describe", "readers", "--json").json
    assert group["partitions"][0]["committed"] == 4, "a dry run changes nothing"
    moved = on_broker.run("groups", "reset-offsets", "readers", "--topic", "lagging:0", "--shift-by", "-1", "--json")
    assert moved.json[0]["after"] == 3
    assert on_broker.ok("consume", "lagging", "-g", "readers", "-n", "1") == "3\n"

    assert on_broker.ok("groups", "delete", "readers") == "Deleted readers.\n"
    done = on_broker.run("groups", "describe", "readers")
    assert done.code == 1
    assert done.err == "streamlog: group 'readers' does not exist; `streamlog groups list` shows those that do\n"


def test_broker_settings_are_shown_with_where_they_come_from(on_broker: Shell) -> None:
    """Only those that were set, unless asked for all."""
    rows = {row["name"]: row for row in on_broker.run("configs", "describe", "1", "--json").json}
    assert rows["num.partitions"] == {"name": "num.partitions", "value": "2", "from": "file"}
    everything = json.loads(on_broker.ok("configs", "describe", "1", "--all", "--json"))
    assert len(everything) > len(rows)


def test_settings_of_all_brokers_are_changed_at_once(on_broker: Shell) -> None:
    """Such as the cluster's min.insync.replicas, which the first controller has written down."""

    def found() -> dict[str, str]:
        return {row["name"]: row["value"] for row in on_broker.run("configs", "describe", "all", "--json").json}

    assert found() == {"min.insync.replicas": "1"}
    done = on_broker.ok("configs", "alter", "all", "-c", "log.retention.ms=5")
    assert done == "Changed all brokers: log.retention.ms=5.\n"
    assert found() == {"min.insync.replicas": "1", "log.retention.ms": "5"}
    on_broker.ok("configs", "alter", "all", "--unset", "log.retention.ms")
    assert found() == {"min.insync.replicas": "1"}


def test_partitions_without_a_committed_offset_are_listed(on_broker: Shell) -> None:
    """A topic that grew after a group had read it: what nobody has read is no lag of 0."""
    on_broker.ok("topics", "create", "growing", "-p", "1")
    on_broker.ok("produce", "growing", "-q", stdin="a\nb\n")
    on_broker.ok("consume", "growing", "-g", "growers", "--from-beginning", "-n", "2")
    on_broker.ok("topics", "alter", "growing", "-p", "2")
    on_broker.ok("produce", "growing", "--partition", "1", "-q", stdin="c\n")
    (group,) = on_broker.run("groups", "describe", "growers", "--json").json
    assert [(one["partition"], one["committed"], one["end"], one["lag"]) for one in group["partitions"]] == [
        (0, 2, 2, 0),
        (1, None, 1, None),
    ]
    shown = on_broker.ok("groups", "describe", "growers").splitlines()
    assert shown[0] == "growers: Empty, 0 members, lag 0, and 1 partition without a committed offset"


def test_passing_over_a_record_leaves_agents_that_were_further_where_they_were(on_broker: Shell) -> None:
    """Only the agent that stood still moves; going back takes all of them back."""
    on_broker.ok("topics", "create", "ahead", "-p", "1")
    on_broker.ok("produce", "ahead", "-q", stdin="".join(f"{number}\n" for number in range(10)))

    async def commit() -> None:
        said = encode_progress(Progress(by="life", ahead={"slow": 4, "quick": 9}))
        async with Admin(on_broker.env["STREAMLOG_BROKER"], env=real_env()) as admin:
            await admin.alter_group_offsets("two-agents", {PLACE: OffsetAndMetadata(3, metadata=said)})

    async def committed() -> tuple[int, Progress]:
        async with Admin(on_broker.env["STREAMLOG_BROKER"], env=real_env()) as admin:
            found = (await admin.list_group_offsets("two-agents"))[PLACE]
            return found.offset, decode_progress(found.metadata)

    asyncio.run(commit())
    done = on_broker.run("groups", "reset-offsets", "two-agents", "--topic", "ahead:0", "--to-offset", "4")
    assert done.code == 0
    assert "All agents of the app that read these topics begin there" in done.err
    assert "none of them sees the records before (ahead-0: 3 to 3)" in done.err
    assert asyncio.run(committed()) == (4, Progress(ahead={"quick": 9}))
    on_broker.ok("groups", "reset-offsets", "two-agents", "--topic", "ahead:0", "--to-offset", "0")
    assert asyncio.run(committed()) == (0, Progress())
