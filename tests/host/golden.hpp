// The goldens of tests/data/model (made by tests/reference), models in memory that a test may change, and how
// far a model is from its golden.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>
#include <new>
#include <nlohmann/json.hpp>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "gg/model/session.hpp"

namespace host_test {

/// What float32 may differ from float64 in a log-probability.
inline constexpr double median_bound = 2.5e-6, max_bound = 2.5e-5;

inline std::filesystem::path golden_folder() {
    return std::filesystem::path(GG_TEST_DATA) / "model";
}
inline std::filesystem::path golden_model(const std::string& name) {
    return golden_folder() / (name + ".gguf");
}

/// Tokens and what the model says of them, natural logarithms in float64.
struct Golden {
    struct Row {
        int position;                 ///< of the token that the row follows
        std::vector<double> logprob;  ///< [vocabulary]
    };
    std::string family;
    std::vector<std::int32_t> tokens;
    std::vector<double> logprob;  ///< of tokens 1, 2, ...
    std::vector<Row> rows;        ///< none in the long files
};

inline Golden read_golden(const std::string& name) {
    std::ifstream in(golden_folder() / (name + ".json"));
    if (!in) throw std::runtime_error("no golden " + name + ".json");
    const auto json = nlohmann::json::parse(in);
    Golden golden{json.at("family"), json.at("tokens"), json.at("logprob"), {}};
    if (golden.logprob.size() + 1 != golden.tokens.size())
        throw std::runtime_error(name + ".json: as many log-probabilities as tokens but one are needed");
    for (const auto& row : json.value("rows", nlohmann::json::array()))
        golden.rows.push_back({row.at("position"), row.at("logprob")});
    return golden;
}

/// A model file in memory, aligned as a mapping is and exactly as long as the file, whose bytes may be
/// changed.
class ModelBytes {
  public:
    explicit ModelBytes(std::span<const std::byte> bytes, const std::string& name = "test.gguf")
        : memory_(static_cast<std::byte*>(::operator new(bytes.size(), alignment))),
          file_(gg::gguf::File::parse(copy(bytes), name)) {}
    explicit ModelBytes(const std::string& golden) : ModelBytes(read(golden_model(golden))) {}

    const gg::gguf::File& file() const { return file_; }
    std::span<std::byte> tensor(const std::string& name) {
        const gg::TensorView& view = file_.require_tensor(name);
        return writable({view.data, static_cast<std::size_t>(view.bytes())});
    }
    /// The value of a key in the file.
    std::span<std::byte> value(const std::string& key) {
        const gg::gguf::Value* value = file_.find(key);
        if (!value) throw std::runtime_error("no key " + key);
        return writable(value->bytes());
    }

  private:
    static constexpr std::align_val_t alignment{64};
    struct Free {
        void operator()(std::byte* p) const { ::operator delete(p, alignment); }
    };

    static std::vector<std::byte> read(const std::filesystem::path& path) {
        std::vector<std::byte> bytes(std::filesystem::file_size(path));
        std::ifstream(path, std::ios::binary)
            .read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
        return bytes;
    }
    std::span<const std::byte> copy(std::span<const std::byte> bytes) {
        std::memcpy(memory_.get(), bytes.data(), bytes.size());
        return {memory_.get(), bytes.size()};
    }
    std::span<std::byte> writable(std::span<const std::byte> part) {
        return {memory_.get() + (part.data() - memory_.get()), part.size()};
    }

    std::unique_ptr<std::byte[], Free> memory_;
    gg::gguf::File file_;
};

/// gg::host::load_model. Defined in golden_test.cpp, so that the kernels are compiled once in this program.
std::unique_ptr<gg::Model> load(const gg::gguf::File& file, int threads = 1);

/// Appends tokens; the logits after the last one.
inline std::span<const float> logits_after(gg::Session& session, std::span<const std::int32_t> tokens) {
    session.prefill(tokens);
    return session.logits();
}

/// Differences of log-probabilities; infinite where one is not a number.
class Differences {
  public:
    void add(double found, double expected) {
        const double difference = std::abs(found - expected);
        all_.push_back(std::isnan(difference) ? std::numeric_limits<double>::infinity() : difference);
    }
    std::size_t count() const { return all_.size(); }
    double max() const { return all_.empty() ? 0.0 : *std::max_element(all_.begin(), all_.end()); }
    double median() const {
        if (all_.empty()) return 0.0;
        std::vector<double> sorted = all_;
        const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2);
        std::nth_element(sorted.begin(), middle, sorted.end());
        return *middle;
    }

  private:
    std::vector<double> all_;
};

struct Comparison {
    Differences next;  ///< of the tokens that come next
    Differences rows;  ///< of whole rows
};

/// Scores the golden's tokens.
inline Comparison compare(const gg::Model& model, const Golden& golden) {
    const auto session = model.session(static_cast<int>(golden.tokens.size()));
    Comparison result;
    session->score(golden.tokens, [&](int position, std::span<const float> logits) {
        const double top = *std::max_element(logits.begin(), logits.end());
        double total = 0.0;
        for (const float logit : logits) total += std::exp(logit - top);
        const double normaliser = top + std::log(total);
        const auto next = static_cast<std::size_t>(position) + 1;
        if (next < golden.tokens.size())
            result.next.add(logits[static_cast<std::size_t>(golden.tokens[next])] - normaliser,
                            golden.logprob[next - 1]);
        for (const Golden::Row& row : golden.rows) {
            if (row.position != position) continue;
            if (row.logprob.size() != logits.size()) throw std::runtime_error("a row of another vocabulary");
            for (std::size_t i = 0; i < logits.size(); ++i)
                result.rows.add(logits[i] - normaliser, row.logprob[i]);
        }
    });
    return result;
}

}  // namespace host_test
