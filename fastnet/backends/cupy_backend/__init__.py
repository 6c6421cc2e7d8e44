"""The CuPy backend: every feature on a CUDA device, what is common by kernels of its own, the rest by cuBLAS.

Data, parameters and the optimizer's state stay on the device from the start of a plan to its end. A run uploads at most
its rates and the order of its samples, and next to nothing comes back before the metrics are read. Importing this
package does not import CuPy, so that what is missing can be told on a machine that has neither CuPy nor a GPU.
"""

from fastnet.backends.cupy_backend.backend import CupyBackend

__all__ = ["CupyBackend"]
