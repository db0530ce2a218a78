"""Every flight that left New York in 2013, as tables that are always up to date.

Run it on the embedded log, or on Apache Kafka by saying so; nothing in this file changes:

    streamlog -A examples.flights worker
    streamlog -A examples.flights worker --broker kafka://localhost:9092

`make demo` runs workers of this app, loads a year of flights, and holds every table against pandas.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import streamlog

PARTITIONS = 4
FOREVER = {"retention.ms": "-1"}  # event times are in 2013; Kafka's default would delete them after a week
LATEST = {"cleanup.policy": "compact"}  # topics that are tables: the newest record of a key is its row


class Flight(streamlog.Record):
    carrier: str
    tailnum: str | None  # 2,512 flights have none: most of them never left
    origin: str
    scheduled_at: datetime  # the hour of the scheduled departure
    delay_min: float | None  # at departure; None: cancelled


class Airline(streamlog.Record):
    name: str


class Plane(streamlog.Record):
    manufacturer: str
    seats: int


class Weather(streamlog.Record):
    precipitation_in: float
    wind_mph: float | None


class Delay(streamlog.Record):
    """What the tables below keep: enough to know the mean, and to add one more flight."""

    flights: int = 0
    departed: int = 0
    late_min: float = 0.0  # all departed flights together; one that leaves early counts less than 0

    def __add__(self, other: Delay) -> Delay:
        return Delay(self.flights + other.flights, self.departed + other.departed, self.late_min + other.late_min)

    @property
    def mean_min(self) -> float | None:
        return self.late_min / self.departed if self.departed else None


class AirlineDelay(streamlog.Record):
    name: str | None
    delay: Delay


class MadeBy(streamlog.Record):
    manufacturer: str
    delay: Delay


class Under(streamlog.Record):
    sky: str
    delay: Delay


def delay_of(flight: Flight) -> Delay:
    return Delay(1, 0, 0.0) if flight.delay_min is None else Delay(1, 1, flight.delay_min)


def origin_hour(flight: Flight) -> str:
    """The key of the weather topic, such as "JFK 2013-01-01T10"."""
    return f"{flight.origin} {flight.scheduled_at.isoformat()[:13]}"


def made_by(pair: tuple[Flight, Plane]) -> MadeBy:
    flight, plane = pair
    return MadeBy(plane.manufacturer, delay_of(flight))


def under(pair: tuple[Flight, Weather]) -> Under:
    flight, weather = pair
    return Under("rain or snow" if weather.precipitation_in > 0 else "dry", delay_of(flight))


app = streamlog.App("flights", partitions=PARTITIONS)

# What comes in. Flights are keyed by tail number. The other topics are tables already, and are followed as such.
flights = app.topic(
    "flights", key=str, value=Flight, timestamp=Flight.scheduled_at, partitions=PARTITIONS, configs=FOREVER
)
airlines_topic = app.topic("airlines", key=str, value=Airline, partitions=PARTITIONS, configs=LATEST)
planes_topic = app.topic("planes", key=str, value=Plane, partitions=PARTITIONS, configs=LATEST)
weather_topic = app.topic("weather", key=str, value=Weather, partitions=PARTITIONS, configs=LATEST)

airlines = app.Table("airlines", key=str, value=Airline, source=airlines_topic)
planes = app.Table("planes", key=str, value=Plane, source=planes_topic)
weather = app.Table("weather", key=str, value=Weather, source=weather_topic)

# What is kept. The windows are in event time and never close: a bulk load brings flights out of order, because events
# that change their key come from every partition of the topic before. A live stream would say grace=timedelta(...).
delay_by_airline = app.Table(
    "delay_by_airline", key=str, value=AirlineDelay, default=lambda: AirlineDelay(None, Delay())
)
delay_by_manufacturer = app.Table("delay_by_manufacturer", key=str, value=Delay, default=Delay)
delay_by_sky = app.Table("delay_by_sky", key=str, value=Delay, default=Delay)
flights_per_hour = app.Table("flights_per_hour", key=str, value=int, default=int).tumbling(hours=1)
flights_per_day = app.Table("flights_per_day", key=str, value=int, default=int).tumbling(hours=24)  # days in UTC
delay_last_3h = app.Table("delay_last_3h", key=str, value=Delay, default=Delay).hopping(
    timedelta(hours=3), step=timedelta(hours=1)
)


@app.agent(flights.stream().group_by(Flight.carrier).left_join(airlines))
async def by_airline(stream: streamlog.Stream[str, tuple[Flight, Airline | None]]) -> None:
    """A row lives where the events of its key are: group_by brings each flight to the partition of its carrier."""
    async for flight, airline in stream:
        row = delay_by_airline[flight.carrier]
        name = row.name if airline is None else airline.name
        delay_by_airline[flight.carrier] = AirlineDelay(name, row.delay + delay_of(flight))


@app.agent(flights.stream().group_by(Flight.origin))
async def by_origin(stream: streamlog.Stream[str, Flight]) -> None:
    """`table[key] += x` adds to every window that holds the event's time: one hour, one day, three hopping windows."""
    async for flight in stream:
        flights_per_hour[flight.origin] += 1
        flights_per_day[flight.origin] += 1
        delay_last_3h[flight.origin] += delay_of(flight)


@app.agent(flights.stream().join(planes).map(made_by).group_by(MadeBy.manufacturer))
async def by_manufacturer(stream: streamlog.Stream[str, MadeBy]) -> None:
    """Flights meet their plane by tail number, the key of both, and only then change theirs."""
    async for flight in stream:
        delay_by_manufacturer[flight.manufacturer] += flight.delay


@app.agent(flights.stream().group_by(origin_hour, key=str).join(weather).map(under).group_by(Under.sky))
async def by_sky(stream: streamlog.Stream[str, Under]) -> None:
    """Two topics on the way: to the weather of this place and hour, and on to dry or not."""
    async for flight in stream:
        delay_by_sky[flight.sky] += flight.delay
