"""A file at an address, such as weights."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from td_ray.files import atomic, sha256
from td_ray.needs.needed import Needed


@dataclass(frozen=True)
class NeededFile(Needed):
    """A file and its address.

    Attributes:
        url: its address.
        path: its place.
        digits: the first ones of its SHA-256; empty where they are not known.
    """

    url: str
    path: Path
    digits: str = ""

    @property
    def address(self) -> str:
        """See ``Needed``."""
        return self.url

    def lack(self) -> str | None:
        """See ``Needed``."""
        return None if self.path.is_file() else f"no file at {self.path}"

    def damage(self) -> str | None:
        """See ``Needed``; by the digits of the SHA-256."""
        found = sha256(self.path)
        if found.startswith(self.digits):
            return None
        return (
            f"{self.path} is damaged: its SHA-256 starts with {found[: len(self.digits)]}, not "
            f"{self.digits}; delete it, and 'td-ray prefetch' fetches it again"
        )

    def fetch(self) -> None:
        """See ``Needed``; the file is in its place when it is whole, and not before."""
        from http.client import HTTPException
        from urllib.error import HTTPError
        from urllib.request import urlopen

        try:
            with atomic(self.path) as temporary:
                with urlopen(self.url) as source, temporary.open("wb") as target:
                    shutil.copyfileobj(source, target)
                found = sha256(temporary)
                if not found.startswith(self.digits):
                    raise OSError(f"what came has the SHA-256 {found[:8]}..., not {self.digits}...")
        except (OSError, HTTPException, ValueError) as error:
            if isinstance(error, HTTPError):
                error.close()  # it holds the connection
            raise self.failure(error, f"the file by hand at {self.path}") from None
