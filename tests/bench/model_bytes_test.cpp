// What a bench program says of its measures: bytes a token, names of tests, tables, files of results.
#include "model_bytes.hpp"

#include <fstream>

#include "catch.hpp"
#include "gg/model/synthesize.hpp"
#include "gguf/temporary_folder.hpp"
#include "model_tests.hpp"
#include "results.hpp"

using namespace gg::bench;

namespace {

ModelBytes bytes_of(const gg::SyntheticFile& file) {
    return ModelBytes(file.file(), gg::with_family(file.file(), [&](auto family) {
                          return decltype(family)::read_dims(file.file());
                      }));
}

}  // namespace

TEST_CASE("a token of gpt-oss-20b reads 2.57 GB") {
    const auto file = gg::SyntheticFile::of_preset("gpt-oss-20b");
    const ModelBytes bytes = bytes_of(file);
    // Of each layer, 34 bytes for 32 weights of attention, 17 for 32 of four experts, and floats.
    const double attention = 2880.0 * (2 * 4096 + 2 * 512) * 34 / 32;
    const double experts = 4.0 * 3 * 2880 * 2880 * 17 / 32;
    const double vectors = 4.0 * (2 * 2880 + 64 + 4096 + 2 * 512 + 2880 + 4 * 3 * 2880);
    const double router = 4.0 * 32 * (2880 + 1);
    const double head = 201088.0 * 2880 * 34 / 32, embedding = 2880.0 * 34 / 32, norm = 4.0 * 2880;
    const double all = 24 * (attention + experts + vectors + router) + head + embedding + norm;
    CHECK(bytes.weights(1) == Approx(all).epsilon(1e-12));
    // Without the router, which is 9 MB: what was streamed to find the ceiling of 1212 tokens a second.
    CHECK((bytes.weights(1) - 24 * router) / 1e9 == Approx(2.565).margin(0.001));
    CHECK(bytes.token(1, 0) == bytes.weights(1));

    // Twelve layers see 128 positions, twelve all; 8 heads of 64, keys and values, two bytes each.
    CHECK(bytes.cache(100) == 24 * 100 * 2048.0);
    CHECK(bytes.cache(8192) == 12 * (8192 + 128) * 2048.0);
    CHECK(bytes.token(1, 8192) == bytes.weights(1) + bytes.cache(8192));

    // Eight sequences that choose 4 of 32 evenly need 32 (1 - (7/8)^8) = 21.0 different experts.
    CHECK(bytes.expert_share(1) == 0.125);
    CHECK(32 * bytes.expert_share(8) == Approx(21.0).margin(0.01));
    CHECK(8 * bytes.token(8, 0) == Approx(bytes.weights(8)).epsilon(1e-12));
    const double chosen = 24 * (experts + 4.0 * 4 * 3 * 2880), dense = all - chosen - embedding;
    CHECK(bytes.weights(8) ==
          Approx(dense + chosen / 0.125 * bytes.expert_share(8) + 8 * embedding).epsilon(1e-12));
}

TEST_CASE("a tied head is read whole, embeddings by the row") {
    const auto file = gg::SyntheticFile::of_preset("gpt2");
    const ModelBytes bytes = bytes_of(file);
    double all = 0;
    for (const gg::TensorView& tensor : file.file().tensors())
        if (tensor.name != "position_embd.weight") all += static_cast<double>(tensor.bytes());
    CHECK(bytes.weights(1) == all + 768 * 2 + 768 * 4);
    CHECK(bytes.expert_share(8) == 0);
    CHECK(bytes.weights(8) == all + 8 * (768 * 2 + 768 * 4));
    CHECK(bytes.cache(10) == 12 * 10 * 12 * 64 * 4.0);
}

TEST_CASE("tests are known by name") {
    std::string unknown;
    const auto all = model_tests(default_tests, unknown);
    REQUIRE(all);
    CHECK(all->size() == 11);
    CHECK((*all)[0].kind == ModelTest::prompt);
    CHECK((*all)[3].tokens == 32768);
    CHECK((*all)[5].kind == ModelTest::decode);
    CHECK((*all)[5].tokens == 64);
    CHECK((*all)[5].depth == 8192);
    CHECK((*all)[7].sequences == 8);
    CHECK((*all)[8].kind == ModelTest::first);
    CHECK((*all)[8].tokens == 100);
    for (const char* list :
         {"", "pp", "pp0", "pp-1", "tg64", "tg64@", "tg64x0", "tg64x8,", "load,tg1y", "pp8 ", "pp99999999999",
          "first", "first@", "first@0", "first@-1", "first@9x", "first@1@2", "first100"}) {
        CAPTURE(list);
        CHECK_FALSE(model_tests(list, unknown));
    }
    model_tests("pp5,what", unknown);
    CHECK(unknown == "what");
}

TEST_CASE("rows are a table, and replace their like in a file of results") {
    CHECK(measure_of({3, 1, 2}).median == 2);
    CHECK(measure_of({4, 1, 2, 3}).median == 2.5);
    CHECK(measure_of({4, 1}).low == 1);
    std::vector<Row> rows = {{"a", "tg128@0", measure_of({900, 1000, 1100}), "tok/s", 2.5e9, 1250.0},
                             {"a", "stage", measure_of({20}), "us", {}, 15.0},
                             {"a", "load", measure_of({1}), "s"}};
    CHECK(*rows[0].percent() == 80);
    CHECK(*rows[1].percent() == 75);
    CHECK_FALSE(rows[2].percent());
    const std::string table = table_text(rows, "bytes/token");
    CHECK(table.find("| a     | tg128@0 | 1000.0 | 900.00 to 1100.0 | tok/s |    2.500 GB |  1250.0 |        "
                     " 80.0 |") != table.npos);

    gguf_test::TemporaryFolder folder;
    const std::string path = folder / "results.json";
    write_json(path, {"GPU", "first", "command"}, rows);
    rows.resize(1);
    rows[0].value = measure_of({1200});
    write_json(path, {"GPU", "second", "command"}, rows);
    write_json(path, {"another GPU", "third", "command"}, rows);
    std::ifstream in(path);
    const auto found = nlohmann::json::parse(in);
    REQUIRE(found.size() == 4);
    CHECK(found[0]["commit"] == "second");
    CHECK(found[0]["value"] == 1200);
    CHECK(found[0]["percent"] == 96);
    CHECK(found[1]["commit"] == "first");
    CHECK(found[2]["ceiling"].is_null());
    CHECK(found[3]["device"] == "another GPU");
    std::ofstream(path) << "{}";
    CHECK_THROWS_AS(write_json(path, {}, rows), gg::Error);

    const char* words[] = {
        "/a/gg-bench-model", "-m", "/b/my model.gguf", "--json", "x.json", "--commit=y", "--test", "a,b"};
    CHECK(command_text(8, words) == "gg-bench-model -m 'my model.gguf' --test a,b");
    CHECK(commit_of(folder.path().string()).empty());
    CHECK(require_commit("abc", "/nowhere") == "abc");
    CHECK_THROWS_AS(require_commit("", folder.path().string()), gg::Error);
}
