// What the parts of the runtime share: the launch, the threads of the block that runs, and how they wait and fail.

#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "emulation.h"

namespace emulation {

constexpr int WARP = 32, MAX_THREADS = 1024, MAX_WARPS = MAX_THREADS / WARP;
constexpr unsigned char POISON = 0x7f;  // what memory is filled with: huge floats, indices out of bounds

enum Schedule { FORWARD, REVERSE, RANDOM };
enum Error { NONE, BROKEN_RULE, OUT_OF_BOUNDS };

// --- A launch, as Python describes it -------------------------------------------------------------------------------

struct Argument {
    const char* name;
    unsigned char* data;  // memory of the device, or a scalar
    long long n_bytes;    // -1 for a scalar
    int offset;           // of the memory from an address that is a multiple of 16
    int is_constant;
};

struct Launch {
    const Kernel* kernel;
    const Argument* arguments;
    unsigned char* reached;  // by line: whether a barrier there was reached
    char* message;           // of the error, if there is one
    int n_lines, message_size;
    unsigned grid[3], block[3];
    int shared_bytes, schedule, deleted_line, truncating;
    unsigned seed;
};

// --- A block --------------------------------------------------------------------------------------------------------

enum Wait { RUNNING, BLOCK_BARRIER, TEAM_BARRIER, WARP_BARRIER, SHUFFLE, BALLOT, PRODUCT };

struct Copy {
    void* to;
    const void* from;  // null: zeros
};

struct Thread {
    uint3 index;
    Wait wait;
    int line;  // where it waits
    // The operands of an operation of its warp, and the result.
    unsigned mask, source, result;
    unsigned long long bits;
    unsigned a[4], b[2];
    float d[4];
    // Copies that it has started and not yet waited for; how many each of its groups has, the last being open.
    std::vector<Copy> copies;
    std::vector<int> groups;
};

struct Warp {
    // A bit for each lane: all of them, those that have not left the kernel, that can run, that wait for their warp.
    unsigned lanes, live, ready, waiting;
};

struct Block {
    const Launch* launch;
    int n_threads, n_warps, current;
    unsigned ready_warps, random;
    Warp warps[MAX_WARPS];
    Thread threads[MAX_THREADS];
    Error error;
};

extern Block block;

inline Thread& current_thread() { return block.threads[block.current]; }

void run_block(void** arguments);  // all threads, to their end

// Lets others run until this thread is made ready again.
void wait(Wait what, int line);
void make_ready(int warp, unsigned lanes);
void no_longer_ready(int thread);
void switch_to_scheduler();
unsigned next_random();

void forget_barriers();
void leave_warp(int thread);  // what a thread's end means for the others of its warp

// Notes that a barrier's line is reached; false if it is to be passed as if it were not there.
bool reach(int line);

// Keeps the message of the first error; `fail` ends the launch as well, from within a thread.
void describe(Error error, const char* format, ...);
[[noreturn]] void fail(Error error, const char* format, ...);
void describe_deadlock();

// --- Memory ---------------------------------------------------------------------------------------------------------

bool is_poison(const unsigned char* data, size_t n_bytes);

// Pieces of memory, each of whole pages between pages that must not be touched.
struct Arena {
    std::vector<unsigned char*> beginnings, ends;
    void* memory = nullptr;
    size_t total = 0;  // bytes

    Arena() = default;
    Arena(const Arena&) = delete;
    ~Arena();
    bool is_mapped() const { return !ends.empty(); }
    void map(const std::vector<size_t>& sizes);
    bool is_before(int k, const unsigned char* address) const;  // in the forbidden pages there
    bool is_beyond(int k, const unsigned char* address) const;
};

// Arguments that overlap are one region, which is copied as a whole: what is written to one is seen in the other.
struct Region {
    unsigned char *begin, *end, *copy;
    std::vector<int> members;  // indices of arguments
    bool is_constant;

    size_t size() const { return end - begin; }
};

struct Arguments {
    int n;
    const Argument* arguments;
    const Arena* arena;  // a piece for each region
    std::vector<Region> regions;
    std::vector<void*> addresses, pointers;  // of the copies; of what the kernel is called with

    explicit Arguments(const Launch& launch);
    void check() const;
    void copy_out() const;
    void describe_fault(const unsigned char* address) const;

  private:
    void find_regions();
    void copy_in();
};

void poison_shared_memory(int n_bytes);
void check_shared_memory(int n_bytes);
bool is_beyond_shared_memory(const unsigned char* address);

}  // namespace emulation
