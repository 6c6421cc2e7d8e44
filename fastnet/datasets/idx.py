"""IDX files, the format of MNIST: four bytes of magic, the dimensions, the values. Plain or compressed by gzip."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastnet.errors import DataError, FileFormatError

__all__ = ["read_idx"]

_GZIP_MAGIC = b"\x1f\x8b"
_UINT8 = 0x08


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an IDX file of bytes.

    Parameters
    ----------
    path : Path
        Compression is told by the content, not by the name: browsers unpack files and keep their names.

    Returns
    -------
    ndarray of uint8
        Read-only, with as many dimensions as the file says.

    Raises
    ------
    DataError
        The file cannot be opened.
    FileFormatError
        It is not an IDX file of bytes, or is damaged, or longer or shorter than its header says.
    """
    content = _read(path)
    if len(content) < 4 or content[:2] != b"\0\0" or content[3] == 0:
        raise FileFormatError(
            f"{path}: not an IDX file: it starts with {content[:4].hex(' ')}, not with 00 00 and the kind of its values"
        )
    kind, n_dimensions = content[2], content[3]
    if kind != _UINT8:
        raise FileFormatError(f"{path}: holds values of IDX type 0x{kind:02x}; only bytes (0x08) are read")
    start = 4 + 4 * n_dimensions
    if len(content) < start:
        raise FileFormatError(f"{path}: truncated: {len(content)} bytes, and the header alone takes {start}")
    shape = struct.unpack(f">{n_dimensions}I", content[4:start])
    if math.prod(shape) != len(content) - start:
        sizes = " x ".join(map(str, shape))
        raise FileFormatError(
            f"{path}: damaged: its header promises {sizes} values, {math.prod(shape)} in all, "
            f"and {len(content) - start} follow; download it again"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if content[:2] != _GZIP_MAGIC:
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise FileFormatError(f"{path}: damaged: {error}; download it again") from error
