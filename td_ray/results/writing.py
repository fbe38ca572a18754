"""Writing a table of any length: a row group at a time, and whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
from pyarrow import parquet

from td_ray.storage import Folder

ROWS_OF_GROUP = 2**14
"""A full tile. Fewer rows make a larger footer, more let a reader skip less."""

BYTES_OF_GROUP = 2**25


class TableWriter:
    """Gathers rows to row groups, and writes these."""

    def __init__(self, writer: parquet.ParquetWriter, schema: pa.Schema) -> None:
        self._writer, self._schema = writer, schema
        self._held: list[pa.Table] = []
        self._rows = self._bytes = 0

    def append(self, table: pa.Table) -> None:
        """Add rows, which have at least the columns of the schema."""
        if not table.num_rows:
            return
        table = table.select(self._schema.names).cast(self._schema)
        self._held.append(table)
        self._rows += table.num_rows
        self._bytes += table.nbytes
        if self._rows >= ROWS_OF_GROUP or self._bytes >= BYTES_OF_GROUP:
            self.flush()

    def flush(self) -> None:
        """Write what is held as one row group."""
        if not self._held:
            return
        table = pa.concat_tables(self._held).unify_dictionaries().combine_chunks()
        self._writer.write_table(table, row_group_size=table.num_rows)
        self._held, self._rows, self._bytes = [], 0, 0


@contextmanager
def table_writer(output: Folder, name: str, schema: pa.Schema) -> Iterator[TableWriter]:
    """Write a Parquet file with this schema; texts are stored as dictionaries."""
    texts = [field.name for field in schema if field.type == pa.string()]
    encoded = pa.schema([_as_dictionary(field) for field in schema])
    with output.writing(name) as temporary:
        writer = parquet.ParquetWriter(
            temporary,
            encoded,
            compression="zstd",
            use_dictionary=[*texts, *(field.name for field in schema if field.type in _FLOATS)],
            store_schema=False,  # readers get texts, and no categories of one row group
        )
        with writer:
            table = TableWriter(writer, encoded)
            yield table
            table.flush()


_FLOATS = (pa.float64(),)


def _as_dictionary(field: pa.Field) -> pa.Field:
    if field.type != pa.string():
        return field
    return pa.field(field.name, pa.dictionary(pa.int32(), pa.string()), field.nullable)
