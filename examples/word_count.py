"""Counts words. The smallest app that has all there is: a topic, two agents, a table.

streamlog -A examples.word_count worker

echo "to be or not to be" | streamlog produce lines
streamlog tables scan word-count counts
"""

from __future__ import annotations

import streamlog

app = streamlog.App("word-count")

# Lines of plain text, as `streamlog produce` and other tools write them; without format= values are JSON.
lines = app.topic("lines", value=str, format="raw", partitions=4)
counts = app.Table("counts", key=str, value=int, default=int)


@app.agent(lines)
async def split(stream: streamlog.Stream[str, str]) -> None:
    """One line in, one event per word out. The word is also the key, so that each word has a partition of its own."""
    async for line in stream:
        for word in line.lower().split():
            await count.cast(word, key=word)


@app.agent()
async def count(stream: streamlog.Stream[str, str]) -> None:
    """An agent without a topic gets one: `word-count-count`. All events of a word come to the same partition, where
    its row is."""
    async for word in stream:
        counts[word] += 1
