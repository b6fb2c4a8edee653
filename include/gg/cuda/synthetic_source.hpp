// Random weights made on the device instead of being brought there: no file, no bus.
#pragma once

#include <functional>
#include <utility>

#include "gg/cuda/byte_source.hpp"
#include "gg/cuda/synthesize_args.hpp"
#include "gg/model/synthetic_file.hpp"

namespace gg::cuda {

class SyntheticSource final : public ByteSource {
  public:
    /// Enqueues Synthesize with synthesize_blocks(args) blocks of synthesize_threads threads.
    using Launch = std::function<void(const SynthesizeArgs& args, cudaStream_t stream)>;

    /// The file outlives this.
    SyntheticSource(const SyntheticFile& file, Launch launch) : file_(file), launch_(std::move(launch)) {}

    void bring(const std::byte* from, std::size_t bytes, unsigned char* to, cudaStream_t stream) override {
        const SyntheticFile::Part part = file_.at(from, bytes);
        const std::uint64_t elements = info(static_cast<DType>(part.recipe->type)).elements;
        launch_({*part.recipe, part.first / elements, part.count / elements, to}, stream);
    }

  private:
    const SyntheticFile& file_;
    Launch launch_;
};

}  // namespace gg::cuda
