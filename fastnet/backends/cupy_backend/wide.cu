// The first layer of a wide network, around products of halves that cuBLAS makes.
//
// A float is the sum of two halves: `high`, to 11 bits, and `low`, the 11 bits after them, stored 2048 times as large so
// that it has its 11 bits wherever `high` has. Both are of the float times a scale, a power of two that brings the
// largest float of a matrix just below 2^15, where half the range of halves is still free for rounding up.
//
// What is defined when this is compiled: ACTIVATION, that of the layer.
//
// Legend: R rows and C columns of a matrix, S its columns with the padding; D features, H units of the layer; K batches
// of samples, whose products are added.

namespace wide {

constexpr int n_threads = 256;
constexpr float low_scale = 2048;

// The largest `value` of the block, for all its threads.
__device__ __forceinline__ float largest_in_block(float value) {
    float* values = (float*)shared_memory();
    const int thread = threadIdx.y * blockDim.x + threadIdx.x;
    values[thread] = value;
    for (int distance = n_threads / 2; distance > 0; distance /= 2) {
        __syncthreads();
        if (thread < distance) values[thread] = fmax(values[thread], values[thread + distance]);
    }
    __syncthreads();
    return values[0];
}

// Which element a thread begins with, and how far it goes, where threads in x share the columns and others the rows.
__device__ __forceinline__ long long first_row() { return (long long)blockIdx.x * blockDim.y + threadIdx.y; }
__device__ __forceinline__ long long row_stride() { return (long long)gridDim.x * blockDim.y; }

}  // namespace wide

// values (n_values,) -> largest (gridDim.x,): the largest magnitudes, each of the values of a block. NaN are passed over.
extern "C" __global__ void __launch_bounds__(wide::n_threads) fastnet_largest(
    const float* __restrict__ values, long long n_values, float* __restrict__ largest
) {
    float found = 0.0f;
    for (long long i = (long long)blockIdx.x * wide::n_threads + threadIdx.x; i < n_values;
         i += (long long)gridDim.x * wide::n_threads)
        found = fmax(found, fabs(values[i]));
    found = wide::largest_in_block(found);
    if (threadIdx.x == 0) largest[blockIdx.x] = found;
}

// values (R, C), largest (n_largest,) -> halves (>= R, 2, S), high then low, and the scale's `inverse` (1,). Padding is
// left as it is.
extern "C" __global__ void __launch_bounds__(wide::n_threads) fastnet_split(
    const float* __restrict__ values, long long n_rows, int n_columns, int n_padded,
    const float* __restrict__ largest, int n_largest, unsigned short* __restrict__ halves, float* __restrict__ inverse
) {
    const int thread = threadIdx.y * blockDim.x + threadIdx.x;
    float found = 0.0f;
    for (int k = thread; k < n_largest; k += wide::n_threads) found = fmax(found, largest[k]);
    found = wide::largest_in_block(found);
    // With exponent e, as it is stored, `found` is below 2^(e - 126). Both 2^(141 - e) and its inverse shall be floats.
    const int exponent = max(__float_as_int(found) >> 23, 15);
    const float scale = __int_as_float((268 - exponent) << 23);
    if (blockIdx.x == 0 && thread == 0) inverse[0] = __int_as_float((exponent - 14) << 23);

    for (long long row = wide::first_row(); row < n_rows; row += wide::row_stride()) {
        for (int column = threadIdx.x; column < n_columns; column += blockDim.x) {
            const float scaled = scale * values[row * n_columns + column];
            const unsigned short high = half_from_float(scaled);
            const float rest = wide::low_scale * (scaled - float_from_half(high));
            halves[row * 2 * n_padded + column] = high;
            halves[(row * 2 + 1) * n_padded + column] = half_from_float(rest);
        }
    }
}

// product (R, 2, S), of X with high and low halves of the weights -> z = scale * product + bias and h, both (R, C). The
// two may be one array where the activation is the identity.
extern "C" __global__ void __launch_bounds__(wide::n_threads) fastnet_finish_layer(
    const float* __restrict__ product, const float* __restrict__ inverse, float input_scale,
    const float* __restrict__ bias, long long n_rows, int n_columns, int n_padded, float* z_out, float* h_out
) {
    const float scale = input_scale * inverse[0];
    for (long long row = wide::first_row(); row < n_rows; row += wide::row_stride()) {
        for (int column = threadIdx.x; column < n_columns; column += blockDim.x) {
            const float high = product[row * 2 * n_padded + column];
            const float low = product[(row * 2 + 1) * n_padded + column];
            const float z = scale * (high + low * (1.0f / wide::low_scale)) + bias[column];
            z_out[row * n_columns + column] = z;
            h_out[row * n_columns + column] = ACTIVATION<float>::forward(z);
        }
    }
}

// partial (K, >= D, 2, S), products of batches of X with halves of d_z -> their sum, scaled: the gradient (D, H).
extern "C" __global__ void __launch_bounds__(wide::n_threads) fastnet_add_batches(
    const float* __restrict__ partial, int n_batches, const float* __restrict__ inverse, float input_scale,
    long long n_rows, long long n_padded_rows, int n_columns, int n_padded, float* __restrict__ gradient
) {
    const float scale = input_scale * inverse[0];
    const long long batch_stride = n_padded_rows * 2 * n_padded;
    for (long long row = wide::first_row(); row < n_rows; row += wide::row_stride()) {
        for (int column = threadIdx.x; column < n_columns; column += blockDim.x) {
            const float* halves = partial + row * 2 * n_padded + column;
            float high = 0.0f, low = 0.0f;
#pragma unroll 4
            for (int batch = 0; batch < n_batches; ++batch) {
                high += halves[0];
                low += halves[n_padded];
                halves += batch_stride;
            }
            gradient[row * n_columns + column] = scale * (high + low * (1.0f / wide::low_scale));
        }
    }
}
