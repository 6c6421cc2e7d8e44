// Gradients of all layers and the optimizer, in one launch that ends a step and prepares the next one. For what is
// defined, and for the legend, see batches.cu.

namespace batches {

using UpdateTile = Tile<UPDATE_ROWS, UPDATE_COLUMNS>;

// A row of `layers`: offsets in `flat`, in `inputs` and in `d_z`, and the first tile of the layer.
struct Layer {
    int fan_in, fan_out, weight, bias, input, d_z, first_tile;
};
constexpr int layer_numbers = sizeof(Layer) / sizeof(int);

__device__ __forceinline__ Layer find_layer(const int* layers, int n_layers, int tile) {
    while (n_layers > 1 && layers[n_layers * layer_numbers - 1] > tile) --n_layers;
    return ((const Layer*)layers)[n_layers - 1];
}

}  // namespace batches

// The inputs (B, I) and d_z (B, O) of all layers -> parameters and state, or what is added to a gradient (P,): a block
// per tile of a layer's weights, below which are its biases. Ahead of those go n_gathering blocks that gather the next
// batch, and one that writes the figures of this step.
extern "C" __global__ void __launch_bounds__(batches::n_threads, 2) fastnet_batches_update(
    const int* __restrict__ layers, int n_layers, const float* inputs, int x_offset, const float* __restrict__ all_d_z,
    int n_batch, const float* __restrict__ optimizer_constants, const float* __restrict__ lengths,
    const int* __restrict__ step_count, const double* __restrict__ scale, double l2, int l2_averaged, int updates,
    float* flat, float* first_state, float* second_state, float* gradient_out,
    const double* __restrict__ losses, const int* __restrict__ is_correct, const double* __restrict__ squares,
    int n_squares, double* __restrict__ loss_out, double* __restrict__ penalty_out,
    long long* __restrict__ n_correct_out,
    int n_gathering, const SAMPLE* __restrict__ x, const batches::Target* __restrict__ targets,
    const float* __restrict__ sample_weight, const long long* __restrict__ order,
    const long long* __restrict__ n_ordered, int n_features, int is_weighted, float input_scale, double fixed_scale,
    float* next_x, batches::Target* next_targets, float* next_weights, int* next_n_rows, double* next_scale
) {
    using namespace batches;
    if (int(blockIdx.x) < n_gathering) {
        gather({x, targets, sample_weight, order, n_ordered, n_features, is_weighted, input_scale}, *step_count,
               n_batch, fixed_scale, blockIdx.x, {next_x, next_targets, next_weights, next_n_rows, next_scale});
        return;
    }
    const int step = *step_count - 1;
    const double l2_of_step = l2_averaged ? l2 * *scale : l2;

    if (int(blockIdx.x) == n_gathering) {
        double loss = 0, sum_of_squares = 0;
        int n_correct = 0;
        for (int k = threadIdx.x; k < n_batch; k += n_threads) loss += losses[k], n_correct += is_correct[k];
        for (int k = threadIdx.x; k < n_squares; k += n_threads) sum_of_squares += squares[k];
        double* const shared = (double*)shared_memory();
        loss = sum_over_block<N_WARPS>(loss, shared);
        sum_of_squares = sum_over_block<N_WARPS>(sum_of_squares, shared + N_WARPS);
        n_correct = sum_over_block<N_WARPS>(n_correct, (int*)(shared + 2 * N_WARPS));
        if (threadIdx.x == 0) {
            const double penalty = 0.5 * l2_of_step * sum_of_squares;
            loss_out[step] = loss + penalty;
            penalty_out[step] = penalty;
            n_correct_out[step] = n_correct;
        }
        return;
    }

    const int tile_of_all = blockIdx.x - n_gathering - 1;
    const Layer layer = find_layer(layers, n_layers, tile_of_all);
    const int tile = tile_of_all - layer.first_tile;
    const int n_across = (layer.fan_out + UpdateTile::columns - 1) / UpdateTile::columns;
    const int first_row = tile / n_across * UpdateTile::rows, first_column = tile % n_across * UpdateTile::columns;

    // Parameters and state are on their way while the gradient is computed.
    constexpr int n = UpdateTile::per_thread;
    int index[n];
    bool is_weight[n];
    float parameter[n] = {}, first[n] = {}, second[n] = {}, gradient[n];
#pragma unroll
    for (int j = 0; j < n; ++j) {
        const int row = first_row + UpdateTile::row(j), column = first_column + UpdateTile::column(j);
        is_weight[j] = row < layer.fan_in;
        index[j] = is_weight[j] ? layer.weight + row * layer.fan_out + column : layer.bias + column;
        if (column >= layer.fan_out || row >= layer.fan_in + HAS_BIAS) index[j] = -1;
        if (index[j] < 0) continue;
        parameter[j] = flat[index[j]];
        if (!updates) continue;
        if constexpr (OPTIMIZER::n_states > 0) first[j] = first_state[index[j]];
        if constexpr (OPTIMIZER::n_states > 1) second[j] = second_state[index[j]];
    }
    float constants[N_CONSTANTS];
#pragma unroll
    for (int k = 0; k < N_CONSTANTS; ++k) constants[k] = optimizer_constants[k];
    const float rate = lengths[2 * step], decay = lengths[2 * step + 1];

    const float* const input = inputs + layer.input + (layer.input == 0 ? x_offset : 0);
    const int fan_in = layer.fan_in, fan_out = layer.fan_out;
    const Columns<true> left = {input, input_pitch(fan_in), first_row, fan_in + HAS_BIAS};
    const Columns<true> right = {all_d_z + layer.d_z, pitch(fan_out), first_column, fan_out};
    UpdateTile::multiply(left, right, 0, n_batch, gradient);

#pragma unroll
    for (int j = 0; j < n; ++j) {
        if (index[j] < 0) continue;
        if (is_weight[j]) gradient[j] += float(l2_of_step) * parameter[j];
        if (updates) {
            OPTIMIZER::update(
                parameter[j], first[j], second[j], gradient[j], rate, is_weight[j] ? decay : 0.0f, constants);
            flat[index[j]] = parameter[j];
            if constexpr (OPTIMIZER::n_states > 0) first_state[index[j]] = first[j];
            if constexpr (OPTIMIZER::n_states > 1) second_state[index[j]] = second[j];
        } else {
            gradient_out[index[j]] += gradient[j];
        }
    }
}
