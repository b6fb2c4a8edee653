// gg quantize: a model of floats to one of block types, tensor by tensor.

#include <algorithm>
#include <cmath>
#include <exception>
#include <map>
#include <memory>

#include "commands.hpp"
#include "gg/host/thread_pool.hpp"
#include "gg/model/quantize.hpp"
#include "model_file.hpp"
#include "option_values.hpp"
#include "output.hpp"
#include "output_path.hpp"
#include "progress.hpp"
#include "signals.hpp"

namespace gg::runner {

namespace {

using Json = nlohmann::ordered_json;

constexpr DType offered[] = {DType::q8_0, DType::q4_0,  DType::q5_0, DType::q4_k, DType::q5_k,
                             DType::q6_k, DType::mxfp4, DType::f16,  DType::bf16, DType::f32};

struct Options {
    ModelFileOptions model;
    std::string out, type, experts;
    int threads = 0;
    bool force = false;
    bool json = false;
};

std::string offered_names() {
    std::string names;
    for (const DType type : offered) names += (names.empty() ? "" : ", ") + std::string(info(type).name);
    return names;
}

std::string check_type(std::string& name) {
    std::string upper = name;
    for (char& c : upper)
        if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
    const auto found = std::find_if(std::begin(offered), std::end(offered),
                                    [&](DType type) { return info(type).name == upper; });
    if (found == std::end(offered)) return "expected one of " + offered_names() + ", found " + name;
    name = upper;
    return {};
}

std::string name_of(DType type) {
    return std::string(info(type).name);
}

/// Encodes one tensor after the other, each in batches of some megabytes that threads share. The rows of a
/// task do not depend on the number of threads, so sums do not either.
class Quantizer {
  public:
    Quantizer(const gguf::File& file, int threads, std::uint64_t elements)
        : file_(file), pool_(threads), progress_("quantizing", elements) {}

    /// Writes a tensor's bytes to the sink and returns its error.
    QuantizeError write(const TensorPlan& plan, const gguf::ByteSink& sink) {
        return plan.is_copy() ? copy(plan, sink) : encode(plan, sink);
    }

  private:
    static constexpr std::uint64_t task_elements = std::uint64_t{1} << 16;
    static constexpr std::uint64_t batch_elements = std::uint64_t{1} << 22;

    void advance(std::uint64_t elements) {
        if (interrupted()) throw Error(ErrorCode::cancelled, "interrupted; nothing was written");
        done_ += elements;
        progress_.update(done_);
    }

    QuantizeError copy(const TensorPlan& plan, const gguf::ByteSink& sink) {
        const std::span<const std::byte> bytes(plan.tensor->data, plan.tensor->bytes());
        for (std::size_t at = 0; at < bytes.size(); at += batch_elements) {
            sink(bytes.subspan(at, std::min<std::size_t>(batch_elements, bytes.size() - at)));
            advance(0);
        }
        advance(plan.tensor->elements());
        return {};
    }

    QuantizeError encode(const TensorPlan& plan, const gguf::ByteSink& sink) {
        const std::uint64_t length = plan.tensor->row_length(), rows = plan.tensor->rows();
        const std::uint64_t task_rows = std::max<std::uint64_t>(1, task_elements / length);
        const std::uint64_t batch_rows = std::max(task_rows, batch_elements / length / task_rows * task_rows);
        std::vector<std::byte> bytes;
        QuantizeError sums;
        for (std::uint64_t first = 0; first < rows; first += batch_rows) {
            const std::uint64_t count = std::min(batch_rows, rows - first);
            bytes.resize(count * plan.row_bytes());
            sums += encode_batch(plan, first, count, task_rows, bytes.data());
            advance(count * length);
            sink(bytes);
        }
        return sums;
    }

    QuantizeError encode_batch(const TensorPlan& plan, std::uint64_t first, std::uint64_t count,
                               std::uint64_t task_rows, std::byte* out) {
        const std::uint64_t tasks = (count + task_rows - 1) / task_rows;
        std::vector<QuantizeError> errors(tasks);
        std::vector<std::exception_ptr> failures(tasks);
        pool_.run(static_cast<long>(tasks), [&](long task, int) {
            const auto index = static_cast<std::uint64_t>(task);
            const std::uint64_t row = index * task_rows;
            if (interrupted()) return;
            try {
                errors[index] = quantize_rows(file_.name(), plan, first + row,
                                              std::min(task_rows, count - row), out + row * plan.row_bytes());
            } catch (...) {
                failures[index] = std::current_exception();
            }
        });
        QuantizeError sums;
        for (std::uint64_t i = 0; i < tasks; ++i) {
            if (failures[i]) std::rethrow_exception(failures[i]);
            sums += errors[i];
        }
        return sums;
    }

    const gguf::File& file_;
    host::ThreadPool pool_;
    Progress progress_;
    std::uint64_t done_ = 0;
};

double relative(const QuantizeError& sums) {
    return sums.square > 0 ? std::sqrt(sums.error / sums.square) : 0;
}

Json describe(const TensorPlan& plan, const QuantizeError& sums) {
    const auto elements = static_cast<double>(plan.tensor->elements());
    return {{"name", plan.tensor->name},      {"from", name_of(plan.tensor->type)},
            {"asked", name_of(plan.asked)},   {"to", name_of(plan.to)},
            {"bytes", plan.bytes()},          {"rmse", std::sqrt(sums.error / elements)},
            {"relative_rmse", relative(sums)}};
}

void note_fallbacks(const std::vector<TensorPlan>& plans) {
    for (const TensorPlan& plan : plans)
        if (plan.asked != plan.to)
            print_note(plan.tensor->name + ": rows of " + std::to_string(plan.tensor->row_length()) +
                       " do not fit " + name_of(plan.asked) + ", so it becomes " + name_of(plan.to));
}

void note_summary(const std::vector<TensorPlan>& plans, const std::vector<QuantizeError>& errors) {
    struct Group {
        std::uint64_t tensors = 0, bytes = 0, encoded = 0;
        QuantizeError sums;
    };
    std::map<DType, Group> groups;
    for (std::size_t i = 0; i < plans.size(); ++i) {
        Group& group = groups[plans[i].to];
        ++group.tensors;
        group.bytes += plans[i].bytes();
        group.encoded += plans[i].is_copy() ? 0 : 1;
        group.sums += errors[i];
    }
    for (const auto& [type, group] : groups)
        print_note(name_of(type) + ": " + std::to_string(group.tensors) + " tensors, " +
                   bytes_text(group.bytes) +
                   (group.encoded == 0 ? ", copied"
                                       : ", relative RMS error of " + std::to_string(group.encoded) + ": " +
                                             fixed(relative(group.sums), 6)));
}

void quantize(const Options& options) {
    const gguf::File file = open_model_file(options.model);
    require_output(options.out, options.force, &file);
    const QuantizeTypes types{find_dtype(options.type)->type,
                              find_dtype(options.experts.empty() ? options.type : options.experts)->type};
    const std::vector<TensorPlan> plans = plan_quantization(file, types);
    note_fallbacks(plans);
    gguf::Writer writer;
    const std::uint32_t type_number = file_type(plans, types);
    set_quantized_metadata(writer, file, type_number);
    std::uint64_t elements = 0;
    for (const TensorPlan& plan : plans) elements += plan.tensor->elements();
    std::vector<QuantizeError> errors(plans.size());
    {
        Quantizer quantizer(file, options.threads, elements);
        for (std::size_t i = 0; i < plans.size(); ++i) {
            const TensorView& tensor = *plans[i].tensor;
            writer.add_tensor(
                tensor.name, plans[i].to,
                std::span(tensor.shape).first(static_cast<std::size_t>(tensor.dimensions)),
                [&, i](const gguf::ByteSink& sink) { errors[i] = quantizer.write(plans[i], sink); });
        }
        catch_interrupt();
        writer.write(options.out);
    }
    const std::uint64_t bytes = std::filesystem::file_size(options.out);
    note_summary(plans, errors);
    print_note(options.out + ": " + bytes_text(bytes) + ", from " + bytes_text(file.bytes()));
    if (!options.json) return;
    Json tensors = Json::array();
    for (std::size_t i = 0; i < plans.size(); ++i) tensors.push_back(describe(plans[i], errors[i]));
    print_json({{"input", options.model.path},
                {"output", options.out},
                {"input_bytes", file.bytes()},
                {"output_bytes", bytes},
                {"file_type", type_number},
                {"tensors", tensors}});
}

}  // namespace

void add_quantize(CLI::App& app, Action& action) {
    CLI::App* command = app.add_subcommand("quantize", "Write a model with weights of another type");
    const auto options = std::make_shared<Options>();
    command
        ->add_option("IN", options->model.path,
                     "The model, of F16, BF16 or F32: a GGUF file, or the first part of a split one")
        ->required();
    command->add_option("OUT", options->out, "The file to write")->required();
    add_sha256_option(*command, options->model);
    const CLI::Validator is_type(check_type, "");
    command->add_option("--type", options->type, "Type of matrices: " + offered_names())
        ->type_name("T")
        ->required()
        ->transform(is_type);
    command->add_option("--experts", options->experts, "Type of experts")
        ->type_name("T")
        ->default_str("as --type")
        ->transform(is_type);
    command->add_option("--threads", options->threads, "Threads; any number gives the same file")
        ->type_name("N")
        ->default_str("all cores")
        ->check(number_range(1, 1024, "1 to 1024"));
    command->add_flag("--force", options->force, "Overwrite OUT");
    command->add_flag("--json", options->json, "Print what became of each tensor as JSON");
    command->footer(
        "Vectors, norms, biases, the router and position embeddings are copied, and so are matrices that "
        "have "
        "the\n"
        "type already. A row that does not fit Q4_K, Q5_K or Q6_K gets Q5_0, Q5_1 or Q8_0; one that is no "
        "multiple\n"
        "of 32 gets F16. The file appears complete or not at all.");
    command->callback([options, &action] { action = {[options] { quantize(*options); }, options->json}; });
}

}  // namespace gg::runner
