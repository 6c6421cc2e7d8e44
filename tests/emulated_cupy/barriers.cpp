// Barriers of the block, and of teams of its warps.

#include "runtime.h"

#include <cstring>

namespace emulation {

constexpr int N_BARRIERS = 16;

struct Barrier {
    int n_arrived, n_threads, line;
    Wait what;
    unsigned members[MAX_WARPS];  // a bit for each lane
};

static Barrier barriers[N_BARRIERS];

void forget_barriers() { memset(barriers, 0, sizeof barriers); }

bool reach(int line) {
    if (line < block.launch->n_lines) block.launch->reached[line] = 1;
    return line != block.launch->deleted_line;
}

static void release(Barrier& barrier) {
    barrier.n_arrived = 0;
    for (int k = 0; k < block.n_warps; ++k) {
        if (!barrier.members[k]) continue;
        if (barrier.members[k] != block.warps[k].lanes)
            fail(BROKEN_RULE, "line %d: a part of a warp waits at a barrier of whole warps", barrier.line);
        make_ready(k, barrier.members[k]);
        barrier.members[k] = 0;
    }
}

static void synchronize(int id, int n_threads, Wait what, int line) {
    if (!reach(line)) return;
    if (id < 0 || id >= N_BARRIERS) fail(BROKEN_RULE, "line %d: there is no barrier %d, only 0 to 15", line, id);
    Barrier& barrier = barriers[id];
    if (!barrier.n_arrived) {
        barrier.n_threads = n_threads;
        barrier.line = line;
        barrier.what = what;
    }
    if (barrier.n_threads != n_threads || barrier.what != what)
        fail(BROKEN_RULE, "line %d: %d threads are to meet at barrier %d, and %d at line %d", line, n_threads, id,
             barrier.n_threads, barrier.line);
    if (what == BLOCK_BARRIER && barrier.line != line)
        fail(BROKEN_RULE, "divergent barriers: threads of a block wait at __syncthreads of line %d and of line %d",
             barrier.line, line);
    const int thread = block.current;
    no_longer_ready(thread);
    barrier.members[thread / WARP] |= 1u << thread % WARP;
    if (++barrier.n_arrived == n_threads) release(barrier);
    wait(what, line);
}

void synchronize_block(int line) { synchronize(0, block.n_threads, BLOCK_BARRIER, line); }

void synchronize_team(int id, int n_threads, int line) {
    if (n_threads <= 0 || n_threads > MAX_THREADS || n_threads % WARP)
        fail(BROKEN_RULE, "line %d: a team consists of whole warps, not of %d threads", line, n_threads);
    synchronize(id, n_threads, TEAM_BARRIER, line);
}

}  // namespace emulation
