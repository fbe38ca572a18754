"""A part as bytes: a Parquet file that names its unit, and carries a digest of itself.

The footer of a Parquet file says how many rows there are, and whose they are; nothing in the format
guards the footer. So a digest of the whole file is in its metadata: the SHA-256 of all its bytes,
with zeros where the digest itself stands.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
from pyarrow import parquet

_MARK = b"td-ray-sha256:"
_ZEROS = b"0" * 64


@dataclass(frozen=True)
class Seal:
    """What a whole part says of itself.

    Attributes:
        unit: whose it is.
        runs: which runs of the unit, as ``name_of_runs`` writes them; empty where it has none.
    """

    unit: str
    runs: str


def sealed(table: pa.Table, unit: str, runs: str = "") -> bytes:
    """The part of a unit; the same table gives the same bytes."""
    metadata = {"unit": unit, "runs": runs, "seal": (_MARK + _ZEROS).decode()}
    sink = pa.BufferOutputStream()
    parquet.write_table(table.replace_schema_metadata(metadata), sink, compression="zstd")
    content: bytes = sink.getvalue().to_pybytes()
    place = content.rindex(_MARK + _ZEROS) + len(_MARK)
    digest = hashlib.sha256(content).hexdigest().encode()
    return content[:place] + digest + content[place + len(_ZEROS) :]


def seal_of(content: bytes) -> Seal | None:
    """What a part says of itself; None of one that is damaged."""
    place = content.rfind(_MARK) + len(_MARK)
    if place < len(_MARK):
        return None
    end = place + len(_ZEROS)
    whole = hashlib.sha256(content[:place])
    whole.update(_ZEROS)
    whole.update(memoryview(content)[end:])
    if whole.hexdigest().encode() != content[place:end]:
        return None
    metadata = parquet.read_metadata(pa.BufferReader(content)).metadata
    return Seal(metadata[b"unit"].decode(), metadata[b"runs"].decode())


def unsealed(content: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """The table of a whole part: a small file, which threads would only slow down."""
    with parquet.ParquetFile(pa.BufferReader(content)) as file:
        return file.read(columns=columns and list(columns), use_threads=False)
