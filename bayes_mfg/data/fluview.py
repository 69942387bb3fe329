"""Influenza seasons of US states from CDC FluView's clinical laboratories."""

import dataclasses
import datetime
import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Sized
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from bayes_mfg.errors import DataError

from .population import Population
from .table import read_lines
from .wording import close_matches

# A season runs from MMWR week 40 to week 39 of the next year.
SEASON_START = 40
_COLUMNS = ("REGION", "YEAR", "WEEK", "TOTAL SPECIMENS", "TOTAL A")
_SUPPRESSED = "X"


@dataclasses.dataclass(frozen=True)
class FluOnset:
    """Onset of a season: the first of `consecutive` weeks with `threshold` percent of `min_specimens` or more positive for A.

    The defaults are our own rule: two weeks in a row, because one may be chance, and a hundred specimens, because a single
    positive among a dozen tests is 8 percent. With complete windows of 30 weeks this leaves 217 state-seasons for 2015-16 to
    2021-22 on the file that ends in week 31 of 2025, as many as the paper's rule (arXiv 2606.23155) was counted to leave there;
    several rules do (one week of 5 percent of 30 specimens, for example), so that the number does not say which rule was theirs.

    Parameters
    ----------
    threshold : percent of specimens positive for influenza A, in (0, 100].
    consecutive : number of weeks in a row, at least 1; a week that is not reported ends a run.
    min_specimens : specimens tested in each of these weeks, at least 1.

    Raises
    ------
    DataError
        A value outside its range.
    """

    threshold: float = 2.0
    consecutive: int = 2
    min_specimens: int = 100

    def __post_init__(self) -> None:
        if not isinstance(self.threshold, int | float) or not 0 < self.threshold <= 100:
            raise DataError(f"FluOnset: threshold is {self.threshold!r}; expected a percentage in (0, 100].")
        for name in ("consecutive", "min_specimens"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise DataError(f"FluOnset: {name} is {value!r}; expected a whole number of at least 1.")


def mmwr_week_start(year: int, week: int) -> datetime.date:
    """Sunday on which an MMWR week begins.

    MMWR weeks run from Sunday to Saturday; week 1 is the first with at least four days in the calendar year, hence the one that
    holds 4 January (CDC, "MMWR Weeks"). These are not ISO weeks, which begin on Monday.
    """
    fourth = datetime.date(year, 1, 4)
    first_sunday = fourth - datetime.timedelta(days=fourth.isoweekday() % 7)
    return first_sunday + datetime.timedelta(weeks=week - 1)


def mmwr_weeks_in_year(year: int) -> int:
    """Number of MMWR weeks of a year: 52, or 53 as in 2014, 2020 and 2025."""
    return (mmwr_week_start(year + 1, 1) - mmwr_week_start(year, 1)).days // 7


def mmwr_week(day: datetime.date) -> tuple[int, int]:
    """MMWR year and week that a day belongs to."""
    year = next(year for year in (day.year + 1, day.year, day.year - 1) if mmwr_week_start(year, 1) <= day)
    return year, (day - mmwr_week_start(year, 1)).days // 7 + 1


def read_fluview(
    path: str | os.PathLike[str],
    regions: str | Iterable[str] | None = None,
    seasons: int | str | Iterable[int | str] | None = None,
    weeks: int = 30,
    onset: FluOnset = FluOnset(),
    min_weeks: int | None = None,
) -> Population:
    """Seasons of influenza A in US states, aligned at their onsets: weekly specimens positive for A among those tested.

    Parameters
    ----------
    path : CDC FluView's `ICL_NREVSS_Clinical_Labs` file (`WHO_NREVSS_Clinical_Labs` in older downloads): CSV, plain or packed
        with gzip, or the zip archive that FluView delivers, which holds it.
    regions : names as in the file; all where absent.
    seasons : first years (2017) or names ("2017-18"); all where absent.
    weeks : number of weeks `T` from the onset on, at least 2.
    onset : when a season begins.
    min_weeks : least number of reported weeks in that window, 1 to `weeks`; a state-season with fewer is left out. All of them
        where absent. With a smaller number, weeks that are not reported (`X`) or lie beyond the season's end (week 39) or the
        file's are masked.

    Returns
    -------
    Population
        One trajectory for each state-season, named "Colorado 2017-18", in the order of regions, then seasons; times 0 to `weeks`
        - 1 in weeks since the onset; states S, I and R, of which only I is observed; counts of specimens positive for A, totals
        of specimens tested. Their ratio is FluView's PERCENT A before rounding. `provenance` says what was read, kept and left
        out, why, and the week of each onset.

    Raises
    ------
    DataError
        A file that is missing, damaged, or another one than expected; a value that is no number (other than `X`); an unknown
        region or season; or no state-season left, with the reasons.
    """
    if not isinstance(weeks, int) or weeks < 2:
        raise DataError(f"read_fluview: weeks is {weeks!r}; expected a whole number of at least 2.")
    needed = weeks if min_weeks is None else min_weeks
    if not isinstance(needed, int) or not 1 <= needed <= weeks:
        raise DataError(f"read_fluview: min_weeks is {min_weeks!r}; expected a whole number from 1 to weeks ({weeks}).")

    if not isinstance(onset, FluOnset):
        raise DataError(f"read_fluview: onset is {onset!r}; expected a FluOnset.")
    for name, given in (("regions", regions), ("seasons", seasons)):
        if isinstance(given, float) or (isinstance(given, int) and name == "regions"):
            raise DataError(f"read_fluview: {name} is {given!r}; expected a name or a list of them.")
        if isinstance(given, Sized) and not len(given):
            raise DataError(f"read_fluview: {name} is empty; expected at least one, or nothing for all.")
    records = _read_records(path)
    chosen_regions = _choose_regions(regions, records.regions, path)
    chosen_seasons = _choose_seasons(seasons, records.seasons, path)

    windows: dict[str, _Window] = {}
    dropped: dict[str, list[str]] = defaultdict(list)
    for region in chosen_regions:
        for season in chosen_seasons:
            outcome = _window(records.weeks.get((region, season), {}), season, weeks, onset, needed)
            if isinstance(outcome, str):
                dropped[outcome].append(f"{region} {season_name(season)}")
            else:
                windows[f"{region} {season_name(season)}"] = outcome
    if not windows:
        reasons = "; ".join(
            f"{reason}: {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}" for reason, names in dropped.items()
        )
        raise DataError(f"{path}: no state-season is left ({reasons}); expected at least one.")

    counts = np.zeros((len(windows), weeks, 3))
    counts[:, :, 1] = [window.positives for window in windows.values()]
    totals = np.array([window.specimens for window in windows.values()])
    mask = np.zeros(counts.shape, bool)
    mask[:, :, 1] = totals > 0
    return Population(
        times=np.arange(weeks),
        counts=counts,
        totals=totals,
        states=("S", "I", "R"),
        trajectories=tuple(windows),
        mask=mask,
        time_unit="week",
        provenance={
            "source": "CDC FluView, clinical laboratories (ICL/NREVSS), influenza A",
            "file": Path(path).name,
            "sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest(),
            "rows_read": records.n_rows,
            "rows_suppressed": records.n_suppressed,
            "regions_never_reported": records.never_reported,
            "season": f"MMWR week {SEASON_START} to week {SEASON_START - 1} of the next year",
            "onset": {
                **dataclasses.asdict(onset),
                "rule": f"first of {onset.consecutive} consecutive weeks with at least {onset.threshold:g} % of at least"
                f" {onset.min_specimens} specimens positive for A",
            },
            "weeks": weeks,
            "min_weeks": needed,
            "state_seasons": {
                "asked": len(chosen_regions) * len(chosen_seasons),
                "kept": len(windows),
                "left_out": {reason: len(names) for reason, names in dropped.items()},
            },
            "left_out": dict(dropped),
            "onset_weeks": {name: window.onset for name, window in windows.items()},
        },
    )


def season_name(season: int) -> str:
    """Name of the season that begins in a year: "2017-18"."""
    return f"{season}-{(season + 1) % 100:02d}"


@dataclasses.dataclass(frozen=True)
class _Records:
    """The file's reported weeks: (region, first year of the season) -> week of the season, from 0 -> (positives, specimens)."""

    weeks: Mapping[tuple[str, int], Mapping[int, tuple[int, int]]]
    regions: Sequence[str]
    seasons: Sequence[int]
    n_rows: int
    n_suppressed: int

    @property
    def never_reported(self) -> list[str]:
        reported = {region for region, _ in self.weeks}
        return [region for region in self.regions if region not in reported]


@dataclasses.dataclass(frozen=True)
class _Window:
    """Weeks from the onset on: (weeks,) each, 0 specimens where nothing was reported."""

    onset: str
    positives: list[int]
    specimens: list[int]


def _window(reported: Mapping[int, tuple[int, int]], season: int, weeks: int, onset: FluOnset, needed: int) -> _Window | str:
    """The season's window, or the reason why it has none."""
    if not reported:
        return "no week of the season is reported"
    length = (mmwr_week_start(season + 1, SEASON_START) - mmwr_week_start(season, SEASON_START)).days // 7
    # In whole numbers of specimens, not in FluView's rounded percentages.
    epidemic = [
        specimens >= onset.min_specimens and 100 * positives >= onset.threshold * specimens
        for positives, specimens in (reported.get(week, (0, 0)) for week in range(length))
    ]
    first = next((week for week in range(length - onset.consecutive + 1) if all(epidemic[week : week + onset.consecutive])), None)
    if first is None:
        return "no onset"
    if first + needed > length:
        return f"the onset leaves fewer than {needed} weeks of the season"
    window = [reported.get(week, (0, 0)) for week in range(first, first + weeks)]
    if sum(specimens > 0 for _, specimens in window) < needed:
        return f"fewer than {needed} of the {weeks} weeks from the onset on are reported"
    year, week = mmwr_week(mmwr_week_start(season, SEASON_START) + datetime.timedelta(weeks=first))
    return _Window(f"{year}w{week:02d}", [positives for positives, _ in window], [specimens for _, specimens in window])


def _read_records(path: str | os.PathLike[str]) -> _Records:
    lines = read_lines(path, _clinical_member(path))
    start, header = _find_header(path, lines)
    column = {name: header.index(name) for name in _COLUMNS}
    type_column = header.index("REGION TYPE") if "REGION TYPE" in header else None
    reported: dict[tuple[str, int], dict[int, tuple[int, int]]] = defaultdict(dict)
    seen: dict[tuple[str, int, int], int] = {}
    regions: dict[str, None] = {}
    seasons: set[int] = set()
    n_suppressed = 0
    for line, cells in lines[start + 1 :]:
        if len(cells) != len(header):
            raise DataError(
                f"{path}, line {line}: {len(cells)} cells; expected {len(header)}, as in the header (is the file whole?)."
            )
        region = cells[column["REGION"]].strip()
        # The national file calls its one region X.
        if type_column is not None and cells[type_column].strip() == "National":
            region = "National"
        year = _whole(path, line, "YEAR", cells[column["YEAR"]], 1990, 2200)
        week = _whole(path, line, "WEEK", cells[column["WEEK"]], 1, mmwr_weeks_in_year(year), f"a week of {year}")
        if (region, year, week) in seen:
            raise DataError(
                f"{path}, line {line}: {region}, week {week} of {year}, stands on line {seen[region, year, week]} already;"
                " expected one line for each."
            )
        seen[region, year, week] = line
        season = year if week >= SEASON_START else year - 1
        regions[region] = None
        seasons.add(season)
        if _SUPPRESSED in (cells[column["TOTAL SPECIMENS"]].strip(), cells[column["TOTAL A"]].strip()):
            n_suppressed += 1
            continue
        specimens = _whole(path, line, "TOTAL SPECIMENS", cells[column["TOTAL SPECIMENS"]], 0, 10**9)
        positives = _whole(
            path, line, "TOTAL A", cells[column["TOTAL A"]], 0, specimens, f"at most the {specimens} specimens tested"
        )
        if specimens:
            index = (mmwr_week_start(year, week) - mmwr_week_start(season, SEASON_START)).days // 7
            reported[region, season][index] = (positives, specimens)
    if not seen:
        raise DataError(f"{path}: there is no line after the header; expected one line for each region and week.")
    return _Records(reported, tuple(regions), tuple(sorted(seasons)), len(seen), n_suppressed)


def _clinical_member(path: str | os.PathLike[str]) -> Any:
    def member(names: Sequence[str]) -> str:
        files = [name for name in names if not name.startswith("__MACOSX") and name.casefold().endswith(".csv")]
        found = [name for name in files if "nrevss_clinical_labs" in PurePosixPath(name).name.casefold()]
        if len(found) != 1:
            raise DataError(
                f"{path}: the archive holds {', '.join(files) or 'no CSV file'};"
                " expected one file named ICL_NREVSS_Clinical_Labs.csv or WHO_NREVSS_Clinical_Labs.csv."
            )
        return found[0]

    return member


def _find_header(path: str | os.PathLike[str], lines: Sequence[tuple[int, list[str]]]) -> tuple[int, list[str]]:
    for index, (line, cells) in enumerate(lines[:5]):
        header = [cell.strip().upper() for cell in cells]
        if "REGION" not in header:
            continue
        missing = [name for name in _COLUMNS if name not in header]
        if missing:
            raise DataError(
                f"{path}, line {line}: column '{missing[0]}' is missing; the columns are {', '.join(header)}"
                " (expected FluView's ICL_NREVSS_Clinical_Labs file, not its public health laboratories or ILINet)."
            )
        return index, header
    beginning = ",".join(lines[0][1])[:60] if lines else ""
    raise DataError(
        f"{path}: the file begins with {beginning!r} and has no header line;"
        " expected FluView's ICL_NREVSS_Clinical_Labs file with the columns REGION, YEAR, WEEK, TOTAL SPECIMENS and TOTAL A."
    )


def _whole(
    path: str | os.PathLike[str], line: int, column: str, text: str, lowest: int, highest: int, bound: str | None = None
) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdigit()):
        raise DataError(f"{path}, line {line}, column '{column}': {text!r}; expected a whole number.")
    number = int(text)
    if not lowest <= number <= highest:
        raise DataError(
            f"{path}, line {line}, column '{column}': {number}; expected {bound or 'a number'}, {lowest} to {highest}."
        )
    return number


def _choose_regions(regions: str | Iterable[str] | None, known: Sequence[str], path: str | os.PathLike[str]) -> list[str]:
    if regions is None:
        return list(known)
    chosen = [regions] if isinstance(regions, str) else list(regions)
    for region in chosen:
        if region not in known:
            close = close_matches(str(region), known)
            hint = f"did you mean {' or '.join(map(repr, close))}?" if close else f"the file has {', '.join(known)}."
            raise DataError(f"{path}: region {region!r} is not in the file; {hint}")
    return list(dict.fromkeys(chosen))


def _choose_seasons(
    seasons: int | str | Iterable[int | str] | None, known: Sequence[int], path: str | os.PathLike[str]
) -> list[int]:
    if seasons is None:
        return list(known)
    names = {season_name(season): season for season in known}
    chosen = [seasons] if isinstance(seasons, (int, str)) else list(seasons)
    for season in chosen:
        if season not in known and season not in names:
            close = close_matches(season, names) if isinstance(season, str) else []
            hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else "."
            raise DataError(
                f"{path}: season {season!r} is not in the file,"
                f" which has {season_name(known[0])} to {season_name(known[-1])}{hint}"
            )
    return list(dict.fromkeys(names[season] if isinstance(season, str) else season for season in chosen))
