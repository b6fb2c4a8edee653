// One wrong byte, table entry, sink, bias, pairing, window or factor is seen: the goldens' comparison fails.
// The errors are put into a copy of the file in memory.
#include "golden.hpp"

#include <array>
#include <functional>

#include "catch.hpp"

using namespace host_test;

namespace {

/// Changes a golden's file and says how far its log-probabilities go.
double change(const std::string& name, const std::function<void(ModelBytes&)>& edit) {
    ModelBytes bytes(name);
    edit(bytes);
    const Comparison found = compare(*load(bytes.file()), read_golden(name));
    return std::max(found.next.max(), found.rows.max());
}

template <class T>
T read(std::span<const std::byte> bytes) {
    T value;
    REQUIRE(bytes.size() == sizeof(T));
    std::memcpy(&value, bytes.data(), sizeof(T));
    return value;
}
template <class T>
void write(std::span<std::byte> bytes, T value) {
    REQUIRE(bytes.size() == sizeof(T));
    std::memcpy(bytes.data(), &value, sizeof(T));
}

/// Flips the sign of a float, or the top bits of two codes, in the middle of a tensor.
void flip_byte(ModelBytes& model, const std::string& name) {
    const gg::TensorView& tensor = model.file().require_tensor(name);
    const gg::DTypeInfo& type = gg::info(tensor.type);
    const auto bytes = model.tensor(name);
    const std::size_t block = bytes.size() / 2 / type.bytes * type.bytes;
    const std::size_t codes = type.elements == 1    ? type.bytes - 1
                              : type.elements == 32 ? type.bytes - 5
                                                    : 100;
    bytes[block + codes] ^= std::byte{type.elements == 1 ? std::uint8_t{0x80} : std::uint8_t{0x88}};
}

/// Of MXFP4 blocks, the byte whose two weights are largest: few tokens come by some experts.
std::byte& heaviest_byte(std::span<std::byte> blocks) {
    const auto magnitude = [](unsigned code) {
        return std::array{0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0}[code & 7u];
    };
    std::size_t best = 0;
    double most = -1.0;
    for (std::size_t i = 0; i < blocks.size(); ++i) {
        if (i % 17 == 0) continue;
        const auto scale = std::to_integer<int>(blocks[i / 17 * 17]);
        const auto byte = std::to_integer<unsigned>(blocks[i]);
        const double weight = std::ldexp(magnitude(byte) + magnitude(byte >> 4), scale - 127);
        if (weight > most) most = weight, best = i;
    }
    return blocks[best];
}

bool ends_with(const std::string& text, const std::string& end) {
    return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

/// Names of a golden's tensors that end so.
std::vector<std::string> tensors_ending(const std::string& name, const std::string& end) {
    std::vector<std::string> names;
    const ModelBytes bytes(name);
    for (const gg::TensorView& tensor : bytes.file().tensors())
        if (ends_with(tensor.name, end)) names.push_back(tensor.name);
    return names;
}

void zero(std::span<std::byte> bytes) {
    std::fill(bytes.begin(), bytes.end(), std::byte{0});
}

/// Moves the rows of each head from one pairing of the rotary embedding to the other: with `to_adjacent`, row
/// i goes to 2i and row i + head_dim / 2 to 2i + 1; without, back.
void permute_heads(std::span<std::byte> rows, std::size_t row_bytes, std::size_t head_dim, bool to_adjacent) {
    const std::vector<std::byte> old(rows.begin(), rows.end());
    REQUIRE(rows.size() % (row_bytes * head_dim) == 0);
    for (std::size_t row = 0; row < rows.size() / row_bytes; ++row) {
        const std::size_t head = row / head_dim, half_split = row % head_dim;
        const std::size_t half = head_dim / 2;
        const std::size_t adjacent = half_split < half ? 2 * half_split : 2 * (half_split - half) + 1;
        const std::size_t from = head * head_dim + (to_adjacent ? half_split : adjacent);
        const std::size_t to = head * head_dim + (to_adjacent ? adjacent : half_split);
        std::memcpy(rows.data() + to * row_bytes, old.data() + from * row_bytes, row_bytes);
    }
}

void swap_pairing(ModelBytes& model, int layer, int head_dim, bool to_adjacent) {
    const std::string prefix = "blk." + std::to_string(layer) + ".";
    for (const char* stem : {"attn_q", "attn_k"}) {
        const std::string weight = prefix + stem + ".weight", bias = prefix + stem + ".bias";
        const auto width = static_cast<std::size_t>(head_dim);
        const auto row_bytes = static_cast<std::size_t>(model.file().require_tensor(weight).row_bytes());
        permute_heads(model.tensor(weight), row_bytes, width, to_adjacent);
        if (model.file().tensor(bias)) permute_heads(model.tensor(bias), sizeof(float), width, to_adjacent);
    }
}

}  // namespace

TEST_CASE("an unchanged copy passes") {
    for (const char* name : {"gpt2-f32", "llama-f32", "gpt-oss-mxfp4", "gpt-oss-320"})
        CHECK(change(name, [](ModelBytes&) {}) <= max_bound);
}

TEST_CASE("a flipped byte of any weight is seen") {
    // Among them every kind of tensor: dense, expert, router, norm, embedding, head; and every type.
    for (const char* name :
         {"gpt2-blocks", "gpt2-f32", "llama-320", "llama-k", "llama-half", "gpt-oss-mxfp4", "gpt-oss-k"}) {
        for (const std::string& tensor : tensors_ending(name, ".weight")) {
            if (tensor == "token_embd.weight" || tensor == "position_embd.weight") continue;  // below
            CAPTURE(name, tensor);
            CHECK(change(name, [&](ModelBytes& model) { flip_byte(model, tensor); }) > max_bound);
        }
    }
}

TEST_CASE("a flipped byte of an embedding row in use is seen") {
    for (const char* name : {"gpt2-f32", "llama-f32", "gpt-oss-mxfp4"}) {
        const auto token = static_cast<std::size_t>(read_golden(name).tokens[3]);
        CHECK(change(name, [&](ModelBytes& model) {
                  const auto bytes = model.tensor("token_embd.weight");
                  const auto row_bytes =
                      static_cast<std::size_t>(model.file().require_tensor("token_embd.weight").row_bytes());
                  bytes[token * row_bytes + 23] ^= std::byte{0x80};
              }) > max_bound);
    }
    CHECK(change("gpt2-f32", [](ModelBytes& model) {
              const auto row_bytes =
                  static_cast<std::size_t>(model.file().require_tensor("position_embd.weight").row_bytes());
              model.tensor("position_embd.weight")[5 * row_bytes + 23] ^= std::byte{0x80};
          }) > max_bound);
}

TEST_CASE("a flipped byte of any one expert is seen") {
    for (const char* matrix : {"gate", "up", "down"}) {
        const std::string tensor = std::string("blk.1.ffn_") + matrix + "_exps.weight";
        for (std::size_t expert = 0; expert < 5; ++expert) {
            CAPTURE(tensor, expert);
            CHECK(change("gpt-oss-mxfp4", [&](ModelBytes& model) {
                      const auto all = model.tensor(tensor);
                      heaviest_byte(all.subspan(expert * all.size() / 5, all.size() / 5)) ^= std::byte{0x88};
                  }) > max_bound);
        }
    }
}

TEST_CASE("a changed entry of the FP4 table is seen") {
    // Code c decoded as the neighbour that it differs from in the lowest bit, in one tensor.
    for (unsigned code = 0; code < 16; ++code) {
        CAPTURE(code);
        CHECK(change("gpt-oss-mxfp4", [&](ModelBytes& model) {
                  const auto bytes = model.tensor("blk.0.ffn_up_exps.weight");
                  const auto recode = [code](unsigned c) { return c == code ? c ^ 1u : c; };
                  for (std::size_t i = 0; i < bytes.size(); ++i) {
                      if (i % 17 == 0) continue;  // the scale
                      const auto byte = std::to_integer<unsigned>(bytes[i]);
                      bytes[i] = static_cast<std::byte>(recode(byte & 15u) | recode(byte >> 4) << 4);
                  }
              }) > max_bound);
    }
}

TEST_CASE("a scale off by one step is seen") {
    CHECK(change("gpt-oss-mxfp4", [](ModelBytes& model) {
              std::byte& scale = model.tensor("blk.0.ffn_down_exps.weight")[7 * 17];
              scale = static_cast<std::byte>(std::to_integer<unsigned>(scale) + 1);
          }) > max_bound);
}

TEST_CASE("a dropped sink is seen") {
    for (const char* name : {"gpt-oss-mxfp4", "gpt-oss-window"})
        for (const std::string& tensor : tensors_ending(name, "attn_sinks.weight"))
            for (std::size_t head = 0; head < 4; ++head) {
                CAPTURE(name, tensor, head);
                CHECK(change(name, [&](ModelBytes& model) {
                          write(model.tensor(tensor).subspan(head * sizeof(float), sizeof(float)), -1e30f);
                      }) > max_bound);
            }
}

TEST_CASE("a dropped bias is seen") {
    for (const char* name : {"gpt2-f32", "gpt-oss-mxfp4"}) {
        const std::vector<std::string> biases = tensors_ending(name, ".bias");
        CHECK(biases.size() == (name == std::string("gpt2-f32") ? 2u * 6 + 1 : 2u * 8));
        for (const std::string& tensor : biases) {
            CAPTURE(name, tensor);
            CHECK(change(name, [&](ModelBytes& model) { zero(model.tensor(tensor)); }) > max_bound);
        }
    }
}

TEST_CASE("a dropped third of GPT-2's fused bias is seen, unless the softmax removes it") {
    for (const char* tensor : {"blk.0.attn_qkv.bias", "blk.1.attn_qkv.bias"})
        for (std::size_t third = 0; third < 3; ++third) {
            CAPTURE(tensor, third);
            const double difference = change("gpt2-f32", [&](ModelBytes& model) {
                const auto bytes = model.tensor(tensor);
                zero(bytes.subspan(third * bytes.size() / 3, bytes.size() / 3));
            });
            // The bias of k adds the same amount, q . b, to every score of a row.
            if (third == 1)
                CHECK(difference <= max_bound);
            else
                CHECK(difference > max_bound);
        }
}

TEST_CASE("a swapped pairing of the rotary embedding is seen") {
    for (int layer = 0; layer < 2; ++layer) {
        CHECK(change("llama-f32", [&](ModelBytes& model) { swap_pairing(model, layer, 8, false); }) >
              max_bound);
        CHECK(change("llama-320", [&](ModelBytes& model) { swap_pairing(model, layer, 16, false); }) >
              max_bound);
        CHECK(change("gpt-oss-mxfp4", [&](ModelBytes& model) { swap_pairing(model, layer, 16, true); }) >
              max_bound);
    }
    // There and back again is no change.
    CHECK(change("llama-f32", [](ModelBytes& model) {
              swap_pairing(model, 0, 8, false);
              swap_pairing(model, 0, 8, true);
          }) <= max_bound);
}

TEST_CASE("a window off by one is seen") {
    for (const char* name : {"gpt-oss-mxfp4", "gpt-oss-320", "gpt-oss-half", "gpt-oss-window"})
        for (const int by : {1, -1}) {
            CAPTURE(name, by);
            CHECK(change(name, [&](ModelBytes& model) {
                      const auto value = model.value("gpt-oss.attention.sliding_window");
                      write(value, read<std::uint32_t>(value) + static_cast<std::uint32_t>(by));
                  }) > max_bound);
        }
}

TEST_CASE("a layer that slides and should not, or should and does not, is seen") {
    for (std::size_t layer = 0; layer < 3; ++layer)
        CHECK(change("gpt-oss-half", [&](ModelBytes& model) {
                  const auto flag = model.value("gpt-oss.attention.sliding_window_pattern")
                                        .subspan(layer * sizeof(std::int32_t), sizeof(std::int32_t));
                  write(flag, 1 - read<std::int32_t>(flag));
              }) > max_bound);
}

TEST_CASE("changed parameters of YaRN are seen") {
    const auto changed = [](const char* name, const char* key, float value) {
        return change(name, [&](ModelBytes& model) { write(model.value(key), value); });
    };
    CHECK(changed("gpt-oss-mxfp4", "gpt-oss.rope.scaling.factor", 33.0f) > max_bound);
    CHECK(changed("gpt-oss-mxfp4", "gpt-oss.rope.freq_base", 151000.0f) > max_bound);
    CHECK(changed("gpt-oss-half", "gpt-oss.rope.scaling.yarn_beta_fast", 64.0f) > max_bound);
    CHECK(changed("gpt-oss-half", "gpt-oss.rope.scaling.yarn_beta_slow", 2.5f) > max_bound);
    CHECK(change("gpt-oss-mxfp4", [](ModelBytes& model) {
              write(model.value("gpt-oss.rope.scaling.original_context_length"), std::uint32_t{8192});
          }) > max_bound);
}

TEST_CASE("a changed epsilon is seen") {
    CHECK(change("gpt2-f32", [](ModelBytes& model) {
              write(model.value("gpt2.attention.layer_norm_epsilon"), 1e-3f);
          }) > max_bound);
    CHECK(change("llama-f32", [](ModelBytes& model) {
              write(model.value("llama.attention.layer_norm_rms_epsilon"), 1e-3f);
          }) > max_bound);
}
