"""How td-ray's time grows: from a middle case, one size is doubled at a time."""

from __future__ import annotations

from typing import Any

from td_ray.bench.heads.cases import seeds_stack, synthetic
from td_ray.bench.heads.logistic import fit_td_ray, warm_up

Row = dict[str, Any]

MIDDLE = {"n": 4_000, "d": 256, "C": 10, "heads": 16}
# Three runs of each, on one thread: a ratio shows at once what disturbs one side of it.
ENOUGH_SECONDS = 20.0


def growth_rows(middle: dict[str, int] = MIDDLE) -> list[Row]:
    """A row for the middle case, and one for each size doubled."""
    warm_up()
    rows: list[Row] = []
    for doubled in (None, *middle):
        sizes = {name: size * (1 + (name == doubled)) for name, size in middle.items()}
        features = synthetic(sizes["C"], sizes["d"], rows=sizes["n"], held_out=1)
        stack = seeds_stack(features, sizes["heads"])
        measured, _ = fit_td_ray(stack, 1.0, ENOUGH_SECONDS, threads=1)
        seconds = measured.seconds_per_head * sizes["heads"]
        rows.append(
            {
                "benchmark": "growth",
                "case": "middle" if doubled is None else f"{doubled} doubled",
                "method": "td_ray",
                **sizes,
                "runs": measured.runs,
                "threads": measured.threads,
                "seconds": seconds,
                "times_middle": seconds / rows[0]["seconds"] if rows else 1.0,
            }
        )
    return rows
