// The probabilities that a reference model gives after each counted token of a text, in a file, so that
// other models (its quantisations) can be compared with it: the Kullback-Leibler divergence of whole
// distributions sees what the probability of the one right token does not.
//
// Format, little-endian, no padding:
//   8 bytes  "gg-refer"         u32  version, 1
//   u32      vocabulary         u32  window, u32 advance, u32 skip (gg/model/perplexity.hpp)
//   i32      the token that begins each window in place of the text's, or -1
//   u64      windows            string  SHA-256 of the model, string  its name; a string is u64 length, bytes
//   i32      the text's tokens, as many as the windows span
//   then a row for each counted token, in order:
//   f64      log p of the token that came
//   u32      id of the likeliest token
//   u16      for each id of the vocabulary a code c: log p lies 32 (c / 65535)^2 below the likeliest
//
// So a row takes 12 + 2 * vocabulary bytes: 16 KB with 8000 tokens, 402 KB with 201088. Codes are exact where
// the probability is; what they are off by, at most sqrt(32 d) / 65535 at depth d, 9e-5 at d = 1, moves a
// mean divergence by less than 1e-6 nats, as errors have either sign and the row is normalised anew. Depths
// beyond 32 become 32; all of them together have less than 3e-9 of the probability.
//
// Errors: gg::Error. model_load_failed for a file that is not a reference, is cut short or damaged, or is of
// another text, window or vocabulary, naming the field; what writing throws is that of gguf::OutputFile.
#pragma once

#include <cmath>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "gg/gguf/cursor.hpp"
#include "gg/gguf/mapped_file.hpp"
#include "gg/gguf/output_file.hpp"
#include "gg/model/perplexity.hpp"

namespace gg {

/// What a comparison must share with its reference.
struct ReferenceText {
    Windows windows;
    std::size_t count = 0;  ///< windows
    int vocabulary = 0;
    std::int32_t beginning = -1;           ///< the token that replaces each window's first; -1: none
    std::span<const std::int32_t> tokens;  ///< windows.span(count) of them

    std::size_t rows() const { return count * static_cast<std::size_t>(windows.counted()); }
};

/// The model that made a reference.
struct ReferenceModel {
    std::string sha256, name;
};

namespace detail {

inline constexpr std::string_view reference_magic = "gg-refer";
inline constexpr std::uint32_t reference_version = 1;
inline constexpr double deepest = 32;

/// Depth of each code.
inline const std::vector<float>& code_depths() {
    static const std::vector<float> depths = [] {
        std::vector<float> table(65536);
        for (std::size_t c = 0; c < table.size(); ++c) {
            const double root = static_cast<double>(c) / 65535;
            table[c] = static_cast<float>(deepest * root * root);
        }
        return table;
    }();
    return depths;
}

inline std::uint16_t depth_code(double depth) {
    if (!(depth < deepest)) return 65535;
    return static_cast<std::uint16_t>(std::lround(65535 * std::sqrt(depth / deepest)));
}

template <class T>
std::span<const std::byte> bytes_of(const T& value) {
    return std::as_bytes(std::span(&value, 1));
}

}  // namespace detail

/// Writes a reference row after row; it appears under its name when commit() is called, complete.
class ReferenceWriter {
  public:
    ReferenceWriter(const std::filesystem::path& path, const ReferenceText& text, const ReferenceModel& model)
        : file_(path), left_(text.rows()) {
        const Windows& w = text.windows;
        file_.write(std::as_bytes(std::span(detail::reference_magic)));
        for (const int number : {static_cast<int>(detail::reference_version), text.vocabulary, w.window,
                                 w.advance, w.skip, static_cast<int>(text.beginning)})
            file_.write(detail::bytes_of(number));
        file_.write(detail::bytes_of(std::uint64_t{text.count}));
        for (const std::string& words : {model.sha256, model.name}) {
            file_.write(detail::bytes_of(std::uint64_t{words.size()}));
            file_.write(std::as_bytes(std::span(words)));
        }
        file_.write(std::as_bytes(text.tokens));
    }

    /// The next counted token: the logits [vocabulary] before it, their log_sum, and the token that came.
    void add(std::span<const float> logits, double log_total, std::int32_t next) {
        if (left_-- == 0) throw Error(ErrorCode::internal, "more rows than the reference's text has");
        const auto top = std::max_element(logits.begin(), logits.end());
        codes_.resize(logits.size());
        for (std::size_t i = 0; i < logits.size(); ++i)
            codes_[i] = detail::depth_code(static_cast<double>(*top) - logits[i]);
        file_.write(detail::bytes_of(logits[static_cast<std::size_t>(next)] - log_total));
        file_.write(detail::bytes_of(static_cast<std::uint32_t>(top - logits.begin())));
        file_.write(std::as_bytes(std::span(codes_)));
    }

    /// Gives the file its name. All rows must have been added.
    void commit() {
        if (left_ != 0) throw Error(ErrorCode::internal, "fewer rows than the reference's text has");
        file_.commit();
    }

  private:
    gguf::OutputFile file_;
    std::size_t left_;
    std::vector<std::uint16_t> codes_;
};

/// How a model's distribution differs from the reference's after one token.
struct Divergence {
    double kl = 0;                 ///< sum_i p_i log(p_i / q_i), p the reference's and q the model's; nats
    double reference_logprob = 0;  ///< of the token that came
    bool same_top = false;         ///< both have the same likeliest token
};

/// An opened reference that fits a text.
class ReferenceFile {
  public:
    /// Refuses a file that is not the reference of exactly this text.
    ReferenceFile(const std::filesystem::path& path, const ReferenceText& text)
        : file_(gguf::MappedFile::open(path)), name_(path.string()), vocabulary_(text.vocabulary) {
        gguf::Cursor cursor(file_.bytes(), name_);
        require_magic(cursor);
        require(cursor, "version", static_cast<int>(detail::reference_version));
        require(cursor, "vocabulary", text.vocabulary);
        require(cursor, "window", text.windows.window);
        require(cursor, "advance", text.windows.advance);
        require(cursor, "skip", text.windows.skip);
        require(cursor, "token that begins each window", text.beginning);
        const gguf::Field windows{.part = "windows"};
        if (const auto found = cursor.read<std::uint64_t>(windows); found != text.count)
            cursor.refuse_field(windows, std::to_string(text.count), std::to_string(found), other);
        model_.sha256 = cursor.read_string(64, {.part = "SHA-256 of the model"});
        model_.name = cursor.read_string(4096, {.part = "name of the model"});
        for (std::size_t i = 0; i < text.tokens.size(); ++i) require(cursor, "token", text.tokens[i], i);
        if (const std::uint64_t expected = text.rows() * row_bytes(); cursor.left() != expected)
            cursor.refuse_field({.part = "file size"},
                                std::to_string(cursor.position() + expected) + " bytes",
                                std::to_string(file_.bytes().size()), "It is damaged: make it again.");
        rows_ = cursor.here();
        count_ = text.rows();
    }

    const ReferenceModel& model() const { return model_; }

    /// Compares row `row` with the logits [vocabulary] of a model at the same place and their log_sum.
    Divergence compare(std::size_t row, std::span<const float> logits, double log_total) {
        if (row >= count_ || logits.size() != static_cast<std::size_t>(vocabulary_))
            throw Error(ErrorCode::internal, "a row that the reference does not have");
        const std::byte* at = rows_ + row * row_bytes();
        Divergence result;
        std::uint32_t top = 0;
        std::memcpy(&result.reference_logprob, at, 8);
        std::memcpy(&top, at + 8, 4);
        codes_.resize(static_cast<std::size_t>(vocabulary_));
        std::memcpy(codes_.data(), at + 12, 2 * codes_.size());
        if (!(result.reference_logprob <= 0) || std::isinf(result.reference_logprob) ||
            top >= codes_.size() || codes_[top] != 0)
            refuse({.file = name_,
                    .field = "row " + std::to_string(row),
                    .expected = "a distribution",
                    .found = "a log-probability or likeliest token that is none",
                    .next_step = "It is damaged: make it again."});
        result.same_top = std::max_element(logits.begin(), logits.end()) - logits.begin() == top;
        result.kl = divergence(logits, log_total);
        return result;
    }

  private:
    static constexpr const char* other =
        "It is the reference of another text or of other options: use those, or make one anew.";

    std::uint64_t row_bytes() const { return 12 + 2 * static_cast<std::uint64_t>(vocabulary_); }

    static void require_magic(gguf::Cursor& cursor) {
        const gguf::Field field{.part = "magic"};
        const auto* bytes = reinterpret_cast<const char*>(cursor.take(detail::reference_magic.size(), field));
        const std::string_view found(bytes, detail::reference_magic.size());
        if (found != detail::reference_magic)
            cursor.refuse_field(field, std::string(detail::reference_magic), gguf::printable(found),
                                "Make a reference with gg perplexity --save-reference.");
    }

    static void require(gguf::Cursor& cursor, const char* name, std::int32_t expected,
                        std::uint64_t index = gguf::Field::none) {
        const gguf::Field field = index == gguf::Field::none
                                      ? gguf::Field{.part = name}
                                      : gguf::Field{.part = {}, .of = name, .index = index};
        if (const auto found = cursor.read<std::int32_t>(field); found != expected)
            cursor.refuse_field(field, std::to_string(expected), std::to_string(found), other);
    }

    /// With depths d and Z = sum exp(-d): p = exp(-d) / Z, so KL = sum p (-d - log q) - log Z.
    double divergence(std::span<const float> logits, double log_total) const {
        const std::vector<float>& depths = detail::code_depths();
        double z = 0, weighted = 0;
        for (std::size_t i = 0; i < codes_.size(); ++i) {
            const double depth = depths[codes_[i]], mass = std::exp(-depth);
            z += mass;
            weighted += mass * (log_total - logits[i] - depth);
        }
        return weighted / z - std::log(z);
    }

    gguf::MappedFile file_;
    std::string name_;
    int vocabulary_;
    ReferenceModel model_;
    const std::byte* rows_ = nullptr;
    std::size_t count_ = 0;
    std::vector<std::uint16_t> codes_;
};

}  // namespace gg
