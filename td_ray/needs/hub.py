"""A repository of the Hugging Face hub at a commit, in the cache that its libraries share."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from td_ray.files import one_line, sha256
from td_ray.needs.needed import Needed

_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class NeededSnapshot(Needed):
    """All files of a repository at a commit.

    Attributes:
        revision: the 40 digits of the commit.
        kind: what the repository holds.
    """

    repository: str
    revision: str
    kind: Literal["model", "dataset"]

    @property
    def address(self) -> str:
        """The page that lists the files."""
        from huggingface_hub.constants import ENDPOINT

        folder = "datasets/" if self.kind == "dataset" else ""
        return f"{ENDPOINT}/{folder}{self.repository}/tree/{self.revision}"

    @property
    def place(self) -> Path:
        """The folder that holds the files of the commit; files placed there by hand are read."""
        from huggingface_hub import constants

        folder = "--".join([f"{self.kind}s", *self.repository.split("/")])
        return Path(constants.HF_HUB_CACHE, folder, "snapshots", self.revision)

    def patterns(self) -> tuple[list[str] | None, list[str] | None]:
        """Names that a whole snapshot has, and names that it has not; None for no limit."""
        return None, None

    def patterns_to_fetch(self, names: list[str]) -> tuple[list[str] | None, list[str] | None]:
        """The same of what is downloaded, of the names that the repository has."""
        return self.patterns()

    def lack(self) -> str | None:
        """See ``Needed``; by the list of files that the library keeps when it downloads."""
        try:
            self._snapshot(*self.patterns(), offline=True)
        except Exception as error:  # not there, not whole, or no name that the hub would take
            return self.not_whole(one_line(error, 250) if self.place.is_dir() else "no such folder")
        return None

    def not_whole(self, reason: str) -> str:
        """Say where files are missing."""
        return f"{self.repository} is not whole in {self.place} ({reason})"

    def damage(self) -> str | None:
        """See ``Needed``; the library names what it downloads by the digest of its bytes."""
        for path in sorted(self.place.rglob("*")):
            blob = os.path.basename(os.readlink(path)) if path.is_symlink() else ""
            if not _DIGEST.fullmatch(blob):
                continue  # placed by hand
            found = sha256(path) if len(blob) == 64 else _git_digest(path)
            if found != blob:
                return (
                    f"{self.what}: {path.relative_to(self.place)} is damaged: its digest starts "
                    f"with {found[:8]}, not {blob[:8]}; delete {path.parent / os.readlink(path)}, "
                    "and 'td-ray prefetch' fetches it again"
                )
        return None

    def fetch(self) -> None:
        """See ``Needed``; files that are there are not fetched again."""
        from huggingface_hub import HfApi

        try:
            names = HfApi().list_repo_files(
                self.repository, repo_type=self.kind, revision=self.revision
            )
            self._snapshot(*self.patterns_to_fetch(names), offline=False)
            lack = self.lack()
            if lack is not None:
                raise OSError(lack)
        except Exception as error:  # of the network, the hub, the disk: each has kinds of its own
            raise self.failure(error, f"its files by hand in {self.place}") from None

    def _snapshot(
        self, allowed: list[str] | None, ignored: list[str] | None, *, offline: bool
    ) -> None:
        """Let the library find the files or download them; it raises what it likes."""
        from huggingface_hub import snapshot_download

        snapshot_download(
            self.repository,
            repo_type=self.kind,
            revision=self.revision,
            allow_patterns=allowed,
            ignore_patterns=ignored,
            local_files_only=offline,
        )


def _git_digest(path: Path) -> str:
    """How git names a file's content; the hub does so where files are small."""
    content = path.read_bytes()
    header = f"blob {len(content)}\0".encode()
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()
