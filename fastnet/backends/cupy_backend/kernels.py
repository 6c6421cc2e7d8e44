"""The CUDA kernels, compiled by CuPy for the device at hand the first time each of them is called.

They compute what `fastnet.reference` says, element by element or sample by sample; matrix products are cuBLAS's. NaN
stays NaN: comparisons are written so that it takes the branch that keeps it. CuPy compiles with ``-ftz=true``: float32
numbers below 1.2e-38 count as zero.
"""

# Legend: N samples, O fan-out, C outputs, P parameters, M weights among them, B batch size, D features.
# T is float or double, one of them throughout a kernel; X is the type of the samples, I of sparse indices. `i` is the
# index of the thread's element. `raw` arrays are C-contiguous and indexed flat.

from __future__ import annotations

from string import Template

import cupy

from fastnet.reference import LEAKY_SLOPE
from fastnet.spec import Task

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

FUNCTIONS = """
template<typename F> __device__ F sigmoid(F z) {
    const F e = exp(-fabs(z));
    return (z >= F(0) ? F(1) : e) / (F(1) + e);
}

template<typename F> __device__ F normal_cdf(F z) {
    return F(0.5) * (F(1) + erf(z * F(0.70710678118654752)));
}

template<typename F> __device__ F normal_density(F z) {
    return F(0.39894228040143268) * exp(F(-0.5) * z * z);
}

// As argmax has it: the lowest index wins a tie, the first NaN wins over all.
template<typename F> __device__ bool exceeds(F a, F b) {
    return a > b || (isnan(a) && !isnan(b));
}
"""


def _kernel(name: str, inputs: str, outputs: str, code: str) -> cupy.ElementwiseKernel:
    return cupy.ElementwiseKernel(inputs, outputs, code, f"fastnet_{name}", preamble=FUNCTIONS)


# --- Layers ---------------------------------------------------------------------------------------------------------

# h from z, and d_z from d_h, z and h.
_ACTIVATIONS = {
    "relu": ("z < T(0) ? T(0) : z", "z > T(0) ? d_h : T(0)"),
    "sigmoid": ("sigmoid(z)", "d_h * h * (T(1) - h)"),
    "tanh": ("tanh(z)", "d_h * (T(1) - h * h)"),
    "leaky_relu": (f"z < T(0) ? T({LEAKY_SLOPE}) * z : z", f"z > T(0) ? d_h : T({LEAKY_SLOPE}) * d_h"),
    "elu": ("z < T(0) ? expm1(z) : z", "z > T(0) ? d_h : d_h * (h + T(1))"),
    "gelu": ("z * normal_cdf(z)", "d_h * (normal_cdf(z) + z * normal_density(z))"),
    "silu": ("z * sigmoid(z)", "d_h * sigmoid(z) * (T(1) + z * (T(1) - sigmoid(z)))"),
}

# product (N, O) is x @ weight, and may be the same array as z. Without a bias, the scalar 0 is passed.
ADD_BIAS = _kernel("add_bias", "T product, T scale, T bias", "T z", "z = scale * product + bias;")

FORWARD = {
    name: _kernel(
        f"{name}_forward",
        "T product, T scale, T bias",
        "T z_out, T h",
        f"const T z = scale * product + bias; z_out = z; h = {expression};",
    )
    for name, (expression, _) in _ACTIVATIONS.items()
}

# d_h and d_z, all (N, O), may be the same array.
BACKWARD = {
    name: _kernel(f"{name}_backward", "T d_h, T z, T h", "T d_z", f"d_z = {expression};")
    for name, (_, expression) in _ACTIVATIONS.items()
}

# X[rows], converted: x (N, D), rows (B,) -> batch (B, D).
GATHER = _kernel(
    "gather",
    "raw X x, raw int64 rows, int64 n_features",
    "T batch",
    "const ptrdiff_t sample = i / n_features; batch = T(x[rows[sample] * n_features + (i - sample * n_features)]);",
)


# --- Heads: one thread per sample, looping over the outputs ---------------------------------------------------------

# What has to be known of a sample before its outputs are visited one by one.
_SOFTMAX_SUMS = """
    T largest = logits[first];
    for (int k = 1; k < n_outputs; ++k)
        if (exceeds(logits[first + k], largest)) largest = logits[first + k];
    T exponentials = T(0);
    for (int k = 0; k < n_outputs; ++k) exponentials += exp(logits[first + k] - largest);
"""
_SOFTMAX = "exp(z - largest) / exponentials"
_INNER_PRODUCT = f"""
    T inner = T(0);
    for (int k = 0; k < n_outputs; ++k) {{
        const T z = logits[first + k];
        const T p = {_SOFTMAX};
        inner += (p - targets[first + k]) * p;
    }}
"""
_OUTPUTS = {"identity": "z", "sigmoid": "sigmoid(z)", "softmax": _SOFTMAX, "exp": "exp(z)"}

_HALF_SQUARE = "T(0.5) * (p - y) * (p - y)"

# (output, loss): what to prepare, the loss of one output, its gradient with respect to z. y is the target, p the output
# function of z.
_HEADS = {
    ("softmax", "cross_entropy"): (_SOFTMAX_SUMS, "y > T(0) ? log(exponentials) - (z - largest) : T(0)", "p - y"),
    ("softmax", "squared_error"): (_SOFTMAX_SUMS + _INNER_PRODUCT, _HALF_SQUARE, "p * ((p - y) - inner)"),
    ("sigmoid", "cross_entropy"): ("", "(z < T(0) ? T(0) : z) - z * y + log1p(exp(-fabs(z)))", "p - y"),
    ("sigmoid", "squared_error"): ("", _HALF_SQUARE, "(p - y) * p * (T(1) - p)"),
    ("identity", "squared_error"): ("", _HALF_SQUARE, "p - y"),
    ("identity", "absolute_error"): ("", "fabs(p - y)", "p > y ? T(1) : (p < y ? T(-1) : p - y)"),
    ("exp", "squared_error"): ("", _HALF_SQUARE, "(p - y) * p"),
    ("exp", "poisson"): ("", "y * log(y > T(0) ? y : T(1)) - y * z - y + p", "p - y"),
    ("exp", "gamma"): ("", "z - log(y) + y * exp(-z) - T(1)", "T(1) - y * exp(-z)"),
}

# What counts as correct: code before the loop over the outputs, in it, and after it.
_COUNTING: dict[Task, tuple[str, str, str]] = {
    "regression": ("", "", ""),
    "multilabel": ("correct = 1;", "if ((p > T(0.5)) != (y > T(0.5))) correct = 0;", ""),
    "multiclass": (
        "int predicted = 0, label = 0; T largest_z = logits[first], largest_y = T(0);",
        """
        if (exceeds(z, largest_z)) { largest_z = z; predicted = k; }
        if (k == 0 || exceeds(y, largest_y)) { largest_y = y; label = k; }
        """,
        "correct = predicted == label;",
    ),
}

# weight is of the sample, or the scalar 1; total is the sum of weights to divide by, on the device or as a scalar.
_HEAD = Template("""
    const ptrdiff_t first = ptrdiff_t(i) * n_outputs;
    const double factor = double(weight) / (total == 0.0 ? 1.0 : total);
    $prepare
    $before
    T sample_loss = T(0);
    for (int k = 0; k < n_outputs; ++k) {
        const T z = logits[first + k];
        const T y = $target;
        const T p = $output;
        sample_loss += $loss;
        d_logits[first + k] = ($gradient) * T(factor);
        $each
    }
    $after
    loss = double(sample_loss) * factor;
""")


def _head_kernel(output: str, loss: str, task: Task) -> cupy.ElementwiseKernel:
    labels = (output, loss) == ("softmax", "cross_entropy")
    prepare, loss_of_output, gradient = _HEADS[output, loss]
    before, each, after = _COUNTING[task]
    code = _HEAD.substitute(
        prepare=prepare,
        before=before,
        target="T(targets[i] == k)" if labels else "targets[first + k]",
        output=_OUTPUTS[output],
        loss=loss_of_output,
        gradient=gradient,
        each=each,
        after=after,
    )
    return _kernel(
        f"{output}_{loss}_{task}",
        f"raw T logits, raw {'int32' if labels else 'T'} targets, T weight, float64 total, int32 n_outputs",
        "float64 loss, raw T d_logits" + ("" if task == "regression" else ", int32 correct"),
        code,
    )


# By output, loss and task: logits (N, C), targets (N,) or (N, C) -> loss (N,), d_logits (N, C) and, except for
# regression, correct (N,) of 0 and 1.
HEADS = {(output, loss, task): _head_kernel(output, loss, task) for output, loss in _HEADS for task in _COUNTING}

# weight (M,) -> penalty (M,), whose sum is the l2 term; d_weight (M,) is added to.
L2_PENALTY = _kernel(
    "l2_penalty",
    "T weight, float64 l2",
    "T d_weight, float64 penalty",
    "d_weight += T(l2) * weight; penalty = 0.5 * l2 * double(weight) * double(weight);",
)


# --- Optimizers: gradient (P,) -> parameter (P,) and state (P,), in place -------------------------------------------

SGD = _kernel("sgd", "T gradient, T rate", "T parameter", "parameter -= rate * gradient;")

MOMENTUM = _kernel(
    "momentum",
    "T gradient, T rate, T momentum",
    "T parameter, T velocity",
    "velocity = momentum * velocity - rate * gradient; parameter += velocity;",
)

NESTEROV = _kernel(
    "nesterov",
    "T gradient, T rate, T momentum",
    "T parameter, T velocity",
    """
    const T step = -rate * gradient;
    velocity = momentum * velocity + step;
    parameter += momentum * velocity + step;
    """,
)

# AdamW's decay is of the weights, which come first; Adam's is 0.
ADAM = _kernel(
    "adam",
    "T gradient, T rate, T beta_1, T one_minus_beta_1, T beta_2, T one_minus_beta_2, T epsilon, T decay, "
    "int64 n_weights",
    "T parameter, T first_moment, T second_moment",
    """
    if (i < n_weights) parameter -= decay * parameter;
    first_moment = beta_1 * first_moment + one_minus_beta_1 * gradient;
    second_moment = beta_2 * second_moment + one_minus_beta_2 * (gradient * gradient);
    parameter -= rate * first_moment / (sqrt(second_moment) + epsilon);
    """,
)
