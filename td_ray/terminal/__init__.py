"""What the command line prints.

tables       rows
plans        what would run, and what it takes
results      matrices, nearest models, failures, warnings
benchmarks   what was measured
"""

from td_ray.terminal.benchmarks import print_benchmarks
from td_ray.terminal.plans import print_plan
from td_ray.terminal.results import (
    HALVES,
    STAND_IN,
    failure_lines,
    lines_left,
    matrix_text,
    nearest_text,
    prepare_file,
    warning_lines,
    write_text,
)
from td_ray.terminal.tables import print_rows

__all__ = [
    "HALVES",
    "STAND_IN",
    "failure_lines",
    "lines_left",
    "matrix_text",
    "nearest_text",
    "prepare_file",
    "print_benchmarks",
    "print_plan",
    "print_rows",
    "warning_lines",
    "write_text",
]
