from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from td_ray import files
from td_ray.errors import InputError
from td_ray.files import DigestMemory, atomic, fingerprint, reading, require_file, sha256


def test_fingerprint_is_of_the_value() -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint([1, 2]) != fingerprint([2, 1])
    assert fingerprint("1") != fingerprint(1)
    assert fingerprint(1) == fingerprint(1)
    assert len(fingerprint(None)) == 32
    with pytest.raises(ValueError, match="JSON"):
        fingerprint(float("nan"))


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_fingerprint_tells_lists_of_texts_apart(texts: list[str]) -> None:
    assert fingerprint(texts) != fingerprint(["".join(texts)] if len(texts) > 1 else texts * 2)


def test_atomic_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "x.txt"

    def interrupted() -> None:
        with atomic(file) as temporary:
            temporary.write_text("half")
            assert not file.exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(file.parent.iterdir()) == []
    with atomic(file) as temporary:
        temporary.write_text("whole")
    assert file.read_text() == "whole"
    assert [path.name for path in file.parent.iterdir()] == ["x.txt"]


def test_require_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "x", tmp_path / ("y" * 5000), tmp_path / "a\0b"):
        with pytest.raises(InputError, match=r"^who: no file at"):
            require_file(path, "who")


def test_reading_turns_anything_into_one_line() -> None:
    with (
        pytest.raises(InputError, match=r"^who: x\.bin cannot be read: a b$"),
        reading(Path("x.bin"), "who"),
    ):
        raise EOFError("a\n  b")
    with (
        pytest.raises(InputError, match=r"^x\.bin cannot be read: KeyError$"),
        reading(Path("x.bin")),
    ):
        raise KeyError
    with pytest.raises(InputError, match=r"^as it is$"), reading(Path("x.bin")):
        raise InputError("as it is")
    with pytest.raises(InputError) as caught, reading(Path("x.bin")):
        raise ValueError("long " * 1000)
    assert len(str(caught.value)) < 450


def test_digests_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "big.bin"
    file.write_bytes(b"x" * 100)
    memory = DigestMemory(tmp_path / "cache")
    monkeypatch.setattr(files, "SMALL_FILE_BYTES", 10)
    assert memory.known(file) is None
    digest = memory.computed(file)
    assert digest == sha256(file)
    assert memory.known(file) == digest
    assert DigestMemory(tmp_path / "cache").known(file) == digest

    def forbidden(path: Path) -> str:
        raise AssertionError("it was read again")

    monkeypatch.setattr(files, "sha256", forbidden)
    assert memory.computed(file) == digest


def test_small_files_are_read_at_once(tmp_path: Path) -> None:
    file = tmp_path / "small.bin"
    file.write_bytes(b"x")
    assert DigestMemory(tmp_path / "cache").known(file) == sha256(file)


def test_a_changed_file_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "SMALL_FILE_BYTES", 0)
    file = tmp_path / "x.bin"
    memory = DigestMemory(tmp_path / "cache")
    file.write_bytes(b"aaaa")
    first = memory.computed(file)
    file.write_bytes(b"bbbb")  # the same size, another time
    os.utime(file, ns=(1, 1))
    assert memory.known(file) is None
    assert memory.computed(file) == sha256(file) != first
    file.write_bytes(b"bbbbb")  # another size, the same time
    os.utime(file, ns=(1, 1))
    assert memory.known(file) is None
    assert memory.computed(file) == sha256(file)


def test_links_and_copies(tmp_path: Path) -> None:
    file, link = tmp_path / "x.bin", tmp_path / "link.bin"
    file.write_bytes(b"aaaa")
    link.symlink_to(file)
    memory = DigestMemory(tmp_path / "cache")
    assert memory.computed(link) == memory.computed(file)


@pytest.mark.parametrize("record", [b"", b"[]", b"null", b"{}", b"\xff", b'{"sha256": "0"}'])
def test_damaged_records_are_not_believed(tmp_path: Path, record: bytes) -> None:
    file = tmp_path / "x.bin"
    file.write_bytes(b"aaaa")
    memory = DigestMemory(tmp_path / "cache")
    memory.computed(file)
    (written,) = (tmp_path / "cache" / "digests").iterdir()
    assert json.loads(written.read_text())["sha256"] == sha256(file)
    written.write_bytes(record)
    assert memory.computed(file) == sha256(file)


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path: Path) -> None:
    file = tmp_path / "x.bin"
    file.write_bytes(b"aaaa")
    (tmp_path / "digests").write_text("a file where the folder would be")
    assert DigestMemory(tmp_path).computed(file) == sha256(file)
