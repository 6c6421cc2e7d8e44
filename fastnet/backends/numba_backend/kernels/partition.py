"""How rows are divided, for kernels: see ``partition.py`` of the backend."""

from __future__ import annotations

from fastnet.backends.numba_backend import partition
from fastnet.backends.numba_backend.kernels.compiling import kernel

__all__ = ["count_chunks", "count_panel_items", "count_tiles", "share_start", "tile_start", "whole_vectors"]

share_start, whole_vectors = kernel(partition.share_start), kernel(partition.whole_vectors)
count_tiles, tile_start = kernel(partition.count_tiles), kernel(partition.tile_start)
count_chunks, count_panel_items = kernel(partition.count_chunks), kernel(partition.count_panel_items)
