"""FluView: MMWR weeks, seasons aligned at onset, and what the reader refuses."""

import datetime
import gzip
import io
import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from bayes_mfg.data import FluOnset, read_fluview
from bayes_mfg.data.fluview import mmwr_week, mmwr_week_start, mmwr_weeks_in_year, season_name
from bayes_mfg.errors import DataError

REAL = Path(__file__).resolve().parents[2] / "shared/data/fluview/ICL_NREVSS_Clinical_Labs.csv.gz"
needs_real = pytest.mark.skipif(not REAL.exists(), reason=f"{REAL} is not here (data for development, not part of the project)")

PROSE = '"*Beginning for the 2015-16 season, reports from public health and clinical laboratories are presented separately."\n'
HEADER = "REGION TYPE,REGION,YEAR,WEEK,TOTAL SPECIMENS,TOTAL A,TOTAL B,PERCENT POSITIVE,PERCENT A,PERCENT B\n"
ONSET = 5  # week of the season, from 0, in which the synthetic epidemic begins


def season_lines(region, season, suppressed=(), onset=ONSET, last=53):
    """A season in the published format: 1 % before the onset, then 10 + k positives among 200 + k specimens."""
    first = mmwr_week_start(season, 40)
    lines = []
    for index in range((mmwr_week_start(season + 1, 40) - first).days // 7):
        if index >= last:
            break
        year, week = mmwr_week(first + datetime.timedelta(weeks=index))
        specimens, positives = (200 + index - onset, 10 + index - onset) if index >= onset else (200, 2)
        percent = f"{100 * positives / specimens:.2f}"
        cells = ["X"] * 6 if index in suppressed else [specimens, positives, 0, percent, percent, 0]
        lines.append(",".join(map(str, ["States", region, year, week, *cells])) + "\n")
    return "".join(lines)


def text(*seasons, prose=PROSE):
    return prose + HEADER + "".join(seasons)


@pytest.fixture
def write(tmp_path):
    def write(content, name="ICL_NREVSS_Clinical_Labs.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize(
    ("day", "year", "week"),
    [
        # CDC's table of MMWR weeks (ending Saturdays) around the years' ends.
        ("2014-01-04", 2014, 1),
        ("2014-12-28", 2014, 53),
        ("2015-01-03", 2014, 53),
        ("2015-01-04", 2015, 1),
        ("2016-01-02", 2015, 52),
        ("2016-01-09", 2016, 1),
        ("2016-12-31", 2016, 52),
        ("2017-01-01", 2017, 1),
        ("2017-12-31", 2018, 1),
        ("2018-12-30", 2019, 1),
        ("2019-12-28", 2019, 52),
        ("2019-12-29", 2020, 1),
        ("2020-03-14", 2020, 11),
        ("2020-12-27", 2020, 53),
        ("2021-01-02", 2020, 53),
        ("2021-01-03", 2021, 1),
        ("2022-01-01", 2021, 52),
    ],
)
def test_mmwr_weeks(day, year, week):
    date = datetime.date.fromisoformat(day)
    assert mmwr_week(date) == (year, week)
    assert 0 <= (date - mmwr_week_start(year, week)).days < 7


def test_mmwr_weeks_follow_each_other():
    start, expected = mmwr_week_start(1999, 1), None
    for index in range(60 * 52):
        day = start + datetime.timedelta(weeks=index)
        assert day.isoweekday() == 7
        year, week = mmwr_week(day)
        assert mmwr_week_start(year, week) == day
        assert expected in (None, (year, week))
        expected = (year, week + 1) if week < mmwr_weeks_in_year(year) else (year + 1, 1)
    assert [year for year in range(2000, 2030) if mmwr_weeks_in_year(year) == 53] == [2003, 2008, 2014, 2020, 2025]


def test_season_names():
    assert season_name(2017) == "2017-18"
    assert season_name(1999) == "1999-00"


def test_a_season_is_aligned_at_its_onset(write):
    population = read_fluview(write(text(season_lines("Colorado", 2017), season_lines("Utah", 2017))))
    assert population.trajectories == ("Colorado 2017-18", "Utah 2017-18")
    assert population.states == ("S", "I", "R")
    assert population.time_unit == "week"
    np.testing.assert_array_equal(population.times, np.arange(30))
    assert population.counts is not None
    np.testing.assert_array_equal(population.counts[:, :, 1], [10 + np.arange(30)] * 2)
    np.testing.assert_array_equal(population.totals, [200 + np.arange(30)] * 2)
    np.testing.assert_array_equal(population.mask, np.broadcast_to([False, True, False], (2, 30, 3)))
    assert population.provenance["onset_weeks"] == {"Colorado 2017-18": "2017w45", "Utah 2017-18": "2017w45"}
    assert population.provenance["rows_read"] == 104
    json.dumps(population.provenance)


@pytest.mark.parametrize("season", [2014, 2020])
def test_a_season_runs_through_week_53(write, season):
    population = read_fluview(write(text(season_lines("Colorado", season))), weeks=48)
    assert population.counts is not None
    np.testing.assert_array_equal(population.counts[0, :, 1], 10 + np.arange(48))


def test_weeks_that_are_not_reported_are_masked(write):
    path = write(text(season_lines("Colorado", 2017, suppressed=(9, 12), last=30)))
    with pytest.raises(DataError, match="fewer than 30 of the 30 weeks from the onset on are reported: Colorado 2017-18"):
        read_fluview(path)
    population = read_fluview(path, min_weeks=20)
    seen = np.ones(30, bool)
    seen[[4, 7]] = False
    seen[25:] = False
    np.testing.assert_array_equal(population.mask[0, :, 1], seen)
    np.testing.assert_array_equal(population.totals, [np.where(seen, 200 + np.arange(30), 0)])
    assert population.provenance["rows_suppressed"] == 2


def test_a_window_ends_with_its_season(write):
    late = season_lines("Colorado", 2017, onset=40)
    path = write(text(late, season_lines("Colorado", 2018)))
    with pytest.raises(DataError, match="the onset leaves fewer than 30 weeks of the season: Colorado 2017-18"):
        read_fluview(path, seasons=2017)
    population = read_fluview(path, seasons=2017, min_weeks=10)
    assert population.mask[0, :, 1].sum() == 12


def test_a_run_of_weeks_is_broken_by_one_that_is_not_reported(write):
    path = write(text(season_lines("Colorado", 2017, suppressed=(6,))))
    assert read_fluview(path).provenance["onset_weeks"] == {"Colorado 2017-18": "2017w47"}
    alone = read_fluview(path, onset=FluOnset(consecutive=1), min_weeks=29)
    assert alone.provenance["onset_weeks"] == {"Colorado 2017-18": "2017w45"}


def test_the_onset_is_the_callers(write):
    path = write(text(season_lines("Colorado", 2017)))
    # 10 + k of 200 + k: 8 % is reached at k = 7, 210 specimens at k = 10.
    assert read_fluview(path, onset=FluOnset(threshold=8)).provenance["onset_weeks"] == {"Colorado 2017-18": "2017w52"}
    assert read_fluview(path, onset=FluOnset(min_specimens=210)).provenance["onset_weeks"] == {"Colorado 2017-18": "2018w03"}
    with pytest.raises(DataError, match="no onset: Colorado 2017-18"):
        read_fluview(path, onset=FluOnset(threshold=50))


def test_what_is_left_out_is_counted(write):
    quiet = season_lines("Utah", 2017, onset=99)
    silent = season_lines("Guam", 2017, suppressed=range(53))
    population = read_fluview(write(text(season_lines("Colorado", 2017), quiet, silent)))
    assert population.provenance["state_seasons"] == {
        "asked": 3,
        "kept": 1,
        "left_out": {"no onset": 1, "no week of the season is reported": 1},
    }
    assert population.provenance["regions_never_reported"] == ["Guam"]
    assert population.provenance["left_out"]["no onset"] == ["Utah 2017-18"]


def test_regions_and_seasons_are_chosen_by_name_or_year(write):
    path = write(text(*(season_lines(region, season) for region in ("Colorado", "Utah") for season in (2016, 2017, 2018))))
    assert read_fluview(path).n_trajectories == 6
    chosen = read_fluview(path, regions=["Utah", "Colorado"], seasons=["2018-19", 2016])
    assert chosen.trajectories == ("Utah 2018-19", "Utah 2016-17", "Colorado 2018-19", "Colorado 2016-17")
    assert read_fluview(path, regions="Utah", seasons="2017-18").trajectories == ("Utah 2017-18",)
    assert read_fluview(path, seasons=range(2016, 2018)).n_trajectories == 4


def zipped(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/", 1) if name.startswith("MACOSX") else name + ".csv", content)
    return buffer.getvalue()


def test_every_published_wrapping_reads_the_same(write):
    lines = text(season_lines("Colorado", 2017))
    plain = read_fluview(write(lines))
    for content in (
        text(season_lines("Colorado", 2017), prose=""),
        lines.replace("\n", "\r\n"),
        "\ufeff" + lines,
        gzip.compress(lines.encode(), mtime=0),
        zipped(WHO_NREVSS_Clinical_Labs=lines, ILINet="other", MACOSX___WHO_NREVSS_Clinical_Labs="junk"),
    ):
        again = read_fluview(write(content, "download"))
        np.testing.assert_array_equal(again.counts, plain.counts)
        np.testing.assert_array_equal(again.totals, plain.totals)


def test_the_national_file_has_a_region_called_national(write):
    national = season_lines("X", 2017).replace("States,", "National,")
    assert read_fluview(write(text(national))).trajectories == ("National 2017-18",)


GOOD = text(season_lines("Colorado", 2017))
FIRST = "States,Colorado,2017,40,200,2,0,1.00,1.00,0\n"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "the file begins with '' and has no header line"),
        ("<html>\n<body>\n", "the file begins with '<html>' and has no header line"),
        (PROSE + HEADER, "there is no line after the header"),
        (GOOD.replace("TOTAL A,", "TOTAL H1N1,"), "line 2: column 'TOTAL A' is missing; the columns are REGION TYPE, REGION"),
        (GOOD.replace("WEEK,", "WEAK,"), "line 2: column 'WEEK' is missing"),
        (GOOD.replace(FIRST, FIRST.replace(",2,0", ",two,0")), "line 3, column 'TOTAL A': 'two'; expected a whole number"),
        (GOOD.replace(FIRST, FIRST.replace(",2,0", ",-2,0")), "line 3, column 'TOTAL A': '-2'; expected a whole number"),
        (GOOD.replace(FIRST, FIRST.replace(",2,0", ",,0")), "line 3, column 'TOTAL A': ''; expected a whole number"),
        (
            GOOD.replace(FIRST, FIRST.replace(",2,0", ",201,0")),
            "line 3, column 'TOTAL A': 201; expected at most the 200 specimens",
        ),
        (GOOD.replace(FIRST, FIRST.replace("200", "nan")), "line 3, column 'TOTAL SPECIMENS': 'nan'; expected a whole number"),
        (GOOD.replace(FIRST, FIRST.replace("2017,40", "2017,53")), "line 3, column 'WEEK': 53; expected a week of 2017, 1 to 52"),
        (GOOD.replace(FIRST, FIRST.replace("2017,40", "17,40")), "line 3, column 'YEAR': 17; expected a number, 1990 to 2200"),
        (GOOD.replace(FIRST, FIRST * 2), "line 4: Colorado, week 40 of 2017, stands on line 3 already"),
        (GOOD[:-9], "line 54: 8 cells; expected 10, as in the header (is the file whole?)"),
        (gzip.compress(GOOD.encode(), mtime=0)[:-20], "the packed file is damaged or cut short"),
        (zipped(ILINet="x"), "the archive holds ILINet.csv; expected one file named ICL_NREVSS_Clinical_Labs.csv"),
        (zipped(ICL_NREVSS_Clinical_Labs=GOOD)[:-30], "the packed file is damaged or cut short"),
        (b"\xff\xfe\x00", "byte 0 is not text in UTF-8"),
    ],
)
def test_refuses_a_file(write, content, expected):
    path = write(content)
    with pytest.raises(DataError, match=re.escape(expected)) as caught:
        read_fluview(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"regions": "colorodo"}, "region 'colorodo' is not in the file; did you mean 'Colorado'?"),
        ({"regions": ["Colorado", "Zzz"]}, "region 'Zzz' is not in the file; the file has Colorado."),
        ({"seasons": 2030}, "season 2030 is not in the file, which has 2017-18 to 2017-18."),
        (
            {"seasons": "2017-2018"},
            "season '2017-2018' is not in the file, which has 2017-18 to 2017-18; did you mean '2017-18'?",
        ),
        ({"weeks": 1}, "weeks is 1; expected a whole number of at least 2"),
        ({"min_weeks": 31}, "min_weeks is 31; expected a whole number from 1 to weeks (30)"),
    ],
)
def test_refuses_an_argument(write, arguments, expected):
    with pytest.raises(DataError, match=re.escape(expected)):
        read_fluview(write(GOOD), **arguments)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"threshold": 0}, "threshold is 0; expected a percentage in (0, 100]"),
        ({"consecutive": 0}, "consecutive is 0; expected a whole number"),
        ({"min_specimens": 1.5}, "min_specimens is 1.5; expected a whole number"),
    ],
)
def test_refuses_an_onset(arguments, expected):
    with pytest.raises(DataError, match=re.escape(expected)):
        FluOnset(**arguments)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.csv: there is no such file"):
        read_fluview(tmp_path / "nowhere.csv")


@needs_real
def test_the_training_seasons_are_217():
    train = read_fluview(REAL, seasons=range(2015, 2022))
    assert train.n_trajectories == 217
    assert train.provenance["rows_read"] == 27702
    assert train.provenance["rows_suppressed"] == 6033
    assert train.provenance["regions_never_reported"] == [
        "District of Columbia",
        "Rhode Island",
        "Puerto Rico",
        "Virgin Islands",
        "New York City",
    ]
    counted = train.provenance["state_seasons"]
    assert counted["asked"] == 54 * 7 == counted["kept"] + sum(counted["left_out"].values())
    assert train.mask[:, :, 1].all()
    assert (train.shares[:, :2, 1] >= 0.02).all()
    # Influenza hardly circulated in 2020-21.
    assert not any(name.endswith("2020-21") for name in train.trajectories)


@needs_real
def test_a_known_season():
    colorado = read_fluview(REAL, regions="Colorado", seasons="2017-18")
    assert colorado.trajectories == ("Colorado 2017-18",)
    assert colorado.provenance["onset_weeks"] == {"Colorado 2017-18": "2017w44"}
    with gzip.open(REAL, "rt") as file:
        row = next(line for line in file if line.startswith("States,Colorado,2018,1,"))
    specimens, positives, percent = (float(row.split(",")[column]) for column in (4, 5, 8))
    # Week 1 of 2018 is nine weeks after week 44 of 2017.
    assert colorado.counts is not None
    assert colorado.totals is not None
    assert colorado.counts[0, 9, 1] == positives
    assert colorado.totals[0, 9] == specimens
    assert 100 * colorado.shares[0, 9, 1] == pytest.approx(percent, abs=0.005 + 1e-9)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"onset": {"threshold": 1}}, "onset is"),
        ({"regions": 5}, "regions is 5"),
        ({"regions": []}, "regions is empty"),
        ({"seasons": []}, "seasons is empty"),
    ],
)
def test_options_of_another_kind_are_refused(options, words, tmp_path):
    with pytest.raises(DataError, match=words):
        read_fluview(tmp_path / "none.csv", **options)
