#include <sys/resource.h>

#include <algorithm>

#include "catch.hpp"
#include "gg/gguf/file.hpp"
#include "nlohmann/json.hpp"
#include "subprocess.hpp"
#include "tiny_model.hpp"

using namespace gg;
using namespace runner_test;

namespace {

bool contains(const std::string& text, std::string_view part) {
    return text.find(part) != text.npos;
}

Result synth(const std::string& preset, const std::string& out, std::vector<std::string> options = {}) {
    options.insert(options.begin(), {"synth", "--preset", preset, out});
    return run_gg(options);
}

auto files_in(const std::filesystem::path& folder) {
    return std::distance(std::filesystem::directory_iterator(folder), {});
}

}  // namespace

TEST_CASE("gg synth writes a model that other commands read") {
    gguf_test::TemporaryFolder folder;
    const std::string out = folder / "out.gguf";
    const Result made = synth("smollm2-135m", out, {"--threads", "2"});
    INFO(made.err);
    REQUIRE(made.code == 0);
    CHECK(made.out.empty());
    CHECK(contains(made.err, "Q8_0: 211 tensors"));
    CHECK(contains(made.err, "F32: 61 tensors"));
    CHECK(files_in(folder.path()) == 1);

    const Result info = run_gg({"info", out});
    CHECK(info.code == 0);
    CHECK(contains(info.out, "synthetic smollm2-135m"));
    write_file(folder / "ids", "7 50 49151 256 80");
    const Result scored = run_gg({"score", "-m", out, "--tokens-file", folder / "ids", "--json"});
    INFO(scored.err);
    REQUIRE(scored.code == 0);
    CHECK(nlohmann::json::parse(scored.out)["logprob"].size() == 4);
    const Result ran = run_gg({"run", "-m", out, "-p", "Hello", "-n", "2", "--seed", "1"});
    CHECK(ran.code == 0);
    CHECK_FALSE(ran.out.empty());

    // It is there already now.
    const Result again = synth("smollm2-135m", out);
    CHECK(again.code == 1);
    CHECK(contains(again.err, "--force"));
    const std::string first = read_file(out);
    CHECK(synth("smollm2-135m", out, {"--force", "--threads", "1", "--seed", "1"}).code == 0);
    CHECK((read_file(out) == first));
    CHECK(synth("smollm2-135m", out, {"--force", "--seed", "2"}).code == 0);
    CHECK((read_file(out) != first));
}

TEST_CASE("gg synth takes the vocabulary and the dense type it is told") {
    gguf_test::TemporaryFolder folder;
    const std::string out = folder / "out.gguf", words = folder / "words.gguf";
    TinyModel{.tensors = false}.write(words);
    const Result made = synth("smollm2-135m", out, {"--vocabulary", words, "--dense", "bf16"});
    INFO(made.err);
    REQUIRE(made.code == 0);
    CHECK(contains(made.err, "BF16: 211 tensors"));
    const auto file = gguf::File::open(out);
    CHECK(file.get<std::vector<std::string_view>>("tokenizer.ggml.tokens").size() == 261);
    CHECK(file.get<std::uint32_t>("general.file_type") == 32);
    const Result ids = run_gg({"tokenize", "-m", out, "--text", "hey"});
    CHECK(ids.code == 0);
    CHECK(contains(ids.out, "257"));

    const Result itself = synth("gpt2", words, {"--vocabulary", words, "--force"});
    CHECK(itself.code == 1);
    CHECK(contains(itself.err, "the input itself"));
    const Result missing = synth("gpt2", folder / "x.gguf", {"--vocabulary", folder / "none.gguf"});
    CHECK(missing.code == 1);
    CHECK(contains(missing.err, "none.gguf"));
    CHECK(files_in(folder.path()) == 2);
}

TEST_CASE("gg synth refuses what cannot be written and leaves nothing") {
    gguf_test::TemporaryFolder folder;
    const std::string out = folder / "out.gguf";
    SECTION("in no folder, or no file") {
        const Result result = synth("smollm2-135m", folder / "none/out.gguf");
        CHECK(result.code == 1);
        CHECK(contains(result.err, "none/out.gguf"));
        CHECK(synth("smollm2-135m", "/dev/null", {"--force"}).code == 1);
        CHECK(files_in(folder.path()) == 0);
    }
    SECTION("too little space") {
        // /dev/shm has few gigabytes on most machines; elsewhere there is nothing to test.
        std::error_code error;
        const auto space = std::filesystem::space("/dev/shm", error);
        if (error || space.available > 60'000'000'000) GG_SKIP("no small file system here");
        const std::string name = "/dev/shm/gg-synth-test-" + std::to_string(::getpid()) + ".gguf";
        const Result result = synth("gpt-oss-120b", name);
        CHECK(result.code == 1);
        CHECK(contains(result.err, "free space"));
        CHECK(contains(result.err, "GiB"));
        CHECK_FALSE(std::filesystem::exists(name));
    }
    SECTION("a full disk") {
        // A limit on the size of files fails writes as a full disk does.
        struct rlimit old {};
        REQUIRE(::getrlimit(RLIMIT_FSIZE, &old) == 0);
        struct rlimit small = old;
        small.rlim_cur = 9'000'000;
        ::signal(SIGXFSZ, SIG_IGN);
        REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
        const Result result = synth("smollm2-135m", out);
        REQUIRE(::setrlimit(RLIMIT_FSIZE, &old) == 0);
        CHECK(result.code == 1);
        CHECK(contains(result.err, "room for the file"));
        CHECK(files_in(folder.path()) == 0);
    }
    SECTION("Ctrl-C") {
        write_file(out, "kept");
        Child child({"synth", "--preset", "gpt2-xl", out, "--force", "--threads", "1"});
        REQUIRE(Child::wait_until([&] { return files_in(folder.path()) == 2; }));
        child.signal(SIGINT);
        const Result result = child.wait();
        CHECK(result.code == 1);
        CHECK(contains(result.err, "interrupted"));
        CHECK(read_file(out) == "kept");
        CHECK(files_in(folder.path()) == 1);
    }
}

TEST_CASE("wrong usage of gg synth is exit code 2") {
    for (const std::vector<std::string>& arguments :
         std::vector<std::vector<std::string>>{{"synth"},
                                               {"synth", "a"},
                                               {"synth", "--preset", "gpt2"},
                                               {"synth", "a", "--preset", "gpt-5"},
                                               {"synth", "a", "b", "--preset", "gpt2"},
                                               {"synth", "a", "--preset", "gpt2", "--seed", "-1"},
                                               {"synth", "a", "--preset", "gpt2", "--dense", "Q4_K"},
                                               {"synth", "a", "--preset", "gpt2", "--threads", "0"}}) {
        const Result result = run_gg(arguments);
        CAPTURE(arguments);
        CHECK(result.code == 2);
        CHECK(result.out.empty());
    }
    CHECK(contains(run_gg({"synth", "a", "--preset", "gpt-5"}).err, "gpt-oss-120b"));
    CHECK(contains(run_gg({"help", "synth"}).out, "--preset"));
}
