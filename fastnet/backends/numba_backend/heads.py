"""Output functions, and heads: an output and a loss joined, a tile prepared and then finished one row at a time.

The formulas are those of :mod:`fastnet.reference`.
"""

# Legend: B rows of a tile, N samples, C outputs. logits, p, d (B, C): a tile's logits, its outputs, and the gradients
# of its losses with respect to the logits, where :func:`prepare_heads` has put what they start from. targets (N, C).
# Rows are told by their index: a view of each would cost more than what is done with a short one.
# Constants take the type of what they meet, as in activations.py.

# Kernels get their types from Numba:
# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import math

from fastnet.backends.numba_backend.activations import SIGMOID, activate
from fastnet.backends.numba_backend.compiling import inlined, kernel
from fastnet.backends.numba_backend.exponential import exp_of_nonpositive
from fastnet.backends.numba_backend.sparse import sample_at

__all__ = ["HEAD_CODES", "OUTPUT_CODES", "TASK_CODES", "head_backward", "outputs_of"]

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
def largest_of(a, i):
    largest = a[i, 0]
    for j in range(1, a.shape[1]):
        largest = max(largest, a[i, j])
    return largest


@kernel
def sum_of(a, i):
    total = a.dtype.type(0)
    for j in range(a.shape[1]):
        total += a[i, j]
    return total


@kernel
def argmax(a, i):
    """Index of the largest value of a row, the first of equals; of the first NaN, if there is one, as in NumPy."""
    best = 0
    for j in range(a.shape[1]):
        if math.isnan(a[i, j]):
            return j
        if a[i, j] > a[i, best]:
            best = j
    return best


@kernel
def exponentials(logits, e):
    """``e = exp(logits - largest of each row)``, both (B, C). Where there is a NaN, the sum of its row is NaN."""
    for i in range(logits.shape[0]):
        largest = largest_of(logits, i)
        for j in range(logits.shape[1]):
            e[i, j] = logits[i, j] - largest
    flat = e.reshape(e.size)
    for k in range(flat.size):
        flat[k] = exp_of_nonpositive(flat[k])


@kernel
def outputs_of(output, logits, p):
    """``p = output(logits)``, both (B, C)."""
    if output == SOFTMAX_OUTPUT:
        exponentials(logits, p)
        for i in range(p.shape[0]):
            total = sum_of(p, i)
            for j in range(p.shape[1]):
                p[i, j] /= total
    elif output == SIGMOID_OUTPUT:
        activate(SIGMOID, logits.reshape(logits.size), p.reshape(p.size))
    elif output == IDENTITY_OUTPUT:
        p[:] = logits
    elif output == EXP_OUTPUT:
        for i in range(p.shape[0]):
            for j in range(p.shape[1]):
                p[i, j] = math.exp(logits[i, j])


@kernel
def prepare_heads(output, logits, d):
    """What the heads of a tile start from, in d (B, C): exponentials for softmax, outputs for sigmoid.

    All rows together, because one alone is often narrower than the CPU's vectors.
    """
    if output == SOFTMAX_OUTPUT:
        exponentials(logits, d)
    elif output == SIGMOID_OUTPUT:
        outputs_of(output, logits, d)


@kernel
def softmax_cross_entropy(logits, i, label, d):
    total, largest = sum_of(d, i), largest_of(logits, i)
    for j in range(d.shape[1]):
        d[i, j] /= total
    d[i, label] -= type(total)(1)
    return math.log(total) - (logits[i, label] - largest)


@kernel
def sigmoid_cross_entropy(logits, i, targets, sample, d):
    zero = logits.dtype.type(0)
    loss = zero
    for j in range(d.shape[1]):
        z, y = logits[i, j], targets[sample, j]
        loss += max(z, zero) - z * y + math.log1p(exp_of_nonpositive(-abs(z)))
        d[i, j] -= y
    return loss


@kernel
def identity_squared_error(logits, i, targets, sample, d):
    total = d.dtype.type(0)
    for j in range(d.shape[1]):
        d[i, j] = logits[i, j] - targets[sample, j]
        total += d[i, j] * d[i, j]
    return d.dtype.type(0.5) * total


@kernel
def sigmoid_squared_error(i, targets, sample, d):
    total, one = d.dtype.type(0), d.dtype.type(1)
    for j in range(d.shape[1]):
        p = d[i, j]
        difference = p - targets[sample, j]
        total += difference * difference
        d[i, j] = difference * p * (one - p)
    return d.dtype.type(0.5) * total


@kernel
def softmax_squared_error(i, targets, sample, d):
    sum_of_exponentials = sum_of(d, i)
    total = inner = d.dtype.type(0)
    for j in range(d.shape[1]):
        d[i, j] /= sum_of_exponentials
        difference = d[i, j] - targets[sample, j]
        total += difference * difference
        inner += difference * d[i, j]
    for j in range(d.shape[1]):
        d[i, j] *= d[i, j] - targets[sample, j] - inner
    return d.dtype.type(0.5) * total


@kernel
def exp_squared_error(logits, i, targets, sample, d):
    total = d.dtype.type(0)
    for j in range(d.shape[1]):
        p = math.exp(logits[i, j])
        difference = p - targets[sample, j]
        total += difference * difference
        d[i, j] = difference * p
    return d.dtype.type(0.5) * total


@kernel
def exp_poisson(logits, i, targets, sample, d):
    zero, one = d.dtype.type(0), d.dtype.type(1)
    loss = zero
    for j in range(d.shape[1]):
        z, y = logits[i, j], targets[sample, j]
        p = math.exp(z)
        loss += y * math.log(y if y > zero else one) - y * z - y + p
        d[i, j] = p - y
    return loss


@inlined
def head_of_row(head, logits, i, targets, sample, d):
    """Loss in nats of row `i`, whose targets are those of `sample`; the gradient goes to d, which has been prepared."""
    if head == SIGMOID_CROSS_ENTROPY:
        return sigmoid_cross_entropy(logits, i, targets, sample, d)
    if head == IDENTITY_SQUARED_ERROR:
        return identity_squared_error(logits, i, targets, sample, d)
    if head == SIGMOID_SQUARED_ERROR:
        return sigmoid_squared_error(i, targets, sample, d)
    if head == SOFTMAX_SQUARED_ERROR:
        return softmax_squared_error(i, targets, sample, d)
    if head == EXP_SQUARED_ERROR:
        return exp_squared_error(logits, i, targets, sample, d)
    return exp_poisson(logits, i, targets, sample, d)


@inlined
def is_correct(task, logits, outputs, i, targets, sample):
    """Whether the prediction of row `i` is right; see ``fastnet.spec.Task``."""
    if task == MULTICLASS:
        return argmax(logits, i) == argmax(targets, sample)
    if task == MULTILABEL:
        half = outputs.dtype.type(0.5)
        n_right = 0
        for j in range(outputs.shape[1]):
            n_right += (outputs[i, j] > half) == (targets[sample, j] > half)
        return n_right == outputs.shape[1]
    return False


@inlined
def head_backward(network, samples, order, begin, scale, logits, outputs, d_logits):
    """Loss in nats (float64, not yet scaled) and correct predictions of the samples from position `begin` on.

    d_logits (B, C) becomes the gradient of ``scale * sum_i w_i loss_i``; outputs (B, C) is scratch.
    """
    labels, targets, weights = samples.labels, samples.targets, samples.weights
    loss, n_correct = 0.0, 0
    scale = logits.dtype.type(scale)
    prepare_heads(network.output, logits, d_logits)
    if network.task == MULTILABEL:
        outputs_of(network.output, logits, outputs)
    for i in range(logits.shape[0]):
        sample = sample_at(order, begin + i)
        if network.head == SOFTMAX_CROSS_ENTROPY:
            sample_loss = softmax_cross_entropy(logits, i, labels[sample], d_logits)
            n_correct += network.task == MULTICLASS and argmax(logits, i) == labels[sample]
        else:
            sample_loss = head_of_row(network.head, logits, i, targets, sample, d_logits)
            n_correct += is_correct(network.task, logits, outputs, i, targets, sample)
        factor = scale
        if weights.size:
            sample_loss *= weights[sample]
            factor *= weights[sample]
        for j in range(d_logits.shape[1]):
            d_logits[i, j] *= factor
        loss += sample_loss
    return loss, n_correct
