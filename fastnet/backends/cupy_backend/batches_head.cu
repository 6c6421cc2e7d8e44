// From the last hidden layer to the loss and back, a warp per sample. For what is defined, and for the legend, see
// batches.cu.

// The last hidden layer's slices, or x where there is none -> d_logits (B, C); losses and whether they are predicted
// right (B,); and h and d_z (B, I) of the hidden layer. Blocks beyond those of the samples sum the squares of all
// weights (Q,). The first thread counts the step, before the update looks at the count. Shared memory holds I (C | 1)
// floats, and I for each warp.
extern "C" __global__ void __launch_bounds__(batches::head_threads) fastnet_batches_head(
    const float* __restrict__ input, const float* __restrict__ bias_below, int n_slices, int activation,
    const float* __restrict__ weight, const float* __restrict__ bias,
    const batches::Target* __restrict__ targets, const float* __restrict__ sample_weight,
    const int* __restrict__ n_rows_of_batch, const double* __restrict__ scale, int n_batch, int fan_in, int is_weighted,
    const float* __restrict__ all_weights, int n_weights, int n_squares,
    float* __restrict__ h_out, float* __restrict__ d_z_out, float* __restrict__ d_logits, double* __restrict__ losses,
    int* __restrict__ is_correct, double* __restrict__ squares, int* step
) {
    using namespace batches;
    constexpr int weight_pitch = N_OUTPUTS | 1;  // odd, so that lanes read different banks
    float* const weights = (float*)shared_memory();
    float* const below = weights + fan_in * weight_pitch + warp() * fan_in;  // z, or x, of the warp's sample
    const int n_sample_blocks = gridDim.x - n_squares, row = blockIdx.x * HEAD_WARPS + warp();

    if (blockIdx.x == 0 && threadIdx.x == 0) ++*step;

    if (int(blockIdx.x) >= n_sample_blocks) {
        const int part = blockIdx.x - n_sample_blocks;
        float sum = 0;
#pragma unroll 8
        for (int k = part * head_threads + threadIdx.x; k < n_weights; k += n_squares * head_threads)
            sum += all_weights[k] * all_weights[k];
        const double total = sum_over_block<HEAD_WARPS>(double(sum), (double*)shared_memory());
        if (threadIdx.x == 0) squares[part] = total;
        return;
    }

#pragma unroll 8
    for (int k = threadIdx.x; k < fan_in * N_OUTPUTS; k += head_threads)
        weights[k / N_OUTPUTS * weight_pitch + k % N_OUTPUTS] = weight[k];
    constexpr int n_at_once = 4;
    for (int first = lane(); row < n_batch && first < fan_in; first += n_at_once * warp_size) {
        float numbers[n_at_once];
#pragma unroll
        for (int j = 0; j < n_at_once; ++j) {
            const int k = min(first + j * warp_size, fan_in - 1);
            if constexpr (N_HIDDEN > 0) {
                numbers[j] = HiddenLayer{input, bias_below, n_slices, n_batch, fan_in, activation}.z(row, k);
            } else {
                numbers[j] = input[row * input_pitch(fan_in) + k];
            }
        }
#pragma unroll
        for (int j = 0; j < n_at_once; ++j)
            if (first + j * warp_size < fan_in) below[first + j * warp_size] = numbers[j];
    }
    const int n_rows = *n_rows_of_batch;
    const bool is_sample = row < n_rows;
    __syncthreads();  // the weights are there
    if (row >= n_batch) return;

    float logits[N_OUTPUTS] = {};
    for (int k = lane(); k < fan_in; k += warp_size) {
        float h = below[k];
        if constexpr (N_HIDDEN > 0) {
            h = Activation::forward(activation, h);
            h_out[row * input_pitch(fan_in) + k] = is_sample ? h : 0.0f;
        }
#pragma unroll
        for (int c = 0; c < N_OUTPUTS; ++c) logits[c] += h * weights[k * weight_pitch + c];
    }
#pragma unroll
    for (int distance = warp_size / 2; distance > 0; distance /= 2)
#pragma unroll
        for (int c = 0; c < N_OUTPUTS; ++c) logits[c] += __shfl_xor_sync(whole_warp, logits[c], distance);
#pragma unroll
    for (int c = 0; c < N_OUTPUTS; ++c) logits[c] += HAS_BIAS ? bias[c] : 0.0f;

    // All lanes have the logits, and do the same.
    const auto target = fastnet::for_head(targets + row * n_targets);
    const double factor = *scale * (is_weighted ? double(sample_weight[row]) : 1.0);
    const int right = TASK::is_correct(logits, target, N_OUTPUTS);
    const float loss = HEAD::evaluate(logits, target, N_OUTPUTS, logits);
    if (lane() == 0) {
        losses[row] = is_sample ? factor * loss : 0.0;
        is_correct[row] = is_sample ? right : 0;
    }
#pragma unroll
    for (int c = 0; c < N_OUTPUTS; ++c) {
        logits[c] = is_sample ? float(factor) * logits[c] : 0.0f;  // d_logits by now
        if (lane() == c % warp_size) d_logits[row * pitch(N_OUTPUTS) + c] = logits[c];
    }
    if constexpr (N_HIDDEN > 0) {
        for (int k = lane(); k < fan_in; k += warp_size) {
            float d_h = 0;
#pragma unroll
            for (int c = 0; c < N_OUTPUTS; ++c) d_h += logits[c] * weights[k * weight_pitch + c];
            d_z_out[row * pitch(fan_in) + k] = is_sample ? Activation::backward(activation, d_h, below[k]) : 0.0f;
        }
    }
}
