// Choosing a device by name, and the class that applications embed.
#include "gg/inference.hpp"

#include <filesystem>

#include "catch.hpp"
#include "refusal.hpp"

using gg::ErrorCode;
using gg::Inference;
using gg_test::refusal;

namespace {

std::filesystem::path golden(const std::string& name) {
    return std::filesystem::path(GG_TEST_DATA) / "model" / (name + ".gguf");
}

bool contains(const std::string& text, const std::vector<std::string>& parts) {
    for (const std::string& part : parts)
        if (text.find(part) == text.npos) return false;
    return true;
}

/// A model on the host that says another thing of its memory.
class SmallMemory final : public gg::Model {
  public:
    SmallMemory(std::unique_ptr<gg::Model> model, std::uint64_t bytes)
        : model_(std::move(model)), bytes_(bytes) {}
    const gg::ModelInfo& info() const override { return model_->info(); }
    int chunk() const override { return model_->chunk(); }
    std::uint64_t session_bytes(int context) const override { return model_->session_bytes(context); }
    std::optional<std::uint64_t> available_bytes() const override { return bytes_; }
    std::string_view memory_name() const override { return "test memory"; }
    std::unique_ptr<gg::Session> session(int context) const override { return model_->session(context); }
    int batch() const override { return model_->batch(); }
    std::vector<gg::Decoded> decode(std::span<gg::Session* const> sessions) const override {
        return model_->decode(sessions);
    }
    const std::string& device() const override { return model_->device(); }

  private:
    std::unique_ptr<gg::Model> model_;
    std::uint64_t bytes_;
};

/// A backend with GPUs 0 to 2 that computes on the host.
struct Gpus {
    std::vector<std::optional<int>> asked;
    std::vector<int> loaded;
    std::uint64_t bytes = std::uint64_t{1} << 40;

    gg::GpuBackend backend() {
        return {.find =
                    [this](std::optional<int> wanted) {
                        asked.push_back(wanted);
                        if (wanted.value_or(0) > 2)
                            return gg::GpuSearch{.problem = "no such device", .remedy = "Take 0 to 2."};
                        return gg::GpuSearch{.gpu = wanted.value_or(1)};
                    },
                .load = [this](const gg::gguf::File& file, int gpu,
                               const gg::LoadOptions& options) -> std::unique_ptr<gg::Model> {
                    loaded.push_back(gpu);
                    if (options.progress) options.progress("loading", 1, 2);
                    if (options.note) options.note("noted");
                    return std::make_unique<SmallMemory>(gg::host::load_model(file, options), bytes);
                }};
    }
};

}  // namespace

TEST_CASE("a device is chosen by name") {
    Gpus gpus;
    const gg::GpuBackend backend = gpus.backend();
    CHECK_FALSE(gg::choose_device("host", backend).gpu.has_value());
    CHECK(gpus.asked.empty());
    CHECK(gg::choose_device("auto", backend).gpu == 1);
    CHECK(gg::choose_device("cuda", backend).gpu == 1);
    CHECK(gg::choose_device("cuda:0", backend).gpu == 0);
    CHECK(gg::choose_device("cuda:2", backend).gpu == 2);
    CHECK(gpus.asked == std::vector<std::optional<int>>{{}, {}, 0, 2});
    try {
        gg::choose_device("cuda:12", backend);
        FAIL("it was not refused");
    } catch (const gg::Error& error) {
        CHECK(error.code() == ErrorCode::invalid_request);
        CHECK(contains(error.what(), {"device cuda:12: no such device. Take 0 to 2."}));
        CHECK(error.mismatch().next_step == "Take 0 to 2.");
    }
    for (const char* name : {"", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1234", "Host", "cuda0"}) {
        CAPTURE(name);
        CHECK_FALSE(gg::is_device_name(name));
        CHECK(contains(refusal(ErrorCode::invalid_request, [&] { gg::choose_device(name, backend); }),
                       {"auto, host, cuda or cuda:N"}));
    }
    // A program without the backend: only a GPU asked for by name is missed.
    CHECK_FALSE(gg::choose_device("auto").gpu.has_value());
    CHECK(contains(refusal(ErrorCode::invalid_request, [] { gg::choose_device("cuda"); }),
                   {"device cuda", "built without CUDA", "toolkit"}));
    const gg::GpuBackend none{.find = [](std::optional<int>) {
        return gg::GpuSearch{.problem = "no driver", .remedy = "Install it."};
    }};
    const gg::DeviceChoice choice = gg::choose_device("auto", none);
    CHECK_FALSE(choice.gpu.has_value());
    CHECK((choice.why_host.empty() || choice.why_host == "no driver. Install it."));
}

TEST_CASE("an application opens a file, encodes, draws and decodes") {
    const Inference inference(golden("llama-text"), {.device = "host", .load = {.threads = 2}});
    CHECK(contains(inference.device(), {"host, 2 threads"}));
    CHECK(inference.why_host().empty());
    CHECK(inference.info().family == "llama");
    CHECK(inference.info().dims.layers == gg::describe_model(inference.file()).dims.layers);
    CHECK(inference.session_bytes(64) == inference.model().session_bytes(64));
    const auto& tokenizer = inference.tokenizer();
    const std::vector<std::int32_t> prompt = tokenizer.encode("It was a dark evening");
    CHECK(tokenizer.decode(prompt) == "It was a dark evening");

    const auto session = inference.session(64), other = inference.session(64);
    CHECK(session->context() == 64);
    for (gg::Session* one : {session.get(), other.get()}) {
        one->prefill(prompt);
        one->set_sampling({.seed = 3}, inference.sampleable());
    }
    for (int i = 0; i < 10; ++i) {
        const std::int32_t id = session->decode();
        CHECK(tokenizer.is_sampleable(id));
        gg::Session* const batch[] = {other.get()};
        CHECK(inference.decode(batch)[0].id == id);
    }
    const int most = inference.info().dims.context;
    CHECK(inference.session()->context() == gg::fitting_context(inference.model(), most));
    for (const int context : {-1, most + 1})
        CHECK(contains(refusal(ErrorCode::invalid_request, [&] { inference.session(context); }),
                       {"1 to " + std::to_string(most), "found " + std::to_string(context)}));
}

TEST_CASE("an open file can be handed over, and the whole be moved") {
    Inference first(gg::gguf::File::open(golden("llama-text")), {.device = "host", .load = {.threads = 1}});
    const auto session = first.session(40);
    const auto sampleable = first.sampleable();
    const std::vector<std::int32_t> prompt = first.tokenizer().encode("Once upon");
    const Inference second(std::move(first));
    session->prefill(prompt);
    session->set_sampling({.seed = 1}, sampleable);
    const auto again = second.session(40);
    again->prefill(prompt);
    again->set_sampling({.seed = 1}, second.sampleable());
    CHECK(session->decode() == again->decode());
}

TEST_CASE("a file without a tokenizer computes, and says what it lacks when it is asked") {
    const Inference inference(golden("gpt-oss-window"), {.device = "host", .load = {.threads = 1}});
    CHECK(contains(refusal(ErrorCode::model_load_failed, [&] { inference.tokenizer(); }),
                   {"gpt-oss-window.gguf", "tokenizer.ggml"}));
    CHECK_FALSE(inference.sampleable());
    const auto session = inference.session(10);
    session->prefill(std::vector<std::int32_t>{1, 2});
    session->set_sampling({.temperature = 0}, inference.sampleable());
    CHECK(session->decode() >= 0);
}

TEST_CASE("a GPU backend loads what was chosen, told the options") {
    Gpus gpus;
    std::vector<std::string> told;
    const gg::LoadOptions load{
        .threads = 1,
        .progress = [&](std::string_view what, std::uint64_t, std::uint64_t) { told.emplace_back(what); },
        .note = [&](const std::string& text) { told.push_back(text); }};
    const Inference automatic(golden("llama-text"), {.gpu = gpus.backend(), .load = load});
    const Inference named(golden("llama-text"), {.device = "cuda:2", .gpu = gpus.backend(), .load = load});
    const Inference host(golden("llama-text"), {.device = "host", .gpu = gpus.backend(), .load = load});
    CHECK(gpus.loaded == std::vector<int>{1, 2});
    CHECK(told == std::vector<std::string>{"loading", "noted", "loading", "noted"});
    CHECK_THROWS_AS(Inference(golden("llama-text"), {.device = "cuda:3", .gpu = gpus.backend()}), gg::Error);
    CHECK(contains(
        refusal(ErrorCode::model_load_failed, [&] { Inference("no-such.gguf", {.device = "host"}); }),
        {"no-such.gguf"}));
}

TEST_CASE("a session takes no more memory than is left") {
    Gpus gpus;
    const auto open = [&] {
        return Inference(golden("llama-text"), {.gpu = gpus.backend(), .load = {.threads = 1}});
    };
    gpus.bytes = open().session_bytes(50);
    const Inference inference = open();
    const int fits = gg::fitting_context(inference.model(), inference.info().dims.context);
    CHECK(inference.available_bytes() == gpus.bytes);
    CHECK(fits >= 50);
    CHECK(inference.session_bytes(fits) <= gpus.bytes);
    CHECK(inference.session_bytes(fits + 1) > gpus.bytes);
    CHECK(inference.session()->context() == fits);
    CHECK(inference.session(fits)->context() == fits);
    CHECK(contains(refusal(ErrorCode::out_of_memory, [&] { inference.session(fits + 1); }),
                   {"at most " + std::to_string(fits) + " tokens", "test memory",
                    "found " + std::to_string(fits + 1), "smaller"}));
    gpus.bytes = 100;
    const Inference none = open();
    CHECK(contains(refusal(ErrorCode::out_of_memory, [&] { none.session(); }), {"at most 0 tokens"}));
}
