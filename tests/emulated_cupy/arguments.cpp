// The device memory that a launch sees: copies of its arrays, each followed by memory that must not be touched.

#include "runtime.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <sys/mman.h>
#include <unistd.h>

namespace emulation {

bool is_poison(const unsigned char* data, size_t n_bytes) {
    return n_bytes == 0 || (data[0] == POISON && memcmp(data, data + 1, n_bytes - 1) == 0);
}

constexpr int ALIGNMENT = 16;       // of arrays; no instruction of the kernels asks for more
constexpr int FORBIDDEN = 1 << 18;  // bytes between arrays
constexpr size_t MAX_ARENAS = 100;

// --- Memory between memory that must not be touched -----------------------------------------------------------------

static size_t whole_pages(size_t n_bytes) {
    static const size_t page = sysconf(_SC_PAGESIZE);
    return (n_bytes + page - 1) / page * page;
}

void Arena::map(const std::vector<size_t>& sizes) {
    total = FORBIDDEN;
    for (const size_t size : sizes) total += whole_pages(size) + FORBIDDEN;
    memory = mmap(nullptr, total, PROT_NONE, MAP_PRIVATE | MAP_ANON, -1, 0);
    unsigned char* next = (unsigned char*)memory + FORBIDDEN;
    for (const size_t size : sizes) {
        mprotect(next, whole_pages(size), PROT_READ | PROT_WRITE);
        beginnings.push_back(next);
        ends.push_back(next + whole_pages(size));
        next = ends.back() + FORBIDDEN;
    }
}

Arena::~Arena() {
    if (is_mapped()) munmap(memory, total);
}

bool Arena::is_before(int k, const unsigned char* address) const {
    return address < beginnings[k] && beginnings[k] - address <= FORBIDDEN / 2;
}

bool Arena::is_beyond(int k, const unsigned char* address) const {
    return address >= ends[k] && address - ends[k] < FORBIDDEN / 2;
}

// The same shapes come again and again, and mapping memory takes longer than copying small arrays.
static const Arena& arena_for(const std::vector<size_t>& sizes) {
    static std::map<std::vector<size_t>, Arena> arenas;
    if (arenas.size() >= MAX_ARENAS && !arenas.count(sizes)) arenas.clear();
    Arena& arena = arenas[sizes];
    if (!arena.is_mapped()) arena.map(sizes);
    return arena;
}

// --- Arguments ------------------------------------------------------------------------------------------------------

Arguments::Arguments(const Launch& launch) : n(launch.kernel->n_parameters), arguments(launch.arguments) {
    find_regions();
    copy_in();
    addresses.resize(n);
    for (int k = 0; k < n; ++k) pointers.push_back(arguments[k].n_bytes < 0 ? (void*)arguments[k].data : &addresses[k]);
    for (const Region& region : regions)
        for (const int k : region.members) addresses[k] = region.copy + (arguments[k].data - region.begin);
}

void Arguments::find_regions() {
    std::vector<int> arrays;
    for (int k = 0; k < n; ++k)
        if (arguments[k].n_bytes >= 0) arrays.push_back(k);
    std::sort(arrays.begin(), arrays.end(), [this](int a, int b) { return arguments[a].data < arguments[b].data; });
    for (const int k : arrays) {
        const Argument& array = arguments[k];
        unsigned char* end = array.data + array.n_bytes;
        const bool is_apart = regions.empty() || array.data >= regions.back().end;
        if (is_apart) regions.push_back({array.data, end, nullptr, {}, true});
        Region& region = regions.back();
        region.end = std::max(region.end, end);
        region.is_constant &= array.is_constant;
        region.members.push_back(k);
    }
}

void Arguments::copy_in() {
    std::vector<size_t> sizes;
    for (const Region& region : regions) sizes.push_back(region.size() + ALIGNMENT);
    arena = &arena_for(sizes);
    for (size_t k = 0; k < regions.size(); ++k) {
        Region& region = regions[k];
        unsigned char *begin = arena->beginnings[k], *end = arena->ends[k];
        memset(begin, POISON, end - begin);
        // As near to the end as the alignment allows, so that what is read beyond it faults.
        const size_t remainder = (region.size() + arguments[region.members[0]].offset) % ALIGNMENT;
        region.copy = end - region.size() - (ALIGNMENT - remainder) % ALIGNMENT;
        memcpy(region.copy, region.begin, region.size());
    }
}

void Arguments::check() const {
    for (size_t k = 0; k < regions.size(); ++k) {
        const Region& region = regions[k];
        const char* name = arguments[region.members[0]].name;
        const unsigned char *begin = arena->beginnings[k], *end = region.copy + region.size();
        if (!is_poison(begin, region.copy - begin))
            describe(OUT_OF_BOUNDS, "writes before the beginning of argument '%s'", name);
        if (!is_poison(end, arena->ends[k] - end))
            describe(OUT_OF_BOUNDS, "writes beyond the end of argument '%s'", name);
        if (region.is_constant && memcmp(region.copy, region.begin, region.size()))
            describe(BROKEN_RULE, "writes to argument '%s', which is const", name);
    }
}

void Arguments::copy_out() const {
    for (const Region& region : regions)
        if (!region.is_constant) memcpy(region.begin, region.copy, region.size());
}

void Arguments::describe_fault(const unsigned char* address) const {
    for (size_t k = 0; k < regions.size(); ++k) {
        const char* name = arguments[regions[k].members[0]].name;
        if (arena->is_before(k, address)) describe(OUT_OF_BOUNDS, "goes before the beginning of argument '%s'", name);
        if (arena->is_beyond(k, address)) describe(OUT_OF_BOUNDS, "goes beyond the end of argument '%s'", name);
    }
    if (is_beyond_shared_memory(address)) describe(OUT_OF_BOUNDS, "goes beyond the end of its shared memory");
    describe(OUT_OF_BOUNDS, "goes far beyond its arrays and shared memory");
}

}  // namespace emulation
