// Reads the structure of one GGUF file, version 2 or 3, little-endian: header, metadata, tensor directory.
//
//   "GGUF"  u32 version  u64 tensors  u64 keys
//   keys    times { string key, u32 value type, value }                       string = u64 length, bytes
//   tensors times { string name, u32 dimensions, u64 shape[dimensions], u32 type, u64 offset }
//   padding to general.alignment (32 if absent), then the data that offsets count from
//
// Every number is checked against the bytes that are there before anything is allocated by it, so what
// parsing allocates is bounded by a small multiple of the file's size. Whatever breaks a rule is refused by
// gg::Error (model_load_failed) with the file, the field, what was expected and what was found. Source: the
// GGUF specification in ggml's docs/gguf.md.
#pragma once

#include "gg/core/tensor.hpp"
#include "gg/gguf/ggml_types.hpp"
#include "gg/gguf/name_index.hpp"
#include "gg/gguf/value.hpp"

namespace gg::gguf {

/// One metadata key with its value; both are views of the file.
struct Entry {
    std::string_view key;
    Value value;
};

inline constexpr std::uint32_t default_alignment = 32;
inline constexpr std::uint32_t max_alignment = 1u << 20;
inline constexpr std::uint64_t max_key_bytes = 65535;
inline constexpr std::uint64_t max_tensor_name_bytes = 63;
inline constexpr std::uint64_t max_entries = 1u << 20;  ///< keys, and tensors, of one file
inline constexpr std::uint64_t max_dimension = std::uint64_t{1} << 40;
inline constexpr std::uint64_t max_tensor_bytes = std::uint64_t{1} << 50;

/// Whether a file may align its tensors so; the specification asks for a multiple of 8.
constexpr bool valid_alignment(std::uint32_t bytes) {
    return bytes >= 8 && bytes <= max_alignment && std::has_single_bit(bytes);
}
inline std::string alignment_text() {
    return "a u32, a power of two from 8 to " + std::to_string(max_alignment);
}

/// What a tensor's shape ought to be, or empty if it is well: dimensions of at least 1, rows of whole blocks,
/// and a size that leaves room for padding.
inline std::string shape_problem(const TensorView& tensor) {
    for (std::size_t i = 0; i < 4; ++i)
        if (tensor.shape[i] < 1 || tensor.shape[i] > max_dimension)
            return "every dimension from 1 to " + std::to_string(max_dimension);
    const DTypeInfo& type = info(tensor.type);
    if (tensor.shape[0] % type.elements != 0)
        return "rows of whole blocks of " + std::to_string(type.elements) + " elements (" +
               std::string(type.name) + ")";
    std::uint64_t bytes = tensor.row_bytes();  // at most 2^40 * 4: no overflow
    for (std::size_t i = 1; i < 4; ++i)
        if (__builtin_mul_overflow(bytes, tensor.shape[i], &bytes) || bytes > max_tensor_bytes)
            return "a tensor of at most " + std::to_string(max_tensor_bytes) + " bytes";
    return {};
}

inline constexpr auto key_of = [](const Entry& entry) { return entry.key; };
inline constexpr auto name_of = [](const TensorView& tensor) { return std::string_view(tensor.name); };

/// What one file holds. Values and tensor data are views of its bytes.
struct ParsedFile {
    std::uint32_t version = 0;
    std::uint32_t alignment = default_alignment;
    std::uint64_t data_offset = 0;  ///< where tensor data begins in the file
    std::vector<Entry> metadata;
    NameIndex metadata_by_key;
    std::vector<TensorView> tensors;

    const Value* find(std::string_view key) const {
        const Entry* entry = find_by_name(metadata, metadata_by_key, key, key_of);
        return entry ? &entry->value : nullptr;
    }
};

namespace detail {

class Parser {
  public:
    Parser(std::span<const std::byte> bytes, const std::string& file) : bytes_(bytes), cursor_(bytes, file) {}

    ParsedFile run() {
        read_header();
        for (std::uint64_t i = 0; i < keys_; ++i) read_entry(i);
        parsed_.metadata_by_key = index_by_name(parsed_.metadata, key_of);
        refuse_duplicates(parsed_.metadata, parsed_.metadata_by_key, key_of, "key");
        read_alignment();
        for (std::uint64_t i = 0; i < tensors_; ++i) read_tensor(i);
        refuse_duplicates(parsed_.tensors, index_by_name(parsed_.tensors, name_of), name_of, "tensor");
        place_tensors();
        return std::move(parsed_);
    }

  private:
    // The fewest bytes that a key with its value, and a tensor's entry, can take.
    static constexpr std::uint64_t least_entry_bytes = 8 + 1 + 4 + 1;
    static constexpr std::uint64_t least_tensor_bytes = 8 + 1 + 4 + 8 + 4 + 8;

    void read_header() {
        const auto magic = cursor_.read<std::array<char, 4>>({"magic"});
        const std::string_view shown(magic.data(), magic.size());
        if (shown == "FUGG") refuse_big_endian("magic \"FUGG\"");
        if (shown != "GGUF") cursor_.refuse_field({"magic"}, "\"GGUF\"", "\"" + printable(shown) + "\"");
        parsed_.version = cursor_.read<std::uint32_t>({"version"});
        const std::uint32_t version = parsed_.version;
        if (version != 0 && (version & 0xffff) == 0) refuse_big_endian("version " + std::to_string(version));
        if (version == 1)
            cursor_.refuse_field({"version"}, "2 or 3", "1, an early form that no current program writes",
                                 "Convert the model again with a current converter.");
        if (version != 2 && version != 3) cursor_.refuse_field({"version"}, "2 or 3", version);
        tensors_ = cursor_.read<std::uint64_t>({"tensor count"});
        keys_ = cursor_.read<std::uint64_t>({"key count"});
        check_count({"tensor count"}, tensors_, cursor_.left() / least_tensor_bytes);
        check_count({"key count"}, keys_, cursor_.left() / least_entry_bytes);
        parsed_.metadata.reserve(keys_);
        parsed_.tensors.reserve(tensors_);
        offsets_.reserve(tensors_);
    }

    [[noreturn]] void refuse_big_endian(std::string found) const {
        cursor_.refuse_field({"byte order"}, "a little-endian file", "a big-endian one (" + found + ")",
                             "Get or convert the model as a little-endian file.");
    }

    void check_count(const Field& field, std::uint64_t count, std::uint64_t room) const {
        const std::string_view why = room < max_entries ? " (what the bytes left can hold)" : "";
        if (count > std::min(room, max_entries))
            cursor_.refuse_field(field, "at most " + std::to_string(std::min(room, max_entries)).append(why),
                                 count);
    }

    std::string_view read_name(std::uint64_t limit, const Field& field) {
        const std::string_view name = cursor_.read_string(limit, field);
        if (name.empty()) cursor_.refuse_field(field, "at least one byte", "an empty one");
        if (name.find('\0') != name.npos)
            cursor_.refuse_field(field, "no NUL byte", "\"" + printable(name) + "\"");
        return name;
    }

    template <class List, class NameOf>
    void refuse_duplicates(const List& list, const NameIndex& index, NameOf name,
                           std::string_view kind) const {
        const auto twice = std::adjacent_find(
            index.begin(), index.end(),
            [&](std::uint32_t a, std::uint32_t b) { return name(list[a]) == name(list[b]); });
        if (twice == index.end()) return;
        cursor_.refuse_field(
            {"name", kind, name(list[*twice])}, "each name once",
            "it at positions " + std::to_string(twice[0]) + " and " + std::to_string(twice[1]));
    }

    void read_entry(std::uint64_t position) {
        const std::string_view key = read_name(max_key_bytes, {"name", "key", {}, position});
        const ValueType type = read_type(key, "value type");
        parsed_.metadata.push_back(
            {key, type == ValueType::array ? read_array(key) : read_scalar(key, type)});
    }

    ValueType read_type(std::string_view key, std::string_view part) {
        const auto id = cursor_.read<std::uint32_t>({part, "key", key});
        if (id >= value_type_count) cursor_.refuse_field({part, "key", key}, "a type from 0 to 12", id);
        return static_cast<ValueType>(id);
    }

    Value read_scalar(std::string_view key, ValueType type) {
        const Field field{"value", "key", key};
        if (type == ValueType::string) {
            const std::string_view text = cursor_.read_string(max_string_bytes, field);
            return {type, type, 1, std::as_bytes(std::span(text))};
        }
        const std::byte* start = cursor_.take(scalar_bytes(type), field);
        check_bools(field, type, {start, scalar_bytes(type)});
        return {type, type, 1, {start, scalar_bytes(type)}};
    }

    Value read_array(std::string_view key) {
        const ValueType type = read_type(key, "element type");
        if (type == ValueType::array)
            cursor_.refuse_field({"element type", "key", key}, "a scalar or a string", "an array of arrays");
        const Field field{"array length", "key", key};
        const auto count = cursor_.read<std::uint64_t>(field);
        const std::uint64_t least = type == ValueType::string ? 8 : scalar_bytes(type);
        if (count > cursor_.left() / least)
            cursor_.refuse_field(
                field,
                "at most " + std::to_string(cursor_.left() / least) + " (what the bytes left can hold)",
                count);
        const std::byte* start = cursor_.here();
        if (type == ValueType::string)
            for (std::uint64_t i = 0; i < count; ++i)
                cursor_.read_string(max_string_bytes, {"string in the array", "key", key});
        else
            cursor_.take(count * least, field);
        const std::span<const std::byte> elements(start, cursor_.here());
        check_bools({"value", "key", key}, type, elements);
        return {ValueType::array, type, count, elements};
    }

    void check_bools(const Field& field, ValueType type, std::span<const std::byte> bytes) const {
        if (type != ValueType::boolean) return;
        for (std::byte b : bytes)
            if (b > std::byte{1})
                cursor_.refuse_field(field, "a bool, 0 or 1", static_cast<std::uint64_t>(b));
    }

    void read_alignment() {
        const Value* value = parsed_.find("general.alignment");
        if (!value) return;
        const Field field{"", "key", "general.alignment"};
        if (value->type() != ValueType::u32)
            cursor_.refuse_field(field, "a value of type u32", value->describe());
        parsed_.alignment = load<std::uint32_t>(value->bytes().data());
        if (!valid_alignment(parsed_.alignment))
            cursor_.refuse_field(field, alignment_text(), parsed_.alignment);
    }

    void read_tensor(std::uint64_t position) {
        TensorView tensor;
        tensor.name = read_name(max_tensor_name_bytes, {"name", "tensor", {}, position});
        const auto field = [&tensor](std::string_view part) { return Field{part, "tensor", tensor.name}; };
        const auto dimensions = cursor_.read<std::uint32_t>(field("dimensions"));
        if (dimensions < 1 || dimensions > 4) cursor_.refuse_field(field("dimensions"), "1 to 4", dimensions);
        tensor.dimensions = static_cast<int>(dimensions);
        for (std::uint32_t i = 0; i < dimensions; ++i)
            tensor.shape[i] = cursor_.read<std::uint64_t>(field("shape"));
        read_tensor_type(tensor);
        if (const std::string problem = shape_problem(tensor); !problem.empty())
            cursor_.refuse_field(field("shape"), problem, shape_text(tensor));
        offsets_.push_back(cursor_.read<std::uint64_t>(field("offset")));
        parsed_.tensors.push_back(std::move(tensor));
    }

    void read_tensor_type(TensorView& tensor) {
        const Field field{"type", "tensor", tensor.name};
        const auto id = cursor_.read<std::uint32_t>(field);
        const DTypeInfo* known = find_dtype(id);
        if (!known) refuse_type(field, id);
        tensor.type = known->type;
    }

    [[noreturn]] void refuse_type(const Field& field, std::uint32_t id) const {
        const Value* architecture = parsed_.find("general.architecture");
        if (id == 4 && architecture && architecture->as<std::string_view>() == "gptoss")
            cursor_.refuse_field(
                field, "MXFP4 as type 39, in a file of architecture gpt-oss",
                "type 4 in a file of architecture gptoss: it was made by another runner's older "
                "converter, which stored MXFP4 under that number",
                "Get a GGUF file of the model whose architecture is gpt-oss.");
        cursor_.refuse_field(field, "a type that gg reads", ggml_type_text(id),
                             "gg reads " + readable_types() + ": get or convert the model in one of these.");
    }

    /// Gives each tensor its address: within the file, aligned, and disjoint from the others.
    void place_tensors() {
        std::vector<TensorView>& tensors = parsed_.tensors;
        if (tensors.empty()) return;
        const std::uint64_t alignment = parsed_.alignment;
        const std::uint64_t start = (cursor_.position() + alignment - 1) / alignment * alignment;
        const std::uint64_t room = bytes_.size() > start ? bytes_.size() - start : 0;
        parsed_.data_offset = start;
        for (std::size_t i = 0; i < tensors.size(); ++i) {
            const Field field{"offset", "tensor", tensors[i].name};
            if (offsets_[i] % alignment != 0)
                cursor_.refuse_field(field, "a multiple of the alignment, " + std::to_string(alignment),
                                     offsets_[i]);
            if (offsets_[i] > room || tensors[i].bytes() > room - offsets_[i])
                cursor_.refuse_field(field,
                                     std::to_string(tensors[i].bytes()) + " bytes within the " +
                                         std::to_string(room) + " bytes of tensor data in the file",
                                     "them at " + std::to_string(offsets_[i]),
                                     "The file is cut short or damaged: get it again.");
            tensors[i].data = bytes_.data() + start + offsets_[i];
        }
        refuse_overlaps();
    }

    void refuse_overlaps() const {
        const std::vector<TensorView>& tensors = parsed_.tensors;
        NameIndex order(tensors.size());
        std::iota(order.begin(), order.end(), 0u);
        std::sort(order.begin(), order.end(), [this](std::uint32_t a, std::uint32_t b) {
            return offsets_[a] != offsets_[b] ? offsets_[a] < offsets_[b] : a < b;
        });
        for (std::size_t i = 1; i < order.size(); ++i) {
            const TensorView& before = tensors[order[i - 1]];
            const std::uint64_t end = offsets_[order[i - 1]] + before.bytes();
            if (offsets_[order[i]] < end)
                cursor_.refuse_field(
                    {"offset", "tensor", tensors[order[i]].name},
                    "at least " + std::to_string(end) + ", the end of tensor " + printable(before.name),
                    offsets_[order[i]]);
        }
    }

    std::span<const std::byte> bytes_;
    Cursor cursor_;
    std::uint64_t tensors_ = 0;
    std::uint64_t keys_ = 0;
    ParsedFile parsed_;
    std::vector<std::uint64_t> offsets_;
};

}  // namespace detail

/// Parses one file's bytes. `bytes` must outlive the result; `file` is its name for messages.
inline ParsedFile parse_file(std::span<const std::byte> bytes, const std::string& file) {
    return detail::Parser(bytes, file).run();
}

}  // namespace gg::gguf
