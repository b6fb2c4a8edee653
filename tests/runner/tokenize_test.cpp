#include "catch.hpp"
#include "nlohmann/json.hpp"
#include "subprocess.hpp"
#include "tiny_model.hpp"

using namespace runner_test;

namespace {

struct Vocabulary {
    gguf_test::TemporaryFolder folder;
    std::string path = folder / "vocabulary.gguf";
    Vocabulary() { TinyModel{.tensors = false}.write(path); }
    Result tokenize(std::vector<std::string> arguments, std::string_view input = "") const {
        arguments.insert(arguments.begin(), {"tokenize", "-m", path});
        return run_gg(arguments, input);
    }
    Result detokenize(std::vector<std::string> arguments, std::string_view input = "") const {
        arguments.insert(arguments.begin(), {"detokenize", "-m", path});
        return run_gg(arguments, input);
    }
};

}  // namespace

TEST_CASE("gg tokenize prints ids") {
    const Vocabulary m;
    const auto check = [](const Result& result, const std::string& out) {
        CHECK(result.code == 0);
        CHECK(result.err.empty());
        CHECK(result.out == out);
    };
    check(m.tokenize({"--text", "hey h"}), "257 32 104\n");
    check(m.tokenize({"--text", "hey h", "--json"}), "[257,32,104]\n");
    check(m.tokenize({"--text", ""}), "\n");
    check(m.tokenize({"--text", "", "--json"}), "[]\n");
    check(m.tokenize({"--text", "-x"}), "45 120\n");
    check(m.tokenize({"--text", "[a]"}), "91 97 93\n");
    check(m.tokenize({"--file", "-"}, "he\n"), "256 10\n");
    write_file(m.folder / "text", std::string("\0\xFF"
                                              "a",
                                              3));
    check(m.tokenize({"--file", m.folder / "text"}), "0 255 97\n");
    check(m.tokenize({"--text", "a<|im_end|>", "--special"}), "97 260\n");
    CHECK(m.tokenize({"--text", "a<|im_end|>", "--json"}).out ==
          "[97,60,124,105,109,95,101,110,100,124,62]\n");
}

TEST_CASE("gg tokenize --lines takes a JSON string a line") {
    const Vocabulary m;
    const Result result = m.tokenize({"--lines", "-"}, "\"hey\"\n\"\"\n\"\\u00e9\\n\"\r\n\"last\"");
    CHECK(result.code == 0);
    CHECK(result.out == "[257]\n[]\n[195,169,10]\n[108,97,115,116]\n");
    CHECK(m.tokenize({"--lines", "-"}, "").out.empty());

    std::string many, expected;
    for (int i = 0; i < 20000; ++i) {
        many += "\"hey" + std::string(1, static_cast<char>('a' + i % 26)) + "\"\n";
        expected += "[257," + std::to_string('a' + i % 26) + "]\n";
    }
    write_file(m.folder / "many", many);
    CHECK(m.tokenize({"--lines", m.folder / "many"}).out == expected);

    for (const char* bad : {"\"ok\"\nbad\n", "\"ok\"\n12\n", "\"ok\"\n\n\"ok\"\n", "\"ok\"\n\"open\n"}) {
        const Result refused = m.tokenize({"--lines", "-"}, bad);
        CHECK(refused.code == 1);
        CHECK(refused.err.find("line 2") != std::string::npos);
    }
}

TEST_CASE("gg detokenize prints the bytes of ids") {
    const Vocabulary m;
    CHECK(m.detokenize({"257", "32", "195", "169", "260"}).out == "hey \xC3\xA9<|im_end|>");
    CHECK(m.detokenize({"255"}).out == "\xFF");
    CHECK(m.detokenize({"255", "--json"}).out == "{\"text\":\"\xEF\xBF\xBD\"}\n");
    CHECK(m.detokenize({"-"}, " 104\n\t101 ").out == "he");
    for (const char* bad : {"261", "-1", "x", "1x", "99999999999", "1.5"}) {
        const Result refused = m.detokenize({"5", bad});
        CHECK(refused.code == 1);
        CHECK(refused.out.empty());
        CHECK(refused.err.find("position 1") != std::string::npos);
    }
}

TEST_CASE("tokenize and detokenize undo each other, byte for byte") {
    const Vocabulary m;
    std::string text;
    for (int i = 0; i < 3000; ++i) text += static_cast<char>(i * i >> 3);
    const Result ids = m.tokenize({"--file", "-"}, text);
    CHECK(ids.code == 0);
    CHECK(m.detokenize({"-"}, ids.out).out == text);
}

TEST_CASE("an input that cannot be read is named") {
    const Vocabulary m;
    for (const char* option : {"--file", "--lines"}) {
        const Result missing = m.tokenize({option, m.folder / "missing"});
        CHECK(missing.code == 1);
        CHECK(missing.err.find("missing") != std::string::npos);
        CHECK(m.tokenize({option, m.folder.path()}).code == 1);
    }
}
