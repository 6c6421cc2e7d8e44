"""Every elementwise kernel, as the code that CuPy makes of it, compiled by NVRTC, as it is when first used on a GPU."""

from __future__ import annotations

import importlib
import pkgutil
import re

import emulated_cupy
import numpy as np
import nvrtc
import pytest

# What each placeholder stands for. The kernels take no others, though not in these combinations alone.
TYPES = [{"T": "float32", "X": "uint8", "I": "int32"}, {"T": "float64", "X": "float32", "I": "int64"}]

ARRAY, INDEXER, SCALAR = 1, 2, 3  # CuPy's kinds of arguments


class Generator:
    """CuPy's own, which knows its headers, its options, and the code around a kernel's; or the test is skipped.

    Everything in here is CuPy's internal affair and may change with its version.
    """

    def __init__(self):
        self.cupy = pytest.importorskip("cupy", exc_type=ImportError)
        assert "emulated" not in self.cupy.__version__, "a test has left the emulation behind"
        try:
            from cupy._core import _carray, _kernel, _scalar, core

            self._kernel, self._array, self._scalar = _kernel, self.cupy.ndarray, _scalar.CScalar
            self._indexer = _carray.Indexer
            self.headers = "".join(f"#include <{name}>\n" for name in core._cupy_header_list)
            self.options = (*core.assemble_cupy_compiler_options(()), "--device-as-default-execution-space")
            self.code(self.cupy.ElementwiseKernel("T x", "T y", "y = x", "copy"), TYPES[0], "", is_large=False)
        except (ImportError, AttributeError, TypeError) as error:
            pytest.skip(f"CuPy {self.cupy.__version__} makes code of kernels in another way: {error}")
        except RuntimeError as error:
            pytest.skip(f"CuPy finds no headers of CUDA: {error}")

    def code(self, kernel, types, preamble, *, is_large):
        """Of a kernel for small arrays, or for large ones, which are strided and have indices of 64 bits.

        With small ones, every argument is an array; with large ones, all that can be scalars are, but for the first.
        """
        used = {p.ctype: np.dtype(types[p.ctype]).type for p in kernel.params if p.ctype in types}
        arguments = [self._describe(k, p, used, kernel.nin, is_large) for k, p in enumerate(kernel.params)]
        type_map = self._kernel._TypeMap(tuple(sorted(used.items())))
        return self._kernel._get_elementwise_kernel_code(
            tuple(arguments), type_map, kernel.params, kernel.operation, kernel.name, preamble
        )

    def _describe(self, position, parameter, types, n_inputs, is_large):
        describe, n_dimensions = self._kernel._ArgInfo, 2 if is_large else 1
        if parameter.ctype is None:
            return describe(INDEXER, self._indexer, None, n_dimensions, True, not is_large)
        dtype = types.get(parameter.ctype) or parameter.dtype.type
        if is_large and 0 < position < n_inputs and not parameter.raw:
            return describe(SCALAR, self._scalar, dtype, 0, True, True)
        return describe(ARRAY, self._array, dtype, n_dimensions, parameter.raw or not is_large, not is_large)


@pytest.fixture(scope="module")
def generator():
    return Generator()


@pytest.fixture(scope="module")
def kernels(generator):
    """All that the backend's modules make, for CuPy itself: without cuBLAS, it could not import all of them."""
    with emulated_cupy.installed():
        from fastnet.backends import cupy_backend

        for module in pkgutil.iter_modules(cupy_backend.__path__, f"{cupy_backend.__name__}."):
            importlib.import_module(module.name)
        made = [*emulated_cupy.elementwise.ElementwiseKernel.made]
    return [
        generator.cupy.ElementwiseKernel(*kernel.declared, kernel.operation, kernel.name, preamble=kernel.preamble)
        for kernel in made
    ]


def make_program(generator, kernels, types, *, is_large):
    """One source of all kernels. Those with a preamble come first, as it stands where the first of them is."""
    parts, preambles = [generator.headers], set()
    for kernel in sorted(kernels, key=lambda kernel: not kernel.preamble):
        preamble = "" if kernel.preamble in preambles else kernel.preamble
        preambles.add(preamble)
        parts.append(generator.code(kernel, types, preamble, is_large=is_large))
    return "\n".join(parts)


# How arrays are indexed does not depend on the architecture, and compiling takes seconds.
@pytest.mark.parametrize(
    ("architecture", "is_large"), [(nvrtc.ARCHITECTURES[0], False), (nvrtc.ARCHITECTURES[-1], True)]
)
@pytest.mark.parametrize("types", TYPES, ids=lambda types: types["T"])
def test_elementwise_kernels_compile(generator, kernels, types, architecture, is_large):
    program = make_program(generator, kernels, types, is_large=is_large)
    usages = nvrtc.compile_source(program, generator.options, architecture)
    assert set(usages) == {kernel.name for kernel in kernels}
    assert len(usages) > 50
    assert not any(usage.spill_stores + usage.spill_loads for usage in usages.values())


def test_kernel_that_is_wrong_does_not_compile(generator):
    """And what is wrong is told."""
    wrong = generator.cupy.ElementwiseKernel(
        "T x", "int64 n", "set(n)", "wrong", preamble="__device__ void set(int& n) { n = 1; }"
    )
    with pytest.raises(nvrtc.CompileError, match=re.escape('reference of type "int &"')):
        nvrtc.compile_source(make_program(generator, [wrong], TYPES[0], is_large=False), generator.options, 75)
