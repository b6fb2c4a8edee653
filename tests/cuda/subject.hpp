// A model on the GPU that a test asks, and tokens for it.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "cuda/model.hpp"
#include "refusal.hpp"

namespace cuda_test {

using gg_test::refusal;

struct Subject {
    explicit Subject(const std::filesystem::path& path,
                     gg::cuda::Launches launches = gg::cuda::Launches::early_graph,
                     const std::vector<std::string>& compile_options = {})
        : file(gg::gguf::File::open(path)), model(load(file, launches, compile_options)) {}
    Subject(const std::filesystem::path& path, gg::cuda::LoadOptions options)
        : file(gg::gguf::File::open(path)), model(load(file, std::move(options))) {}
    Subject(const Subject&) = delete;
    Subject& operator=(const Subject&) = delete;

    int vocabulary() const { return model->info().dims.vocabulary; }
    std::unique_ptr<gg::Session> session(int context) const { return model->session(context); }
    /// Tokens in no order, others for another seed.
    std::vector<std::int32_t> tokens(int count, unsigned seed = 1) const {
        std::vector<std::int32_t> ids;
        for (unsigned state = seed * 2654435761u; std::ssize(ids) < count;) {
            state = state * 1664525u + 1013904223u;
            ids.push_back(static_cast<std::int32_t>((state >> 8) % static_cast<unsigned>(vocabulary())));
        }
        return ids;
    }

    gg::gguf::File file;
    std::unique_ptr<gg::Model> model;
};

/// Tokens in pieces of the given sizes, the last one again and again.
inline std::vector<std::span<const std::int32_t>> pieces_of(std::span<const std::int32_t> tokens,
                                                            const std::vector<int>& sizes) {
    std::vector<std::span<const std::int32_t>> pieces;
    while (!tokens.empty()) {
        const auto size = static_cast<std::size_t>(sizes[std::min(pieces.size(), sizes.size() - 1)]);
        pieces.push_back(tokens.first(std::min(size, tokens.size())));
        tokens = tokens.subspan(pieces.back().size());
    }
    return pieces;
}

inline bool same_bits(std::span<const float> a, std::span<const float> b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

}  // namespace cuda_test
