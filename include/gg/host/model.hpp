// A model of any family on the host: weights as they lie in the mapped file, sessions with their caches.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gg/host/memory.hpp"
#include "gg/host/session.hpp"

namespace gg::host {

template <class Family>
class HostModel final : public Model {
  public:
    /// Binds every tensor and checks them all. The file must outlive the model.
    HostModel(const gguf::File& file, const LoadOptions& options, InstructionSet set)
        : available_(available_memory()),
          loaded_(file, options, set),
          device_("host, " + std::to_string(loaded_.pool.size()) + " threads, " + to_string(set)) {
        loaded_.info = describe_model<Family>(file);
        bind_weights(file, loaded_.info.dims, loaded_.weights, loaded_.vectors);
        TensorDirectory(file).require_valid_blocks();
    }

    const ModelInfo& info() const override { return loaded_.info; }
    int chunk() const override { return cache_shape.chunk; }
    std::uint64_t session_bytes(int context) const override {
        return host::session_bytes(loaded_.info, context, loaded_.pool.size());
    }
    std::optional<std::uint64_t> available_bytes() const override {
        // The weights are pages of the file that running will bring into memory.
        const std::uint64_t weights = loaded_.info.weight_bytes;
        if (!available_) return {};
        return *available_ > weights ? *available_ - weights : 0;
    }
    std::string_view memory_name() const override { return "memory"; }
    std::unique_ptr<Session> session(int context) const override {
        require_context(loaded_.info.dims, context);
        return std::make_unique<HostSession<Family>>(loaded_, context);
    }
    int batch() const override { return 8; }
    std::vector<Decoded> decode(std::span<Session* const> sessions) const override {
        std::vector<Decoded> decoded;
        for (HostSession<Family>* session : require_batch<HostSession<Family>>(sessions, batch(), loaded_)) {
            Decoded& one = decoded.emplace_back();
            try {
                one.id = session->decode();
            } catch (const Error& error) {
                one.error = error;
            }
        }
        return decoded;
    }
    const std::string& device() const override { return device_; }

  private:
    std::optional<std::uint64_t> available_;  // before anything was read
    LoadedModel<Family> loaded_;
    std::string device_;
};

}  // namespace gg::host
