"""The workloads by name: networks and data as tutorials and tables have them."""

from __future__ import annotations

from fastnet.errors import unknown_name
from fastnet.optimizers import SGD, Adam
from fastnet.spec import NetworkSpec
from fastnet.workloads.samples import DataPath, read_dense, read_mnist, read_moons, read_sum, read_tabular
from fastnet.workloads.workload import LoadedWorkload, Workload

__all__ = ["WORKLOADS", "find_workload", "load"]


def _pixels(*hidden: int) -> NetworkSpec:
    return NetworkSpec((784, *hidden, 10), ("relu",) * len(hidden), input_scale=1 / 255)


# As many epochs as make a round long enough to be timed, and short enough to be repeated for every backend.
WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        Workload(
            name="mnist-16",
            title="784-16-10 on MNIST, full batch",
            network=_pixels(16),
            optimizer=SGD(learning_rate=0.2),
            n_samples=42_000,
            n_epochs=10,
            read=read_mnist,
            init="uniform(-0.5, 0.5)",
        ),
        Workload(
            name="mnist-128",
            title="784-128-10 on MNIST, full batch",
            network=_pixels(128),
            optimizer=SGD(learning_rate=0.2),
            n_samples=42_000,
            n_epochs=5,
            read=read_mnist,
        ),
        Workload(
            name="dense-16",
            title="784-16-10 on dense float32, full batch",
            network=NetworkSpec((784, 16, 10), ("relu",)),
            optimizer=SGD(learning_rate=0.2),
            n_samples=42_000,
            n_epochs=10,
            read=read_dense,
        ),
        Workload(
            name="deep-512",
            title="784-512-512-10 on dense float32, full batch",
            network=NetworkSpec((784, 512, 512, 10), ("relu", "relu")),
            optimizer=SGD(learning_rate=0.05),
            n_samples=42_000,
            n_epochs=2,
            read=read_dense,
        ),
        Workload(
            name="moons",
            title="2-5-1 on two moons, relu and sigmoid, full batch",
            network=NetworkSpec((2, 5, 1), ("relu",), "sigmoid", "cross_entropy"),
            optimizer=SGD(learning_rate=0.1),
            n_samples=240,
            n_epochs=20_000,
            read=read_moons,
            init="normal",
        ),
        Workload(
            name="sum",
            title="2-3-1 without biases on sums of two numbers, sigmoid, full batch",
            network=NetworkSpec((2, 3, 1), ("sigmoid",), "sigmoid", "squared_error", bias=False, reduction="sum"),
            # At ten times this rate the path is chaotic: after so many steps no two programs are near each other.
            optimizer=SGD(learning_rate=0.001),
            n_samples=10_000,
            n_epochs=10_000,
            read=read_sum,
            init="normal(0, 1)",
        ),
        Workload(
            name="digits-adam",
            title="784-100-10 on MNIST, Adam, batches of 200",
            network=_pixels(100),
            optimizer=Adam(learning_rate=0.001),
            n_samples=42_000,
            n_epochs=1,
            read=read_mnist,
            batch_size=200,
            loss_tolerance=1e-3,
        ),
        Workload(
            name="dense-adam",
            title="784-100-10 on dense float32, Adam, batches of 32",
            network=NetworkSpec((784, 100, 10), ("relu",)),
            optimizer=Adam(learning_rate=0.001),
            n_samples=40_000,
            n_epochs=1,
            read=read_dense,
            batch_size=32,
            loss_tolerance=1e-3,
        ),
        Workload(
            name="tabular-adam",
            title="30-100-2 on a table of 100,000 rows, two values to predict, Adam, batches of 200",
            network=NetworkSpec((30, 100, 2), ("relu",), "identity", "squared_error"),
            optimizer=Adam(learning_rate=0.001),
            n_samples=100_000,
            n_epochs=1,
            read=read_tabular,
            batch_size=200,
            loss_tolerance=1e-3,
        ),
    )
}


def find_workload(name: str) -> Workload:
    """Return the workload called `name`.

    Raises
    ------
    SpecError
        There is none.
    """
    if name not in WORKLOADS:
        raise unknown_name("workload", name, WORKLOADS)
    return WORKLOADS[name]


def load(workload: Workload | str, data: DataPath | None = None, scale: float = 1.0) -> LoadedWorkload:
    """Read or draw a workload's data, and draw its initial weights.

    Parameters
    ----------
    workload : Workload or str
        One of `WORKLOADS`, or its name.
    data : path-like, optional
        Directory of the MNIST files; by default the one that ``FASTNET_DATA`` names. Without it data are drawn that
        have MNIST's shape, type and share of zeros, and `LoadedWorkload.data_source` says so.
    scale : float
        In (0, 1]: see :meth:`Workload.scaled`.

    Raises
    ------
    SpecError
        There is no such workload, or `scale` is out of range.
    DataError, FileFormatError
        `data` holds no MNIST, or a damaged one.
    """
    return (find_workload(workload) if isinstance(workload, str) else workload).scaled(scale).load(data)
