"""What follows the logits of a tile: output functions, losses with their gradients, and counts of right predictions.

Samples lie along the rows of all arrays, so that every loop over them becomes vectors. The formulas are those of
:mod:`fastnet.reference`. Each function is compiled only for networks that have it.
"""

# Legend: C outputs, S samples of a tile in whole vectors, of which those beyond the tile's last one count for nothing.
# logits, p, d (C, S): logits, outputs, and gradients of the losses with respect to the logits, not yet weighted.
# targets (C, S), labels (S,), losses (S,). What losses find when they begin: of softmax the largest logit and the sum
# of exponentials in rows (2, S), of sigmoid ``exp(-|z|)`` in d.
# Constants take the type of what they meet, as in activations.py.

# Kernels get their types from Numba:
# mypy: allow-untyped-defs, allow-untyped-calls
# ruff: noqa: ARG001, functions of one kind take the same arguments

from __future__ import annotations

import math

from fastnet.backends.numba_backend.kernels.activations import sigmoid_of
from fastnet.backends.numba_backend.kernels.compiling import NativeFunction
from fastnet.backends.numba_backend.kernels.elementary import exp_of_nonpositive, log_of_normal, log_of_one_plus

__all__ = ["COUNTS", "HEADS", "OUTPUTS", "weigh"]


@NativeFunction
def softmax_output(logits, p, rows, d):
    """``exp(z) / sum of exp(z)``, both divided by that of the largest logit, so that neither overflows."""
    n_outputs, size = logits.shape
    largest, total = rows[0], rows[1]
    for s in range(size):
        largest[s] = logits[0, s]
        total[s] = logits.dtype.type(0)
    for c in range(1, n_outputs):
        for s in range(size):
            largest[s] = max(largest[s], logits[c, s])
    for c in range(n_outputs):
        for s in range(size):
            e = exp_of_nonpositive(logits[c, s] - largest[s])
            p[c, s] = e
            total[s] += e
    reciprocal = d[0]
    for s in range(size):
        reciprocal[s] = logits.dtype.type(1) / total[s]
    for c in range(n_outputs):
        for s in range(size):
            p[c, s] *= reciprocal[s]


@NativeFunction
def sigmoid_output(logits, p, rows, d):
    """``1 / (1 + exp(-z))``."""
    for c in range(logits.shape[0]):
        for s in range(logits.shape[1]):
            z = logits[c, s]
            e = exp_of_nonpositive(-abs(z))
            p[c, s], d[c, s] = sigmoid_of(z, e), e


@NativeFunction
def identity_output(logits, p, rows, d):
    """Z."""
    for c in range(logits.shape[0]):
        for s in range(logits.shape[1]):
            p[c, s] = logits[c, s]


@NativeFunction
def exp_output(logits, p, rows, d):
    """``exp(z)``."""
    for c in range(logits.shape[0]):
        for s in range(logits.shape[1]):
            p[c, s] = math.exp(logits[c, s])


OUTPUTS = {"softmax": softmax_output, "sigmoid": sigmoid_output, "identity": identity_output, "exp": exp_output}


@NativeFunction
def softmax_cross_entropy(logits, p, labels, targets, rows, d, losses):
    """``log(sum of exp(z)) - z[label]``; the gradient is ``p`` less one at the label."""
    n_outputs, size = logits.shape
    largest, total = rows[0], rows[1]
    for c in range(n_outputs):
        for s in range(size):
            d[c, s] = p[c, s]
    for s in range(size):
        losses[s] = log_of_normal(total[s])
    for s in range(size):
        losses[s] -= logits[labels[s], s] - largest[s]
        d[labels[s], s] -= d.dtype.type(1)


@NativeFunction
def sigmoid_cross_entropy(logits, p, labels, targets, rows, d, losses):
    """``max(z, 0) - z y + log(1 + exp(-|z|))``; the gradient is ``p - y``."""
    zero = logits.dtype.type(0)
    losses[:] = zero
    for c in range(logits.shape[0]):
        for s in range(logits.shape[1]):
            z, y = logits[c, s], targets[c, s]
            losses[s] += max(z, zero) - z * y + log_of_one_plus(d[c, s])
            d[c, s] = p[c, s] - y


@NativeFunction
def identity_squared_error(logits, p, labels, targets, rows, d, losses):
    """Half the squared difference; the gradient is ``p - y``."""
    half = logits.dtype.type(0.5)
    losses[:] = logits.dtype.type(0)
    for c in range(logits.shape[0]):
        for s in range(logits.shape[1]):
            difference = p[c, s] - targets[c, s]
            losses[s] += half * (difference * difference)
            d[c, s] = difference


@NativeFunction
def identity_absolute_error(logits, p, labels, targets, rows, d, losses):
    """The absolute difference; the gradient is its sign, and its own value where that is zero or NaN."""
    zero, one = logits.dtype.type(0), logits.dtype.type(1)
    losses[:] = zero
    for c in range(logits.shape[0]):
        for s in range(logits.shape[1]):
            difference = p[c, s] - targets[c, s]
            losses[s] += abs(difference)
            below = -one if difference < zero else difference
            d[c, s] = one if difference > zero else below


@NativeFunction
def sigmoid_squared_error(logits, p, labels, targets, rows, d, losses):
    """Half the squared difference; the gradient is ``(p - y) p (1 - p)``."""
    half, one = logits.dtype.type(0.5), logits.dtype.type(1)
    losses[:] = logits.dtype.type(0)
    for c in range(logits.shape[0]):
        for s in range(logits.shape[1]):
            difference = p[c, s] - targets[c, s]
            losses[s] += half * (difference * difference)
            d[c, s] = difference * p[c, s] * (one - p[c, s])


@NativeFunction
def softmax_squared_error(logits, p, labels, targets, rows, d, losses):
    """Half the squared difference; the gradient is ``p (g - sum of g p)`` with ``g = p - y``."""
    half, zero = logits.dtype.type(0.5), logits.dtype.type(0)
    inner = rows[0]
    losses[:] = zero
    inner[:] = zero
    for c in range(logits.shape[0]):
        for s in range(logits.shape[1]):
            difference = p[c, s] - targets[c, s]
            losses[s] += half * (difference * difference)
            inner[s] += difference * p[c, s]
    for c in range(logits.shape[0]):
        for s in range(logits.shape[1]):
            d[c, s] = p[c, s] * (p[c, s] - targets[c, s] - inner[s])


@NativeFunction
def exp_squared_error(logits, p, labels, targets, rows, d, losses):
    """Half the squared difference; the gradient is ``(p - y) p``."""
    half = logits.dtype.type(0.5)
    losses[:] = logits.dtype.type(0)
    for c in range(logits.shape[0]):
        for s in range(logits.shape[1]):
            difference = p[c, s] - targets[c, s]
            losses[s] += half * (difference * difference)
            d[c, s] = difference * p[c, s]


@NativeFunction
def exp_poisson(logits, p, labels, targets, rows, d, losses):
    """``y log(y) - y z - y + p``, half the Poisson deviance; the gradient is ``p - y``."""
    zero, one = logits.dtype.type(0), logits.dtype.type(1)
    losses[:] = zero
    for c in range(logits.shape[0]):
        for s in range(logits.shape[1]):
            z, y = logits[c, s], targets[c, s]
            losses[s] += y * math.log(y if y > zero else one) - y * z - y + p[c, s]
            d[c, s] = p[c, s] - y


@NativeFunction
def exp_gamma(logits, p, labels, targets, rows, d, losses):
    """``z - log(y) + y exp(-z) - 1``, half the gamma deviance; the gradient is ``1 - y exp(-z)``."""
    zero, one = logits.dtype.type(0), logits.dtype.type(1)
    losses[:] = zero
    for c in range(logits.shape[0]):
        for s in range(logits.shape[1]):
            z, y = logits[c, s], targets[c, s]
            ratio = y * math.exp(-z)
            losses[s] += z - math.log(y if y > zero else one) + ratio - one  # targets beyond the last sample are zero
            d[c, s] = one - ratio


HEADS = {
    ("softmax", "cross_entropy"): softmax_cross_entropy,
    ("sigmoid", "cross_entropy"): sigmoid_cross_entropy,
    ("identity", "squared_error"): identity_squared_error,
    ("identity", "absolute_error"): identity_absolute_error,
    ("sigmoid", "squared_error"): sigmoid_squared_error,
    ("softmax", "squared_error"): softmax_squared_error,
    ("exp", "squared_error"): exp_squared_error,
    ("exp", "poisson"): exp_poisson,
    ("exp", "gamma"): exp_gamma,
}


@NativeFunction
def weigh(d, weights, factor):
    """Multiply the gradients of each sample by its weight (S,) and by `factor`."""
    for c in range(d.shape[0]):
        row = d[c]
        for s in range(row.size):
            row[s] *= factor * weights[s]


@NativeFunction
def count_labels(logits, p, labels, targets, predicted, n_rows, n_correct):
    """Samples whose largest logit is at the label; the first of equals, and the first NaN, if any, as in NumPy."""
    size = logits.shape[1]
    predicted[:] = 0
    best = p[0]  # the outputs of labels are not needed any more
    for s in range(size):
        best[s] = logits[0, s]
    for c in range(1, logits.shape[0]):
        for s in range(size):
            z = logits[c, s]
            if best[s] == best[s] and not z <= best[s]:
                best[s] = z
                predicted[s] = c
    n_right = 0
    for s in range(n_rows):
        n_right += predicted[s] == labels[s]
    n_correct[0] += n_right


@NativeFunction
def count_largest(logits, p, labels, targets, predicted, n_rows, n_correct):
    """Samples whose largest logit is where their largest target is."""
    for s in range(n_rows):
        best, wanted = 0, 0
        for c in range(1, logits.shape[0]):
            if logits[best, s] == logits[best, s] and not logits[c, s] <= logits[best, s]:
                best = c
            if targets[c, s] > targets[wanted, s]:
                wanted = c
        n_correct[0] += best == wanted


@NativeFunction
def count_all_labels(logits, p, labels, targets, predicted, n_rows, n_correct):
    """Samples all of whose outputs are on the right side of one half."""
    half = p.dtype.type(0.5)
    predicted[:] = 0  # how many are on the wrong side
    for c in range(logits.shape[0]):
        for s in range(logits.shape[1]):
            predicted[s] += (p[c, s] > half) != (targets[c, s] > half)
    n_right = 0
    for s in range(n_rows):
        n_right += predicted[s] == 0
    n_correct[0] += n_right


@NativeFunction
def count_nothing(logits, p, labels, targets, predicted, n_rows, n_correct):
    """Values are not right or wrong."""


# By task, and whether targets are labels.
COUNTS = {
    ("multiclass", True): count_labels,
    ("multiclass", False): count_largest,
    ("multilabel", False): count_all_labels,
    ("regression", True): count_nothing,
    ("regression", False): count_nothing,
}
