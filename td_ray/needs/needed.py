"""What every need gives."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass

from td_ray.errors import RunError
from td_ray.files import one_line

_CREDENTIALS = re.compile(r"(\w://)[^\s/@]+@")


@dataclass(frozen=True)
class Needed(ABC):
    """A thing that a run reads and that can be downloaded before it.

    Attributes:
        what: it is, for people.
    """

    what: str

    @property
    @abstractmethod
    def address(self) -> str:
        """Where it comes from, for people."""

    @abstractmethod
    def lack(self) -> str | None:
        """What is missing, and where; None where all is there. Needs no connection."""

    @abstractmethod
    def damage(self) -> str | None:
        """What is wrong with the bytes that are there; None where they are right."""

    @abstractmethod
    def fetch(self) -> None:
        """Download it.

        Raises:
            RunError: it cannot be had.
        """

    @property
    def is_there(self) -> bool:
        """Whether it is in its place; see ``damage``."""
        return self.lack() is None

    @property
    def remedy(self) -> str:
        """What to do about a thing that is not there."""
        return without_credentials(
            f"{self.what}: {self.lack()}; 'td-ray prefetch' fetches it from {self.address}, or "
            "place it there by hand"
        )

    def failure(self, error: BaseException, by_hand: str) -> RunError:
        """Return why it could not be had, and what may be placed where by hand."""
        reason = one_line(error, 250)
        return RunError(
            without_credentials(
                f"{self.what} could not be had from {self.address}: {reason}; try again with a "
                f"connection, or place {by_hand}"
            )
        )


def without_credentials(text: str) -> str:
    """A text whose addresses have lost what stands before an ``@``: a mirror's user and password.

    Errors are kept in tables and pages that others read.
    """
    return _CREDENTIALS.sub(r"\1", text)
