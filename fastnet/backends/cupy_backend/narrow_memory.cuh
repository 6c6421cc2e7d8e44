// Where a step of the narrow path has its numbers in shared memory, and how they get there.
//
// Strides there are such that the lanes of a load or a store meet in no bank, or in few.
//
// For what is defined, and for the legend, see narrow.cuh.

namespace narrow {

// --- Shared memory -------------------------------------------------------------------------------------------------

constexpr int samples = TILE_SAMPLES, sample_tiles = samples / 8, sample_steps = samples / 16;

// X in global memory: bytes, or two halves of a float in 32 bits, low ones above; whole steps of features.
constexpr int feature_bytes = X_IN_BYTES ? 1 : 4, x_pieces = X_IN_BYTES ? 1 : 2;
constexpr int step_bytes = 16 * feature_bytes, row_bytes = feature_steps * step_bytes;
constexpr int row_stride = round_up(row_bytes - 16, 128) + 16;  // in shared memory: four banks on from row to row

// What goes with a sample: its label, or its targets, then its weight; whole units of 16 bytes.
constexpr int n_targets = TAKES_LABELS ? 1 : n_outputs, record_words = round_up(n_targets + 1, 4);

#if TAKES_LABELS
__device__ __forceinline__ fastnet::ClassLabel targets_in(const float* record) { return {__float_as_int(record[0])}; }
#else
__device__ __forceinline__ fastnet::TargetRow<float> targets_in(const float* record) { return {record}; }
#endif

constexpr int z_stride = hidden + 4;                       // floats, from sample to sample
constexpr int logits_stride = outputs / 4 % 2 ? outputs : outputs + 4;
constexpr int pieces_stride = samples + 8;                 // halves, from unit to unit
constexpr int z_slices = team_warps > 2 ? team_warps : 2;  // of all samples

// The weights of a unit of W2. Four units from one lane to the next are then 16 banks on, or a few more or less.
__device__ constexpr int weight_2_row(int unit) { return 20 * unit + unit / 8 * 8 + unit / 16 * 4; }

// Offsets in bytes. What all teams share:
constexpr int scales_bytes_at = fragments_bytes, b1_bytes_at = scales_bytes_at + 16;
constexpr int b2_bytes_at = b1_bytes_at + hidden * 4, w2_bytes_at = b2_bytes_at + 16 * 4;
constexpr int common_bytes = round_up(w2_bytes_at + weight_2_row(hidden) * 4, 128);

// And within what a team has of its own:
constexpr int x_at = 0, records_at = x_at + N_STAGES * samples * row_stride;
constexpr int z_at = records_at + N_STAGES * samples * record_words * 4;
constexpr int logits_at = z_at + z_slices * samples * z_stride * 4;
constexpr int pieces_at = logits_at + samples * logits_stride * 4;
constexpr int team_bytes = round_up(pieces_at + hidden_tiles * 2 * 16 * pieces_stride * 2, 128);

// After the last tile all of that is overwritten by the sums of all threads,
constexpr int thread_values = fragment_values + 5 * thread_quads, sums_bytes = thread_values * n_threads * 4;
constexpr int steps_bytes = common_bytes + n_teams * team_bytes;

// but not what the lanes of each team's last warp keep here rather than in registers, nor the largest d_z of each warp.
struct Tally {
    double loss;
    int n_correct;
    float d_b1[hidden_tiles][4];
};
constexpr int tallies_at = sums_bytes > steps_bytes ? sums_bytes : steps_bytes;
constexpr int largest_at = tallies_at + n_teams * warp_size * sizeof(Tally);

static_assert(
    largest_at + n_warps * 4 == SHARED_BYTES && row_bytes == ROW_BYTES && record_words == RECORD_WORDS &&
        fragments_bytes == FRAGMENT_BYTES && n_elements == N_ELEMENTS,
    "narrow_layout.py reckons otherwise");

__device__ __forceinline__ float4 load_4(const float* address) { return *(const float4*)address; }

struct Place {
    int team, warp, lane, member;  // warp and member within the team

    __device__ __forceinline__ int g() const { return lane / 4; }
    __device__ __forceinline__ int t() const { return lane % 4; }
};

// --- Copies --------------------------------------------------------------------------------------------------------

// A tile's rows of 16-byte units, which are adjacent in global memory; zeros from number `n_valid` on, if not all are.
template<int units, int stride, bool all_are_valid>
__device__ __forceinline__ void copy_units(unsigned char* to, const unsigned char* from, int n_valid, int member) {
#pragma unroll
    for (int round = 0; round < ceil_div(samples * units, team_threads); ++round) {
        const int k = round * team_threads + member;
        if ((round + 1) * team_threads > samples * units && k >= samples * units) break;
        const bool is_valid = all_are_valid || k < n_valid;
        copy_async_16(to + k * 16 + k / units * (stride - units * 16), from + (is_valid ? k : 0) * 16, is_valid);
    }
}

template<int units, int stride>
__device__ __forceinline__ void copy_rows(
    unsigned char* to, const unsigned char* __restrict__ rows, int tile, int n_samples, int member
) {
    const long long first = (long long)tile * samples;
    const unsigned char* const from = rows + first * (units * 16);
    if (first + samples <= n_samples) copy_units<units, stride, true>(to, from, 0, member);
    else copy_units<units, stride, false>(to, from, int(n_samples - first) * units, member);
}

// W2 and the biases, with zeros for what there is not, and what is between them and products in halves.
__device__ __forceinline__ void load_parameters(
    const float* __restrict__ flat, const float* __restrict__ scales, float input_scale, unsigned char* common
) {
    if (threadIdx.x == 0)
        *(float2*)(common + scales_bytes_at) = {input_scale * scales[WEIGHT_UNSCALE], scales[DELTA_SCALE]};
    float* const bias_1 = (float*)(common + b1_bytes_at);
    float* const bias_2 = (float*)(common + b2_bytes_at);
    float* const weight_2 = (float*)(common + w2_bytes_at);
    const float* const biases = flat + n_features * n_hidden + n_hidden * n_outputs;
    for (int k = threadIdx.x; k < hidden; k += n_threads)
        bias_1[k] = HAS_BIAS && k < n_hidden ? biases[k] : 0.0f;
    for (int k = threadIdx.x; k < outputs; k += n_threads)
        bias_2[k] = HAS_BIAS && k < n_outputs ? biases[n_hidden + k] : 0.0f;
    for (int k = threadIdx.x; k < hidden * outputs; k += n_threads) {
        const int unit = k / outputs, output = k % outputs;
        const bool exists = unit < n_hidden && output < n_outputs;
        weight_2[weight_2_row(unit) + output] =
            exists ? flat[n_features * n_hidden + unit * n_outputs + output] : 0.0f;
    }
}

}  // namespace narrow
