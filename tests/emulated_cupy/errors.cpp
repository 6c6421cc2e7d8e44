// Messages of errors. The first one counts.

#include "runtime.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>

namespace emulation {

static void keep_message(Error error, const char* format, va_list values) {
    if (block.error) return;
    block.error = error;
    vsnprintf(block.launch->message, block.launch->message_size, format, values);
}

void describe(Error error, const char* format, ...) {
    va_list values;
    va_start(values, format);
    keep_message(error, format, values);
    va_end(values);
}

void fail(Error error, const char* format, ...) {
    va_list values;
    va_start(values, format);
    keep_message(error, format, values);
    va_end(values);
    switch_to_scheduler();
    __builtin_unreachable();
}

static const char* name_of(Wait wait) {
    switch (wait) {
        case BLOCK_BARRIER: return "__syncthreads";
        case TEAM_BARRIER: return "synchronize_team";
        case WARP_BARRIER: return "__syncwarp";
        case SHUFFLE: return "a shuffle";
        case BALLOT: return "a vote";
        default: return "multiply_accumulate";
    }
}

static bool is_live(int thread) { return block.warps[thread / WARP].live >> thread % WARP & 1; }

void describe_deadlock() {
    char text[400] = "";
    int n_waiting = 0;
    bool is_told[MAX_THREADS] = {};
    for (int k = 0; k < block.n_threads; ++k) {
        if (!is_live(k) || is_told[k]) continue;
        const Thread& thread = block.threads[k];
        int n_alike = 0;
        for (int other = k; other < block.n_threads; ++other) {
            if (!is_live(other) || block.threads[other].line != thread.line) continue;
            is_told[other] = true;
            ++n_alike;
        }
        const size_t length = strlen(text);
        snprintf(text + length, sizeof text - length, "%s%d threads wait at line %d (%s)", length ? ", " : "", n_alike,
                 thread.line, name_of(thread.wait));
        n_waiting += n_alike;
    }
    describe(BROKEN_RULE, "deadlock in block (%u, %u, %u): %s, %d have left the kernel", blockIdx.x, blockIdx.y,
             blockIdx.z, text, block.n_threads - n_waiting);
}

}  // namespace emulation
