"""A training plan whose runs are single calls of compiled code, and predictions made the same way."""

# Legend: N samples, D features, C outputs, P parameters, S steps.

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastnet import reference
from fastnet.backends.interface import StepMetrics
from fastnet.backends.numba_backend.buffers import (
    code_network,
    code_optimizer,
    code_samples,
    make_group_sums,
    make_scratch,
    make_state,
    read_only,
)
from fastnet.backends.numba_backend.drivers import predict_all, predict_share, run_steps
from fastnet.backends.numba_backend.gradients import gradient_share
from fastnet.backends.numba_backend.packing import pack_samples
from fastnet.backends.numba_backend.partition import count_groups, count_tile_rows
from fastnet.backends.numba_backend.records import CodedNetwork, CodedOptimizer, GroupSums, Run, Scratch, Step
from fastnet.backends.numba_backend.threads import kernel_threads
from fastnet.backends.numba_backend.updates import GRADIENT_ONLY, update_share
from fastnet.data import Dataset
from fastnet.errors import PlanClosedError
from fastnet.parameters import ParameterLayout, Parameters
from fastnet.spec import NetworkSpec, TrainingSpec

__all__ = ["NumbaPlan", "predict"]


class NumbaPlan:
    """A `fastnet.backends.interface.TrainingPlan` on the CPU.

    Parameters
    ----------
    spec : TrainingSpec
    parameters : Parameters
        Copied.
    dataset : Dataset
        Read where it lies.
    n_threads : int
    """

    def __init__(self, spec: TrainingSpec, parameters: Parameters, dataset: Dataset, n_threads: int) -> None:
        self._layout = parameters.layout
        self._n_threads = n_threads
        self._n_samples = dataset.n_samples
        self._batch_size = spec.batch_size
        self._network = code_network(spec.network, spec.task)
        self._optimizer = code_optimizer(spec.optimizer)
        remembered = reference.initial_state(spec.optimizer, parameters.flat, xp=np)
        self._state = make_state(self._network, parameters.flat, list(remembered.values()))
        self._remembered = dict(zip(remembered, (self._state.first, self._state.second), strict=False))
        self._n_updates = 0
        self._workspace = self._make_workspace(self._batch_rows)
        n_groups = 0 if self._batch_size else len(self._workspace.sums.losses)
        samples = code_samples(spec.network, dataset.x, dataset.targets, dataset.sample_weight)
        self._samples = pack_samples(samples, dataset.x, n_groups, self._workspace.scratch.tile_rows)
        self._compiled = self._compile()
        self._closed = False

    @property
    def _batch_rows(self) -> int:
        return self._batch_size or self._n_samples

    @property
    def _flat(self) -> NDArray:
        """The parameters (P,), in place."""
        return self._state.flat[: self._layout.size]

    def _make_workspace(self, n_rows: int) -> Workspace:
        return make_workspace(self._network, self._layout, n_rows, self._n_threads, self._flat.dtype)

    def _compile(self) -> tuple[Any, Any]:
        """What a run calls by address, compiled or loaded for the types of this plan."""
        network, samples, state, (_, scratch, sums) = self._network, self._samples, self._state, self._workspace
        step, order = Step(0, 0, 0, 0.0, 0.0, 0), read_only((), np.int64)
        return (
            gradient_share.for_arguments(0, 0, step, network, samples, order, state.flat, scratch, sums),
            update_share.for_arguments(0, 0, step, network, self._optimizer, state, sums.gradients),
        )

    def run(self, learning_rates: Sequence[float] | NDArray, order: NDArray[np.int64] | None = None) -> StepMetrics:
        """See :meth:`fastnet.backends.interface.TrainingPlan.run`."""
        self._require_open()
        rates = np.array(learning_rates, np.float64)
        run = self._call(self._optimizer, rates, order, self._batch_rows, self._workspace)
        self._n_updates += len(rates)
        metrics = run.losses, run.n_correct  # and not `run`, which holds the order too
        return StepMetrics(lambda: metrics)

    def loss_and_gradients(self) -> tuple[float, Parameters]:
        """See :meth:`fastnet.backends.interface.TrainingPlan.loss_and_gradients`."""
        self._require_open()
        # That of a batch has too little room where the whole dataset is divided into more groups.
        workspace = self._make_workspace(self._n_samples) if self._batch_size else self._workspace
        run = self._call(CodedOptimizer(GRADIENT_ONLY), np.zeros(1), None, self._n_samples, workspace)
        return float(run.losses[0]), Parameters(self._layout, self._state.gradient[: self._layout.size].copy())

    def _call(
        self,
        optimizer: CodedOptimizer,
        rates: NDArray[np.float64],
        order: NDArray[np.int64] | None,
        batch_rows: int,
        workspace: Workspace,
    ) -> Run:
        """Make ``len(rates)`` steps of `batch_rows` samples each; the last may have fewer."""
        last_rows = batch_rows if order is None else len(order) - (len(rates) - 1) * batch_rows
        itemsize = self._flat.itemsize
        run = Run(
            order=read_only(() if order is None else order, np.int64),
            stride=0 if order is None else batch_rows,
            batch_rows=batch_rows,
            n_groups=count_groups(batch_rows, self._layout, itemsize),
            n_groups_last=count_groups(last_rows, self._layout, itemsize),
            first_update=self._n_updates + 1,
            rates=rates,
            losses=np.empty(len(rates)),
            n_correct=np.empty(len(rates), np.int64),
        )
        n_workers, scratch, sums = workspace
        with kernel_threads(n_workers):
            run_steps(
                *self._compiled, self._network, self._samples, optimizer, self._state, scratch, sums, run, n_workers
            )
        return run

    def read_parameters(self) -> Parameters:
        """See :meth:`fastnet.backends.interface.TrainingPlan.read_parameters`."""
        self._require_open()
        return Parameters(self._layout, self._flat.copy())

    def write_parameters(self, parameters: Parameters) -> None:
        """See :meth:`fastnet.backends.interface.TrainingPlan.write_parameters`."""
        self._require_open()
        self._flat[...] = parameters.flat

    def read_state(self) -> dict[str, NDArray]:
        """See :meth:`fastnet.backends.interface.TrainingPlan.read_state`."""
        self._require_open()
        state = {name: array.copy() for name, array in self._remembered.items()}
        return state | {"n_updates": np.array(self._n_updates, np.int64)}

    def write_state(self, state: dict[str, NDArray]) -> None:
        """See :meth:`fastnet.backends.interface.TrainingPlan.write_state`."""
        self._require_open()
        for name, array in self._remembered.items():
            array[...] = state[name]
        self._n_updates = int(state["n_updates"])

    def synchronize(self) -> None:
        """See :meth:`fastnet.backends.interface.TrainingPlan.synchronize`."""
        self._require_open()  # runs return when they are done

    def close(self) -> None:
        """See :meth:`fastnet.backends.interface.TrainingPlan.close`."""
        if not self._closed:
            del self._samples, self._state, self._remembered, self._workspace
        self._closed = True

    def _require_open(self) -> None:
        if self._closed:
            raise PlanClosedError("this training plan is closed: make a new one with plan_training")


class Workspace(NamedTuple):
    """Workers, and the memory that they need for batches of up to some number of rows."""

    n_workers: int
    scratch: Scratch
    sums: GroupSums


def make_workspace(
    network: CodedNetwork, layout: ParameterLayout, n_rows: int, n_threads: int, dtype: np.dtype
) -> Workspace:
    """Workspace for batches of up to `n_rows` rows. No more workers than groups, so that each has some."""
    n_groups = count_groups(n_rows, layout, dtype.itemsize)
    n_workers = min(n_threads, n_groups)
    tile_rows = count_tile_rows(-(-n_rows // n_groups), layout, dtype.itemsize)
    return Workspace(
        n_workers, make_scratch(network, tile_rows, n_workers, dtype), make_group_sums(network, n_groups, dtype)
    )


def predict(network: NetworkSpec, parameters: Parameters, x: Any, n_threads: int) -> NDArray:
    """Outputs (N, C) for x (N, D), dense or CSR."""
    n_samples, dtype = x.shape[0], network.numpy_dtype
    n_workers = min(n_threads, count_groups(n_samples, parameters.layout, dtype.itemsize))
    coded, samples, order = code_network(network), code_samples(network, x), read_only((), np.int64)
    scratch = make_scratch(coded, count_tile_rows(n_samples, parameters.layout, dtype.itemsize), n_workers, dtype)
    flat = make_state(coded, parameters.flat, []).flat
    outputs = np.empty((n_samples, network.n_outputs), dtype)
    share = predict_share.for_arguments(0, 0, coded, samples, order, flat, scratch, outputs)
    with kernel_threads(n_workers):
        predict_all(share, coded, samples, order, flat, scratch, outputs, n_workers)
    return outputs
