// A loaded model on a GPU, as gg::Model has it.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gg/cuda/decoding.hpp"
#include "gg/cuda/session.hpp"

namespace gg::cuda {

template <class Family>
class CudaModel final : public Model {
  public:
    CudaModel(const gguf::File& file, const LoadOptions& options, const DeviceInfo& device)
        : file_(file), engine_(file, options, device), decoding_(engine_), device_(device.text()) {}

    const ModelInfo& info() const override { return engine_.info(); }
    int chunk() const override { return engine_.step_rows(); }
    std::uint64_t session_bytes(int context) const override { return engine_.session_bytes(context); }
    std::optional<std::uint64_t> available_bytes() const override { return engine_.available(); }
    std::string_view memory_name() const override { return "GPU memory"; }
    std::unique_ptr<Session> session(int context) const override {
        gg::require_context(info().dims, context);
        return std::make_unique<CudaSession<Family>>(engine_, decoding_, file_,
                                                     TokenHistory(info().dims.vocabulary, context));
    }
    int batch() const override { return decode_rows[decode_variants - 1]; }
    std::vector<Decoded> decode(std::span<Session* const> sessions) const override {
        return decoding_.decode(require_batch<CudaSession<Family>>(sessions, batch(), decoding_));
    }
    const std::string& device() const override { return device_; }

  private:
    const gguf::File& file_;
    mutable Engine<Family> engine_;
    mutable Decoding<Family> decoding_;
    std::string device_;
};

}  // namespace gg::cuda
