// What a GPU gives at best, measured: reading its memory, and copying to it from pinned memory, GB/s.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "gg/cuda/common_units.hpp"
#include "gg/cuda/device_memory.hpp"
#include "gg/cuda/kernel_cache.hpp"
#include "gg/cuda/model_kernels.hpp"
#include "gg/cuda/synthesize_args.hpp"
#include "gg/model/synthetic_fill.hpp"
#include "timed_event.hpp"

namespace gg::bench {

namespace detail {

/// As the text below has it.
struct ReadMemoryArgs {
    const unsigned char* data;
    unsigned long long chunks;  ///< of read_chunk bytes
    unsigned* out;              ///< [threads of the grid]
};
inline constexpr std::size_t read_chunk = std::size_t{64} << 10;
inline constexpr int read_threads = 512;

/// Blocks take chunks in turn; a thread has eight loads of 16 bytes under way.
inline constexpr const char* read_memory_text = R"(#include "gg/cuda/launch_of.cuh"

struct ReadMemory {
    struct Args {
        const unsigned char* data;
        unsigned long long chunks;
        unsigned* out;
    };
    static constexpr int threads = 512;
    static constexpr int shared_bytes = 0;

    __device__ static void run(const Args& args) {
        unsigned sum = 0;
        for (unsigned long long chunk = blockIdx.x; chunk < args.chunks; chunk += gridDim.x) {
            const unsigned char* at = args.data + chunk * 65536 + threadIdx.x * 16;
            unsigned w[8][4];
#pragma unroll
            for (int i = 0; i < 8; ++i)
                asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                             : "=r"(w[i][0]), "=r"(w[i][1]), "=r"(w[i][2]), "=r"(w[i][3])
                             : "l"(at + i * threads * 16));
#pragma unroll
            for (int i = 0; i < 8; ++i) sum ^= w[i][0] ^ w[i][1] ^ w[i][2] ^ w[i][3];
        }
        args.out[blockIdx.x * threads + threadIdx.x] = sum;
    }
};

)";

inline cuda::KernelUnit read_memory_unit() {
    cuda::KernelUnit unit{{"read_memory", read_memory_text, {}}, {}};
    const std::vector<std::pair<std::string, std::string>> kernels = {{"read_memory", "ReadMemory"}};
    cuda::detail::write_kernels(kernels, unit);
    return unit;
}

/// The least seconds that a piece of work on the default stream takes.
inline double least_seconds(int repeats, const std::function<void()>& work) {
    const TimedEvent begin, end;
    double least = 0;
    for (int i = 0; i < repeats; ++i) {
        begin.record(nullptr);
        work();
        end.record(nullptr);
        const double time = end.since(begin);
        if (i == 1 || (i > 1 && time < least)) least = time;  // the first warms up
    }
    return least / 1e6;
}

}  // namespace detail

/// GB/s of reading random data in device memory, of 2 GiB or a quarter of what is free, by the fastest of
/// some grids; the current device is `device`.
inline double read_ceiling(const cuda::DeviceInfo& device, std::span<const cuda::HeaderText> headers) {
    const std::vector<cuda::KernelUnit> units = {detail::read_memory_unit(), cuda::synthesize_unit()};
    std::vector<cuda::CompileUnit> sources;
    for (const cuda::KernelUnit& unit : units) sources.push_back(unit.unit);
    cuda::KernelCache cache(headers);
    const cuda::ModelKernels kernels(units, cache.load(sources, device.architecture()));
    const cuda::StageKernel& read = kernels[{"read_memory", "read_memory", "ReadMemory"}];

    constexpr int most = 4;  // blocks a multiprocessor
    const auto grid = static_cast<std::size_t>(device.multiprocessors * most);
    const std::size_t unit = grid * detail::read_chunk;
    const std::size_t bytes =
        std::max<std::size_t>(
            std::min<std::size_t>(std::size_t{2} << 30, cuda::free_device_memory() / 4) / unit, 1) *
        unit;
    const cuda::DeviceBuffer<unsigned char> data(bytes, "measuring how fast device memory is read");
    const cuda::DeviceBuffer<unsigned> out(grid * detail::read_threads, "measuring how fast memory is read");
    const cuda::SynthesizeArgs fill{
        synthetic_recipe({{.name = "random bytes", .type = DType::q8_0}, 0, 1, 0}, 1), 0, bytes / 34,
        data.data()};
    kernels[cuda::synthesize_spec()].enqueue(dim3(cuda::synthesize_blocks(fill)), nullptr, fill, false);

    const detail::ReadMemoryArgs args{data.data(), bytes / detail::read_chunk, out.data()};
    double best = 0;
    for (const int blocks : {1, 2, most}) {
        const double seconds = detail::least_seconds(12, [&] {
            read.enqueue(dim3(static_cast<unsigned>(device.multiprocessors * blocks)), nullptr, args, false);
        });
        best = std::max(best, static_cast<double>(bytes) / seconds / 1e9);
    }
    return best;
}

/// GB/s of copying from pinned memory to the current device.
inline double bus_ceiling() {
    constexpr std::size_t bytes = std::size_t{256} << 20;
    const cuda::PinnedBuffer from(bytes, "measuring how fast copies to the device are");
    const cuda::DeviceBuffer<unsigned char> to(bytes, "measuring how fast copies to the device are");
    const double seconds = detail::least_seconds(4, [&] {
        cuda::check(cudaMemcpyAsync(to.data(), from.data(), bytes, cudaMemcpyHostToDevice, nullptr),
                    "copying to the device");
    });
    return static_cast<double>(bytes) / seconds / 1e9;
}

}  // namespace gg::bench
