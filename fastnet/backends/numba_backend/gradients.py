"""Forward and backward over a group of rows: each tile goes through all layers and back before the next one starts."""

# Legend: B rows of a tile, D features, L layers, O width of a layer, W of all layers together, C outputs, P parameters.
# A worker's memory holds, one after the other, the tile's samples x (B, D); z, then h, then d of every layer, each
# (B, O); and one weight gradient (I, O). z is a layer's pre-activation, h its activation, d the gradient of the
# objective with respect to z. flat (P,) are all parameters.

from __future__ import annotations

import numpy as np

from fastnet.backends.numba_backend.activations import activation_backward, bias_activation
from fastnet.backends.numba_backend.compiling import kernel
from fastnet.backends.numba_backend.heads import head_backward
from fastnet.backends.numba_backend.layers import first_product, first_product_backward, product_backward

__all__ = ["forward", "group_gradients", "logits_view", "memory_size"]


def memory_size(network, tile_rows):
    """Numbers in one worker's memory."""
    largest_weight = (network.layers["fan_in"] * network.layers["fan_out"]).max()
    return int(tile_rows * (network.layers["fan_in"][0] + 3 * network.width) + largest_weight)


@kernel
def weight_view(flat, layer):
    """(I, O) of a layer in a buffer of parameters or of gradients."""
    size = layer.fan_in * layer.fan_out
    return flat[layer.weight : layer.weight + size].reshape(layer.fan_in, layer.fan_out)


@kernel
def tile_view(memory, column, width, tile_rows, n_rows):
    """(B, width) of what starts at a column of a worker's memory."""
    start = tile_rows * column
    return memory[start : start + n_rows * width].reshape(n_rows, width)


@kernel
def logits_view(network, memory, tile_rows, n_rows):
    """(B, C): the last layer's z."""
    last = network.layers[-1]
    return tile_view(memory, network.layers[0].fan_in + last.column, last.fan_out, tile_rows, n_rows)


@kernel
def forward(network, samples, order, begin, flat, memory, tile_rows, n_rows):
    """Fill x, z and h of every layer for the samples from position `begin` on."""
    first = network.layers[0]
    z_column = first.fan_in
    h_column = z_column + network.width
    h_below = tile_view(memory, 0, first.fan_in, tile_rows, n_rows)
    for i in range(network.layers.size):
        layer = network.layers[i]
        weight = weight_view(flat, layer)
        z = tile_view(memory, z_column + layer.column, layer.fan_out, tile_rows, n_rows)
        h = tile_view(memory, h_column + layer.column, layer.fan_out, tile_rows, n_rows)
        if i == 0:
            scale = flat.dtype.type(network.input_scale)
            first_product(samples, order, begin, weight, h_below, z)
        else:
            scale = flat.dtype.type(1)
            np.dot(h_below, weight, z)
        bias_activation(layer.activation, z, scale, flat[layer.bias : layer.bias + layer.fan_out], h)
        h_below = h


@kernel
def backward(network, samples, order, begin, flat, memory, tile_rows, n_rows, gradient, is_first):
    """Add the tile's gradient (P,) to `gradient`, or put it there if it `is_first`. The last layer's d is given."""
    z_column = network.layers[0].fan_in
    h_column, d_column = z_column + network.width, z_column + 2 * network.width
    scratch = memory[tile_rows * (d_column + network.width) :]
    for i in range(network.layers.size - 1, -1, -1):
        layer = network.layers[i]
        d_z = tile_view(memory, d_column + layer.column, layer.fan_out, tile_rows, n_rows)
        d_weight = weight_view(gradient, layer)
        add_rows(d_z, gradient[layer.bias : layer.bias + layer.fan_out], is_first)
        if i == 0:
            x = tile_view(memory, 0, layer.fan_in, tile_rows, n_rows)
            first_product_backward(samples, order, begin, x, d_z, d_weight, scratch, is_first)
        else:
            below = network.layers[i - 1]
            z = tile_view(memory, z_column + below.column, below.fan_out, tile_rows, n_rows)
            h = tile_view(memory, h_column + below.column, below.fan_out, tile_rows, n_rows)
            d_h = tile_view(memory, d_column + below.column, below.fan_out, tile_rows, n_rows)
            product_backward(h, d_z, d_weight, scratch, is_first)
            np.dot(d_z, weight_view(flat, layer).T, d_h)
            activation_backward(below.activation, d_h, z, h)


@kernel
def add_rows(d_z, d_bias, is_first):
    """``d_bias = sum of the rows of d_z``, added to what is there unless `is_first`."""
    if is_first:
        d_bias[:] = d_bias.dtype.type(0)
    for i in range(d_z.shape[0]):
        for j in range(d_z.shape[1]):
            d_bias[j] += d_z[i, j]


def group_gradients(group, begin, end, scale, network, samples, order, flat, scratch, worker, sums):
    """Loss in nats (not yet scaled), correct predictions and gradient of the samples at positions [begin, end).

    The gradient is that of ``scale * sum_i w_i loss_i``, for a first layer whose inputs are not scaled. All three are
    left in `sums`.
    """
    loss, n_correct = 0.0, 0
    memory, rows, gradient = scratch.memory[worker], scratch.tile_rows, sums.gradients[group]
    first, last = network.layers[0], network.layers[-1]
    n_tiles = -(-(end - begin) // rows)
    for tile in range(n_tiles):
        first_row = begin + tile * (end - begin) // n_tiles
        n_rows = begin + (tile + 1) * (end - begin) // n_tiles - first_row
        forward(network, samples, order, first_row, flat, memory, rows, n_rows)
        logits = logits_view(network, memory, rows, n_rows)
        d_column = first.fan_in + 2 * network.width + last.column
        d_logits = tile_view(memory, d_column, last.fan_out, rows, n_rows)
        outputs = tile_view(memory, d_column - network.width, last.fan_out, rows, n_rows)
        tile_loss, tile_correct = head_backward(network, samples, order, first_row, scale, logits, outputs, d_logits)
        loss += tile_loss
        n_correct += tile_correct
        backward(network, samples, order, first_row, flat, memory, rows, n_rows, gradient, tile == 0)
    sums.losses[group] = loss
    sums.n_correct[group] = n_correct
