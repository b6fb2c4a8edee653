#include "catch.hpp"
#include "nlohmann/json.hpp"
#include "subprocess.hpp"
#include "tiny_model.hpp"

using namespace runner_test;

namespace {

bool contains(const std::string& text, std::string_view part) {
    return text.find(part) != text.npos;
}

/// Every command that opens a model, complete but for the model.
const std::vector<std::vector<std::string>>& commands() {
    static const auto all = [] {
        std::vector<std::vector<std::string>> list = {
            {"run", "-p", "a"},          {"score", "--text-file", "-"}, {"perplexity", "--text-file", "-"},
            {"tokenize", "--text", "a"}, {"detokenize", "1"},           {"info"}};
        // Built without CUDA it opens nothing.
        if (contains(run_gg({"--version"}).out, "(host, CUDA)"))
            list.push_back({"compile", "--arch", "sm_90a"});
        return list;
    }();
    return all;
}

std::vector<std::string> with_model(std::vector<std::string> command, const std::string& path) {
    command.insert(command.end(), {"-m", path});
    return command;
}

std::vector<std::string> operator+(std::vector<std::string> a, const std::vector<std::string>& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
}

}  // namespace

TEST_CASE("help and version go to standard output") {
    for (const std::vector<std::string>& arguments :
         std::vector<std::vector<std::string>>{{"--help"},
                                               {"-h"},
                                               {"help"},
                                               {"help", "run"},
                                               {"run", "--help"},
                                               {"score", "--help"},
                                               {"perplexity", "--help"},
                                               {"quantize", "--help"},
                                               {"synth", "--help"},
                                               {"compile", "--help"},
                                               {"tokenize", "--help"},
                                               {"detokenize", "-h"},
                                               {"info", "--help"},
                                               {"--version"}}) {
        const Result result = run_gg(arguments);
        CAPTURE(arguments);
        CHECK(result.code == 0);
        CHECK(result.err.empty());
        CHECK(contains(result.out, "gg"));
    }
    const std::string help = run_gg({"--help"}).out;
    for (const auto& command : commands()) CHECK(contains(help, "\n  " + command[0] + " "));
    // Defaults are shown, in whatever way the parser's version shows them.
    const std::string run = run_gg({"help", "run"}).out;
    const auto shows = [&](const std::string& option, const char* value) {
        const std::size_t at = run.find(option);
        REQUIRE(at != run.npos);
        CHECK(contains(run.substr(at, run.find('\n', at) - at), value));
    };
    shows("--tokens", "256");
    shows("--temp", "0.8");
    shows("--top-k", "40");
    shows("--min-p", "0.05");
    CHECK(run_gg({"run", "--help"}).out == run);
}

TEST_CASE("wrong usage is exit code 2, with nothing on standard output") {
    std::vector<std::vector<std::string>> wrong = {
        {},
        {"nonsense"},
        {"--nonsense"},
        {"help", "nonsense"},
        {"tokenize", "-m", "x"},
        {"score", "-m", "x"},
        {"perplexity", "-m", "x"},
        {"perplexity", "-m", "x", "--text-file", "a", "--save-reference", "a", "--reference", "b"},
        {"perplexity", "-m", "x", "--text-file", "a", "--stride", "0"},
        {"perplexity", "-m", "x", "--text-file", "a", "-c", "2"},
        {"detokenize", "-m", "x"},
        {"run", "-m", "x", "-p", "a", "-f", "b"},
        {"run", "-m", "x", "-p", "a", "-"},
        {"run", "-m", "x", "nonsense"},
        {"tokenize", "-m", "x", "--text", "a", "--file", "b"},
        {"score", "-m", "x", "--text-file", "a", "--tokens-file", "b"}};
    for (const auto& command : commands()) {
        wrong.push_back(command);  // no model
        for (const std::string& sum : {std::string("12"), std::string(64, 'g'), std::string(65, 'a')})
            wrong.push_back(with_model(command, "x") + std::vector<std::string>{"--sha256", sum});
    }
    for (const std::vector<std::string>& options :
         std::vector<std::vector<std::string>>{{"-n", "-1"},
                                               {"-n", "many"},
                                               {"-c", "0"},
                                               {"--temp", "-1"},
                                               {"--temp", "nan"},
                                               {"--top-k", "-1"},
                                               {"--top-k", "1.5"},
                                               {"--top-p", "1.1"},
                                               {"--min-p", "2"},
                                               {"--repeat-penalty", "0"},
                                               {"--seed", "-1"},
                                               {"--stop", ""},
                                               {"--stop", "\\q"},
                                               {"--stop", "a\\"},
                                               {"--threads", "0"},
                                               {"--device", "gpu"},
                                               {"--device", "cuda:"},
                                               {"--device", "cuda:x"},
                                               {"--device", "host", "--vram-limit", "1GiB"}})
        wrong.push_back(std::vector<std::string>{"run", "-m", "x", "-p", "a"} + options);
    for (const char* size :
         {"", "0", "-1", "1.5", "16G", "16 GiB", "GiB", "1e9", "nan", "16gib", "9000000TiB"})
        for (const auto& command : commands())
            if (command[0] == "info" || command[0] == "score")
                wrong.push_back(with_model(command, "x") + std::vector<std::string>{"--vram-limit", size});
    for (const std::vector<std::string>& arguments : wrong) {
        const Result result = run_gg(arguments);
        CAPTURE(arguments);
        CHECK(result.code == 2);
        CHECK(result.out.empty());
        CHECK(contains(result.err, "gg: error: "));
    }
}

TEST_CASE("a model that cannot be opened is exit code 1 and named") {
    gguf_test::TemporaryFolder folder;
    write_file(folder / "text.gguf", "This is not a model.");
    write_file(folder / "empty.gguf", "");
    for (const auto& command : commands())
        for (const std::string& path :
             {std::string(folder / "missing.gguf"), folder.path().string(), std::string(folder / "text.gguf"),
              std::string(folder / "empty.gguf")}) {
            CAPTURE(command, path);
            const Result result = run_gg(with_model(command, path));
            CHECK(result.code == 1);
            CHECK(result.out.empty());
            CHECK(contains(result.err, "gg: error: " + path));
            if (command[0] == "run") continue;
            const Result json = run_gg(with_model(command, path) + std::vector<std::string>{"--json"});
            CHECK(json.code == 1);
            const auto error = nlohmann::json::parse(json.out)["error"];
            CHECK(error["code"] == "model_load_failed");
            CHECK(contains(error["message"].get<std::string>(), path));
        }
}

TEST_CASE("a model is refused if its SHA-256 differs") {
    const std::string abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";  // FIPS 180-2
    const std::string other(64, 'A');
    gguf_test::TemporaryFolder folder;
    write_file(folder / "m.gguf", "abc");
    // All parts of a split model count, in order, by their names alone.
    write_file(folder / "s-00001-of-00003.gguf", "a");
    write_file(folder / "s-00002-of-00003.gguf", "");
    write_file(folder / "s-00003-of-00003.gguf", "bc");
    for (const std::string path : {folder / "m.gguf", folder / "s-00001-of-00003.gguf"})
        for (const auto& command : commands()) {
            CAPTURE(command, path);
            const Result refused =
                run_gg(with_model(command, path) + std::vector<std::string>{"--sha256", other});
            CHECK(refused.code == 1);
            CHECK(contains(refused.err, abc));
            CHECK(contains(refused.err, std::string(64, 'a')));
            // The right sum gets past the check: now it is not a GGUF file.
            const Result passed =
                run_gg(with_model(command, path) + std::vector<std::string>{"--sha256", abc});
            CHECK(passed.code == 1);
            CHECK_FALSE(contains(passed.err, "SHA-256"));
            CHECK(contains(passed.err, path));
        }
    std::filesystem::remove(folder / "s-00002-of-00003.gguf");
    const Result missing = run_gg({"info", folder / "s-00001-of-00003.gguf", "--sha256", abc});
    CHECK(missing.code == 1);
    CHECK(contains(missing.err, "s-00002-of-00003.gguf"));

    TinyModel().write(folder / "tiny.gguf");
    const std::string path = folder / "tiny.gguf";
    const auto sum =
        nlohmann::json::parse(run_gg({"info", path, "--sha256", "--json"}).out)["sha256"].get<std::string>();
    CHECK(run_gg({"tokenize", "-m", path, "--text", "a", "--sha256", sum}).code == 0);
    CHECK(contains(run_gg({"info", "--sha256", path}).out, sum));
}

TEST_CASE("a file cut short while it is read is named") {
    gguf_test::TemporaryFolder folder;
    const std::string path = folder / "shrinking.gguf";
    write_file(path, "GGUF");
    std::filesystem::resize_file(path, std::uintmax_t{16} << 30);  // a hole: takes no space
    Child child({"info", path, "--sha256", std::string(64, '0')});
    REQUIRE(Child::wait_until([&] { return contains(child.err(), "checking SHA-256"); }));
    std::filesystem::resize_file(path, 4096);
    const Result result = child.wait();
    CHECK(result.code == 1);
    CHECK(contains(result.err, path + ": the file was truncated"));
}

TEST_CASE("standard output that cannot be written") {
    gguf_test::TemporaryFolder folder;
    const std::string path = folder / "tiny.gguf";
    TinyModel{.specials = false}.write(path);
    for (const std::vector<std::string>& arguments :
         std::vector<std::vector<std::string>>{{"--help"},
                                               {"info", path},
                                               {"tokenize", "-m", path, "--text", "a"},
                                               {"run", "-m", path, "-p", "a", "-n", "5"}}) {
        CAPTURE(arguments);
        const Result closed = Child(arguments, "", Output::closed).wait();
        CHECK(closed.code == 1);
        CHECK(contains(closed.err, "standard output"));
        const Result no_reader = Child(arguments, "", Output::pipe_without_reader).wait();
        CHECK(no_reader.code == 0);
        CHECK_FALSE(contains(no_reader.err, "error"));
    }
}
