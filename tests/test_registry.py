from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

import pytest

from td_ray import registry
from td_ray.errors import InputError
from td_ray.registry import Registry, closest


def test_closest_name_or_the_known_ones() -> None:
    assert closest("tabel", ["table", "sklearn"]) == "did you mean 'table'?"
    assert closest("xyz", ["b", "a"]) == "known: a, b"
    assert closest("x", []) == "none is known"


def test_register_and_get() -> None:
    things: Registry[Any] = Registry("thing", "td_ray.no_such_group")

    @things.register("one")
    class One:
        pass

    assert things.get("one") is One
    assert things.names() == ["one"]
    with pytest.raises(InputError, match=r"unknown thing 'on': did you mean 'one'\?"):
        things.get("on")


def test_two_objects_cannot_share_a_name() -> None:
    things: Registry[Any] = Registry("thing", "td_ray.no_such_group")
    things.register("one")(Registry)
    things.register("one")(Registry)  # as when its module is loaded again
    with pytest.raises(InputError, match=r"two things are called 'one': .*Registry and .*closest"):
        things.register("one")(closest)


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (registry.MODEL_SOURCES, ["checkpoints", "features", "predictions", "torchvision"]),
        (registry.DATA_SOURCES, ["sklearn", "table"]),
    ],
)
def test_built_in_sources_are_there(sources: Registry[Any], names: list[str]) -> None:
    assert set(names) <= set(sources.names())
    for name in names:
        assert sources.get(name).model_fields["source"]


def test_a_module_that_fails_names_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("broken", "no_such_module_at_all", "g"), EntryPoint("odd", "json", "g")]

    def entry_points(group: str, name: str | None = None) -> list[EntryPoint]:
        return [point for point in points if name in (None, point.name)]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    things: Registry[Any] = Registry("thing", "g")
    assert things.names() == ["broken", "odd"]
    with pytest.raises(
        InputError, match=r"thing 'broken'.*'no_such_module_at_all'.*ModuleNotFound"
    ):
        things.get("broken")
    with pytest.raises(InputError, match="unknown thing 'odd'"):  # imported, registers nothing
        things.get("odd")
