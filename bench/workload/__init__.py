"""Documents to sweep, sweeps of them, and what those cost: shared by the benchmarks of the sweep."""

from .documents import DB, KINDS, LEGACY, Kind, fill
from .sweeping import Cost, run_sweep

__all__ = ["Cost", "DB", "KINDS", "Kind", "LEGACY", "fill", "run_sweep"]
