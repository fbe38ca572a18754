"""GPUs that nobody has measured: what their data sheets promise, at half of it.

A calibration that was measured on the GPU is better; this is what a plan has before anybody could.
Peak rates are NVIDIA's, dense, of the largest board of the name: float32 without tensor cores
(td-ray does not round float32 to TF32), half precision with them. Heads work in float32 as far as
it carries; those that go on in float64 take longer on GPUs that are slow at it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from td_ray.costs.calibration import Device
from td_ray.costs.counts import Prices

SHARE_OF_PEAK = 0.5
HEADS = ("logistic", "ridge", "linear", "mlp")
SECONDS_PER_LAUNCH = 10e-6


@dataclass(frozen=True)
class DataSheet:
    """Peak rates of a GPU, in 1e12 floating-point operations and 1e9 bytes per second."""

    float32: float
    float16: float
    bfloat16: float
    memory: float


DATA_SHEETS = {
    "v100": DataSheet(15.7, 125, 15.7, 900),
    "t4": DataSheet(8.1, 65, 8.1, 320),
    "a10": DataSheet(31.2, 125, 125, 600),
    "a100": DataSheet(19.5, 312, 312, 2039),
    "l4": DataSheet(30.3, 121, 121, 300),
    "l40s": DataSheet(91.6, 362, 362, 864),
    "h100": DataSheet(67.0, 989, 989, 3350),
    "h200": DataSheet(67.0, 989, 989, 4800),
}


def find_gpu(name: str) -> str | None:
    """The data sheet's name of a GPU that a cluster calls so, as in ``nvidia-a100-sxm4-80gb``."""
    words = re.split(r"[^a-z0-9]+", name.lower())
    if "mig" in words:  # a part of one
        return None
    found = [each for each in words if each in DATA_SHEETS]
    found += [each[:-1] for each in words if each[:-1] in DATA_SHEETS and each.endswith("g")]
    return found[0] if found else None


def from_data_sheet(gpu: str) -> Device:
    """What networks and heads take of a GPU that is among ``DATA_SHEETS``."""
    sheet = DATA_SHEETS[gpu]

    def prices(teraflops: float) -> Prices:
        gigaflop = 1e-3 / (teraflops * SHARE_OF_PEAK)
        return Prices(
            gigaflop=gigaflop,
            convolved=gigaflop,
            gigabyte=1 / (sheet.memory * SHARE_OF_PEAK),
            call=SECONDS_PER_LAUNCH,
        )

    networks = {name: prices(getattr(sheet, name)) for name in ("float32", "bfloat16", "float16")}
    return Device(networks=networks, heads=dict.fromkeys(HEADS, networks["float32"]))
