// What the kernels of the batches path multiply matrices with: a block computes a tile of a product.
//
// Products and sums are float32. Both factors come to shared memory in stages; each warp takes every N_WARPS-th term of
// the sums, and what the warps have is added up in their order at last. So even a small tile keeps all warps busy, and
// small tiles are what lets all multiprocessors take part in a small product.
//
// For what is defined, and for the legend, see batches.cu.

namespace batches {

constexpr int warp_size = 32, n_threads = N_WARPS * warp_size, head_threads = HEAD_WARPS * warp_size;
constexpr unsigned whole_warp = 0xffffffff;

// Of a row of floats: whole sectors of memory, 32 bytes. Inputs of layers have a one at the end of each row, of which a
// bias is the weight; it is there from the start.
__device__ constexpr int pitch(int width) { return (width + 7) / 8 * 8; }
__device__ constexpr int input_pitch(int width) { return pitch(width + HAS_BIAS); }

__device__ __forceinline__ int lane() { return threadIdx.x % warp_size; }
__device__ __forceinline__ int warp() { return threadIdx.x / warp_size; }

// The sum over a block, in its first thread; `shared` holds a number per warp.
template<int n_warps, typename T> __device__ __forceinline__ T sum_over_block(T value, T* shared) {
#pragma unroll
    for (int distance = warp_size / 2; distance > 0; distance /= 2)
        value += __shfl_down_sync(whole_warp, value, distance);
    if (lane() == 0) shared[warp()] = value;
    __syncthreads();
    T sum = shared[0];
#pragma unroll
    for (int k = 1; k < n_warps; ++k) sum += shared[k];
    return sum;
}

// Which part of an operand's stage a thread brings as its j-th, when a row has `extent` of them. Neighbouring threads
// take neighbours in memory: along k, 8 of them, which fill a sector, and meet no conflict in shared memory; or along
// the row. From one j to the next both indices change by constants, so that they take few registers.
template<int extent, bool is_along_k> struct Place {
    static constexpr int power_of_two = extent & -extent;  // that divides it
    static constexpr int width = is_along_k ? 8 : power_of_two < warp_size ? power_of_two : warp_size;
    static constexpr int height = n_threads / width;
    int index, k;

    __device__ __forceinline__ explicit Place(int j) {
        const int across = threadIdx.x % width, down = threadIdx.x / width;
        if constexpr (!is_along_k) {
            index = across + j % (extent / width) * width;
            k = down + j / (extent / width) * height;
        } else if constexpr (extent < height) {
            static_assert(height % extent == 0, "");
            index = down % extent;
            k = across + (down / extent + j * (height / extent)) * width;
        } else {
            static_assert(extent % height == 0, "");
            index = down + j % (extent / height) * height;
            k = across + j / (extent / height) * width;
        }
    }
};

// One operand of a product on its way to shared memory, a stage of STAGE rows of `extent` numbers at a time. It is
// fetched while another stage is in use, and put to where it is used: copied asynchronously, if it can be copied in
// vectors of 4, else by way of registers.
template<int extent> struct Stage {
    static constexpr int pitch = extent + 4, size = STAGE * pitch;
};

template<int extent, typename Operand, bool is_vector = Operand::is_vector> struct Staged : Stage<extent> {
    static constexpr int per_thread = STAGE * extent / n_threads;
    using At = Place<extent, Operand::is_along_k>;
    float numbers[per_thread];

    __device__ __forceinline__ void fetch(const Operand& operand, int begin, int end, float*) {
#pragma unroll
        for (int j = 0; j < per_thread; ++j) {
            const At at(j);
            numbers[j] = begin + at.k < end ? operand(at.index, begin + at.k) : 0.0f;
        }
    }
    __device__ __forceinline__ void put(float* shared) const {
#pragma unroll
        for (int j = 0; j < per_thread; ++j) {
            const At at(j);
            shared[at.k * this->pitch + at.index] = numbers[j];
        }
    }
};

template<int extent, typename Operand> struct Staged<extent, Operand, true> : Stage<extent> {
    static constexpr int per_thread = STAGE * extent / 4 / n_threads;
    using At = Place<extent / 4, false>;

    __device__ __forceinline__ void fetch(const Operand& operand, int begin, int end, float* shared) {
#pragma unroll
        for (int j = 0; j < per_thread; ++j) {
            const At at(j);
            const int i = 4 * at.index, k = begin + at.k;
            const bool is_inside = k < end && operand.first + i < operand.extent;
            const float* const vector = operand.matrix + (is_inside ? k * operand.pitch + operand.first + i : 0);
            copy_async_16(shared + at.k * this->pitch + i, vector, is_inside);
        }
        copy_async_commit();
    }
    __device__ __forceinline__ void put(float*) const {
        copy_async_wait<0>();
    }
};

template<int n> __device__ __forceinline__ void read(const float* shared, float (&numbers)[n]) {
    if constexpr (n % 4 == 0) {
#pragma unroll
        for (int k = 0; k < n; k += 4) {
            const float4 four = *(const float4*)(shared + k);
            numbers[k] = four.x, numbers[k + 1] = four.y, numbers[k + 2] = four.z, numbers[k + 3] = four.w;
        }
    } else {
#pragma unroll
        for (int k = 0; k < n; k += 2) {
            const float2 two = *(const float2*)(shared + k);
            numbers[k] = two.x, numbers[k + 1] = two.y;
        }
    }
}

// A block's part of a product: `rows` x `columns` sums over k. The warps share the k out among themselves; each lane of
// a warp has lane_rows x lane_columns of the sums.
template<int rows_, int columns_> struct Tile {
    static constexpr int rows = rows_, columns = columns_, n_sums = rows * columns;
    static constexpr int lane_columns = 4, lanes_across = columns / lane_columns;
    static constexpr int lane_rows = rows * lanes_across / warp_size;
    static constexpr int per_thread = n_sums / n_threads;
    static_assert(lane_rows % 2 == 0 && n_sums % n_threads == 0, "see read, and what becomes of the sums");

    // The j-th of the sums that a thread is left with.
    static __device__ __forceinline__ int row(int j) { return (threadIdx.x + j * n_threads) / columns; }
    static __device__ __forceinline__ int column(int j) { return (threadIdx.x + j * n_threads) % columns; }

    // Where a lane's sums begin. Shared memory serves reads of 8 or 16 bytes in half the time if lanes that differ in
    // their lowest bit alone read the same address, or lanes that differ in the next bit alone do. Here the former have
    // the same rows, the latter the same columns.
    static __device__ __forceinline__ int first_row() {
        return (lane() / 2 % 2 + lane() / (2 * lanes_across) * 2) * lane_rows;
    }
    static __device__ __forceinline__ int first_column() {
        return (lane() % 2 + lane() / 4 % (lanes_across / 2) * 2) * lane_columns;
    }

    // Where a sum lies in shared memory: every second group of lane_rows rows is shifted, for lanes to write to
    // different banks.
    static __device__ __forceinline__ int place(int sum) { return sum ^ (sum / (lane_rows * columns) % 2 * 16); }

    // Sums of left(row, k) * right(column, k) over k from `begin` to `end`.
    template<typename Left, typename Right>
    static __device__ __forceinline__ void multiply(
        const Left& left, const Right& right, int begin, int end, float (&sums)[per_thread]
    ) {
        Staged<rows, Left> staged_left;
        Staged<columns, Right> staged_right;
        constexpr int left_size = Stage<rows>::size, size = left_size + Stage<columns>::size;
        float* const shared = (float*)shared_memory();
        float products[lane_rows][lane_columns] = {};

        staged_left.fetch(left, begin, end, shared);
        staged_right.fetch(right, begin, end, shared + left_size);
        for (int first = begin, now = 0; first < end; first += STAGE, now = size - now) {
            staged_left.put(shared + now);
            staged_right.put(shared + now + left_size);
            __syncthreads();  // the stage is there, and nobody uses the one before any more
            if (first + STAGE < end) {
                const int next = size - now;
                staged_left.fetch(left, first + STAGE, end, shared + next);
                staged_right.fetch(right, first + STAGE, end, shared + next + left_size);
            }
            const int n = min(end - first, STAGE);
#pragma unroll 2
            for (int k = warp(); k < n; k += N_WARPS) {
                float of_rows[lane_rows], of_columns[lane_columns];
                read(shared + now + k * Stage<rows>::pitch + first_row(), of_rows);
                read(shared + now + left_size + k * Stage<columns>::pitch + first_column(), of_columns);
#pragma unroll
                for (int i = 0; i < lane_rows; ++i)
#pragma unroll
                    for (int j = 0; j < lane_columns; ++j) products[i][j] += of_rows[i] * of_columns[j];
            }
        }
        __syncthreads();  // nobody uses any stage any more
        float* const of_warp = shared + warp() * n_sums;
#pragma unroll
        for (int i = 0; i < lane_rows; ++i)
            *(float4*)(of_warp + place((first_row() + i) * columns + first_column())) =
                make_float4(products[i][0], products[i][1], products[i][2], products[i][3]);
        __syncthreads();  // the sums of all warps are there
#pragma unroll
        for (int j = 0; j < per_thread; ++j) {
            const float* const sum = shared + place(threadIdx.x + j * n_threads);
            sums[j] = sum[0];
#pragma unroll
            for (int k = 1; k < N_WARPS; ++k) sums[j] += sum[k * n_sums];
        }
    }
};

// --- Operands -------------------------------------------------------------------------------------------------------
//
// A matrix, from its row or column `first` on; k counts its columns if `is_along_k`, else its rows. Beyond its `extent`
// there are zeros.

struct Rows {
    static constexpr bool is_along_k = true, is_vector = false;
    const float* __restrict__ matrix;
    int pitch, first, extent;

    __device__ __forceinline__ float operator()(int i, int k) const {
        return first + i < extent ? matrix[(first + i) * pitch + k] : 0.0f;
    }
};

// As vectors of 4, where rows begin at multiples of 16 bytes. The last vector of a row may reach beyond the extent, to
// what is multiplied into sums that nobody reads.
template<bool is_vector_> struct Columns {
    static constexpr bool is_along_k = false, is_vector = is_vector_;
    const float* __restrict__ matrix;
    int pitch, first, extent;

    __device__ __forceinline__ float operator()(int i, int k) const {
        return first + i < extent ? matrix[k * pitch + first + i] : 0.0f;
    }
};

}  // namespace batches
