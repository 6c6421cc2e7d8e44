// X as the narrow path reads it, where it is not bytes: every float as two halves in its own 32 bits, high ones below.
//
// Legend: N samples, W numbers of a row, padded; B blocks.

namespace narrow {

constexpr int storage_threads = 256;

}  // namespace narrow

// The largest magnitude in each column of some rows of x (N, W): largest (B, W).
extern "C" __global__ void __launch_bounds__(narrow::storage_threads) fastnet_narrow_column_maxima(
    const float* __restrict__ x, long long n_samples, int width, float* largest
) {
    for (int column = threadIdx.x; column < width; column += narrow::storage_threads) {
        float found = 0.0f;
        for (long long row = blockIdx.x; row < n_samples; row += gridDim.x)
            found = fmaxf(found, fabsf(x[row * width + column]));
        largest[(long long)blockIdx.x * width + column] = found;
    }
}

// In place, x (N, W) by the scale of its column (W,).
extern "C" __global__ void __launch_bounds__(narrow::storage_threads) fastnet_narrow_split(
    float* x, long long n_samples, int width, const float* __restrict__ scales
) {
    for (int column = threadIdx.x; column < width; column += narrow::storage_threads) {
        const float scale = scales[column];
        for (long long row = blockIdx.x; row < n_samples; row += gridDim.x) {
            const float scaled = x[row * width + column] * scale;
            const unsigned short high = half_from_float(scaled);
            const unsigned short low = half_from_float(scaled - float_from_half(high));
            x[row * width + column] = __uint_as_float(pack_halves(high, low));
        }
    }
}
