// A metadata value of a GGUF file: its type and a view of its bytes in the file. Nothing is copied until it
// is asked for, so an array of 200,000 token strings costs nothing to open.
//
// Format (GGUF 2 and 3): scalars are little-endian; bool is one byte, 0 or 1; a string is a u64 length and
// its bytes; an array is a u32 element type, a u64 count, and the elements, which are no arrays themselves.
#pragma once

#include <charconv>
#include <cmath>
#include <limits>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "gg/gguf/cursor.hpp"

namespace gg::gguf {

/// Value types with the ids that GGUF gives them.
enum class ValueType : std::uint32_t {
    u8 = 0,
    i8 = 1,
    u16 = 2,
    i16 = 3,
    u32 = 4,
    i32 = 5,
    f32 = 6,
    boolean = 7,
    string = 8,
    array = 9,
    u64 = 10,
    i64 = 11,
    f64 = 12,
};

inline constexpr std::uint32_t value_type_count = 13;

/// "u8", "string", ...
constexpr std::string_view to_string(ValueType type) {
    constexpr std::string_view names[value_type_count] = {
        "u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64"};
    return names[static_cast<std::uint32_t>(type)];
}

/// Bytes of a scalar; 0 for string and array, whose size is not fixed.
constexpr std::uint32_t scalar_bytes(ValueType type) {
    constexpr std::uint32_t sizes[value_type_count] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return sizes[static_cast<std::uint32_t>(type)];
}

/// The longest string value that is read; the longest seen in published files are chat templates of some 100
/// KB.
inline constexpr std::uint64_t max_string_bytes = 16u << 20;

/// A typed view of a value in the file; valid as long as the file is open.
class Value {
  public:
    /// `bytes` are those of the scalar, of the string without its length, or of all elements.
    Value(ValueType type, ValueType element_type, std::uint64_t count, std::span<const std::byte> bytes)
        : type_(type), element_type_(element_type), count_(count), bytes_(bytes) {}

    ValueType type() const { return type_; }
    bool is_array() const { return type_ == ValueType::array; }
    /// Type of an array's elements; of a scalar, its own type.
    ValueType element_type() const { return element_type_; }
    /// Elements of an array; 1 for a scalar.
    std::uint64_t count() const { return count_; }
    std::span<const std::byte> bytes() const { return bytes_; }

    /// The value as a T, or nothing if its type is another or it does not fit. T is an integer type (from
    /// integers of any width), float or double (from f32 or f64), bool, std::string_view, or a std::vector of
    /// one of these (from an array).
    template <class T>
    std::optional<T> as() const;

    /// What the value is, for messages: `u32 12`, `string "gpt2"`, `array of 24 i32`.
    std::string describe() const;

  private:
    template <class T>
    static std::optional<T> element(ValueType type, const std::byte* at);
    template <class T>
    std::optional<std::vector<T>> elements() const;

    ValueType type_ = ValueType::u8;
    ValueType element_type_ = ValueType::u8;
    std::uint64_t count_ = 0;
    std::span<const std::byte> bytes_;
};

namespace detail {

template <class T>
inline constexpr bool is_vector = false;
template <class T>
inline constexpr bool is_vector<std::vector<T>> = true;

/// Whether values of a type can be read as a T at all.
template <class T>
constexpr bool readable_as(ValueType type) {
    const bool real = type == ValueType::f32 || type == ValueType::f64;
    if constexpr (std::is_same_v<T, std::string_view>)
        return type == ValueType::string;
    else if constexpr (std::is_same_v<T, bool>)
        return type == ValueType::boolean;
    else if constexpr (std::is_floating_point_v<T>)
        return real;
    else {
        static_assert(std::is_integral_v<T>,
                      "a metadata value is an integer, float, bool, string or a vector of them");
        return !real && scalar_bytes(type) != 0 && type != ValueType::boolean;
    }
}

template <class T>
T load(const std::byte* at) {
    T value;
    std::memcpy(&value, at, sizeof(T));
    return value;
}

template <class T, class From>
std::optional<T> convert(From value) {
    if constexpr (std::is_same_v<T, bool> || std::is_same_v<From, bool>) {
        if constexpr (std::is_same_v<T, From>) return value;
    } else if constexpr (std::is_floating_point_v<T> && std::is_floating_point_v<From>) {
        if (std::isfinite(value) && std::abs(static_cast<double>(value)) > std::numeric_limits<T>::max())
            return {};
        return static_cast<T>(value);
    } else if constexpr (std::is_integral_v<T> && std::is_integral_v<From>) {
        if (std::in_range<T>(value)) return static_cast<T>(value);
    }
    return {};
}

/// Calls visit(number) with the scalar at an address, as its own C++ type; bool must be 0 or 1 to come as
/// true.
template <class Visit>
auto visit_scalar(ValueType type, const std::byte* at, Visit&& visit) {
    switch (type) {
        case ValueType::i8:
            return visit(load<std::int8_t>(at));
        case ValueType::u16:
            return visit(load<std::uint16_t>(at));
        case ValueType::i16:
            return visit(load<std::int16_t>(at));
        case ValueType::u32:
            return visit(load<std::uint32_t>(at));
        case ValueType::i32:
            return visit(load<std::int32_t>(at));
        case ValueType::f32:
            return visit(load<float>(at));
        case ValueType::boolean:
            return visit(load<std::uint8_t>(at) != 0);
        case ValueType::u64:
            return visit(load<std::uint64_t>(at));
        case ValueType::i64:
            return visit(load<std::int64_t>(at));
        case ValueType::f64:
            return visit(load<double>(at));
        default:
            return visit(load<std::uint8_t>(at));
    }
}

/// What a T is called in messages.
template <class T>
std::string type_text() {
    if constexpr (is_vector<T>)
        return "an array, each element " + type_text<typename T::value_type>();
    else if constexpr (std::is_same_v<T, std::string_view>)
        return "a string";
    else if constexpr (std::is_same_v<T, bool>)
        return "a bool";
    else if constexpr (std::is_floating_point_v<T>)
        return "a number of type f32 or f64";
    else
        return "an integer from " + std::to_string(std::numeric_limits<T>::min()) + " to " +
               std::to_string(std::numeric_limits<T>::max());
}

}  // namespace detail

template <class T>
std::optional<T> Value::element(ValueType type, const std::byte* at) {
    return detail::visit_scalar(type, at, [](auto number) { return detail::convert<T>(number); });
}

template <class T>
std::optional<std::vector<T>> Value::elements() const {
    if (!is_array() || !detail::readable_as<T>(element_type_)) return {};
    std::vector<T> out;
    out.reserve(count_);
    if constexpr (std::is_same_v<T, std::string_view>) {
        // Lengths are checked again: nobody guarantees that the file behind the mapping stayed as it was.
        static const std::string name = "metadata";
        Cursor cursor(bytes_, name);
        for (std::uint64_t i = 0; i < count_; ++i)
            out.push_back(cursor.read_string(max_string_bytes, {"array"}));
    } else {
        const std::size_t size = scalar_bytes(element_type_);
        for (std::size_t i = 0; i < count_; ++i) {
            const std::optional<T> number = element<T>(element_type_, bytes_.data() + i * size);
            if (!number) return {};
            out.push_back(*number);
        }
    }
    return out;
}

template <class T>
std::optional<T> Value::as() const {
    if constexpr (detail::is_vector<T>) {
        return elements<typename T::value_type>();
    } else {
        if (!detail::readable_as<T>(type_)) return {};
        if constexpr (std::is_same_v<T, std::string_view>)
            return std::string_view(reinterpret_cast<const char*>(bytes_.data()), bytes_.size());
        else
            return element<T>(type_, bytes_.data());
    }
}

inline std::string Value::describe() const {
    if (is_array()) return "array of " + std::to_string(count_) + " " + std::string(to_string(element_type_));
    const std::string type(to_string(type_));
    if (type_ == ValueType::string) return type + " \"" + printable(*as<std::string_view>()) + "\"";
    if (type_ == ValueType::boolean) return type + (*as<bool>() ? " true" : " false");
    return type + " " + detail::visit_scalar(type_, bytes_.data(), [](auto number) {
               char text[32];
               const auto end = std::to_chars(text, text + sizeof(text), +number).ptr;
               return std::string(text, end);
           });
}

}  // namespace gg::gguf
