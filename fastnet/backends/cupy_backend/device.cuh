// What the kernels need of a CUDA device beyond C++, in inline PTX; NVRTC has no headers to take it from.
//
// Halves are numbers of type fp16. They travel as their bits: one in an `unsigned short`, two in an `unsigned`, the
// first one in its low 16 bits. The tests run the kernels on a CPU, with functions of the same names and effects.

#ifndef FASTNET_EMULATED

// --- Shared memory and barriers -------------------------------------------------------------------------------------

// All the shared memory that the launch asked for.
__device__ __forceinline__ unsigned char* shared_memory() {
    extern __shared__ __align__(128) unsigned char fastnet_shared_memory[];
    return fastnet_shared_memory;
}

// A barrier for `n_threads` threads of the block, a multiple of 32: those that call it with this `id`, from 1 to 15.
// Barrier 0 is __syncthreads.
__device__ __forceinline__ void synchronize_team(int id, int n_threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(n_threads) : "memory");
}

// --- Halves ---------------------------------------------------------------------------------------------------------

// To the nearest half, ties to even; from 65520 on to infinity.
__device__ __forceinline__ unsigned short half_from_float(float x) {
    unsigned short half;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(x));
    return half;
}

// Exact, as every half is a float.
__device__ __forceinline__ float float_from_half(unsigned short half) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(half));
    return x;
}

// Each of two halves, less 1024. The bits 0x6400 + u are the half 1024 + u for every u from 0 to 1023, so this makes
// halves of bytes, exactly.
__device__ __forceinline__ unsigned halves_minus_1024(unsigned halves) {
    unsigned differences;
    asm("sub.f16x2 %0, %1, %2;" : "=r"(differences) : "r"(halves), "r"(0x64006400u));
    return differences;
}

// --- Tensor cores ---------------------------------------------------------------------------------------------------

// D (16, 8) += A (16, 16) @ B (16, 8), by the 32 lanes of a warp together; A and B are halves, D is float32. The
// products are exact, their sum is rounded toward zero. With g = lane / 4 and t = lane % 4, a lane holds
//
//     a[0] = A[g, 2t:2t+2], a[1] = A[g+8, 2t:2t+2], a[2] = A[g, 2t+8:2t+10], a[3] = A[g+8, 2t+8:2t+10],
//     b[0] = B[2t:2t+2, g], b[1] = B[2t+8:2t+10, g],
//     d[0], d[1] = D[g, 2t:2t+2], d[2], d[3] = D[g+8, 2t:2t+2].
//
// See mma.m16n8k16 in NVIDIA's manual of the PTX language.
__device__ __forceinline__ void multiply_accumulate(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if __CUDA_ARCH__ >= 800
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else  // Turing multiplies half as much at a time: the left half of A by the upper half of B, then the others
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(b[0]));
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[2]), "r"(a[3]), "r"(b[1]));
#endif
}

// --- Asynchronous copies from global to shared memory ---------------------------------------------------------------

// Starts to copy 16 bytes, or to write 16 zero bytes where they are not `valid`; nothing is read then, but the address
// must be one of the array. Both addresses are multiples of 16.
__device__ __forceinline__ void copy_async_16(void* shared, const void* global, bool valid) {
#if __CUDA_ARCH__ >= 800
    const unsigned address = (unsigned)__cvta_generic_to_shared(shared);
    const int n_bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(global), "r"(n_bytes) : "memory");
#else
    *(uint4*)shared = valid ? *(const uint4*)global : make_uint4(0, 0, 0, 0);
#endif
}

// Makes a group of the copies that this thread has started since the last one; it may be empty.
__device__ __forceinline__ void copy_async_commit() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until all groups of this thread but the last `n_pending` have arrived. Other threads see them after a barrier.
// A thread must not leave the kernel before it has waited for all.
template<int n_pending> __device__ __forceinline__ void copy_async_wait() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(n_pending) : "memory");
#endif
}

#endif  // FASTNET_EMULATED

// --- Either way -----------------------------------------------------------------------------------------------------

__device__ __forceinline__ unsigned pack_halves(unsigned short low, unsigned short high) {
    return low | (unsigned)high << 16;
}
