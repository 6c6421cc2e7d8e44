// What Python and the runtime have to know of a kernel, from its type: see `Kernel` in emulation.h.

#pragma once
#include "cuda_on_cpu.h"

namespace emulation {

template<typename T> struct Type { static constexpr const char* name = "unknown"; static constexpr int alignment = 1; };
#define FASTNET_TYPE(type, dtype)                                                                                     \
    template<> struct Type<type> {                                                                                    \
        static constexpr const char* name = dtype;                                                                    \
        static constexpr int alignment = alignof(type);                                                               \
    };
FASTNET_TYPE(bool, "bool")
FASTNET_TYPE(char, "int8")
FASTNET_TYPE(signed char, "int8")
FASTNET_TYPE(unsigned char, "uint8")
FASTNET_TYPE(short, "int16")
FASTNET_TYPE(unsigned short, "uint16")
FASTNET_TYPE(int, "int32")
FASTNET_TYPE(unsigned, "uint32")
FASTNET_TYPE(long long, "int64")
FASTNET_TYPE(unsigned long long, "uint64")
FASTNET_TYPE(float, "float32")
FASTNET_TYPE(double, "float64")
FASTNET_TYPE(uint2, "any")
FASTNET_TYPE(uint4, "any")
FASTNET_TYPE(int2, "any")
FASTNET_TYPE(int4, "any")
FASTNET_TYPE(float2, "any")
FASTNET_TYPE(float4, "any")
FASTNET_TYPE(double2, "any")
#undef FASTNET_TYPE
template<> struct Type<void> { static constexpr const char* name = "any"; static constexpr int alignment = 1; };

template<typename T> struct ParameterOf { static constexpr Parameter value = {Type<T>::name, 1, 0, 0}; };
template<typename T> struct ParameterOf<const T> : ParameterOf<T> {};
template<typename T> struct ParameterOf<T*> {
    static constexpr Parameter value = {Type<T>::name, Type<T>::alignment, 1, 0};
};
template<typename T> struct ParameterOf<const T*> {
    static constexpr Parameter value = {Type<T>::name, Type<T>::alignment, 1, 1};
};

template<auto kernel> struct Launcher;
template<typename... P, void (*kernel)(P...)> struct Launcher<kernel> {
    struct Call { Call(P... values) { kernel(values...); } };
    static void run(void* const* arguments) {
        int k = 0;
        Call{*(P*)arguments[k++]...};  // braces: from left to right
        (void)k;
    }
    static constexpr Parameter parameters[] = {ParameterOf<P>::value..., {}};
    static constexpr Kernel describe(int max_threads) { return {run, parameters, sizeof...(P), max_threads}; }
};

}  // namespace emulation
