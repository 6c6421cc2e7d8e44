"""Output functions, and heads: an output and a loss joined, one row at a time, with the gradient in the same pass.

The formulas are those of :mod:`fastnet.reference`.
"""

# Legend: B rows of a tile, N samples, C outputs. logits, p, y, d (C,): one sample's logits, outputs, targets, and the
# gradient of its loss with respect to the logits. Constants take the type of what they meet, as in activations.py.

# Kernels get their types from Numba:
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import math

from fastnet.backends.numba_backend.activations import sigmoid
from fastnet.backends.numba_backend.compiling import inlined, kernel
from fastnet.backends.numba_backend.layers import sample_at

__all__ = ["HEAD_CODES", "OUTPUT_CODES", "TASK_CODES", "head_backward", "output_row"]

SOFTMAX_OUTPUT, SIGMOID_OUTPUT, IDENTITY_OUTPUT, EXP_OUTPUT = range(4)

OUTPUT_CODES = {
    "softmax": SOFTMAX_OUTPUT,
    "sigmoid": SIGMOID_OUTPUT,
    "identity": IDENTITY_OUTPUT,
    "exp": EXP_OUTPUT,
}

(
    SOFTMAX_CROSS_ENTROPY,
    SIGMOID_CROSS_ENTROPY,
    IDENTITY_SQUARED_ERROR,
    SIGMOID_SQUARED_ERROR,
    SOFTMAX_SQUARED_ERROR,
    EXP_SQUARED_ERROR,
    EXP_POISSON,
) = range(7)

HEAD_CODES = {
    ("softmax", "cross_entropy"): SOFTMAX_CROSS_ENTROPY,
    ("sigmoid", "cross_entropy"): SIGMOID_CROSS_ENTROPY,
    ("identity", "squared_error"): IDENTITY_SQUARED_ERROR,
    ("sigmoid", "squared_error"): SIGMOID_SQUARED_ERROR,
    ("softmax", "squared_error"): SOFTMAX_SQUARED_ERROR,
    ("exp", "squared_error"): EXP_SQUARED_ERROR,
    ("exp", "poisson"): EXP_POISSON,
}

MULTICLASS, MULTILABEL, REGRESSION = range(3)

TASK_CODES = {"multiclass": MULTICLASS, "multilabel": MULTILABEL, "regression": REGRESSION}


@kernel
def exponentials(logits, e):
    """``e = exp(logits - max(logits))``; returns the sum and the maximum. A NaN makes the sum NaN."""
    largest = logits[0]
    for j in range(1, logits.size):
        largest = max(largest, logits[j])
    total = type(largest)(0)
    for j in range(logits.size):
        e[j] = math.exp(logits[j] - largest)
        total += e[j]
    return total, largest


@kernel
def softmax(logits, p):
    total, _ = exponentials(logits, p)
    for j in range(p.size):
        p[j] /= total


@kernel
def output_row(output, logits, p):
    """One sample's outputs `p` from its logits."""
    if output == SOFTMAX_OUTPUT:
        softmax(logits, p)
    elif output == SIGMOID_OUTPUT:
        for j in range(p.size):
            p[j] = sigmoid(logits[j])
    elif output == IDENTITY_OUTPUT:
        for j in range(p.size):
            p[j] = logits[j]
    elif output == EXP_OUTPUT:
        for j in range(p.size):
            p[j] = math.exp(logits[j])


@kernel
def softmax_cross_entropy(logits, label, d):
    total, largest = exponentials(logits, d)
    for j in range(d.size):
        d[j] /= total
    d[label] -= type(total)(1)
    return math.log(total) - (logits[label] - largest)


@kernel
def sigmoid_cross_entropy(logits, y, d):
    zero = type(logits[0])(0)
    loss = zero
    for j in range(d.size):
        z = logits[j]
        loss += max(z, zero) - z * y[j] + math.log1p(math.exp(-abs(z)))
        d[j] = sigmoid(z) - y[j]
    return loss


@kernel
def identity_squared_error(logits, y, d):
    total = type(logits[0])(0)
    for j in range(d.size):
        d[j] = logits[j] - y[j]
        total += d[j] * d[j]
    return type(total)(0.5) * total


@kernel
def sigmoid_squared_error(logits, y, d):
    total, one = type(logits[0])(0), type(logits[0])(1)
    for j in range(d.size):
        p = sigmoid(logits[j])
        difference = p - y[j]
        total += difference * difference
        d[j] = difference * p * (one - p)
    return type(total)(0.5) * total


@kernel
def softmax_squared_error(logits, y, d):
    softmax(logits, d)
    total = inner = type(logits[0])(0)
    for j in range(d.size):
        difference = d[j] - y[j]
        total += difference * difference
        inner += difference * d[j]
    for j in range(d.size):
        d[j] *= d[j] - y[j] - inner
    return type(total)(0.5) * total


@kernel
def exp_squared_error(logits, y, d):
    total = type(logits[0])(0)
    for j in range(d.size):
        p = math.exp(logits[j])
        difference = p - y[j]
        total += difference * difference
        d[j] = difference * p
    return type(total)(0.5) * total


@kernel
def exp_poisson(logits, y, d):
    zero, one = type(logits[0])(0), type(logits[0])(1)
    loss = zero
    for j in range(d.size):
        p = math.exp(logits[j])
        loss += y[j] * math.log(y[j] if y[j] > zero else one) - y[j] * logits[j] - y[j] + p
        d[j] = p - y[j]
    return loss


@inlined
def head_row(head, logits, y, d):
    """Loss in nats of one sample whose targets are `y`; the gradient goes to `d`."""
    if head == SIGMOID_CROSS_ENTROPY:
        return sigmoid_cross_entropy(logits, y, d)
    if head == IDENTITY_SQUARED_ERROR:
        return identity_squared_error(logits, y, d)
    if head == SIGMOID_SQUARED_ERROR:
        return sigmoid_squared_error(logits, y, d)
    if head == SOFTMAX_SQUARED_ERROR:
        return softmax_squared_error(logits, y, d)
    if head == EXP_SQUARED_ERROR:
        return exp_squared_error(logits, y, d)
    return exp_poisson(logits, y, d)


@kernel
def argmax(row):
    """Index of the largest value, the first of equals; of the first NaN, if there is one, as in NumPy."""
    best = 0
    for j in range(row.size):
        if math.isnan(row[j]):
            return j
        if row[j] > row[best]:
            best = j
    return best


@inlined
def is_correct(task, output, logits, y, p):
    """Whether the prediction for a sample with targets `y` is right; see ``fastnet.spec.Task``. `p` is scratch."""
    if task == MULTICLASS:
        return argmax(logits) == argmax(y)
    if task == MULTILABEL:
        output_row(output, logits, p)
        half = type(logits[0])(0.5)
        n_right = 0
        for j in range(p.size):
            n_right += (p[j] > half) == (y[j] > half)
        return n_right == p.size
    return False


@inlined
def head_backward(network, samples, order, begin, scale, logits, outputs, d_logits):
    """Loss in nats (float64, not yet scaled) and correct predictions of the samples from position `begin` on.

    d_logits (B, C) becomes the gradient of ``scale * sum_i w_i loss_i``; outputs (B, C) is scratch.
    """
    labels, targets, weights = samples.labels, samples.targets, samples.weights
    loss, n_correct = 0.0, 0
    scale = logits.dtype.type(scale)
    for i in range(logits.shape[0]):
        sample = sample_at(order, begin + i)
        z, d = logits[i], d_logits[i]
        if network.head == SOFTMAX_CROSS_ENTROPY:
            sample_loss = softmax_cross_entropy(z, labels[sample], d)
            n_correct += network.task == MULTICLASS and argmax(z) == labels[sample]
        else:
            sample_loss = head_row(network.head, z, targets[sample], d)
            n_correct += is_correct(network.task, network.output, z, targets[sample], outputs[i])
        factor = scale
        if weights.size:
            sample_loss *= weights[sample]
            factor *= weights[sample]
        for j in range(d.size):
            d[j] *= factor
        loss += sample_loss
    return loss, n_correct
