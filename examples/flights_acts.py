"""What `make demo` does (flights_demo.py): both acts, and the comparison with pandas."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from examples import flights_pandas
from examples.driving import Failed, Progress, SendRecord, Workers, opened, send_all
from examples.flights import airlines_topic, app, flights, planes_topic, weather_topic
from examples.flights_report import differences, read_tables, show
from streamlog.__main__ import end_at_once
from streamlog.client.admin import Admin
from streamlog.client.producer import Producer
from streamlog.env import real_env
from streamlog.errors import StreamlogError

BEFORE_ALL_MS = 1_356_998_400_000  # 2013-01-01T00:00Z: airlines and planes are known before the first flight
AHEAD = 40_000  # flights sent and not yet processed: enough to keep workers busy, few enough to stop one in the middle
AT_ONCE = 2_000
FLIGHTS_MIN = 100
DIFFERENCES_SHOWN = 40

console = Console(highlight=False, soft_wrap=True)


class Act:
    """Flights sent and processed so far: two bars on a terminal, lines elsewhere."""

    def __init__(self, total: int, progress: Progress) -> None:
        self.sent = 0
        self._total, self._progress = total, progress
        self._said_at_s = time.monotonic()
        self._bars = Bars(
            TextColumn("  {task.description:<10}"),
            BarColumn(40),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._sent_bar = self._bars.add_task("sent", total=total)
        self._processed_bar = self._bars.add_task("processed", total=total)

    @property
    def processed(self) -> int:
        return self._progress.committed.get(flights.name, 0)

    def __enter__(self) -> Self:
        if console.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if console.is_terminal:
            self._bars.stop()

    async def keep_showing(self) -> None:
        while True:
            self._bars.update(self._sent_bar, completed=self.sent)
            self._bars.update(self._processed_bar, completed=self.processed)
            if not console.is_terminal and time.monotonic() - self._said_at_s > 5:
                self._said_at_s = time.monotonic()
                print(f"  sent {self.sent:,}, processed {self.processed:,} of {self._total:,} flights", flush=True)
            await asyncio.sleep(0.1)

    async def send(self, producer: Producer, records: list[SendRecord]) -> None:
        """Send flights, never far ahead of the workers, so that they keep coming for as long as the act lasts."""
        ahead = min(AHEAD, len(records) // 4)
        for start in range(0, len(records), min(AT_ONCE, ahead)):
            await self._progress.until(lambda: self.sent - self.processed < ahead)
            self.sent += await send_all(producer, flights, records[start : start + min(AT_ONCE, ahead)])


async def play(workers: Workers, data: flights_pandas.Data) -> str:
    """Both acts. Returns the broker's address, with worker B still running."""
    records: list[SendRecord] = list(flights_pandas.flight_records(data.flights))
    workers.start("A")
    address = await workers.address()
    async with opened(address) as (admin, producer):
        progress = Progress(app, admin, workers)
        await progress.topics_made()
        sent = await send_all(producer, airlines_topic, flights_pandas.airline_records(data.airlines, BEFORE_ALL_MS))
        sent += await send_all(producer, planes_topic, flights_pandas.plane_records(data.planes, BEFORE_ALL_MS))
        sent += await send_all(producer, weather_topic, flights_pandas.weather_records(data.weather))
        console.print(f"Worker A runs on {address}. Sent {sent:,} airlines, planes and hours of weather.")
        with Act(len(records), progress) as act:
            showing = asyncio.create_task(act.keep_showing())
            await play_acts(act, progress, producer, workers, records)
            showing.cancel()
    return address


async def play_acts(
    act: Act, progress: Progress, producer: Producer, workers: Workers, records: list[SendRecord]
) -> None:
    half = len(records) // 2
    console.print(f"[bold]Act 1[/]  {half:,} flights for one worker, stopped and started again in the middle")
    async with asyncio.TaskGroup() as group:
        group.create_task(act.send(producer, records[:half]))
        await progress.until(lambda: act.processed > half // 2)
        await workers.stop("A")
        console.print(f"  worker A stopped cleanly after {act.processed:,} flights, and starts again")
        workers.start("A")
    await progress.until_done()
    console.print("[bold]Act 2[/]  a second worker joins; the first one leaves while flights keep coming")
    workers.start("B")
    await progress.until_members(2)
    async with asyncio.TaskGroup() as group:
        group.create_task(act.send(producer, records[half:]))
        await progress.until(lambda: act.processed > half + half // 2)
        await workers.stop("A")
        console.print(f"  worker A left after {act.processed:,} flights; worker B goes on alone")
    await progress.until_done()


async def refuse_leftovers(broker: str) -> None:
    """On a broker that is somebody's, the flights of an earlier run would be counted again."""
    async with Admin(broker, env=real_env()) as admin:
        left = sorted({node.name for node in app.topology().topics} & set(await admin.list_topics()))
    if left:
        raise Failed(f"{broker} has topics of an earlier run: {', '.join(left)}. Delete them and group {app.id} first.")


def run(workers: Workers, broker: str | None, flights_max: int | None) -> int:
    """Play, read, show, compare. Returns the exit code."""
    data = flights_pandas.load(flights_max)
    if broker is not None:
        asyncio.run(refuse_leftovers(broker))
    started_at_s = time.monotonic()
    address = asyncio.run(play(workers, data))
    played_s = time.monotonic() - started_at_s
    tables = read_tables(address)
    show(tables, console)
    expected = flights_pandas.expected_tables(data)
    wrong = list(differences(tables, expected))
    rows = sum(len(table) for table in expected.values())
    if wrong:
        console.print(f"[red]{len(wrong):,} of {rows:,} rows differ from pandas:[/]")
        for line in wrong[:DIFFERENCES_SHOWN]:
            console.print(f"  {line}", markup=False)
        return 1
    console.print(
        f"[green]All {rows:,} rows of {len(expected)} tables equal what pandas computes[/] "
        f"({len(data.flights):,} flights in {played_s:.0f} s)."
    )
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="flights_demo", description="Hold an app against pandas.")
    parser.add_argument("--broker", help="an Apache Kafka to run on; default an embedded log")
    parser.add_argument("--data-dir", type=Path, help="an empty directory; default a temporary one")
    parser.add_argument("--flights", type=int, metavar="N", help="send only about so many, from the whole year")
    arguments = parser.parse_args()
    if arguments.flights is not None and arguments.flights < FLIGHTS_MIN:
        parser.error(f"--flights {arguments.flights}: at least {FLIGHTS_MIN}, so that there is a middle to stop in")
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # ends as Ctrl-C does
    data_dir = arguments.data_dir or Path(tempfile.mkdtemp(prefix="streamlog-demo-"))
    data_dir.mkdir(parents=True, exist_ok=True)
    if any(data_dir.iterdir()):
        raise SystemExit(f"{data_dir} is not empty: the demo needs a directory of its own")
    workers = Workers("examples.flights", data_dir, arguments.broker)
    code = 2
    try:
        if signal.getsignal(signal.SIGINT) is end_at_once:  # from here on there is something to clean up
            signal.signal(signal.SIGINT, signal.default_int_handler)
        code = run(workers, arguments.broker, arguments.flights)
    except* (Failed, StreamlogError) as errors:
        console.print("[red]The demo failed.[/]")
        for error in errors.exceptions:
            print(error)
    except* KeyboardInterrupt:
        console.print("\nStopping the workers.")
        code = 130
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # ending takes a moment, and a bounded one
        workers.stop_all()
        if code in (0, 130):
            shutil.rmtree(data_dir, ignore_errors=True)
        else:
            print(f"Logs and data are kept in {data_dir}")
    return code
