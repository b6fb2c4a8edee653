// gg info: what a model file holds and what running it needs, without reading its matrices.

#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <sstream>
#include <thread>

#include "commands.hpp"
#include "compute_cuda.hpp"
#include "gg/cuda/memory_plan.hpp"
#include "gg/host/memory_plan.hpp"
#include "gg/text/chat.hpp"
#include "model_file.hpp"
#include "option_values.hpp"
#include "output.hpp"
#include "sha256.hpp"

namespace gg::runner {

namespace {

using Json = nlohmann::ordered_json;

struct Options {
    ModelFileOptions model;
    bool print_sha256 = false;
    bool json = false;
    std::uint64_t vram_limit = 0;
};

/// The value of a key, null if there is none or it is of another type.
template <class T>
Json value_or_null(const gguf::File& file, std::string_view key) {
    const gguf::Value* value = file.find(key);
    const std::optional<T> converted = value ? value->as<T>() : std::nullopt;
    return converted ? Json(*converted) : Json();
}

Json describe_dims(const Dims& dims) {
    Json json = {
        {"layers", dims.layers},         {"hidden", dims.hidden},     {"heads", dims.heads},
        {"kv_heads", dims.kv_heads},     {"head_dim", dims.head_dim}, {"feed_forward", dims.feed_forward},
        {"vocabulary", dims.vocabulary}, {"context", dims.context},   {"window", dims.window}};
    if (dims.experts > 0) {
        json["experts"] = dims.experts;
        json["experts_used"] = dims.experts_used;
        json["expert_feed_forward"] = dims.expert_feed_forward;
    }
    return json;
}

/// Plans of some shorter contexts and of the model's own.
template <class Plan>
Json describe_plans(const Dims& dims, Plan&& plan_of) {
    std::vector<int> contexts = {dims.context};
    for (const int length : {2048, 8192, 32768})
        if (length < dims.context) contexts.insert(contexts.end() - 1, length);
    Json rows = Json::array();
    for (const int context : contexts) {
        const MemoryPlan plan = plan_of(context);
        rows.push_back({{"context", context},
                        {"step_tokens", plan.step},
                        {"weight_bytes", plan.weights},
                        {"loading_bytes", plan.loading},
                        {"cache_bytes", plan.caches()},
                        {"workspace_bytes", plan.workspace()},
                        {"overhead_bytes", plan.overhead},
                        {"total_bytes", plan.total()}});
    }
    return rows;
}

Json describe_memory(const ModelInfo& info) {
    const int threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
    return describe_plans(info.dims,
                          [&](int context) { return host::memory_plan(info, context, 1, threads); });
}

Json describe_tensors(const gguf::File& file) {
    std::map<DType, std::pair<std::uint64_t, std::uint64_t>> types;
    for (const TensorView& tensor : file.tensors()) {
        auto& [count, bytes] = types[tensor.type];
        ++count;
        bytes += tensor.bytes();
    }
    Json rows = Json::array();
    for (const auto& [type, sums] : types)
        rows.push_back({{"type", gg::info(type).name}, {"tensors", sums.first}, {"bytes", sums.second}});
    return rows;
}

/// How a GPU holds the weights: part of the file's description, whether or not there is a GPU.
Json describe_gpu_weights(const std::vector<cuda::Conversion>& conversions) {
    Json rows = Json::array();
    for (const cuda::Conversion& c : conversions)
        rows.push_back({{"type", gg::info(c.found).name},
                        {"used", gg::info(c.used).name},
                        {"tensors", c.tensors},
                        {"bytes", c.bytes}});
    return rows;
}

/// The plan for a GPU, and what fits into the limit or the memory of the GPU at hand.
Json describe_gpu_memory(const Dims& dims, const cuda::MemoryPlanner& planner,
                         const std::optional<GpuDescription>& gpu, std::uint64_t limit) {
    Json json = {{"device", gpu ? Json(gpu->name) : Json()},
                 {"available_bytes", Json()},
                 {"fits", Json()},
                 {"largest_context", Json()}};
    std::uint64_t available = std::numeric_limits<std::uint64_t>::max();
    if (gpu || limit > 0) {
        available = !gpu ? limit : limit == 0 ? gpu->bytes : std::min(limit, gpu->bytes);
        const int context = planner.largest_context(available);
        json["available_bytes"] = available;
        json["fits"] = context > 0;
        json["largest_context"] = context;
    }
    json["contexts"] = describe_plans(dims, [&](int context) { return planner.plan(context, 1, available); });
    return json;
}

/// Adds what concerns GPUs. The file's vectors are read once for all of it.
void describe_for_gpu(const gguf::File& file, std::uint64_t limit, Json& json) {
    const std::optional<GpuDescription> gpu = describe_gpu();
    const cuda::Target target =
        gpu ? cuda::Target{gpu->architecture, gpu->multiprocessors} : cuda::largest_target();
    host::with_bound_weights(file, [&](auto family, const Dims& dims, const auto& weights) {
        using Family = decltype(family);
        const auto planner =
            cuda::MemoryPlanner::of<Family>(weights, dims, cuda::model_formats<Family>(weights), target);
        json["gpu_memory"] = describe_gpu_memory(dims, planner, gpu, limit);
        json["gpu_weights"] = describe_gpu_weights(cuda::conversions<Family>(file, weights));
    });
}

Json describe_tokenizer(const gguf::File& file) {
    const gguf::Value* tokens = file.find("tokenizer.ggml.tokens");
    if (!tokens) return {};
    const Json chat_template = value_or_null<std::string_view>(file, "tokenizer.chat_template");
    const auto family =
        text::recognize_chat(chat_template.is_null() ? "" : chat_template.get_ref<const std::string&>());
    return {{"model", value_or_null<std::string_view>(file, "tokenizer.ggml.model")},
            {"pre_tokenizer", value_or_null<std::string_view>(file, "tokenizer.ggml.pre")},
            {"tokens", tokens->count()},
            {"bos", value_or_null<std::uint32_t>(file, "tokenizer.ggml.bos_token_id")},
            {"eos", value_or_null<std::uint32_t>(file, "tokenizer.ggml.eos_token_id")},
            {"adds_bos", value_or_null<bool>(file, "tokenizer.ggml.add_bos_token")},
            {"chat", text::to_string(family)}};
}

Json describe(const gguf::File& file, std::uint64_t vram_limit) {
    std::uint64_t parameters = 0, weight_bytes = 0;
    for (const TensorView& tensor : file.tensors()) {
        parameters += tensor.elements();
        weight_bytes += tensor.bytes();
    }
    Json json = {{"file", file.name()},
                 {"bytes", file.bytes()},
                 {"parts", file.parts().size()},
                 {"gguf_version", file.version()},
                 {"family", value_or_null<std::string_view>(file, "general.architecture")},
                 {"name", value_or_null<std::string_view>(file, "general.name")},
                 {"parameters", parameters},
                 {"weight_bytes", weight_bytes},
                 {"tensors", describe_tensors(file)},
                 {"tokenizer", describe_tokenizer(file)}};
    // A file that gg cannot run still has a header to show.
    for (const char* key : {"dims", "memory", "gpu_memory", "gpu_weights", "problem"}) json[key] = Json();
    try {
        const ModelInfo info = describe_model(file);
        json["dims"] = describe_dims(info.dims);
        json["memory"] = describe_memory(info);
        describe_for_gpu(file, vram_limit, json);
    } catch (const Error& error) {
        json["problem"] = error.what();
    }
    if (file.tensors().empty()) json["problem"] = "no tensors: a vocabulary only";
    return json;
}

std::string plain(const Json& value) {
    return value.is_string() ? value.get<std::string>() : value.is_null() ? "-" : value.dump();
}

std::string line(std::string label, const std::string& value) {
    label.resize(std::max<std::size_t>(label.size() + 1, 16), ' ');
    return label + value + "\n";
}

std::string size(const Json& bytes) {
    return bytes_text(bytes.get<std::uint64_t>());
}

std::string parameter_text(double count) {
    return count >= 1e9 ? fixed(count / 1e9, 2) + " billion" : fixed(count / 1e6, 2) + " million";
}

/// One line a context.
std::string memory_lines(const Json& plans) {
    std::string text;
    for (const Json& plan : plans) {
        std::string parts;
        const auto part = [&](const char* name, const char* key) {
            if (plan[key] != 0)
                parts += (parts.empty() ? "" : ", ") + std::string(name) + " " + size(plan[key]);
        };
        part("weights", "weight_bytes");
        part("cache", "cache_bytes");
        part("workspace", "workspace_bytes");
        part("overhead", "overhead_bytes");
        // Of small models the peak is before anything runs.
        if (plan["loading_bytes"] >
            plan["cache_bytes"].get<std::uint64_t>() + plan["workspace_bytes"].get<std::uint64_t>())
            part("while loading", "loading_bytes");
        text += line("  " + plain(plan["context"]), size(plan["total_bytes"]) + " (" + parts + "), reads " +
                                                        plain(plan["step_tokens"]) + " tokens at a time");
    }
    return text;
}

std::string gpu_memory_text(const Json& json) {
    std::string text =
        "memory on a GPU (weights + cache + workspace + overhead)\n" + memory_lines(json["contexts"]);
    if (json["available_bytes"].is_null()) return text;
    const std::string context = plain(json["largest_context"]);
    return text + line("  in " + size(json["available_bytes"]),
                       json["fits"] ? "fits with a context of up to " + context + " tokens"
                                    : std::string("does not fit"));
}

std::string as_text(const Json& json) {
    std::string text = line("file", plain(json["file"]));
    text += line("size", size(json["bytes"]) + ", " + plain(json["parts"]) + " part(s), GGUF version " +
                             plain(json["gguf_version"]));
    if (json.contains("sha256")) text += line("sha256", plain(json["sha256"]));
    text += line("family", plain(json["family"]));
    text += line("name", plain(json["name"]));
    if (!json["problem"].is_null()) text += line("cannot run", plain(json["problem"]));
    text += line("parameters",
                 parameter_text(json["parameters"].get<double>()) + ", " + size(json["weight_bytes"]));
    for (const auto& [key, value] : json["dims"].items()) text += line("  " + key, plain(value));
    if (!json["tensors"].empty()) text += "tensors\n";
    for (const Json& type : json["tensors"])
        text += line("  " + plain(type["type"]), plain(type["tensors"]) + " tensors, " + size(type["bytes"]));
    if (!json["tokenizer"].is_null()) text += "tokenizer\n";
    for (const auto& [key, value] : json["tokenizer"].items()) text += line("  " + key, plain(value));
    if (!json["memory"].is_null()) text += "memory on the host (weights + cache + workspace)\n";
    text += memory_lines(json["memory"]);
    if (!json["gpu_memory"].is_null()) text += gpu_memory_text(json["gpu_memory"]);
    if (!json["gpu_weights"].is_null()) text += "weights on a GPU (type in the file, type there)\n";
    for (const Json& row : json["gpu_weights"])
        text += line("  " + plain(row["type"]) + " " + plain(row["used"]),
                     plain(row["tensors"]) + " tensors, " + size(row["bytes"]) + " in the file");
    return text;
}

void info(const Options& options) {
    const gguf::File file = open_model_file(options.model);
    Json json = describe(file, options.vram_limit);
    if (options.print_sha256)
        json["sha256"] =
            options.model.sha256.empty() ? sha256(model_paths(options.model.path)) : options.model.sha256;
    if (options.json) return print_json(json);
    write_output(as_text(json));
}

}  // namespace

void add_info(CLI::App& app, Action& action) {
    CLI::App* command = app.add_subcommand("info", "Print what a model file holds and the memory it needs");
    const auto options = std::make_shared<Options>();
    command
        ->add_option("MODEL,-m,--model", options->model.path,
                     "The model: a GGUF file, or the first part of a split one")
        ->required();
    command
        ->add_option_function<std::string>(
            "--sha256",
            [options](const std::string& text) {
                options->print_sha256 = true;
                options->model.sha256 = text;
            },
            "Print the file's SHA-256; with HEX, refuse the file unless it is that (of a split model: of all "
            "parts, one after the other)")
        ->type_name("[HEX]")
        ->expected(0, 1)
        ->check(CLI::Validator(
            [](std::string& text) { return text.empty() ? std::string() : check_sha256_text(text); }, ""));
    add_vram_limit_option(*command, options->vram_limit,
                          "Say whether the model fits into that much GPU memory, and with which context; "
                          "without it, into the memory of the GPU at hand");
    command->add_flag("--json", options->json, "Print JSON");
    command->footer(
        "Reads little but the header, also of files that gg cannot run; \"problem\" then says why. Put MODEL "
        "before\n"
        "--sha256 if that has no value.");
    command->callback([options, &action] { action = {[options] { info(*options); }, options->json}; });
}

}  // namespace gg::runner
