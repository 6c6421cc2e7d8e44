"""How rows are divided, for kernels: see ``partition.py`` of the backend."""

from __future__ import annotations

from fastnet.backends.numba_backend import partition
from fastnet.backends.numba_backend.kernels.compiling import kernel

__all__ = ["share_start", "whole_vectors"]

share_start, whole_vectors = kernel(partition.share_start), kernel(partition.whole_vectors)
