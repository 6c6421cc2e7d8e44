"""The CuPy backend: every feature on a CUDA device, by cuBLAS and fused elementwise kernels.

Data, parameters and the optimizer's state stay on the device from the start of a plan to its end. A run uploads at most
the order of its samples, and nothing comes back before the metrics are read. Importing this package does not import
CuPy, so that what is missing can be told on a machine that has neither CuPy nor a GPU.
"""

from fastnet.backends.cupy_backend.backend import CupyBackend

__all__ = ["CupyBackend"]
