// The two products of a step of the narrow path that read X, by tensor cores.
//
// Their factors are fragments: what a lane has to have in its registers. These are read from shared memory by few wide
// loads, for which the order of features, of samples and of rows within a product is chosen; a product's sum does not
// depend on it, as long as both factors have the same.
//
// For what is defined, and for the legend, see narrow.cuh.

namespace narrow {

// --- Products in halves --------------------------------------------------------------------------------------------

// d += a b for several right factors, of all pieces that matter; the small products come first.
template<int n>
__device__ __forceinline__ void multiply(
    float (&d)[n][4], const unsigned (&a)[2][4], const unsigned (&b)[n][x_pieces][2]
) {
    if constexpr (x_pieces == 2) {
#pragma unroll
        for (int j = 0; j < n; ++j) multiply_accumulate(d[j], a[0], b[j][x_pieces - 1]);
    }
#pragma unroll
    for (int j = 0; j < n; ++j) multiply_accumulate(d[j], a[1], b[j][0]);
#pragma unroll
    for (int j = 0; j < n; ++j) multiply_accumulate(d[j], a[0], b[j][0]);
}

// The lower, or the upper two of four bytes as halves.
__device__ __forceinline__ unsigned lower_bytes(unsigned bytes) {
    return halves_minus_1024(__byte_perm(bytes, 0x64646464, 0x4140));
}
__device__ __forceinline__ unsigned upper_bytes(unsigned bytes) {
    return halves_minus_1024(__byte_perm(bytes, 0x64646464, 0x4342));
}

// The high, or the low pieces of two floats.
__device__ __forceinline__ unsigned high_pieces(unsigned first, unsigned second) {
    return __byte_perm(first, second, 0x5410);
}
__device__ __forceinline__ unsigned low_pieces(unsigned first, unsigned second) {
    return __byte_perm(first, second, 0x7632);
}

// --- Forward: z' (16 units, 8 samples) += W1' (16, 16 features) X' (16, 8) -----------------------------------------

// The sample of a column among eight. Of floats, lanes read 16 bytes and not 4: then these rows meet in no bank.
__device__ __forceinline__ int sample_of_column(int column) {
    return X_IN_BYTES ? column : column / 2 + column % 2 * 4;
}

// The right factor: `x` is the tile at a step of features; lane (g, t) has features 4t ... 4t + 3 of column g.
__device__ __forceinline__ void load_samples(const unsigned char* x, Place place, unsigned (&b)[x_pieces][2]) {
    const unsigned char* const from = x + sample_of_column(place.g()) * row_stride + place.t() * 4 * feature_bytes;
    if constexpr (X_IN_BYTES) {
        const unsigned bytes = *(const unsigned*)from;
        b[0][0] = lower_bytes(bytes);
        b[0][1] = upper_bytes(bytes);
    } else {
        const uint4 floats = *(const uint4*)from;
        b[0][0] = high_pieces(floats.x, floats.y);
        b[0][1] = high_pieces(floats.z, floats.w);
        b[x_pieces - 1][0] = low_pieces(floats.x, floats.y);
        b[x_pieces - 1][1] = low_pieces(floats.z, floats.w);
    }
}

// What the features of a warp give: its slice (samples, hidden) of z, not yet unscaled.
__device__ __forceinline__ void forward(const unsigned char* x, const uint4* weights, float* slice, Place place) {
    float z[hidden_tiles][sample_tiles][4] = {};
#pragma unroll
    for (int k = 0; k < warp_steps; ++k) {
        const int step = place.warp * warp_steps + k;
        if (!steps_are_even && step >= feature_steps) break;
        unsigned b[sample_tiles][x_pieces][2];
#pragma unroll
        for (int j = 0; j < sample_tiles; ++j) load_samples(x + step * step_bytes + j * 8 * row_stride, place, b[j]);
#pragma unroll
        for (int m = 0; m < hidden_tiles; ++m) {
            unsigned a[2][4];
#pragma unroll
            for (int piece = 0; piece < 2; ++piece) {
                const uint4 f = weights[((step * hidden_tiles + m) * 2 + piece) * warp_size + place.lane];
                a[piece][0] = f.x, a[piece][1] = f.y, a[piece][2] = f.z, a[piece][3] = f.w;
            }
            multiply(z[m], a, b);
        }
    }
#pragma unroll
    for (int m = 0; m < hidden_tiles; ++m) {
#pragma unroll
        for (int j = 0; j < sample_tiles; ++j) {
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                const int sample = j * 8 + sample_of_column(2 * place.t() + k % 2);
                slice[sample * z_stride + m * 16 + place.g() + k / 2 * 8] = z[m][j][k];
            }
        }
    }
}

// --- Backward: d_W1' (16 units, 8 features) += d_z' (16, 16 samples) X (16, 8) -------------------------------------

// The right factors of `width` tiles of features: `x` is a step of samples at the first feature of a group. Lane (g, t)
// has features width g ..., of which each is column g of another tile, and samples 2t, 2t + 1, 2t + 8, 2t + 9.
template<int width>
__device__ __forceinline__ void load_features(const unsigned char* x, Place place, unsigned (&b)[width][x_pieces][2]) {
    const unsigned char* const from = x + 2 * place.t() * row_stride + place.g() * width * feature_bytes;
    if constexpr (X_IN_BYTES) {
        unsigned bytes[4];
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            const unsigned char* const row = from + (k % 2 + k / 2 * 8) * row_stride;
            bytes[k] = width == 4 ? *(const unsigned*)row : *(const unsigned short*)row;
        }
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            // Bytes of two samples in turn: of the first two features, then of the others.
            const unsigned first = __byte_perm(bytes[2 * half], bytes[2 * half + 1], 0x5140);
            b[0][0][half] = lower_bytes(first);
            b[1][0][half] = upper_bytes(first);
            if constexpr (width == 4) {
                const unsigned second = __byte_perm(bytes[2 * half], bytes[2 * half + 1], 0x7362);
                b[2][0][half] = lower_bytes(second);
                b[3][0][half] = upper_bytes(second);
            }
        }
    } else {
        unsigned floats[4][width];
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            const unsigned char* const row = from + (k % 2 + k / 2 * 8) * row_stride;
            if constexpr (width == 4) {
                const uint4 four = *(const uint4*)row;
                floats[k][0] = four.x, floats[k][1] = four.y, floats[k][2] = four.z, floats[k][3] = four.w;
            } else {
                const uint2 two = *(const uint2*)row;
                floats[k][0] = two.x, floats[k][1] = two.y;
            }
        }
#pragma unroll
        for (int j = 0; j < width; ++j) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                b[j][0][half] = high_pieces(floats[2 * half][j], floats[2 * half + 1][j]);
                b[j][x_pieces - 1][half] = low_pieces(floats[2 * half][j], floats[2 * half + 1][j]);
            }
        }
    }
}

// The left factor: all pieces of d_z of the tile.
using Deltas = unsigned[hidden_tiles][sample_steps][2][4];

__device__ __forceinline__ void load_deltas(const unsigned short* pieces, Place place, Deltas& a) {
#pragma unroll
    for (int m = 0; m < hidden_tiles; ++m) {
#pragma unroll
        for (int step = 0; step < sample_steps; ++step) {
#pragma unroll
            for (int piece = 0; piece < 2; ++piece) {
                const unsigned short* const from =
                    pieces + ((m * 2 + piece) * 16 + place.g()) * pieces_stride + step * 16 + 2 * place.t();
#pragma unroll
                for (int k = 0; k < 4; ++k)
                    a[m][step][piece][k] = *(const unsigned*)(from + k % 2 * 8 * pieces_stride + k / 2 * 8);
            }
        }
    }
}

// Calls f(tile of units, tile of features, number) for all that a lane has of some tiles of d_W1.
template<int n_tiles, typename F> __device__ __forceinline__ void for_each_sum(F f) {
#pragma unroll
    for (int m = 0; m < hidden_tiles; ++m) {
#pragma unroll
        for (int j = 0; j < n_tiles; ++j) {
#pragma unroll
            for (int k = 0; k < 4; ++k) f(m, j, k);
        }
    }
}

// What a tile of samples adds to `width` tiles of features, from number `first` on. Tensor cores round toward zero. So
// where there are many tiles, each one's sum starts from zero and is added to the others as floats are.
template<int width>
__device__ __forceinline__ void add_group(
    const unsigned char* x, const Deltas& a, Place place, float (&sums)[hidden_tiles][feature_tiles][4], int first
) {
    float d[hidden_tiles][width][4];
    for_each_sum<width>([&](int m, int j, int k) {
        d[m][j][k] = SUMS_STAY_IN_TENSOR_CORES ? sums[m][first + j][k] : 0.0f;
    });
#pragma unroll
    for (int step = 0; step < sample_steps; ++step) {
        unsigned b[width][x_pieces][2];
        load_features<width>(x + step * 16 * row_stride, place, b);
#pragma unroll
        for (int m = 0; m < hidden_tiles; ++m) multiply(d[m], a[m][step], b);
    }
    for_each_sum<width>([&](int m, int j, int k) {
        sums[m][first + j][k] = SUMS_STAY_IN_TENSOR_CORES ? d[m][j][k] : sums[m][first + j][k] + d[m][j][k];
    });
}

// The same for d_b1: a bias is the weight of a feature that is one everywhere. All columns of the tile are alike.
__device__ __forceinline__ void add_bias_gradients(const Deltas& a, Tally& tally) {
    const unsigned ones[2] = {0x3c003c00, 0x3c003c00};
#pragma unroll
    for (int m = 0; m < hidden_tiles; ++m) {
        float d[4] = {};
#pragma unroll
        for (int step = 0; step < sample_steps; ++step) {
            multiply_accumulate(d, a[m][step][1], ones);
            multiply_accumulate(d, a[m][step][0], ones);
        }
#pragma unroll
        for (int k = 0; k < 4; ++k) tally.d_b1[m][k] += d[k];
    }
}

__device__ __forceinline__ void backward(
    const unsigned char* x, const unsigned short* pieces, Place place,
    float (&sums)[hidden_tiles][feature_tiles][4], Tally& tally
) {
    Deltas a;
    load_deltas(pieces, place, a);
    const unsigned char* const from = x + place.warp * warp_steps * step_bytes;
#pragma unroll
    for (int group = 0; group < n_groups; ++group) {
        if (!steps_are_even && place.warp * warp_steps + 2 * group >= feature_steps) break;
        add_group<4>(from + group * 2 * step_bytes, a, place, sums, 4 * group);
    }
    if constexpr (warp_steps % 2 == 1) {
        if (steps_are_even || place.warp * warp_steps + 2 * n_groups < feature_steps)
            add_group<2>(from + n_groups * 2 * step_bytes, a, place, sums, 4 * n_groups);
    }
    if (HAS_BIAS && place.warp == team_warps - 1) add_bias_gradients(a, tally);
}

}  // namespace narrow
