from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from td_ray import yaml_files
from td_ray.errors import InputError


def read(folder: Path, text: str | bytes) -> dict[str, Any]:
    file = folder / "x.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return yaml_files.read(file)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 1e5),
        ("-2e+3", -2000.0),
        ("1.e2", 100.0),
        (".5e1", 5.0),
        ("0.5", 0.5),
        ("3", 3),
        ("'1e-3'", "1e-3"),
        ("e3", "e3"),
        ("1e", "1e"),
        ("a1e3", "a1e3"),
    ],
)
def test_numbers(tmp_path: Path, text: str, value: object) -> None:
    found = read(tmp_path, f"a: {text}")["a"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text",
    ["a: 1\nb: 2\na: 3", "a: {b: 1, b: 1}", "a:\n- {x: 1, x: 2}", "{a: 1, a: 2}", "1: a\n1: b"],
)
def test_duplicate_keys_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"x\.yaml.*is there twice.*line"):
        read(tmp_path, text)


def test_merge_keys_are_no_duplicates(tmp_path: Path) -> None:
    text = "base: &b {a: 1, c: 1}\nother: {<<: *b, a: 2}\n"
    assert read(tmp_path, text)["other"] == {"a": 2, "c": 1}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- a",
        "just words",
        "a: [",
        "a: b: c",
        "a: *nothing",
        "a: &x [*x]",
        "a: 2020-13-45",
        "a: !!python/object/apply:os.system ['true']",
        "--- {a: 1}\n--- {b: 2}",
        "? [1, 2]\n: 3",
        "a: " + "[" * 5000,
        b"\xff\xfe\x00",
        b"\x00",
        "a: " + "9" * 5000,
        r'a: "\uDC80"',
        r'"\uDC80": 1',
    ],
)
def test_what_is_no_mapping_is_refused_in_one_line(tmp_path: Path, text: str | bytes) -> None:
    with pytest.raises(InputError, match=r"^[^\n]*x\.yaml[^\n]*$"):
        read(tmp_path, text)


def test_files_of_windows_editors(tmp_path: Path) -> None:
    assert read(tmp_path, b"\xef\xbb\xbfa: 1\r\nb: 2\r\n") == {"a": 1, "b": 2}


@pytest.mark.parametrize("name", ["nowhere.yaml", "a" * 5000, "a\0b"])
def test_no_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="no file at"):
        yaml_files.read(tmp_path / name)


@pytest.mark.parametrize(
    "text",
    [
        *("1e-3", "yes", "no", "1:30", "007", "~", "", " x", "é", ".5e3"),
        *(
            "a\nb",
            "a\r\n",
            "\0",
            "\x85",
            "a\u2028 b",
            "\ufeff",
            "\x1b[0m",
            "#",
            "a: b",
            "!!x",
            "&a",
        ),
    ],
)
def test_what_is_written_reads_back(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, yaml_files.write({"a": text, text: 1})) == {"a": text, text: 1}


def overridden(content: dict[str, Any], *texts: str) -> dict[str, Any]:
    for text in texts:
        yaml_files.override(content, text)
    return content


def test_override_by_name_and_number() -> None:
    content = {"heads": [{"kind": "logistic"}, {"name": "r", "kind": "ridge"}], "seeds": 5}
    found = overridden(content, "heads.logistic.l2=1e-2", "heads.r.l2=[1, 2]", "heads.1.s=a=b")
    assert found["heads"] == [
        {"kind": "logistic", "l2": 0.01},
        {"name": "r", "kind": "ridge", "l2": [1, 2], "s": "a=b"},
    ]


def test_override_creates_what_is_absent_or_empty() -> None:
    assert overridden({}, "resources.tile=3") == {"resources": {"tile": 3}}
    assert overridden({"resources": None}, "resources.tile=3") == {"resources": {"tile": 3}}
    assert overridden({"a": {"b": {"c": 1}}}, "a.b.c=") == {"a": {"b": {"c": None}}}


def test_override_replaces_items_of_lists() -> None:
    assert overridden({"a": [1, 2]}, "a.1=x") == {"a": [1, "x"]}
    assert overridden({"a": ["p", "q"]}, "a.q=x") == {"a": ["p", "x"]}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "=3",
        "heads.nobody.l2=1",
        "heads.7.l2=1",
        "heads.-1.l2=1",
        "seeds.x=1",
        "a=[",
        "a={",
    ],
)
def test_overrides_that_lead_nowhere(text: str) -> None:
    content = {"heads": [{"kind": "logistic"}], "seeds": 5}
    with pytest.raises(InputError, match=r"^--set [^\n]*$"):
        overridden(content, text)
