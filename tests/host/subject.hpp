// What tests of sessions share: a golden's model with its tokens, comparing bits, and options of drawing.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "golden.hpp"

namespace host_test {

/// Logits after every token of a sequence, row after row.
using Logits = std::vector<float>;

inline void append(Logits& all, std::span<const float> row) {
    all.insert(all.end(), row.begin(), row.end());
}

inline bool same_bits(std::span<const float> a, std::span<const float> b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

/// A golden's model and tokens.
struct Subject {
    explicit Subject(const std::string& name, int threads = 1)
        : bytes(name), tokens(read_golden(name).tokens), model(load(bytes.file(), threads)) {}

    int length() const { return static_cast<int>(tokens.size()); }
    std::size_t vocabulary() const { return static_cast<std::size_t>(model->info().dims.vocabulary); }
    std::span<const std::int32_t> part(int first, int count) const {
        return std::span(tokens).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count));
    }
    std::span<const float> row(const Logits& all, int position) const {
        return std::span(all).subspan(static_cast<std::size_t>(position) * vocabulary(), vocabulary());
    }
    std::unique_ptr<gg::Session> session() const { return model->session(length()); }

    ModelBytes bytes;
    std::vector<std::int32_t> tokens;
    std::unique_ptr<gg::Model> model;
};

/// One model of each family, and windows that slide.
inline const std::vector<std::string> families = {"gpt2-half", "llama-320", "gpt-oss-mxfp4",
                                                  "gpt-oss-window"};

inline bool contains(const std::string& text, const std::vector<std::string>& parts) {
    return std::all_of(parts.begin(), parts.end(),
                       [&](const std::string& part) { return text.find(part) != text.npos; });
}

/// Draws widely, and remembers.
inline const gg::text::SamplerOptions hot{.temperature = 3.0F,
                                          .top_k = 0,
                                          .top_p = 1.0F,
                                          .min_p = 0.0F,
                                          .repeat_penalty = 1.5F,
                                          .repeat_window = 30,
                                          .seed = 11};
inline bool is_even(std::int32_t id) {
    return id % 2 == 0;
}

/// Draws ids and appends them, by a call each.
inline std::vector<std::int32_t> reply(gg::Session& session, int count) {
    std::vector<std::int32_t> ids;
    for (int i = 0; i < count; ++i) {
        ids.push_back(session.sample());
        session.prefill({&ids.back(), 1});
    }
    return ids;
}

}  // namespace host_test
