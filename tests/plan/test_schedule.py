"""Schedules: closed forms, and bounds that every one keeps."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from td_ray.costs import Calibration, read_calibration
from td_ray.costs.calibration import ORDINARY
from td_ray.plan.pricing import PricedBlock, PricedPass
from td_ray.plan.schedule import Course, Hardware, course_of
from td_ray.spec import Resources


def calibration(**changes: float) -> Calibration:
    nothing = {"trial": 0.0, "unit": 0.0}
    return read_calibration(ORDINARY).model_copy(update={**nothing, **changes})


def block(who: str, heads: float, *passes: PricedPass, gpu: float = 0.0) -> PricedBlock:
    return PricedBlock(who, passes, heads, gpu, 1)


def course(
    blocks: list[PricedBlock], nodes: int = 1, cpus: int = 1, gpus: int = 0, **resources: float
) -> Course:
    return course_of([blocks], Hardware(nodes, cpus, gpus), Resources(**resources), calibration())


def test_equal_models_go_in_rounds() -> None:
    blocks = [block(f"net-{number}", 10.0) for number in range(7)]
    assert course(blocks).seconds == pytest.approx(70)
    assert course(blocks, cpus=2).seconds == pytest.approx(40)
    assert course(blocks, nodes=3).seconds == pytest.approx(30)
    assert course(blocks, nodes=2, cpus=4).seconds == pytest.approx(10)
    assert course(blocks, cpus=4, cpus_per_trial=2).seconds == pytest.approx(20)
    assert course([]).seconds == 0


def test_the_longest_model_binds() -> None:
    blocks = [block("long", 100.0), *(block(f"net-{number}", 1.0) for number in range(9))]
    found = course(blocks, cpus=8)
    assert found.seconds == pytest.approx(100)
    assert (found.binds, found.longest) == ("longest", "long")


def test_models_are_begun_one_after_the_other() -> None:
    blocks = [block(f"net-{number}", 1.0) for number in range(100)]
    found = course_of([blocks], Hardware(50, 8, 0), Resources(), calibration(trial=0.5))
    assert found.seconds == pytest.approx(99 * 0.5 + 1)
    assert found.binds == "trials"


def test_models_that_have_their_predictions_are_no_trials() -> None:
    blocks = [PricedBlock(f"net-{number}", (), 0.0, 0.0, 1, False) for number in range(100)]
    found = course_of([blocks], Hardware(1, 4, 0), Resources(), calibration(trial=0.5, stored=0.1))
    assert found.seconds == pytest.approx(100 * 0.1 / 4)


def test_networks_wait_for_a_gpu_of_their_node() -> None:
    blocks = [
        block(f"net-{number}", 0.0, PricedPass(f"pass {number}", 0.0, 10.0, 0))
        for number in range(8)
    ]
    one = {"gpus_per_extraction": 1.0}
    assert course(blocks, cpus=8, gpus=1, **one).seconds == pytest.approx(80)
    assert course(blocks, cpus=8, gpus=4, **one).seconds == pytest.approx(20)
    assert course(blocks, nodes=2, cpus=4, gpus=2, **one).seconds == pytest.approx(20)
    found = course(blocks, cpus=8, gpus=1, **one)
    assert found.gpus == pytest.approx(80)
    assert found.binds == "GPUs"


def test_preparing_inputs_may_hold_a_gpu_up() -> None:
    blocks = [block("net", 0.0, PricedPass("pass", 80.0, 10.0, 0))]
    found = course(blocks, cpus=4, gpus=1, gpus_per_extraction=1.0)
    assert found.seconds == pytest.approx(20)  # on four cores


def test_those_who_share_a_gpu_take_turns() -> None:
    blocks = [
        block(f"net-{number}", 0.0, PricedPass(f"pass {number}", 0.0, 10.0, 0))
        for number in range(8)
    ]
    found = course(blocks, cpus=8, gpus=1, gpus_per_extraction=0.25)
    assert found.seconds == pytest.approx(80)
    assert found.gpus == pytest.approx(80)
    fits = [block(f"net-{number}", 0.0, gpu=10.0) for number in range(8)]
    assert course(fits, cpus=8, gpus=1, gpus_per_trial=0.5).seconds == pytest.approx(80)
    assert course(fits, cpus=8, gpus=4, gpus_per_trial=1.0).seconds == pytest.approx(20)


def test_trials_hold_gpus_that_extraction_cannot_have() -> None:
    blocks = [
        block(f"net-{number}", 0.0, PricedPass(f"pass {number}", 0.0, 10.0, 0), gpu=0.0)
        for number in range(8)
    ]
    shares = {"gpus_per_extraction": 1.0, "gpus_per_trial": 0.5}
    assert course(blocks, cpus=2, gpus=3, **shares).seconds == pytest.approx(40)  # two of them


def test_memory_bounds_how_many_trials_a_node_has() -> None:
    blocks = [block(f"net-{number}", 10.0) for number in range(8)]
    hardware = Hardware(1, 8, 0, memory=10.0)
    found = course_of([blocks], hardware, Resources(), calibration(), process_bytes=3.5)
    assert found.seconds == pytest.approx(40)  # two at once, in seven tenths of the memory
    assert found.binds == "slots"
    found = course_of([blocks], hardware, Resources(), calibration(), process_bytes=100.0)
    assert found.seconds == pytest.approx(80)


def test_a_stage_waits_for_the_one_before() -> None:
    first, second = [block("long", 10.0), block("short", 1.0)], [block("last", 5.0)]
    found = course_of([first, second], Hardware(1, 2, 0), Resources(), calibration())
    assert found.seconds == pytest.approx(15)


def test_layers_share_a_pass_on_their_node() -> None:
    shared = PricedPass("pass", 10.0, 0.0, 7)
    blocks = [block(f"net@{layer}", 1.0, shared) for layer in range(4)]
    assert course(blocks).seconds == pytest.approx(14)
    assert course(blocks, cpus=4).seconds == pytest.approx(11)
    assert course(blocks, nodes=4).seconds == pytest.approx(11)
    found = course(blocks, nodes=4)
    assert (found.cores, found.cache_bytes) == (4 * 11, 4 * 7)  # each node makes its own


lengths = st.lists(st.floats(0.1, 10), min_size=1, max_size=30)


@given(lengths, st.integers(1, 4), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_no_schedule_is_better_than_its_bounds_or_worse_than_grahams(
    seconds: list[float], nodes: int, cpus: int
) -> None:
    """Graham 1969: in any order, at most (sum / m) + (1 - 1 / m) longest."""
    blocks = [block(f"net-{number}", each) for number, each in enumerate(seconds)]
    found, slots = course(blocks, nodes=nodes, cpus=cpus), nodes * cpus
    most = math.fsum(seconds) / slots + (1 - 1 / slots) * max(seconds)
    assert max(found.bounds.values()) <= found.seconds * (1 + 1e-9)
    assert found.seconds <= most * (1 + 1e-9)
    assert found.cores == pytest.approx(math.fsum(seconds))
