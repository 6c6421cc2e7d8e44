// The threads of a block as fibers: each has a stack, and runs until it waits for others.
//
// The schedule says who runs next: the ready thread with the lowest index, the one with the highest, or a random one.
// Lowest first lets a thread, and its warp, run as far ahead of the others as the barriers allow.

#include "runtime.h"

#include <cstring>
#include <sys/mman.h>
#include <ucontext.h>

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace emulation {

Block block;

// --- Switching stacks -----------------------------------------------------------------------------------------------

constexpr size_t STACK = 256 << 10;
constexpr uint64_t CANARY = 0x5ca1ab1e5ca1ab1e;

static unsigned char* stacks;

static void run_thread();

#if defined(__x86_64__) && !defined(PORTABLE_FIBERS)

static void* scheduler;
static void* pointers_to_stacks[MAX_THREADS];

// Keeps the registers of the caller on its stack, and where that is; goes on with what was kept on the other stack.
extern "C" void switch_stacks(void** save, void* load);
__asm__(R"(
.text
.globl switch_stacks
.hidden switch_stacks
switch_stacks:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");

static void prepare_stack(int thread, unsigned char* top) {
    void** stack = (void**)top;
    memset(stack - 8, 0, 8 * sizeof *stack);  // six registers, an address to go to, and one where a caller's would be
    stack[-2] = (void*)run_thread;
    pointers_to_stacks[thread] = stack - 8;
}

static void switch_from_scheduler(int thread) { switch_stacks(&scheduler, pointers_to_stacks[thread]); }

static void switch_threads(int from, int to) { switch_stacks(&pointers_to_stacks[from], pointers_to_stacks[to]); }

void switch_to_scheduler() {
    void* never_used;
    switch_stacks(&never_used, scheduler);
}

#else  // the same by the system's means: slower, as each switch asks the system to keep the mask of signals

static ucontext_t scheduler_context, contexts[MAX_THREADS];

static void prepare_stack(int thread, unsigned char* top) {
    ucontext_t& context = contexts[thread];
    getcontext(&context);
    context.uc_stack.ss_sp = stacks + thread * STACK + sizeof CANARY;
    context.uc_stack.ss_size = top - (unsigned char*)context.uc_stack.ss_sp;
    context.uc_link = nullptr;
    makecontext(&context, run_thread, 0);
}

static void switch_from_scheduler(int thread) { swapcontext(&scheduler_context, &contexts[thread]); }
static void switch_threads(int from, int to) { swapcontext(&contexts[from], &contexts[to]); }
void switch_to_scheduler() { setcontext(&scheduler_context); }

#endif

// --- Who runs next --------------------------------------------------------------------------------------------------

unsigned next_random() {
    block.random = block.random * 1664525u + 1013904223u;
    return block.random >> 8;
}

static int random_bit(unsigned mask) {
    const int turn = next_random() % 32;
    const unsigned turned = mask >> turn | mask << (32 - turn) % 32;
    return (__builtin_ctz(turned) + turn) % 32;
}

static int choose(unsigned mask) {
    switch (block.launch->schedule) {
        case FORWARD: return __builtin_ctz(mask);
        case REVERSE: return 31 - __builtin_clz(mask);
        default: return random_bit(mask);
    }
}

static int choose_thread() {
    int warp = block.current / WARP;
    const bool stays = block.launch->schedule == RANDOM && block.warps[warp].ready && next_random() % 8;
    if (!stays) warp = choose(block.ready_warps);
    return warp * WARP + choose(block.warps[warp].ready);
}

void make_ready(int warp, unsigned lanes) {
    block.warps[warp].ready |= lanes;
    block.ready_warps |= 1u << warp;
}

void no_longer_ready(int thread) {
    Warp& warp = block.warps[thread / WARP];
    warp.ready &= ~(1u << thread % WARP);
    if (!warp.ready) block.ready_warps &= ~(1u << thread / WARP);
}

static void start(int thread) {
    block.current = thread;
    threadIdx = block.threads[thread].index;
}

static void run_another() {
    if (!block.ready_warps) switch_to_scheduler();
    const int from = block.current, to = choose_thread();
    start(to);
    if (to != from) switch_threads(from, to);
}

void wait(Wait what, int line) {
    Thread& thread = current_thread();
    thread.wait = what;
    thread.line = line;
    run_another();
    thread.wait = RUNNING;
}

// --- A thread, and a block ------------------------------------------------------------------------------------------

static void** arguments_of_kernel;

static void run_thread() {
    block.launch->kernel->run(arguments_of_kernel);
    if (!current_thread().copies.empty())
        fail(BROKEN_RULE, "a thread leaves the kernel and has not waited for a copy that it has started");
    const int thread = block.current;
    block.warps[thread / WARP].live &= ~(1u << thread % WARP);
    no_longer_ready(thread);
    leave_warp(thread);
    run_another();
    __builtin_unreachable();
}

static void prepare_thread(int k) {
    unsigned char* stack = stacks + k * STACK;
    memcpy(stack, &CANARY, sizeof CANARY);
    // Stacks do not begin at the same place of a page, so that they do not all fight for the same cache lines.
    prepare_stack(k, stack + STACK - k % 61 * 64);
    Thread& thread = block.threads[k];
    thread.index = {k % blockDim.x, k / blockDim.x % blockDim.y, k / (blockDim.x * blockDim.y)};
    thread.wait = RUNNING;
    thread.copies.clear();
    thread.groups.assign(1, 0);
    block.warps[k / WARP].lanes |= 1u << k % WARP;
}

static void check_stack(int k) {
    if (memcmp(stacks + k * STACK, &CANARY, sizeof CANARY))
        describe(BROKEN_RULE, "a thread needs more than %zu bytes of stack", STACK);
}

void run_block(void** arguments) {
    const int protection = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANON;
    if (!stacks) stacks = (unsigned char*)mmap(nullptr, MAX_THREADS * STACK, protection, flags, -1, 0);
    arguments_of_kernel = arguments;
    forget_barriers();
    memset(block.warps, 0, sizeof block.warps);
    for (int k = 0; k < block.n_threads; ++k) prepare_thread(k);
    block.ready_warps = 0;
    for (int k = 0; k < block.n_warps; ++k) {
        block.warps[k].live = block.warps[k].lanes;
        make_ready(k, block.warps[k].lanes);
    }
    block.current = 0;
    const int first = choose_thread();
    start(first);
    switch_from_scheduler(first);
    for (int k = 0; k < block.n_threads; ++k) check_stack(k);
    for (int k = 0; k < block.n_warps; ++k)
        if (block.warps[k].live) return describe_deadlock();
}

}  // namespace emulation
