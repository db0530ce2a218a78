"""The workers' HTTP pages, as curl and browsers see them."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any, TypeAlias

import pytest

from tests.cli.shell import CARRIERS, Running, Shell, flight_line

Two: TypeAlias = tuple[Shell, list[Running], str]


def _get(endpoint: str, path: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(f"http://{endpoint}{path}", timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.fixture
def endpoints(running: Two) -> list[str]:
    return [worker.wait_for(r"web=http://(\S+)")[1] for worker in running[1]]


def test_every_worker_answers_for_every_key(endpoints: list[str]) -> None:
    """It asks the owner for what it does not have."""
    for endpoint in endpoints:
        for number, carrier in enumerate(CARRIERS, 1):
            status, body = _get(endpoint, f"/tables/delay_min/{carrier}")
            assert (status, body["key"], body["value"]) == (200, carrier, float(number))
            assert body["staleness"]["state"] == "running"


def test_scans_are_merged_and_paged(endpoints: list[str]) -> None:
    """Over all partitions by default, of one if asked, onwards from the cursor."""
    for endpoint in endpoints:
        keys: list[str] = []
        cursor = ""
        while True:
            status, body = _get(endpoint, f"/tables/delay_min?limit=3{cursor}")
            assert status == 200
            assert [one["partition"] for one in body["staleness"]] == [0, 1, 2, 3]
            keys += [row["key"] for row in body["rows"]]
            if body["cursor"] is None:
                break
            cursor = f"&cursor={body['cursor']}"
        assert set(CARRIERS) <= set(keys)
        assert keys == sorted(keys)
        parts = [_get(endpoint, f"/tables/delay_min?partition={number}")[1]["rows"] for number in range(4)]
        assert sorted(row["key"] for rows in parts for row in rows) == keys
    assert [row["key"] for row in _get(endpoints[0], "/tables/delay_min?prefix=A")[1]["rows"]] == ["AA", "AS"]


def test_windows_are_shown_with_their_times(endpoints: list[str]) -> None:
    """All of a key, or the one that contains a moment."""
    status, body = _get(endpoints[0], "/tables/departures/UA")
    assert status == 200
    window = {"start": "2013-01-01T04:00:00Z", "end": "2013-01-01T05:00:00Z"}
    assert {"key": "UA", "window": window, "value": 1} in body["rows"]
    status, body = _get(endpoints[0], "/tables/departures/UA?at=2013-01-01T04:59Z")
    assert (status, body["value"], body["window"]) == (200, 1, window)
    status, body = _get(endpoints[0], "/tables/departures/UA?at=1999-01-01")
    assert (status, body["code"]) == (404, "no_key")


def test_what_is_not_there_is_404_and_what_is_wrong_400(endpoints: list[str]) -> None:
    """With a sentence and a code."""
    status, body = _get(endpoints[0], "/tables/delay_min/nobody")
    assert (status, body["error"], body["code"]) == (404, "table delay_min has no key 'nobody'", "no_key")
    status, body = _get(endpoints[0], "/tables/nothing/UA")
    assert (status, body["code"]) == (404, "no_table")
    assert body["error"] == "app flights has no table 'nothing'; its tables: delay_min, departures, last_flight"
    status, body = _get(endpoints[0], "/tables/delay_min?limit=many")
    assert (status, body["error"]) == (400, "limit='many': expected a number from 1 to 10000")
    status, body = _get(endpoints[0], "/tables/delay_min?cursor=a")
    assert (status, body["code"]) == (400, "bad_request")
    status, body = _get(endpoints[0], "/tables/departures/UA?at=noon")
    assert (status, body["code"]) == (400, "bad_request")


def test_health_status_workers_and_tables_are_shown(endpoints: list[str]) -> None:
    """What load balancers, doctors and people ask."""
    assert _get(endpoints[0], "/health") == (200, {"healthy": True, "state": "running", "error": None})
    status = _get(endpoints[0], "/status")[1]
    assert status["app_id"] == "flights"
    assert len(status["tasks"]) == 2
    assert {one["endpoint"] for one in _get(endpoints[1], "/workers")[1]} == set(endpoints)
    tables = {one["name"]: one for one in _get(endpoints[0], "/tables")[1]}
    assert (tables["departures"]["kind"], tables["departures"]["window_size_ms"]) == ("windowed", 3_600_000)
    assert tables["delay_min"]["partitions"] == 4


def test_changes_are_streamed_one_a_line(shell: Shell) -> None:
    """For as long as the reader stays."""
    endpoint = shell.worker().wait_for(r"web=http://(\S+)")[1]
    with urllib.request.urlopen(f"http://{endpoint}/tables/delay_min/watch?key=YY", timeout=60) as changes:
        shell.ok("produce", "flights", "-s", ":", "-q", stdin=flight_line("YY", 2))
        change = json.loads(changes.readline())
    assert (change["key"], change["value"]) == ("YY", 2.0)


def test_a_server_on_loopback_answers_to_its_own_names_only(endpoints: list[str]) -> None:
    """A web page cannot read tables by pointing a name of its own at 127.0.0.1."""
    request = urllib.request.Request(f"http://{endpoints[0]}/tables", headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=30)
    with refused.value:
        assert refused.value.code == 400
    assert _get(endpoints[0].replace("127.0.0.1", "localhost"), "/health")[0] == 200


def test_keys_in_urls_are_the_records_own_bytes(endpoints: list[str]) -> None:
    """Percent-encoded text, slashes included, and keys named like pages by query."""
    status, body = _get(endpoints[0], "/tables/delay_min/a%2Fb%20%C3%BC")
    assert (status, body["error"]) == (404, "table delay_min has no key 'a/b ü'")
    status, body = _get(endpoints[0], "/tables/delay_min?key=watch")
    assert (status, body["error"]) == (404, "table delay_min has no key 'watch'")
    status, body = _get(endpoints[0], "/tables/delay_min/%FF")
    assert (status, body["code"]) == (400, "bad_request")
