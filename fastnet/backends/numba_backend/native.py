"""The addresses of compiled functions, by kind: loaded from disk, or compiled where they are not there yet."""

from __future__ import annotations

from functools import cache

from fastnet.backends.numba_backend import companion, kept
from fastnet.backends.numba_backend.kinds import AnyKind, NetworkKind
from fastnet.backends.numba_backend.machine_code import MachineCode, load

__all__ = ["native_functions"]


@cache
def native_functions(kind: AnyKind) -> dict[str, int]:
    """Addresses of the functions that a kind needs, by the names that it has for them."""
    codes = kept.read_kind(kind) or _compile(kind)
    return dict(zip(codes, load(codes.values()), strict=True))


def _compile(kind: AnyKind) -> dict[str, MachineCode]:
    companion.start_where_nothing_is_compiled()
    if isinstance(kind, NetworkKind):
        companion.tell(kind)
    from fastnet.backends.numba_backend.kernels.needed import needed_functions  # the only way to import Numba

    codes = {needed.name: needed.function.machine_code(*needed.arguments) for needed in needed_functions(kind)}
    kept.keep_kind(kind, codes)
    return codes
