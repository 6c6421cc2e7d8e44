"""Tables of text: comma-, semicolon- or tab-separated values, with a line of column names or without."""

# Legend: N rows, D columns that are read.

from __future__ import annotations

import csv
import warnings
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastnet.errors import DataError, FileFormatError

__all__ = ["TARGET_NAMES", "TextFile"]

# Column names that are taken for the target unless another is named, the most telling first.
TARGET_NAMES = ("target", "label", "class", "y")

_ENCODING = "utf-8-sig"  # UTF-8, and the mark that spreadsheets put before it
_DELIMITERS = ("\t", ";", ",")  # a comma may stand inside the fields of the other two
_MISSING = {"", "?", "-", "na", "n/a", "null", "none"}
_N_SNIFFED = 20


class _CellError(DataError):
    """A cell is not a number; `column` is its index."""

    def __init__(self, message: str, column: int) -> None:
        super().__init__(message)
        self.column = column


class TextFile:
    """A text file, its delimiter and its header told by the first lines.

    The first line is a header if a name in it stands for a target, if none of its fields is a number, or if a field
    that is not a number stands above one. A first column without a name is the row index that pandas writes, and is
    left out.

    Parameters
    ----------
    path : Path

    Attributes
    ----------
    names : tuple of str
        Of the columns; without a header their indices.
    has_names : bool
        Whether there is a header.
    used : tuple of int
        Indices of the columns that are not a row index.

    Raises
    ------
    FileFormatError
        The file is not text, or its first lines are no rows of a table.
    DataError
        It has no rows, or a single column.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = self._first_lines()
        self._delimiter = _sniff_delimiter(lines)
        rows = self._first_rows(lines)
        if not rows:
            raise DataError(f"{path}: is empty")
        named = _is_header(rows[0], rows[1] if len(rows) > 1 else [])
        if named and len(rows) == 1:
            raise DataError(f"{path}: holds a line of column names and no rows")
        self._n_header_lines = self._line_of_first_row() if named else 0
        self.names = tuple(rows[0]) if named else tuple(str(index) for index in range(len(rows[0])))
        self.has_names = named
        self.used = tuple(range(1 if self.names[0] == "" else 0, len(self.names)))

    def read(self, features: Sequence[int], target: int | None) -> tuple[NDArray, NDArray | None]:
        """Columns as numbers (N, D), and the target (N,) as numbers, or strings if it holds any.

        Raises
        ------
        DataError
            A cell is not a number, or a line has too few or too many; the message names line and column.
        FileFormatError
            The file is not text, or a quotation mark is left open.
        """
        if target is None:
            return self._numbers(features), None
        try:
            numbers = self._numbers([*features, target])  # the target as well: files are long, and read once
        except _CellError as error:
            if error.column != target:
                raise
            return self._numbers(features), self._strings(target)
        return numbers[:, :-1], numbers[:, -1]

    def _numbers(self, columns: Sequence[int]) -> NDArray:
        """Columns (N, D) as int64 if all are whole, which is read eight times as fast, else as float64."""
        is_everything = len(columns) == len(self.names)
        for dtype in (np.int64, np.float64):
            try:
                with warnings.catch_warnings(action="error", category=DeprecationWarning):  # 1.5 read as the integer 1
                    numbers = np.loadtxt(
                        self.path,
                        dtype,
                        comments=None,
                        delimiter=self._delimiter,
                        skiprows=self._n_header_lines,
                        usecols=None if is_everything else columns,
                        ndmin=2,
                        encoding=_ENCODING,
                        quotechar='"',
                    )
                if is_everything:
                    return numbers[:, columns]
                self._check_lengths()  # asked for some columns, loadtxt does not mind lines that have more
                return numbers
            except UnicodeDecodeError as error:
                raise self._not_text(error) from error
            except (ValueError, DeprecationWarning) as error:
                reason = error
        raise self._first_fault(columns) or DataError(f"{self.path}: {reason}") from reason

    def _strings(self, column: int) -> NDArray[np.str_]:
        labels = []
        for line, row in self._rows():
            label = row[column].strip()
            if "\n" in label:
                raise self._open_quotation(line, f"{self._describe(column)} holds several lines")
            if label.lower() in _MISSING:
                raise DataError(f"{self.path}, line {line}: {self._describe(column)} holds {label!r}: no target")
            labels.append(label)
        return np.array(labels)

    def _first_fault(self, columns: Sequence[int]) -> DataError | None:
        """The error for the first cell, in reading order, that is not a number."""
        for line, row in self._rows():
            for column in columns:
                if not _is_number(row[column]):
                    return _CellError(
                        f"{self.path}, line {line}: {self._describe(column)} holds {row[column].strip()!r}, "
                        "which is not a number",
                        column,
                    )
        return None

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Number of the first line, counted from one, and fields of every row below the header."""
        with self.path.open(encoding=_ENCODING, newline="") as file:
            reader, line = csv.reader(file, delimiter=self._delimiter), 1
            try:
                for row in reader:
                    if line > self._n_header_lines and row:
                        self._require_all_columns(line, row)
                        yield line, row
                    line = reader.line_num + 1
            except csv.Error as error:
                raise self._open_quotation(line, str(error)) from error

    def _require_all_columns(self, line: int, row: list[str]) -> None:
        if len(row) != len(self.names):
            raise DataError(f"{self.path}, line {line}: {len(row)} fields, and {len(self.names)} columns above")

    def _check_lengths(self) -> None:
        for _ in self._rows():
            pass

    def _first_lines(self) -> list[str]:
        """Some lines that are not blank."""
        try:
            with self.path.open(encoding=_ENCODING) as file:
                return list(islice((line for line in file if line.strip()), _N_SNIFFED))
        except UnicodeDecodeError as error:
            raise self._not_text(error) from error

    def _first_rows(self, lines: list[str]) -> list[list[str]]:
        try:
            return [[field.strip() for field in row] for row in csv.reader(lines, delimiter=self._delimiter)]
        except csv.Error as error:
            raise FileFormatError(
                f"{self.path}: its first lines are no rows of a table ({error}): is this another format, such as JSON, "
                "or is a quotation mark left open?"
            ) from error

    def _line_of_first_row(self) -> int:
        with self.path.open(encoding=_ENCODING) as file:
            return next(number for number, line in enumerate(file, 1) if line.strip())

    def _describe(self, column: int) -> str:
        return f"column {self.names[column]!r}" if self._n_header_lines else f"column {column}"

    def _open_quotation(self, line: int, symptom: str) -> FileFormatError:
        return FileFormatError(f"{self.path}, line {line}: {symptom}: is a quotation mark left open there?")

    def _not_text(self, error: UnicodeDecodeError) -> FileFormatError:
        return FileFormatError(
            f"{self.path}: not text in UTF-8 ({error.reason} at byte {error.start}): save it as such"
        )


def _sniff_delimiter(lines: list[str]) -> str:
    """The delimiter that cuts all of the first lines into equally many fields, or the one that finds most."""
    n_fields = {delimiter: _count_fields(lines, delimiter) for delimiter in _DELIMITERS}
    even = [delimiter for delimiter in _DELIMITERS if len(set(n_fields[delimiter])) == 1 and n_fields[delimiter][0] > 1]
    return even[0] if even else max(_DELIMITERS, key=lambda delimiter: n_fields[delimiter][0])


def _count_fields(lines: list[str], delimiter: str) -> list[int]:
    """Fields of each row; one where the delimiter leaves a line whole that is longer than csv lets a field be."""
    try:
        return [len(row) for row in csv.reader(lines, delimiter=delimiter)] or [1]
    except csv.Error:
        return [1]


def _is_header(first: list[str], second: list[str]) -> bool:
    names = {name.lower() for name in first} & set(TARGET_NAMES) - {"y"}  # a "y" among numbers may say yes
    if names or not any(map(_is_number, first)):
        return True
    return any(
        _is_number(below) and not _is_number(above) and above.lower() not in _MISSING
        for above, below in zip(first, second, strict=False)
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
