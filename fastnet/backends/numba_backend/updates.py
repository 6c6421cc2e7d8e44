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

from fastnet.backends.numba_backend.compiling import NativeFunction, inlined, kernel
from fastnet.backends.numba_backend.partition import share_start

__all__ = ["ADAM", "CHUNK", "GRADIENT_ONLY", "MOMENTUM", "NESTEROV", "PLAIN_SGD", "adam_share", "sgd_share", "step_l2"]

GRADIENT_ONLY, PLAIN_SGD, MOMENTUM, NESTEROV, ADAM = range(5)

# Parameters that are taken through all passes of an update together: few enough that a chunk of the parameters, of the
# gradient and of both moments stays in the innermost cache, and enough to be worth handing to a thread.
CHUNK = 2048


@inlined
def sgd_update(optimizer, state, rate, begin, end):
    """``v = momentum v - rate g``; the step is v, or ``momentum v - rate g`` with the new v for Nesterov."""
    flat, gradient = state.flat[begin:end], state.gradient[begin:end]
    rate, momentum = flat.dtype.type(rate), flat.dtype.type(optimizer.momentum)
    velocity = state.first[begin:end]
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


@inlined
def adam_update(network, optimizer, state, step, begin, end):
    """``m = b1 m + (1 - b1) g``, ``v = b2 v + (1 - b2) g ** 2``; the step is ``-rate_t m / (sqrt(v) + epsilon)``."""
    flat, gradient = state.flat[begin:end], state.gradient[begin:end]
    m, v = state.first[begin:end], state.second[begin:end]
    real = flat.dtype.type
    beta_1, beta_2 = real(optimizer.beta_1), real(optimizer.beta_2)
    rest_1, rest_2 = real(1.0 - optimizer.beta_1), real(1.0 - optimizer.beta_2)
    epsilon, rate = real(optimizer.epsilon), real(adam_rate(optimizer, step.rate, step.n_updates))
    if optimizer.weight_decay > 0.0:
        decay = real(step.rate * optimizer.weight_decay)
        for p in range(min(flat.size, network.n_weights - begin)):
            flat[p] -= decay * flat[p]
    for p in range(flat.size):
        m[p] = beta_1 * m[p] + rest_1 * gradient[p]
        v[p] = beta_2 * v[p] + rest_2 * (gradient[p] * gradient[p])
        flat[p] -= rate * m[p] / (math.sqrt(v[p]) + epsilon)


@inlined
def step_l2(network, step):
    """What multiplies half the sum of squared weights in the objective of a step."""
    return network.l2 * step.scale if network.l2_averaged else network.l2


@inlined
def add_groups(network, state, gradients, step, begin, end):
    """Gradient of the objective, the l2 penalty included, from those of the groups, in their order.

    Returns the sum of squared weights of the chunk, in float64.
    """
    flat, gradient = state.flat[begin:end], state.gradient[begin:end]
    first = gradients[0, begin:end]
    for p in range(gradient.size):
        gradient[p] = first[p]
    for group in range(1, step.n_groups):
        other = gradients[group, begin:end]
        for p in range(gradient.size):
            gradient[p] += other[p]
    input_scale, l2 = flat.dtype.type(network.input_scale), flat.dtype.type(step_l2(network, step))
    for p in range(min(gradient.size, network.first_weight_size - begin)):
        gradient[p] *= input_scale
    squares = 0.0
    if network.l2 > 0.0:
        for p in range(min(gradient.size, network.n_weights - begin)):
            gradient[p] += l2 * flat[p]
            squares += flat[p] * flat[p]
    return squares


@NativeFunction
def sgd_share(worker, n_workers, step, network, optimizer, state, gradients):
    """One worker's chunks of the parameters; the sum of squared weights of each goes to ``state.penalties``."""
    n_chunks = state.penalties.size
    for chunk in range(share_start(worker, n_workers, 0, n_chunks), share_start(worker + 1, n_workers, 0, n_chunks)):
        begin = chunk * CHUNK
        end = min(begin + CHUNK, network.n_parameters)
        state.penalties[chunk] = add_groups(network, state, gradients, step, begin, end)
        if optimizer.kind != GRADIENT_ONLY:
            sgd_update(optimizer, state, step.rate, begin, end)


@NativeFunction
def adam_share(worker, n_workers, step, network, optimizer, state, gradients):
    """The same for Adam and AdamW."""
    n_chunks = state.penalties.size
    for chunk in range(share_start(worker, n_workers, 0, n_chunks), share_start(worker + 1, n_workers, 0, n_chunks)):
        begin = chunk * CHUNK
        end = min(begin + CHUNK, network.n_parameters)
        state.penalties[chunk] = add_groups(network, state, gradients, step, begin, end)
        if optimizer.kind != GRADIENT_ONLY:
            adam_update(network, optimizer, state, step, begin, end)
