"""What a year of trips costs: `read_citibike` against `pandas.read_csv` and groupby, on a file that is made for it.

    python -m benchmarks.trips
    python -m benchmarks.trips --rows 1000000 --zip

The file has Citi Bike's newer columns, quoted, with 2,000 stations, over a year, and lies in a temporary folder while this runs (about 2.4 GB for ten
million rows). Each reader runs in a process of its own, one after the other; the peak of its memory is what the operating system counted, with the
imports, which are not timed. `pandas` reads the four columns that it needs, turns two into times, and counts departures and arrivals by station and
quarter of an hour: flows, not yet stocks. `read_citibike` reads coordinates and ids, too, and goes on to the population: the twenty busiest stations,
External and In transit, 366 days. Both must count the same departures of the busiest station. Rounds take turns; the median is reported.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

STATIONS, PIECE = 2000, 500_000


def make(path: Path, rows: int) -> None:
    """A file of made-up trips."""
    import pyarrow as pa
    from pyarrow import compute, csv

    random = np.random.default_rng(0)
    names = pa.array([f"Street {i} & Avenue {i % 17}" for i in range(STATIONS)])
    ids = pa.array([f"{4000 + i}.{i % 100:02d}" for i in range(STATIONS)])
    latitude, longitude = 40.65 + 0.2 * random.random(STATIONS), -74.02 + 0.12 * random.random(STATIONS)
    popular = random.gamma(1.0, size=STATIONS)
    popular /= popular.sum()
    begin = np.datetime64("2024-01-01T00:00:00.000")
    writer = None
    for first in range(0, rows, PIECE):
        n = min(PIECE, rows - first)
        start = begin + random.integers(0, 366 * 86_400_000, n).astype("timedelta64[ms]")
        end = start + random.integers(60_000, 5_400_000, n).astype("timedelta64[ms]")
        ends = [random.choice(STATIONS, n, p=popular) for _ in range(2)]
        table = pa.table(
            {
                "ride_id": pa.array(np.char.mod("%016X", np.arange(first, first + n))),
                "rideable_type": pa.array(np.where(random.random(n) < 0.5, "electric_bike", "classic_bike")),
                "started_at": compute.replace_substring(compute.cast(pa.array(start), pa.string()), "T", " "),
                "ended_at": compute.replace_substring(compute.cast(pa.array(end), pa.string()), "T", " "),
                "start_station_name": names.take(pa.array(ends[0])),
                "start_station_id": ids.take(pa.array(ends[0])),
                "end_station_name": names.take(pa.array(ends[1])),
                "end_station_id": ids.take(pa.array(ends[1])),
                "start_lat": pa.array(latitude[ends[0]]),
                "start_lng": pa.array(longitude[ends[0]]),
                "end_lat": pa.array(latitude[ends[1]]),
                "end_lng": pa.array(longitude[ends[1]]),
                "member_casual": pa.array(np.where(random.random(n) < 0.8, "member", "casual")),
            }
        )
        writer = writer or csv.CSVWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def by_pandas(path: str) -> int:
    import pandas as pd

    wanted = ["started_at", "ended_at", "start_station_name", "end_station_name"]
    table = pd.read_csv(path, usecols=wanted)
    flows = {}
    for moment, place in (("started_at", "start_station_name"), ("ended_at", "end_station_name")):
        table[moment] = pd.to_datetime(table[moment], format="ISO8601")
        flows[place] = table.groupby([place, table[moment].dt.floor("15min")]).size()
    busiest = table["start_station_name"].value_counts().add(table["end_station_name"].value_counts(), fill_value=0).idxmax()
    return int(flows["start_station_name"][busiest].sum())


def by_us(path: str) -> int:
    import bayes_mfg as bm

    days = bm.data.Days(opens="00:00", closes="24:00", first="2023-12-31", last="2025-01-01")
    population = bm.data.read_citibike(path, bm.data.Places(stations=20), days=days, progress=False)
    trips = population.provenance["trips"]
    assert trips["read"] == trips["kept"] + sum(trips["dropped"].values())
    assert (population.counts.sum(axis=2) == population.provenance["stock"]["fleet"]).all()
    return sum(population.provenance["flows"]["trips"][0])


def run(reader: str, path: Path) -> dict[str, Any]:
    """One reader in a process of its own."""
    made = subprocess.run(
        [sys.executable, "-m", "benchmarks.trips", reader, str(path)], capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(made.stdout)
    return found


def child(reader: str, path: str) -> None:
    import pandas  # noqa: F401 - what is imported is not timed

    import bayes_mfg.data  # noqa: F401

    begin = time.perf_counter()
    counted = {"pandas": by_pandas, "ours": by_us}[reader](path)
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "peak": peak, "counted": counted}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reader", nargs="?", choices=["pandas", "ours", "make"], help=argparse.SUPPRESS)
    parser.add_argument("path", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--zip", action="store_true", help="pack the file as Citi Bike does")
    given = parser.parse_args()
    if given.reader == "make":
        make(Path(given.path), given.rows)
        return
    if given.reader:
        child(given.reader, given.path)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "2024-citibike-tripdata.csv"
        # In a process of its own: the peak of a child is at least what its parent held when it was made.
        command = [sys.executable, "-m", "benchmarks.trips", "make", str(path), "--rows", str(given.rows)]
        subprocess.run(command, check=True)
        print(f"{given.rows:,} rows, {path.stat().st_size / 1e9:.2f} GB", flush=True)
        if given.zip:
            packed = path.with_suffix(".csv.zip")
            with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.write(path, path.name)
            path.unlink()
            path = packed
        rounds: dict[str, list[dict[str, Any]]] = {"ours": [], "pandas": []}
        for _ in range(given.rounds):
            for reader, found in rounds.items():
                found.append(run(reader, path))
    assert len({one["counted"] for found in rounds.values() for one in found}) == 1, "the two count differently"
    seconds = {reader: statistics.median(one["seconds"] for one in found) for reader, found in rounds.items()}
    for reader, found in rounds.items():
        print(
            f"{reader:8s} {seconds[reader]:6.1f} s, {given.rows / seconds[reader] / 1e6:.2f} million rows/s,"
            f" peak {max(one['peak'] for one in found) / 1e9:.2f} GB"
        )
    print(f"pandas takes {seconds['pandas'] / seconds['ours']:.2f} times as long")


if __name__ == "__main__":
    main()
