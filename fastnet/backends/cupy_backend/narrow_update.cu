// Narrow networks, full batch: the elements of all blocks added up, the optimizer, and W1 in halves for the next step.
//
// No number that has to be in the range of halves is trusted to be: a step's largest d_z and its largest weight are
// looked at before anything is changed. Where one is out of range, the update leaves all as it is and freezes the run:
// steps after it return at once and updates find the same again, until the host has chosen other scales.
//
// For what is defined, and for the legend, see narrow.cuh.

namespace narrow {

constexpr int segments = 8, update_threads = segments * warp_size;
constexpr int update_blocks = n_elements / warp_size;

// What the weights are that a step begins with, by block of the update that made them. Two of each: those of the step
// that is being made, and those of the next one.
struct WeightFigures {
    double* squares;  // (2, U), sums
    float* largest;   // (2, U), scaled as its halves are
};

// Whether two halves hold numbers of up to `largest` too badly: some of them not at all, or all of them with fewer bits
// than they should. What is not finite is nobody's fault here; it is told by the loss.
__device__ __forceinline__ bool leaves_range(float largest, float scale) {
    const bool is_too_large = largest > LARGEST_IN_RANGE && !isinf(largest);
    const bool is_too_small = largest > 0.0f && largest < SMALLEST_IN_RANGE && scale < LARGEST_SCALE;
    return is_too_large || is_too_small;
}

__device__ __forceinline__ float largest_of_warp(float value) {
#pragma unroll
    for (int distance = warp_size / 2; distance > 0; distance /= 2)
        value = fmaxf(value, __shfl_xor_sync(whole_warp, value, distance));  // which passes NaN over
    return value;
}

template<typename T> __device__ __forceinline__ T sum_over_warp(T value) {
#pragma unroll
    for (int distance = warp_size / 2; distance > 0; distance /= 2)
        value += __shfl_xor_sync(whole_warp, value, distance);
    return value;
}

// Of a warp, which has the parameters of one block of elements: writes those of W1 as halves, and the block's figures.
__device__ __forceinline__ void publish(
    Element element, float parameter, int block, const float* __restrict__ feature_unscales,
    const float* __restrict__ scales, unsigned short* fragments, WeightFigures figures, int step
) {
    float scaled = 0.0f;
    if (element.kind == WEIGHT_1) {
        scaled = parameter * (scales[WEIGHT_SCALE] * feature_unscales[element.feature]);
        const Halves halves = split(scaled);
        fragments[half_of_fragments(element.feature, element.unit, 0)] = halves.high;
        fragments[half_of_fragments(element.feature, element.unit, 1)] = halves.low;
    }
    const float largest = largest_of_warp(fabsf(scaled));
    const int at = step % 2 * update_blocks + block;
    if (threadIdx.x == 0) figures.largest[at] = largest;
    if constexpr (HAS_PENALTY) {
        const bool is_weight = element.kind == WEIGHT_1 || element.kind == WEIGHT_2;
        const double squares = sum_over_warp(is_weight ? double(parameter) * parameter : 0.0);
        if (threadIdx.x == 0) figures.squares[at] = squares;
    }
}

// The sum of an element over a segment of the step's blocks.
__device__ __forceinline__ float sum_over_blocks(const float* __restrict__ elements, int n_blocks, int segment) {
    const int size = ceil_div(n_blocks, segments), end = min((segment + 1) * size, n_blocks);
    float sum = 0.0f;
#pragma unroll 8
    for (int block = segment * size; block < end; ++block) sum += elements[(long long)block * n_elements];
    return sum;
}

// The largest of what the threads of a warp have looked at, which are all values in all warps of the block.
__device__ __forceinline__ float largest_in(const float* __restrict__ values, int n) {
    float largest = 0.0f;
    for (int k = threadIdx.x; k < n; k += update_threads) largest = fmaxf(largest, values[k]);
    return largest_of_warp(largest);
}

// A parameter with its state, of a thread.
struct Owned {
    Element element;
    float value, first, second;

    __device__ __forceinline__ void load(const float* flat, const float* first_state, const float* second_state) {
        if (element.kind == PADDING) return;
        const int index = element.index();
        value = flat[index];
        if constexpr (OPTIMIZER::n_states > 0) first = first_state[index];
        if constexpr (OPTIMIZER::n_states > 1) second = second_state[index];
    }

    __device__ __forceinline__ void store(float* flat, float* first_state, float* second_state) const {
        const int index = element.index();
        flat[index] = value;
        if constexpr (OPTIMIZER::n_states > 0) first_state[index] = first;
        if constexpr (OPTIMIZER::n_states > 1) second_state[index] = second;
    }

    __device__ __forceinline__ bool is_weight() const {
        return element.kind == WEIGHT_1 || element.kind == WEIGHT_2;
    }
};

// What the step's blocks, and those of the update before it, have found: sums over both, of a warp.
struct StepFigures {
    double loss, squares;
    long long n_correct;
};

__device__ __forceinline__ StepFigures sum_figures(
    const double* __restrict__ losses, const int* __restrict__ correct, int n_blocks, const double* squares
) {
    const int lane = threadIdx.x % warp_size;
    StepFigures sum = {};
    for (int k = lane; k < n_blocks; k += warp_size) {
        sum.loss += losses[k];
        sum.n_correct += correct[k];
    }
    if constexpr (HAS_PENALTY) {
        for (int k = lane; k < update_blocks; k += warp_size) sum.squares += squares[k];
    }
    return {sum_over_warp(sum.loss), sum_over_warp(sum.squares), sum_over_warp(sum.n_correct)};
}

}  // namespace narrow

// --- Launches of 32 threads per 32 elements: (U,) blocks -----------------------------------------------------------

// W1 in halves, as the update would have made them: for a run that begins with other parameters or other scales.
extern "C" __global__ void __launch_bounds__(narrow::warp_size) fastnet_narrow_prepare(
    const float* __restrict__ flat, const float* __restrict__ feature_unscales, const float* __restrict__ scales,
    const int* __restrict__ step, unsigned short* fragments, double* squares, float* largest_weight
) {
    using namespace narrow;
    const Element element = element_at(blockIdx.x * warp_size + threadIdx.x);
    const float parameter = element.kind == PADDING ? 0.0f : flat[element.index()];
    publish(element, parameter, blockIdx.x, feature_unscales, scales, fragments, {squares, largest_weight}, *step);
}

// --- Launches of 256 threads per 32 elements: (U,) blocks ----------------------------------------------------------

// `scale` makes the objective's gradient of a sum over samples; `input_scale` is that of X, `l2` of the penalty. Unless
// it `updates`, it writes the gradient (P,) and changes nothing else; its figures are those of step 0 then.
extern "C" __global__ void __launch_bounds__(narrow::update_threads) fastnet_narrow_update(
    const float* __restrict__ elements, const double* __restrict__ losses, const int* __restrict__ correct,
    const float* __restrict__ largest_delta, int n_blocks,
    const float* __restrict__ feature_unscales, const float* __restrict__ scales,
    double scale, double input_scale, double l2,
    const float* __restrict__ lengths, const float* __restrict__ optimizer_constants,
    float* flat, float* first_state, float* second_state,
    unsigned short* fragments, double* squares, float* largest_weight,
    int* status, int* step_out, double* loss_out, double* penalty_out, long long* n_correct_out,
    float* gradient_out, int updates
) {
    using namespace narrow;
    const int step = status[CURRENT_STEP], lane = threadIdx.x % warp_size, segment = threadIdx.x / warp_size;
    const int position = blockIdx.x * warp_size + lane;
    const bool has_parameters = segment == 0, has_figures = blockIdx.x == 0 && segment == 1;
    float* const sums = (float*)shared_memory();                // (segments, 32)
    float* const largest_deltas = sums + segments * warp_size;  // (segments,)
    float* const largest_weights = largest_deltas + segments;   // (segments,)

    // All that has to come from far is asked for before anything is waited for.
    Owned owned = {};
    StepFigures figures = {};
    if (has_parameters) {
        owned.element = element_at(position);
        owned.load(flat, first_state, second_state);
    }
    if (has_figures) figures = sum_figures(losses, correct, n_blocks, squares + step % 2 * update_blocks);
    const float delta_scale = scales[DELTA_SCALE], weight_scale = scales[WEIGHT_SCALE];
    const float rate = updates ? lengths[2 * step] : 0.0f;
    const float decay = updates && owned.is_weight() ? lengths[2 * step + 1] : 0.0f;
    sums[threadIdx.x] = sum_over_blocks(elements + position, n_blocks, segment);
    const float delta = largest_in(largest_delta, n_blocks);
    const float weight = largest_in(largest_weight + step % 2 * update_blocks, update_blocks);
    if (lane == 0) {
        largest_deltas[segment] = delta;
        largest_weights[segment] = weight;
    }
    __syncthreads();

    float largest[2] = {};
#pragma unroll
    for (int k = 0; k < segments; ++k) {
        largest[0] = fmaxf(largest[0], largest_deltas[k]);
        largest[1] = fmaxf(largest[1], largest_weights[k]);
    }
    if (leaves_range(largest[0], delta_scale) || leaves_range(largest[1], weight_scale)) {
        if (blockIdx.x == 0 && threadIdx.x == 0) status[FROZEN] = 1;
        return;
    }

    if (has_parameters) {
        const Element element = owned.element;
        if (element.kind != PADDING) {
            double sum = 0.0;
#pragma unroll
            for (int k = 0; k < segments; ++k) sum += sums[k * warp_size + lane];
            double factor = scale;
            if (element.kind == WEIGHT_1) factor *= input_scale * feature_unscales[element.feature];
            if (element.kind == WEIGHT_1 || element.kind == BIAS_1) factor *= scales[DELTA_UNSCALE];
            float gradient = float(sum * factor);
            if (HAS_PENALTY && owned.is_weight()) gradient += float(l2) * owned.value;
            if (updates) {
                OPTIMIZER::update(
                    owned.value, owned.first, owned.second, gradient, rate, decay, optimizer_constants);
                owned.store(flat, first_state, second_state);
            } else {
                gradient_out[element.index()] = gradient;
            }
        }
        if (updates)
            publish(
                element, owned.value, blockIdx.x, feature_unscales, scales, fragments, {squares, largest_weight},
                step + 1);
    }

    if (has_figures && lane == 0) {
        const int at = updates ? step : 0;
        const double penalty = 0.5 * l2 * figures.squares;
        loss_out[at] = scale * figures.loss + penalty;
        penalty_out[at] = penalty;
        n_correct_out[at] = figures.n_correct;
        if (updates) *step_out = step + 1;
    }
}
