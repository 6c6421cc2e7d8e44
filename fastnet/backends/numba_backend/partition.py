"""How the rows of a batch are divided: into groups, whose gradients are added up in order, and groups into tiles.

Both depend on the sizes of the batch and of the network alone, never on the number of threads: results do not either.
"""

from __future__ import annotations

from fastnet.backends.numba_backend.compiling import kernel
from fastnet.backends.numba_backend.layout import MemoryLayout
from fastnet.parameters import ParameterLayout

__all__ = ["count_groups", "count_tile_rows", "share_start"]

# Counts that divide evenly over the usual numbers of cores.
_GROUP_COUNTS = (48, 32, 16, 8, 4, 2, 1)

# A group is worth a thread's while from this many multiply-adds of a forward pass on, some tens of microseconds with
# the backward pass: entering a parallel region costs a few microseconds under OpenMP.
_GROUP_WORK = 2**17

# What else is done for each number of a layer (its bias, its activation, its share of the loss), in multiply-adds.
_WORK_PER_UNIT = 16

# Every group has a gradient of its own to be written and added up. Up to a few groups, that pays from a small number of
# rows on; for more, the rows must be many.
_FEW_GROUPS, _FEW_ROWS, _MANY_ROWS = 4, 16, 64

# Memory for the gradients of all groups together.
_GROUP_BYTES = 2**28

# What a tile's samples and activations may take together, so that they stay in a core's second-level cache with room
# left for the weights.
_TILE_BYTES = 2**19
_TILE_ROWS = (64, 256)

# Tiles have a multiple of this many rows, so that every part of a tile starts at a cache line.
_ROW_MULTIPLE = 64


@kernel
def share_start(part, n_parts, begin, end):  # type: ignore[no-untyped-def]
    """Where a part starts if [begin, end) is divided into `n_parts` that are equal or differ by one."""
    return begin + part * (end - begin) // n_parts


def count_groups(n_rows: int, layout: ParameterLayout, itemsize: int) -> int:
    """Number of groups that a batch of `n_rows` is divided into; `itemsize` bytes make one number."""
    limit = min(
        max(n_rows // _MANY_ROWS, min(n_rows // _FEW_ROWS, _FEW_GROUPS)),
        n_rows * (layout.size + _WORK_PER_UNIT * sum(layout.layer_sizes[1:])) // _GROUP_WORK,
        _GROUP_BYTES // (layout.size * itemsize),
    )
    return next((count for count in _GROUP_COUNTS if count <= limit), 1)


def count_tile_rows(n_rows: int, layout: MemoryLayout, itemsize: int) -> int:
    """Most rows of a tile, for groups of at most `n_rows` rows."""
    fewest, most = _TILE_ROWS
    rows = min(max(n_rows, 1), max(fewest, min(most, _TILE_BYTES // (layout.n_columns * itemsize))))
    return -(-rows // _ROW_MULTIPLE) * _ROW_MULTIPLE
