"""From trips, which are flows, to stocks: how many bikes are in each state at each time of each day.

The stock of place x on day k at time t is `initial[k, x] + arrivals - departures` since the day opened, each booked when it happens. Bikes
under way are known from the trips alone: those that left before t and have not arrived. What trips do not tell is the stock at opening.
It is inferred for each day by itself, because the operator's vans move bikes between places without a trip: over weeks their moves
add up to more than all bikes there are, so that one stock carried over from day to day would need a fleet of many times the real one.

1. The smallest opening stock of a place is the one with which its stock is never negative at the end of any minute of the day.
2. The fleet is the largest sum of these and of the bikes under way at opening, over all days: the smallest fleet with which every day can
   have happened. Or it is given, and at least that.
3. Bikes that a day does not need stand in places, in proportion to the opening stocks that the places need on average
   (largest remainders, so that they are whole).

Hence every stock is at least 0, and the stocks of all states sum to the fleet at each time of each day, exactly.
"""

import dataclasses
import datetime
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayes_mfg.errors import DataError

from .days import DAY, EPOCH, Days
from .triplog import TripLog

LARGEST = 1 << 29
"""Bytes that the flows of every minute and the stocks of every step may take."""


@dataclasses.dataclass(frozen=True)
class Flows:
    """Flows of the days, at the end of every minute.

    Attributes
    ----------
    dates : the days with trips.
    quiet : days of the range that would have been taken, without any.
    net : (days, minutes, states + 2) arrivals less departures of the minute; the last two are what was not chosen, and under way.
    under_way : (days,) bikes under way as the day opens.
    before, after : (days, states + 1) net flow of a day before it opens and after it closes.
    departures, arrivals : (days,) booked in the hours.
    between : (states + 1, states + 1) kept trips from row to column.
    kept : number of trips.
    dropped : reason -> number of trips.
    """

    dates: list[datetime.date]
    quiet: list[datetime.date]
    net: NDArray[np.int32]
    under_way: NDArray[np.int64]
    before: NDArray[np.int64]
    after: NDArray[np.int64]
    departures: NDArray[np.int64]
    arrivals: NDArray[np.int64]
    between: NDArray[np.int64]
    kept: int
    dropped: dict[str, int]


def book(
    log: TripLog,
    state_of: NDArray[np.int64],
    n_states: int,
    days: Days,
    external: bool,
    first: datetime.date,
    last: datetime.date,
    within: NDArray[np.bool_],
) -> Flows:
    """Book every trip's departure and arrival in the minute in which it happens.

    Parameters
    ----------
    log : the trips.
    state_of : (places,) state of each place, `n_states` for those that were not chosen.
    n_states : number of states made of places.
    days : hours and kinds of days.
    external : whether trips with one end outside are kept.
    first, last : the range of dates.
    within : (days,) which days of the range are dates at all.

    Raises
    ------
    DataError
        More days and states than memory should hold.
    """
    n_days, minutes, width = (last - first).days + 1, days.n_steps * days.minutes, n_states + 2
    outside, riding = n_states, n_states + 1
    taken = within & [days.takes(first + datetime.timedelta(days=index)) for index in range(n_days)]
    # Flows as 4 bytes; the course of the stocks, what is added to it, and the population's counts as 8.
    if (n_taken := int(taken.sum())) * width * (4 * minutes + 3 * 8 * (days.n_steps + 1)) > LARGEST:
        raise DataError(
            f"The {n_taken} days from {first} to {last} with {n_states} places as states take more than {LARGEST >> 20} MB; expected fewer"
            " places (stations, zones) or days (first, last)."
        )
    net = np.zeros((n_taken, minutes, width), np.int32)
    before, after = np.zeros((n_days, n_states + 1), np.int64), np.zeros((n_days, n_states + 1), np.int64)
    steps, between = np.zeros(n_days + 1, np.int64), np.zeros((n_states + 1, n_states + 1), np.int64)
    booked = np.zeros((2, n_days), np.int64)
    taken_before = np.concatenate([[0], np.cumsum(taken)])
    reasons = {
        "between two places that are no state": 0,
        "from or to a place that is no state": 0,
        "outside the dates": 0,
        "on a day that was not chosen": 0,
        "outside the hours": 0,
    }
    base, kept_trips = (first - EPOCH).days, 0
    for records in log.records():
        ends = np.stack([state_of[records["origin"]], state_of[records["destination"]]])
        foreign = (ends == outside).sum(axis=0)
        stay = foreign < (2 if external else 1)
        reasons["between two places that are no state"] += int((foreign == 2).sum())
        reasons["from or to a place that is no state"] += int(((foreign == 1) & ~stay).sum())
        ends, moments = ends[:, stay], np.stack([records["start"][stay], records["end"][stay]]).astype(np.int64)
        day, second = moments // DAY - base, moments % DAY
        dated = (day >= 0) & (day < n_days)
        safe = np.where(dated, day, 0)
        dated &= within[safe]
        chosen = dated & taken[safe]
        minute = (second - days.open_second) // 60
        inside = chosen & (second >= days.open_second) & (second < days.close_second)
        # Openings in (start, end]: what happens at opening is booked in the first minute.
        opened = np.clip((moments - base * DAY - days.open_second) // DAY + 1, 0, n_days)
        under = taken_before[opened[1]] > taken_before[opened[0]]
        keep = inside.any(axis=0) | under
        np.add.at(steps, opened[0], 1)
        np.add.at(steps, opened[1], -1)
        for row, sign in ((0, -1), (1, 1)):
            cells = inside[row]
            where = (taken_before[safe[row][cells]], minute[row][cells])
            np.add.at(net, (*where, ends[row][cells]), sign)
            np.add.at(net, (*where, riding), -sign)
            booked[row] += np.bincount(safe[row][cells], minlength=n_days)
            for table, night in ((before, second[row] < days.open_second), (after, second[row] >= days.close_second)):
                np.add.at(table, (safe[row][dated[row] & night], ends[row][dated[row] & night]), sign)
        np.add.at(between, (ends[0][keep], ends[1][keep]), 1)
        kept_trips += int(keep.sum())
        lost = ~keep
        undated = lost & ~dated.any(axis=0)
        unchosen = lost & dated.any(axis=0) & ~chosen.any(axis=0)
        reasons["outside the dates"] += int(undated.sum())
        reasons["on a day that was not chosen"] += int(unchosen.sum())
        reasons["outside the hours"] += int((lost & ~undated & ~unchosen).sum())
    under_way = np.cumsum(steps)[:n_days]
    busy = taken & ((booked.sum(axis=0) > 0) | (under_way > 0))
    dates = [first + datetime.timedelta(days=index) for index in range(n_days)]
    n_busy = 0
    for index in np.flatnonzero(busy[taken]):  # in place: a copy would double what this takes
        net[n_busy] = net[index]
        n_busy += 1
    return Flows(
        [date for date, use in zip(dates, busy, strict=True) if use],
        [date for date, want, use in zip(dates, taken, busy, strict=True) if want and not use],
        net[:n_busy],
        under_way[busy],
        before[busy],
        after[busy],
        booked[0][busy],
        booked[1][busy],
        between,
        kept_trips,
        {reason: count for reason, count in reasons.items() if count},
    )


@dataclasses.dataclass(frozen=True)
class Stocks:
    """Stocks of the days.

    Attributes
    ----------
    counts : (days, times, states + 2) bikes; the last two states are what was not chosen, and under way.
    fleet : all bikes.
    needed : (days,) smallest fleet with which the day can have happened, from the opening stocks that it is given.
    """

    counts: NDArray[np.int64]
    fleet: int
    needed: NDArray[np.int64]


def reconstruct(flows: Flows, days: Days, fleet: int | None, outside: bool) -> Stocks:
    """Stocks at the times of the days, see above.

    Parameters
    ----------
    flows : of `book`.
    days : the hours.
    fleet : number of bikes; the smallest possible where None.
    outside : whether there are places that were not chosen, where bikes can stand.

    Raises
    ------
    DataError
        A fleet with which a day cannot have happened.
    """
    n_days, _, width = flows.net.shape
    smallest = np.zeros((n_days, width), np.int64)
    course = np.zeros((n_days, days.n_steps + 1, width), np.int64)
    for day in range(n_days):
        path = np.cumsum(flows.net[day], axis=0, dtype=np.int64)
        smallest[day] = np.maximum(0, -path.min(axis=0))
        course[day, 1:] = path[days.minutes - 1 :: days.minutes]
    if days.opening == "common":
        smallest[:] = smallest.max(axis=0)
    smallest[:, -1] = flows.under_way
    needed = smallest.sum(axis=1)
    largest = int(needed.argmax())
    if fleet is None:
        fleet = max(int(needed[largest]), 1)
    elif isinstance(fleet, bool) or not isinstance(fleet, int | np.integer) or fleet < needed[largest]:
        raise DataError(
            f"fleet is {fleet!r}; {flows.dates[largest]} cannot have happened with fewer than {needed[largest]} bikes: expected a whole"
            " number of at least that, or none for the smallest."
        )
    places = width - 1 if outside else width - 2
    weights = smallest[:, :places].mean(axis=0)
    for day in range(n_days):
        smallest[day, :places] += spread(int(fleet - needed[day]), weights if weights.any() else np.ones(places))
    course += smallest[:, None, :]
    return Stocks(course, int(fleet), needed)


def spread(number: int, weights: NDArray[np.float64]) -> NDArray[np.int64]:
    """Whole numbers in proportion to the weights that sum to `number`; the largest remainders are rounded up."""
    exact = number * weights / weights.sum()
    whole = np.floor(exact).astype(np.int64)
    order = np.argsort(whole - exact, kind="stable")
    whole[order[: number - int(whole.sum())]] += 1
    return whole


def overnight(flows: Flows, stocks: Stocks) -> dict[str, Any]:
    """Bikes that stand elsewhere in the morning than trips took them since the evening before; of consecutive days.

    This is where the operator's vans show, and what the inference of each day's opening stock cannot know.
    """
    moved: dict[str, int] = {}
    for day in range(1, len(flows.dates)):
        if (flows.dates[day] - flows.dates[day - 1]).days == 1:
            evening = stocks.counts[day - 1, -1, :-1] + flows.after[day - 1] + flows.before[day]
            moved[str(flows.dates[day])] = int(abs(stocks.counts[day, 0, :-1] - evening).sum()) // 2
    if not moved:
        return {"nights": 0}
    return {
        "nights": len(moved),
        "mean": round(sum(moved.values()) / len(moved), 1),
        "largest": max(moved.values()),
        "by_morning": moved,
    }


def net_flows(flows: Flows, names: Sequence[str]) -> dict[str, int]:
    """Arrivals less departures of each state over the days that are trajectories, from midnight to midnight.

    Where these are all days, it is what trips alone would have piled up or carried off.
    """
    total = flows.net[:, :, :-1].sum(axis=(0, 1), dtype=np.int64) + flows.before.sum(axis=0) + flows.after.sum(axis=0)
    return {name: int(value) for name, value in zip(names, total, strict=False)}
