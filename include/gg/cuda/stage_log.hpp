// Times of a step's stages from the kernels themselves: a model that is loaded with a StageLog has kernels
// that note when each of their blocks began, had waited and ended (stamps.hpp). Noting costs about a
// microsecond a kernel, so the sum is not the time of a step without it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "gg/cuda/device_memory.hpp"
#include "gg/cuda/model_kernels.hpp"

namespace gg::cuda {

/// A kernel of a decoding step, and the bytes of weights that it reads.
struct ChainKernel {
    std::string name;
    double bytes = 0;
};

/// One launch of a kernel, nanoseconds of the device's global timer.
struct LaunchTimes {
    std::string name;
    unsigned blocks = 0;
    unsigned crowd = 0;           ///< the most blocks that one multiprocessor had
    unsigned came[moments] = {};  ///< blocks that came to each moment
    std::uint64_t begin = 0;      ///< its first block began
    std::uint64_t waited = 0;     ///< its first block had waited for the kernel before
    std::uint64_t first_end = 0, end = 0;
    double at[moments] = {};  ///< moments since a block's wait, the mean of the blocks that came there
    double block_end = 0;     ///< likewise
};

class StageLog {
  public:
    /// Room for `capacity` stamps, one a block of a launch.
    explicit StageLog(unsigned capacity = 1u << 20) : capacity_(capacity) {}

    /// Called by the model that loads: its kernels, and those of a step of one row in their order.
    void attach(const ModelKernels& kernels, std::vector<ChainKernel> chain) {
        stamps_ = DeviceBuffer<Stamp>(capacity_, "the log of stages");
        count_ = DeviceBuffer<unsigned>(1, "the log of stages");
        check(cudaMemset(count_.data(), 0, sizeof(unsigned)), "clearing the log of stages");
        kernels.set_stamps({stamps_.data(), count_.data(), capacity_, 0});
        kernels_ = &kernels;
        chain_ = std::move(chain);
    }
    const std::vector<ChainKernel>& chain() const { return chain_; }

    /// The launches since the last call, in the order in which they ended, after waiting for the device.
    std::vector<LaunchTimes> take() {
        check(cudaDeviceSynchronize(), "computing on the device");
        unsigned count = 0;
        check(cudaMemcpy(&count, count_.data(), sizeof count, cudaMemcpyDeviceToHost), "reading the log");
        if (count > capacity_)
            throw Error(ErrorCode::invalid_request, {.field = "the log of stages",
                                                     .expected = std::to_string(capacity_) + " stamps",
                                                     .found = std::to_string(count)});
        std::vector<Stamp> stamps(count);
        check(cudaMemcpy(stamps.data(), stamps_.data(), count * sizeof(Stamp), cudaMemcpyDeviceToHost),
              "reading the log");
        check(cudaMemset(count_.data(), 0, sizeof(unsigned)), "clearing the log of stages");
        return launches(stamps);
    }

  private:
    /// A kernel's launches follow each other, so the n-th stamp of a block is of the n-th launch.
    std::vector<LaunchTimes> launches(std::vector<Stamp>& stamps) const {
        std::sort(stamps.begin(), stamps.end(), [](const Stamp& a, const Stamp& b) { return a.end < b.end; });
        std::map<unsigned, std::vector<LaunchTimes>> by_kernel;
        std::map<std::pair<unsigned, unsigned>, std::size_t> seen;
        std::map<std::tuple<unsigned, std::size_t, unsigned>, unsigned> crowds;
        for (const Stamp& s : stamps) {
            const std::size_t n = seen[{s.kernel, s.block}]++;
            std::vector<LaunchTimes>& list = by_kernel[s.kernel];
            if (list.size() <= n) {
                list.emplace_back();
                list[n].name = kernels_->name_of(s);
                list[n].begin = s.begin;
                list[n].waited = s.at[waited];
                list[n].first_end = s.end;
            }
            add(list[n], s);
            list[n].crowd = std::max(list[n].crowd, ++crowds[{s.kernel, n, s.multiprocessor}]);
        }
        std::vector<LaunchTimes> all;
        for (const auto& [kernel, list] : by_kernel) all.insert(all.end(), list.begin(), list.end());
        for (LaunchTimes& launch : all) {
            for (int m = 0; m < moments; ++m) launch.at[m] /= std::max(1u, launch.came[m]);
            launch.block_end /= launch.blocks;
        }
        std::sort(all.begin(), all.end(),
                  [](const LaunchTimes& a, const LaunchTimes& b) { return a.end < b.end; });
        return all;
    }

    static void add(LaunchTimes& launch, const Stamp& s) {
        ++launch.blocks;
        launch.begin = std::min<std::uint64_t>(launch.begin, s.begin);
        launch.waited = std::min<std::uint64_t>(launch.waited, s.at[waited]);
        launch.end = s.end;  // stamps are in the order of their ends
        const auto since = [&](std::uint64_t time) {
            return static_cast<double>(time) - static_cast<double>(s.at[waited]);
        };
        for (int m = 0; m < moments; ++m)
            if (s.at[m] != 0) launch.at[m] += since(s.at[m]), ++launch.came[m];
        launch.block_end += since(s.end);
    }

    unsigned capacity_;
    DeviceBuffer<Stamp> stamps_;
    DeviceBuffer<unsigned> count_;
    const ModelKernels* kernels_ = nullptr;
    std::vector<ChainKernel> chain_;
};

}  // namespace gg::cuda
