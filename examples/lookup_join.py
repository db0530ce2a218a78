"""Prices orders: each with its customer, who may be anywhere, and with the rate of its currency.

    streamlog -A examples.lookup_join worker

Two kinds of tables that follow a topic. `customers` is split like the orders, by customer: join it by key. `rates` is
small and every worker has all of it: join it by any field.
"""

from __future__ import annotations

import streamlog


class Order(streamlog.Record):
    number: int
    customer: str
    currency: str
    cents: int


class Customer(streamlog.Record):
    name: str
    country: str


class Priced(streamlog.Record):
    number: int
    name: str
    country: str
    euro_cents: int


def priced(row: tuple[tuple[Order, float], Customer | None]) -> Priced:
    (order, rate), customer = row
    name, country = ("unknown", "unknown") if customer is None else (customer.name, customer.country)
    return Priced(order.number, name, country, round(order.cents * rate))


app = streamlog.App("prices")
orders = app.topic("orders", key=str, value=Order, partitions=4)  # keyed by customer
customers_topic = app.topic("customers", key=str, value=Customer, partitions=4, configs={"cleanup.policy": "compact"})
rates_topic = app.topic("rates", key=str, value=float, partitions=1, configs={"cleanup.policy": "compact"})

customers = app.Table("customers", key=str, value=Customer, source=customers_topic)
rates = app.GlobalTable("rates", key=str, value=float, source=rates_topic)
turnover = app.Table("turnover", key=str, value=int, default=int)  # euro cents by country

# join drops orders in a currency without a rate; left_join keeps orders of customers we do not know (yet).
in_euro = orders.stream().join(rates, on=Order.currency).left_join(customers).map(priced)


@app.agent(in_euro.group_by(Priced.country))
async def by_country(stream: streamlog.Stream[str, Priced]) -> None:
    async for order in stream:
        turnover[order.country] += order.euro_cents
