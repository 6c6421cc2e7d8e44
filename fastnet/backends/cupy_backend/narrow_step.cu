// Narrow networks, full batch: a launch reads X once and leaves, by block, the sums that the gradients are made of.
//
// A block has several teams of warps. A team takes tiles of samples, one after the other, while the next one is being
// copied to shared memory; teams have barriers of their own, so that one multiplies while another is in the middle.
//
//     forward   all warps     z = W1' x in halves, each warp for its own features, so z is a sum over warps
//     activate  all warps     that sum; h
//     head      the last one  logits, the loss, d_logits: one sample per lane
//     middle    all warps     d_z, split in halves; d_W2 and d_b2
//     backward  all warps     d_W1 += x' d_z in halves, each warp for its own features; d_b1
//
// For what is defined, and for the legend, see narrow.cuh.

namespace narrow {

// --- Between the products, in float32 ------------------------------------------------------------------------------

// Each lane has one sample and four of its hidden units; a warp, a group of samples.
constexpr int unit_lanes = hidden / 4, group_samples = warp_size / unit_lanes;
constexpr int n_sample_groups = samples / group_samples;

__device__ __forceinline__ int first_unit(Place place) { return place.lane % unit_lanes * 4; }

// With 16 units, the two samples that are read at one time are four apart, which is 16 banks.
__device__ __forceinline__ int sample_in_group(Place place) {
    const int k = place.lane / unit_lanes;
    return hidden_tiles == 1 ? k / 2 + k % 2 * 4 : k;
}

// The sum over the slices of z; h and z take the place of the first two.
__device__ __forceinline__ void activate(float* slices, const unsigned char* common, Place place) {
    const float unscale = ((const float2*)(common + scales_bytes_at))->x;
    const float* const bias = (const float*)(common + b1_bytes_at);
    for (int group = place.warp; group < n_sample_groups; group += team_warps) {
        float* const at = slices + (group * group_samples + sample_in_group(place)) * z_stride + first_unit(place);
        float4 sum = load_4(at);
#pragma unroll
        for (int warp = 1; warp < team_warps; ++warp) {
            const float4 more = load_4(at + warp * samples * z_stride);
            sum.x += more.x, sum.y += more.y, sum.z += more.z, sum.w += more.w;
        }
        const float4 b = load_4(bias + first_unit(place));
        const float4 z = {
            sum.x * unscale + b.x, sum.y * unscale + b.y, sum.z * unscale + b.z, sum.w * unscale + b.w};
        *(float4*)at = {ACTIVATION::forward(z.x), ACTIVATION::forward(z.y), ACTIVATION::forward(z.z),
                        ACTIVATION::forward(z.w)};
        *(float4*)(at + samples * z_stride) = z;
    }
}

// Loss and d_logits of the lane's sample, by its weight; zeros for one that does not exist.
__device__ __forceinline__ void evaluate_head(
    const float* h, const float* record, const unsigned char* common, bool exists, float* d_logits,
    Tally& tally
) {
    const float* const bias = (const float*)(common + b2_bytes_at);
    const float* const weights = (const float*)(common + w2_bytes_at);
    float z[outputs];
#pragma unroll
    for (int k = 0; k < outputs; ++k) z[k] = bias[k];
#pragma unroll 1  // registers are short: W2 is not to be read all at once
    for (int unit = 0; unit < n_hidden; unit += 4) {
        const float4 four = load_4(h + unit);
        const float h_of[] = {four.x, four.y, four.z, four.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
            for (int k = 0; k < outputs; k += 4) {
                const float4 w = load_4(weights + weight_2_row(unit + i) + k);
                z[k] += h_of[i] * w.x, z[k + 1] += h_of[i] * w.y, z[k + 2] += h_of[i] * w.z, z[k + 3] += h_of[i] * w.w;
            }
        }
    }
    const auto targets = targets_in(record);
    const float weight = record[n_targets];
    const int is_correct = TASK::is_correct(z, targets, n_outputs);
    const float sample_loss = HEAD::evaluate(z, targets, n_outputs, z);
    if (exists) {
        tally.loss += sample_loss * weight;
        tally.n_correct += is_correct;
    }
#pragma unroll
    for (int k = 0; k < outputs; ++k) z[k] = k < n_outputs && exists ? z[k] * weight : 0.0f;
#pragma unroll
    for (int k = 0; k < outputs; k += 4) *(float4*)(d_logits + k) = {z[k], z[k + 1], z[k + 2], z[k + 3]};
}

// d_z of the lane's sample and units, as the left factor of the backward product.
__device__ __forceinline__ void split_deltas(
    const float* slices, const float* d_logits, const unsigned char* common, unsigned short* pieces, Place place,
    float& largest
) {
    const float scale = ((const float2*)(common + scales_bytes_at))->y;
    const float* const weights = (const float*)(common + w2_bytes_at) + weight_2_row(first_unit(place));
    for (int group = place.warp; group < n_sample_groups; group += team_warps) {
        const int sample = group * group_samples + sample_in_group(place);
        const float* const at = slices + sample * z_stride + first_unit(place);
        const float4 h_4 = load_4(at), z_4 = load_4(at + samples * z_stride);
        const float h[] = {h_4.x, h_4.y, h_4.z, h_4.w}, z[] = {z_4.x, z_4.y, z_4.z, z_4.w};
        float d_h[4] = {};
#pragma unroll
        for (int k = 0; k < outputs; k += 4) {
            const float4 d = load_4(d_logits + sample * logits_stride + k);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const float4 w = load_4(weights + i * (weight_2_row(1) - weight_2_row(0)) + k);
                d_h[i] += d.x * w.x + d.y * w.y + d.z * w.z + d.w * w.w;
            }
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float d_z = scale * ACTIVATION::backward(d_h[i], z[i], h[i]);
            largest = fmaxf(largest, fabsf(d_z));
            const Halves halves = split(d_z);
            const int unit = first_unit(place) + i;
            unsigned short* const to = pieces + (unit / 16 * 32 + unit % 16) * pieces_stride + sample;
            to[0] = halves.high;
            to[16 * pieces_stride] = halves.low;
        }
    }
}

// d_W2 and d_b2: a thread has one quad, or several, and every sample_parts-th sample.
__device__ __forceinline__ void add_quads(
    const float* h, const float* d_logits, Place place, float (&sums)[thread_quads][5]
) {
    const int part = place.member / quad_threads;
    if (part >= sample_parts) return;
#pragma unroll
    for (int k = 0; k < thread_quads; ++k) {
        const int quad = k * quad_threads + place.member % quad_threads;
        if (quad >= n_quads) return;
        const int unit = quad / n_outputs * 4, output = quad % n_outputs;
#pragma unroll 2
        for (int sample = part; sample < samples; sample += sample_parts) {
            const float4 four = load_4(h + sample * z_stride + unit);
            const float d = d_logits[sample * logits_stride + output];
            sums[k][0] += four.x * d, sums[k][1] += four.y * d, sums[k][2] += four.z * d, sums[k][3] += four.w * d;
            sums[k][4] += d;
        }
    }
}

// --- Beginning and end of a launch ---------------------------------------------------------------------------------

// The sums over teams, and over the threads of a team that have the same.
__device__ __forceinline__ void write_elements(
    const float* sums, const Tally* tallies, Place place, float* __restrict__ elements
) {
    for (int value = place.team; value < fragment_values; value += n_teams) {
        const float* const from = sums + value * n_threads + place.member;
        float sum = from[0];
#pragma unroll
        for (int team = 1; team < n_teams; ++team) sum += from[team * team_threads];
        elements[value * team_threads + place.member] = sum;
    }
    for (int k = threadIdx.x; k < 5 * n_quads; k += n_threads) {
        const int quad = k % n_quads, value = fragment_values + quad / quad_threads * 5 + k / n_quads;
        float sum = 0.0f;
        for (int team = 0; team < n_teams; ++team) {
            for (int part = 0; part < sample_parts; ++part)
                sum += sums[value * n_threads + team * team_threads + part * quad_threads + quad % quad_threads];
        }
        elements[quads_at + k] = sum;
    }
    for (int k = threadIdx.x; k < n_elements - bias_1_at; k += n_threads) {
        float sum = 0.0f;
        for (int team = 0; k < hidden && team < n_teams; ++team)
            sum += tallies[team * warp_size + k % 8 * 4].d_b1[k / 16][k / 8 % 2 * 2];
        elements[bias_1_at + k] = sum;
    }
}

// By the first warp of the block.
__device__ __forceinline__ void write_figures(
    const Tally* tallies, const float* largest_of_warps, int lane,
    double* loss_out, int* n_correct_out, float* largest_out
) {
    double loss = 0.0;
    int n_correct = 0;
    for (int team = 0; team < n_teams; ++team) {
        loss += tallies[team * warp_size + lane].loss;
        n_correct += tallies[team * warp_size + lane].n_correct;
    }
    float largest = lane < n_warps ? largest_of_warps[lane] : 0.0f;
#pragma unroll
    for (int distance = warp_size / 2; distance > 0; distance /= 2) {
        loss += __shfl_xor_sync(whole_warp, loss, distance);
        n_correct += __shfl_xor_sync(whole_warp, n_correct, distance);
        largest = fmaxf(largest, __shfl_xor_sync(whole_warp, largest, distance));
    }
    if (lane == 0) {
        *loss_out = loss;
        *n_correct_out = n_correct;
        *largest_out = largest;
    }
}

}  // namespace narrow

// --- The step ------------------------------------------------------------------------------------------------------

// X is (N, row_bytes), records (N, record_words) in units of 32 bits, padded with zeros. Leaves the sums (B, E) of each
// block, its loss, right predictions and largest d_z, scaled as its halves are. The number of blocks is part of the
// result: it decides which samples are added up first.
extern "C" __global__ void __launch_bounds__(narrow::n_threads, 1) fastnet_narrow_step(
    const unsigned char* __restrict__ x, const unsigned char* __restrict__ records, int n_samples,
    const float* __restrict__ flat, const uint4* __restrict__ fragments_of_w1, const float* __restrict__ scales,
    float input_scale, const int* __restrict__ step, int* status,
    float* __restrict__ elements, double* __restrict__ loss, int* __restrict__ n_correct,
    float* __restrict__ largest_delta
) {
    using namespace narrow;
    const int is_frozen = status[FROZEN];

    const int member = threadIdx.x % team_threads;
    const Place place = {int(threadIdx.x) / team_threads, member / warp_size, member % warp_size, member};
    unsigned char* const common = shared_memory();
    unsigned char* const own = common + common_bytes + place.team * team_bytes;
    float* const slices = (float*)(own + z_at);
    float* const d_logits = (float*)(own + logits_at);
    unsigned short* const pieces = (unsigned short*)(own + pieces_at);

    const int n_tiles = ceil_div(n_samples, samples), n_teams_of_all = gridDim.x * n_teams;
    const int first_tile = place.team * gridDim.x + blockIdx.x;
    const auto copy_tile = [&](int tile, int stage) {
        if (tile < n_tiles) {
            copy_rows<row_bytes / 16, row_stride>(
                own + x_at + stage * samples * row_stride, x, tile, n_samples, member);
            copy_rows<record_words / 4, record_words * 4>(
                own + records_at + stage * samples * record_words * 4, records, tile, n_samples, member);
        }
        copy_async_commit();
    };
    for (int k = threadIdx.x; k < fragments * warp_size; k += n_threads)
        copy_async_16(common + k * 16, fragments_of_w1 + k, true);
    for (int stage = 0; stage < N_STAGES - 1; ++stage) copy_tile(first_tile + stage * n_teams_of_all, stage);
    if (is_frozen) {
        copy_async_wait<0>();
        return;
    }
    if (blockIdx.x == 0 && threadIdx.x == 0) status[CURRENT_STEP] = *step;
    load_parameters(flat, scales, input_scale, common);

    Tally& tally = ((Tally*)(common + tallies_at))[place.team * warp_size + place.lane];  // of the last warp's lanes
    if (place.warp == team_warps - 1) tally = {};
    float sums[hidden_tiles][feature_tiles][4] = {}, quad_sums[thread_quads][5] = {}, largest = 0.0f;
    copy_async_wait<N_STAGES - 2>();
    __syncthreads();  // W1 and the other parameters are there

    int stage = 0;
    for (int tile = first_tile; tile < n_tiles; tile += n_teams_of_all) {
        copy_async_wait<N_STAGES - 2>();
        synchronize_team(place.team + 1, team_threads);  // this tile is there, and nobody needs the one before any more
        const int free_stage = stage == 0 ? N_STAGES - 1 : stage - 1;
        copy_tile(tile + (N_STAGES - 1) * n_teams_of_all, free_stage);
        const unsigned char* const x_tile = own + x_at + stage * samples * row_stride;
        forward(x_tile, (const uint4*)common, slices + place.warp * samples * z_stride, place);

        synchronize_team(place.team + 1, team_threads);
        activate(slices, common, place);

        synchronize_team(place.team + 1, team_threads);
        if (place.warp == team_warps - 1 && place.lane < samples) {
            const float* const record =
                (const float*)(own + records_at) + (stage * samples + place.lane) * record_words;
            evaluate_head(
                slices + place.lane * z_stride, record, common, (long long)tile * samples + place.lane < n_samples,
                d_logits + place.lane * logits_stride, tally);
        }

        synchronize_team(place.team + 1, team_threads);
        split_deltas(slices, d_logits, common, pieces, place, largest);
        add_quads(slices, d_logits, place, quad_sums);

        synchronize_team(place.team + 1, team_threads);
        backward(x_tile, pieces, place, sums, tally);
        stage = stage == N_STAGES - 1 ? 0 : stage + 1;
    }

    __syncthreads();  // from here on shared memory is used for sums
    float* const all_sums = (float*)common;
    float* const largest_of_warps = (float*)(common + largest_at);
    const Tally* const tallies = (const Tally*)(common + tallies_at);
#pragma unroll
    for (int k = 0; k < fragment_values; ++k)
        all_sums[k * n_threads + threadIdx.x] = sums[k / 4 / feature_tiles][k / 4 % feature_tiles][k % 4];
#pragma unroll
    for (int k = 0; k < 5 * thread_quads; ++k)
        all_sums[(fragment_values + k) * n_threads + threadIdx.x] = quad_sums[k / 5][k % 5];
#pragma unroll
    for (int distance = warp_size / 2; distance > 0; distance /= 2)
        largest = fmaxf(largest, __shfl_xor_sync(whole_warp, largest, distance));
    if (place.lane == 0) largest_of_warps[threadIdx.x / warp_size] = largest;
    __syncthreads();
    write_elements(all_sums, tallies, place, elements + (long long)blockIdx.x * n_elements);
    if (threadIdx.x < warp_size) {
        write_figures(
            tallies, largest_of_warps, place.lane, loss + blockIdx.x, n_correct + blockIdx.x,
            largest_delta + blockIdx.x);
    }
}
