"""One fit in a process of its own: ``python first_fit.py WORKLOAD.pickle ROW PARAMETERS.npy``.

fastnet's rows go through `fastnet.Network` here, so that all it imports and checks is part of the time.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
from rows import find_row

from fastnet.network import Network
from fastnet.parameters import Parameters
from fastnet.workloads import LoadedWorkload


def fit(loaded: LoadedWorkload, row: str) -> Parameters:
    """Train from nothing, in the library's own way."""
    if not row.startswith("fastnet "):
        trial = find_row(row)(loaded)
        trial.run()
        return trial.parameters()
    spec = loaded.spec.network
    network = Network(
        spec.layer_sizes,
        activation=spec.activations,
        output=spec.output,
        loss=spec.loss,
        input_scale=spec.input_scale,
        dtype=spec.dtype,
        init=loaded.start.weights,
        bias_init=loaded.start.biases,
        backend=row.removeprefix("fastnet "),
    )
    optimizer, n_steps = loaded.spec.optimizer, loaded.n_steps
    network.fit(loaded.dataset.x, loaded.dataset.targets, optimizer=optimizer, n_steps=n_steps)
    return Parameters.from_arrays(loaded.start.layout, network.weights, network.biases, spec.dtype)


if __name__ == "__main__":
    source, name, target = sys.argv[1:]
    np.save(target, fit(pickle.loads(Path(source).read_bytes()), name).flat)
