"""Says when somebody fails to log in five times within ten minutes.

    streamlog -A examples.windowed_alert worker

The windows are in event time, so the same logins give the same alerts, however late they arrive together: live, or a
day's worth at once. A login that comes more than five minutes late is left out.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import streamlog

FAILURES_TOLERATED = 4


class Login(streamlog.Record):
    user: str
    succeeded: bool
    at: datetime


class Alert(streamlog.Record):
    user: str
    failures: int
    at: datetime


app = streamlog.App("logins")
logins = app.topic("logins", key=str, value=Login, timestamp=Login.at, partitions=4)  # keyed by user
alerts = app.topic("login-alerts", key=str, value=Alert, partitions=4)
failures = app.Table("failures", key=str, value=int, default=int).tumbling(minutes=10, grace=timedelta(minutes=5))


@app.agent(logins.stream().filter(lambda login: not login.succeeded), sink=[alerts])
async def watch(stream: streamlog.Stream[str, Login]) -> AsyncIterator[Alert]:
    """What an agent yields goes to its sinks, under the key of the event."""
    async for login in stream:
        before = failures[login.user].current()  # in the window of this login's time, not of now
        failures[login.user] += 1
        if before == FAILURES_TOLERATED and failures[login.user].current() > before:  # once per user and window
            yield Alert(login.user, before + 1, login.at)
