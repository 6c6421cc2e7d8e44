"""A training plan whose runs are single calls of compiled code, and predictions made the same way."""

# Legend: N samples, D features, C outputs, P parameters, S steps.

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnet import reference
from fastnet.backends.interface import StepMetrics
from fastnet.backends.numba_backend.buffers import (
    TilePlaces,
    code_kernels,
    code_network,
    code_optimizer,
    code_samples,
    make_group_sums,
    make_scratch,
    make_state,
    read_only,
)
from fastnet.backends.numba_backend.jobs import PlanRecords, TrainingJob, Workspace, do_prediction
from fastnet.backends.numba_backend.kinds import kind_of
from fastnet.backends.numba_backend.layout import TERMS, lay_out
from fastnet.backends.numba_backend.packing import (
    PackedRows,
    bound_tiles,
    pack_rows,
    pack_tiles,
    pay_off_as_tiles,
    transpose_tiles,
)
from fastnet.backends.numba_backend.partition import (
    count_groups,
    count_panel_items,
    count_tile_rows,
    is_worth_dividing_by_panels,
    is_worth_sharing,
)
from fastnet.backends.numba_backend.records import GRADIENT_ONLY, CodedOptimizer, Prediction, Run, Samples, as_record
from fastnet.backends.numba_backend.team import prepare_team
from fastnet.data import Dataset
from fastnet.errors import PlanClosedError
from fastnet.parameters import Parameters
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
        self._parameter_layout = parameters.layout
        self._n_threads = n_threads
        self._n_samples, self._n_features = dataset.n_samples, spec.network.n_features
        self._batch_size = spec.batch_size
        self._dtype = parameters.flat.dtype
        packed = pack_rows(dataset.x, self._dtype)
        self._layout = lay_out(spec.network, sparse=packed is not None)
        self._network = code_network(spec.network, self._layout, packed, trains=True)
        remembered = reference.initial_state(spec.optimizer, parameters.flat, xp=np)
        self._state = make_state(self._layout, parameters.flat, list(remembered.values()))
        self._remembered = dict(zip(remembered, (self._state.first, self._state.second), strict=False))
        self._n_updates = 0
        self._row_sizes = np.diff(packed.row_starts) if packed else None
        self._workspace = self._make_workspace(self._batch_rows, in_batches=bool(self._batch_size))
        self._detail = self._describe(dataset.x, packed)
        self._samples = self._lay_out_samples(spec, dataset, packed)
        by_panels = self._workspace.scratch.by_panels
        kernels = code_kernels(kind_of(spec.network, self._layout, self._samples, packed, spec, by_panels=by_panels))
        prepare_team(max(self._workspace.n_workers, min(self._n_threads, self._count_groups(self._n_samples))))
        self._records = PlanRecords(as_record(self._network), kernels, as_record(self._samples))
        self._optimizer = code_optimizer(spec.optimizer)
        self._training = TrainingJob(self._records, self._optimizer, self._state, self._workspace)
        self._closed = False

    def _lay_out_samples(self, spec: TrainingSpec, dataset: Dataset, packed: PackedRows | None) -> Samples:
        """The samples; for the full batch, whose tiles never change, each tile as its products need it."""
        code = partial(
            code_samples, spec.network, dataset.x, packed, targets=dataset.targets, sample_weight=dataset.sample_weight
        )
        if self._batch_size or not (packed or self._layout.across):
            return code()
        tile_rows = self._workspace.scratch.tile_rows
        bounds = bound_tiles(self._n_samples, len(self._workspace.sums.losses), tile_rows)
        if packed:
            if not pay_off_as_tiles(packed, self._n_features, bounds):
                return code()
            tiles = pack_tiles(packed, self._n_features, bounds)
            return code(packed_tiles=tiles)
        columns = transpose_tiles(dataset, bounds, tile_rows, self._layout.row_multiple, self._dtype)
        return code(tile_columns=columns)

    @property
    def _batch_rows(self) -> int:
        return self._batch_size or self._n_samples

    def _make_workspace(self, n_rows: int, room_for_sorting: int = 0, *, in_batches: bool = False) -> Workspace:
        """Workspace for batches of up to `n_rows` rows. No more workers than have something to do."""
        layout, n_groups, packed = self._layout, self._count_groups(n_rows), self._row_sizes is not None
        rows_of_group = -(-n_rows // n_groups)
        tile_rows = count_tile_rows(rows_of_group, layout.n_columns, self._dtype.itemsize, packed=packed)
        n_panel_items = count_panel_items(layout.layers["width"][0], layout.lanes)
        by_panels = (
            in_batches
            and not layout.across
            and rows_of_group <= tile_rows  # the tiles of all groups are there at once, so each group is one
            and is_worth_dividing_by_panels(n_rows, n_groups, n_panel_items, layout.first_weight_size, packed=packed)
        )
        n_workers = min(self._n_threads, max(n_groups, n_panel_items if by_panels else 1))
        if self._row_sizes is not None:
            room_for_sorting = max(room_for_sorting, self._room_for_sorting(self._row_sizes, min(tile_rows, n_rows)))
        tiles = TilePlaces(n_groups if by_panels else n_workers, tile_rows, self._n_features, room_for_sorting)
        scratch = make_scratch(
            layout,
            tiles,
            n_workers,
            self._dtype,
            by_panels=by_panels,
            numbers_of_batch=n_rows * self._n_features if by_panels and not packed else 0,
        )
        return Workspace(n_workers, scratch, make_group_sums(layout, n_groups, self._dtype))

    def _room_for_sorting(self, row_sizes: NDArray[np.int64], n_rows: int) -> int:
        """Non-zeros of as many rows at most, with what fills up columns."""
        longest = np.partition(row_sizes, -n_rows)[-n_rows:] if len(row_sizes) > n_rows else row_sizes
        return int(longest.sum()) + TERMS * self._n_features

    def _count_groups(self, n_rows: int) -> int:
        return count_groups(n_rows, self._parameter_layout, self._layout.n_parameters * self._dtype.itemsize)

    @property
    def detail(self) -> str:
        """See :attr:`fastnet.backends.interface.TrainingPlan.detail`."""
        return self._detail

    def _describe(self, x: Any, packed: PackedRows | None) -> str:
        layout = "samples across vectors" if self._layout.across else "units along vectors"
        n_workers, scratch, sums = self._workspace
        groups = _count(len(sums.losses), "group")
        division = ", first layer by its units" if scratch.by_panels else ""
        return (
            f"{_describe_storage(x, packed)}; {layout}; batches of {self._batch_rows:,} in {groups} "
            f"of rows, tiles of up to {scratch.tile_rows} rows{division}; {_count(n_workers, 'thread')}"
        )

    def run(self, learning_rates: Sequence[float] | NDArray, order: NDArray[np.int64] | None = None) -> StepMetrics:
        """See :meth:`fastnet.backends.interface.TrainingPlan.run`."""
        self._require_open()
        rates = np.array(learning_rates, np.float64)
        if order is not None:
            self._make_room(order)
        run = self._describe_run(rates, order, self._batch_rows, self._workspace)
        self._n_updates += len(rates)  # before an interrupt, which arrives when the steps have been made
        self._training.do(run, self._count_workers(run, self._workspace))
        figures = run.figures  # and not `run`, which holds the order too
        return StepMetrics(lambda: tuple(figures))

    def _make_room(self, order: NDArray[np.int64]) -> None:
        """Samples that come several times may have more non-zeros than as many different ones."""
        if self._row_sizes is None or np.bincount(order).max() <= 1:
            return
        room = self._room_for_sorting(self._row_sizes[order], self._workspace.scratch.tile_rows)
        if room * self._workspace.scratch.n_places > self._workspace.scratch.rows.size:
            self._workspace = self._make_workspace(self._batch_rows, room, in_batches=True)
            self._training = TrainingJob(self._records, self._optimizer, self._state, self._workspace)

    def loss_and_gradients(self) -> tuple[float, Parameters]:
        """See :meth:`fastnet.backends.interface.TrainingPlan.loss_and_gradients`."""
        self._require_open()
        # That of a batch has too little room where the whole dataset is divided into more groups.
        workspace = self._make_workspace(self._n_samples) if self._batch_size else self._workspace
        run = self._describe_run(np.zeros(1), None, self._n_samples, workspace)
        gradients_only = TrainingJob(self._records, CodedOptimizer(GRADIENT_ONLY), self._state, workspace)
        gradients_only.do(run, self._count_workers(run, workspace))
        gradient = self._state.gradient[self._layout.positions]
        return float(run.figures[0, 0]), Parameters(self._parameter_layout, gradient)

    def _count_workers(self, run: Run, workspace: Workspace) -> int:
        n_rows = run.order.size or run.batch_rows * run.rates.size
        return workspace.n_workers if is_worth_sharing(n_rows, self._parameter_layout) else 1

    def _describe_run(
        self, rates: NDArray[np.float64], order: NDArray[np.int64] | None, batch_rows: int, workspace: Workspace
    ) -> Run:
        scratch = workspace.scratch
        last_rows = batch_rows if order is None else len(order) - (len(rates) - 1) * batch_rows
        fewest_groups = -(-last_rows // scratch.tile_rows) if scratch.by_panels else 1  # each is one tile then
        return Run(
            order=read_only(() if order is None else order, np.int64),
            stride=0 if order is None else batch_rows,
            batch_rows=batch_rows,
            n_groups=self._count_groups(batch_rows),
            n_groups_last=max(self._count_groups(last_rows), fewest_groups),
            first_update=self._n_updates + 1,
            rates=rates,
            figures=np.zeros((3, len(rates))),
        )

    def read_parameters(self) -> Parameters:
        """See :meth:`fastnet.backends.interface.TrainingPlan.read_parameters`."""
        self._require_open()
        return Parameters(self._parameter_layout, self._state.flat[self._layout.positions])

    def write_parameters(self, parameters: Parameters) -> None:
        """See :meth:`fastnet.backends.interface.TrainingPlan.write_parameters`."""
        self._require_open()
        self._state.flat[:] = 0  # what fills up vectors, too: a run that diverged has left NaN there
        self._state.flat[self._layout.positions] = parameters.flat

    def read_state(self) -> dict[str, NDArray]:
        """See :meth:`fastnet.backends.interface.TrainingPlan.read_state`."""
        self._require_open()
        state = {name: array[self._layout.positions] for name, array in self._remembered.items()}
        return state | {"n_updates": np.array(self._n_updates, np.int64)}

    def write_state(self, state: dict[str, NDArray]) -> None:
        """See :meth:`fastnet.backends.interface.TrainingPlan.write_state`."""
        self._require_open()
        for name, array in self._remembered.items():
            array[:] = 0
            array[self._layout.positions] = state[name]
        self._n_updates = int(state["n_updates"])

    def synchronize(self) -> None:
        """See :meth:`fastnet.backends.interface.TrainingPlan.synchronize`."""
        self._require_open()  # runs return when they are done

    def close(self) -> None:
        """See :meth:`fastnet.backends.interface.TrainingPlan.close`."""
        if not self._closed:
            del self._samples, self._records, self._training, self._state, self._remembered, self._workspace
        self._closed = True

    def _require_open(self) -> None:
        if self._closed:
            raise PlanClosedError("this training plan is closed: make a new one with plan_training")


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' if number > 1 else ''}"


def _describe_storage(x: Any, packed: PackedRows | None) -> str:
    if packed is None:
        return f"{x.dtype} as it lies"
    share = np.count_nonzero(packed.values) / max(x.shape[0] * x.shape[1], 1)
    return f"non-zeros ({share:.0%}) packed as {packed.values.dtype} with {packed.columns.dtype} columns"


def predict(network: NetworkSpec, parameters: Parameters, x: Any, n_threads: int) -> NDArray:
    """Outputs (N, C) for x (N, D), dense or CSR."""
    n_samples, dtype = x.shape[0], network.numpy_dtype
    packed = pack_rows(x, dtype)
    layout = lay_out(network, sparse=packed is not None)
    n_workers = min(n_threads, count_groups(n_samples, parameters.layout, layout.n_parameters * dtype.itemsize))
    coded, samples = code_network(network, layout, packed, trains=False), code_samples(network, x, packed)
    kernels = code_kernels(kind_of(network, layout, samples, packed))
    tile_rows = count_tile_rows(n_samples, layout.n_columns, dtype.itemsize, packed=packed is not None)
    scratch = make_scratch(layout, TilePlaces(n_workers, tile_rows), n_workers, dtype)
    flat = make_state(layout, parameters.flat, []).flat
    outputs = np.empty((n_samples, network.n_outputs), dtype)
    prediction = Prediction(
        as_record(coded), kernels, as_record(samples), as_record(scratch), flat, outputs, like=dtype.type(0)
    )
    do_prediction(prediction, n_workers if is_worth_sharing(n_samples, parameters.layout) else 1)
    return outputs
