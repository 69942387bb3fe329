"""The benchmarks of arXiv 2606.23155: data as in the paper, fitted and scored against the truth."""

from .run import METHODS, Row, reproduce, table, training_model
from .systems import SYSTEMS, Benchmark, Size, benchmark

__all__ = ["METHODS", "SYSTEMS", "Benchmark", "Row", "Size", "benchmark", "reproduce", "table", "training_model"]
