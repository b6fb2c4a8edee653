// A model file: metadata by key and tensors by name, read in place from a GGUF file or from all parts of a
// split one. Opening maps the files and checks their structure; no tensor byte is read.
//
// Errors: gg::Error, model_load_failed, naming the file, the field, what was expected and what was found.
#pragma once

#include <cstring>
#include <optional>

#include "gg/gguf/mapped_file.hpp"
#include "gg/gguf/split.hpp"

namespace gg::gguf {

/// One file of a model on disk.
struct Part {
    std::filesystem::path path;
    std::span<const std::byte> bytes;  ///< the whole file, mapped
};

/// A parsed GGUF model. Everything it hands out is a view of the mapped files and lives as long as they do,
/// through moves of the File.
class File {
  public:
    /// Maps and checks a file, and if it is the first part of a split model, all the others.
    static File open(const std::filesystem::path& path) {
        File file;
        file.name_ = path.string();
        file.mappings_.push_back(MappedFile::open(path));
        const std::span<const std::byte> bytes = file.mappings_[0].bytes();
        ParsedFile parsed = parse_file(bytes, file.name_);
        const SplitInfo split = split_info(parsed, file.name_);
        file.take(std::move(parsed), bytes.size());
        if (split.number != 0)
            refuse({.file = file.name_,
                    .field = "key split.no",
                    .expected = "0, the first part of the model",
                    .found = std::to_string(split.number),
                    .next_step = "Open " + split_path(path, split, 0).string() + " instead."});
        if (split.count > 1) file.open_parts(path, split);
        file.tensors_by_name_ = index_by_name(file.tensors_, name_of);
        file.require_unique_tensors();
        file.require_tensor_count(split);
        return file;
    }

    /// Parses bytes that stay the caller's and must outlive the File; `name` stands for a path in messages.
    /// Split models are not followed. For aligned tensors, begin the bytes at a multiple of 32.
    static File parse(std::span<const std::byte> bytes, std::string name) {
        File file;
        file.name_ = std::move(name);
        file.take(parse_file(bytes, file.name_), bytes.size());
        file.tensors_by_name_ = index_by_name(file.tensors_, name_of);
        return file;
    }

    /// The path it was opened by, or the name given to parse().
    const std::string& name() const { return name_; }
    std::uint32_t version() const { return first_.version; }
    /// Alignment of tensor data within the file, bytes.
    std::uint32_t alignment() const { return first_.alignment; }
    /// Size of all parts together.
    std::uint64_t bytes() const { return bytes_; }
    /// All keys in the order of the (first) file.
    const std::vector<Entry>& metadata() const { return first_.metadata; }
    /// All tensors in the order of the files.
    const std::vector<TensorView>& tensors() const { return tensors_; }
    /// The files on disk; none for parsed bytes.
    std::vector<Part> parts() const {
        std::vector<Part> parts;
        for (const MappedFile& file : mappings_) parts.push_back({file.path(), file.bytes()});
        return parts;
    }
    /// The mapped files themselves, for advice about reading.
    const std::vector<MappedFile>& mappings() const { return mappings_; }

    /// Refuses, naming the part, if a file's size has changed since it was opened. One fstat a part.
    void require_whole() const {
        for (const MappedFile& file : mappings_) file.require_whole();
    }

    /// Copies bytes of a tensor, from the file where there is one. Refuses a file that was cut short or
    /// cannot be read. Thread-safe.
    void read(const std::byte* from, std::size_t bytes, std::byte* to) const {
        for (const MappedFile& file : mappings_)
            if (file.holds(from)) return file.read(from, bytes, to);
        std::memcpy(to, from, bytes);
    }

    /// The value of a key, or nullptr.
    const Value* find(std::string_view key) const { return first_.find(key); }

    /// A required value; see Value::as for T. Refuses a missing key, another type, a number that does not
    /// fit.
    template <class T>
    T get(std::string_view key) const {
        if (const std::optional<T> value = get_if<T>(key)) return *value;
        refuse({.file = name_,
                .field = "key " + printable(key),
                .expected = detail::type_text<T>(),
                .found = "no such key"});
    }

    /// The value of a key that may be absent. Refuses another type and a number that does not fit.
    template <class T>
    std::optional<T> get_if(std::string_view key) const {
        const Value* value = find(key);
        if (!value) return {};
        if (std::optional<T> converted = value->as<T>()) return converted;
        refuse({.file = name_,
                .field = "key " + printable(key),
                .expected = detail::type_text<T>(),
                .found = value->describe()});
    }

    /// The tensor with a name, or nullptr.
    const TensorView* tensor(std::string_view name) const {
        return find_by_name(tensors_, tensors_by_name_, name, name_of);
    }

    /// The tensor with a name; refuses the file if it has none.
    const TensorView& require_tensor(std::string_view name) const {
        if (const TensorView* found = tensor(name)) return *found;
        refuse({.file = name_,
                .field = "tensor " + printable(name),
                .expected = "a tensor of this name",
                .found = "none among " + std::to_string(tensors_.size()) + " tensors"});
    }

    File(File&&) = default;
    File& operator=(File&&) = default;

  private:
    File() = default;

    void take(ParsedFile parsed, std::uint64_t bytes) {
        tensors_ = std::move(parsed.tensors);
        bytes_ = bytes;
        first_ = std::move(parsed);
    }

    void open_parts(const std::filesystem::path& path, const SplitInfo& split) {
        for (std::uint32_t number = 1; number < split.count; ++number) {
            const std::filesystem::path part_path = split_path(path, split, number);
            const std::string part_name = part_path.string();
            if (std::error_code ignored; !std::filesystem::exists(part_path, ignored))
                refuse({.file = part_name,
                        .field = "part " + std::to_string(number + 1) + " of " + std::to_string(split.count),
                        .expected = "the file beside " + name_,
                        .found = "no such file",
                        .next_step = "Get all parts of the model into one folder."});
            mappings_.push_back(MappedFile::open(part_path));
            ParsedFile part = parse_file(mappings_.back().bytes(), part_name);
            require_part(first_, split, part, part_name, number);
            for (TensorView& tensor : part.tensors) tensors_.push_back(std::move(tensor));
            bytes_ += mappings_.back().bytes().size();
        }
    }

    void require_unique_tensors() const {
        for (std::size_t i = 1; i < tensors_by_name_.size(); ++i) {
            const TensorView& tensor = tensors_[tensors_by_name_[i]];
            if (tensor.name != tensors_[tensors_by_name_[i - 1]].name) continue;
            refuse({.file = file_of(tensor),
                    .field = "tensor " + printable(tensor.name) + ": name",
                    .expected = "each name in one part",
                    .found = "it in an earlier part too",
                    .next_step = "The parts are not of one model: get all parts of one model."});
        }
    }

    void require_tensor_count(const SplitInfo& split) const {
        if (tensors_.size() == split.tensors) return;
        refuse({.file = name_,
                .field = "key split.tensors.count",
                .expected = std::to_string(tensors_.size()) + ", the tensors in its " +
                            std::to_string(split.count) + " parts",
                .found = std::to_string(split.tensors)});
    }

    /// The path of the part that holds a tensor's data.
    std::string file_of(const TensorView& tensor) const {
        for (const MappedFile& file : mappings_) {
            const std::span<const std::byte> bytes = file.bytes();
            if (tensor.data >= bytes.data() && tensor.data < bytes.data() + bytes.size())
                return file.path().string();
        }
        return name_;
    }

    std::string name_;
    std::vector<MappedFile> mappings_;
    ParsedFile first_;  ///< its tensors have moved to tensors_
    std::vector<TensorView> tensors_;
    NameIndex tensors_by_name_;
    std::uint64_t bytes_ = 0;
};

}  // namespace gg::gguf
