// Small correct files, and a walk over everything that a parsed file offers: what the mutation test and the
// fuzzer share.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "gg/gguf/file.hpp"
#include "gg/gguf/writer.hpp"

namespace gguf_test {

/// Bytes 0, 1, 2, ... as a tensor's data.
inline std::vector<std::byte> counting_bytes(std::uint64_t count) {
    std::vector<std::byte> bytes(count);
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i);
    return bytes;
}

/// A key of every value type, alone and as an array.
inline void set_every_value_type(gg::gguf::Writer& writer) {
    const auto both = [&writer](const std::string& name, auto low, auto high) {
        writer.set("one." + name, high);
        writer.set("many." + name, std::vector<decltype(low)>{low, high});
    };
    both("u8", std::uint8_t{0}, std::uint8_t{255});
    both("i8", std::int8_t{-128}, std::int8_t{127});
    both("u16", std::uint16_t{0}, std::uint16_t{65535});
    both("i16", std::int16_t{-32768}, std::int16_t{32767});
    both("u32", std::uint32_t{0}, std::uint32_t{4294967295});
    both("i32", INT32_MIN, INT32_MAX);
    both("u64", std::uint64_t{0}, UINT64_MAX);
    both("i64", INT64_MIN, INT64_MAX);
    both("f32", -0.1f, 3.25f);
    both("f64", -0.1, 1e300);
    both("bool", false, true);
    both("string", std::string(), std::string("\xce\xb1\xce\xb2 text"));
    writer.set("none.u32", std::vector<std::uint32_t>{});
    writer.set("none.string", std::vector<std::string>{});
}

/// A tensor of every type of gg::dtypes, two rows of two blocks, named by its type.
inline void add_every_tensor_type(gg::gguf::Writer& writer) {
    for (const gg::DTypeInfo& type : gg::dtypes)
        writer.add_tensor(type.name, type.type, {type.elements * 2, 2}, counting_bytes(type.bytes * 4));
}

/// Correct files of at most a few KB, unlike each other.
inline std::vector<std::vector<std::byte>> sample_files() {
    std::vector<std::vector<std::byte>> files;
    gg::gguf::Writer values;
    set_every_value_type(values);
    files.push_back(values.bytes());
    values.add_tensor("weight", gg::DType::f32, {2, 3, 1, 2}, counting_bytes(48));
    files.push_back(values.bytes());
    files.back()[4] = std::byte{2};  // version 2 has the same form

    gg::gguf::Writer tensors;
    tensors.set("general.architecture", "gpt-oss");
    add_every_tensor_type(tensors);
    files.push_back(tensors.bytes());

    gg::gguf::Writer model;
    model.set("general.architecture", "llama");
    model.set("general.alignment", std::uint32_t{8});
    model.set("llama.block_count", std::uint32_t{1});
    model.set("tokenizer.ggml.tokens", std::vector<std::string>{"a", "b", "ab", "<|end|>"});
    model.set("tokenizer.ggml.merges", std::vector<std::string>{"a b"});
    model.set("tokenizer.ggml.token_type", std::vector<std::int32_t>{1, 1, 1, 3});
    model.add_tensor("token_embd.weight", gg::DType::f16, {8, 4}, counting_bytes(64));
    model.add_tensor("blk.0.attn_norm.weight", gg::DType::f32, {8}, counting_bytes(32));
    files.push_back(model.bytes());

    gg::gguf::Writer split;
    split.set("split.no", std::uint16_t{0});
    split.set("split.count", std::uint16_t{2});
    split.set("split.tensors.count", std::int32_t{1});
    split.add_tensor("t", gg::DType::q8_0, {32}, counting_bytes(34));
    files.push_back(split.bytes());
    files.push_back(gg::gguf::Writer().bytes());
    return files;
}

/// Reads every metadata value in every way, and every byte of every tensor; the sum keeps the reads alive.
inline std::uint64_t touch_everything(const gg::gguf::File& file) {
    std::uint64_t sum = file.version() + file.bytes();
    const auto count = [&sum](const auto& value) {
        if (value) sum += 1;
    };
    for (const gg::gguf::Entry& entry : file.metadata()) {
        const gg::gguf::Value& value = entry.value;
        sum += value.describe().size() + (file.find(entry.key) == &value);
        count(value.as<std::uint32_t>());
        count(value.as<std::int64_t>());
        count(value.as<float>());
        count(value.as<double>());
        count(value.as<bool>());
        count(value.as<std::string_view>());
        count(value.as<std::vector<std::int32_t>>());
        count(value.as<std::vector<std::uint64_t>>());
        count(value.as<std::vector<float>>());
        count(value.as<std::vector<bool>>());
        if (const auto texts = value.as<std::vector<std::string_view>>())
            for (std::string_view text : *texts)
                for (char c : text) sum += static_cast<unsigned char>(c);
    }
    for (const gg::TensorView& tensor : file.tensors()) {
        sum += file.tensor(tensor.name) == &tensor;
        const std::uint64_t bytes = tensor.bytes();
        for (std::uint64_t i = 0; i < bytes; ++i) sum += static_cast<std::uint64_t>(tensor.data[i]);
    }
    return sum;
}

}  // namespace gguf_test
