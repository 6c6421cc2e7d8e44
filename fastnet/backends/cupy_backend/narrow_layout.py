"""How the narrow path shares a step out to a device's multiprocessors, and what it is compiled with.

What is reckoned here is reckoned again in ``narrow_memory.cuh``, which refuses to compile if the results differ.
"""

# Legend: D features, H hidden units, C outputs.

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

from fastnet.backends.cupy_backend.functions import (
    activation_name,
    head_name,
    optimizer_name,
    task_name,
)
from fastnet.backends.cupy_backend.narrow_range import RANGE_MACROS
from fastnet.spec import NetworkSpec, TrainingSpec

__all__ = ["MAX_HIDDEN", "MAX_OUTPUTS", "NarrowLayout", "choose_layout", "macros", "smallest_layout"]

MAX_HIDDEN = 32
MAX_OUTPUTS = 16

_WARP = 32
_UNITS = 16  # of a tile of tensor cores
_STEP_FEATURES = 16

# By tiles of units, the most warps of a block and the most steps of features of a warp. A multiprocessor has registers
# for 16 warps with 128 in each thread, or for 12 with 168. A thread's part of d_W1 takes 8 of them for each step and
# tile, and what is done between the products takes some 70.
_MOST_WARPS = {1: 16, 2: 12}
_MOST_STEPS = {1: 7, 2: 5}
_MOST_TEAMS = 15  # a barrier each, of 16

_TILE_SAMPLES = (32, 16)
_STAGES = (3, 2)

# Sums may stay in tensor cores, which round toward zero, for this many tiles of samples: up to 64 additions, which lose
# 2e-6 at the very most.
_TILES_IN_TENSOR_CORES = 8

_FIGURE_BYTES = 12  # of each lane of a team's last warp: loss and right predictions


def _round_up(n: int, size: int) -> int:
    return math.ceil(n / size) * size


@dataclass(frozen=True, slots=True)
class NarrowLayout:
    """Sizes of one network and of one way to share its work out.

    Attributes
    ----------
    n_features, n_hidden, n_outputs : int
        D, H and C.
    takes_labels : bool
    in_bytes : bool
        Whether X is bytes, and not two halves for each float.
    n_teams : int
        Of warps, in a block; each takes tiles of samples of its own.
    tile_samples : int
    n_stages : int
        Tiles of X that a team has memory for.
    """

    n_features: int
    n_hidden: int
    n_outputs: int
    takes_labels: bool
    in_bytes: bool
    n_teams: int
    tile_samples: int
    n_stages: int

    @property
    def hidden_tiles(self) -> int:
        """Tiles of 16 units."""
        return math.ceil(self.n_hidden / _UNITS)

    @property
    def feature_steps(self) -> int:
        """Groups of 16 features."""
        return math.ceil(self.n_features / _STEP_FEATURES)

    @property
    def team_warps(self) -> int:
        """Warps of a team, as few as can hold the sums of d_W1."""
        return math.ceil(self.feature_steps / _MOST_STEPS[self.hidden_tiles])

    @property
    def warp_steps(self) -> int:
        """Steps of features of a warp; the last warp may have less."""
        return math.ceil(self.feature_steps / self.team_warps)

    @property
    def n_warps(self) -> int:
        """Warps of a block."""
        return self.n_teams * self.team_warps

    @property
    def has_registers(self) -> bool:
        """Whether a multiprocessor has enough of them for a block."""
        return self.n_warps <= _MOST_WARPS[self.hidden_tiles]

    @property
    def n_threads(self) -> int:
        """Threads of a block."""
        return self.n_warps * _WARP

    @property
    def row_features(self) -> int:
        """Features of a stored sample, with padding."""
        return self.feature_steps * _STEP_FEATURES

    @property
    def number_bytes(self) -> int:
        """Of a stored number of X."""
        return 1 if self.in_bytes else 4

    @property
    def row_bytes(self) -> int:
        """Of a stored sample."""
        return self.row_features * self.number_bytes

    @property
    def record_words(self) -> int:
        """Numbers of a sample's record: its label or targets, and its weight; whole units of 16 bytes."""
        return _round_up((1 if self.takes_labels else self.n_outputs) + 1, 4)

    @property
    def fragment_bytes(self) -> int:
        """Of W1 in halves."""
        return self.feature_steps * self.hidden_tiles * 2 * _WARP * 16

    @property
    def n_elements(self) -> int:
        """Sums that a block leaves, with padding."""
        n_fragments = self.fragment_values * self.team_warps * _WARP
        n_quads = self.hidden_tiles * 4 * self.n_outputs
        return _round_up(n_fragments + 5 * n_quads + self.hidden_tiles * _UNITS, _WARP)

    @property
    def fragment_values(self) -> int:
        """Sums of d_W1 in a thread."""
        return self.hidden_tiles * 2 * self.warp_steps * 4

    @property
    def shared_bytes(self) -> int:
        """Shared memory of a block."""
        n_quads = math.ceil(self.hidden_tiles * 4 * self.n_outputs / (self.team_warps * _WARP))
        sums = (self.fragment_values + 5 * n_quads) * self.n_threads * 4
        tally = _round_up(_FIGURE_BYTES + 16 * self.hidden_tiles, 8)
        used = max(sums, self._common_bytes + self.n_teams * self._team_bytes)
        return used + self.n_teams * _WARP * tally + self.n_warps * 4

    @property
    def _common_bytes(self) -> int:
        hidden = self.hidden_tiles * _UNITS
        weight_2_row = 20 * hidden + hidden // 8 * 8 + hidden // 16 * 4
        return _round_up(self.fragment_bytes + 4 * (4 + hidden + 16 + weight_2_row), 128)

    @property
    def _team_bytes(self) -> int:
        hidden, outputs = self.hidden_tiles * _UNITS, _round_up(self.n_outputs, 4)
        row_stride = _round_up(self.row_bytes - 16, 128) + 16
        logits_stride = outputs if outputs // 4 % 2 else outputs + 4
        of_sample = self.n_stages * (row_stride + 4 * self.record_words) + 4 * logits_stride
        of_sample += 4 * max(self.team_warps, 2) * (hidden + 4)
        return _round_up(self.tile_samples * of_sample + hidden * 2 * (self.tile_samples + 8) * 2, 128)


def choose_layout(network: NetworkSpec, in_bytes: bool, shared_memory: int) -> NarrowLayout | None:
    """The best of all layouts that fit into `shared_memory` bytes of a block and its registers; None if none does.

    Best is what has most samples at work; then more teams, as one works while another waits; then more copies ahead.
    """
    n_features, n_hidden, n_outputs = network.layer_sizes
    layouts = [
        NarrowLayout(n_features, n_hidden, n_outputs, network.takes_labels, in_bytes, n_teams, tile_samples, n_stages)
        for n_teams, tile_samples, n_stages in product(range(1, _MOST_TEAMS + 1), _TILE_SAMPLES, _STAGES)
    ]
    fitting = [each for each in layouts if each.has_registers and each.shared_bytes <= shared_memory]
    return max(fitting, key=lambda each: (each.n_teams * each.tile_samples, each.n_teams, each.n_stages), default=None)


def smallest_layout(network: NetworkSpec, in_bytes: bool) -> NarrowLayout:
    """The one that takes least of a block. Samples and records are stored alike in all."""
    n_features, n_hidden, n_outputs = network.layer_sizes
    return NarrowLayout(
        n_features, n_hidden, n_outputs, network.takes_labels, in_bytes, 1, min(_TILE_SAMPLES), min(_STAGES)
    )


def macros(spec: TrainingSpec, layout: NarrowLayout, tiles_of_team: int) -> dict[str, object]:
    """What the kernels are compiled with, for teams that take up to `tiles_of_team` tiles of samples in a step."""
    network = spec.network
    return {
        "N_FEATURES": layout.n_features,
        "N_HIDDEN": layout.n_hidden,
        "N_OUTPUTS": layout.n_outputs,
        "HAS_BIAS": int(network.bias),
        "TAKES_LABELS": int(layout.takes_labels),
        "X_IN_BYTES": int(layout.in_bytes),
        "ACTIVATION": f"{activation_name(network.activations[0])}<float>",
        "HEAD": f"{head_name(network.output, network.loss)}<float>",
        "TASK": task_name(spec.task, network.output, "float"),
        "OPTIMIZER": f"{optimizer_name(spec.optimizer)}<float>",
        "HAS_PENALTY": int(network.l2 > 0),
        "N_TEAMS": layout.n_teams,
        "TEAM_WARPS": layout.team_warps,
        "WARP_STEPS": layout.warp_steps,
        "TILE_SAMPLES": layout.tile_samples,
        "N_STAGES": layout.n_stages,
        "SUMS_STAY_IN_TENSOR_CORES": int(tiles_of_team <= _TILES_IN_TENSOR_CORES),
        "SHARED_BYTES": layout.shared_bytes,
        "ROW_BYTES": layout.row_bytes,
        "RECORD_WORDS": layout.record_words,
        "FRAGMENT_BYTES": layout.fragment_bytes,
        "N_ELEMENTS": layout.n_elements,
        **RANGE_MACROS,
    }
