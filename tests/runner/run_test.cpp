#include <algorithm>

#include "catch.hpp"
#include "subprocess.hpp"
#include "tiny_model.hpp"

using namespace runner_test;

namespace {

bool contains(const std::string& text, std::string_view part) {
    return text.find(part) != text.npos;
}

struct Model {
    gguf_test::TemporaryFolder folder;
    std::string path = folder / "tiny.gguf";
    explicit Model(const TinyModel& model = {.specials = false}) { model.write(path); }
    std::vector<std::string> arguments(std::vector<std::string> more) const {
        more.insert(more.begin(), {"run", "-m", path});
        return more;
    }
    Result run(std::vector<std::string> more, std::string_view input = "") const {
        return run_gg(arguments(std::move(more)), input);
    }
    std::string text(std::vector<std::string> more, std::string_view input = "") const {
        const Result result = run(std::move(more), input);
        CAPTURE(result.err);
        REQUIRE(result.code == 0);
        return result.out;
    }
};

}  // namespace

TEST_CASE("gg run writes the reply to standard output and all else to standard error") {
    const Model m;
    const Result result = m.run({"-p", "hey", "-n", "20", "--seed", "5"});
    CHECK(result.code == 0);
    CHECK(result.out.size() >= 20);
    CHECK(result.out.back() == '\n');
    for (const char* part :
         {"gg: device: ", "gg: seed: 5\n", "prompt: 1 token", "text: 20 tokens", "20 tokens (-n)"})
        CHECK(contains(result.err, part));
    CHECK_FALSE(contains(result.err, "error"));
}

TEST_CASE("the same seed gives the same text, whatever the threads; another seed another text") {
    const Model m;
    const std::vector<std::string> base = {"-p", "The", "-n", "60", "--temp", "1", "--top-k", "0", "--seed"};
    const auto with = [&](std::vector<std::string> more) {
        more.insert(more.begin(), base.begin(), base.end());
        return m.text(more);
    };
    const std::string first = with({"7", "--threads", "1"});
    CHECK(with({"7", "--threads", "2"}) == first);
    CHECK(with({"7", "--threads", "5"}) == first);
    CHECK(with({"7"}) == first);
    CHECK(with({"8"}) != first);
    CHECK(m.text({"-p", "The", "-n", "30", "--temp", "0"}) ==
          m.text({"-p", "The", "-n", "30", "--top-k", "1"}));

    // A drawn seed is printed and gives the text again.
    const Result drawn = m.run({"-p", "x", "-n", "30"});
    const std::size_t at = drawn.err.find("gg: seed: ");
    REQUIRE(at != std::string::npos);
    const std::string seed = drawn.err.substr(at + 10, drawn.err.find('\n', at) - at - 10);
    CHECK(m.text({"-p", "x", "-n", "30", "--seed", seed}) == drawn.out);
    CHECK(m.run({"-p", "x", "-n", "30"}).out != drawn.out);
    CHECK_FALSE(contains(m.run({"-p", "x", "-n", "3", "--temp", "0"}).err, "seed"));
}

TEST_CASE("a prompt comes from an option, a file or standard input") {
    const Model m;
    const auto with = [&](std::vector<std::string> more, std::string_view input = "") {
        more.insert(more.end(), {"-n", "12", "--temp", "0"});
        return m.text(more, input);
    };
    const std::string expected = with({"-p", "two\nlines"});
    write_file(m.folder / "prompt", "two\nlines\n");
    CHECK(with({"-f", m.folder / "prompt"}) == expected);
    CHECK(with({"-"}, "two\nlines") == expected);
    CHECK(with({"-f", "-"}, "two\nlines\r\n") == expected);
    CHECK(with({"-p", "two\nlines\n"}) != expected);
    CHECK(m.run({"-f", m.folder / "missing"}).code == 1);
}

TEST_CASE("an empty prompt begins a text, if the vocabulary has a token for that") {
    const Result none = Model().run({"-p", ""});
    CHECK(none.code == 2);
    CHECK(contains(none.err, "prompt is empty"));
    const Model m(TinyModel{});
    for (const std::vector<std::string>& arguments :
         std::vector<std::vector<std::string>>{{"-p", ""}, {}, {"-"}}) {
        std::vector<std::string> more = arguments;
        more.insert(more.end(), {"-n", "2"});
        const Result result = m.run(more);
        CHECK(result.code == 0);
        CHECK(contains(result.err, "prompt: 1 token"));
    }
    const Result bos = Model(TinyModel{.adds_bos = true}).run({"-p", "ab", "-n", "0"});
    CHECK(bos.code == 0);
    CHECK(bos.out.empty());
    CHECK(contains(bos.err, "prompt: 3 token"));
}

TEST_CASE("padding rows of the embedding are never drawn") {
    // Half of all rows are padding; a drawn one could not be decoded and would fail.
    const Model m(TinyModel{.padding = 258, .specials = false});
    CHECK(contains(
        m.run({"-p", "a", "-n", "300", "--top-k", "0", "--top-p", "1", "--min-p", "0", "--temp", "3"}).err,
        "300 tokens (-n)"));
}

TEST_CASE("the text ends before a stop string") {
    const Model m;
    const std::vector<std::string> base = {"-p", "abc", "-n", "40", "--seed", "3"};
    const std::string whole = m.text(base);
    // The first character of the text that occurs for the first time at some distance from the beginning.
    std::size_t at = 10;
    while (at < whole.size() && (whole.find(whole[at]) != at || whole[at] < ' ' || whole[at] == '\\')) ++at;
    REQUIRE(at < whole.size() - 1);
    std::vector<std::string> stop = base;
    stop.insert(stop.end(),
                {"--stop", "never appears", "--stop", std::string(1, whole[at]), "--stop", "[nor this]"});
    const Result result = m.run(stop);
    CHECK(result.code == 0);
    CHECK(contains(result.err, "stop string"));
    std::string expected = whole.substr(0, at);
    if (expected.back() != '\n') expected += '\n';
    CHECK(result.out == expected);
}

TEST_CASE("the text ends at a token that ends generation, and at the end of the context") {
    const Model ending(TinyModel{});
    // Hot draws from 261 tokens, two of which end a text.
    const Result result = ending.run({"-p", "a", "-n", "500", "--temp", "100", "--top-k", "0", "--min-p", "0",
                                      "--top-p", "1", "--seed", "1"});
    CHECK(result.code == 0);
    CHECK((contains(result.err, "end of text") || contains(result.err, "context of 500")));

    const Model m;
    const Result full = m.run({"-p", "abcd", "-n", "100", "-c", "10", "--temp", "0"});
    CHECK(full.code == 0);
    CHECK(contains(full.err, "context of 10 tokens is full"));
    CHECK(contains(full.err, "text: 7 tokens"));  // the last one takes no place
    const std::string longer = m.text({"-p", "abcd", "-n", "100", "--temp", "0"});
    std::string text = full.out;
    if (longer.substr(0, text.size()) != text) text.pop_back();
    CHECK(longer.substr(0, text.size()) == text);
}

TEST_CASE(
    "a prompt in pieces gives the text of the same prompt, and one too long is refused with the numbers") {
    const Model m(TinyModel{.context = 600, .specials = false});
    const std::string prompt(599, 'x');
    CHECK(contains(m.run({"-p", prompt, "-n", "9"}).err, "prompt: 599 tokens"));
    const Result refused = m.run({"-p", prompt, "-c", "300"});
    CHECK(refused.code == 1);
    CHECK(contains(refused.err, "300"));
    CHECK(contains(refused.err, "599"));
    CHECK(contains(refused.err, "-c"));
    CHECK(m.run({"-p", prompt + "xx"}).code == 1);
    const Result context = m.run({"-p", "x", "-c", "601"});
    CHECK(context.code == 1);
    CHECK(contains(context.err, "600"));
}

TEST_CASE("--chat asks where the format is known") {
    const std::string chatml = "{{'<|im_start|>system\nBe brief.<|im_end|>\n'}}";
    const Model m(TinyModel{.chat_template = chatml});
    const Result result = m.run({"--chat", "-p", "hey", "-n", "3", "--seed", "1"});
    CHECK(result.code == 0);
    // Specials, and the bytes of "system\nBe brief.", "\n", "user\nhey", "\n", "assistant\n".
    CHECK(contains(result.err, "prompt: " + std::to_string(5 + 16 + 1 + 6 + 1 + 10) + " tokens"));
    CHECK_FALSE(contains(result.err, "--chat"));
    CHECK(contains(m.run({"-p", "hey", "-n", "1"}).err, "--chat"));  // raw text to such a model is remarked
    CHECK(m.run({"--chat"}).code == 2);
    for (const std::string& unknown :
         {std::string(), std::string("[INST]"), std::string("<|start|><|channel|>")}) {
        const Result refused = Model(TinyModel{.chat_template = unknown}).run({"--chat", "-p", "hey"});
        CHECK(refused.code == 1);
        CHECK(contains(refused.err, "ChatML"));
    }
}

TEST_CASE("the host computes where it is asked for, and by itself where there is no GPU") {
    const Model m;
    const Result host = m.run({"-p", "a", "-n", "1", "--device", "host"});
    CHECK(host.code == 0);
    CHECK(contains(host.err, "gg: device: host, "));
    CHECK_FALSE(contains(host.err, "GPU"));
    for (const std::vector<std::string>& more :
         std::vector<std::vector<std::string>>{{}, {"--device", "auto"}}) {
        std::vector<std::string> arguments = {"-p", "a", "-n", "1"};
        arguments.insert(arguments.end(), more.begin(), more.end());
        const Result none = m.run(arguments);
        CHECK(none.code == 0);
        CHECK(contains(none.err, "gg: device: host, "));
    }
}

TEST_CASE("a GPU that is asked for and cannot be used is an error, never the host") {
    const Model m;
    for (const char* device : {"cuda", "cuda:0", "cuda:15"}) {
        const Result result = m.run({"-p", "a", "--device", device});
        CAPTURE(device, result.err);
        CHECK(result.code == 1);
        CHECK(result.out.empty());
        CHECK(contains(result.err, "gg: error: --device " + std::string(device) + ": "));
        CHECK(contains(result.err, "se --device host."));
        CHECK_FALSE(contains(result.err, "device: host, "));
    }
    // Before the model is opened.
    CHECK(contains(run_gg({"run", "-m", "missing", "-p", "a", "--device", "cuda"}).err,
                   "error: --device cuda: "));
}

TEST_CASE("Ctrl-C ends the text after the current token") {
    const Model m(TinyModel{.context = 1 << 18, .specials = false});
    Child child(m.arguments({"-p", "a", "-n", "200000"}));
    REQUIRE(Child::wait_until([&] { return child.out().size() > 20; }));
    child.signal(SIGINT);
    const Result result = child.wait();
    CHECK(result.code == 0);
    CHECK(contains(result.err, "ended by: interrupted"));
    CHECK(contains(result.err, " tok/s"));
    CHECK(result.out.back() == '\n');
}

TEST_CASE("Ctrl-C while a long prompt is read ends it too") {
    const Model m(TinyModel{.context = 1 << 18, .specials = false});
    write_file(m.folder / "prompt", std::string(200000, 'x'));
    Child child(m.arguments({"-f", m.folder / "prompt"}));
    REQUIRE(Child::wait_until([&] { return contains(child.err(), "reading the prompt"); }));
    child.signal(SIGINT);
    const Result result = child.wait();
    CHECK(result.code == 0);
    CHECK(result.out.empty());
    CHECK(contains(result.err, "text: 0 tokens; ended by: interrupted"));
}
