// gg info: what a model file holds and what running it needs, without reading its matrices.

#include <algorithm>
#include <map>
#include <memory>
#include <sstream>
#include <thread>

#include "commands.hpp"
#include "gg/cuda/weight_format.hpp"
#include "gg/host/plan.hpp"
#include "gg/text/chat.hpp"
#include "model_file.hpp"
#include "output.hpp"
#include "sha256.hpp"

namespace gg::runner {

namespace {

using Json = nlohmann::ordered_json;

struct Options {
    ModelFileOptions model;
    bool print_sha256 = false;
    bool json = false;
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

Json describe_memory(const ModelInfo& info) {
    Json rows = Json::array();
    const int context = info.dims.context;
    const int threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
    std::vector<int> contexts = {context};
    for (const int length : {2048, 8192, 32768})
        if (length < context) contexts.insert(contexts.end() - 1, length);
    for (const int length : contexts) {
        const std::uint64_t cache = cache_bytes(info.dims, length, host::cache_shape);
        const std::uint64_t session = host::session_bytes(info, length, threads);
        rows.push_back({{"context", length},
                        {"cache_bytes", cache},
                        {"workspace_bytes", session - cache},
                        {"total_bytes", info.weight_bytes + session}});
    }
    return rows;
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
Json describe_gpu_weights(const gguf::File& file) {
    Json rows = Json::array();
    for (const cuda::Conversion& c : cuda::conversions(file))
        rows.push_back({{"type", gg::info(c.found).name},
                        {"used", gg::info(c.used).name},
                        {"tensors", c.tensors},
                        {"bytes", c.bytes}});
    return rows;
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

Json describe(const gguf::File& file) {
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
    for (const char* key : {"dims", "memory", "gpu_weights", "problem"}) json[key] = Json();
    try {
        const ModelInfo info = describe_model(file);
        json["dims"] = describe_dims(info.dims);
        json["memory"] = describe_memory(info);
        json["gpu_weights"] = describe_gpu_weights(file);
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
    for (const Json& row : json["memory"])
        text += line("  " + plain(row["context"]), size(row["total_bytes"]) + " (cache " +
                                                       size(row["cache_bytes"]) + ", workspace " +
                                                       size(row["workspace_bytes"]) + ")");
    if (!json["gpu_weights"].is_null()) text += "weights on a GPU (type in the file, type there)\n";
    for (const Json& row : json["gpu_weights"])
        text += line("  " + plain(row["type"]) + " " + plain(row["used"]),
                     plain(row["tensors"]) + " tensors, " + size(row["bytes"]) + " in the file");
    return text;
}

void info(const Options& options) {
    const gguf::File file = open_model_file(options.model);
    Json json = describe(file);
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
    command->add_flag("--json", options->json, "Print JSON");
    command->footer(
        "Reads little but the header, also of files that gg cannot run; \"problem\" then says why. Put MODEL "
        "before\n"
        "--sha256 if that has no value.");
    command->callback([options, &action] { action = {[options] { info(*options); }, options->json}; });
}

}  // namespace gg::runner
