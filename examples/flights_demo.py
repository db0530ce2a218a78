"""`make demo`: the app in flights.py at work on a year of flights, and every table of it held against pandas.

The first act runs one worker, stops it cleanly in the middle and starts it again. The second adds a second worker and
stops the first one while flights keep coming. Then all tables are read through `streamlog.connect`, shown, and
compared; any difference is shown and makes the exit code 1.

    python -m examples.flights_demo [--broker kafka://HOST:PORT] [--data-dir DIR] [--flights N]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self, TypeAlias

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from examples import flights_pandas
from examples.flights import airlines_topic, app, flights, planes_topic, weather_topic
from examples.flights_report import differences, read_tables, show
from streamlog.client.admin import Admin
from streamlog.client.producer import Producer
from streamlog.client.values import TopicPartition
from streamlog.env import real_env
from streamlog.errors import StreamlogError
from streamlog.streams.topic import Topic

ROOT = Path(__file__).resolve().parent.parent
BEFORE_ALL_MS = 1_356_998_400_000  # 2013-01-01T00:00Z: airlines and planes are known before the first flight
AHEAD = 40_000  # flights sent and not yet processed: enough to keep workers busy, few enough to stop one in the middle
POLL_S = 0.25
STALLED_S = 60.0  # without any progress the demo gives up and shows what the workers said
STOP_S = 30.0

console = Console(highlight=False)

AnyRecord: TypeAlias = tuple[Any, Any, int]


class Failed(Exception):
    """The demo cannot go on; the message says why."""


# --- worker processes ---------------------------------------------------------------------------------------------


class Workers:
    """Worker processes of the app, each with a log file. None outlives `stop_all`."""

    def __init__(self, data_dir: Path, broker: str | None) -> None:
        self.data_dir = data_dir
        self._broker = broker
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        command = [sys.executable, "-m", "streamlog", "-A", "examples.flights", "worker", "--web", "127.0.0.1:0"]
        command += ["--data-dir", str(self.data_dir)]
        command += [] if self._broker is None else ["--broker", self._broker]
        with self._log(name).open("ab") as log:
            # A session of its own: Ctrl-C is for the demo, which then stops its workers in order.
            self._processes[name] = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=ROOT, start_new_session=True
            )

    async def stop(self, name: str) -> None:
        """Stop a worker as Ctrl-C would: it finishes the events in hand, commits, and leaves the group."""
        process = self._processes.pop(name)
        process.terminate()
        deadline_s = time.monotonic() + STOP_S
        while process.poll() is None and time.monotonic() < deadline_s:
            await asyncio.sleep(0.02)
        if process.poll() is None:
            process.kill()
            process.wait()
            raise Failed(f"worker {name} did not stop within {STOP_S:g} s\n{self.tail(name)}")
        if process.returncode != 0:
            raise Failed(f"worker {name} ended with exit code {process.returncode}\n{self.tail(name)}")

    def check(self) -> None:
        """Raises Failed when a worker ended by itself."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise Failed(f"worker {name} ended by itself, exit code {process.returncode}\n{self.tail(name)}")

    def tail(self, name: str) -> str:
        lines = self._log(name).read_text(errors="replace").splitlines()
        return "\n".join(f"  {name}: {line}" for line in lines[-15:])

    def tails(self) -> str:
        return "\n".join(self.tail(name) for name in sorted(self._processes))

    def stop_all(self) -> None:
        """End every worker, and the embedded log with them; kill what does not end in time."""
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()
        if self._broker is None:
            self._stop_log()

    def _log(self, name: str) -> Path:
        return self.data_dir / f"worker-{name}.log"

    # The embedded log ends by itself half a minute after its last client. Nobody should have to wait for that.

    def log_address(self) -> tuple[str, int] | None:
        """Where the embedded log listens, and its process id; None until it does."""
        try:
            announced = json.loads((self.data_dir / "log" / "broker.json").read_text())
        except (OSError, ValueError):
            return None
        return announced["listen"], announced["pid"]

    def _stop_log(self) -> None:
        found = self.log_address()
        if found is None:
            return
        deadline_s = time.monotonic() + STOP_S
        number = signal.SIGTERM
        try:
            while True:
                os.kill(found[1], number)
                time.sleep(0.05)
                number = signal.SIGTERM if time.monotonic() < deadline_s else signal.SIGKILL
        except ProcessLookupError:
            return


# --- what is happening --------------------------------------------------------------------------------------------


class Show:
    """Progress: two bars on a terminal, lines elsewhere."""

    def __init__(self, total: int) -> None:
        self.sent = self.processed = 0
        self._total = total
        self._said_at_s = 0.0
        self._bars = Progress(
            TextColumn("  {task.description:<10}"), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn(),
            console=console, transient=True,
        )  # fmt: skip
        self._sent = self._bars.add_task("sent", total=total)
        self._processed = self._bars.add_task("processed", total=total)

    def __enter__(self) -> Self:
        if console.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if console.is_terminal:
            self._bars.stop()

    def update(self) -> None:
        self._bars.update(self._sent, completed=self.sent)
        self._bars.update(self._processed, completed=self.processed)
        if not console.is_terminal and time.monotonic() - self._said_at_s > 5:
            self._said_at_s = time.monotonic()
            print(f"  sent {self.sent:,}, processed {self.processed:,} of {self._total:,} flights", flush=True)

    def say(self, text: str) -> None:
        console.print(text)


class Progressing:
    """How far the app is, as its group's committed offsets say."""

    def __init__(self, admin: Admin, workers: Workers, show: Show) -> None:
        self._admin, self._workers, self._show = admin, workers, show
        self._topics = sorted({name for lane in app.topology().lanes for name in lane.sources})
        self._moved_at_s = time.monotonic()
        self._seen: object = None
        self.processed = 0  # flights that have left the flights topic

    async def look(self) -> bool:
        """Whether everything that is in the log is processed and committed.

        Offsets are asked for before ends: what is committed includes its outputs, so that if nothing is left at the
        later moment, nothing was on its way at the earlier.
        """
        self._workers.check()
        offsets = await self._admin.list_group_offsets(app.id)
        committed = {partition: one.offset for partition, one in offsets.items() if partition.topic in self._topics}
        self.processed = sum(offset for one, offset in committed.items() if one.topic == flights.name)
        self._show.processed = self.processed
        self._show.update()
        if committed != self._seen:
            self._seen, self._moved_at_s = committed, time.monotonic()
        if time.monotonic() - self._moved_at_s > STALLED_S:
            raise Failed(f"nothing has moved for {STALLED_S:g} s\n{self._workers.tails()}")
        ends = await self._ends()
        return all(committed.get(partition, 0) == end for partition, end in ends.items())

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self.look()
            await asyncio.sleep(POLL_S)

    async def until_done(self, sent: int) -> None:
        while not (await self.look() and self.processed == sent):
            await asyncio.sleep(POLL_S)

    async def until_members(self, count: int) -> None:
        """Wait until the group is `count` workers, and at rest."""
        while True:
            self._workers.check()
            group = (await self._admin.describe_groups([app.id])).get(app.id)
            if group is not None and group.state == "Stable" and len(group.members) == count:
                return
            if time.monotonic() - self._moved_at_s > STALLED_S:
                raise Failed(f"the group did not come to {count} workers\n{self._workers.tails()}")
            await asyncio.sleep(POLL_S)

    async def _ends(self) -> dict[TopicPartition, int]:
        infos = await self._admin.describe_topics(self._topics)
        ends = {
            TopicPartition(name, number): -1 for name, info in infos.items() for number in range(len(info.partitions))
        }
        return {partition: found.offset for partition, found in (await self._admin.list_offsets(ends)).items()}


# --- sending ------------------------------------------------------------------------------------------------------


async def send_all(producer: Producer, topic: Topic[Any, Any], records: Iterable[AnyRecord]) -> int:
    """Send records with their keys and times, without asking for each one; returns how many."""
    await producer.partitions(topic.name)  # from here on the producer can tell partitions without waiting
    count = 0
    for key, value, timestamp_ms in records:
        key_bytes = None if key is None else topic.key_serde.encode(key)
        partition = producer.partition_for(topic.name, key_bytes)
        producer.append(topic.name, partition, key_bytes, topic.value_serde.encode(value), timestamp_ms)
        count += 1
        if count % 500 == 0:
            await producer.room()
    await producer.flush()
    return count


async def send_flights(producer: Producer, records: list[AnyRecord], show: Show, progress: Progressing) -> None:
    """Send flights, never far ahead of the workers, so that they keep coming for as long as the act lasts."""
    for start in range(0, len(records), 2_000):
        await progress.until(lambda: show.sent - progress.processed < AHEAD)
        show.sent += await send_all(producer, flights, records[start : start + 2_000])
        show.update()


# --- the acts -----------------------------------------------------------------------------------------------------


async def play(workers: Workers, broker: str | None, data: flights_pandas.Data) -> str:
    """Both acts. Returns the broker's address, with worker B still running."""
    records: list[AnyRecord] = list(flights_pandas.flight_records(data.flights))
    half = len(records) // 2
    console.print(f"[bold]Act 1[/]  one worker, {half:,} flights; stopped and started again in the middle")
    workers.start("A")
    address = broker or await log_of(workers)
    async with opened(address) as (admin, producer):
        await topics_of(admin, workers)
        sent = await send_all(producer, airlines_topic, flights_pandas.airline_records(data.airlines, BEFORE_ALL_MS))
        sent += await send_all(producer, planes_topic, flights_pandas.plane_records(data.planes, BEFORE_ALL_MS))
        sent += await send_all(producer, weather_topic, flights_pandas.weather_records(data.weather))
        console.print(f"  worker A runs on {address}; sent {sent:,} airlines, planes and hours of weather")
        with Show(len(records)) as show:
            progress = Progressing(admin, workers, show)
            sending = asyncio.create_task(send_flights(producer, records[:half], show, progress))
            await progress.until(lambda: progress.processed > half // 2 or sending.done())
            await workers.stop("A")
            show.say(f"  worker A stopped cleanly after {progress.processed:,} flights, and starts again")
            workers.start("A")
            await sending
            await progress.until_done(half)
            show.say("[bold]Act 2[/]  a second worker joins; the first one leaves while flights keep coming")
            workers.start("B")
            await progress.until_members(2)
            sending = asyncio.create_task(send_flights(producer, records[half:], show, progress))
            await progress.until(lambda: progress.processed > half + half // 2 or sending.done())
            await workers.stop("A")
            show.say(f"  worker A left after {progress.processed:,} flights; worker B goes on alone")
            await sending
            await progress.until_done(len(records))
    return address


@asynccontextmanager
async def opened(address: str) -> AsyncIterator[tuple[Admin, Producer]]:
    env = real_env()
    async with Admin(address, env=env) as admin, Producer(address, env=env, auto_create_topics=False) as producer:
        yield admin, producer


async def log_of(workers: Workers) -> str:
    deadline_s = time.monotonic() + STALLED_S
    while (found := workers.log_address()) is None:
        workers.check()
        if time.monotonic() > deadline_s:
            raise Failed(f"the embedded log did not start\n{workers.tails()}")
        await asyncio.sleep(0.05)
    return found[0]


async def topics_of(admin: Admin, workers: Workers) -> None:
    """Wait until the worker has created the app's topics."""
    wanted = {node.name for node in app.topology().topics}
    deadline_s = time.monotonic() + STALLED_S
    while not wanted <= set(await admin.list_topics()):
        workers.check()
        if time.monotonic() > deadline_s:
            raise Failed(f"the worker did not create its topics\n{workers.tails()}")
        await asyncio.sleep(0.1)


async def refuse_leftovers(broker: str) -> None:
    """On a broker that is somebody's, earlier runs would be counted again."""
    async with Admin(broker, env=real_env()) as admin:
        left = sorted({node.name for node in app.topology().topics} & set(await admin.list_topics()))
    if left:
        raise Failed(f"{broker} has topics of an earlier run: {', '.join(left)}. Delete them and group {app.id} first.")


# --- from the command line ----------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(prog="flights_demo", description=__doc__.splitlines()[0])
    parser.add_argument("--broker", help="an Apache Kafka to run on; default an embedded log")
    parser.add_argument("--data-dir", type=Path, help="an empty directory; default a temporary one")
    parser.add_argument("--flights", type=int, metavar="N", help="send only about so many, from the whole year")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # ends as Ctrl-C does
    data_dir = arguments.data_dir or Path(tempfile.mkdtemp(prefix="streamlog-demo-"))
    data_dir.mkdir(parents=True, exist_ok=True)
    if any(data_dir.iterdir()):
        raise SystemExit(f"{data_dir} is not empty: the demo needs a directory of its own")
    workers = Workers(data_dir, arguments.broker)
    code = 2
    try:
        code = run(workers, arguments.broker, arguments.flights)
    except (Failed, StreamlogError) as error:
        console.print("[red]The demo failed:[/]")
        print(error)
    except KeyboardInterrupt:
        console.print("\nStopping the workers.")
        code = 130
    finally:
        workers.stop_all()
        if code == 0 or code == 130:
            shutil.rmtree(data_dir, ignore_errors=True)
        else:
            console.print(f"Logs and data are kept in {data_dir}")
    return code


def run(workers: Workers, broker: str | None, flights_max: int | None) -> int:
    started_at_s = time.monotonic()
    data = flights_pandas.load(flights_max)
    if broker is not None:
        asyncio.run(refuse_leftovers(broker))
    address = asyncio.run(play(workers, broker, data))
    played_s = time.monotonic() - started_at_s
    tables = read_tables(address)
    show(tables, console)
    expected = flights_pandas.expected_tables(data)
    wrong = list(differences(tables, expected))
    rows = sum(len(table) for table in expected.values())
    if wrong:
        console.print(f"[red]{len(wrong)} of {rows:,} rows differ from pandas:[/]")
        for line in wrong[:40]:
            console.print(f"  {line}", markup=False)
        return 1
    console.print(
        f"[green]All {rows:,} rows of {len(expected)} tables equal what pandas computes[/] "
        f"({len(data.flights):,} flights in {played_s:.0f} s)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
