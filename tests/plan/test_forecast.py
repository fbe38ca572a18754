"""What a plan takes elsewhere: nothing where all is there, less on more machines.

How right the seconds are is measured, not tested: `td-ray bench plan`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_zoo import content, experiment, planned, write_features, write_zoo

from td_ray.costs import Calibration, Prices, read_calibration
from td_ray.costs.calibration import ORDINARY
from td_ray.errors import InputError
from td_ray.plan.forecast import Forecast, forecast_on
from td_ray.plan.pair_prices import PricedPairs, price_pairs
from td_ray.plan.tiles import plan_tiles
from td_ray.results.parts import Parts
from td_ray.spec import Experiment
from td_ray.sweep import run

PRICES = read_calibration(ORDINARY)


def forecast(wanted: Experiment, on: str = "slurm", prices: Calibration = PRICES) -> Forecast:
    return forecast_on(on, planned(wanted), Parts(wanted.output_folder), prices)


def comparing(wanted: Experiment, prices: Calibration = PRICES) -> PricedPairs:
    plan, parts = planned(wanted), Parts(wanted.output_folder)
    return price_pairs(plan, parts, plan_tiles(plan, parts), prices)


def on_nodes(zoo: Path, nodes: int = 1, cpus: int = 2, gpus: int = 0, **changes: Any) -> Experiment:
    return experiment(zoo, cluster={"nodes": nodes, "cpus": cpus, "gpus": gpus}, **changes)


def test_what_is_there_costs_nothing(zoo: Path) -> None:
    run(experiment(zoo), backend="inline")
    found = forecast(on_nodes(zoo))
    assert found.seconds == found.core_hours == found.output_bytes == found.cache_bytes == 0


def test_a_new_model_costs_its_own_heads_and_pairs(zoo: Path) -> None:
    whole = forecast(on_nodes(zoo))
    run(experiment(zoo), backend="inline")
    write_zoo(zoo, models=5)
    rest = forecast(on_nodes(zoo))
    assert 0 < rest.core_hours < whole.core_hours
    assert 0 < rest.output_bytes < whole.output_bytes


def test_more_machines_take_less_time_and_the_same_work(zoo: Path) -> None:
    few, many = (forecast(on_nodes(zoo, nodes=nodes)) for nodes in (1, 2))
    assert many.stages["fitting"] <= few.stages["fitting"]
    assert many.core_hours == pytest.approx(few.core_hours)
    assert few.network_bytes == 0 < many.network_bytes


def test_slower_machines_take_as_many_times_as_long(zoo: Path) -> None:
    """Everything but the start, which is measured as a whole."""

    def times(value: Any) -> Any:
        if isinstance(value, Prices):
            return Prices(**{name: 3 * price for name, price in value.model_dump().items()})
        return {name: times(each) for name, each in value.items()}

    cpu = PRICES.cpu.model_copy(
        update={"networks": times(PRICES.cpu.networks), "heads": times(PRICES.cpu.heads)}
    )
    changes = {name: 3 * getattr(PRICES, name) for name in ("array", "trial", "unit")}
    slow = PRICES.model_copy(update={"cpu": cpu, "measures": times(PRICES.measures), **changes})
    once, thrice = forecast(on_nodes(zoo)), forecast(on_nodes(zoo), prices=slow)
    for stage in ("fitting", "comparing"):
        assert thrice.stages[stage] == pytest.approx(3 * once.stages[stage])


def test_iterations_are_those_of_heads_that_are_there(zoo: Path) -> None:
    (guess,) = forecast(on_nodes(zoo)).guesses
    assert "how many iterations heads take ('logistic' on 'species'): there are none yet" in guess
    run(experiment(zoo), backend="inline")
    assert forecast(on_nodes(zoo, seeds=5)).guesses == []


def test_widths_are_read_from_files(zoo: Path) -> None:
    """Ridge on twice the columns takes more, though nothing has been extracted."""
    narrow = forecast(on_nodes(zoo, tasks=content()["tasks"][1:], heads=["ridge"]))
    write_zoo(zoo, width=60)
    wide = forecast(on_nodes(zoo, tasks=content()["tasks"][1:], heads=["ridge"]))
    assert wide.stages["fitting"] > narrow.stages["fitting"]
    assert wide.cache_bytes == 10 * narrow.cache_bytes == 4 * 120 * 60 * 4


def test_all_measures_have_a_price(zoo: Path) -> None:
    wanted = on_nodes(zoo, measures=["td", "cka", "gulp(l=0.1)", "knn(k=5)", "js_divergence"])
    some, more = comparing(on_nodes(zoo, measures=["td"])), comparing(wanted)
    assert 0 < some.seconds < more.seconds
    assert more.guesses == frozenset()
    few = PRICES.model_copy(update={"measures": {"td": PRICES.measures["td"]}})
    assert "that pairs of 'cka' cost what those of td do" in comparing(wanted, few).guesses


def test_pairs_that_are_there_are_not_priced(zoo: Path) -> None:
    """Each comparison by itself: a measure more costs what it costs alone."""
    run(experiment(zoo), backend="inline")
    assert comparing(on_nodes(zoo)).seconds == 0
    more = comparing(on_nodes(zoo, measures=["td", "cka"]))
    assert more.seconds == pytest.approx(comparing(on_nodes(zoo, measures=["cka"])).seconds)
    assert more.rows == 6


def test_stand_ins_are_priced(zoo: Path) -> None:
    plain, both = (
        comparing(on_nodes(zoo, measures=measures)) for measures in (["td"], ["td", "mimic"])
    )
    assert plain.seconds < both.seconds
    assert both.rows == plain.rows + 2 * 4 * 4  # two tasks, all directions, and themselves
    run(experiment(zoo, measures=["td", "mimic"]), backend="inline")
    assert comparing(on_nodes(zoo, measures=["td", "mimic"])).seconds == 0


def test_searches_are_trials_of_their_own(zoo: Path) -> None:
    tasks = content()["tasks"][:1]
    one, several = (
        forecast(on_nodes(zoo, tasks=tasks, heads=[{"kind": "linear", "learning_rate": rates}]))
        for rates in (0.1, [0.1, 0.01, 0.001])
    )
    assert several.stages["fitting"] > one.stages["fitting"] + (3 * 4 - 1) * PRICES.trial
    head = {"kind": "linear", "learning_rate": [0.1, 0.01, 0.001]}
    run(experiment(zoo, tasks=tasks, heads=[head]), backend="inline")
    assert forecast(on_nodes(zoo, tasks=tasks, heads=[head])).seconds == 0


def test_units_that_failed_are_not_forecast(zoo: Path) -> None:
    write_features(zoo / "features/net-4.npz", [f"s{n:03d}" for n in range(120)], [[np.nan]] * 120)
    results = run(experiment(zoo), backend="inline")
    assert len(results.failures()) == 2
    found = forecast(on_nodes(zoo))
    assert found.seconds == 0
    assert found.binds == "nothing: all is there"


@pytest.fixture
def networks(tmp_path: Path) -> Path:
    """Two networks on eight images."""
    import torch
    from safetensors.torch import save_file
    from torch import nn

    (tmp_path / "nets.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 7))\n"
    )
    for number in range(2):
        torch.manual_seed(number)
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 7))
        save_file(network.state_dict(), tmp_path / f"net-{number}.safetensors")
    images = np.random.default_rng(0).random((8, 3, 8, 8), np.float32)
    np.save(tmp_path / "images.npy", images)
    np.savez(tmp_path / "labels.npz", id=np.arange(8).astype(str), label=np.arange(8) % 2)
    return tmp_path


def of_networks(folder: Path, **changes: Any) -> Experiment:
    values = {
        "name": "networks",
        "models": [{"source": "checkpoints", "path": "net-*.safetensors", "factory": "nets:build"}],
        "data": [
            {"name": "images", "source": "table", "path": "labels.npz", "inputs": "images.npy"}
        ],
        "seeds": 0,
        "tasks": [{"name": "label", "data": "images", "target": "label"}],
        "resources": {"cache": "cache"},
    }
    return Experiment.parse({**values, "folder": str(folder), **changes})


def test_passes_are_counted_and_tell_widths(networks: Path) -> None:
    wanted = of_networks(networks, cluster={"cpus": 1})
    found = forecast(wanted)
    assert found.uncounted == {}
    assert found.cache_bytes == 2 * 8 * 144 * 4
    free = Prices(gigaflop=0, gigabyte=0, call=0, convolved=0)
    slow = PRICES.cpu.model_copy(
        update={"networks": {"float32": free.model_copy(update={"convolved": 1e9})}}
    )
    prices = PRICES.model_copy(update={"cpu": slow})
    flops = 2 * 3 * 4 * 9 * 36 * 8 * 2
    assert forecast(wanted, prices=prices).core_hours == pytest.approx(flops / 3600, rel=0.01)


def test_a_network_that_cannot_be_counted_is_named(networks: Path) -> None:
    (networks / "nets.py").write_text(
        "from torch import nn\n"
        "class Odd(nn.Sequential):\n"
        "    def forward(self, x):\n"
        "        return super().forward(x * float(x.sum() > 0))\n"
        "def build():\n"
        "    return Odd(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 7))\n"
    )
    found = forecast(of_networks(networks, cluster={"cpus": 1}))
    assert set(found.uncounted) == {"net-0", "net-1"}
    assert "cannot be counted" in found.uncounted["net-0"]


def test_gpus_are_taken_from_data_sheets_or_measured(networks: Path) -> None:
    share = {"resources": {"cache": "cache", "gpus_per_extraction": 1}}

    def on_gpus(**cluster: Any) -> Experiment:
        return of_networks(networks, **share, cluster={"cpus": 4, "gpus": 2, **cluster})

    found = forecast(on_gpus(gpu_type="nvidia-a100-sxm4-80gb"))
    assert "A100" in found.prices[1]
    assert "not measured" in found.prices[1]
    assert found.gpu_hours > 0
    assert found.gpu_hours_held == pytest.approx(2 * found.seconds / 3600)
    with pytest.raises(InputError, match=r"its type is not said.*--gpu-type.*h100"):
        forecast(on_gpus())
    with pytest.raises(InputError, match="'volta' is not known"):
        forecast(on_gpus(gpu_type="volta"))
    slow = {"gpu": PRICES.cpu, "gpu_name": "NVIDIA A100-SXM4-40GB"}
    measured = PRICES.model_copy(update=slow)
    for gpu_type in (None, "a100", "whatever"):
        own = forecast(on_gpus(gpu_type=gpu_type), prices=measured)
        assert own.gpu_hours > found.gpu_hours
        assert own.prices[1] == "NVIDIA A100-SXM4-40GB, measured"
    assert "H100" in forecast(on_gpus(gpu_type="h100"), prices=measured).prices[1]


def test_networks_run_where_their_share_is(networks: Path) -> None:
    """As workers see it: without a share of a GPU for it, extraction is on the cores."""

    def hours(**resources: Any) -> float:
        cluster = {"cpus": 4, "gpus": 2, "gpu_type": "a100"}
        wanted = of_networks(networks, resources=resources, cluster=cluster)
        return forecast(wanted).gpu_hours

    passes, fits = hours(gpus_per_extraction=1), hours(gpus_per_trial=1)
    assert passes > 0
    assert fits > 0
    both = hours(gpus_per_extraction=1, gpus_per_trial=1)
    assert both == pytest.approx(passes + fits)
    assert hours(gpus_per_extraction=1, gpus_per_trial=1, device="cpu") == 0
    assert hours(device="cuda") == pytest.approx(both)


@pytest.mark.parametrize(
    ("changes", "on", "message"),
    [
        ({"cluster": {}}, "slurm", "--cpus"),
        ({"cluster": {}}, "http://10.0.0.1:8265", "--cpus"),
        ({"cluster": {"cpus": 2}}, "slrm", "did you mean 'slurm'"),
        ({"cluster": {"nodes": 2}}, "local", "this machine alone"),
        ({"resources": {"cpus_per_trial": 4}, "cluster": {"cpus": 2}}, "slurm", "is 4.* 2 CPUs"),
        (
            {"resources": {"gpus_per_trial": 0.5}, "cluster": {"cpus": 2}},
            "kubernetes",
            "is 0.5.* 0 GPUs.*--gpus",
        ),
    ],
)
def test_machines_that_will_not_do_are_refused(
    zoo: Path, changes: dict[str, Any], on: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        forecast(experiment(zoo, **changes), on)
