// Mini-batches, and full batches that are small: a few launches make a step, and nothing in them comes from the host.
//
//     forward   for each hidden layer: products of inputs and weights, in slices of the fan-in
//     head      a warp per sample: the last hidden layer's h, logits, the loss, d_logits, that layer's d_z
//     backward  for each hidden layer below: d_z
//     update    gradients of all layers, and the optimizer; other blocks sum the figures up, and gather the next batch
//
// A launch begins when the one before is done, and within one no block reads what another writes. All sums are in an
// order that depends on shapes alone.
//
// What is defined when this is compiled: SAMPLE, the type of the elements of X; N_HIDDEN, the number of hidden layers,
// or 2 if there are more; ACTIVATIONS, theirs, each once; N_OUTPUTS; HEAD; TASK; OPTIMIZER and its N_CONSTANTS;
// HAS_BIAS; TAKES_LABELS; HAS_WEIGHT_VECTORS, whether rows of hidden layers' weights begin at multiples of 16 bytes;
// N_WARPS of a block, HEAD_WARPS of the head's, GATHER_WARPS that copy a row; STAGE, terms of a sum that are in shared
// memory at a time; MAX_SLICES; FORWARD_ROWS and FORWARD_COLUMNS, UPDATE_ROWS and UPDATE_COLUMNS of a tile.
//
// Legend: N samples, D features, B rows of a batch, of which the last may be empty, I fan-in, O fan-out, C outputs,
// P parameters, M weights among them, K steps of a chunk, S slices, Q partial sums of squares.
// z pre-activation, h activation, d_<name> gradient with respect to <name>. Rows of x, z, h and d_z lie `pitch` apart.

namespace batches {

// --- Batches: samples gathered in the order of the steps, with X as floats, scaled ----------------------------------

#if TAKES_LABELS
using Target = int;
constexpr int n_targets = 1;
#else
using Target = float;
constexpr int n_targets = N_OUTPUTS;
#endif

// A dataset.
struct Samples {
    const SAMPLE* __restrict__ x;            // (N, D)
    const Target* __restrict__ targets;      // (N, C), or labels (N,)
    const float* __restrict__ weights;       // (N,); not read unless `is_weighted`
    const long long* __restrict__ order;     // (n_ordered,) sample indices
    const long long* __restrict__ n_ordered;
    int n_features, is_weighted;
    float input_scale;

    __device__ __forceinline__ int n_rows(int step, int n_batch) const {
        const long long n_left = *n_ordered - (long long)step * n_batch;
        return n_left <= 0 ? 0 : n_left < n_batch ? int(n_left) : n_batch;
    }
};

// Where a batch goes.
struct Batch {
    float* x;          // (B, D)
    Target* targets;   // (B, C) or (B,)
    float* weights;    // (B,)
    int* n_rows;
    double* scale;     // makes a mean of a sum over its samples
};

// What the `block`-th block does to gather the batch of a step: GATHER_WARPS copy a row, and the first block knows how
// many rows there are. `fixed_scale` is the scale, or 0 for the mean over the batch's samples.
__device__ __forceinline__ void gather(
    const Samples& samples, int step, int n_batch, double fixed_scale, int block, const Batch& batch
) {
    const long long* const order = samples.order + (long long)step * n_batch;
    const int n_rows = samples.n_rows(step, n_batch);
    if (block == 0) {
        double weight = 0;
        for (int k = threadIdx.x; k < n_rows; k += n_threads)
            weight += samples.is_weighted ? double(samples.weights[order[k]]) : 1.0;
        const double total = sum_over_block<N_WARPS>(weight, (double*)shared_memory());
        if (threadIdx.x == 0) {
            *batch.n_rows = n_rows;
            *batch.scale = fixed_scale != 0 ? fixed_scale : 1 / (total == 0 ? 1 : total);
        }
    }
    constexpr int threads_per_row = GATHER_WARPS * warp_size;
    const int k = block * (N_WARPS / GATHER_WARPS) + threadIdx.x / threads_per_row;
    const int first = threadIdx.x % threads_per_row;
    if (k >= n_batch) return;
    float* const x = batch.x + k * input_pitch(samples.n_features);
    if (k >= n_rows) {  // whatever zeros are multiplied by must stay zero
        for (int i = first; i < samples.n_features; i += threads_per_row) x[i] = 0;
        return;
    }
    const long long row = order[k];
    const SAMPLE* const source = samples.x + row * samples.n_features;
#pragma unroll 8
    for (int i = first; i < samples.n_features; i += threads_per_row) x[i] = samples.input_scale * float(source[i]);
    if (first < n_targets) batch.targets[k * n_targets + first] = samples.targets[row * n_targets + first];
    if (samples.is_weighted && first == 0) batch.weights[k] = samples.weights[row];
}

// --- Hidden layers --------------------------------------------------------------------------------------------------

// The activations of a network by number.
template<typename First, typename... Rest> struct OneOf {
    static __device__ __forceinline__ float forward(int which, float z) {
        if constexpr (sizeof...(Rest) > 0)
            if (which > 0) return OneOf<Rest...>::forward(which - 1, z);
        return First::forward(z);
    }
    static __device__ __forceinline__ float backward(int which, float d_h, float z) {
        if constexpr (sizeof...(Rest) > 0)
            if (which > 0) return OneOf<Rest...>::backward(which - 1, d_h, z);
        return First::backward(d_h, z, First::forward(z));
    }
};
using Activation = OneOf<ACTIVATIONS>;

// What a forward launch has left of a layer; whoever reads it adds the slices up.
struct HiddenLayer {
    const float* __restrict__ slices;  // (S, B, O)
    const float* __restrict__ bias;    // (O,)
    int n_slices, n_batch, width, activation;

    __device__ __forceinline__ float z(int row, int unit) const {
        const int place = row * pitch(width) + unit, size = n_batch * pitch(width);
        float parts[MAX_SLICES];
#pragma unroll
        for (int s = 0; s < MAX_SLICES; ++s) parts[s] = s < n_slices ? slices[s * size + place] : 0.0f;
        float sum = HAS_BIAS ? bias[unit] : 0.0f;
#pragma unroll
        for (int s = 0; s < MAX_SLICES; ++s) sum += parts[s];
        return sum;
    }
};

using ForwardTile = Tile<FORWARD_ROWS, FORWARD_COLUMNS>;

// Rows of h, which are kept in memory as well if there is a place for them.
struct RowsOfHidden {
    static constexpr bool is_along_k = true, is_vector = false;
    HiddenLayer layer;
    int first, n_rows;
    float* __restrict__ kept;

    __device__ __forceinline__ float operator()(int i, int k) const {
        const int row = first + i;
        if (row >= layer.n_batch) return 0.0f;
        const float h = row < n_rows ? Activation::forward(layer.activation, layer.z(row, k)) : 0.0f;
        if (kept) kept[row * input_pitch(layer.width) + k] = h;
        return h;
    }
};

// One slice of a layer's z. The grid has tiles across and down, and slices.
template<typename Input>
__device__ __forceinline__ void forward(
    const Input& input, const float* weight, int n_batch, int fan_in, int fan_out, int slice_length, float* slices
) {
    const int begin = blockIdx.z * slice_length, end = min(begin + slice_length, fan_in);
    const int first_row = blockIdx.y * ForwardTile::rows, first_column = blockIdx.x * ForwardTile::columns;
    float sums[ForwardTile::per_thread];
    ForwardTile::multiply(input, Columns<HAS_WEIGHT_VECTORS>{weight, fan_out, first_column, fan_out}, begin, end, sums);
    float* const slice = slices + blockIdx.z * n_batch * pitch(fan_out);
#pragma unroll
    for (int j = 0; j < ForwardTile::per_thread; ++j) {
        const int row = first_row + ForwardTile::row(j), column = first_column + ForwardTile::column(j);
        if (row < n_batch && column < fan_out) slice[row * pitch(fan_out) + column] = sums[j];
    }
}

}  // namespace batches

// --- Launches -------------------------------------------------------------------------------------------------------

// The first batch of a chunk; those after it are gathered by the update before.
extern "C" __global__ void __launch_bounds__(batches::n_threads) fastnet_batches_gather(
    const SAMPLE* __restrict__ x, const batches::Target* __restrict__ targets,
    const float* __restrict__ sample_weight, const long long* __restrict__ order,
    const long long* __restrict__ n_ordered, int n_features, int is_weighted, float input_scale, double fixed_scale,
    int n_batch, const int* __restrict__ step,
    float* batch_x, batches::Target* batch_targets, float* batch_weights, int* batch_n_rows, double* batch_scale
) {
    using namespace batches;
    gather({x, targets, sample_weight, order, n_ordered, n_features, is_weighted, input_scale}, *step, n_batch,
           fixed_scale, blockIdx.x, {batch_x, batch_targets, batch_weights, batch_n_rows, batch_scale});
}

#if N_HIDDEN > 0
// x (B, D) -> slices (S, B, O) of the first layer's z.
extern "C" __global__ void __launch_bounds__(batches::n_threads, 2) fastnet_batches_forward_first(
    const float* __restrict__ x, const float* __restrict__ weight, int n_batch, int fan_in, int fan_out,
    int slice_length, float* __restrict__ slices
) {
    using namespace batches;
    const Rows input = {x, input_pitch(fan_in), int(blockIdx.y) * ForwardTile::rows, n_batch};
    forward(input, weight, n_batch, fan_in, fan_out, slice_length, slices);
}
#endif

#if N_HIDDEN > 1
// The slices of one layer -> its h (B, I), and the slices of the next one.
extern "C" __global__ void __launch_bounds__(batches::n_threads) fastnet_batches_forward_next(
    const float* __restrict__ slices_below, const float* __restrict__ bias_below, int n_slices_below, int activation,
    float* __restrict__ h, const int* __restrict__ n_rows, const float* __restrict__ weight, int n_batch, int fan_in,
    int fan_out, int slice_length, float* __restrict__ slices
) {
    using namespace batches;
    const RowsOfHidden input = {{slices_below, bias_below, n_slices_below, n_batch, fan_in, activation},
                                int(blockIdx.y) * ForwardTile::rows, *n_rows, blockIdx.x == 0 ? h : nullptr};
    forward(input, weight, n_batch, fan_in, fan_out, slice_length, slices);
}

// d_z (B, O) of the layer above -> d_z (B, I) of this one.
extern "C" __global__ void __launch_bounds__(batches::n_threads, 2) fastnet_batches_backward(
    const float* __restrict__ d_z_above, const float* __restrict__ weight, const float* __restrict__ slices,
    const float* __restrict__ bias, int n_slices, int activation, int n_batch, int fan_in, int fan_out,
    float* __restrict__ d_z
) {
    using namespace batches;
    const int first_row = blockIdx.y * ForwardTile::rows, first_unit = blockIdx.x * ForwardTile::columns;
    const Rows above = {d_z_above, pitch(fan_out), first_row, n_batch};
    float d_h[ForwardTile::per_thread];
    ForwardTile::multiply(above, Rows{weight, fan_out, first_unit, fan_in}, 0, fan_out, d_h);
    const HiddenLayer layer = {slices, bias, n_slices, n_batch, fan_in, activation};
#pragma unroll
    for (int j = 0; j < ForwardTile::per_thread; ++j) {
        const int row = first_row + ForwardTile::row(j), unit = first_unit + ForwardTile::column(j);
        if (row < n_batch && unit < fan_in)
            d_z[row * pitch(fan_in) + unit] = Activation::backward(activation, d_h[j], layer.z(row, unit));
    }
}
#endif
