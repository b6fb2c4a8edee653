// Writes GGUF version 3 files: metadata of every value type, tensors of every type in gg::dtypes, whose bytes
// are given whole or streamed by a callback. See parse.hpp for the format. What parse.hpp would refuse is
// refused here too, before anything is written.
//
// Errors: gg::Error, invalid_request, naming the key or tensor; and those of OutputFile.
#pragma once

#include <functional>

#include "gg/gguf/output_file.hpp"
#include "gg/gguf/parse.hpp"

namespace gg::gguf {

/// Takes the next bytes of what is being written.
using ByteSink = std::function<void(std::span<const std::byte>)>;
/// Produces a tensor's bytes by calling the sink with them, piece after piece, in order.
using ByteSource = std::function<void(const ByteSink&)>;

/// Collects a file's contents and writes them. The order of keys and tensors is that of the calls.
class Writer {
  public:
    /// Sets a key; a key that is there already gets the new value in its place. The value type in the file
    /// follows T: integers by width and sign, float, double, bool, anything that converts to
    /// std::string_view, and std::vector of these. general.alignment (u32) sets the alignment of tensor data.
    template <class T>
    void set(std::string_view key, const T& value) {
        std::vector<std::byte> bytes;
        if constexpr (detail::is_vector<T>) {
            using Element = typename T::value_type;
            append(bytes, static_cast<std::uint32_t>(type_of<Element>()));
            append(bytes, static_cast<std::uint64_t>(value.size()));
            for (const auto& element : value) append_scalar(bytes, static_cast<const Element&>(element));
            set_encoded(key, ValueType::array, std::move(bytes));
        } else {
            append_scalar(bytes, value);
            set_encoded(key, type_of<T>(), std::move(bytes));
        }
    }

    /// Copies a value of another file.
    void set(std::string_view key, const Value& value) {
        std::vector<std::byte> bytes;
        if (value.is_array()) {
            append(bytes, static_cast<std::uint32_t>(value.element_type()));
            append(bytes, value.count());
        } else if (value.type() == ValueType::string) {
            append(bytes, static_cast<std::uint64_t>(value.bytes().size()));
        }
        bytes.insert(bytes.end(), value.bytes().begin(), value.bytes().end());
        set_encoded(key, value.type(), std::move(bytes));
    }

    /// Adds a tensor whose bytes `source` produces when the file is written. `shape` in GGUF order, row
    /// length first, 1 to 4 dimensions.
    void add_tensor(std::string_view name, DType type, std::span<const std::uint64_t> shape,
                    ByteSource source) {
        Tensor tensor;
        tensor.view = checked_view(name, type, shape);
        tensor.source = std::move(source);
        tensors_.push_back(std::move(tensor));
    }

    /// Adds a tensor with its bytes, which the writer keeps.
    void add_tensor(std::string_view name, DType type, std::span<const std::uint64_t> shape,
                    std::vector<std::byte> bytes) {
        const std::size_t size = bytes.size();
        add_tensor(name, type, shape, [kept = std::move(bytes)](const ByteSink& sink) { sink(kept); });
        require_bytes(tensors_.back().view, size);
    }

    /// Adds a tensor with bytes that stay the caller's until the file is written.
    void add_tensor(std::string_view name, DType type, std::span<const std::uint64_t> shape,
                    std::span<const std::byte> bytes) {
        add_tensor(name, type, shape, [bytes](const ByteSink& sink) { sink(bytes); });
        require_bytes(tensors_.back().view, bytes.size());
    }

    /// The same with the shape written in place: add_tensor("x", DType::f32, {4, 2}, bytes).
    template <class Bytes>
    void add_tensor(std::string_view name, DType type, std::initializer_list<std::uint64_t> shape,
                    Bytes&& bytes) {
        add_tensor(name, type, std::span(shape.begin(), shape.size()), std::forward<Bytes>(bytes));
    }

    /// Adds a tensor of an open file, which must stay open until this one is written.
    void add_tensor(const TensorView& tensor) {
        add_tensor(tensor.name, tensor.type,
                   std::span(tensor.shape).first(static_cast<std::size_t>(tensor.dimensions)),
                   std::span(tensor.data, static_cast<std::size_t>(tensor.bytes())));
    }

    /// Writes the file: complete under its name, or not at all.
    void write(const std::filesystem::path& path) const {
        OutputFile file(path);
        write([&file](std::span<const std::byte> bytes) { file.write(bytes); });
        file.commit();
    }

    /// All that is in front of the tensors' data; they follow in their order, each padded to the alignment.
    std::vector<std::byte> header() const {
        const std::uint64_t align = alignment();
        std::vector<std::byte> head = encode_head(align);
        head.resize(padded(head.size(), align));
        return head;
    }

    /// Bytes of the whole file.
    std::uint64_t file_bytes() const {
        const std::uint64_t align = alignment();
        std::uint64_t bytes = header().size();
        for (const Tensor& tensor : tensors_) bytes += padded(tensor.view.bytes(), align);
        return bytes;
    }

    /// Hands the whole file to a sink, piece after piece.
    void write(const ByteSink& sink) const {
        const std::uint64_t align = alignment();
        sink(header());
        for (const Tensor& tensor : tensors_) write_tensor(tensor, align, sink);
    }

    /// The whole file in memory.
    std::vector<std::byte> bytes() const {
        std::vector<std::byte> all;
        write(
            [&all](std::span<const std::byte> bytes) { all.insert(all.end(), bytes.begin(), bytes.end()); });
        return all;
    }

  private:
    struct EncodedEntry {
        std::string key;
        ValueType type;
        std::vector<std::byte> bytes;  ///< as in the file, after the type
    };
    struct Tensor {
        TensorView view;
        ByteSource source;
    };

    template <class T>
    static constexpr ValueType type_of() {
        if constexpr (std::is_same_v<T, bool>)
            return ValueType::boolean;
        else if constexpr (std::is_same_v<T, float>)
            return ValueType::f32;
        else if constexpr (std::is_same_v<T, double>)
            return ValueType::f64;
        else if constexpr (std::is_integral_v<T>) {
            static_assert(!std::is_same_v<T, char>, "write a string or a sized integer");
            constexpr bool is_signed = std::is_signed_v<T>;
            switch (sizeof(T)) {
                case 1:
                    return is_signed ? ValueType::i8 : ValueType::u8;
                case 2:
                    return is_signed ? ValueType::i16 : ValueType::u16;
                case 4:
                    return is_signed ? ValueType::i32 : ValueType::u32;
                default:
                    return is_signed ? ValueType::i64 : ValueType::u64;
            }
        } else {
            static_assert(std::is_convertible_v<const T&, std::string_view>,
                          "a value is an integer, float, double, bool, string or a vector of them");
            return ValueType::string;
        }
    }

    template <class T>
    static void append(std::vector<std::byte>& bytes, const T& number) {
        const std::size_t at = bytes.size();
        bytes.resize(at + sizeof number);
        std::memcpy(bytes.data() + at, &number, sizeof number);
    }

    static void append_string(std::vector<std::byte>& bytes, std::string_view text) {
        append(bytes, static_cast<std::uint64_t>(text.size()));
        const std::span<const std::byte> raw = std::as_bytes(std::span(text));
        bytes.insert(bytes.end(), raw.begin(), raw.end());
    }

    template <class T>
    static void append_scalar(std::vector<std::byte>& bytes, const T& value) {
        if constexpr (type_of<T>() == ValueType::string)
            append_string(bytes, value);
        else if constexpr (std::is_same_v<T, bool>)
            append(bytes, static_cast<std::uint8_t>(value));
        else
            append(bytes, value);
    }

    [[noreturn]] static void reject(const Field& field, std::string expected, std::string found) {
        throw Error(ErrorCode::invalid_request,
                    {.field = field.text(), .expected = std::move(expected), .found = std::move(found)});
    }

    static void check_name(std::string_view kind, std::string_view name, std::uint64_t limit) {
        if (name.empty() || name.size() > limit || name.find('\0') != name.npos)
            reject({"name", kind, name}, "1 to " + std::to_string(limit) + " bytes without NUL",
                   std::to_string(name.size()) + " bytes");
    }

    void set_encoded(std::string_view key, ValueType type, std::vector<std::byte> bytes) {
        check_name("key", key, max_key_bytes);
        EncodedEntry entry{std::string(key), type, std::move(bytes)};
        for (EncodedEntry& old : entries_) {
            if (old.key != key) continue;
            old = std::move(entry);
            return;
        }
        entries_.push_back(std::move(entry));
    }

    TensorView checked_view(std::string_view name, DType type, std::span<const std::uint64_t> shape) const {
        check_name("tensor", name, max_tensor_name_bytes);
        for (const Tensor& other : tensors_)
            if (other.view.name == name) reject({"name", "tensor", name}, "each name once", "a second one");
        if (shape.empty() || shape.size() > 4)
            reject({"dimensions", "tensor", name}, "1 to 4", std::to_string(shape.size()));
        TensorView view{
            .name = std::string(name), .type = type, .dimensions = static_cast<int>(shape.size())};
        std::copy(shape.begin(), shape.end(), view.shape.begin());
        if (const std::string problem = shape_problem(view); !problem.empty())
            reject({"shape", "tensor", name}, problem, shape_text(view));
        return view;
    }

    static void require_bytes(const TensorView& tensor, std::uint64_t bytes) {
        if (bytes != tensor.bytes())
            reject({"data", "tensor", tensor.name}, std::to_string(tensor.bytes()) + " bytes",
                   std::to_string(bytes));
    }

    static std::uint64_t padded(std::uint64_t bytes, std::uint64_t align) {
        return (bytes + align - 1) / align * align;
    }

    std::uint64_t alignment() const {
        for (const EncodedEntry& entry : entries_) {
            if (entry.key != "general.alignment") continue;
            const bool is_u32 = entry.type == ValueType::u32;
            const std::uint32_t value = is_u32 ? detail::load<std::uint32_t>(entry.bytes.data()) : 0;
            if (!valid_alignment(value))
                reject({"", "key", entry.key}, alignment_text(), std::to_string(value));
            return value;
        }
        return default_alignment;
    }

    std::vector<std::byte> encode_head(std::uint64_t align) const {
        std::vector<std::byte> head;
        const std::string_view magic = "GGUF";
        for (char c : magic) append(head, c);
        append(head, std::uint32_t{3});
        append(head, static_cast<std::uint64_t>(tensors_.size()));
        append(head, static_cast<std::uint64_t>(entries_.size()));
        for (const EncodedEntry& entry : entries_) {
            append_string(head, entry.key);
            append(head, static_cast<std::uint32_t>(entry.type));
            head.insert(head.end(), entry.bytes.begin(), entry.bytes.end());
        }
        std::uint64_t offset = 0;
        for (const Tensor& tensor : tensors_) {
            append_string(head, tensor.view.name);
            append(head, static_cast<std::uint32_t>(tensor.view.dimensions));
            for (int i = 0; i < tensor.view.dimensions; ++i)
                append(head, tensor.view.shape[static_cast<std::size_t>(i)]);
            append(head, static_cast<std::uint32_t>(tensor.view.type));
            append(head, offset);
            offset += padded(tensor.view.bytes(), align);
        }
        return head;
    }

    static void write_tensor(const Tensor& tensor, std::uint64_t align, const ByteSink& sink) {
        std::uint64_t written = 0;
        tensor.source([&](std::span<const std::byte> bytes) {
            written += bytes.size();
            if (written > tensor.view.bytes()) require_bytes(tensor.view, written);
            sink(bytes);
        });
        require_bytes(tensor.view, written);
        sink(std::vector<std::byte>(padded(written, align) - written));
    }

    std::vector<EncodedEntry> entries_;
    std::vector<Tensor> tensors_;
};

}  // namespace gg::gguf
