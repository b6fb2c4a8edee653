// Model files whose keys or tensors do not fit their architecture: each is refused, naming the file, the key
// or tensor, what was expected and what was found. Made from the goldens by changing one thing.
#include <functional>
#include <limits>
#include <map>
#include <set>

#include "gg/gguf/writer.hpp"
#include "gg/host/load.hpp"
#include "gguf/raw.hpp"
#include "gguf/temporary_folder.hpp"
#include "host/golden.hpp"

using gguf_test::check_refusal;
using gguf_test::refusal;
using host_test::golden_model;
using host_test::ModelBytes;

namespace {

constexpr const char* file_name = "variant.gguf";

/// A golden's file with other keys and tensors.
class Variant {
  public:
    struct Tensor {
        gg::DType type;
        std::vector<std::uint64_t> shape;
        std::vector<std::byte> bytes;
    };

    explicit Variant(const std::string& golden)
        : file_(std::make_shared<gg::gguf::File>(gg::gguf::File::open(golden_model(golden)))) {
        for (const gg::TensorView& view : file_->tensors())
            tensors_.emplace_back(view.name,
                                  Tensor{view.type,
                                         {view.shape.begin(), view.shape.begin() + view.dimensions},
                                         {view.data, view.data + view.bytes()}});
    }

    template <class T>
    Variant& set(const std::string& key, const T& value) {
        removed_.erase(key);
        changes_[key] = [key, value](gg::gguf::Writer& writer) { writer.set(key, value); };
        return *this;
    }
    Variant& remove(const std::string& key) {
        changes_.erase(key);
        removed_.insert(key);
        return *this;
    }
    Variant& remove_tensor(const std::string& name) {
        tensors_.erase(at(name));
        return *this;
    }
    Variant& add_tensor(const std::string& name, gg::DType type, const std::vector<std::uint64_t>& shape) {
        tensors_.emplace_back(name, Tensor{type, shape, {}});
        return retype(name, type, shape);
    }
    /// Another type and shape, and zeros for data.
    Variant& retype(const std::string& name, gg::DType type, const std::vector<std::uint64_t>& shape) {
        std::uint64_t elements = 1;
        for (const std::uint64_t n : shape) elements *= n;
        const gg::DTypeInfo& info = gg::info(type);
        at(name)->second = {type, shape, std::vector<std::byte>(elements / info.elements * info.bytes)};
        return *this;
    }
    Variant& rename(const std::string& name, const std::string& other) {
        at(name)->first = other;
        return *this;
    }
    Tensor& tensor(const std::string& name) { return at(name)->second; }
    std::vector<std::string> tensor_names() const {
        std::vector<std::string> names;
        for (const auto& [name, tensor] : tensors_) names.push_back(name);
        return names;
    }

    std::vector<std::byte> bytes() const {
        gg::gguf::Writer writer;
        for (const gg::gguf::Entry& entry : file_->metadata())
            if (const std::string key(entry.key); !removed_.count(key) && !changes_.count(key))
                writer.set(key, entry.value);
        for (const auto& [key, change] : changes_) change(writer);
        for (const auto& [name, tensor] : tensors_)
            writer.add_tensor(name, tensor.type, tensor.shape, std::span<const std::byte>(tensor.bytes));
        return writer.bytes();
    }

  private:
    using Named = std::pair<std::string, Tensor>;
    std::vector<Named>::iterator at(const std::string& name) {
        const auto found = std::find_if(tensors_.begin(), tensors_.end(),
                                        [&](const Named& tensor) { return tensor.first == name; });
        if (found == tensors_.end()) throw std::runtime_error("no tensor " + name);
        return found;
    }

    std::shared_ptr<const gg::gguf::File> file_;
    std::vector<Named> tensors_;
    std::map<std::string, std::function<void(gg::gguf::Writer&)>> changes_;
    std::set<std::string> removed_;
};

/// Loads a variant and computes a token.
void load(const Variant& variant) {
    const ModelBytes bytes(variant.bytes(), file_name);
    const auto model = gg::host::load_model(bytes.file(), {.threads = 1});
    const std::int32_t token = 1;
    const auto session = model->session(1);
    for (const float logit : host_test::logits_after(*session, {&token, 1})) REQUIRE(std::isfinite(logit));
}

gg::Mismatch check_refused(const Variant& variant, const std::string& field, const std::string& expected,
                           const std::string& found) {
    CAPTURE(field);
    return check_refusal([&] { load(variant); }, file_name, field, expected, found);
}

/// A family's golden and its keys, without the prefix.
struct FamilyCase {
    std::string architecture, golden;
    std::vector<std::string> integers, numbers;                    ///< required
    std::vector<std::string> optional_integers, optional_numbers;  ///< checked if they are there

    std::string key(const std::string& name) const { return architecture + "." + name; }
};

const std::vector<FamilyCase>& families() {
    static const std::vector<FamilyCase> all = {
        {"gpt2",
         "gpt2-f32",
         {"block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count"},
         {"attention.layer_norm_epsilon"},
         {"attention.head_count_kv", "attention.key_length", "attention.value_length"},
         {}},
        {"llama",
         "llama-f32",
         {"block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count"},
         {"attention.layer_norm_rms_epsilon"},
         {"attention.head_count_kv", "attention.key_length", "attention.value_length",
          "rope.dimension_count"},
         {"rope.freq_base"}},
        {"gpt-oss",
         "gpt-oss-mxfp4",
         {"block_count", "context_length", "embedding_length", "attention.head_count", "expert_count",
          "expert_used_count", "rope.scaling.original_context_length", "attention.sliding_window"},
         {"attention.layer_norm_rms_epsilon", "rope.scaling.factor"},
         {"attention.head_count_kv", "attention.key_length", "attention.value_length",
          "expert_feed_forward_length", "rope.dimension_count", "attention.sliding_window_pattern"},
         {"rope.freq_base", "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow"}},
    };
    return all;
}

std::vector<std::string> joined(std::vector<std::string> a, const std::vector<std::string>& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
}

}  // namespace

TEST_CASE("an unchanged variant loads") {
    for (const FamilyCase& family : families()) {
        const Variant variant(family.golden);
        REQUIRE_NOTHROW(load(variant));
        const ModelBytes golden(family.golden), copy(variant.bytes());
        CHECK(gg::describe_model(copy.file()).parameters == gg::describe_model(golden.file()).parameters);
    }
}

TEST_CASE("a required key that is missing is named") {
    for (const FamilyCase& family : families()) {
        for (const std::string& name : joined(family.integers, family.numbers)) {
            const std::string kind =
                family.numbers.end() == std::find(family.numbers.begin(), family.numbers.end(), name)
                    ? "an integer"
                    : "a number";
            check_refused(Variant(family.golden).remove(family.key(name)), "key " + family.key(name), kind,
                          "no such key");
        }
        check_refused(Variant(family.golden).remove("general.architecture"), "key general.architecture",
                      "a string", "no such key");
    }
    Variant no_width("gpt-oss-mxfp4");
    no_width.remove("gpt-oss.expert_feed_forward_length").remove("gpt-oss.feed_forward_length");
    check_refused(no_width, "key gpt-oss.feed_forward_length", "an integer", "no such key");
    check_refused(Variant("gpt-oss-mxfp4").remove("gpt-oss.rope.scaling.type"),
                  "key gpt-oss.rope.scaling.type", "yarn", "none");
}

TEST_CASE("an integer key of the wrong type or out of range is refused") {
    const auto refused = [](const FamilyCase& family, const std::string& name, const auto& value,
                            const std::string& expected, const std::string& found) {
        check_refused(Variant(family.golden).set(family.key(name), value), "key " + family.key(name),
                      expected, found);
    };
    for (const FamilyCase& family : families())
        for (const std::string& name : joined(family.integers, family.optional_integers)) {
            refused(family, name, std::string("12"), "an integer", "string \"12\"");
            refused(family, name, 12.0f, "an integer", "f32 12");
            refused(family, name, true, "an integer", "bool true");
            refused(family, name, std::int32_t{-1}, "an integer", "i32 -1");
            refused(family, name, std::uint32_t{0}, "an integer from 1 to", "0");
            refused(family, name, std::uint32_t{0xFFFFFFFF}, "an integer from 1 to", "4294967295");
            refused(family, name, std::uint64_t{1} << 63, "an integer from 1 to", "9223372036854775808");
            refused(family, name, std::numeric_limits<std::int64_t>::min(), "an integer",
                    "i64 -9223372036854775808");
            if (name != "attention.sliding_window_pattern")
                refused(family, name, std::vector<std::uint32_t>{1, 2}, "an integer", "array of 2 u32");
        }
}

TEST_CASE("a number of the wrong type, not finite or not positive is refused") {
    const auto refused = [](const FamilyCase& family, const std::string& name, const auto& value,
                            const std::string& found) {
        check_refused(Variant(family.golden).set(family.key(name), value), "key " + family.key(name),
                      "a number", found);
    };
    for (const FamilyCase& family : families())
        for (const std::string& name : joined(family.numbers, family.optional_numbers)) {
            refused(family, name, std::string("1"), "string \"1\"");
            refused(family, name, std::uint32_t{1}, "u32 1");
            refused(family, name, true, "bool true");
            refused(family, name, std::vector<float>{1.0f}, "array of 1 f32");
            refused(family, name, 0.0f, "0");
            refused(family, name, -0.0f, "-0");
            refused(family, name, -1.5f, "-1.5");
            refused(family, name, std::numeric_limits<float>::quiet_NaN(), "nan");
            refused(family, name, std::numeric_limits<double>::quiet_NaN(), "nan");
            refused(family, name, std::numeric_limits<float>::infinity(), "inf");
            refused(family, name, -std::numeric_limits<double>::infinity(), "-inf");
        }
}

TEST_CASE("numbers that no model has do not reach the arithmetic") {
    for (const FamilyCase& family : families()) {
        for (const double value : {1e300, 1e30, 2.0})
            check_refused(Variant(family.golden).set(family.key(family.numbers[0]), value),
                          "key " + family.key(family.numbers[0]), "a number", "");
        // As a float32 it would be 0.
        check_refused(Variant(family.golden).set(family.key(family.numbers[0]), 1e-300),
                      "key " + family.key(family.numbers[0]), "a number", "");
        if (family.architecture == "gpt2") continue;
        for (const double value : {1.0, 0.5, 1e-300, 1e300})
            check_refused(Variant(family.golden).set(family.key("rope.freq_base"), value),
                          "key " + family.key("rope.freq_base"), "a number", "");
    }
    for (const double value : {0.5, 1e-300, 1e300})
        check_refused(Variant("gpt-oss-mxfp4").set("gpt-oss.rope.scaling.factor", value),
                      "key gpt-oss.rope.scaling.factor", "a number", "");
    // The band between the two numbers of turns would be empty or reversed.
    check_refused(Variant("gpt-oss-mxfp4").set("gpt-oss.rope.scaling.yarn_beta_fast", 0.5f),
                  "key gpt-oss.rope.scaling.yarn_beta_fast", "yarn_beta_slow, 1", "0.5");
}

TEST_CASE("integers within range that contradict the tensors are refused") {
    const auto refused = [](const FamilyCase& family, const std::string& name, std::uint32_t value,
                            const std::string& tensor, const std::string& expected,
                            const std::string& found) {
        check_refused(Variant(family.golden).set(family.key(name), value), "tensor " + tensor, expected,
                      found);
    };
    const auto blocks = [](const FamilyCase& family, std::uint32_t count, const std::string& expected,
                           const std::string& found) {
        check_refused(Variant(family.golden).set(family.key("block_count"), count), "tensors", expected,
                      found);
    };
    for (const FamilyCase& family : families()) {
        blocks(family, 3, "every tensor", "missing: blk.2.attn_norm.weight");
        blocks(family, 4096, "every tensor", "missing: blk.2.attn_norm.weight");
        blocks(family, 1, "only those", "surplus: blk.1.attn_norm.weight");
    }
    const FamilyCase &gpt2 = families()[0], &llama = families()[1], &oss = families()[2];
    refused(gpt2, "embedding_length", 96, "token_embd.weight", "[96, 97]", "[48, 97]");
    refused(gpt2, "context_length", 65, "position_embd.weight", "[48, 65]", "[48, 64]");
    refused(gpt2, "context_length", 1u << 24, "position_embd.weight", "[48, 16777216]", "[48, 64]");
    refused(gpt2, "feed_forward_length", 52, "blk.0.ffn_up.weight", "[48, 52]", "[48, 51]");
    refused(gpt2, "attention.head_count_kv", 1, "blk.0.attn_qkv.weight", "[48, 80]", "[48, 144]");
    refused(gpt2, "attention.key_length", 1u << 12, "blk.0.attn_qkv.weight", "[48, 36864]", "[48, 144]");
    refused(llama, "attention.head_count_kv", 2, "blk.0.attn_k.weight", "[48, 16]", "[48, 24]");
    refused(llama, "feed_forward_length", 1u << 24, "blk.0.ffn_gate.weight", "[48, 16777216]", "[48, 51]");
    refused(oss, "embedding_length", 1u << 20, "token_embd.weight", "[1048576, 97]", "[64, 97]");
    refused(oss, "attention.head_count", 3, "blk.0.attn_q.weight", "[64, 48]", "[64, 96]");
    refused(oss, "attention.head_count_kv", 1, "blk.0.attn_k.weight", "[64, 16]", "[64, 48]");
    refused(oss, "expert_count", 6, "blk.0.ffn_gate_inp.weight", "[64, 6]", "[64, 5]");
    refused(oss, "expert_feed_forward_length", 96, "blk.0.ffn_gate_exps.weight", "[64, 96, 5]",
            "[64, 64, 5]");

    // Keys that agree with each other, and not with the tensors.
    Variant wide("llama-f32");
    wide.set("llama.attention.key_length", std::uint32_t{16})
        .set("llama.rope.dimension_count", std::uint32_t{16});
    check_refused(wide, "tensor blk.0.attn_q.weight", "[48, 96]", "[48, 48]");
    Variant wider("llama-f32");
    wider.set("llama.embedding_length", std::uint32_t{96})
        .set("llama.rope.dimension_count", std::uint32_t{16});
    check_refused(wider, "tensor token_embd.weight", "[96, 97]", "[48, 97]");
}

TEST_CASE("keys that contradict each other are refused") {
    for (const FamilyCase& family : families()) {
        const auto with = [&](const std::string& name, std::uint32_t value) {
            return Variant(family.golden).set(family.key(name), value);
        };
        const std::string kv = "key " + family.key("attention.head_count_kv");
        const std::string heads = family.architecture == "gpt2" ? "3" : "6";
        check_refused(with("attention.head_count_kv", 4), kv, "a divisor of head_count " + heads, "4");
        check_refused(with("attention.head_count_kv", 12), kv, "a divisor of head_count " + heads, "12");
        const std::string width =
            family.architecture == "gpt-oss" || family.architecture == "gpt2" ? "16" : "8";
        check_refused(with("attention.value_length", 24), "key " + family.key("attention.value_length"),
                      width, "24");
        if (family.architecture == "gpt2") continue;
        Variant odd(family.golden);
        odd.set(family.key("attention.key_length"), std::uint32_t{15});
        odd.set(family.key("attention.value_length"), std::uint32_t{15});
        check_refused(odd, "key " + family.key("attention.key_length"), "even", "15");
        check_refused(with("rope.dimension_count", 4), "key " + family.key("rope.dimension_count"), width,
                      "4");
        check_refused(with("rope.dimension_count", 64), "key " + family.key("rope.dimension_count"), width,
                      "64");
    }
    for (const char* golden : {"gpt2-f32", "llama-f32"}) {
        const std::string prefix = std::string(golden).substr(0, std::string(golden).find('-')) + ".";
        check_refused(Variant(golden).set(prefix + "attention.head_count", std::uint32_t{9}),
                      "key " + prefix + "attention.head_count", "a divisor of embedding_length 48", "9");
    }
}

TEST_CASE("what the layer type does not compute is refused") {
    const std::string type = "llama.rope.scaling.type";
    for (const char* scaling : {"linear", "yarn", "longrope", ""}) {
        check_refused(Variant("llama-f32").set(type, scaling), "key " + type, "none", scaling);
        check_refused(
            Variant("gpt-oss-mxfp4")
                .set("gpt-oss.rope.scaling.type", scaling == std::string("yarn") ? "none" : scaling),
            "key gpt-oss.rope.scaling.type", "yarn", scaling == std::string("yarn") ? "none" : scaling);
    }
    check_refused(Variant("llama-f32").set(type, std::uint32_t{0}), "key " + type, "a string", "u32 0");
    CHECK_NOTHROW(load(Variant("llama-f32").set(type, "none")));
    // A factor without a type means linear scaling.
    check_refused(Variant("llama-f32").set("llama.rope.scaling.factor", 4.0f),
                  "key llama.rope.scaling.factor", "1", "4");
    check_refused(Variant("llama-f32").set("llama.rope.scale_linear", 4.0f), "key llama.rope.scale_linear",
                  "1", "4");
    CHECK_NOTHROW(load(Variant("llama-f32").set("llama.rope.scaling.factor", 1.0f)));
    const auto experts = check_refused(Variant("llama-f32").set("llama.expert_count", std::uint32_t{8}),
                                       "key llama.expert_count", "0 or no such key", "mixture of experts");
    CHECK(experts.next_step.find("gpt-oss") != std::string::npos);
    check_refused(Variant("llama-f32").set("llama.expert_count", "8"), "key llama.expert_count", "an integer",
                  "string \"8\"");
    CHECK_NOTHROW(load(Variant("llama-f32").set("llama.expert_count", std::uint32_t{0})));
}

TEST_CASE("more experts used than there are is refused") {
    check_refused(Variant("gpt-oss-mxfp4").set("gpt-oss.expert_used_count", std::uint32_t{6}),
                  "key gpt-oss.expert_used_count", "1 to 5", "6");
    CHECK_NOTHROW(load(Variant("gpt-oss-mxfp4").set("gpt-oss.expert_used_count", std::uint32_t{5})));
}

TEST_CASE("the pattern of sliding layers") {
    const std::string key = "gpt-oss.attention.sliding_window_pattern";
    const auto sliding = [&](const auto& value) {
        const ModelBytes bytes(Variant("gpt-oss-half").set(key, value).bytes());
        return gg::describe_model(bytes.file()).dims.sliding;
    };
    using Flags = std::vector<bool>;
    CHECK(sliding(std::vector<std::uint32_t>{1, 0, 0}) == Flags{true, false, false});
    CHECK(sliding(std::vector<std::int32_t>{0, 1, 1}) == Flags{false, true, true});
    CHECK(sliding(Flags{true, true, false}) == Flags{true, true, false});
    CHECK(sliding(std::uint32_t{1}) == Flags{false, false, false});
    CHECK(sliding(std::uint32_t{2}) == Flags{true, false, true});
    CHECK(sliding(std::uint32_t{3}) == Flags{true, true, false});
    const ModelBytes absent(Variant("gpt-oss-half").remove(key).bytes());
    CHECK(gg::describe_model(absent.file()).dims.sliding == Flags{true, false, true});

    const auto refused = [&](const auto& value, const std::string& expected, const std::string& found) {
        check_refused(Variant("gpt-oss-half").set(key, value), "key " + key, expected, found);
    };
    refused(std::vector<std::uint32_t>{1, 0}, "each of 3 layers", "2");
    refused(std::vector<std::uint32_t>{1, 0, 1, 0}, "each of 3 layers", "4");
    refused(Flags{true}, "each of 3 layers", "1");
    refused(std::vector<std::uint32_t>{}, "each of 3 layers", "0");
    refused(std::vector<std::string>{"a", "b", "c"}, "integer", "array of 3 string");
    refused(std::vector<float>{1, 0, 1}, "integer", "array of 3 f32");
    refused(std::vector<std::int32_t>{1, -1, 1}, "integer", "array of 3 i32");
}

TEST_CASE("an architecture that gg does not have is refused") {
    const std::string field = "key general.architecture", known = "gpt2, gpt-oss, llama";
    for (const char* name : {"mamba", "", "Llama", "gpt-oss ", "llama4"}) {
        const gg::Mismatch mismatch = check_refused(Variant("llama-f32").set("general.architecture", name),
                                                    field, known, "\"" + std::string(name) + "\"");
        CHECK(mismatch.next_step.empty());
    }
    const gg::Mismatch old = check_refused(Variant("gpt-oss-mxfp4").set("general.architecture", "gptoss"),
                                           field, known, "\"gptoss\"");
    CHECK(old.next_step.find("MXFP4") != std::string::npos);
    CHECK(old.next_step.find("39") != std::string::npos);
    check_refused(Variant("llama-f32").set("general.architecture", std::uint32_t{1}), field, "a string",
                  "u32 1");
    // The keys of another architecture are not this one's.
    check_refused(Variant("llama-f32").set("general.architecture", "gpt2"), "key gpt2.block_count",
                  "an integer", "no such key");
}

TEST_CASE("every tensor of the wrong shape is refused") {
    for (const FamilyCase& family : families()) {
        const Variant original(family.golden);
        for (const std::string& name : original.tensor_names()) {
            Variant scratch(family.golden);
            const Variant::Tensor& tensor = scratch.tensor(name);
            for (std::size_t d = 0; d <= tensor.shape.size() && d < 4; ++d) {
                std::vector<std::uint64_t> shape = tensor.shape;
                if (d == shape.size())
                    shape.push_back(2);
                else
                    shape[d] += d == 0 ? gg::info(tensor.type).elements : 1;
                Variant variant(family.golden);
                variant.retype(name, tensor.type, shape);
                CAPTURE(name, d);
                // One row more in the embedding is one token more: the head does not fit, unless it is the
                // embedding.
                const bool more_tokens = name == "token_embd.weight" && d == 1;
                if (more_tokens && family.architecture == "gpt2") {
                    CHECK_NOTHROW(load(variant));
                    continue;
                }
                const gg::Mismatch mismatch = refusal([&] { load(variant); });
                CHECK(mismatch.file == file_name);
                if (more_tokens) {
                    CHECK(mismatch.field == "tensor output.weight");
                    CHECK(mismatch.expected.find("98]") != std::string::npos);
                    continue;
                }
                CHECK(mismatch.field == "tensor " + name);
                CHECK(mismatch.expected.find("shape [" + std::to_string(tensor.shape[0])) == 0);
                CHECK(mismatch.found.find("[" + std::to_string(shape[0])) == 0);
                CHECK(mismatch.expected.find(mismatch.found) == std::string::npos);
            }
        }
    }
    // Dimensions of 1 at the end say nothing.
    CHECK_NOTHROW(load(Variant("llama-f32").retype("output_norm.weight", gg::DType::f32, {48, 1, 1})));
    check_refused(Variant("llama-f32").retype("blk.0.attn_k.weight", gg::DType::f32, {24, 48}),
                  "tensor blk.0.attn_k.weight", "[48, 24]", "[24, 48]");
}

TEST_CASE("a missing tensor is named, whichever it is") {
    for (const FamilyCase& family : families()) {
        for (const std::string& name : Variant(family.golden).tensor_names()) {
            CAPTURE(name);
            const Variant variant = Variant(family.golden).remove_tensor(name);
            if (name == "output.weight" && family.architecture != "gpt-oss") {
                CHECK_NOTHROW(load(variant));  // then the embedding is the head
            } else if (name == "token_embd.weight") {
                check_refused(variant, "tensor token_embd.weight", "a tensor of this name", "none among");
            } else {
                const gg::Mismatch mismatch =
                    check_refused(variant, "tensors", "every tensor of the architecture", "1 missing: ");
                CHECK(mismatch.found == "1 missing: " + name);
            }
        }
    }
}

TEST_CASE("missing and surplus tensors are listed by name, all at once") {
    Variant two("llama-f32");
    two.remove_tensor("blk.0.ffn_up.weight").remove_tensor("blk.1.attn_norm.weight");
    CHECK(check_refused(two, "tensors", "every tensor", "missing").found ==
          "2 missing: blk.0.ffn_up.weight, blk.1.attn_norm.weight");

    Variant many("llama-f32");
    for (const std::string& name : Variant("llama-f32").tensor_names())
        if (name.find("blk.") == 0 && name != "blk.1.ffn_up.weight") many.remove_tensor(name);
    const std::string found = check_refused(many, "tensors", "every tensor", "17 missing: blk.0.").found;
    CHECK(found.find("and 5 more") != std::string::npos);

    Variant surplus("llama-f32");
    surplus.add_tensor("rope_freqs.weight", gg::DType::f32, {4})
        .add_tensor("blk.0.attn_q.bias", gg::DType::f32, {48})
        .add_tensor("blk.7.attn_norm.weight", gg::DType::f32, {48});
    CHECK(check_refused(surplus, "tensors", "only those", "surplus").found ==
          "3 surplus: rope_freqs.weight, blk.0.attn_q.bias, blk.7.attn_norm.weight");

    // A tensor under another name is both.
    const gg::Mismatch renamed = refusal([] {
        load(Variant("gpt-oss-mxfp4").rename("blk.0.post_attention_norm.weight", "blk.0.ffn_norm.weight"));
    });
    CHECK(renamed.found.find("1 missing: blk.0.post_attention_norm.weight") != std::string::npos);
    CHECK(renamed.found.find("1 surplus: blk.0.ffn_norm.weight") != std::string::npos);

    for (const char* golden : {"gpt2-f32", "gpt-oss-mxfp4"})
        CHECK(check_refused(Variant(golden).add_tensor("blk.1.extra", gg::DType::f32, {3}), "tensors",
                            "only those", "surplus")
                  .found == "1 surplus: blk.1.extra");
}

TEST_CASE("vectors of a quantised type are refused, of a float type accepted") {
    for (const char* golden : {"gpt2-blocks", "llama-320", "gpt-oss-mxfp4"}) {
        Variant original(golden);
        for (const std::string& name : original.tensor_names()) {
            const bool vector = name.find("norm") != name.npos || name.find("bias") != name.npos ||
                                name.find("sinks") != name.npos;
            const std::vector<std::uint64_t> shape = original.tensor(name).shape;
            if (!vector) continue;
            CAPTURE(golden, name);
            if (shape[0] % 32 == 0) {
                for (const gg::DType type : {gg::DType::q8_0, gg::DType::mxfp4})
                    check_refused(Variant(golden).retype(name, type, shape), "tensor " + name,
                                  "F32, F16 or BF16", std::string(gg::info(type).name));
            }
            for (const gg::DType type : {gg::DType::f16, gg::DType::bf16})
                CHECK_NOTHROW(load(Variant(golden).retype(name, type, shape)));
        }
    }
}

TEST_CASE("a block whose scale is not a number is refused by tensor and block") {
    const std::string name = "blk.1.ffn_up_exps.weight";
    const std::size_t blocks = Variant("gpt-oss-mxfp4").tensor(name).bytes.size() / 17;
    for (const std::size_t block : {std::size_t{0}, std::size_t{123}, blocks - 1}) {
        Variant variant("gpt-oss-mxfp4");
        variant.tensor(name).bytes[block * 17] = std::byte{254};
        variant.tensor("blk.1.ffn_down_exps.weight").bytes[17] = std::byte{0};
        const ModelBytes accepted(variant.bytes());
        CHECK_NOTHROW(gg::host::load_model(accepted.file(), {.threads = 1}));
        variant.tensor(name).bytes[block * 17] = std::byte{255};
        check_refused(variant, "tensor " + name + ", block " + std::to_string(block),
                      "an E8M0 scale from 0 to 254", "255");
    }
    // A dense MXFP4 matrix likewise.
    Variant dense("llama-320");
    dense.tensor("blk.0.ffn_up.weight").bytes[17 * 3] = std::byte{255};
    check_refused(dense, "tensor blk.0.ffn_up.weight, block 3", "an E8M0 scale", "255");
}

TEST_CASE("a file cut off after it was loaded is refused before anything is computed") {
    const gguf_test::TemporaryFolder folder;
    for (const FamilyCase& family : families()) {
        const std::filesystem::path path = folder / (family.golden + ".gguf");
        std::filesystem::copy_file(golden_model(family.golden), path);
        const auto file = gg::gguf::File::open(path);
        const auto model = gg::host::load_model(file, {.threads = 1});
        const auto session = model->session(16);
        const std::vector<std::int32_t> tokens = {1, 2, 3};
        session->prefill(tokens);
        const std::uintmax_t size = std::filesystem::file_size(path);
        for (const std::uintmax_t now : {std::uintmax_t{0}, size / 2, size - 1}) {
            std::filesystem::resize_file(path, now);
            check_refusal([&] { session->prefill(tokens); }, path.string(), "file size",
                          std::to_string(size) + " bytes", std::to_string(now) + " bytes");
            check_refusal(
                [&] { session->score(tokens, [](int, std::span<const float>) { FAIL("it computed"); }); },
                path.string(), "file size", std::to_string(size) + " bytes", std::to_string(now) + " bytes");
            CHECK(session->position() == 3);
        }
    }
}
