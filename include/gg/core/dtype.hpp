// The element types of tensors: GGUF's ids, elements and bytes per block. A row of a tensor is a whole number
// of blocks; element e of a row lies in block e / elements.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace gg {

/// Tensor element types that gg decodes, with the ids that GGUF gives them.
enum class DType : std::uint32_t {
    f32 = 0,
    f16 = 1,
    q4_0 = 2,
    q4_1 = 3,
    q5_0 = 6,
    q5_1 = 7,
    q8_0 = 8,
    q4_k = 12,
    q5_k = 13,
    q6_k = 14,
    iq4_nl = 20,
    bf16 = 30,
    mxfp4 = 39,
};

/// Name and block geometry of a type.
struct DTypeInfo {
    DType type;
    std::string_view name;
    std::uint32_t elements;  ///< elements per block
    std::uint32_t bytes;     ///< bytes per block
};

/// All supported types, in the order of their ids.
inline constexpr std::array<DTypeInfo, 13> dtypes = {{
    {DType::f32, "F32", 1, 4},
    {DType::f16, "F16", 1, 2},
    {DType::q4_0, "Q4_0", 32, 18},
    {DType::q4_1, "Q4_1", 32, 20},
    {DType::q5_0, "Q5_0", 32, 22},
    {DType::q5_1, "Q5_1", 32, 24},
    {DType::q8_0, "Q8_0", 32, 34},
    {DType::q4_k, "Q4_K", 256, 144},
    {DType::q5_k, "Q5_K", 256, 176},
    {DType::q6_k, "Q6_K", 256, 210},
    {DType::iq4_nl, "IQ4_NL", 32, 18},
    {DType::bf16, "BF16", 1, 2},
    {DType::mxfp4, "MXFP4", 32, 17},
}};

/// The type with a GGUF id, or nullptr if gg does not have it.
constexpr const DTypeInfo* find_dtype(std::uint32_t id) {
    for (const DTypeInfo& info : dtypes)
        if (static_cast<std::uint32_t>(info.type) == id) return &info;
    return nullptr;
}

/// The type with a name as in `dtypes` (upper case), or nullptr.
constexpr const DTypeInfo* find_dtype(std::string_view name) {
    for (const DTypeInfo& info : dtypes)
        if (info.name == name) return &info;
    return nullptr;
}

/// Geometry of a supported type.
constexpr const DTypeInfo& info(DType type) {
    return *find_dtype(static_cast<std::uint32_t>(type));
}

}  // namespace gg
