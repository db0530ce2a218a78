"""When rows may miss a deletion, as arithmetic."""

from __future__ import annotations

from streamlog.state.freshness import LOOK_MS_MAX, LOOK_MS_MIN, SHOWN_FOR_EVER_MS, Freshness, look_ms

DAY_MS = 24 * 3_600_000


def test_rows_are_as_fresh_as_the_oldest_end_that_they_reached() -> None:
    """The time of asking counts, not that of arriving; later ends wait until the first was reached."""
    fresh = Freshness(100)
    fresh.saw_end(20, 200, 10)
    fresh.saw_end(30, 300, 15)
    assert fresh.reached(19) == 100
    assert fresh.reached(20) == 200
    fresh.saw_end(30, 400, 25)
    assert fresh.at_ms == 200
    assert fresh.reached(31) == 400
    fresh.saw_end(31, 500, 31)
    assert fresh.at_ms == 500


def test_a_deletion_may_be_missing_after_the_time_that_it_is_shown() -> None:
    """Not before, and never while reading began with nothing."""
    fresh = Freshness(0)
    assert not fresh.missed(DAY_MS, DAY_MS)
    assert fresh.missed(DAY_MS + 1, DAY_MS)
    assert not fresh.missed(2**60, SHOWN_FOR_EVER_MS)
    filling = Freshness(0, filling=True)
    assert not filling.missed(10 * DAY_MS, DAY_MS)
    filling.saw_end(5, 0, 0)
    assert not filling.missed(10 * DAY_MS, DAY_MS)
    filling.reached(5)
    assert filling.missed(10 * DAY_MS, DAY_MS)


def test_who_follows_looks_often_enough_not_to_take_an_idle_topic_for_an_absence() -> None:
    """Whatever a topic's setting, several looks come before the time is up."""
    for shown_ms in (0, 1, 100, 1_000, 10_000, 60_000, DAY_MS, 7 * DAY_MS):
        fresh = Freshness(0)
        fresh.saw_end(0, 0, 0)
        assert LOOK_MS_MIN <= look_ms(shown_ms) <= LOOK_MS_MAX
        assert not fresh.due(look_ms(shown_ms) - 1, shown_ms)
        assert fresh.due(look_ms(shown_ms), shown_ms)
        assert fresh.due(-1, shown_ms)  # somebody set the clock back
        assert not fresh.missed(4 * look_ms(shown_ms), shown_ms)


def test_ends_of_topics_whose_deletions_last_are_not_asked_for() -> None:
    """There is nothing to be found out."""
    assert Freshness(0).due(0, DAY_MS)
    assert not Freshness(0).due(DAY_MS, SHOWN_FOR_EVER_MS)
