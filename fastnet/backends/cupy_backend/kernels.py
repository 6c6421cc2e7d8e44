"""Elementwise kernels, compiled by CuPy for the device at hand the first time each of them is called.

What they compute stands in ``functions.cuh``; matrix products are cuBLAS's. CuPy compiles with ``-ftz=true``: float32
numbers below 1.2e-38 count as zero.
"""

# Legend: N samples, O fan-out, C outputs, P parameters, M weights among them, B batch size, D features.
# T is float or double, one of them throughout a kernel; X is the type of the samples, I of sparse indices. `i` is the
# index of the thread's element. `raw` arrays are C-contiguous and indexed flat.

from __future__ import annotations

from string import Template
from typing import get_args

import cupy

from fastnet import spec
from fastnet.backends.cupy_backend.functions import activation_name, head_name, read_source, task_name
from fastnet.spec import ACTIVATIONS, Task

__all__ = [
    "ADAM",
    "ADD_BIAS",
    "BACKWARD",
    "FORWARD",
    "GATHER",
    "HEADS",
    "L2_PENALTY",
    "MOMENTUM",
    "NESTEROV",
    "SGD",
]

_FUNCTIONS = read_source("functions.cuh")


def _kernel(name: str, inputs: str, outputs: str, code: str) -> cupy.ElementwiseKernel:
    return cupy.ElementwiseKernel(inputs, outputs, code, f"fastnet_{name}", preamble=_FUNCTIONS)


# --- Layers ---------------------------------------------------------------------------------------------------------

# product (N, O) is x @ weight, and may be the same array as z. Without a bias, the scalar 0 is passed.
ADD_BIAS = _kernel("add_bias", "T product, T scale, T bias", "T z", "z = scale * product + bias;")

FORWARD = {
    name: _kernel(
        f"{name}_forward",
        "T product, T scale, T bias",
        "T z_out, T h",
        f"const T z = scale * product + bias; z_out = z; h = {activation_name(name)}<T>::forward(z);",
    )
    for name in ACTIVATIONS
}

# d_h and d_z, all (N, O), may be the same array.
BACKWARD = {
    name: _kernel(
        f"{name}_backward", "T d_h, T z, T h", "T d_z", f"d_z = {activation_name(name)}<T>::backward(d_h, z, h);"
    )
    for name in ACTIVATIONS
}

# X[rows], converted: x (N, D), rows (B,) -> batch (B, D).
GATHER = _kernel(
    "gather",
    "raw X x, raw int64 rows, int64 n_features",
    "T batch",
    "const ptrdiff_t sample = i / n_features; batch = T(x[rows[sample] * n_features + (i - sample * n_features)]);",
)


# --- Heads: one thread per sample, looping over the outputs ---------------------------------------------------------

# weight is of the sample, or the scalar 1; total is the sum of weights to divide by, on the device or as a scalar.
_HEAD = Template("""
    const ptrdiff_t first = ptrdiff_t(i) * n_outputs;
    const double factor = double(weight) / (total == 0.0 ? 1.0 : total);
    const $targets;
    $count
    const T sample_loss = $head<T>::evaluate(&logits[first], target, n_outputs, &d_logits[first]);
    for (int k = 0; k < n_outputs; ++k) d_logits[first + k] *= T(factor);
    loss = double(sample_loss) * factor;
""")


def _head_kernel(output: str, loss: str, task: Task) -> cupy.ElementwiseKernel:
    labels = (output, loss) == ("softmax", "cross_entropy")
    count = f"correct = {task_name(task, output, 'T')}::is_correct(&logits[first], target, n_outputs);"
    code = _HEAD.substitute(
        targets="fastnet::ClassLabel target = {targets[i]}"
        if labels
        else "fastnet::TargetRow<T> target = {&targets[first]}",
        count="" if task == "regression" else count,
        head=head_name(output, loss),
    )
    return _kernel(
        f"{output}_{loss}_{task}",
        f"raw T logits, raw {'int32' if labels else 'T'} targets, T weight, float64 total, int32 n_outputs",
        "float64 loss, raw T d_logits" + ("" if task == "regression" else ", int64 correct"),
        code,
    )


# By output, loss and task: logits (N, C), targets (N,) or (N, C) -> loss (N,), d_logits (N, C) and, except for
# regression, correct (N,) of 0 and 1.
HEADS = {
    (output, loss, task): _head_kernel(output, loss, task)
    for output, losses in spec.HEADS.items()
    for loss in losses
    for task in get_args(spec.Task)
}

# weight (M,) -> penalty (M,), whose sum is the l2 term; d_weight (M,) is added to.
L2_PENALTY = _kernel(
    "l2_penalty",
    "T weight, float64 l2",
    "T d_weight, float64 penalty",
    "d_weight += T(l2) * weight; penalty = 0.5 * l2 * double(weight) * double(weight);",
)


# --- Optimizers: gradient (P,) -> parameter (P,) and state (P,), in place -------------------------------------------

SGD = _kernel(
    "sgd",
    "T gradient, T rate",
    "T parameter",
    "T none; fastnet::sgd<T>::update(parameter, none, none, gradient, rate, T(0), nullptr);",
)


def _momentum_kernel(name: str) -> cupy.ElementwiseKernel:
    return _kernel(
        name,
        "T gradient, T rate, T momentum",
        "T parameter, T velocity",
        f"T none; fastnet::{name}<T>::update(parameter, velocity, none, gradient, rate, T(0), &momentum);",
    )


MOMENTUM, NESTEROV = _momentum_kernel("momentum"), _momentum_kernel("nesterov")

# The decay is of the weights, which come first.
ADAM = _kernel(
    "adam",
    "T gradient, T rate, T beta_1, T one_minus_beta_1, T beta_2, T one_minus_beta_2, T epsilon, T decay, "
    "int64 n_weights",
    "T parameter, T first_moment, T second_moment",
    """
    const T constants[] = {beta_1, one_minus_beta_1, beta_2, one_minus_beta_2, epsilon};
    fastnet::adam<T>::update(
        parameter, first_moment, second_moment, gradient, rate, i < n_weights ? decay : T(0), constants);
    """,
)
