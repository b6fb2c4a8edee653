// The ceiling: how fast this GPU reads memory, by a kernel that does nothing else. It xors 1 GiB of random
// words, 16 bytes a load, with several numbers of blocks; the fastest counts.
#include "data.hpp"
#include "timing.hpp"

namespace gg::bench {

namespace {

constexpr int read_threads = 512, loads = 8;

__global__ void __launch_bounds__(read_threads)
    read_kernel(const uint4* data, std::size_t count, unsigned* xors) {
    const std::size_t step = static_cast<std::size_t>(gridDim.x) * read_threads;
    std::size_t i = static_cast<std::size_t>(blockIdx.x) * read_threads + threadIdx.x;
    unsigned all = 0;
    for (; i + (loads - 1) * step < count; i += loads * step) {
        uint4 words[loads];
#pragma unroll
        for (int k = 0; k < loads; ++k) words[k] = __ldcs(data + i + static_cast<std::size_t>(k) * step);
#pragma unroll
        for (int k = 0; k < loads; ++k) all ^= words[k].x ^ words[k].y ^ words[k].z ^ words[k].w;
    }
    for (; i < count; i += step) {
        const uint4 word = data[i];
        all ^= word.x ^ word.y ^ word.z ^ word.w;
    }
    // a block's xor, so that few of them meet at one address
    __shared__ unsigned of_block;
    if (threadIdx.x == 0) of_block = 0;
    __syncthreads();
    all = __reduce_xor_sync(0xFFFFFFFFu, all);
    if (threadIdx.x % 32 == 0) atomicXor(&of_block, all);
    __syncthreads();
    if (threadIdx.x == 0) atomicXor(xors, of_block);
}

}  // namespace

void bench_reads(Bench& bench) {
    constexpr std::size_t bytes = std::size_t{1} << 30, words = bytes / 4, checked = 1 << 22;
    const auto measure = [&]() -> std::optional<Result> {
        cuda::DeviceBuffer<unsigned> data(words, "the memory that is read");
        fill_words(data.data(), words, 1);
        const auto xors = buffer<unsigned>(1);
        const auto* pieces = reinterpret_cast<const uint4*>(data.data());
        read_kernel<<<64, read_threads>>>(pieces, checked / 4, xors.data());
        unsigned expected = 0;
        for (const unsigned word : read(data.data(), checked)) expected ^= word;
        Check check("the host's xor");
        check.see(read(xors.data(), 1)[0], expected, 0, "xor of 16 MiB");
        Result best;
        for (const int blocks_each : {1, 2, 4, 8, 16}) {
            const unsigned blocks = static_cast<unsigned>(blocks_each * bench.device().multiprocessors);
            const Times us = time_calls(bench, 1, [&](cudaStream_t stream, int) {
                read_kernel<<<blocks, read_threads, 0, stream>>>(pieces, words / 4, xors.data());
            });
            if (best.us.median == 0 || us.median < best.us.median) best.us = us;
        }
        best.bytes = static_cast<double>(bytes);
        best.check = check.text();
        bench.read_ceiling = best.bytes / best.us.median * 1e-3;
        return best;
    };
    bench.measure_ceiling("ceiling: reading memory", "1 GiB", measure);
}

}  // namespace gg::bench
