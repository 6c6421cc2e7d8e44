// What the kernels of the narrow path share: sizes, how numbers are split into halves, and which sums a step leaves.
//
// The network is D -> H -> C with one hidden layer of one or two tiles of 16 units, the rows of tensor cores' factors.
//
// A float32 number w is two halves: high = half(w S), low = half(w S - high) with a power of two S, so that w S is
// high + low to 22 bits, or to 2^-25 where it is small. Products of halves are exact in float32. Bytes are halves.
//
// What is defined when this is compiled: N_FEATURES, N_HIDDEN, N_OUTPUTS; HAS_BIAS; TAKES_LABELS; X_IN_BYTES;
// ACTIVATION, HEAD, TASK, OPTIMIZER; HAS_PENALTY; N_TEAMS of warps in a block, TEAM_WARPS of each, WARP_STEPS;
// TILE_SAMPLES, N_STAGES, SUMS_STAY_IN_TENSOR_CORES; LARGEST_IN_RANGE, SMALLEST_IN_RANGE, LARGEST_SCALE; and sizes that
// are reckoned here again, SHARED_BYTES, ROW_BYTES, RECORD_WORDS, FRAGMENT_BYTES, N_ELEMENTS.
//
// Legend: N samples, D features, H hidden units, C outputs, P parameters, K steps of a chunk, B blocks of a step,
// E elements, which are the sums that each of them leaves, U blocks of an update, 32 elements for each.
// z pre-activation, h activation, d_<name> gradient with respect to <name>.
// A warp's lane is 4 g + t, with g from 0 to 7 and t from 0 to 3, as in the fragments of `multiply_accumulate`.

namespace narrow {

constexpr int warp_size = 32;
constexpr unsigned whole_warp = 0xffffffff;

__device__ constexpr int ceil_div(int n, int size) { return (n + size - 1) / size; }
__device__ constexpr int round_up(int n, int size) { return ceil_div(n, size) * size; }

constexpr int n_features = N_FEATURES, n_hidden = N_HIDDEN, n_outputs = N_OUTPUTS;

// --- How the work is shared out ------------------------------------------------------------------------------------

// A product runs over 16 features at a time, a step of it. Each warp of a team has its own.
constexpr int feature_steps = ceil_div(n_features, 16), warp_steps = WARP_STEPS;
constexpr int team_warps = TEAM_WARPS, team_threads = team_warps * warp_size;
constexpr int n_teams = N_TEAMS, n_threads = n_teams * team_threads, n_warps = n_teams * team_warps;
constexpr bool steps_are_even = warp_steps * team_warps == feature_steps;

constexpr int hidden_tiles = ceil_div(n_hidden, 16), hidden = 16 * hidden_tiles;  // with padding
constexpr int outputs = round_up(n_outputs, 4);                                   // likewise

// d_W1 is made in tiles of 8 features. Lanes read 4 adjacent features of a group of 32 and thus serve four tiles with
// every fourth feature each; a single step that is left over is a group of 16, of which they read 2.
constexpr int feature_tiles = 2 * warp_steps, n_groups = warp_steps / 2;

// The feature of a column (0 to 7) of a warp's feature tile.
__device__ __forceinline__ int feature_of(int warp, int tile, int column) {
    const int group = tile / 4, width = group < n_groups ? 4 : 2;
    return warp * warp_steps * 16 + group * 32 + column * width + tile % 4;
}

// --- Elements: the sums of a block over its samples ----------------------------------------------------------------
//
// First d_W1, as the threads of a team have it in registers: for each of fragment_values, team_threads numbers.
constexpr int fragment_values = hidden_tiles * feature_tiles * 4, n_fragment_elements = fragment_values * team_threads;

// Then d_W2: four units and an output make a quad. Threads have a quad each, for a part of the samples where there are
// more threads than quads; or several. First four numbers of each quad, then one, the gradient of its output's bias,
// which quads of other units have as well.
constexpr int n_quads = hidden / 4 * n_outputs, thread_quads = ceil_div(n_quads, team_threads);
constexpr int quad_threads = n_quads < team_threads ? n_quads : team_threads;
constexpr int sample_parts = team_threads / quad_threads;
constexpr int quads_at = n_fragment_elements, bias_2_at = quads_at + 4 * n_quads;

// At last d_b1.
constexpr int bias_1_at = bias_2_at + n_quads, n_elements = round_up(bias_1_at + hidden, warp_size);

enum Kind { PADDING, WEIGHT_1, WEIGHT_2, BIAS_1, BIAS_2 };

// Which parameter an element is the gradient of.
struct Element {
    Kind kind;
    int feature, unit, output;  // as far as it has them

    // Its place among all parameters, which lie W1 (D, H), W2 (H, C), b1 (H,), b2 (C,).
    __device__ __forceinline__ int index() const {
        constexpr int weight_2 = n_features * n_hidden, bias_1 = weight_2 + n_hidden * n_outputs;
        if (kind == WEIGHT_1) return feature * n_hidden + unit;
        if (kind == WEIGHT_2) return weight_2 + unit * n_outputs + output;
        return kind == BIAS_1 ? bias_1 + unit : bias_1 + n_hidden + output;
    }
};

__device__ __forceinline__ Element element_at(int position) {
    Element element = {PADDING, 0, 0, 0};
    if (position < n_fragment_elements) {
        const int value = position / team_threads, member = position % team_threads;
        const int lane = member % warp_size, g = lane / 4, t = lane % 4, tile = value / 4, d = value % 4;
        element.unit = tile / feature_tiles * 16 + g + d / 2 * 8;
        element.feature = feature_of(member / warp_size, tile % feature_tiles, 2 * t + d % 2);
        if (element.unit < n_hidden && element.feature < n_features) element.kind = WEIGHT_1;
        return element;
    }
    const int quad = (position < bias_2_at ? position - quads_at : position - bias_2_at) % n_quads;
    element.unit = quad / n_outputs * 4;
    element.output = quad % n_outputs;
    if (position < bias_2_at) {
        element.unit += (position - quads_at) / n_quads;
        if (element.unit < n_hidden) element.kind = WEIGHT_2;
    } else if (position < bias_1_at) {
        if (HAS_BIAS && element.unit == 0) element.kind = BIAS_2;
    } else {
        element.unit = position - bias_1_at;
        if (HAS_BIAS && element.unit < n_hidden) element.kind = BIAS_1;
    }
    return element;
}

// --- Halves --------------------------------------------------------------------------------------------------------

struct Halves {
    unsigned short high, low;
};

__device__ __forceinline__ Halves split(float scaled) {
    const unsigned short high = half_from_float(scaled);
    return {high, half_from_float(scaled - float_from_half(high))};
}

// W1 as the left factor of the forward product: for each step of features, tile of units and piece (high, low) a
// fragment, 16 bytes of each lane. The order of a step's features is such that t has four adjacent ones.
constexpr int fragments = feature_steps * hidden_tiles * 2;
constexpr int fragments_bytes = fragments * warp_size * 16;

// Among all halves of all fragments, that of a weight's piece (0 high, 1 low).
__device__ __forceinline__ int half_of_fragments(int feature, int unit, int piece) {
    const int fragment = (feature / 16 * hidden_tiles + unit / 16) * 2 + piece;
    const int lane = unit % 8 * 4 + feature % 16 / 4, column = feature % 4;
    const int a = unit / 8 % 2 + column / 2 * 2;
    return ((fragment * warp_size + lane) * 4 + a) * 2 + column % 2;
}

// Scales, all powers of two, and what else passes between launches.
enum Scale { WEIGHT_SCALE, WEIGHT_UNSCALE, DELTA_SCALE, DELTA_UNSCALE };
enum Status { FROZEN, CURRENT_STEP };

}  // namespace narrow
