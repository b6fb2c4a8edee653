// gg synth: a model of random weights in the shape of a published one.

#include <filesystem>
#include <memory>
#include <optional>
#include <system_error>

#include "commands.hpp"
#include "gg/host/thread_pool.hpp"
#include "gg/model/synthesize.hpp"
#include "model_file.hpp"
#include "option_values.hpp"
#include "output.hpp"
#include "output_path.hpp"
#include "progress.hpp"
#include "signals.hpp"

namespace gg::runner {

namespace {

constexpr DType offered[] = {DType::q8_0, DType::f16, DType::bf16};

struct Options {
    std::string preset, out, dense, vocabulary;
    std::uint64_t seed = 1;
    int threads = 0;
    bool force = false;
};

std::string check_dense(std::string& name) {
    std::string upper = name, names;
    for (char& c : upper)
        if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
    for (const DType type : offered) {
        if (info(type).name == upper) {
            name = upper;
            return {};
        }
        names += (names.empty() ? "" : ", ") + std::string(info(type).name);
    }
    return "expected one of " + names + ", found " + name;
}

/// Bytes that the file has at most: what is in the writer before the tensors, their entries and their data.
std::uint64_t file_bytes(const gguf::Writer& metadata, const std::vector<SyntheticTensor>& tensors) {
    std::uint64_t bytes = 0;
    metadata.write([&](std::span<const std::byte> piece) { bytes += piece.size(); });
    constexpr std::uint64_t most_entry = 8 + 64 + 4 + 4 * 8 + 4 + 8, most_padding = 32;
    for (const SyntheticTensor& tensor : tensors) bytes += most_entry + most_padding + tensor.view.bytes();
    return bytes;
}

/// A file that is overwritten goes only when the new one is complete, so its space does not count.
void require_space(const std::string& out, std::uint64_t needed) {
    const std::filesystem::path path = out;
    std::error_code error;
    const auto space = std::filesystem::space(path.has_parent_path() ? path.parent_path() : ".", error);
    if (error || space.available >= needed) return;  // a folder that is not there fails when it is written to
    throw Error(ErrorCode::invalid_request, {.file = out,
                                             .field = "free space",
                                             .expected = bytes_text(needed),
                                             .found = bytes_text(space.available),
                                             .next_step = "Free some, or write to another disk."});
}

void note_types(const std::vector<SyntheticTensor>& tensors) {
    for (const DTypeInfo& type : dtypes) {
        std::uint64_t count = 0, bytes = 0;
        for (const SyntheticTensor& tensor : tensors) {
            if (tensor.view.type != type.type) continue;
            ++count;
            bytes += tensor.view.bytes();
        }
        if (count > 0)
            print_note(std::string(type.name) + ": " + std::to_string(count) + " tensors, " +
                       bytes_text(bytes));
    }
}

template <class Family>
void synthesize(const Options& options, SyntheticModel model) {
    if (!options.dense.empty()) model.dense = find_dtype(options.dense)->type;
    std::optional<gguf::File> vocabulary;
    if (!options.vocabulary.empty()) vocabulary = gguf::File::open(options.vocabulary);
    require_output(options.out, options.force, vocabulary ? &*vocabulary : nullptr);
    gguf::Writer writer;
    set_synthetic_metadata<Family>(writer, model);
    if (vocabulary)
        copy_vocabulary(writer, *vocabulary, model);
    else
        set_synthetic_vocabulary(writer, model);
    const std::vector<SyntheticTensor> tensors = synthetic_tensors<Family>(model);
    require_space(options.out, file_bytes(writer, tensors));
    std::uint64_t elements = 0, done = 0;
    for (const SyntheticTensor& tensor : tensors) elements += tensor.view.elements();
    {
        host::ThreadPool pool(options.threads);
        Progress progress("writing", elements);
        add_synthetic_tensors(writer, tensors, options.seed, pool, [&](std::uint64_t filled) {
            if (interrupted()) throw Error(ErrorCode::cancelled, "interrupted; nothing was written");
            progress.update(done += filled);
        });
        catch_interrupt();
        writer.write(options.out);
    }
    note_types(tensors);
    print_note(options.out + ": " + bytes_text(std::filesystem::file_size(options.out)));
}

}  // namespace

void add_synth(CLI::App& app, Action& action) {
    CLI::App* command = app.add_subcommand("synth", "Write a model of random weights, for benchmarks");
    const auto options = std::make_shared<Options>();
    command->add_option("OUT", options->out, "The file to write")->required();
    command->add_option("--preset", options->preset, "The model whose shapes, names and types it has")
        ->type_name("NAME")
        ->required()
        ->check(CLI::IsMember(
            std::vector<std::string>(std::begin(synthetic_presets), std::end(synthetic_presets))));
    command->add_option("--seed", options->seed, "Seed of the weights")
        ->type_name("N")
        ->check(number_range(0, 0x1p64, "0 or more"));
    command->add_option("--dense", options->dense, "Type of matrices but experts: Q8_0, F16, BF16")
        ->type_name("T")
        ->default_str("as published")
        ->transform(CLI::Validator(check_dense, ""));
    command->add_option("--vocabulary", options->vocabulary, "A GGUF file whose tokenizer is copied")
        ->type_name("FILE");
    command->add_option("--threads", options->threads, "Threads; any number gives the same file")
        ->type_name("N")
        ->default_str("all cores")
        ->check(number_range(1, 1024, "1 to 1024"));
    command->add_flag("--force", options->force, "Overwrite OUT");
    command->footer(
        "The text that such a model writes is noise. Without --vocabulary its tokens are the 256 bytes, and\n"
        "no token ends a text. The file appears complete or not at all.");
    command->callback([options, &action] {
        action = {[options] {
                      with_synthetic_preset(options->preset, [&](auto family, const SyntheticModel& model) {
                          synthesize<decltype(family)>(*options, model);
                      });
                  },
                  false};
    });
}

}  // namespace gg::runner
