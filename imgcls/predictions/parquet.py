"""Predictions as Parquet; needs pyarrow.

A Parquet file can be read only when it is complete, and its row groups should be large. So rows are collected in a
stream of Arrow batches, which may end anywhere, and converted at the end.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from imgcls.predictions.prediction_rows import Columns, Rows
from imgcls.runtime.atomic_files import replacing

_GROUP_VALUES = 2**21  # of a row group, in memory while it is written
_GROUP_ROWS = 2**16  # of a row group at most


class ArrowRows:
    """Write predictions as a stream of Arrow batches: probabilities as float32, and null where there is none.

    A byte of a path that is not UTF-8 is written as Python's ``backslashreplace`` does.
    """

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        texts = {"path", "label", "prediction", "set", "error", *(columns.of_classes[::2] if columns.top_k else ())}
        texts |= {"probability"} if columns.multilabel else set()
        names = columns.names
        self._schema = pa.schema([(name, pa.string() if name in texts else pa.float32()) for name in names])

    def heading(self, _: bool) -> bytes:
        """Return the schema."""
        return bytes(self._schema.serialize())

    def rows(self, rows: Rows) -> bytes:
        """Return a batch."""
        failed = np.array([bool(texts.error) for texts in rows.texts])
        if self._columns.multilabel:
            probability: Any = [texts.probability for texts in rows.texts]
        else:
            probability = rows.probs.max(axis=1)
        values = [
            rows.paths,
            *([] if rows.labels is None else [rows.labels]),
            [texts.prediction for texts in rows.texts],
            probability,
            *([[texts.label_set for texts in rows.texts]] if self._columns.has_sets else []),
            *self._of_classes(rows),
            [texts.error or None for texts in rows.texts],
        ]
        predicted = 2 + self._columns.has_sets + len(self._columns.of_classes)
        masks = [None, *[None][: rows.labels is not None], *[failed] * predicted, None]
        arrays = [_array(*each) for each in zip(values, masks, self._schema.types, strict=True)]
        return bytes(pa.record_batch(arrays, schema=self._schema).serialize())

    def _of_classes(self, rows: Rows) -> Iterator[Any]:
        if rows.top is None:
            yield from rows.probs.T
            return
        for indices, probs in zip(rows.top.indices.T, rows.top.probs.T, strict=True):
            yield [self._columns.class_names[index] for index in indices]
            yield probs


def _array(values: Any, mask: Any, kind: pa.DataType) -> pa.Array:
    if kind == pa.string():
        values = [value if value is None else value.encode(errors="backslashreplace") for value in values]
        return pa.array(values, pa.binary(), mask=mask).cast(kind)
    return pa.array(np.ascontiguousarray(values), kind, mask=mask)


def write_parquet(parts: Sequence[Path], target: Path) -> None:
    """Convert streams of Arrow batches to one Parquet file, and remove them.

    Row groups depend on the rows alone, not on the batches.
    """
    with ExitStack() as files, replacing(target) as file:
        streams = [pa.ipc.open_stream(files.enter_context(part.open("rb"))) for part in parts]
        schema = streams[0].schema
        size = min(_GROUP_ROWS, max(1, _GROUP_VALUES // len(schema)))
        texts = [field.name for field in schema if field.type == pa.string() and field.name != "path"]
        with pq.ParquetWriter(file, schema, use_dictionary=texts) as writer:
            for group in _groups(chain.from_iterable(streams), schema, size):
                writer.write_table(group, size)
    for part in parts:
        part.unlink()


def _groups(batches: Iterable[pa.RecordBatch], schema: pa.Schema, size: int) -> Iterator[pa.Table]:
    """Yield tables of ``size`` rows; the last one has the rest."""
    held, count = list[pa.RecordBatch](), 0
    for batch in batches:
        held.append(batch)
        count += batch.num_rows
        while count >= size:
            table = pa.Table.from_batches(held)
            yield table.slice(0, size).combine_chunks()
            held, count = table.slice(size).to_batches(), count - size
    if held:
        yield pa.Table.from_batches(held, schema).combine_chunks()


def read_parquet(path: Path, count: int) -> list[list[str]]:
    """Return the heading and at most ``count`` rows of a file, as texts."""
    with path.open("rb") as file:
        table = next(pq.ParquetFile(file).iter_batches(count), None)
    if table is None:
        return []
    rows = table.to_pylist()
    return [table.schema.names, *(["" if value is None else str(value) for value in row.values()] for row in rows)]
