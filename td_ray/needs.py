"""What must be on the machine before a run: files of weights, and where they come from.

A run never downloads: a hundred workers would all do so. `td-ray prefetch` does, once.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from td_ray.errors import RunError
from td_ray.files import atomic, one_line, sha256


@dataclass(frozen=True)
class Needed:
    """A file and its address.

    Attributes:
        what: it is, for people.
        digits: the first ones of its SHA-256; empty where they are not known.
    """

    what: str
    address: str
    path: Path
    digits: str = ""

    @property
    def is_there(self) -> bool:
        """Whether the file is in its place; see ``damage``."""
        return self.path.is_file()

    @property
    def remedy(self) -> str:
        """What to do about a file that is not there."""
        return (
            f"{self.what}: no file at {self.path}; 'td-ray prefetch' fetches it from "
            f"{self.address}, or place it there by hand"
        )

    def damage(self) -> str | None:
        """What is wrong with the bytes that are there; None where they are right."""
        found = sha256(self.path)
        if found.startswith(self.digits):
            return None
        return (
            f"{self.path} is damaged: its SHA-256 starts with {found[: len(self.digits)]}, not "
            f"{self.digits}; delete it, and 'td-ray prefetch' fetches it again"
        )

    def fetch(self) -> None:
        """Download the file; it is in its place when it is whole, and not before.

        Raises:
            RunError: it cannot be had.
        """
        from http.client import HTTPException
        from urllib.error import HTTPError
        from urllib.request import urlopen

        try:
            with atomic(self.path) as temporary:
                with urlopen(self.address) as source, temporary.open("wb") as target:
                    shutil.copyfileobj(source, target)
                found = sha256(temporary)
                if not found.startswith(self.digits):
                    raise OSError(f"what came has the SHA-256 {found[:8]}..., not {self.digits}...")
        except (OSError, HTTPException, ValueError) as error:
            if isinstance(error, HTTPError):
                error.close()  # it holds the connection
            raise RunError(
                f"{self.what} could not be had from {self.address}: {one_line(error)}; try again "
                f"with a connection, or place the file by hand at {self.path}"
            ) from None
