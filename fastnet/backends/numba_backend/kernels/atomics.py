"""Numbers in memory that several threads look at and change, in an order that is the same for all of them."""

# Functions of this file are read by Numba, which fills in their arguments:
# mypy: allow-untyped-defs, allow-untyped-calls
# ruff: noqa: ARG001

from __future__ import annotations

import platform

from llvmlite import ir
from numba import types
from numba.core import cgutils

from fastnet.backends.numba_backend.kernels.blocks import intrinsic

__all__ = ["add", "exchange", "load", "pause", "replace"]

_PAUSES = {"x86_64": "llvm.x86.sse2.pause", "AMD64": "llvm.x86.sse2.pause"}


def _atomic(generate_at, n_numbers):
    """A function of an address and of `n_numbers` that does something to the int64 there, and returns one."""
    signature = types.int64(types.int64, *[types.int64] * n_numbers)

    def generate(context, builder, _, arguments):
        return generate_at(builder, builder.inttoptr(arguments[0], ir.IntType(64).as_pointer()), *arguments[1:])

    return signature, generate


@intrinsic
def load(context, address):
    """The number at an address, as other threads left it."""
    return _atomic(lambda builder, at: builder.load_atomic(at, "seq_cst", 8), 0)


@intrinsic
def add(context, address, number):
    """Add to it; returns what it was before."""
    return _atomic(lambda builder, at, number: builder.atomic_rmw("add", at, number, "seq_cst"), 1)


@intrinsic
def exchange(context, address, number):
    """Put another number there; returns what it was before."""
    return _atomic(lambda builder, at, number: builder.atomic_rmw("xchg", at, number, "seq_cst"), 1)


@intrinsic
def replace(context, address, old, new):
    """Put `new` there if `old` was; returns whether it was."""

    def generate_at(builder, at, old, new):
        outcome = builder.cmpxchg(at, old, new, "seq_cst", "seq_cst")
        return builder.zext(builder.extract_value(outcome, 1), ir.IntType(64))

    return _atomic(generate_at, 2)


@intrinsic
def pause(context):
    """Tell the processor that this is a loop that waits."""

    def generate(context, builder, signature, arguments):
        name = _PAUSES.get(platform.machine())
        if name:
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [])
        return context.get_dummy_value()

    return types.void(), generate
