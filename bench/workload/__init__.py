"""Documents to sweep, sweeps of them, what those cost, and a model: for benchmarks of the sweep."""

from .documents import DB, KINDS, LEGACY, Kind, fill
from .sweeping import Cost, run_sweep

__all__ = ["Cost", "DB", "KINDS", "Kind", "LEGACY", "fill", "run_sweep"]
