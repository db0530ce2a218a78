"""examples/windowed_alert.py on a worker."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

from examples.windowed_alert import Alert, Login, alerts, app, logins
from tests.examples.running import running

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
WINDOW_S = 600


def some_logins() -> list[Login]:
    """A day of six users, a minute or two out of order, which is within the grace."""
    draw = random.Random(7)
    seconds = [number * 20 + draw.uniform(-100, 100) for number in range(4_000)]
    return [
        Login(f"user{draw.randrange(6)}", draw.random() < 0.4, BEGIN + timedelta(seconds=round(second)))
        for second in seconds
    ]


def expected_alerts(sent: list[Login]) -> list[tuple[str, Alert]]:
    """The fifth failure of each user in each ten minutes, in the order of sending, which is the order of arrival."""
    failures: Counter[tuple[str, int]] = Counter()
    found = []
    for login in sent:
        window = login.user, int(login.at.timestamp()) // WINDOW_S
        failures[window] += not login.succeeded
        if not login.succeeded and failures[window] == 5:
            found.append((login.user, Alert(login.user, 5, login.at)))
    return found


async def test_alerts_once_per_user_and_window_and_leaves_out_what_is_late(tmp_path: Path) -> None:
    """Against a loop over all logins; failures that come hours late would be five more in a window."""
    sent = some_logins()
    expected = expected_alerts(sent)
    user = expected[0][0]
    late = [Login(user, False, BEGIN + timedelta(hours=1)) for _ in range(10)]
    async with running(app, "windowed_alert", tmp_path) as run:
        await run.send(logins, [(login.user, login, round(login.at.timestamp() * 1000)) for login in [*sent, *late]])
        await run.progress.until_done()
        found = await run.records(alerts)
    assert len(expected) > 20
    for name in {name for name, _ in expected} | {name for name, _ in found}:
        assert [one for key, one in found if key == name] == [one for key, one in expected if key == name]
