"""Addresses of folders: a path, or a URL such as ``s3://bucket/folder?endpoint_override=...``."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from td_ray.errors import InputError
from td_ray.files import one_line

ATTEMPTS = 8
"""How often a request to S3 is made: throttled or cut off, it is made again, ever later.

Seven pauses, of up to 20 seconds, take a minute or so. ``AWS_MAX_ATTEMPTS`` says otherwise.
"""

SECONDS_TO_ANSWER = 20.0
"""Without a byte for so long, an attempt has failed."""

S3_OPTIONS = ("endpoint_override", "region", "scheme")


def is_url(place: str) -> bool:
    """Whether a place is a URL and no path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", place) is not None


def beside(folder: Path, place: str) -> str:
    """A place as a URL, or as a path that starts at ``folder`` unless it is absolute."""
    return place if is_url(place) else str(folder / place)


@lru_cache
def connect(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it.

    S3 is pyarrow's, with more attempts; what else pyarrow knows (gs, abfs, hdfs, file) is opened
    by it, and what it does not know by fsspec.

    Raises:
        InputError: no such file system, or an option that it does not have.
    """
    from pyarrow import fs

    parsed = urlsplit(url)
    if "@" in parsed.netloc and parsed.scheme == "s3":
        raise InputError(
            f"{parsed.scheme}://...: credentials do not belong in an address, which results keep; "
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
        )
    try:
        if parsed.scheme == "s3":
            return _s3(parsed.netloc, dict(parse_qsl(parsed.query))), _path(parsed)
        if parsed.scheme in _known_to_fsspec_alone():
            import fsspec

            system = fsspec.filesystem(parsed.scheme)
            return fs.PyFileSystem(fs.FSSpecHandler(system)), _path(parsed)
        system, path = fs.FileSystem.from_uri(url)
        return system, path.rstrip("/")
    except InputError:
        raise
    except Exception as error:  # readers of addresses raise what they like
        raise InputError(f"{url} cannot be opened: {one_line(error)}") from None


def _path(parsed: Any) -> str:
    return f"{parsed.netloc}{parsed.path}".rstrip("/")


def _known_to_fsspec_alone() -> set[str]:
    import fsspec

    return set(fsspec.available_protocols()) - {"file", "local", "gs", "gcs", "abfs", "abfss"}


def _s3(bucket: str, options: dict[str, str]) -> Any:
    from pyarrow import fs

    for name in options:
        if name not in S3_OPTIONS:
            raise InputError(
                f"s3://{bucket}: no option is called '{name}'; there are {', '.join(S3_OPTIONS)}"
            )
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint and "endpoint_override" not in options:
        scheme, _, host = endpoint.rpartition("://")
        options = {"scheme": scheme or "https", "endpoint_override": host, **options}
    if not options.keys() & {"endpoint_override", "region"}:
        options["region"] = fs.resolve_s3_region(bucket)
    attempts = int(os.environ.get("AWS_MAX_ATTEMPTS", ATTEMPTS))
    return fs.S3FileSystem(
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=attempts),
        allow_delayed_open=True,  # an object of up to 10 MB is one PUT
        request_timeout=SECONDS_TO_ANSWER,
        connect_timeout=SECONDS_TO_ANSWER,
        background_writes=True,  # else a stream that failed ends its upload as if it were whole
        **options,
    )
