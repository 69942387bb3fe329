"""Made-up trips in the published formats, and an independent count of them."""

import csv
import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

NEWER = [
    "ride_id",
    "rideable_type",
    "started_at",
    "ended_at",
    *(f"{end}_station_{what}" for end in ("start", "end") for what in ("name", "id")),
    *(f"{end}_{axis}" for end in ("start", "end") for axis in ("lat", "lng")),
    "member_casual",
]
OLDER = [
    "tripduration",
    "starttime",
    "stoptime",
    *(f"start station {what}" for what in ("id", "name", "latitude", "longitude")),
    *(f"end station {what}" for what in ("id", "name", "latitude", "longitude")),
    "bikeid",
    "usertype",
]
STATIONS = {
    "Pier & 1st": ("JC001", 40.7100, -74.0400),
    "Park, North": ("JC002", 40.7110, -74.0410),
    "City Hall": ("HB103", 40.7400, -74.0300),
    "Terminal": ("HB104", 40.7410, -74.0310),
    "4th Ave": ("5329.03", 40.7700, -73.9600),
}


def made_up(n=400, seed=0, first="2024-09-02", days=5):
    """Trips as a table: start, end, origin, destination."""
    random = np.random.default_rng(seed)
    start = pd.Timestamp(first) + pd.to_timedelta(random.integers(0, days * 86_400_000, n), unit="ms")
    end = start + pd.to_timedelta(random.integers(60_000, 7_200_000, n), unit="ms")
    names = list(STATIONS)
    return pd.DataFrame(
        {
            "start": start.astype("datetime64[ms]"),
            "end": end.astype("datetime64[ms]"),
            "origin": random.choice(names, n, p=[0.3, 0.2, 0.2, 0.2, 0.1]),
            "destination": random.choice(names, n, p=[0.2, 0.3, 0.2, 0.2, 0.1]),
        }
    )


def newer(trips):
    """The lines of a file in the newer schema."""
    rows = [NEWER]
    for number, trip in enumerate(trips.to_dict("records")):
        places = [STATIONS.get(trip[end], ("", "", "")) for end in ("origin", "destination")]
        stamps = ["" if pd.isna(trip[end]) else trip[end].isoformat(" ", "milliseconds") for end in ("start", "end")]
        rows.append(
            [
                f"{number:016X}",
                "electric_bike",
                *stamps,
                trip["origin"],
                places[0][0],
                trip["destination"],
                places[1][0],
                *places[0][1:],
                *places[1][1:],
                "member",
            ]
        )
    return text(rows)


def older(trips, ids=3000):
    """The lines of a file in the older schema, whose ids are others."""
    rows = [OLDER]
    number = {name: ids + index for index, name in enumerate(STATIONS)}
    for trip in trips.to_dict("records"):
        ends = [[number[trip[end]], trip[end], *STATIONS[trip[end]][1:]] for end in ("origin", "destination")]
        stamps = [trip[end].isoformat(" ", "milliseconds") + "0" for end in ("start", "end")]
        rows.append([600, *stamps, *ends[0], *ends[1], 29612, "Subscriber"])
    return text(rows)


def text(rows):
    buffer = io.StringIO()
    csv.writer(buffer, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def zipped(members):
    """A zip archive of names and contents."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def gzipped(content):
    return gzip.compress(content.encode(), mtime=0)


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def counted(trips, state, day, hour, minute=0):
    """Arrivals less departures of a state on a day from six until a time, and bikes under way then: by brute force in pandas."""
    opens, until = (pd.Timestamp(day) + pd.Timedelta(hours=h, minutes=m) for h, m in ((6, 0), (hour, minute)))

    def among(column, place):
        return ((trips[column] >= opens) & (trips[column] < until) & trips[place].isin(state)).sum()

    under_way = ((trips["start"] < until) & (trips["end"] >= until)).sum()
    return int(among("end", "destination") - among("start", "origin")), int(under_way)
