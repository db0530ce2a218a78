"""examples/lookup_join.py on a worker."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pandas as pd

from examples.lookup_join import Customer, Order, app, customers_topic, orders, rates_topic
from tests.examples.running import running

RATES = {"EUR": 1.0, "USD": 0.92, "SEK": 0.087}


async def test_prices_every_order_with_a_rate(tmp_path: Path) -> None:
    """Against two merges in pandas: inner with the rates, left with the customers."""
    draw = random.Random(3)
    people = {f"c{number}": Customer(f"Name {number}", f"country{number % 5}") for number in range(100)}
    placed = [
        Order(number, f"c{draw.randrange(120)}", draw.choice(["EUR", "USD", "SEK", "XXX"]), draw.randrange(100_000))
        for number in range(3_000)
    ]
    async with running(app, "lookup_join", tmp_path) as run:
        await run.send(rates_topic, [(currency, rate, 0) for currency, rate in RATES.items()])
        await run.send(customers_topic, [(key, person, 0) for key, person in people.items()])
        async with asyncio.timeout(30):  # a global table is read as it is now, so it has to be there first
            while len(await run.table("rates")) < len(RATES):
                await asyncio.sleep(0.05)
        await run.send(orders, [(order.customer, order, 1_000 + order.number) for order in placed])
        await run.progress.until_done()
        found = await run.table("turnover")
    rows = [(one.customer, one.cents, RATES[one.currency]) for one in placed if one.currency in RATES]
    frame = pd.DataFrame(rows, columns=["id", "cents", "rate"])
    frame["euro_cents"] = (frame["cents"] * frame["rate"]).round().astype(int)
    where = pd.DataFrame([(key, person.country) for key, person in people.items()], columns=["id", "country"])
    merged = frame.merge(where, on="id", how="left").fillna({"country": "unknown"})
    assert found == merged.groupby("country")["euro_cents"].sum().to_dict()
