"""What both layouts of a tile share."""

# Kernels get their types from Numba:
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from fastnet.backends.numba_backend.kernels.compiling import call, inlined
from fastnet.backends.numba_backend.kernels.views import part_of

__all__ = ["activate", "activation_backward"]


@inlined
def activate(layer, memory, tile_rows, n_numbers):
    """Apply a layer's activation to the first numbers of its h, keeping z where the derivative will need it."""
    h = part_of(memory, tile_rows * layer.h, n_numbers)
    if layer.kept != layer.h:
        kept = part_of(memory, tile_rows * layer.kept, n_numbers)
        for k in range(n_numbers):  # Numba takes seconds to compile the assignment of an array
            kept[k] = h[k]
    call(layer.activate, (h,))


@inlined
def activation_backward(layer, memory, tile_rows, n_numbers):
    """Turn the first numbers of a layer's d from gradients with respect to h into those with respect to z."""
    d = part_of(memory, tile_rows * layer.d, n_numbers)
    kept = part_of(memory, tile_rows * layer.kept, n_numbers)
    call(layer.backward, (d, kept))
