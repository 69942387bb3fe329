"""Which places are states: stations, zones of stations, and what lies outside."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import vq

from bayes_mfg.errors import DataError

from .table import read_lines
from .triplog import TripLog
from .wording import closest, listed, number_of, to_number

EXTERNAL, IN_TRANSIT = "External", "In transit"
FARTHEST = 150.0
"""Kilometres; places of one system do not lie farther from its middle."""
_STARTS, _SWEEPS = 100, 200


@dataclasses.dataclass(frozen=True)
class Places:
    """Which places are states, and where everything else is.

    Parameters
    ----------
    stations : the places that are chosen: the names of some, or a number, for those with the most starts and ends. All where absent.
    zones : how they are grouped: a number of zones, by k-means of their coordinates weighted by use, each named after its busiest
        place; a dictionary from place to zone (places that it does not name are not chosen); or the name of a column of the table of
        stations. Each place is a state of its own where absent. At least one of `stations` and `zones` is given.
    external : whether there is a state "External" for all places that were not chosen. Without it, trips with one end there are
        dropped. Trips between two places that were not chosen are dropped in any case: seen from here nothing moves. Where every
        place was chosen there is no such state.
    in_transit : whether bikes under way have a state "In transit"; they are part of External where they have none.
    seed : of the random starts of k-means.

    Raises
    ------
    DataError
        A value of another kind, or bikes under way that have no state to be in.
    """

    stations: int | Sequence[str] | None = None
    zones: int | Mapping[str, str] | str | None = None
    external: bool = True
    in_transit: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.stations is None and self.zones is None:
            raise DataError("Places: neither stations nor zones is given; expected at least one of them, such as stations=5.")
        for name, value in (("stations", self.stations), ("zones", self.zones)):
            if isinstance(value, bool) or (isinstance(value, int) and value < 1):
                raise DataError(f"Places: {name} is {value!r}; expected a number of at least 1.")
        if self.stations is not None and not isinstance(self.stations, int):
            names = self.stations
            if isinstance(names, str) or not names or not all(isinstance(name, str) and name.strip() for name in names):
                raise DataError(f"Places: stations is {names!r}; expected a number or a list of names.")
            for name in names:
                if list(names).count(name) > 1:
                    raise DataError(f"Places: station {name!r} is named {list(names).count(name)} times; expected each once.")
        if self.zones is not None and not isinstance(self.zones, int | str | Mapping):
            raise DataError(f"Places: zones is {self.zones!r}; expected a number, a dictionary, or the name of a column.")
        if isinstance(self.zones, Mapping):
            seen: dict[str, object] = {}
            for place, name in self.zones.items():
                if not isinstance(place, str) or not place.strip():
                    raise DataError(f"Places: zones has the key {place!r}; expected names of places, as text.")
                if (key := " ".join(place.split())) in seen:
                    raise DataError(f"Places: zones has {seen[key]!r} and {place!r}, which are one place; expected each once.")
                seen[key] = place
                if not isinstance(name, str) or not name.strip():
                    raise DataError(f"Places: zone {name!r} of place {place!r} is no name; expected text.")
        if not self.external and not self.in_transit:
            raise DataError("Places: external and in_transit are both false; expected one of them, where bikes under way are.")


@dataclasses.dataclass(frozen=True)
class StationTable:
    """A table of stations: key -> name, coordinates, further columns."""

    file: str
    rows: Mapping[str, Mapping[str, str]]
    repeated: Mapping[str, Sequence[str]]

    def number(self, key: str, column: str) -> float:
        """A coordinate, NaN where the table has none."""
        text = self.rows.get(key, {}).get(column, "")
        number = to_number(text) if text else float("nan")
        if number is None:
            raise DataError(f"{self.file}: {column} of station {key!r} is {text!r}; expected a number of degrees.")
        return number


@dataclasses.dataclass(frozen=True)
class Assignment:
    """States of the places.

    Attributes
    ----------
    states : names of the states that are made of places.
    of : (places,) number of the state of each place; `len(states)` for what was not chosen.
    report : what a reader of the data must know, for the provenance.
    """

    states: tuple[str, ...]
    of: NDArray[np.int64]
    report: dict[str, Any]


_AXES = {"latitude": ("latitude", "lat"), "longitude": ("longitude", "long", "lng", "lon")}


def read_stations(path: str | os.PathLike[str], key: str) -> StationTable:
    """A CSV table with one line for each station; lines of one station are told apart in `repeated`, the last one holds.

    Raises
    ------
    DataError
        A file without the column `key`, or with a line of another length.
    """
    lines = read_lines(path)
    header = [cell.strip().casefold() for cell in lines[0][1]] if lines else []
    if key not in header or "name" not in header:
        missing = key if key not in header else "name"
        raise DataError(f"{path}: column {missing!r} is missing; the columns are {listed(header) or 'none'}.")
    rows: dict[str, dict[str, str]] = {}
    repeated: dict[str, list[str]] = {}
    for line, cells in lines[1:]:
        if len(cells) != len(header):
            raise DataError(f"{path}, line {line}: {len(cells)} cells; expected {len(header)}, as in the header.")
        row = dict(zip(header, (" ".join(cell.split()) for cell in cells), strict=True))
        for axis, names in _AXES.items():
            row[axis] = next((row[name] for name in names if name in row), "")
        station = row[key]
        if not station:
            raise DataError(f"{path}, line {line}: column {key!r} is empty; expected a station.")
        if station in rows:
            repeated.setdefault(station, [_described(rows[station])]).append(_described(row))
        rows[station] = row
    if not rows:
        raise DataError(f"{path}: there is no line after the header; expected one line for each station.")
    return StationTable(str(path), rows, repeated)


def _described(row: Mapping[str, str]) -> str:
    return f"{row['name']} ({row['latitude']}, {row['longitude']})"


def assign(
    log: TripLog, places: Places, names: Sequence[str], coordinates: NDArray[np.float64], columns: Any, inside: Any
) -> Assignment:
    """States of the places of a log.

    Parameters
    ----------
    log : the trips.
    places : what is wanted.
    names : (places,) what the places are called; keys are understood, too.
    coordinates : (places, 2) in degrees, NaN where unknown.
    columns : column of the table of stations -> (places,) its cells, "" where there are none; empty without a table.
    inside : (places,) whether a place may be chosen at all.

    Raises
    ------
    DataError
        A place, zone or column that is not there, too few places, or places of another city.
    """
    used = np.flatnonzero((log.use[: len(names)] > 0) & inside)
    if not used.size:
        raise DataError(f"Places: none of the {len(names)} places may be chosen; expected at least one with a trip.")
    by_use = used[np.argsort(-log.use[used], kind="stable")]
    if isinstance(places.stations, int):
        if places.stations > used.size:
            raise DataError(f"Places: stations is {places.stations}; the trips have {used.size} places that may be chosen.")
        chosen = by_use[: places.stations]
    elif places.stations is not None:
        chosen = _named(places.stations, log.places, names, used)
    else:
        chosen = by_use
    _of_one_city(chosen, names, coordinates, log.use)
    report: dict[str, Any] = {}
    if places.zones is None:
        groups = {_unique(names, chosen, code): [int(code)] for code in chosen}
    elif isinstance(places.zones, int):
        groups = _clusters(places, chosen, names, coordinates, log.use, report)
    else:
        groups = _mapped(places.zones, chosen, log.places, names, columns, report)
    of = np.full(len(names), len(groups), np.int64)
    for state, members in enumerate(groups.values()):
        of[members] = state
    for name in groups:
        if name in (EXTERNAL, IN_TRANSIT):
            raise DataError(f"Places: a state is called {name!r}, which has a meaning of its own; expected another name.")
    report["places"] = {name: _place(members, names, coordinates, log.use) for name, members in groups.items()}
    outside = np.flatnonzero((of == len(groups)) & (log.use[: len(names)] > 0))
    report["places_outside"] = int(outside.size)
    return Assignment(tuple(groups), of, report)


def _place(
    members: Sequence[int], names: Sequence[str], coordinates: NDArray[np.float64], use: NDArray[np.int64]
) -> dict[str, Any]:
    order = sorted(members, key=lambda code: -int(use[code]))
    known = [code for code in order if np.isfinite(coordinates[code]).all()]
    weights = np.maximum(use[known], 1)
    centre = np.average(coordinates[known], axis=0, weights=weights) if known else None
    return {
        "latitude": None if centre is None else round(float(centre[0]), 6),
        "longitude": None if centre is None else round(float(centre[1]), 6),
        "stations": [names[code] for code in order],
        "starts_and_ends": int(use[list(members)].sum()),
    }


def _unique(names: Sequence[str], chosen: NDArray[np.int64], code: int) -> str:
    """A place's name, with its number where two share it."""
    same = [other for other in chosen if names[other] == names[code]]
    return names[code] if len(same) == 1 else f"{names[code]} ({same.index(code) + 1})"


def _named(wanted: Sequence[str], keys: Sequence[str], names: Sequence[str], used: NDArray[np.int64]) -> NDArray[np.int64]:
    allowed = set(used.tolist())
    number = {names[code]: code for code in allowed} | {keys[code]: code for code in allowed}
    meant: dict[str, set[int]] = {}
    for code in allowed:
        for name in (names[code], keys[code]):
            meant.setdefault(name, set()).add(code)
    found = []
    for text in wanted:
        name = " ".join(text.split())
        if name not in number:
            raise DataError(
                f"Places: station {text!r} is not in the trips{closest(name, number)}; they have {number_of(len(allowed), 'place', 'places')},"
                f" such as {listed([names[code] for code in used[:3]])} (is it a file of another city?)."
            )
        if len(meant[name]) > 1:
            several = sorted(keys[code] for code in meant[name])
            raise DataError(f"Places: station {text!r} is the name of {listed(several)}; expected one of these instead.")
        if number[name] in found:
            raise DataError(f"Places: station {text!r} is named twice; expected each once.")
        found.append(number[name])
    return np.array(found, np.int64)


def _mapped(
    zones: Mapping[str, str] | str,
    chosen: NDArray[np.int64],
    keys: Sequence[str],
    names: Sequence[str],
    columns: Mapping[str, Sequence[str]],
    report: dict[str, Any],
) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    if isinstance(zones, str):
        zones = zones.strip().casefold() if zones not in columns else zones  # as headers are read
        if zones not in columns:
            raise DataError(
                f"Places: zones is {zones!r}, which is no column of the table of stations{closest(zones, columns)};"
                f" {'its columns are ' + listed(columns) if columns else 'no table was given'}."
            )
        for code in chosen:
            if zone := columns[zones][code]:
                groups.setdefault(zone, []).append(int(code))
        lacking = [names[code] for code in chosen if not columns[zones][code]]
        if not groups:
            raise DataError(
                f"Places: the column {zones!r} of the table of stations is empty for all {len(lacking)} places of the trips; expected zones."
            )
        if lacking:
            report["places_without_zone"] = lacking
        return groups
    wanted = {" ".join(place.split()): zone for place, zone in zones.items()}
    groups = {zone: [] for zone in wanted.values()}
    present: set[str] = set()
    for code in chosen:
        named = dict.fromkeys(name for name in (names[code], keys[code]) if name in wanted)
        if len({wanted[name] for name in named}) > 1:
            raise DataError(
                f"Places: zones has {' and '.join(map(repr, named))}, the name and the key of one place, in two zones; expected it in one."
            )
        if named:
            groups[wanted[next(iter(named))]].append(int(code))
            present |= named.keys()
    if not present:
        raise DataError(
            f"Places: none of the {len(wanted)} places that zones names, such as {next(iter(wanted), '')!r}, is in the trips, which have"
            f" {listed([names[code] for code in chosen[:3]])} (is it a file of another city?)."
        )
    empty = [zone for zone, members in groups.items() if not members]
    if empty:
        raise DataError(f"Places: no place of zone {empty[0]!r} is in the trips; expected at least one.")
    if absent := [place for place in wanted if place not in present]:
        report["places_of_zones_without_trips"] = absent
    return groups


def _clusters(
    places: Places,
    chosen: NDArray[np.int64],
    names: Sequence[str],
    coordinates: NDArray[np.float64],
    use: NDArray[np.int64],
    report: dict[str, Any],
) -> dict[str, list[int]]:
    assert isinstance(places.zones, int)
    known = np.isfinite(coordinates[chosen]).all(axis=1)
    if not known.any():
        raise DataError(
            "Places: zones is a number, and no place has coordinates; expected columns of them, or a table of stations."
        )
    if not known.all():
        report["places_without_coordinates"] = [names[code] for code in chosen[~known]]
    members = chosen[known]
    if members.size < places.zones:
        raise DataError(f"Places: zones is {places.zones}; only {members.size} places with coordinates are chosen.")
    points, weights = kilometres(coordinates[members]), use[members].astype(float)
    labels = k_means(points, weights, places.zones, places.seed)
    groups = {}
    for label in sorted(set(labels.tolist()), key=lambda label: -weights[labels == label].sum()):
        inside = members[labels == label]
        busiest = inside[np.argmax(use[inside])]
        groups[_unique(names, members, busiest)] = inside.tolist()
    return groups


def _of_one_city(
    chosen: NDArray[np.int64], names: Sequence[str], coordinates: NDArray[np.float64], use: NDArray[np.int64]
) -> None:
    """Refuses places of which one lies far from the others."""
    members = chosen[np.isfinite(coordinates[chosen]).all(axis=1)]
    if not members.size:
        return
    points = kilometres(coordinates[members])
    distance = np.hypot(*(points - _weighted_median(points, use[members].astype(float))).T)
    if distance.max() > FARTHEST:
        far = members[int(distance.argmax())]
        raise DataError(
            f"Places: {names[far]!r} at {coordinates[far][0]:.4f}, {coordinates[far][1]:.4f} lies {distance.max():.0f} km from the middle of"
            f" the others; expected places of one city, within {FARTHEST:.0f} km (or stations that leave it out)."
        )


def kilometres(coordinates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positions (n, 2) on a plane that touches the globe at their middle, from latitudes and longitudes in degrees."""
    middle = np.median(coordinates, axis=0)
    scale = 111.2 * np.array([1.0, np.cos(np.radians(middle[0]))])
    return np.asarray((coordinates - middle) * scale)


def _weighted_median(points: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    middle = []
    for axis in points.T:
        order = np.argsort(axis)
        total = np.cumsum(weights[order])
        middle.append(axis[order[np.searchsorted(total, total[-1] / 2)]])
    return np.array(middle)


def k_means(points: NDArray[np.float64], weights: NDArray[np.float64], k: int, seed: int) -> NDArray[np.int64]:
    """Number of the cluster of each point, of the best of several seeded searches.

    The weighted sum of squared distances to the nearest centre is lowered by Lloyd's sweeps (SciPy's k-means takes no weights; its
    `vq` finds the nearest centres). First centres are drawn as in k-means++ (Arthur and Vassilvitskii, 2007), with the weights.

    Parameters
    ----------
    points : (n, 2).
    weights : (n,), positive.
    k : number of clusters, at most the number of different points.
    seed : of the first centres.

    Raises
    ------
    DataError
        Fewer different points than clusters.
    """
    different = len(np.unique(points, axis=0))
    if different < k:
        raise DataError(f"Places: zones is {k}; the chosen places have {different} different positions.")
    random = np.random.default_rng(seed)
    best: tuple[float, NDArray[np.int64]] | None = None
    for _ in range(_STARTS):
        centres = points[[random.choice(len(points), p=weights / weights.sum())]]
        while len(centres) < k:
            chance = weights * vq(points, centres)[1] ** 2
            centres = np.vstack([centres, points[random.choice(len(points), p=chance / chance.sum())]])
        labels = np.full(len(points), -1)
        for _ in range(_SWEEPS):
            nearest, distance = vq(points, centres)
            if (nearest == labels).all():
                break
            labels = nearest.astype(np.int64)
            mass = np.bincount(labels, weights, k)
            # A centre without points stays where it is.
            sums = np.stack([np.bincount(labels, weights * axis, k) for axis in points.T], axis=1)
            centres = np.where(mass[:, None] > 0, sums / np.maximum(mass, 1e-300)[:, None], centres)
        cost = float((weights * distance**2).sum())
        if len(set(labels.tolist())) == k and (best is None or cost < best[0]):
            best = (cost, labels)
    assert best is not None
    return best[1]
