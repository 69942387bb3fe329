"""Observed populations, and readers of published data."""

from .epidemic import simulate_epidemic
from .fluview import FluOnset, read_fluview
from .population import Population
from .school import load_school_influenza
from .simulate import Arc, Bell, OfPopulation, simulate
from .table import read_table

__all__ = [
    "Arc",
    "Bell",
    "FluOnset",
    "OfPopulation",
    "Population",
    "load_school_influenza",
    "read_fluview",
    "read_table",
    "simulate",
    "simulate_epidemic",
]
