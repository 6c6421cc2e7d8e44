"""The gradients of all groups are added up and the optimizer's update is made in one pass over the parameters.

The formulas are those of :mod:`fastnet.reference`.
"""

# Legend: P parameters as they lie in memory, of which the weights come first; G groups of rows. flat parameters,
# gradient, velocity, and the moments m and v are (P,), gradients of the groups (G, P). What fills up vectors is zero,
# and stays so.

# Kernels get their types from Numba:
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import math

from fastnet.backends.numba_backend.kernels.compiling import NativeFunction, call, inlined, kernel
from fastnet.backends.numba_backend.kernels.partition import count_chunks, share_start
from fastnet.backends.numba_backend.kernels.row_products import dot
from fastnet.backends.numba_backend.kernels.sharing import next_item
from fastnet.backends.numba_backend.kernels.views import (
    kernels_at,
    network_at,
    optimizer_at,
    own_doubles_at,
    own_numbers_at,
    part_of,
    row_of,
    state_at,
    step_at,
    sums_at,
)
from fastnet.backends.numba_backend.partition import CHUNK
from fastnet.backends.numba_backend.records import GRADIENT_ONLY, MOMENTUM, PLAIN_SGD

__all__ = ["adam_update", "sgd_update", "step_l2", "update_share"]


@NativeFunction
def sgd_update(optimizer, rate, _n_updates, _n_weights, flat, gradient, velocity, _nothing):
    """``v = momentum v - rate g``; the step is v, or ``momentum v - rate g`` with the new v for Nesterov."""
    rate, momentum = flat.dtype.type(rate), flat.dtype.type(optimizer.momentum)
    if optimizer.kind == PLAIN_SGD:
        for p in range(flat.size):
            flat[p] -= rate * gradient[p]
    elif optimizer.kind == MOMENTUM:
        for p in range(flat.size):
            velocity[p] = momentum * velocity[p] - rate * gradient[p]
            flat[p] += velocity[p]
    else:
        for p in range(flat.size):
            velocity[p] = momentum * velocity[p] - rate * gradient[p]
            flat[p] += momentum * velocity[p] - rate * gradient[p]


@kernel
def adam_rate(optimizer, rate, n_updates):
    """The step length that corrects both moments for their start at zero; `n_updates` counts from one."""
    return rate * math.sqrt(1.0 - optimizer.beta_2**n_updates) / (1.0 - optimizer.beta_1**n_updates)


@NativeFunction
def adam_update(optimizer, rate, n_updates, n_weights, flat, gradient, m, v):
    """``m = b1 m + (1 - b1) g``, ``v = b2 v + (1 - b2) g ** 2``; the step is ``-rate_t m / (sqrt(v) + epsilon)``.

    The first `n_weights` of the parameters decay, or all where there are fewer.
    """
    real = flat.dtype.type
    beta_1, beta_2 = real(optimizer.beta_1), real(optimizer.beta_2)
    rest_1, rest_2 = real(1.0 - optimizer.beta_1), real(1.0 - optimizer.beta_2)
    epsilon, corrected_rate = real(optimizer.epsilon), real(adam_rate(optimizer, rate, n_updates))
    if optimizer.weight_decay > 0.0:
        decay = real(rate * optimizer.weight_decay)
        for p in range(min(flat.size, n_weights)):
            flat[p] -= decay * flat[p]
    for p in range(flat.size):
        m[p] = beta_1 * m[p] + rest_1 * gradient[p]
        v[p] = beta_2 * v[p] + rest_2 * (gradient[p] * gradient[p])
        flat[p] -= corrected_rate * m[p] / (math.sqrt(v[p]) + epsilon)


@inlined
def step_l2(network, step):
    """What multiplies half the sum of squared weights in the objective of a step."""
    return network.l2 * step.scale if network.l2_averaged else network.l2


@inlined
def add_groups(sums, step, begin, gradient):
    """The gradients of the groups, added up in their order, of the parameters from `begin` on."""
    gradients, n_rows = own_numbers_at(gradient, sums.gradients, sums.gradients_size), sums.losses_size
    first = part_of(row_of(gradients, n_rows, 0), begin, gradient.size)
    for p in range(gradient.size):
        gradient[p] = first[p]
    for group in range(1, step.n_groups):
        other = part_of(row_of(gradients, n_rows, group), begin, gradient.size)
        for p in range(gradient.size):
            gradient[p] += other[p]


@inlined
def update_part(network, kernels, optimizer, state, step, begin, gradient):
    """Update the parameters from `begin` on; the sum of the groups' gradients becomes that of the objective.

    Returns the sum of squared weights, or zero where nothing depends on it.
    """
    size = gradient.size
    flat = part_of(own_numbers_at(gradient, state.flat, state.flat_size), begin, size)
    first = part_of(own_numbers_at(gradient, state.first, state.first_size), begin, size)
    second = part_of(own_numbers_at(gradient, state.second, state.second_size), begin, size)
    input_scale, l2 = flat.dtype.type(network.input_scale), flat.dtype.type(step_l2(network, step))
    for p in range(min(size, network.first_weight_size - begin)):
        gradient[p] *= input_scale
    squares = 0.0
    if network.l2 > 0.0:
        n_decaying = max(min(size, network.n_weights - begin), 0)
        for p in range(n_decaying):
            gradient[p] += l2 * flat[p]
        squares += dot(flat, flat, n_decaying)
    if optimizer.kind != GRADIENT_ONLY:
        n_weights = network.n_weights - begin
        call(kernels.update, (optimizer, step.rate, step.n_updates, n_weights, flat, gradient, first, second))
    return squares


@NativeFunction
def update_share(share, item, training):
    """One worker's chunks of the parameters, those of `item` first.

    The sum of squared weights of each goes to the penalties.
    """
    network, kernels, step = network_at(training.network), kernels_at(training.kernels), step_at(training.step)
    optimizer, state, sums = optimizer_at(training.optimizer), state_at(training.state), sums_at(training.sums)
    gradients = own_numbers_at(training.like, state.gradient, state.gradient_size)
    penalties = own_doubles_at(state.penalties, state.penalties_size)
    n_chunks = count_chunks(network.n_parameters)
    while item >= 0:
        first_chunk = share_start(item, share.n_items, 0, n_chunks)
        for chunk in range(first_chunk, share_start(item + 1, share.n_items, 0, n_chunks)):
            begin = chunk * CHUNK
            gradient = part_of(gradients, begin, min(CHUNK, network.n_parameters - begin))
            add_groups(sums, step, begin, gradient)
            penalties[chunk] = update_part(network, kernels, optimizer, state, step, begin, gradient)
        item = next_item(share, item)
