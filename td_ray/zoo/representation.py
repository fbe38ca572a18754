"""Representations: a model at a layer, the thing that is compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from td_ray.errors import InputError
from td_ray.needs import Needed
from td_ray.printable import is_line
from td_ray.spec import Experiment
from td_ray.tasks import used_sources
from td_ray.zoo.source import ModelSource


@dataclass(frozen=True)
class Representation:
    """A model at a layer."""

    model: ModelSource
    layer: str

    @property
    def model_name(self) -> str:
        """The model's name."""
        return str(self.model.name)

    @property
    def name(self) -> str:
        """``model@layer``."""
        return f"{self.model_name}@{self.layer}"

    @property
    def metadata(self) -> dict[str, Any]:
        """What the experiment says about the model, and what its path says."""
        return dict(self.model.metadata)


def resolve_representations(experiment: Experiment) -> list[Representation]:
    """Expand the entries of ``models``; order of the file, then of the names.

    Raises:
        InputError: nothing matches, or two models share a name.
    """
    found: dict[str, Representation] = {}
    for entry in experiment.models:
        source = cast(ModelSource, entry)
        tasks = [task for task in experiment.tasks if source.takes(task.name)]
        used = sorted({name for task in tasks for name in source.data_sets(task)})
        for model in source.expand(experiment.folder, used, experiment.cache_path):
            for layer in model.layers or (model.default_layer,):
                representation = Representation(model, layer)
                _require_lines(representation)
                if representation.name in found:
                    raise InputError(
                        f"two models are called '{representation.model_name}' at layer '{layer}'; "
                        "give the entry a 'name' such as \"{parent}-{stem}\" that tells them apart"
                    )
                found[representation.name] = representation
    return list(found.values())


def _require_lines(representation: Representation) -> None:
    """Refuse what file names can have and names cannot: ends of lines, bytes that are no text."""
    facts = [text for pair in representation.metadata.items() for text in pair]
    for text in (representation.name, *facts):
        if isinstance(text, str) and not is_line(text):
            raise InputError(
                f"model {representation.model_name!r}: {text!r} has an end of line, a control "
                "character or bytes that are not UTF-8 in it; rename the file, or give the entry "
                "another 'name' or 'metadata'"
            )


def needed_by(experiment: Experiment) -> list[Needed]:
    """What an experiment must find on the machine, data first, each thing once.

    Raises:
        InputError: a source cannot say what it needs.
    """
    found: list[Needed] = []
    for source in used_sources(experiment):
        found.extend(source.needed(experiment.folder))
    for item in resolve_representations(experiment):
        found.extend(item.model.needed())
    return list(dict.fromkeys(found))
