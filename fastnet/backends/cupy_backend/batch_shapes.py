"""How the products of a mini-batch are cut into blocks of threads."""

# Legend: B rows of a batch, I fan-in, O fan-out.

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from fastnet.spec import NetworkSpec

__all__ = [
    "GATHER_WARPS",
    "HEAD_WARPS",
    "MAX_SLICES",
    "N_WARPS",
    "STAGE",
    "Shapes",
    "Tile",
    "choose_shapes",
    "head_shared_bytes",
    "n_slices",
    "slice_lengths",
    "step_cycles",
]

N_WARPS = 8  # of a block that multiplies
HEAD_WARPS = 4  # of a block of the head: samples that share the copy of the weights in shared memory
GATHER_WARPS = 4  # that copy a row of X
STAGE = 64  # terms of a product that lie in shared memory at a time
MAX_SLICES = 8  # into which a layer's fan-in is cut; whoever reads the products has to add them up

# Estimates, not measured on a GPU: multiply-adds per cycle of a multiprocessor, of the 128 that it could make; cycles
# until a block's first numbers are there; cycles that reading one more slice takes.
_PRODUCTS_PER_CYCLE = 90
_CYCLES_TO_BEGIN = 1000
_CYCLES_PER_SLICE = 50
_BLOCKS_AT_A_TIME = 2  # on one multiprocessor, where one computes while the other waits


@dataclass(frozen=True, slots=True)
class Tile:
    """What a block computes of a product."""

    rows: int
    columns: int

    def n_down(self, n_rows: int) -> int:
        """Tiles below each other."""
        return -(-n_rows // self.rows)

    def n_across(self, n_columns: int) -> int:
        """Tiles beside each other."""
        return -(-n_columns // self.columns)

    def n_tiles(self, n_rows: int, n_columns: int) -> int:
        """Tiles of a whole product."""
        return self.n_down(n_rows) * self.n_across(n_columns)

    @property
    def shared_bytes(self) -> int:
        """Two stages of both operands, rows padded by four; later the sums of all warps."""
        stages = 2 * STAGE * (self.rows + self.columns + 8)
        return 4 * max(stages, N_WARPS * self.rows * self.columns)

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}"


# What ``batches.cu`` can do: a lane has 4 columns, and an even number of rows; forward, rows are a power of two.
_FORWARD_TILES = (Tile(32, 32), Tile(16, 32), Tile(64, 16), Tile(32, 16))
_UPDATE_TILES = (*_FORWARD_TILES, Tile(48, 16))


@dataclass(frozen=True, slots=True)
class Shapes:
    """Tiles of the products with weights, and of those that make gradients."""

    forward: Tile
    update: Tile


def choose_shapes(network: NetworkSpec, n_batch: int, n_multiprocessors: int) -> Shapes:
    """The tiles that should take the least time for batches of B rows."""
    forward = partial(_forward_cycles, network, n_batch, n_multiprocessors)
    update = partial(_update_cycles, network, n_batch, n_multiprocessors)
    return Shapes(min(_FORWARD_TILES, key=forward), min(_UPDATE_TILES, key=update))


def step_cycles(network: NetworkSpec, n_batch: int, n_multiprocessors: int) -> float:
    """About how many cycles the products of a step on B rows take, in the tiles that are chosen for them.

    The update launches as many blocks as there are tiles of weights, each of which goes through all rows of the batch:
    with a small network and a large batch, most multiprocessors have nothing to do.
    """
    shapes = choose_shapes(network, n_batch, n_multiprocessors)
    forward = _forward_cycles(network, n_batch, n_multiprocessors, shapes.forward)
    return forward + _update_cycles(network, n_batch, n_multiprocessors, shapes.update)


def slice_lengths(network: NetworkSpec, n_batch: int, n_multiprocessors: int, tile: Tile) -> tuple[int, ...]:
    """How many inputs a slice of each hidden layer takes."""
    hidden = pairwise(network.layer_sizes[:-1])
    return tuple(_choose_slices(tile, n_batch, *shape, n_multiprocessors)[1] for shape in hidden)


def n_slices(fan_in: int, length: int) -> int:
    """Into how many slices of some length a fan-in is cut."""
    return -(-fan_in // length)


def _choose_slices(tile: Tile, n_batch: int, fan_in: int, fan_out: int, n_multiprocessors: int) -> tuple[float, int]:
    """Cycles, and inputs per slice, of a layer whose fan-in is cut as it should be."""
    n_tiles = tile.n_tiles(n_batch, fan_out)
    choices = []
    for most in range(1, MAX_SLICES + 1):
        length = -(-fan_in // (most * N_WARPS)) * N_WARPS  # every warp gets as much
        n = n_slices(fan_in, length)
        cycles = _cycles(tile, n_tiles * n, length, n_multiprocessors) + _CYCLES_PER_SLICE * n
        choices.append((cycles, length))
    return min(choices)


def _forward_cycles(network: NetworkSpec, n_batch: int, n_multiprocessors: int, tile: Tile) -> float:
    """Of the forward and backward launches of all hidden layers."""
    sizes = network.layer_sizes[:-1]
    forward = sum(_choose_slices(tile, n_batch, *shape, n_multiprocessors)[0] for shape in pairwise(sizes))
    backward = sum(
        _cycles(tile, tile.n_tiles(n_batch, below), above, n_multiprocessors) for below, above in pairwise(sizes[1:])
    )
    return forward + backward


def _update_cycles(network: NetworkSpec, n_batch: int, n_multiprocessors: int, tile: Tile) -> float:
    n_tiles = sum(tile.n_tiles(fan_in + network.bias, fan_out) for fan_in, fan_out in pairwise(network.layer_sizes))
    return _cycles(tile, n_tiles, n_batch, n_multiprocessors)


def _cycles(tile: Tile, n_blocks: int, depth: int, n_multiprocessors: int) -> float:
    """Of a launch whose blocks make products of `depth` terms."""
    n_per_multiprocessor = -(-n_blocks // n_multiprocessors)
    n_rounds = -(-n_per_multiprocessor // _BLOCKS_AT_A_TIME)
    products = n_per_multiprocessor * tile.rows * tile.columns * depth
    return products / _PRODUCTS_PER_CYCLE + n_rounds * _CYCLES_TO_BEGIN


def head_shared_bytes(network: NetworkSpec) -> int:
    """The weights of the last layer, their rows of odd length, and a sample's row of its input for each warp."""
    fan_in, n_outputs = network.layer_sizes[-2:]
    return max(4 * fan_in * ((n_outputs | 1) + HEAD_WARPS), 8 * HEAD_WARPS)
