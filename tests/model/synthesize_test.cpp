// Models of random weights: they load, compute sane logits, and are a function of the seed alone.
#include "gg/model/synthesize.hpp"

#include <unistd.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <map>

#include "catch.hpp"
#include "gg/format/visit.hpp"
#include "gg/host/load.hpp"
#include "gg/text/tokenizer.hpp"
#include "gguf/temporary_folder.hpp"

using namespace gg;

namespace {

/// The preset's kind of model, small.
SyntheticModel shrink(SyntheticModel model) {
    Dims& dims = model.dims;
    dims.layers = 3;
    dims.hidden = 64;
    dims.head_dim = dims.experts > 0 ? 32 : 16;
    dims.heads = 4;
    dims.kv_heads = dims.kv_heads == 12 ? 4 : 2;
    if (dims.feed_forward > 0) dims.feed_forward = 160;
    if (dims.experts > 0) {
        dims.experts = 5;
        dims.experts_used = 2;
        dims.expert_feed_forward = 96;
        dims.window = 8;
        dims.sliding = {true, false, true};
    }
    dims.vocabulary = 301;
    dims.context = 77;
    return model;
}

template <class Family>
std::vector<std::byte> file_of(const SyntheticModel& model, std::uint64_t seed, int threads) {
    host::ThreadPool pool(threads);
    gguf::Writer writer;
    set_synthetic_metadata<Family>(writer, model);
    set_synthetic_vocabulary(writer, model);
    std::uint64_t told = 0, elements = 0;
    const std::vector<SyntheticTensor> tensors = synthetic_tensors<Family>(model);
    for (const SyntheticTensor& tensor : tensors) elements += tensor.view.elements();
    add_synthetic_tensors(writer, tensors, seed, pool, [&](std::uint64_t filled) { told += filled; });
    std::vector<std::byte> bytes = writer.bytes();
    CHECK(told == elements);
    return bytes;
}

struct Moments {
    double mean = 0, deviation = 0;
};

template <class Values>
Moments moments(const Values& values) {
    double sum = 0, square = 0;
    for (const auto value : values) {
        sum += value;
        square += static_cast<double>(value) * value;
    }
    const auto n = static_cast<double>(values.size());
    return {sum / n, std::sqrt(square / n - sum / n * (sum / n))};
}

/// All values of a tensor as filled piece by piece.
std::vector<float> values_of(const SyntheticTensor& tensor, std::uint64_t seed) {
    std::vector<std::byte> bytes;
    host::ThreadPool pool(1);
    write_synthetic(tensor, seed, pool, {}, [&](std::span<const std::byte> piece) {
        bytes.insert(bytes.end(), piece.begin(), piece.end());
    });
    REQUIRE(bytes.size() == tensor.view.bytes());
    std::vector<float> values(tensor.view.elements());
    format::decode_row(tensor.view.type, bytes.data(), values.size(), values.data());
    return values;
}

SyntheticTensor tensor_of(DType type, std::vector<std::uint64_t> shape, double mean, double deviation) {
    SyntheticTensor tensor{{.name = "t", .type = type}, mean, deviation, 3};
    for (const std::uint64_t n : shape)
        tensor.view.shape[static_cast<std::size_t>(tensor.view.dimensions++)] = n;
    return tensor;
}

}  // namespace

TEST_CASE("a synthetic model of each family loads and has sane logits") {
    gguf_test::TemporaryFolder folder;
    for (const char* name : {"gpt-oss-20b", "gpt2", "smollm2-135m"})
        for (const DType dense : {DType::q8_0, DType::f16, DType::bf16})
            with_synthetic_preset(name, [&](auto family, SyntheticModel model) {
                CAPTURE(name, info(dense).name);
                using Family = decltype(family);
                model = shrink(model);
                model.dense = dense;
                const std::vector<std::byte> bytes = file_of<Family>(model, 7, 1);
                CHECK(bytes == file_of<Family>(model, 7, 3));
                CHECK(bytes != file_of<Family>(model, 8, 1));

                const std::string path = folder / "m.gguf";
                gguf::OutputFile out(path);
                out.write(bytes);
                out.commit();
                const auto file = gguf::File::open(path);
                const Dims dims = Family::read_dims(file);
                CHECK(dims.layers == model.dims.layers);
                CHECK(dims.head_dim == model.dims.head_dim);
                CHECK(dims.kv_heads == model.dims.kv_heads);
                CHECK(dims.feed_forward == model.dims.feed_forward);
                CHECK(dims.experts == model.dims.experts);
                CHECK(dims.experts_used == model.dims.experts_used);
                CHECK(dims.expert_feed_forward == model.dims.expert_feed_forward);
                CHECK(dims.vocabulary == model.dims.vocabulary);
                CHECK(dims.context == model.dims.context);
                CHECK(dims.window == model.dims.window);
                CHECK(dims.sliding == model.dims.sliding);
                CHECK(dims.norm_epsilon == model.dims.norm_epsilon);
                CHECK(dims.rope_base == model.dims.rope_base);
                CHECK(dims.yarn_factor == model.dims.yarn_factor);
                CHECK(dims.yarn_original_context == model.dims.yarn_original_context);

                const auto tokenizer = text::Tokenizer::from_gguf(file);
                CHECK(tokenizer.size() == 301);
                CHECK(tokenizer.decode(tokenizer.encode("Ab \xC3\xA4")) == "Ab \xC3\xA4");
                CHECK(tokenizer.is_sampleable(255));
                CHECK_FALSE(tokenizer.is_sampleable(256));

                const auto loaded = host::load_model(file, {.threads = 1});
                const auto session = loaded->session(20);
                std::vector<std::int32_t> tokens;
                for (int i = 0; i < 20; ++i) tokens.push_back(i * 97 % 301);
                std::vector<float> logits;
                session->score(tokens, [&](int, std::span<const float> row) {
                    logits.insert(logits.end(), row.begin(), row.end());
                });
                REQUIRE(logits.size() == 20 * 301);
                for (const float logit : logits) REQUIRE(std::isfinite(logit));
                // The head's gain 2 times the norm's sqrt(1 + 1/16) is 2.06.
                const Moments all = moments(logits);
                CAPTURE(all.mean, all.deviation);
                CHECK(std::abs(all.mean) < 0.5);
                CHECK(all.deviation > 1.4);
                CHECK(all.deviation < 3);
                // Rows of different tokens differ.
                CHECK(std::memcmp(logits.data(), logits.data() + 301, 301 * sizeof(float)) != 0);
            });
}

TEST_CASE("synthetic values have the mean and the deviation that were asked for") {
    for (const DType type : {DType::f32, DType::f16, DType::bf16, DType::q8_0, DType::mxfp4})
        for (const double deviation : {0.011, 0.0186, 0.25, 0.33}) {
            CAPTURE(info(type).name, deviation);
            const double mean = info(type).elements == 1 ? 1.0 : 0.0;
            // More than one piece, the last one short.
            const SyntheticTensor tensor = tensor_of(type, {2880, 51}, mean, deviation);
            const std::vector<float> values = values_of(tensor, 5);
            const Moments found = moments(values);
            const auto n = static_cast<double>(values.size());
            // Five standard errors of the mean; rounding to the type moves it by at most half an ulp of 2.
            const double rounding = type == DType::bf16 ? 0x1p-8 : type == DType::f16 ? 0x1p-11 : 0;
            CHECK(std::abs(found.mean - mean) < 5 * deviation / std::sqrt(n) + mean * rounding);
            // Scales that differ by block spread the squares: 3 % is more than five standard errors, and
            // holds the half step of BF16 at 1 and of the share of exponents.
            CHECK(std::abs(found.deviation / deviation - 1) < 0.03);
            // No two pieces repeat, and neither seed nor tensor is ignored.
            CHECK(std::memcmp(values.data(), values.data() + 65536, 4096) != 0);
            SyntheticTensor other = tensor;
            other.number = 4;
            CHECK(values_of(other, 5) != values);
            CHECK(values_of(tensor, 6) != values);
        }
}

TEST_CASE("a synthetic tensor of several batches is the same for any number of threads") {
    // Two whole batches of 2^22 elements and a bit.
    const SyntheticTensor tensor = tensor_of(DType::mxfp4, {2880, 2920}, 0, 0.02);
    const auto bytes_with = [&](int threads) {
        std::vector<std::byte> bytes;
        host::ThreadPool pool(threads);
        std::uint64_t told = 0;
        write_synthetic(
            tensor, 9, pool, [&](std::uint64_t filled) { told += filled; },
            [&](std::span<const std::byte> piece) { bytes.insert(bytes.end(), piece.begin(), piece.end()); });
        CHECK(told == tensor.view.elements());
        return bytes;
    };
    const std::vector<std::byte> one = bytes_with(1);
    REQUIRE(one.size() == tensor.view.bytes());
    CHECK(one == bytes_with(3));
    // The whole at once is what the pieces are.
    std::vector<std::byte> whole(tensor.view.bytes());
    fill_synthetic(synthetic_recipe(tensor, 9), 0, tensor.view.elements(), whole.data());
    CHECK(one == whole);
}

TEST_CASE("the bytes of a synthetic tensor are those that they always were") {
    struct Sum {
        DType type;
        double mean, deviation;
        std::uint64_t sum;  ///< FNV-1a
    };
    for (const Sum& expected :
         {Sum{DType::mxfp4, 0, 0.0187, 0x97527d1998a94dea}, Sum{DType::q8_0, 0, 0.02, 0xd74caeef0d4a054d},
          Sum{DType::f16, 0.125, 0.3, 0x2060613b8c4ce8a1}, Sum{DType::bf16, -1, 0.7, 0x328513acceeeee2c},
          Sum{DType::f32, 4, 1.0 / 3, 0x8662eb82084a489c}}) {
        CAPTURE(info(expected.type).name);
        const auto tensor = tensor_of(expected.type, {96, 2731}, expected.mean, expected.deviation);
        host::ThreadPool pool(1);
        std::uint64_t sum = 1469598103934665603;
        write_synthetic(tensor, 0x123456789ABCDEF, pool, {}, [&](std::span<const std::byte> piece) {
            for (const std::byte byte : piece) sum = (sum ^ static_cast<unsigned>(byte)) * 1099511628211;
        });
        CHECK(sum == expected.sum);
    }
}

TEST_CASE("any part of a synthetic tensor is that part of the whole") {
    for (const DType type : {DType::mxfp4, DType::q8_0, DType::f16, DType::bf16, DType::f32}) {
        const SyntheticRecipe recipe = synthetic_recipe(tensor_of(type, {2048}, 0.5, 0.3), 2);
        const DTypeInfo& geometry = info(type);
        std::vector<std::byte> whole(2048 / geometry.elements * geometry.bytes), part(whole.size());
        fill_synthetic(recipe, 0, 2048, whole.data());
        for (const std::uint64_t first : {1, 2, 3, 15, 16, 19})
            for (const std::uint64_t count : {1, 2, 7, 33}) {
                CAPTURE(geometry.name, first, count);
                fill_synthetic(recipe, first * geometry.elements, count * geometry.elements, part.data());
                CHECK(std::memcmp(part.data(), whole.data() + first * geometry.bytes,
                                  count * geometry.bytes) == 0);
            }
    }
}

TEST_CASE("a synthetic file is the written one with its matrices left out") {
    for (const char* name : {"gpt-oss-20b", "gpt2", "smollm2-135m"})
        with_synthetic_preset(name, [&](auto family, SyntheticModel model) {
            CAPTURE(name);
            using Family = decltype(family);
            model = shrink(model);
            const std::vector<std::byte> bytes = file_of<Family>(model, 7, 1);
            const auto written = gguf::File::parse(bytes, "written.gguf");
            const SyntheticFile first(family, model, 7);
            CHECK(Family::read_dims(first.file()).vocabulary == 301);
            REQUIRE(first.file().tensors().size() == written.tensors().size());
            int made = 0;
            for (std::size_t i = 0; i < written.tensors().size(); ++i) {
                const TensorView &found = first.file().tensors()[i], &expected = written.tensors()[i];
                CAPTURE(expected.name);
                CHECK(found.name == expected.name);
                REQUIRE(found.bytes() == expected.bytes());
                const auto size = static_cast<std::size_t>(expected.bytes());
                const bool there = std::memcmp(found.data, expected.data, size) == 0;
                CHECK(there == (expected.type == DType::f32));
                // A part, made of its recipe.
                const DTypeInfo& type = info(expected.type);
                const auto part = first.at(found.data + type.bytes, size - type.bytes);
                std::vector<std::byte> filled(size - type.bytes);
                fill_synthetic(*part.recipe, part.first, part.count, filled.data());
                CHECK(std::memcmp(filled.data(), expected.data + type.bytes, filled.size()) == 0);
                made += static_cast<int>(!there);
                CHECK_THROWS_AS(first.at(found.data, size + type.bytes), Error);
                if (type.bytes > 1) CHECK_THROWS_AS(first.at(found.data + 1, type.bytes), Error);
            }
            CHECK(made > 5);
            CHECK_THROWS_AS(first.at(bytes.data(), 4), Error);
        });
}

TEST_CASE("a synthetic file of a large model takes no memory to speak of") {
    const SyntheticFile large = SyntheticFile::of_preset("gpt-oss-120b");
    CHECK(large.file().bytes() > 60000000000);
    const Dims dims = GptOss::read_dims(large.file());
    CHECK(dims.experts == 128);
    host::VectorStorage vectors;
    ModelWeights<GptOss, host::HostStore> weights;
    host::bind_weights(large.file(), dims, weights, vectors);
    std::ifstream status("/proc/self/statm");
    std::uint64_t total = 0, resident = 0;
    REQUIRE(status >> total >> resident);
    CHECK(resident * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)) < std::uint64_t{1} << 30);
    CHECK_THROWS_AS(SyntheticFile::of_preset("gpt-5"), Error);
}

TEST_CASE("what the sink or the caller throws ends the writing") {
    const SyntheticTensor tensor = tensor_of(DType::q8_0, {64, 4}, 0, 1);
    host::ThreadPool pool(2);
    struct Stop {};
    CHECK_THROWS_AS(write_synthetic(
                        tensor, 1, pool, [](std::uint64_t) { throw Stop(); }, [](const auto&) {}),
                    Stop);
    CHECK_THROWS_AS(write_synthetic(tensor, 1, pool, {},
                                    [](std::span<const std::byte> bytes) {
                                        if (!bytes.empty()) throw Stop();
                                    }),
                    Stop);
}

TEST_CASE("presets have the published files' tensors") {
    struct Count {
        int tensors = 0;
        std::uint64_t bytes = 0;
    };
    const auto count = [](const char* name) {
        std::map<DType, Count> counts;
        with_synthetic_preset(name, [&](auto family, const SyntheticModel& model) {
            for (const SyntheticTensor& tensor : synthetic_tensors<decltype(family)>(model)) {
                ++counts[tensor.view.type].tensors;
                counts[tensor.view.type].bytes += tensor.view.bytes();
            }
        });
        return counts;
    };
    auto oss = count("gpt-oss-20b");
    CHECK(oss.size() == 3);
    CHECK(oss[DType::f32].tensors == 289);
    CHECK(oss[DType::q8_0].tensors == 98);
    CHECK(oss[DType::mxfp4].tensors == 72);
    CHECK(oss[DType::mxfp4].bytes == std::uint64_t{72} * 32 * 2880 * 2880 / 32 * 17);
    const double gigabytes =
        static_cast<double>(oss[DType::f32].bytes + oss[DType::q8_0].bytes + oss[DType::mxfp4].bytes) / 1e9;
    CHECK(gigabytes > 12.05);  // the published 12.11 GB have some megabytes of vocabulary
    CHECK(gigabytes < 12.11);

    auto large = count("gpt-oss-120b");
    CHECK(large[DType::f32].tensors == 12 * 36 + 1);
    CHECK(large[DType::q8_0].tensors == 4 * 36 + 2);
    CHECK(large[DType::mxfp4].tensors == 3 * 36);
    CHECK(large[DType::mxfp4].bytes == 6 * oss[DType::mxfp4].bytes);  // 1.5 times the layers, 4 the experts

    auto gpt2 = count("gpt2");
    CHECK(gpt2.size() == 2);
    CHECK(gpt2[DType::f16].tensors == 4 * 12 + 1);
    CHECK(gpt2[DType::f32].tensors == 8 * 12 + 3);
    auto xl = count("gpt2-xl");
    CHECK(xl[DType::f16].bytes / 2 + xl[DType::f32].bytes / 4 == 1557611200);  // parameters
    CHECK(gpt2[DType::f16].bytes / 2 + gpt2[DType::f32].bytes / 4 == 124439808);
    auto smol = count("smollm2-135m");
    CHECK(smol[DType::q8_0].tensors == 7 * 30 + 1);
    CHECK(smol[DType::f32].tensors == 2 * 30 + 1);
    CHECK(smol[DType::q8_0].bytes / 34 * 32 + smol[DType::f32].bytes / 4 == 134515008);
    for (const char* name : synthetic_presets) CHECK_FALSE(count(name).empty());
    CHECK_THROWS_AS(count("gpt-5"), Error);
}

TEST_CASE("types that are not filled and vocabularies that do not fit are refused") {
    std::vector<std::byte> bytes(1000);
    CHECK_THROWS_AS(synthetic_recipe(tensor_of(DType::q4_k, {256}, 0, 1), 1), Error);
    SyntheticModel model;
    model.dims.vocabulary = 255;
    gguf::Writer writer;
    CHECK_THROWS_AS(set_synthetic_vocabulary(writer, model), Error);
}
