// What networks are made of, for every kernel: activations, heads, what counts as correct, optimizers.
//
// They compute what fastnet.reference says, for one element or one sample; NaN stays NaN, as comparisons are written so
// that it takes the branch that keeps it. T is float or double. Loops over outputs unroll where their number is known
// when a kernel is compiled, and their arrays then lie in registers.
//
// Legend: z pre-activation, h activation, d_<name> gradient with respect to <name>; C outputs, k one of them.

namespace fastnet {

template<typename T> __device__ __forceinline__ T sigmoid_of(T z) {
    const T e = exp(-fabs(z));
    return (z >= T(0) ? T(1) : e) / (T(1) + e);
}

template<typename T> __device__ __forceinline__ T normal_cdf(T z) {
    return T(0.5) * (T(1) + erf(z * T(0.70710678118654752)));
}

template<typename T> __device__ __forceinline__ T normal_density(T z) {
    return T(0.39894228040143268) * exp(T(-0.5) * z * z);
}

// As argmax has it: the lowest index wins a tie, the first NaN wins over all. Both are looked at, as branches take longer.
template<typename T> __device__ __forceinline__ bool exceeds(T a, T b) {
    return !(a <= b) & !isnan(b);
}

// --- Activations: h from z, and d_z from d_h, z and h ----------------------------------------------------------------

template<typename T> struct identity {
    static __device__ __forceinline__ T forward(T z) { return z; }
    static __device__ __forceinline__ T backward(T d_h, T, T) { return d_h; }
};

template<typename T> struct relu {
    static __device__ __forceinline__ T forward(T z) { return z < T(0) ? T(0) : z; }
    static __device__ __forceinline__ T backward(T d_h, T z, T) { return z > T(0) ? d_h : T(0); }
};

template<typename T> struct sigmoid {
    static __device__ __forceinline__ T forward(T z) { return sigmoid_of(z); }
    static __device__ __forceinline__ T backward(T d_h, T, T h) { return d_h * h * (T(1) - h); }
};

template<typename T> struct hyperbolic_tangent {
    static __device__ __forceinline__ T forward(T z) { return tanh(z); }
    static __device__ __forceinline__ T backward(T d_h, T, T h) { return d_h * (T(1) - h * h); }
};

template<typename T> struct leaky_relu {
    static __device__ __forceinline__ T forward(T z) { return z < T(0) ? T(LEAKY_SLOPE) * z : z; }
    static __device__ __forceinline__ T backward(T d_h, T z, T) { return z > T(0) ? d_h : T(LEAKY_SLOPE) * d_h; }
};

template<typename T> struct elu {
    static __device__ __forceinline__ T forward(T z) { return z < T(0) ? expm1(z) : z; }
    static __device__ __forceinline__ T backward(T d_h, T z, T h) { return z > T(0) ? d_h : d_h * (h + T(1)); }
};

template<typename T> struct gelu {
    static __device__ __forceinline__ T forward(T z) { return z * normal_cdf(z); }
    static __device__ __forceinline__ T backward(T d_h, T z, T) {
        return d_h * (normal_cdf(z) + z * normal_density(z));
    }
};

template<typename T> struct silu {
    static __device__ __forceinline__ T forward(T z) { return z * sigmoid_of(z); }
    static __device__ __forceinline__ T backward(T d_h, T z, T) {
        const T s = sigmoid_of(z);
        return d_h * s * (T(1) + z * (T(1) - s));
    }
};

// --- Targets of one sample, by output --------------------------------------------------------------------------------

struct ClassLabel {  // one-hot
    int label;
    __device__ __forceinline__ bool operator()(int k) const { return k == label; }
};

template<typename T> struct TargetRow {
    const T* row;
    __device__ __forceinline__ T operator()(int k) const { return row[k]; }
};

// What a head takes of a sample: its label, or the row of its targets.
__device__ __forceinline__ ClassLabel for_head(const int* label) { return {*label}; }
template<typename T> __device__ __forceinline__ TargetRow<T> for_head(const T* row) { return {row}; }

// --- Heads: logits z[0] ... z[C - 1] of one sample -> its loss in nats, and d_z. d_z may be z itself -------------------

template<typename T> __device__ __forceinline__ T largest_of(const T* z, int n_outputs) {
    T largest = z[0];
#pragma unroll
    for (int k = 1; k < n_outputs; ++k)
        if (exceeds(z[k], largest)) largest = z[k];
    return largest;
}

template<typename T> __device__ __forceinline__ T sum_of_exponentials(const T* z, int n_outputs, T largest) {
    T sum = T(0);
#pragma unroll
    for (int k = 0; k < n_outputs; ++k) sum += exp(z[k] - largest);
    return sum;
}

template<typename T> struct softmax_cross_entropy {
    template<typename Targets>
    static __device__ __forceinline__ T evaluate(const T* z, Targets is_class, int n_outputs, T* d_z) {
        const T largest = largest_of(z, n_outputs), sum = sum_of_exponentials(z, n_outputs, largest);
        const T log_of_sum = log(sum), one_by_sum = T(1) / sum;
        T loss = T(0);
#pragma unroll
        for (int k = 0; k < n_outputs; ++k) {
            const T shifted = z[k] - largest, p = exp(shifted) * one_by_sum;
            loss = is_class(k) ? log_of_sum - shifted : loss;
            d_z[k] = p - (is_class(k) ? T(1) : T(0));
        }
        return loss;
    }
};

template<typename T> struct softmax_squared_error {
    template<typename Targets>
    static __device__ __forceinline__ T evaluate(const T* z, Targets target, int n_outputs, T* d_z) {
        const T largest = largest_of(z, n_outputs);
        const T one_by_sum = T(1) / sum_of_exponentials(z, n_outputs, largest);
        T inner = T(0), loss = T(0);
#pragma unroll
        for (int k = 0; k < n_outputs; ++k) {
            const T p = exp(z[k] - largest) * one_by_sum, difference = p - target(k);
            inner += difference * p;
            loss += T(0.5) * difference * difference;
        }
#pragma unroll
        for (int k = 0; k < n_outputs; ++k) {
            const T p = exp(z[k] - largest) * one_by_sum;
            d_z[k] = p * ((p - target(k)) - inner);
        }
        return loss;
    }
};

// The others are sums over outputs that know nothing of each other.
template<typename T, template<typename> class Output> struct separate_outputs {
    template<typename Targets>
    static __device__ __forceinline__ T evaluate(const T* z, Targets target, int n_outputs, T* d_z) {
        T loss = T(0);
#pragma unroll
        for (int k = 0; k < n_outputs; ++k) {
            T gradient;
            loss += Output<T>::evaluate(z[k], target(k), gradient);
            d_z[k] = gradient;
        }
        return loss;
    }
};

template<typename T> struct one_sigmoid_cross_entropy {
    static __device__ __forceinline__ T evaluate(T z, T y, T& d_z) {
        d_z = sigmoid_of(z) - y;
        return (z < T(0) ? T(0) : z) - z * y + log1p(exp(-fabs(z)));
    }
};

template<typename T> struct one_sigmoid_squared_error {
    static __device__ __forceinline__ T evaluate(T z, T y, T& d_z) {
        const T p = sigmoid_of(z), difference = p - y;
        d_z = difference * p * (T(1) - p);
        return T(0.5) * difference * difference;
    }
};

template<typename T> struct one_squared_error {
    static __device__ __forceinline__ T evaluate(T z, T y, T& d_z) {
        d_z = z - y;
        return T(0.5) * d_z * d_z;
    }
};

template<typename T> struct one_absolute_error {
    static __device__ __forceinline__ T evaluate(T z, T y, T& d_z) {
        d_z = z > y ? T(1) : (z < y ? T(-1) : z - y);
        return fabs(z - y);
    }
};

template<typename T> struct one_exp_squared_error {
    static __device__ __forceinline__ T evaluate(T z, T y, T& d_z) {
        const T p = exp(z), difference = p - y;
        d_z = difference * p;
        return T(0.5) * difference * difference;
    }
};

template<typename T> struct one_poisson {
    static __device__ __forceinline__ T evaluate(T z, T y, T& d_z) {
        const T p = exp(z);
        d_z = p - y;
        return y * log(y > T(0) ? y : T(1)) - y * z - y + p;
    }
};

template<typename T> struct one_gamma {
    static __device__ __forceinline__ T evaluate(T z, T y, T& d_z) {
        const T ratio = y * exp(-z);
        d_z = T(1) - ratio;
        return z - log(y) + ratio - T(1);
    }
};

template<typename T> using sigmoid_cross_entropy = separate_outputs<T, one_sigmoid_cross_entropy>;
template<typename T> using sigmoid_squared_error = separate_outputs<T, one_sigmoid_squared_error>;
template<typename T> using identity_squared_error = separate_outputs<T, one_squared_error>;
template<typename T> using identity_absolute_error = separate_outputs<T, one_absolute_error>;
template<typename T> using exp_squared_error = separate_outputs<T, one_exp_squared_error>;
template<typename T> using exp_poisson = separate_outputs<T, one_poisson>;
template<typename T> using exp_gamma = separate_outputs<T, one_gamma>;

// --- Outputs: p[k] from all of z --------------------------------------------------------------------------------------

template<typename T> struct identity_output {
    static __device__ __forceinline__ T at(const T* z, int, int k) { return z[k]; }
};

template<typename T> struct sigmoid_output {
    static __device__ __forceinline__ T at(const T* z, int, int k) { return sigmoid_of(z[k]); }
};

template<typename T> struct exp_output {
    static __device__ __forceinline__ T at(const T* z, int, int k) { return exp(z[k]); }
};

template<typename T> struct softmax_output {
    static __device__ __forceinline__ T at(const T* z, int n_outputs, int k) {
        const T largest = largest_of(z, n_outputs);
        return exp(z[k] - largest) / sum_of_exponentials(z, n_outputs, largest);
    }
};

// --- Tasks: whether a sample's prediction is right (1) or not (0), from z before a head has overwritten it ------------

template<typename T, template<typename> class Output> struct regression {
    template<typename Targets> static __device__ __forceinline__ int is_correct(const T*, Targets, int) { return 0; }
};

template<typename T, template<typename> class Output> struct multilabel {
    template<typename Targets>
    static __device__ __forceinline__ int is_correct(const T* z, Targets target, int n_outputs) {
        int correct = 1;
#pragma unroll
        for (int k = 0; k < n_outputs; ++k)
            if ((Output<T>::at(z, n_outputs, k) > T(0.5)) != (target(k) > T(0.5))) correct = 0;
        return correct;
    }
};

// The first of the largest of v(0) ... v(C - 1).
template<typename T, typename Values> __device__ __forceinline__ int argmax(Values v, int n_outputs) {
    int first = 0;
    T largest = T(v(0));
#pragma unroll
    for (int k = 1; k < n_outputs; ++k) {
        const T value = T(v(k));
        if (exceeds(value, largest)) { largest = value; first = k; }
    }
    return first;
}
template<typename T> __device__ __forceinline__ int argmax(ClassLabel is_class, int) { return is_class.label; }

template<typename T, template<typename> class Output> struct multiclass {
    template<typename Targets>
    static __device__ __forceinline__ int is_correct(const T* z, Targets target, int n_outputs) {
        return argmax<T>(TargetRow<T>{z}, n_outputs) == argmax<T>(target, n_outputs);
    }
};

// --- Optimizers: one parameter and its state, in place. `rate` is the length of this step, `decay` the part of a weight
// that is taken off it first, `constants` are the optimizer's own, in the order of functions.optimizer_constants ---------

template<typename T> struct sgd {
    enum { n_states = 0 };
    static __device__ __forceinline__ void update(T& parameter, T&, T&, T gradient, T rate, T, const T*) {
        parameter -= rate * gradient;
    }
};

template<typename T> struct momentum {
    enum { n_states = 1 };
    static __device__ __forceinline__ void update(
        T& parameter, T& velocity, T&, T gradient, T rate, T, const T* constants
    ) {
        velocity = constants[0] * velocity - rate * gradient;
        parameter += velocity;
    }
};

template<typename T> struct nesterov {
    enum { n_states = 1 };
    static __device__ __forceinline__ void update(
        T& parameter, T& velocity, T&, T gradient, T rate, T, const T* constants
    ) {
        const T step = -rate * gradient;
        velocity = constants[0] * velocity + step;
        parameter += constants[0] * velocity + step;
    }
};

template<typename T> struct adam {
    enum { n_states = 2 };
    static __device__ __forceinline__ void update(
        T& parameter, T& first_moment, T& second_moment, T gradient, T rate, T decay, const T* constants
    ) {
        const T beta_1 = constants[0], one_minus_beta_1 = constants[1];
        const T beta_2 = constants[2], one_minus_beta_2 = constants[3], epsilon = constants[4];
        if (decay != T(0)) parameter -= decay * parameter;
        first_moment = beta_1 * first_moment + one_minus_beta_1 * gradient;
        second_moment = beta_2 * second_moment + one_minus_beta_2 * (gradient * gradient);
        parameter -= rate * first_moment / (sqrt(second_moment) + epsilon);
    }
};

}  // namespace fastnet
