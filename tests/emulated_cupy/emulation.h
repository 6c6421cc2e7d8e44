// What a kernel compiled for the CPU and the runtime that executes it know of each other.

#pragma once

struct uint3 { unsigned x, y, z; };
typedef uint3 dim3;

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

namespace emulation {

struct Parameter {
    const char* type;  // the name of NumPy's dtype; "any" for void and vectors; "unknown"
    int alignment;
    int is_pointer, is_constant;
};

struct Kernel {
    void (*run)(void* const* arguments);
    const Parameter* parameters;
    int n_parameters;
    int max_threads;  // of __launch_bounds__
};

unsigned char* shared_memory();

void synchronize_block(int line);
void synchronize_team(int id, int n_threads, int line);
void synchronize_warp(unsigned mask, int line);

unsigned long long exchange(unsigned mask, unsigned long long bits, unsigned source_lane, int line);
unsigned ballot(unsigned mask, bool predicate, int line);
void multiply_accumulate(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], int line);

void copy_late(void* shared, const void* global, bool valid, int line);
void commit_copies();
void wait_for_copies(int n_pending, int line);

}  // namespace emulation
