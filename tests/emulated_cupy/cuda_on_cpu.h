// The CUDA C++ that fastnet's kernels are written in, for a C++17 compiler of the CPU.
//
// Included before a module's source. It includes nothing itself, as NVRTC has no headers either, and as a kernel should
// compile in a blink. `__builtin_LINE()` as a default argument is the line of the call.

#pragma once
#include "emulation.h"

#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__
#define __restrict__ __restrict
#define __align__(bytes) alignas(bytes)

typedef decltype(sizeof 0) size_t;
typedef decltype((char*)nullptr - (char*)nullptr) ptrdiff_t;

struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) double2 { double x, y; };

inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }

// --- Bits -----------------------------------------------------------------------------------------------------------

namespace emulation {

template<typename To, typename From> inline To same_bits(From value) {
    static_assert(sizeof(To) == sizeof(From), "");
    To result;
    __builtin_memcpy(&result, &value, sizeof result);
    return result;
}

}  // namespace emulation

inline unsigned __float_as_uint(float x) { return emulation::same_bits<unsigned>(x); }
inline int __float_as_int(float x) { return emulation::same_bits<int>(x); }
inline float __uint_as_float(unsigned x) { return emulation::same_bits<float>(x); }
inline float __int_as_float(int x) { return emulation::same_bits<float>(x); }
inline long long __double_as_longlong(double x) { return emulation::same_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return emulation::same_bits<double>(x); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }

inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
    const unsigned long long bytes = (unsigned long long)high << 32 | low;
    unsigned result = 0;
    for (int k = 0; k < 4; ++k) result |= unsigned(bytes >> 8 * (selector >> 4 * k & 7) & 0xff) << 8 * k;
    return result;
}

// --- Mathematics ----------------------------------------------------------------------------------------------------

#define FASTNET_FUNCTION_1(name)                                             \
    extern "C" double name(double) noexcept;                                 \
    extern "C" float name##f(float) noexcept;                                \
    inline float name(float x) { return name##f(x); }
#define FASTNET_FUNCTION_2(name)                                             \
    extern "C" double name(double, double) noexcept;                         \
    extern "C" float name##f(float, float) noexcept;                         \
    inline float name(float x, float y) { return name##f(x, y); }

FASTNET_FUNCTION_1(exp)
FASTNET_FUNCTION_1(exp2)
FASTNET_FUNCTION_1(expm1)
FASTNET_FUNCTION_1(log)
FASTNET_FUNCTION_1(log2)
FASTNET_FUNCTION_1(log1p)
FASTNET_FUNCTION_1(tanh)
FASTNET_FUNCTION_1(erf)
FASTNET_FUNCTION_1(erfc)
FASTNET_FUNCTION_1(sqrt)
FASTNET_FUNCTION_1(fabs)
FASTNET_FUNCTION_1(floor)
FASTNET_FUNCTION_1(ceil)
FASTNET_FUNCTION_1(trunc)
FASTNET_FUNCTION_1(rint)
FASTNET_FUNCTION_2(pow)
FASTNET_FUNCTION_2(fmin)
FASTNET_FUNCTION_2(fmax)
FASTNET_FUNCTION_2(copysign)

#undef FASTNET_FUNCTION_1
#undef FASTNET_FUNCTION_2

extern "C" double fma(double, double, double) noexcept;
extern "C" float fmaf(float, float, float) noexcept;
inline float fma(float x, float y, float z) { return fmaf(x, y, z); }

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float rsqrt(float x) { return rsqrtf(x); }

inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fsub_rn(float x, float y) { return x - y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline double __fma_rn(double x, double y, double z) { return fma(x, y, z); }
inline double __dadd_rn(double x, double y) { return x + y; }
inline double __dsub_rn(double x, double y) { return x - y; }
inline double __dmul_rn(double x, double y) { return x * y; }

inline bool isnan(float x) { return x != x; }
inline bool isnan(double x) { return x != x; }
inline bool isinf(float x) { return __builtin_isinf(x); }
inline bool isinf(double x) { return __builtin_isinf(x); }
inline bool isfinite(float x) { return __builtin_isfinite(x); }
inline bool isfinite(double x) { return __builtin_isfinite(x); }

inline int abs(int x) { return x < 0 ? -x : x; }
inline long long llabs(long long x) { return x < 0 ? -x : x; }
inline int min(int x, int y) { return y < x ? y : x; }
inline int max(int x, int y) { return x < y ? y : x; }
inline unsigned min(unsigned x, unsigned y) { return y < x ? y : x; }
inline unsigned max(unsigned x, unsigned y) { return x < y ? y : x; }
inline long long min(long long x, long long y) { return y < x ? y : x; }
inline long long max(long long x, long long y) { return x < y ? y : x; }
inline float min(float x, float y) { return fminf(x, y); }
inline float max(float x, float y) { return fmaxf(x, y); }
inline double min(double x, double y) { return fmin(x, y); }
inline double max(double x, double y) { return fmax(x, y); }

extern "C" int printf(const char*, ...);

// --- Memory ---------------------------------------------------------------------------------------------------------

template<typename T> inline T __ldg(const T* address) { return *address; }
template<typename T> inline T __ldcg(const T* address) { return *address; }
template<typename T> inline T __ldcs(const T* address) { return *address; }
inline void __threadfence() {}
inline void __threadfence_block() {}

// Sums of floats in no fixed order differ from run to run: there is no atomicAdd for them here.
namespace emulation {

template<typename T> inline T add_to(T* address, T value) {
    const T old = *address;
    *address += value;
    return old;
}

}  // namespace emulation

inline int atomicAdd(int* address, int value) { return emulation::add_to(address, value); }
inline unsigned atomicAdd(unsigned* address, unsigned value) { return emulation::add_to(address, value); }

// --- Barriers and warps ---------------------------------------------------------------------------------------------

inline void __syncthreads(int line = __builtin_LINE()) { emulation::synchronize_block(line); }
inline void __syncwarp(unsigned mask = ~0u, int line = __builtin_LINE()) { emulation::synchronize_warp(mask, line); }

namespace emulation {

template<typename T> inline T exchange_value(unsigned mask, T value, unsigned source_lane, int line) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
    unsigned long long bits = 0;
    __builtin_memcpy(&bits, &value, sizeof value);
    bits = exchange(mask, bits, source_lane, line);
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}

// The lane that a shuffle reads, if it is in the reader's segment of `width` lanes, else the reader itself.
inline unsigned lane() { return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32; }
inline unsigned within_segment(unsigned source, int width) {
    return source / width == lane() / width ? source : lane();
}

}  // namespace emulation

template<typename T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, int line = __builtin_LINE()) {
    const unsigned segment = emulation::lane() / width * width;
    return emulation::exchange_value(mask, value, segment + unsigned(source) % width, line);
}
template<typename T>
inline T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, int line = __builtin_LINE()) {
    const unsigned source = emulation::lane() ^ lane_mask;
    return emulation::exchange_value(mask, value, emulation::within_segment(source, width), line);
}
template<typename T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, int line = __builtin_LINE()) {
    const unsigned source = emulation::lane() + delta;
    return emulation::exchange_value(mask, value, emulation::within_segment(source, width), line);
}
template<typename T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, int line = __builtin_LINE()) {
    const unsigned source = emulation::lane() - delta;
    return emulation::exchange_value(mask, value, emulation::within_segment(source, width), line);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    return emulation::ballot(mask, predicate, line);
}
inline int __any_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    return emulation::ballot(mask, predicate, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    return emulation::ballot(mask, !predicate, line) == 0;
}

// --- The intrinsics of device.cuh -----------------------------------------------------------------------------------

using emulation::shared_memory;

inline void synchronize_team(int id, int n_threads, int line = __builtin_LINE()) {
    emulation::synchronize_team(id, n_threads, line);
}

inline unsigned short half_from_float(float x) {  // to the nearest, ties to even
    const unsigned bits = __float_as_uint(x), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return 0x7fff;                   // NaN, as PTX has it
    if (magnitude >= 0x477ff000) return sign | 0x7c00;           // from 65520 on: infinity
    if (magnitude < 0x38800000)                                  // below 2^-14 halves are multiples of 2^-24,
        return sign | (__float_as_uint(__uint_as_float(magnitude) + 0.5f) - 0x3f000000);  // as floats are beyond 0.5
    return sign | (magnitude - (112u << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13;
}

inline float float_from_half(unsigned short half) {
    const unsigned sign = (half & 0x8000u) << 16, magnitude = (half & 0x7fffu) << 13;
    if (magnitude >= 0x7c00u << 13) return __uint_as_float(sign | magnitude | 0x7f800000);
    return __uint_as_float(sign | __float_as_uint(__uint_as_float(magnitude) * 0x1p112f));
}

inline unsigned halves_minus_1024(unsigned halves) {
    const float low = float_from_half(halves & 0xffff), high = float_from_half(halves >> 16);
    return half_from_float(low - 1024.0f) | unsigned(half_from_float(high - 1024.0f)) << 16;
}

inline void multiply_accumulate(
    float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], int line = __builtin_LINE()) {
    emulation::multiply_accumulate(d, a, b, line);
}

inline void copy_async_16(void* shared, const void* global, bool valid, int line = __builtin_LINE()) {
    emulation::copy_late(shared, global, valid, line);
}
inline void copy_async_commit() { emulation::commit_copies(); }
template<int n_pending> inline void copy_async_wait(int line = __builtin_LINE()) {
    emulation::wait_for_copies(n_pending, line);
}
