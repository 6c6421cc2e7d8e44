"""Parquet files, read by pyarrow."""

# Legend: N samples, D features.

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastnet.errors import DataError, FileFormatError, MissingPackageError

__all__ = ["ParquetFile"]

# What pandas calls the column to which it writes an index without a name.
_INDEX_PREFIX = "__index_level_"


class ParquetFile:
    """A Parquet file of numbers, its target numbers or strings.

    Raises
    ------
    MissingPackageError
        pyarrow is not installed.
    FileFormatError
        The file is damaged.
    """

    has_names = True

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as error:
            raise MissingPackageError(f"{path}: reading Parquet takes pyarrow: pip install pyarrow") from error
        try:
            self._table = pq.read_table(path)
        except pa.ArrowException as error:
            raise FileFormatError(f"{path}: damaged, or not a Parquet file: {error}") from error
        self._path = path
        self.names = tuple(self._table.column_names)
        self.used = tuple(index for index, name in enumerate(self.names) if not name.startswith(_INDEX_PREFIX))

    def read(self, features: Sequence[int], target: int | None) -> tuple[NDArray, NDArray | None]:
        """Columns as numbers (N, D), and the target (N,).

        Raises
        ------
        DataError
            A column does not hold numbers, or the target has gaps.
        """
        if not features:
            raise DataError(f"{self._path}: has no column but the target {self.names[self.used[0]]!r}")
        x = np.column_stack([self._numbers(column) for column in features])
        return x, None if target is None else self._target(target)

    def _numbers(self, column: int) -> NDArray[np.float64]:
        import pyarrow as pa

        values = self._table.column(column)
        if not (
            pa.types.is_integer(values.type) or pa.types.is_floating(values.type) or pa.types.is_boolean(values.type)
        ):
            raise DataError(f"{self._path}: column {self.names[column]!r} holds {values.type}, not numbers")
        if pa.types.is_boolean(values.type):
            values = values.cast(pa.uint8())
        return values.cast(pa.float64(), safe=False).to_numpy()

    def _target(self, column: int) -> NDArray:
        import pyarrow as pa

        values = self._table.column(column)
        if pa.types.is_dictionary(values.type):  # what pandas calls categorical
            values = values.cast(values.type.value_type)
        if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
            return self._numbers(column)
        if values.null_count:
            raise DataError(
                f"{self._path}: column {self.names[column]!r}, the target, is empty in {values.null_count} rows"
            )
        return values.to_numpy().astype(str)
