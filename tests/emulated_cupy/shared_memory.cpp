// Shared memory, which holds poison where nothing was written, and asynchronous copies to it: as late as they may be.

#include "runtime.h"

#include <cstring>

namespace emulation {

constexpr int MAX_SHARED_BYTES = 1 << 20, SHARED_ALIGNMENT = 128, GUARD = 1 << 12;

static Arena arena;
static unsigned char* shared;

void poison_shared_memory(int n_bytes) {
    if (!arena.is_mapped()) arena.map({MAX_SHARED_BYTES});
    // It ends where the arena does, so that what is read beyond it faults.
    shared = arena.ends[0] - (n_bytes + SHARED_ALIGNMENT - 1) / SHARED_ALIGNMENT * SHARED_ALIGNMENT;
    memset(shared - GUARD, POISON, arena.ends[0] - shared + GUARD);
}

void check_shared_memory(int n_bytes) {
    const unsigned char* end = shared + n_bytes;
    if (!is_poison(shared - GUARD, GUARD) || !is_poison(end, arena.ends[0] - end))
        describe(OUT_OF_BOUNDS, "writes outside of its %d bytes of shared memory", n_bytes);
}

bool is_beyond_shared_memory(const unsigned char* address) { return arena.is_beyond(0, address); }

unsigned char* shared_memory() { return shared; }

void copy_late(void* to, const void* from, bool valid, int line) {
    const long long offset = (unsigned char*)to - shared;
    if (offset < 0 || offset + 16 > block.launch->shared_bytes)
        fail(OUT_OF_BOUNDS, "line %d: copy_async_16 writes outside of shared memory", line);
    if (offset % 16 || (uintptr_t)from % 16)
        fail(BROKEN_RULE, "line %d: copy_async_16 needs addresses that are multiples of 16", line);
    memset(to, POISON, 16);
    current_thread().copies.push_back({to, valid ? from : nullptr});
    ++current_thread().groups.back();
}

void commit_copies() { current_thread().groups.push_back(0); }

void wait_for_copies(int n_pending, int line) {
    if (!reach(line)) return;
    std::vector<Copy>& copies = current_thread().copies;
    std::vector<int>& groups = current_thread().groups;
    while ((int)groups.size() - 1 > n_pending) {
        for (int k = 0; k < groups[0]; ++k) {
            if (copies[k].from) memcpy(copies[k].to, copies[k].from, 16);
            else memset(copies[k].to, 0, 16);
        }
        copies.erase(copies.begin(), copies.begin() + groups[0]);
        groups.erase(groups.begin());
    }
}

}  // namespace emulation
