// Which tensor of a model gets which element type when the model is quantized, and the work on its rows.
//
// Quantized are tensors of two or more dimensions whose names end in "weight"; kept as they are: tensors of
// one dimension, norms, biases, sinks, the router (ffn_gate_inp) and embeddings of positions and token types.
// A row that is no whole number of the type's blocks gets another type, as in llama.cpp: Q4_K becomes Q5_0,
// Q5_K Q5_1, Q6_K Q8_0; where that does not fit either, and for the other block types, F16.
//
// Errors: gg::Error, model_load_failed for a tensor that is quantized already or has no finite numbers,
// invalid_request for numbers too large for the type; both name the tensor.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "gg/format/encode.hpp"
#include "gg/format/visit.hpp"
#include "gg/gguf/file.hpp"
#include "gg/gguf/writer.hpp"

namespace gg {

/// What is asked for: `weights` for matrices, `experts` for tensors of three dimensions.
struct QuantizeTypes {
    DType weights;
    DType experts;
};

/// What becomes of one tensor.
struct TensorPlan {
    const TensorView* tensor;
    DType asked;  ///< its own type if it is kept
    DType to;     ///< differs from `asked` where rows do not fit that

    bool is_copy() const { return to == tensor->type; }
    std::uint64_t row_bytes() const { return tensor->row_length() / info(to).elements * info(to).bytes; }
    std::uint64_t bytes() const { return row_bytes() * tensor->rows(); }
};

/// Whether a tensor is a matrix of weights, and not one of the small ones that stay as they are.
inline bool is_quantizable(const TensorView& tensor) {
    const std::string_view name = tensor.name;
    if (tensor.dimensions < 2 || !name.ends_with("weight")) return false;
    for (const std::string_view kept :
         {"_norm.weight", "ffn_gate_inp.weight", "position_embd.weight", "token_types.weight"})
        if (name.ends_with(kept)) return false;
    return true;
}

/// The type for rows of a length if `type` is asked for.
constexpr DType fitting_type(DType type, std::uint64_t row_length) {
    if (row_length % info(type).elements == 0) return type;
    DType instead = DType::f16;
    if (type == DType::q4_k) instead = DType::q5_0;
    if (type == DType::q5_k) instead = DType::q5_1;
    if (type == DType::q6_k) instead = DType::q8_0;
    return row_length % info(instead).elements == 0 ? instead : DType::f16;
}

/// What becomes of each tensor, in the order of the file. Refuses tensors that would have to be quantized
/// anew.
inline std::vector<TensorPlan> plan_quantization(const gguf::File& file, const QuantizeTypes& types) {
    std::vector<TensorPlan> plans;
    for (const TensorView& tensor : file.tensors()) {
        TensorPlan plan{&tensor, tensor.type, tensor.type};
        if (is_quantizable(tensor)) {
            plan.asked = tensor.dimensions > 2 ? types.experts : types.weights;
            plan.to = plan.asked == tensor.type ? plan.asked : fitting_type(plan.asked, tensor.row_length());
        }
        const std::string_view own = info(tensor.type).name;
        if (!plan.is_copy() && info(tensor.type).elements > 1)
            refuse({.file = file.name(),
                    .field = "tensor " + gguf::printable(tensor.name),
                    .expected = "type F32, F16, BF16 or " + std::string(info(plan.to).name),
                    .found = std::string(own),
                    .next_step = "It is quantized already: start from the model's float weights, or keep " +
                                 std::string(tensor.dimensions > 2 ? "experts" : "such tensors") + " by " +
                                 (tensor.dimensions > 2 ? "--experts " : "--type ") + std::string(own) +
                                 "."});
        plans.push_back(plan);
    }
    return plans;
}

/// llama.cpp's number for a file whose matrices are mostly of a type (general.file_type).
constexpr std::uint32_t file_type(DType type) {
    switch (type) {
        case DType::f32:
            return 0;
        case DType::f16:
            return 1;
        case DType::q4_0:
            return 2;
        case DType::q4_1:
            return 3;
        case DType::q8_0:
            return 7;
        case DType::q5_0:
            return 8;
        case DType::q5_1:
            return 9;
        case DType::q4_k:
            return 14;  // its "small" mixture, the nearest to Q4_K throughout
        case DType::q5_k:
            return 16;  // the same
        case DType::q6_k:
            return 18;
        case DType::iq4_nl:
            return 25;
        case DType::bf16:
            return 32;
        case DType::mxfp4:
            return 38;
    }
    return 0;
}

/// The number for a plan: that of MXFP4 where experts are of it, whatever the rest is, as llama.cpp has it.
inline std::uint32_t file_type(const std::vector<TensorPlan>& plans, const QuantizeTypes& types) {
    for (const TensorPlan& plan : plans)
        if (plan.tensor->dimensions > 2 && plan.to == DType::mxfp4) return file_type(DType::mxfp4);
    return file_type(types.weights);
}

/// Copies a file's metadata but for what says that it is split, and sets general.file_type and
/// general.quantization_version.
inline void set_quantized_metadata(gguf::Writer& writer, const gguf::File& file, std::uint32_t type) {
    for (const gguf::Entry& entry : file.metadata())
        if (!entry.key.starts_with("split.")) writer.set(entry.key, entry.value);
    writer.set("general.quantization_version", std::uint32_t{2});
    writer.set("general.file_type", type);
}

/// Sums of squares over elements in double.
struct QuantizeError {
    double error = 0;   ///< of what came back less what was there
    double square = 0;  ///< of what was there

    QuantizeError& operator+=(const QuantizeError& other) {
        error += other.error;
        square += other.square;
        return *this;
    }
};

/// Encodes `rows` rows of a float tensor from `first_row` on into plan.row_bytes() each at `out`. `file` is
/// named in errors.
inline QuantizeError quantize_rows(const std::string& file, const TensorPlan& plan, std::uint64_t first_row,
                                   std::uint64_t rows, std::byte* out) {
    const TensorView& tensor = *plan.tensor;
    const std::uint64_t length = tensor.row_length();
    std::vector<float> row(length), back(length);
    const auto field = [&](std::uint64_t at) {
        return "tensor " + gguf::printable(tensor.name) + ", row " + std::to_string(at);
    };
    QuantizeError sums;
    for (std::uint64_t i = first_row; i < first_row + rows; ++i, out += plan.row_bytes()) {
        format::decode_row(tensor.type, tensor.data + i * tensor.row_bytes(), length, row.data());
        if (const auto bad = format::find_non_finite(row.data(), length))
            refuse({.file = file,
                    .field = field(i) + ", element " + std::to_string(*bad),
                    .expected = "a finite number",
                    .found = "infinity or NaN"});
        try {
            format::encode_row(plan.to, row.data(), length, out);
        } catch (const Error& error) {
            Mismatch mismatch = error.mismatch();
            mismatch.file = file;
            mismatch.field = field(i) + ", to " + mismatch.field;
            throw Error(error.code(), mismatch);
        }
        format::decode_row(plan.to, out, length, back.data());
        if (const auto bad = format::find_non_finite(back.data(), length))
            throw Error(ErrorCode::invalid_request,
                        {.file = file,
                         .field = field(i) + ", element " + std::to_string(*bad),
                         .expected = "a number that fits " + std::string(info(plan.to).name),
                         .found = std::to_string(row[*bad]),
                         .next_step = "Use BF16 or F32."});
        for (std::uint64_t j = 0; j < length; ++j) {
            const double value = row[j], error = static_cast<double>(back[j]) - value;
            sums += {error * error, value * value};
        }
    }
    return sums;
}

}  // namespace gg
