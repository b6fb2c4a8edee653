// Builds GGUF bytes field by field, right or wrong, and checks how they are refused.
#pragma once

#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "catch.hpp"
#include "gg/gguf/file.hpp"

namespace gguf_test {

/// Bytes put together from numbers (raw, little-endian) and strings (length and bytes).
struct Bytes {
    std::vector<std::byte> data;

    template <class T>
    Bytes& add(const T& item) {
        if constexpr (std::is_arithmetic_v<T>) {
            const auto raw = std::as_bytes(std::span(&item, 1));
            data.insert(data.end(), raw.begin(), raw.end());
        } else if constexpr (std::is_same_v<T, Bytes>) {
            data.insert(data.end(), item.data.begin(), item.data.end());
        } else {
            const std::string_view text = item;
            add(static_cast<std::uint64_t>(text.size()));
            const auto raw = std::as_bytes(std::span(text));
            data.insert(data.end(), raw.begin(), raw.end());
        }
        return *this;
    }
};

template <class... Items>
Bytes bytes_of(const Items&... items) {
    Bytes bytes;
    (bytes.add(items), ...);
    return bytes;
}

/// A GGUF file as its fields say, whatever they say.
struct RawFile {
    std::string magic = "GGUF";
    std::uint32_t version = 3;
    std::optional<std::uint64_t> tensor_count, key_count;  ///< what the header claims, if not the truth
    std::uint64_t alignment = 32;                          ///< of the data section
    std::uint64_t data_bytes = 0;

    /// A key with the id of its value type and the fields of its value.
    template <class... Items>
    RawFile& key(const std::string& name, std::uint32_t type, const Items&... value) {
        keys_.add(name).add(type);
        (keys_.add(value), ...);
        ++keys_added_;
        return *this;
    }
    /// A key of which everything is given.
    RawFile& raw_key(const Bytes& bytes) {
        keys_.add(bytes);
        ++keys_added_;
        return *this;
    }
    RawFile& tensor(const std::string& name, const std::vector<std::uint64_t>& shape, std::uint32_t type,
                    std::uint64_t offset) {
        Bytes bytes = bytes_of(name, static_cast<std::uint32_t>(shape.size()));
        for (std::uint64_t dimension : shape) bytes.add(dimension);
        return raw_tensor(bytes.add(type).add(offset));
    }
    RawFile& raw_tensor(const Bytes& bytes) {
        tensors_.add(bytes);
        ++tensors_added_;
        return *this;
    }
    RawFile& data(std::uint64_t bytes) {
        data_bytes = bytes;
        return *this;
    }

    std::vector<std::byte> build() const {
        Bytes file;
        for (char c : magic) file.add(c);
        file.add(version).add(tensor_count.value_or(tensors_added_)).add(key_count.value_or(keys_added_));
        file.add(keys_).add(tensors_);
        if (data_bytes != 0)
            file.data.resize((file.data.size() + alignment - 1) / alignment * alignment + data_bytes);
        return file.data;
    }

  private:
    Bytes keys_, tensors_;
    std::uint64_t keys_added_ = 0, tensors_added_ = 0;
};

/// What an action is refused with; fails the test if it is not.
template <class Action>
gg::Mismatch refusal(Action&& action) {
    try {
        action();
    } catch (const gg::Error& error) {
        CHECK(error.code() == gg::ErrorCode::model_load_failed);
        const std::string message = error.what();
        CHECK(message.find(error.mismatch().file) == 0);
        CHECK(message.find(error.mismatch().found) != message.npos);
        return error.mismatch();
    }
    FAIL("it was not refused");
    return {};
}

/// Requires that an action is refused, naming the file, the whole field, and parts of the rest.
template <class Action>
gg::Mismatch check_refusal(Action&& action, const std::string& file, const std::string& field,
                           const std::string& expected, const std::string& found) {
    const gg::Mismatch mismatch = refusal(action);
    CHECK(mismatch.file == file);
    CHECK(mismatch.field == field);
    CAPTURE(mismatch.expected, mismatch.found);
    CHECK(mismatch.expected.find(expected) != std::string::npos);
    CHECK(mismatch.found.find(found) != std::string::npos);
    return mismatch;
}

/// Requires that bytes are refused as a file named "test.gguf". They lie in a buffer of exactly their size.
inline gg::Mismatch check_refused(const std::vector<std::byte>& bytes, const std::string& field,
                                  const std::string& expected, const std::string& found) {
    const std::vector<std::byte> exact(bytes.begin(), bytes.end());
    return check_refusal([&] { gg::gguf::File::parse(exact, "test.gguf"); }, "test.gguf", field, expected,
                         found);
}
inline gg::Mismatch check_refused(const RawFile& file, const std::string& field, const std::string& expected,
                                  const std::string& found) {
    return check_refused(file.build(), field, expected, found);
}

inline constexpr std::uint64_t u64_max = ~std::uint64_t{0};
inline constexpr std::uint64_t two_to_63 = std::uint64_t{1} << 63;

// Ids of value types and of F32, as the files have them.
inline constexpr std::uint32_t id_u8 = 0, id_u32 = 4, id_i32 = 5, id_f32 = 6, id_bool = 7, id_string = 8,
                               id_array = 9, id_u64 = 10;
inline constexpr std::uint32_t type_f32 = 0;

}  // namespace gguf_test
