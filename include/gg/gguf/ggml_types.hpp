// Names of the tensor types that GGUF files may name and gg does not read, so that a file is refused by its
// type's name and not by a number. Source: the type ids of the GGUF specification and ggml.
#pragma once

#include <string>

#include "gg/core/dtype.hpp"

namespace gg::gguf {

/// The name of a GGUF tensor type: one of `gg::dtypes`, one that gg does not read, or empty if unknown.
constexpr std::string_view ggml_type_name(std::uint32_t id) {
    if (const DTypeInfo* known = find_dtype(id)) return known->name;
    switch (id) {
        case 4:
            return "Q4_2 (removed from the format)";
        case 5:
            return "Q4_3 (removed from the format)";
        case 9:
            return "Q8_1";
        case 10:
            return "Q2_K";
        case 11:
            return "Q3_K";
        case 15:
            return "Q8_K";
        case 16:
            return "IQ2_XXS";
        case 17:
            return "IQ2_XS";
        case 18:
            return "IQ3_XXS";
        case 19:
            return "IQ1_S";
        case 21:
            return "IQ3_S";
        case 22:
            return "IQ2_S";
        case 23:
            return "IQ4_XS";
        case 24:
            return "I8";
        case 25:
            return "I16";
        case 26:
            return "I32";
        case 27:
            return "I64";
        case 28:
            return "F64";
        case 29:
            return "IQ1_M";
        case 31:
            return "Q4_0_4_4 (removed from the format)";
        case 32:
            return "Q4_0_4_8 (removed from the format)";
        case 33:
            return "Q4_0_8_8 (removed from the format)";
        case 34:
            return "TQ1_0";
        case 35:
            return "TQ2_0";
        case 36:
            return "IQ4_NL_4_4 (removed from the format)";
        case 37:
            return "IQ4_NL_4_8 (removed from the format)";
        case 38:
            return "IQ4_NL_8_8 (removed from the format)";
        case 40:
            return "NVFP4";
        case 41:
            return "Q1_0";
        default:
            return {};
    }
}

/// "type Q2_K (id 10)"; "unknown type (id 77)".
inline std::string ggml_type_text(std::uint32_t id) {
    const std::string_view name = ggml_type_name(id);
    return (name.empty() ? "unknown type" : "type " + std::string(name)) + " (id " + std::to_string(id) + ")";
}

/// "F32, F16, Q4_0, ...": every type that gg reads.
inline std::string readable_types() {
    std::string text;
    for (const DTypeInfo& type : dtypes) text.append(text.empty() ? "" : ", ").append(type.name);
    return text;
}

}  // namespace gg::gguf
