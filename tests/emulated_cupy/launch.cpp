// A launch: the blocks one after the other, and what becomes of a fault.

#include "runtime.h"

#include <algorithm>
#include <csetjmp>
#include <csignal>
#include <cstring>

namespace emulation {

// --- Faults ---------------------------------------------------------------------------------------------------------

static sigjmp_buf before_the_fault;
static const Arguments* arguments_of_launch;

static void end_launch(int signal, siginfo_t* information, void*) {
    if (signal == SIGFPE) describe(BROKEN_RULE, "divides an integer by zero");
    arguments_of_launch->describe_fault((const unsigned char*)information->si_addr);
    siglongjmp(before_the_fault, 1);
}

// Has faults end the launch as long as it lives; on a stack of their own, as a thread's stack may be what is at fault.
struct FaultHandlers {
    static constexpr int signals[] = {SIGSEGV, SIGBUS, SIGFPE};
    struct sigaction previous[3];
    stack_t previous_stack;

    FaultHandlers() {
        static unsigned char memory[64 << 10];
        stack_t stack = {};
        stack.ss_sp = memory;
        stack.ss_size = sizeof memory;
        sigaltstack(&stack, &previous_stack);
        struct sigaction action = {};
        action.sa_sigaction = end_launch;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        for (int k = 0; k < 3; ++k) sigaction(signals[k], &action, &previous[k]);
    }

    ~FaultHandlers() {
        for (int k = 0; k < 3; ++k) sigaction(signals[k], &previous[k], nullptr);
        sigaltstack(&previous_stack, nullptr);
    }
};

// What the compiler checks by itself: it calls these, with the place in the source first.
struct Place {
    const char* file;
    unsigned line, column;
};

extern "C" void __ubsan_handle_type_mismatch_v1_abort(const Place* place, uintptr_t address) {
    if (!address) fail(OUT_OF_BOUNDS, "line %u: uses a null pointer", place->line);
    fail(BROKEN_RULE, "line %u: the address is not a multiple of the type's alignment", place->line);
}

extern "C" void __ubsan_handle_out_of_bounds_abort(const Place* place, uintptr_t index) {
    fail(OUT_OF_BOUNDS, "line %u: index %lld is out of the bounds of a local array", place->line, (long long)index);
}

// --- Blocks ---------------------------------------------------------------------------------------------------------

static std::vector<unsigned> order_of_blocks(const Launch& launch) {
    std::vector<unsigned> order;
    for (unsigned k = 0; k < launch.grid[0] * launch.grid[1] * launch.grid[2]; ++k) order.push_back(k);
    if (launch.schedule == REVERSE) std::reverse(order.begin(), order.end());
    if (launch.schedule == RANDOM)
        for (size_t k = order.size(); k > 1; --k) std::swap(order[k - 1], order[next_random() % k]);
    return order;
}

static void run_blocks(const Launch& launch, Arguments& arguments) {
    const FaultHandlers handlers;
    for (const unsigned k : order_of_blocks(launch)) {
        blockIdx = {k % gridDim.x, k / gridDim.x % gridDim.y, k / (gridDim.x * gridDim.y)};
        poison_shared_memory(launch.shared_bytes);
        if (sigsetjmp(before_the_fault, 1)) return;
        run_block(arguments.pointers.data());
        check_shared_memory(launch.shared_bytes);
        if (block.error) return;
    }
}

extern "C" int launch(const Launch* launch) {
    block.launch = launch;
    block.error = NONE;
    block.random = launch->seed;
    gridDim = {launch->grid[0], launch->grid[1], launch->grid[2]};
    blockDim = {launch->block[0], launch->block[1], launch->block[2]};
    block.n_threads = blockDim.x * blockDim.y * blockDim.z;
    block.n_warps = (block.n_threads + WARP - 1) / WARP;
    Arguments arguments(*launch);
    arguments_of_launch = &arguments;
    run_blocks(*launch, arguments);
    arguments.check();
    if (!block.error) arguments.copy_out();
    return block.error;
}

}  // namespace emulation
