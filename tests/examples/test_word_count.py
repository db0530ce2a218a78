"""examples/word_count.py on a worker."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from examples.word_count import app, lines
from tests.examples.running import running

TEXT = [f"to be or not to be that is question {number % 7}" for number in range(500)]


async def test_counts_every_word_of_every_line(tmp_path: Path) -> None:
    """Against a Counter."""
    async with running(app, "word_count", tmp_path) as run:
        await run.send(lines, [(None, line, 0) for line in TEXT])
        await run.progress.until_done()
        assert await run.table("counts") == Counter(" ".join(TEXT).split())
