"""The files of torchvision's data sets: opened, looked for, and downloaded as the library does."""

from __future__ import annotations

import gzip
import inspect
import shutil
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from td_ray.errors import InputError
from td_ray.files import atomic, one_line
from td_ray.needs import Needed
from td_ray.registry import closest


@dataclass(frozen=True)
class NeededImages(Needed):
    """Parts of a data set of ``torchvision.datasets`` under a root."""

    dataset: str
    root: Path
    parts: tuple[str, ...]

    @property
    def address(self) -> str:
        """The addresses that the library knows."""
        return ", ".join(_addresses(self._class())) or "where torchvision finds it"

    @property
    def place(self) -> Path:
        """The folder that the files belong in."""
        is_raw = hasattr(self._class(), "raw_folder")
        return self.root / self.dataset / "raw" if is_raw else self.root

    def lack(self) -> str | None:
        """See ``Needed``; all parts open, and where the library has MD5 sums they are right."""
        try:
            self.unpack()
            for part in self.parts:
                self._opened(part)
        except InputError:
            raise
        except Exception as error:  # each class has its own way to say that files are missing
            return (
                f"the files of torchvision's {self.dataset} are not whole in {self.place} "
                f"({one_line(error, 120)})"
            )
        return None

    def damage(self) -> str | None:
        """See ``Needed``; of idx files, of which the library looks at the sizes alone.

        They are compared with the packed ones beside them, by the check sum that gzip keeps: the
        library's MD5 sums are of its own packing, and files from elsewhere may be packed anew.
        """
        for packed in self._packed():
            try:
                if _differs(packed):
                    plain = packed.with_suffix("")
                    return f"{self.what}: {plain} is not what {packed.name} holds; {_AGAIN}"
            except _BROKEN as error:
                return f"{self.what}: {packed} is damaged ({one_line(error)}); {_AGAIN}"
        return None

    def fetch(self) -> None:
        """See ``Needed``; the library checks MD5 sums where it has them."""
        for packed in self._packed():  # the library would keep what is unpacked, broken or not
            with suppress(*_BROKEN):
                if _differs(packed):
                    packed.with_suffix("").unlink(missing_ok=True)
        try:
            for part in self.parts:
                self._opened(part, download=True)
        except InputError:
            raise
        except Exception as error:  # of the network, the server, the archive
            raise self.failure(error, f"its files by hand in {self.place}") from None

    def unpack(self) -> None:
        """Unpack idx files that are only there packed, as the library does when it downloads.

        Raises:
            OSError: a damaged file.
        """
        for packed in self._packed():
            plain = packed.with_suffix("")
            if plain.is_file():
                continue
            try:
                with gzip.open(packed) as source, atomic(plain) as new, new.open("wb") as target:
                    shutil.copyfileobj(source, target)
            except _BROKEN as error:
                raise OSError(f"cannot unpack {packed.name}: {one_line(error)}") from None

    def _packed(self) -> list[Path]:
        return sorted((self.root / self.dataset / "raw").glob("*-ubyte.gz"))

    def open(self, part: str) -> Any:
        """Open a part.

        Raises:
            InputError: no such data set or part, or files that are missing.
        """
        try:
            return self._opened(part)
        except InputError:
            raise
        except Exception:
            raise InputError(self.remedy) from None

    def _opened(self, part: str, *, download: bool = False) -> Any:
        found = self._class()
        by_train = "train" in inspect.signature(found).parameters
        options: dict[str, Any] = {"train": part == "train"} if by_train else {"split": part}
        if by_train and part not in ("train", "test"):
            raise InputError(
                f"{self.what}: {self.dataset} has no part '{part}': known: test, train"
            )
        try:
            return found(str(self.root), download=download, **options)
        except ValueError as error:
            if f"'{part}'" not in str(error) and f" {part} " not in str(error):
                raise
            raise InputError(
                f"{self.what}: torchvision's {self.dataset} has no part '{part}' "
                f"({one_line(error)}); name its 'parts'"
            ) from None

    def _class(self) -> Any:
        """The class, if it has parts and can be downloaded.

        Raises:
            InputError: no such class.
        """
        from torchvision import datasets

        fit = {}
        for other in datasets.__all__:
            parameters = inspect.signature(getattr(datasets, other)).parameters
            if {"root", "download"} <= set(parameters) and {"train", "split"} & set(parameters):
                fit[other] = getattr(datasets, other)
        if self.dataset not in fit:
            raise InputError(
                f"{self.what}: torchvision has no data set '{self.dataset}' with parts: "
                f"{closest(self.dataset, fit)}"
            )
        return fit[self.dataset]


_BROKEN = (OSError, EOFError, zlib.error)
"""What gzip raises of a damaged file."""

_AGAIN = "delete both, and 'td-ray prefetch' fetches it again"


def _differs(packed: Path) -> bool:
    """Whether the file beside a packed one is not what that holds."""
    return packed.with_suffix("").read_bytes() != gzip.decompress(packed.read_bytes())


def _addresses(found: Any, most: int = 4) -> list[str]:
    """Addresses among a class's attributes, whichever way it keeps them."""
    mirrors = getattr(found, "mirrors", ())
    if mirrors:
        return [f"{mirrors[0]}{name}" for name, _ in getattr(found, "resources", ())][:most]
    kept = (
        getattr(found, name, None) for name in ("url", "_URL", "urls", "_RESOURCES", "split_list")
    )
    return list(dict.fromkeys(address for value in kept for address in _texts(value)))[:most]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str) and value.startswith("http"):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)
