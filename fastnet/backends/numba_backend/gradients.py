"""Forward and backward over a group of rows: each tile goes through all layers and back before the next one starts."""

# Legend: B rows of a tile, D features, I fan-in, O fan-out, C outputs, P parameters.
# A tile holds x (B, D), the samples, and for each layer z (B, O), the pre-activation, h (B, O), the activation, and
# d (B, O), the gradient of the objective with respect to z. They lie one after the other in the memory of a worker,
# with room for the rows of the largest tile; a weight gradient (I, O) follows. flat (P,) are all parameters.

# Kernels get their types from Numba:
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

from fastnet.backends.numba_backend.activations import activation_backward, bias_activation
from fastnet.backends.numba_backend.compiling import NativeFunction, inlined, kernel
from fastnet.backends.numba_backend.heads import head_backward
from fastnet.backends.numba_backend.layers import first_product, first_product_backward, product, product_backward
from fastnet.backends.numba_backend.partition import share_start

__all__ = ["forward", "gradient_share", "tile_view"]


@kernel
def weight_view(flat, layer):
    """(I, O) of a layer in a buffer of parameters or of gradients."""
    size = layer.fan_in * layer.fan_out
    return flat[layer.weight : layer.weight + size].reshape(layer.fan_in, layer.fan_out)


@kernel
def tile_view(memory, column, width, tile_rows, n_rows):
    """(B, width) of the part of a tile that starts at `column`."""
    start = tile_rows * column
    return memory[start : start + n_rows * width].reshape(n_rows, width)


@inlined
def forward(network, samples, order, begin, flat, memory, tile_rows, n_rows):
    """Fill x, z and h for the samples from position `begin` on. The last layer's z are the logits."""
    h_below = tile_view(memory, 0, network.layers[0].fan_in, tile_rows, n_rows)
    for i in range(network.layers.size):
        layer = network.layers[i]
        weight, bias = weight_view(flat, layer), flat[layer.bias : layer.bias + layer.fan_out]
        z = tile_view(memory, layer.z, layer.fan_out, tile_rows, n_rows)
        h = tile_view(memory, layer.h, layer.fan_out, tile_rows, n_rows)
        if i == 0:
            scale = flat.dtype.type(network.input_scale)
            first_product(samples, order, begin, weight, h_below, z)
        else:
            scale = flat.dtype.type(1)
            product(h_below, weight, z)
        bias_activation(layer.activation, z, scale, bias, h)
        h_below = h


@inlined
def backward(network, samples, order, begin, tile, flat, memory, tile_rows, n_rows, gradient, is_first):
    """Add the tile's gradient (P,) to `gradient`, or put it there if it `is_first`. The last layer's d is given."""
    room = memory[tile_rows * network.n_columns :]
    for i in range(network.layers.size - 1, -1, -1):
        layer = network.layers[i]
        d_z = tile_view(memory, layer.d, layer.fan_out, tile_rows, n_rows)
        d_weight = weight_view(gradient, layer)
        add_rows(d_z, gradient[layer.bias : layer.bias + layer.fan_out], is_first)
        if i == 0:
            x = tile_view(memory, 0, layer.fan_in, tile_rows, n_rows)
            first_product_backward(samples, order, begin, tile, x, d_z, d_weight, room, is_first)
        else:
            below = network.layers[i - 1]
            z = tile_view(memory, below.z, below.fan_out, tile_rows, n_rows)
            h = tile_view(memory, below.h, below.fan_out, tile_rows, n_rows)
            d_h = tile_view(memory, below.d, below.fan_out, tile_rows, n_rows)
            product_backward(h, d_z, d_weight, room, is_first)
            product(d_z, weight_view(flat, layer).T, d_h)
            activation_backward(below.activation, d_h, z, h)


@kernel
def add_rows(d_z, d_bias, is_first):
    """``d_bias = sum of the rows of d_z``, added to what is there unless `is_first`."""
    if is_first:
        d_bias[:] = d_bias.dtype.type(0)
    for i in range(d_z.shape[0]):
        for j in range(d_z.shape[1]):
            d_bias[j] += d_z[i, j]


@inlined
def group_gradients(network, samples, order, begin, end, first_tile, scale, flat, memory, tile_rows, gradient):
    """Loss in nats (not yet scaled) and correct predictions of the samples at positions [begin, end).

    gradient (P,) becomes that of ``scale * sum_i w_i loss_i``, for a first layer whose inputs are not scaled.
    """
    last = network.layers[-1]
    loss, n_correct = 0.0, 0
    n_tiles = -(-(end - begin) // tile_rows)
    for tile in range(n_tiles):
        first_row = share_start(tile, n_tiles, begin, end)
        n_rows = share_start(tile + 1, n_tiles, begin, end) - first_row
        forward(network, samples, order, first_row, flat, memory, tile_rows, n_rows)
        logits = tile_view(memory, last.z, last.fan_out, tile_rows, n_rows)
        outputs = tile_view(memory, last.h, last.fan_out, tile_rows, n_rows)
        d_logits = tile_view(memory, last.d, last.fan_out, tile_rows, n_rows)
        tile_loss, tile_correct = head_backward(network, samples, order, first_row, scale, logits, outputs, d_logits)
        loss += tile_loss
        n_correct += tile_correct
        at = first_tile + tile
        backward(network, samples, order, first_row, at, flat, memory, tile_rows, n_rows, gradient, tile == 0)
    return loss, n_correct


@NativeFunction
def gradient_share(worker, n_workers, step, network, samples, order, flat, scratch, sums):
    """One worker's groups of the rows of a step; what they contribute goes to `sums`."""
    n_groups, first_tiles = step.n_groups, samples.first_tiles
    for group in range(share_start(worker, n_workers, 0, n_groups), share_start(worker + 1, n_workers, 0, n_groups)):
        begin = share_start(group, n_groups, step.begin, step.end)
        end = share_start(group + 1, n_groups, step.begin, step.end)
        sums.losses[group], sums.n_correct[group] = group_gradients(
            network,
            samples,
            order,
            begin,
            end,
            first_tiles[group] if first_tiles.size else 0,
            step.scale,
            flat,
            scratch.memory[worker],
            scratch.tile_rows,
            sums.gradients[group],
        )
