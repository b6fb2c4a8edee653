// What an application embeds: a GGUF file opened and loaded onto a device, its tokenizer, and sessions.
//
//     const gg::Inference inference("model.gguf");
//     const auto session = inference.session(4096);
//     session->prefill(inference.tokenizer().encode("Once upon a time"));
//     session->set_sampling({}, inference.sampleable());
//     const std::int32_t id = session->decode();
//
// It computes on the host unless it is given a GPU backend: InferenceOptions::gpu = gg::cuda::gpu_backend(),
// of gg/cuda/gpu_backend.hpp, in a program that links the CMake target gg::cuda.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "gg/core/bytes_text.hpp"
#include "gg/host/load.hpp"
#include "gg/model/device_choice.hpp"
#include "gg/text/tokenizer.hpp"

namespace gg {

/// Loads a model where it was chosen to run. The file must outlive it. Throws model_load_failed for a file
/// that is wrong; on a GPU also cuda_error and out_of_memory, which the host may not meet.
inline std::unique_ptr<Model> load_model(const gguf::File& file, const DeviceChoice& device,
                                         const GpuBackend& backend = {}, const LoadOptions& options = {}) {
    return device.gpu ? backend.load(file, *device.gpu, options) : host::load_model(file, options);
}

struct InferenceOptions {
    std::string device = "auto";  ///< auto, host, cuda or cuda:N
    GpuBackend gpu = {};          ///< without one, auto is the host
    LoadOptions load = {};
};

/// A loaded model with its file and tokenizer. It outlives its sessions; what is const here may be called
/// from several threads, but sessions of one model compute one at a time.
class Inference {
  public:
    /// Throws gg::Error: invalid_request for a device that cannot be used, model_load_failed for a file that
    /// is not there or wrong, cuda_error, out_of_memory.
    explicit Inference(const std::filesystem::path& path, const InferenceOptions& options = {})
        : choice_(choose_device(options.device, options.gpu)),
          file_(std::make_unique<const gguf::File>(gguf::File::open(path))) {
        load(options);
    }
    /// The same for a file that is open already.
    explicit Inference(gguf::File file, const InferenceOptions& options = {})
        : choice_(choose_device(options.device, options.gpu)),
          file_(std::make_unique<const gguf::File>(std::move(file))) {
        load(options);
    }

    const gguf::File& file() const { return *file_; }
    const Model& model() const { return *model_; }
    const ModelInfo& info() const { return model_->info(); }
    /// The device that computes, for messages.
    const std::string& device() const { return model_->device(); }
    /// Why auto took the host though there seems to be a GPU; else empty.
    const std::string& why_host() const { return choice_.why_host; }

    /// Throws model_load_failed if the file has none, or one that gg does not know.
    const text::Tokenizer& tokenizer() const {
        if (!tokenizer_) throw *no_tokenizer_;
        return *tokenizer_;
    }
    /// Which ids are tokens that may be drawn, for Session::set_sampling: all if the file has no tokenizer.
    std::function<bool(std::int32_t)> sampleable() const {
        if (!tokenizer_) return {};
        return [tokenizer = &*tokenizer_](std::int32_t id) {
            return id < tokenizer->size() && tokenizer->is_sampleable(id);
        };
    }

    /// A new sequence of up to `context` tokens; 0: as many as the model was made for and as fit into memory.
    /// Throws invalid_request if the model has fewer, out_of_memory with what would fit.
    std::unique_ptr<Session> session(int context = 0) const {
        const int wanted = context == 0 ? info().dims.context : context;
        require_context(info().dims, wanted);
        const int fits = fitting_context(*model_, wanted);
        if (fits < (context == 0 ? 1 : wanted))
            throw Error(ErrorCode::out_of_memory,
                        {.field = "context",
                         .expected = "at most " + std::to_string(fits) + " tokens in the " +
                                     bytes_text(*model_->available_bytes()) + " of " +
                                     std::string(model_->memory_name()) + " that are left",
                         .found = std::to_string(wanted),
                         .next_step = fits > 0 ? "Make the context smaller." : ""});
        return model_->session(fits);
    }
    /// Model::decode(): a step each of several sessions, computed together.
    std::vector<Decoded> decode(std::span<Session* const> sessions) const { return model_->decode(sessions); }

    /// Memory that a session of `context` tokens takes, bytes.
    std::uint64_t session_bytes(int context) const { return model_->session_bytes(context); }
    /// Bytes that are left for sessions beside the weights; nothing if the system does not tell.
    std::optional<std::uint64_t> available_bytes() const { return model_->available_bytes(); }

  private:
    void load(const InferenceOptions& options) {
        try {
            text::Tokenizer tokenizer = text::Tokenizer::from_gguf(*file_);
            text::check_vocabulary(tokenizer,
                                   static_cast<std::uint64_t>(describe_model(*file_).dims.vocabulary));
            tokenizer_ = std::make_unique<const text::Tokenizer>(std::move(tokenizer));
        } catch (const Error& error) {
            no_tokenizer_ = error;
        }
        model_ = load_model(*file_, choice_, options.gpu, options.load);
    }

    DeviceChoice choice_;
    std::unique_ptr<const gguf::File> file_;  // each at one address, which model and sessions know
    std::unique_ptr<const text::Tokenizer> tokenizer_;
    std::optional<Error> no_tokenizer_;
    std::unique_ptr<const Model> model_;
};

}  // namespace gg
