"""A word count worker in a process of its own, to be killed:
`python -m tests.streams.worker_process BROKER NAME DIR`."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

from tests.streams.words import word_count


async def main(broker: str, name: str, data_dir: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with word_count(name).running(broker=broker, data_dir=data_dir, session_timeout_ms=6000):
        print("started", flush=True)
        await stop.wait()
    print("stopped", flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    asyncio.run(main(*sys.argv[1:4]))
