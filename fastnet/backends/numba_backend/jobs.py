"""Jobs that are ready to be done: what workers are told about them, and the memory that they need."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastnet.backends.numba_backend.records import (
    CodedOptimizer,
    GroupSums,
    OptimizerState,
    Prediction,
    Run,
    Scratch,
    Step,
    Training,
    as_record,
    record_dtype,
    refill,
)
from fastnet.backends.numba_backend.team import run_team

__all__ = ["PlanRecords", "TrainingJob", "Workspace", "do_prediction"]


class Workspace(NamedTuple):
    """Workers, and the memory that they need for batches of up to some number of rows."""

    n_workers: int
    scratch: Scratch
    sums: GroupSums


class PlanRecords(NamedTuple):
    """The records that stay the same as long as a plan lives."""

    network: NDArray
    kernels: NDArray
    samples: NDArray


class TrainingJob:
    """Runs of training steps with one optimizer in one workspace.

    What the records point to must be kept as long as this is used.
    """

    def __init__(
        self, records: PlanRecords, optimizer: CodedOptimizer, state: OptimizerState, workspace: Workspace
    ) -> None:
        self._run = np.zeros(1, record_dtype(Run))
        self._training = Training(
            *records,
            as_record(optimizer),
            as_record(state),
            as_record(workspace.scratch),
            as_record(workspace.sums),
            self._run,
            step=np.zeros(1, record_dtype(Step)),
            like=state.flat.dtype.type(0),
        )
        self._record = as_record(self._training, state.flat.dtype)
        self._address = self._record.ctypes.data
        self._run_steps = int(records.kernels["run_steps"][0])

    def do(self, run: Run, n_workers: int) -> None:
        """Make the steps of a run."""
        refill(self._run, run)
        run_team(n_workers, self._run_steps, self._address)


def do_prediction(prediction: Prediction, n_workers: int) -> None:
    """Fill in the outputs."""
    record = as_record(prediction, prediction.flat.dtype)
    run_team(n_workers, int(prediction.kernels["predict"][0]), record.ctypes.data)
