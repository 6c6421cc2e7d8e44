"""How the rows of a batch are divided: into groups, whose gradients are added up in order, and groups into tiles.

Both depend on the sizes of the batch and of the network alone, never on the number of threads: results do not either.
"""

from __future__ import annotations

from functools import lru_cache

from fastnet.parameters import ParameterLayout

__all__ = [
    "CHUNK",
    "MOST_PACKED_ROWS",
    "PANELS_OF_ITEM",
    "count_chunks",
    "count_groups",
    "count_panel_items",
    "count_tile_rows",
    "count_tiles",
    "is_worth_dividing_by_panels",
    "is_worth_sharing",
    "share_start",
    "tile_start",
    "whole_vectors",
]

# Counts that divide evenly over the usual numbers of cores.
_GROUP_COUNTS = (48, 32, 16, 8, 4, 2, 1)

# A group is worth a thread's while from this many multiply-adds of a forward pass on: some microseconds with the
# backward pass. Narrow networks take longer for each, but want long tiles, so that little of the time is spent between
# them.
_GROUP_WORK = 2**17

# A run is worth the while of more than one thread from this many multiply-adds on: one thread alone takes as long for
# them as another takes to wake up.
_SHARED_WORK = 2**21

# What else is done for each number of a layer (its bias, its activation, its share of the loss), in multiply-adds.
_WORK_PER_UNIT = 16

# Every group has a gradient of its own to be written and added up. Its rows must be many enough to be worth that, the
# more the larger the gradient is; and few rows make blocks that are not filled. Up to a few groups of a large network,
# the work of a row is so much that neither matters.
_FEWEST_ROWS, _PARAMETERS_PER_ROW, _MOST_ROWS = 96, 64, 2048
_FEW_GROUPS, _ROWS_OF_LARGE, _LARGE = 4, 32, 2**17

# Memory for the gradients of all groups together.
_GROUP_BYTES = 2**28

# So many tiles are full, but for the last: there are fewest of them then, and their rows fill the blocks of products.
# Some groups have one more than others, which matters where there are less: then all groups have the same number of
# tiles, and all tiles the same number of rows.
_FULL_TILES = 128

# Rows of a tile: as few as keep products efficient; more where all layers are so narrow that the tile still fits in a
# near cache, or so wide that their gradient fits in none, and should not pass too often; and no more than packed
# rows can be counted in a byte.
_FEWEST_TILE_ROWS, _MOST_TILE_ROWS, MOST_PACKED_ROWS = 256, 2048, 256
_TILE_BYTES = 2**17
_WIDE_ROW_BYTES, _MOST_WIDE_ROWS, _WIDE_TILE_BYTES = 2**12, 768, 2**24

# Parameters that are taken through all passes of an update together: few enough that a chunk of the parameters, of the
# gradient and of both moments stays in the innermost cache, and enough to be worth handing to a thread.
CHUNK = 2048

# Panels of a first layer that are handed to a thread together: packed samples are multiplied with two at a time.
PANELS_OF_ITEM = 2

# A division by panels saves time with each update, and costs some, as every thread has to look at all rows: it pays for
# few rows of many parameters. So few rows may be a single group, and then nothing else shares them out. Where dense
# rows could be shared out evenly as groups, panels do it as well only if they are many.
_MOST_ROWS_BY_PANELS, _PARAMETERS_PER_ROW_BY_PANELS, _FEWEST_PARAMETERS_BY_PANELS = 512, 64, 2**12
_FEWEST_ITEMS_OF_DENSE = 8

# Tiles have a multiple of this many rows, so that every part of a tile starts at a cache line.
_ROW_MULTIPLE = 64


def share_start(part: int, n_parts: int, begin: int, end: int) -> int:
    """Where a part starts if [begin, end) is divided into `n_parts` that are equal or differ by one."""
    return begin + part * (end - begin) // n_parts


def count_tiles(n_rows: int, n_groups: int, tile_rows: int) -> int:
    """Number of tiles that a batch is divided into, of at most `tile_rows` rows. Groups are whole numbers of them."""
    fewest = -(-n_rows // tile_rows)
    return fewest if n_rows >= _FULL_TILES * tile_rows else -(-fewest // n_groups) * n_groups


def tile_start(tile: int, n_tiles: int, tile_rows: int, begin: int, end: int) -> int:
    """Where one of the tiles of a batch [begin, end) starts."""
    if end - begin >= _FULL_TILES * tile_rows:
        return min(begin + tile * tile_rows, end)
    return begin + tile * (end - begin) // n_tiles


def whole_vectors(n_rows: int, multiple: int) -> int:
    """The number of rows, rounded up to a multiple."""
    return -(-n_rows // multiple) * multiple


def count_chunks(n_parameters: int) -> int:
    """Number of chunks that so many parameters are updated in."""
    return -(-n_parameters // CHUNK)


def count_panel_items(width: int, lanes: int) -> int:
    """Number of items that the panels of a layer are handed out in."""
    return -(-width // (PANELS_OF_ITEM * lanes))


def is_worth_dividing_by_panels(
    n_rows: int, n_groups: int, n_panel_items: int, first_weight_size: int, *, packed: bool
) -> bool:
    """Whether the first layer of batches of `n_rows` samples should be divided by panels."""
    if n_panel_items == 1 or first_weight_size < _FEWEST_PARAMETERS_BY_PANELS:
        return False
    shares_well = packed or n_groups == 1 or n_panel_items >= _FEWEST_ITEMS_OF_DENSE
    most_rows = min(_MOST_ROWS_BY_PANELS, first_weight_size // _PARAMETERS_PER_ROW_BY_PANELS)
    return shares_well and n_rows <= most_rows


@lru_cache
def count_groups(n_rows: int, layout: ParameterLayout, gradient_bytes: int) -> int:
    """Number of groups that a batch of `n_rows` is divided into; a gradient takes `gradient_bytes`."""
    rows = min(_FEWEST_ROWS + layout.size // _PARAMETERS_PER_ROW, _MOST_ROWS)
    few_rows = _ROWS_OF_LARGE if layout.size > _LARGE else _FEWEST_ROWS
    limit = min(
        max(n_rows // rows, min(n_rows // few_rows, _FEW_GROUPS)),
        n_rows * _work_of_row(layout) // _GROUP_WORK,
        _GROUP_BYTES // gradient_bytes,
    )
    return next((count for count in _GROUP_COUNTS if count <= limit), 1)


def is_worth_sharing(n_rows: int, layout: ParameterLayout) -> bool:
    """Whether a run that looks at `n_rows` rows, in all its steps together, should have more than one worker."""
    return n_rows * _work_of_row(layout) >= _SHARED_WORK


@lru_cache
def _work_of_row(layout: ParameterLayout) -> int:
    """Multiply-adds of a forward pass."""
    return layout.size + _WORK_PER_UNIT * sum(layout.layer_sizes[1:])


def count_tile_rows(n_rows: int, n_columns: int, itemsize: int, *, packed: bool) -> int:
    """Most rows of a tile of `n_columns` numbers each, for groups of at most `n_rows` rows."""
    row_bytes = n_columns * itemsize
    is_wide = row_bytes >= _WIDE_ROW_BYTES
    most, most_bytes = (_MOST_WIDE_ROWS, _WIDE_TILE_BYTES) if is_wide else (_MOST_TILE_ROWS, _TILE_BYTES)
    fitting = max(_FEWEST_TILE_ROWS, min(most, most_bytes // row_bytes))
    rows = min(max(n_rows, 1), MOST_PACKED_ROWS if packed else fitting)
    return -(-rows // _ROW_MULTIPLE) * _ROW_MULTIPLE
