"""What work costs: counts of it, and the prices that a machine asks.

counts        floating-point operations, bytes, calls; and their prices, fitted to measured times
calibration   the prices of one machine, in a file
gpus          prices of GPUs that were not measured, from their data sheets
"""

from td_ray.costs.calibration import (
    Calibration,
    Device,
    find_calibration,
    own_calibration,
    read_calibration,
)
from td_ray.costs.counts import Counts, Prices, fit_prices
from td_ray.costs.gpus import DATA_SHEETS, find_gpu, from_data_sheet

__all__ = [
    "DATA_SHEETS",
    "Calibration",
    "Counts",
    "Device",
    "Prices",
    "find_calibration",
    "find_gpu",
    "fit_prices",
    "from_data_sheet",
    "own_calibration",
    "read_calibration",
]
