"""Observed populations, and readers of published data."""

from .auckland import load_auckland_pedestrians
from .bay_area import read_bay_area
from .blank import blank_population
from .citibike import read_citibike
from .cumulative import read_cumulative_cases
from .days import Days, days_of, table_of_days
from .epidemic import simulate_epidemic
from .fluview import FluOnset, read_fluview
from .places import Places
from .population import Population
from .school import load_school_influenza
from .simulate import Arc, Bell, OfPopulation, simulate
from .table import read_table
from .trips import read_trips

__all__ = [
    "Arc",
    "Bell",
    "Days",
    "FluOnset",
    "OfPopulation",
    "Places",
    "Population",
    "blank_population",
    "days_of",
    "load_auckland_pedestrians",
    "load_school_influenza",
    "read_bay_area",
    "read_citibike",
    "read_cumulative_cases",
    "read_fluview",
    "read_table",
    "read_trips",
    "simulate",
    "simulate_epidemic",
    "table_of_days",
]
