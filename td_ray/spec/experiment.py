"""The experiment as a whole: read from YAML, checked, written back."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    SerializeAsAny,
    ValidationError,
    field_validator,
    model_validator,
)

from td_ray import registry, yaml_files
from td_ray.errors import InputError
from td_ray.files import one_line
from td_ray.spec.cluster import Cluster
from td_ray.spec.entries import (
    DataEntry,
    FolderPath,
    FolderPlace,
    Frozen,
    ModelEntry,
    Name,
    Split,
    Words,
)
from td_ray.spec.heads import HeadSpec, kinds_for
from td_ray.spec.pairs import PairRule, Pairs
from td_ray.spec.resources import Resources
from td_ray.spec.tasks import Family, TaskSpec
from td_ray.storage import Folder, beside, is_url, open_folder
from td_ray.validation_errors import Place, explain

# As a count, more than this is taken for a mistake: somebody's favourite seed.
MANY_SEEDS = 1000

EXPERIMENT = "experiment.yaml"
"""The experiment that an output folder keeps."""


def _entry(known: registry.Registry[Any], key: str) -> BeforeValidator:
    """Validate a mapping by the class that its ``key`` names."""

    def choose(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        name = value.get(key)
        if not isinstance(name, str):
            raise ValueError(f"'{key}' is missing: {registry.closest('', known.names())}")
        try:
            found = known.get(name)
        except InputError as error:
            raise ValueError(str(error)) from None
        return found.model_validate(value)

    return BeforeValidator(choose)


def _kind_alone(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


def _heads() -> tuple[HeadSpec, ...]:
    kinds = ("logistic", "ridge")
    return tuple(registry.HEAD_KINDS.get(kind).model_validate({"kind": kind}) for kind in kinds)


class Experiment(Frozen):
    """All that a user asks for. Relative paths start at ``folder``, the file's own by default."""

    name: Name = "experiment"
    models: Annotated[
        tuple[Annotated[SerializeAsAny[ModelEntry], _entry(registry.MODEL_SOURCES, "source")], ...],
        Field(min_length=1),
    ]
    data: Annotated[
        tuple[Annotated[SerializeAsAny[DataEntry], _entry(registry.DATA_SOURCES, "source")], ...],
        Field(min_length=1),
    ]
    tasks: Annotated[tuple[TaskSpec, ...], Field(min_length=1)]
    heads: Annotated[
        tuple[
            Annotated[
                SerializeAsAny[HeadSpec],
                _entry(registry.HEAD_KINDS, "kind"),
                BeforeValidator(_kind_alone),
            ],
            ...,
        ],
        Field(default_factory=_heads, min_length=1),
    ]
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    samples: Literal["match", "intersect"] = "match"
    pairs: Pairs = "all"
    examples: Annotated[int, Field(ge=2)] | None = None
    measures: Annotated[Words, Field(min_length=1)] = ("td",)
    resources: Resources = Resources()
    cluster: Cluster = Cluster()
    output: FolderPlace = "output"
    folder: FolderPath = Field(default_factory=Path.cwd)

    @classmethod
    def load(cls, path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Self:
        """Read an experiment file.

        Args:
            path: a YAML file, or an output folder, which holds its own ``experiment.yaml``, or
                the URL of one.
            overrides: texts ``a.b=c``; list items are named by ``name`` or by number.

        Raises:
            InputError: the file or a value in it is wrong; says where and what to do.
        """
        file = Path(path)
        if is_url(os.fspath(path)):
            content = _of_output(os.fspath(path))
        else:
            if file.is_dir():
                file = file / EXPERIMENT
            content = yaml_files.read(file)
        for override in overrides:
            yaml_files.override(content, override)
        # a key with nothing after it is as good as absent
        content = {key: value for key, value in content.items() if value is not None}
        content.setdefault("name", file.stem)
        folder = content.get("folder", "")
        if isinstance(folder, str):
            content["folder"] = str(file.parent.resolve() / folder)
        return cls.parse(content, str(file))

    @classmethod
    def parse(cls, content: Mapping[str, Any], where: str = "experiment") -> Self:
        """Validate a mapping; the first error becomes one line that starts with ``where``."""
        try:
            return cls.model_validate(dict(content))
        except ValidationError as error:
            raise InputError(f"{where}: {explain(error, content, _keys_beside)}") from None

    @field_validator("seeds", mode="before")
    @classmethod
    def _count_or_list(cls, value: Any) -> Any:
        if not isinstance(value, int):
            return value
        if isinstance(value, bool) or not 0 <= value <= MANY_SEEDS:
            raise ValueError(
                f"'seeds' is how many cuts are drawn, from 0 to {MANY_SEEDS}, or a list of seeds"
            )
        return tuple(range(value))

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) < len(value) or any(not 0 <= seed < 2**31 for seed in value):
            raise ValueError("seeds are distinct whole numbers from 0 to 2147483647")
        return tuple(sorted(value))

    @field_validator("measures")
    @classmethod
    def _measures(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            plain = registry.split_options(name)[0]
            if plain not in registry.MEASURES.names():
                hint = registry.closest(plain, registry.MEASURES.names())
                raise ValueError(f"unknown measure '{plain}': {hint}")
            if value.count(name) > 1:
                raise ValueError(f"measure '{name}' is there twice")
        return value

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        data = [entry.name for entry in self.data]
        for what, names in (
            ("data set", data),
            ("task", [task.name for task in self.tasks]),
            ("head", [head.name for head in self.heads]),
        ):
            twice = {name for name in names if names.count(name) > 1}
            if twice:
                raise ValueError(f"two {what}s are called '{min(twice)}'; give each its own name")
        for task in self.tasks:
            for name in (task.data, *task.evaluate):
                if name not in data:
                    hint = registry.closest(name, data)
                    raise ValueError(f"task '{task.name}': no data set is called '{name}': {hint}")
            if not self.heads_for(task):
                raise ValueError(
                    f"task '{task.name}' is {task.kind}, and no head serves it (there is "
                    f"{', '.join(head.name for head in self.heads)}): add one of kind "
                    f"{kinds_for(task.kind)} to 'heads'"
                )
        return self

    def heads_for(self, task: TaskSpec) -> tuple[HeadSpec, ...]:
        """The heads that are fitted for a task."""
        return tuple(head for head in self.heads if task.kind in head.targets)

    @property
    def output_folder(self) -> Folder:
        """Where parts and results go."""
        return open_folder(beside(self.folder, self.output))

    @property
    def cache_path(self) -> Path:
        """Where features and digests are kept on this machine between runs."""
        cache = self.resources.cache
        return default_cache() if cache is None or is_url(cache) else self.folder / cache

    @property
    def shared_cache(self) -> Folder | None:
        """Where features are kept for all machines: ``resources.cache``, if that is a URL."""
        cache = self.resources.cache
        return open_folder(cache) if cache is not None and is_url(cache) else None

    def to_yaml(self) -> str:
        """The whole experiment, defaults included, as YAML that ``load`` reads back."""
        return yaml_files.write(self.model_dump(mode="json"))


def _of_output(url: str) -> dict[str, Any]:
    """The experiment that an output folder in an object store keeps."""
    folder = open_folder(url)
    try:
        return yaml_files.parse(folder.read(EXPERIMENT), folder.shown(EXPERIMENT))
    except OSError as error:
        raise InputError(f"{url}: no experiment can be read there: {one_line(error)}") from None


def default_cache() -> Path:
    """The cache folder of this user: ``TD_RAY_CACHE``, or ``td-ray`` in the user's cache.

    Raises:
        InputError: ``TD_RAY_CACHE`` is relative; processes of a run start in other folders.
    """
    named = os.environ.get("TD_RAY_CACHE")
    if named and not os.path.isabs(named):
        raise InputError(f"TD_RAY_CACHE is '{named}', which is not an absolute path: make it one")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "td-ray"


def _keys_beside(place: Place, content: Mapping[str, Any]) -> list[str]:
    """The keys that would have been allowed where an unknown one was found."""
    registries = {
        "models": (registry.MODEL_SOURCES, "source"),
        "data": (registry.DATA_SOURCES, "source"),
        "heads": (registry.HEAD_KINDS, "kind"),
    }
    if len(place) == 1:
        return list(Experiment.model_fields)
    if "split" in place[:-1]:
        return list(Split.model_fields)
    room, number = str(place[0]), place[1]
    if room == "tasks" and "family" in place[:-1]:
        return list(Family.model_fields)
    if room in registries:
        known, key = registries[room]
        return list(known.get(content[room][number][key]).model_fields)
    others: dict[str, type[Frozen]] = {
        "tasks": TaskSpec,
        "pairs": PairRule,
        "resources": Resources,
        "cluster": Cluster,
    }
    return list(others[room].model_fields)
