// Networks of few parameters: one block makes all the steps of a launch, with two barriers in each.
//
// A thread takes the samples t, t + T, ... of a step through all layers and back, in registers, and adds what they give
// to sums of its own. The threads of a warp add theirs up by shuffles, and whoever owns a parameter adds those of the
// warps and updates it. That order depends on T alone. Samples are fetched one ahead of their use, across steps too, as
// they do not depend on the parameters.
//
// What is defined when this is compiled: REAL, the type of all floats; SAMPLE, that of the elements of X; LAYER_SIZES;
// FUNCTIONS, the hidden layers' activations and then the head; TASK; OPTIMIZER and its N_CONSTANTS; WEIGHT_OFFSETS and
// BIAS_OFFSETS in the flat buffer, by layer; HAS_BIAS; N_WEIGHTS; N_PARAMETERS; TAKES_LABELS; N_THREADS.
//
// Legend: N samples, D features, C outputs, P parameters, B batch size, S steps of a run, T threads, W warps, V sums of
// a step: P gradients, the losses, the squared weights, the right predictions.
// z pre-activation, h activation, d_<name> gradient with respect to <name>.

namespace tiny {

using real = REAL;

constexpr int layer_sizes[] = {LAYER_SIZES};
constexpr int weight_offsets[] = {WEIGHT_OFFSETS}, bias_offsets[] = {BIAS_OFFSETS};
constexpr int n_layers = sizeof layer_sizes / sizeof(int) - 1;
constexpr int n_features = layer_sizes[0], n_outputs = layer_sizes[n_layers];

constexpr int warp_size = 32, n_warps = N_THREADS / warp_size;
constexpr unsigned whole_warp = 0xffffffff;

constexpr int loss_sum = N_PARAMETERS, squares_sum = loss_sum + 1, correct_sum = loss_sum + 2, n_sums = loss_sum + 3;

__device__ constexpr int round_up(int n) { return (n + warp_size - 1) / warp_size * warp_size; }

// --- Samples --------------------------------------------------------------------------------------------------------

#if TAKES_LABELS
using Target = int;
constexpr int n_targets = 1;
#else
using Target = real;
constexpr int n_targets = n_outputs;
#endif

struct Sample {
    real x[n_features];  // scaled
    Target targets[n_targets];
    real weight;
};

struct Data {
    const SAMPLE* __restrict__ x;              // (N, D)
    const Target* __restrict__ targets;        // (N, C), or labels (N,)
    const real* __restrict__ sample_weight;    // (N,); not read unless `is_weighted`
    const long long* __restrict__ order;       // (n_ordered,) sample indices; not read for the full batch
    long long n_ordered;
    int n_samples, batch_size, is_weighted;    // batch_size is 0 for the full batch
    real input_scale;

    __device__ __forceinline__ int n_samples_of(int step) const {
        if (!batch_size) return n_samples;
        const long long n_left = n_ordered - (long long)step * batch_size;
        return n_left < batch_size ? int(n_left) : batch_size;
    }

    // The k-th sample of a step.
    __device__ __forceinline__ void fetch(int step, int k, Sample& sample) const {
        const long long row = batch_size ? order[(long long)step * batch_size + k] : k;
#pragma unroll
        for (int i = 0; i < n_features; ++i) sample.x[i] = input_scale * real(x[row * n_features + i]);
#pragma unroll
        for (int i = 0; i < n_targets; ++i) sample.targets[i] = targets[row * n_targets + i];
        sample.weight = is_weighted ? sample_weight[row] : real(1);
    }

    // What the thread takes after the k-th sample of a step of `n`, if there is anything before step `end`.
    __device__ __forceinline__ void fetch_following(int step, int k, int n, int end, Sample& sample) const {
        if (!batch_size && n <= N_THREADS) return;  // a thread keeps the one sample that it has
        k += N_THREADS;
        if (k < n) {
            fetch(step, k, sample);
        } else if (step + 1 < end && int(threadIdx.x) < n_samples_of(step + 1)) {
            fetch(step + 1, threadIdx.x, sample);
        }
    }
};

// --- One sample through the network and back ------------------------------------------------------------------------

// The k-th of a list of types.
template<int k, typename First, typename... Rest> struct Element : Element<k - 1, Rest...> {};
template<typename First, typename... Rest> struct Element<0, First, Rest...> { using type = First; };

// What is read from shared memory after this is not kept in registers from before. They hold the sums, and a parameter
// comes as fast from where all threads read it at once.
__device__ __forceinline__ void read_anew() { asm volatile("" ::: "memory"); }

template<int layer> struct Layer {
    static constexpr int fan_in = layer_sizes[layer], fan_out = layer_sizes[layer + 1];
    static constexpr int weight = weight_offsets[layer], bias = bias_offsets[layer];
    using Function = typename Element<layer, FUNCTIONS>::type;

    // Takes the layer's input h on to the loss; adds to the sums, and sets d_h unless this is the first layer.
    static __device__ __forceinline__ void propagate(
        const Sample& sample, const real (&h)[fan_in], real (&d_h)[fan_in], const real* parameters, real (&sums)[n_sums]
    ) {
        real z[fan_out], d_z[fan_out];
        read_anew();
#pragma unroll
        for (int j = 0; j < fan_out; ++j) {
            z[j] = HAS_BIAS ? parameters[bias + j] : real(0);
#pragma unroll
            for (int i = 0; i < fan_in; ++i) z[j] += h[i] * parameters[weight + i * fan_out + j];
        }
        if constexpr (layer == n_layers - 1) {
            const auto targets = fastnet::for_head(sample.targets);
            sums[correct_sum] += TASK::is_correct(z, targets, n_outputs);
            sums[loss_sum] += sample.weight * Function::evaluate(z, targets, n_outputs, d_z);
#pragma unroll
            for (int j = 0; j < fan_out; ++j) d_z[j] *= sample.weight;
        } else {
            real h_next[fan_out];
#pragma unroll
            for (int j = 0; j < fan_out; ++j) h_next[j] = Function::forward(z[j]);
            Layer<layer + 1>::propagate(sample, h_next, d_z, parameters, sums);
#pragma unroll
            for (int j = 0; j < fan_out; ++j) d_z[j] = Function::backward(d_z[j], z[j], h_next[j]);
        }
        read_anew();
#pragma unroll
        for (int i = 0; i < fan_in; ++i) {
            real d = real(0);
#pragma unroll
            for (int j = 0; j < fan_out; ++j) {
                sums[weight + i * fan_out + j] += h[i] * d_z[j];
                if constexpr (layer > 0) d += d_z[j] * parameters[weight + i * fan_out + j];
            }
            d_h[i] = d;
        }
        if constexpr (HAS_BIAS) {
#pragma unroll
            for (int j = 0; j < fan_out; ++j) sums[bias + j] += d_z[j];
        }
    }
};

// --- Sums over the threads ------------------------------------------------------------------------------------------

// Halves of `n` values change hands between lanes that are `distance` apart, so that each lane goes on with the sums of
// one half: about n shuffles for all five distances, where one value after the other would take 5 n. What a lane has at
// last lies in values[0] ... values[n_slots / 32 - 1]; the sum of value v in those of slot_of(v).
template<int n, int distance> __device__ __forceinline__ void sum_over_warp(real* values, int lane) {
    if constexpr (distance > 0) {
        constexpr int half = (n + 1) / 2;
        const bool takes_upper = lane & distance;
#pragma unroll
        for (int k = 0; k < half; ++k) {
            const real lower = values[k], upper = half + k < n ? values[half + k] : real(0);
            const real given = takes_upper ? lower : upper, kept = takes_upper ? upper : lower;
            values[k] = kept + __shfl_xor_sync(whole_warp, given, distance);
        }
        sum_over_warp<half, distance / 2>(values, lane);
    }
}

constexpr int n_slots = round_up(n_sums);  // of a warp: 32 for its lanes' first values, 32 for their second ones, ...

__device__ __forceinline__ int slot_of(int value) {
    int lane = 0, n = n_sums;
    for (int distance = warp_size / 2; distance > 0; distance /= 2) {
        n = (n + 1) / 2;
        if (value >= n) {
            value -= n;
            lane += distance;
        }
    }
    return value * warp_size + lane;
}

// The sum in one slot of `partial` (W, n_slots).
template<typename Sum> __device__ __forceinline__ Sum sum_over_warps(const real* partial, int slot) {
    Sum sum = partial[slot];
#pragma unroll
    for (int warp = 1; warp < n_warps; ++warp) sum += partial[warp * n_slots + slot];
    return sum;
}

}  // namespace tiny

// --- Steps ----------------------------------------------------------------------------------------------------------

// Makes the steps first_step ... first_step + n_steps - 1 of a run, each by its row (rate, decay, scale, l2) of
// `schedule` (S, 4), where `scale` makes a mean of a sum over samples. Unless it `updates`, the gradient (P,) is what a
// step leaves, beside its figures. Shared memory holds P floats and W V floats, P and V rounded up to 32.
extern "C" __global__ void __launch_bounds__(N_THREADS, 1) fastnet_tiny(
    const SAMPLE* __restrict__ x, const tiny::Target* __restrict__ targets,
    const tiny::real* __restrict__ sample_weight, const long long* __restrict__ order,
    long long n_ordered, int n_samples, int batch_size, int is_weighted, tiny::real input_scale,
    const double* __restrict__ schedule, int first_step, int n_steps, int updates,
    const tiny::real* __restrict__ optimizer_constants,
    tiny::real* flat, tiny::real* first_state, tiny::real* second_state, tiny::real* gradient_out,
    double* loss_out, double* penalty_out, long long* n_correct_out
) {
    using namespace tiny;
    const Data data = {
        x, targets, sample_weight, order, n_ordered, n_samples, batch_size, is_weighted, input_scale};
    const int thread = threadIdx.x, lane = thread % warp_size, warp = thread / warp_size;
    const int end = first_step + n_steps;
    real* const parameters = (real*)shared_memory();
    real* const partial = parameters + round_up(N_PARAMETERS);

    real constants[N_CONSTANTS];
#pragma unroll
    for (int k = 0; k < N_CONSTANTS; ++k) constants[k] = optimizer_constants[k];

    // The parameters t, t + T, ... are the thread's, with their state.
    constexpr int n_owned = (N_PARAMETERS + N_THREADS - 1) / N_THREADS;
    real parameter[n_owned], first[n_owned] = {}, second[n_owned] = {};
    int slot[n_owned];
#pragma unroll
    for (int k = 0; k < n_owned; ++k) {
        const int index = thread + k * N_THREADS;
        if (index >= N_PARAMETERS) break;
        slot[k] = slot_of(index);
        parameters[index] = parameter[k] = flat[index];
        if constexpr (OPTIMIZER::n_states > 0) first[k] = first_state[index];
        if constexpr (OPTIMIZER::n_states > 1) second[k] = second_state[index];
    }

    Sample next;
    if (thread < data.n_samples_of(first_step)) data.fetch(first_step, thread, next);

    for (int step = first_step; step < end; ++step) {
        const double rate = schedule[4 * step], decay = schedule[4 * step + 1];
        const double scale = schedule[4 * step + 2], l2 = schedule[4 * step + 3];
        const int n = data.n_samples_of(step);
        real sums[n_sums] = {};

        __syncthreads();  // all parameters are there
        for (int k = thread; k < n; k += N_THREADS) {
            const Sample sample = next;
            data.fetch_following(step, k, n, end, next);
            real d_x[n_features];
            Layer<0>::propagate(sample, sample.x, d_x, parameters, sums);
        }
#pragma unroll
        for (int k = 0; k < n_owned; ++k)
            if (thread + k * N_THREADS < N_WEIGHTS) sums[squares_sum] += parameter[k] * parameter[k];

        sum_over_warp<n_sums, warp_size / 2>(sums, lane);
#pragma unroll
        for (int k = 0; k < n_slots / warp_size; ++k) partial[warp * n_slots + k * warp_size + lane] = sums[k];
        __syncthreads();  // the sums of all warps are there, and nobody needs the parameters any more

#pragma unroll
        for (int k = 0; k < n_owned; ++k) {
            const int index = thread + k * N_THREADS;
            if (index >= N_PARAMETERS) break;
            real gradient = real(scale) * sum_over_warps<real>(partial, slot[k]);
            if (index < N_WEIGHTS) gradient += real(l2) * parameter[k];
            if (updates) {
                const real weight_decay = index < N_WEIGHTS ? real(decay) : real(0);
                OPTIMIZER::update(parameter[k], first[k], second[k], gradient, real(rate), weight_decay, constants);
                parameters[index] = parameter[k];
            } else {
                gradient_out[index] = gradient;
            }
        }
        if (thread == N_THREADS - warp_size) {  // in the warp that has least to update
            const double squares = sum_over_warps<double>(partial, slot_of(squares_sum));
            const double penalty = l2 == 0 ? 0.0 : 0.5 * l2 * squares;
            loss_out[step] = scale * sum_over_warps<double>(partial, slot_of(loss_sum)) + penalty;
            penalty_out[step] = penalty;
            n_correct_out[step] = (long long)sum_over_warps<real>(partial, slot_of(correct_sum));
        }
    }

    if (!updates) return;
#pragma unroll
    for (int k = 0; k < n_owned; ++k) {
        const int index = thread + k * N_THREADS;
        if (index >= N_PARAMETERS) break;
        flat[index] = parameter[k];
        if constexpr (OPTIMIZER::n_states > 0) first_state[index] = first[k];
        if constexpr (OPTIMIZER::n_states > 1) second_state[index] = second[k];
    }
}
