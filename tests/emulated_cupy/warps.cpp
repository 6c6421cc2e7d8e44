// What the threads of a warp do together: wait, shuffle, vote, and multiply matrices.
//
// A thread leaves its operands and waits; the last one to come computes the results of all.

#include "runtime.h"

#include <cmath>
#include <cstring>

namespace emulation {

static Thread& lane(int warp, int k) { return block.threads[warp * WARP + k]; }

static void shuffle(int warp, unsigned lanes) {
    unsigned long long values[WARP];
    memset(values, POISON, sizeof values);  // of lanes that take no part
    for (int k = 0; k < WARP; ++k)
        if (lanes >> k & 1) values[k] = lane(warp, k).bits;
    for (int k = 0; k < WARP; ++k)
        if (lanes >> k & 1) lane(warp, k).bits = values[lane(warp, k).source % WARP];
}

static void vote(int warp, unsigned lanes) {
    unsigned votes = 0;
    for (int k = 0; k < WARP; ++k)
        if (lanes >> k & 1 && lane(warp, k).bits) votes |= 1u << k;
    for (int k = 0; k < WARP; ++k) lane(warp, k).result = votes;
}

// --- mma.sync.m16n8k16: D (16, 8) += A (16, 16) @ B (16, 8), fp16 products summed in float32 ------------------------

template<typename To, typename From> static To same_bits(From value) {
    To result;
    memcpy(&result, &value, sizeof result);
    return result;
}

static float float_of_half(unsigned half) {
    const unsigned sign = (half & 0x8000) << 16, magnitude = (half & 0x7fff) << 13;
    const unsigned finite = same_bits<unsigned>(same_bits<float>(magnitude) * 0x1p112f);
    return same_bits<float>(sign | (magnitude < 0x7c00 << 13 ? finite : magnitude | 0x7f800000));
}

// Tensor cores drop what does not fit into a float32, where a CPU rounds to the nearest.
static float round_sum(double sum) {
    const float rounded = (float)sum;
    const bool away_from_zero = std::fabs((double)rounded) > std::fabs(sum);  // infinity, too, if the sum is finite
    return same_bits<float>(same_bits<unsigned>(rounded) - (away_from_zero && block.launch->truncating));
}

// The fragments are those of device.cuh: lane 4 g + t holds A[g (+ 8), 2 t : 2 t + 2 (+ 8)], B[2 t : 2 t + 2 (+ 8), g]
// and D[g (+ 8), 2 t : 2 t + 2].
static void multiply(int warp) {
    unsigned a_halves[16][8], b_halves[8][8];  // two in one; B is transposed
    double a[16][16], b[16][8], d[16][8];
    for (int k = 0; k < WARP; ++k) {
        const Thread& thread = lane(warp, k);
        const int g = k / 4, t = k % 4;
        for (int r = 0; r < 4; ++r) a_halves[g + r % 2 * 8][t + r / 2 * 4] = thread.a[r];
        for (int r = 0; r < 2; ++r) b_halves[g][t + r * 4] = thread.b[r];
        for (int r = 0; r < 4; ++r) d[g + r / 2 * 8][2 * t + r % 2] = thread.d[r];
    }
    for (int row = 0; row < 16; ++row)
        for (int k = 0; k < 16; ++k) a[row][k] = float_of_half(a_halves[row][k / 2] >> k % 2 * 16);
    for (int k = 0; k < 16; ++k)
        for (int column = 0; column < 8; ++column) b[k][column] = float_of_half(b_halves[column][k / 2] >> k % 2 * 16);
    for (int row = 0; row < 16; ++row)
        for (int k = 0; k < 16; ++k)
            for (int column = 0; column < 8; ++column) d[row][column] += a[row][k] * b[k][column];
    for (int k = 0; k < WARP; ++k)
        for (int r = 0; r < 4; ++r) lane(warp, k).d[r] = round_sum(d[k / 4 + r / 2 * 8][2 * (k % 4) + r % 2]);
}

// --- Meeting --------------------------------------------------------------------------------------------------------

// Lets the lanes of the mask go on if all of them are there. Those that have left the kernel are not waited for.
static void meet(int index, unsigned mask) {
    Warp& warp = block.warps[index];
    const unsigned lanes = mask & warp.live;
    if (!lanes || (warp.waiting & lanes) != lanes) return;
    const Thread& first = lane(index, __builtin_ctz(lanes));
    for (int k = 0; k < WARP; ++k) {
        if (!(lanes >> k & 1)) continue;
        const Thread& other = lane(index, k);
        if (other.mask != mask) return;
        if (other.line != first.line || other.wait != first.wait)
            fail(BROKEN_RULE, "divergent warp: lanes of a warp wait for each other at line %d and at line %d",
                 first.line, other.line);
    }
    if (first.wait == SHUFFLE) shuffle(index, lanes);
    if (first.wait == BALLOT) vote(index, lanes);
    if (first.wait == PRODUCT) {
        if (lanes != ~0u) fail(BROKEN_RULE, "line %d: multiply_accumulate needs all lanes of a warp", first.line);
        multiply(index);
    }
    warp.waiting &= ~lanes;
    make_ready(index, lanes);
}

static void meet_and_wait(unsigned mask, Wait what, int line) {
    Thread& thread = current_thread();
    const int index = block.current / WARP;
    const unsigned bit = 1u << block.current % WARP;
    if (!(mask & bit)) fail(BROKEN_RULE, "line %d: a lane waits for lanes 0x%08x and is none of them", line, mask);
    Warp& warp = block.warps[index];
    thread.mask = mask;
    thread.wait = what;
    thread.line = line;
    warp.waiting |= bit;
    no_longer_ready(block.current);
    meet(index, mask);
    wait(what, line);
}

void leave_warp(int thread) {
    Warp& warp = block.warps[thread / WARP];
    for (int k = 0; k < WARP; ++k)
        if (warp.waiting >> k & 1) meet(thread / WARP, lane(thread / WARP, k).mask);
}

void synchronize_warp(unsigned mask, int line) {
    if (reach(line)) meet_and_wait(mask, WARP_BARRIER, line);
}

unsigned long long exchange(unsigned mask, unsigned long long bits, unsigned source_lane, int line) {
    Thread& thread = current_thread();
    thread.bits = bits;
    thread.source = source_lane;
    meet_and_wait(mask, SHUFFLE, line);
    return thread.bits;
}

unsigned ballot(unsigned mask, bool predicate, int line) {
    Thread& thread = current_thread();
    thread.bits = predicate;
    meet_and_wait(mask, BALLOT, line);
    return thread.result;
}

void multiply_accumulate(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], int line) {
    Thread& thread = current_thread();
    memcpy(thread.a, a, sizeof a);
    memcpy(thread.b, b, sizeof b);
    memcpy(thread.d, d, sizeof d);
    meet_and_wait(~0u, PRODUCT, line);
    memcpy(d, thread.d, sizeof d);
}

}  // namespace emulation
