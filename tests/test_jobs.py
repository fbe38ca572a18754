"""Experiments of jobs/zoos can be asked for as they stand: models, layers, data sets exist."""

from __future__ import annotations

from pathlib import Path

import pytest
from torchvision.models import get_model, list_models

from td_ray.spec import Experiment
from td_ray.zoo import ModelSource
from td_ray.zoo.torchvision_models import Torchvision

ZOOS = Path(__file__).parent.parent / "jobs/zoos"


def models_of(wanted: Experiment) -> list[ModelSource]:
    data = [entry.name for entry in wanted.data]
    expanded = (each.expand(wanted.folder, data, wanted.cache_path) for each in wanted.models)
    return [model for models in expanded for model in models]


@pytest.mark.parametrize("path", sorted(ZOOS.glob("*.yaml")), ids=lambda path: path.stem)
def test_an_experiment_is_whole(path: Path) -> None:
    wanted = Experiment.load(path)
    models = models_of(wanted)
    assert len(models) >= 2
    for model in models:
        if isinstance(model, Torchvision) and model.layers:
            network = get_model(model.builder[0], weights=None)
            names = {name for name, _ in network.named_modules()} | {"penultimate", "output"}
            assert set(model.layers) <= names
    assert wanted.resources.gpus_per_extraction == 1


def test_all_of_torchvision() -> None:
    import torchvision

    models = models_of(Experiment.load(ZOOS / "imagenet.yaml"))
    found = {str(model.builder[0]) for model in models if isinstance(model, Torchvision)}
    assert found == set(list_models(module=torchvision.models))
