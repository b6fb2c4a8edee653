// The only file of the runner that includes the CUDA backend.
#include "compute_cuda.hpp"

#include "gg/core/error.hpp"

#if defined(GG_WITH_CUDA)

#include <string_view>

#include "device_headers.hpp"
#include "gg/cuda/device.hpp"
#include "gg/cuda/load.hpp"
#include "output.hpp"
#include "progress.hpp"

namespace gg::runner {

namespace {

/// The steps of loading, one progress bar after the other.
class LoadProgress {
  public:
    void update(std::string_view what, std::uint64_t done, std::uint64_t total) {
        if (!bar_ || what != what_) {
            bar_.reset();  // wipes its line
            what_ = what;
            bar_.emplace(what_, total);
        }
        bar_->update(done);
    }
    void note(const std::string& text) {
        bar_.reset();
        print_note(text);
    }

  private:
    std::string what_;
    std::optional<Progress> bar_;
};

}  // namespace

GpuSearch find_gpu(std::optional<int> wanted) {
    try {
        const cuda::Devices devices = cuda::find_devices();
        if (devices.usable.empty()) return {.problem = devices.problem, .remedy = devices.remedy};
        return {.gpu = wanted ? devices.at(*wanted).index : devices.usable.front().index};
    } catch (const Error& error) {
        return {.problem = error.what()};
    }
}

std::unique_ptr<Model> load_on_gpu(const gguf::File& file, int gpu) {
    LoadProgress progress;
    return cuda::load_model(file,
                            {.device = gpu,
                             .headers = device_headers(),
                             .progress = [&](std::string_view what, std::uint64_t done,
                                             std::uint64_t total) { progress.update(what, done, total); },
                             .note = [&](const std::string& text) { progress.note(text); }});
}

}  // namespace gg::runner

#else

namespace gg::runner {

namespace {

constexpr const char* no_backend = "this gg was built without CUDA";
constexpr const char* build_it = "Build it where the CUDA toolkit is installed.";

}  // namespace

GpuSearch find_gpu(std::optional<int>) {
    return {.problem = no_backend, .remedy = build_it};
}

std::unique_ptr<Model> load_on_gpu(const gguf::File&, int) {
    throw Error(ErrorCode::invalid_request,
                {.expected = "a CUDA backend", .found = "none", .next_step = build_it});
}

}  // namespace gg::runner

#endif
