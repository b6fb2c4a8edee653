// Which format each matrix of a file gets on a GPU.
#include "gg/cuda/weight_format.hpp"

#include <filesystem>
#include <string>
#include <vector>

#include "catch.hpp"
#include "gg/format/encode.hpp"

using gg::DType;
using namespace gg::cuda;

namespace {

gg::gguf::File open_golden(const std::string& name) {
    return gg::gguf::File::open(std::filesystem::path(GG_TEST_DATA) / "model" / (name + ".gguf"));
}

/// "F32 to F16: 3 tensors".
std::vector<std::string> lines(const std::vector<Conversion>& conversions) {
    std::vector<std::string> all;
    for (const Conversion& c : conversions)
        all.push_back(std::string(gg::info(c.found).name) + " to " + std::string(gg::info(c.used).name) +
                      ": " + std::to_string(c.tensors));
    return all;
}

std::uint64_t bytes(const std::vector<Conversion>& conversions) {
    std::uint64_t sum = 0;
    for (const Conversion& c : conversions) sum += c.bytes;
    return sum;
}

int tensors(const std::vector<Conversion>& conversions) {
    int sum = 0;
    for (const Conversion& c : conversions) sum += c.tensors;
    return sum;
}

template <class Format>
void check_exact_as_q8_0() {
    INFO(std::string(gg::info(gg::format::dtype_of<Format>).name));
    std::vector<unsigned char> block(Format::bytes);
    long wrong = 0;
    // Every code, and every FP16 but infinities and NaNs.
    for (unsigned d = 0; d < 0x10000; ++d) {
        if ((d & 0x7C00u) == 0x7C00u) continue;
        block[0] = static_cast<unsigned char>(d);
        block[1] = static_cast<unsigned char>(d >> 8);
        for (std::size_t i = 2; i < block.size(); ++i)
            block[i] = static_cast<unsigned char>(i * 0x11u + (d >> 4) + (d & 15u) * 37u);
        float values[32];
        Format::decode(block.data(), values);
        const float scale = gg::format::half_to_float(d);
        for (const float value : values) {
            const float q = scale == 0.0f ? 0.0f : value / scale;
            wrong += q != static_cast<float>(static_cast<int>(q)) || q < -127.0f || q > 127.0f;
            wrong += scale * q != value;
        }
    }
    CHECK(wrong == 0);
}

}  // namespace

TEST_CASE("formats that a GPU has stay, the others become one that holds them") {
    for (const DType type : {DType::mxfp4, DType::q8_0, DType::f16, DType::bf16})
        CHECK(device_type(type) == type);
    for (const DType type : {DType::q4_0, DType::q5_0, DType::iq4_nl})
        CHECK(device_type(type) == DType::q8_0);
    for (const DType type : {DType::f32, DType::q4_1, DType::q5_1, DType::q4_k, DType::q5_k, DType::q6_k})
        CHECK(device_type(type) == DType::f16);
}

TEST_CASE("matrices that are multiplied together share a format") {
    CHECK(shared_device_type({DType::mxfp4, DType::mxfp4}) == DType::mxfp4);
    CHECK(shared_device_type({DType::q8_0, DType::q5_0, DType::iq4_nl}) == DType::q8_0);
    CHECK(shared_device_type({DType::bf16}) == DType::bf16);
    CHECK(shared_device_type({DType::bf16, DType::q8_0}) == DType::f16);
    CHECK(shared_device_type({DType::q8_0, DType::q8_0, DType::f16}) == DType::f16);
    CHECK(shared_device_type({DType::bf16, DType::f32, DType::bf16}) == DType::f16);
    CHECK(shared_device_type({DType::q4_k, DType::q6_k, DType::q4_1}) == DType::f16);
}

TEST_CASE("Q4_0, Q5_0 and IQ4_NL are an integer times the scale of their block") {
    check_exact_as_q8_0<gg::format::Q4_0>();
    check_exact_as_q8_0<gg::format::Q5_0>();
    check_exact_as_q8_0<gg::format::IQ4_NL>();
}

TEST_CASE("conversions of a file name every tensor once, and a tied head twice") {
    for (const std::string name :
         {"gpt-oss-320", "gpt-oss-experts", "gpt-oss-f32", "gpt-oss-half", "gpt-oss-k", "gpt-oss-mxfp4",
          "gpt-oss-window", "gpt2-blocks", "gpt2-f32", "gpt2-half", "gpt2-k", "llama-320", "llama-f32",
          "llama-half", "llama-k", "llama-text"}) {
        INFO(name);
        const auto file = open_golden(name);
        const auto found = conversions(file);
        for (const std::string& line : lines(found)) UNSCOPED_INFO(line);
        std::uint64_t all = 0;
        for (const gg::TensorView& tensor : file.tensors()) all += tensor.bytes();
        const bool tied = file.tensor("output.weight") == nullptr;
        if (tied) all += file.require_tensor("token_embd.weight").bytes();
        CHECK(bytes(found) == all);
        CHECK(tensors(found) == static_cast<int>(file.tensors().size()) + (tied ? 1 : 0));
    }
}

TEST_CASE("conversions of the goldens") {
    const auto of = [](const std::string& name) { return lines(conversions(open_golden(name))); };
    using Lines = std::vector<std::string>;
    CHECK(of("gpt-oss-mxfp4") == Lines{"F32 to F32: 26", "F32 to F16: 9", "MXFP4 to MXFP4: 6"});
    CHECK(of("gpt2-blocks") == Lines{"F32 to F32: 27", "Q4_0 to Q8_0: 2", "Q4_1 to F16: 2", "Q5_0 to Q8_0: 2",
                                     "Q5_1 to F16: 2", "Q8_0 to Q8_0: 2", "IQ4_NL to Q8_0: 2",
                                     "MXFP4 to MXFP4: 2"});
    CHECK(of("gpt2-k") ==
          Lines{"F32 to F32: 11", "Q4_K to F16: 3", "Q4_K to Q4_K: 1", "Q5_K to F16: 1", "Q6_K to F16: 1"});
    CHECK(of("llama-half") == Lines{"F32 to F32: 7", "F16 to F16: 12", "BF16 to F16: 8", "BF16 to BF16: 3"});
    CHECK(of("llama-k") ==
          Lines{"F32 to F32: 3", "Q4_K to F16: 3", "Q5_K to F16: 2", "Q6_K to F16: 3", "Q6_K to Q6_K: 1"});
    CHECK(of("gpt-oss-half") ==
          Lines{"F32 to F32: 37", "F16 to F16: 14", "BF16 to F16: 7", "BF16 to BF16: 2"});
}

TEST_CASE("bytes of a group on a GPU") {
    const auto matrix = [](DType type, int columns, int rows) {
        return gg::host::Matrix{
            type, nullptr, columns, rows,
            static_cast<std::size_t>(columns) / gg::info(type).elements * gg::info(type).bytes};
    };
    using Group = std::vector<gg::host::Matrices>;
    // 5 and 1 row tiles of 2 tiles.
    const Group stacked = {{matrix(DType::q4_0, 96, 65), 1}, {matrix(DType::q8_0, 96, 16), 1}};
    CHECK(device_bytes(MatrixUse::tiles, stacked) == (5 + 1) * (2 * 1088 + 16));  // tiles and units of rows
    // 17 rows of each: 3 row tiles.
    const Group interleaved = {{matrix(DType::mxfp4, 64, 17), 3}, {matrix(DType::mxfp4, 64, 17), 3}};
    CHECK(device_bytes(MatrixUse::interleaved, interleaved) == 3 * 3 * (544 + 16));
    const Group mixed = {{matrix(DType::mxfp4, 64, 17), 3}, {matrix(DType::q8_0, 64, 17), 3}};
    CHECK(device_bytes(MatrixUse::interleaved, mixed) == 3 * 3 * 2048);
    const Group router = {{matrix(DType::bf16, 70, 5), 1}};
    CHECK(device_bytes(MatrixUse::floats, router) == 70 * 5 * 4);
    const Group embedding = {{matrix(DType::q6_k, 512, 9), 1}};
    CHECK(device_bytes(MatrixUse::rows, embedding) == 9 * 420);
}
