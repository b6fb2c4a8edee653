// How fast is the tokenizer, and does its time grow as the text does? One thread, processor time.
//
//   gg-bench-tokenizer VOCABULARY.gguf TEXT [TEXT...]
//
// The time to load; encoding and decoding of each text file; then words of one repeated character, 100 KB and
// 1 MB of it, and the ratio of the times, which is 10 if the time grows as the length.
#include <algorithm>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <iterator>

#include "gg/text/tokenizer.hpp"

namespace {

using gg::text::Tokenizer;

/// Processor seconds of one call, the least of several that together take a while.
template <class Call>
double seconds(const Call& call) {
    double least = 1e9, total = 0;
    for (int run = 0; run < 3 || (total < 1 && run < 20); ++run) {
        const std::clock_t start = std::clock();
        call();
        const double took = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
        least = std::min(least, took);
        total += took;
    }
    return least;
}

void time_file(const Tokenizer& tokenizer, const char* path) {
    std::ifstream stream(path, std::ios::binary);
    if (!stream) throw gg::Error(gg::ErrorCode::invalid_request, std::string(path) + ": cannot be read");
    const std::string text{std::istreambuf_iterator<char>(stream), {}};
    std::vector<std::int32_t> ids;
    const double encode = seconds([&] { ids = tokenizer.encode(text); });
    std::size_t decoded = 0;
    const double decode = seconds([&] { decoded = tokenizer.decode(ids).size(); });
    std::printf("%-40s %8.2f MB %10zu ids  encode %7.1f MB/s  decode %7.1f MB/s%s\n", path, text.size() / 1e6,
                ids.size(), text.size() / 1e6 / encode, text.size() / 1e6 / decode,
                decoded == text.size() ? "" : "  NOT EQUAL");
}

std::string repeated(std::string_view unit, std::size_t bytes) {
    std::string text;
    while (text.size() < bytes) text += unit;
    return text;
}

/// Letters without a blank between them, the same in every run.
std::string letters(std::size_t bytes) {
    std::string text;
    for (std::uint64_t state = 1; text.size() < bytes;
         state = state * 6364136223846793005 + 1442695040888963407)
        text += static_cast<char>('a' + (state >> 33) % 26);
    return text;
}

void time_growth(const Tokenizer& tokenizer, const char* name, const std::string& small,
                 const std::string& large) {
    const double first = seconds([&] { tokenizer.encode(small); });
    const double second = seconds([&] { tokenizer.encode(large); });
    std::printf("%-20s 100 KB %8.2f ms   1 MB %8.2f ms   ratio %5.2f   %7.1f MB/s\n", name, first * 1e3,
                second * 1e3, second / first, 1.0 / second);
}

}  // namespace

int main(int argc, char** argv) try {
    if (argc < 3) {
        std::fprintf(stderr, "usage: %s VOCABULARY.gguf TEXT [TEXT...]\n", argv[0]);
        return 2;
    }
    const auto file = gg::gguf::File::open(argv[1]);
    const double load = seconds([&] { Tokenizer::from_gguf(file); });
    const auto tokenizer = Tokenizer::from_gguf(file);
    std::printf("%s: %d tokens, %s, loaded in %.0f ms\n", argv[1], tokenizer.size(),
                std::string(tokenizer.pre_tokenizer()).c_str(), load * 1e3);
    for (int i = 2; i < argc; ++i) time_file(tokenizer, argv[i]);
    for (const auto& [name, unit] : {std::pair{"letter a", "a"},
                                     {"blank", " "},
                                     {"newline", "\n"},
                                     {"digit 7", "7"},
                                     {"hyphen", "-"},
                                     {"Han", "\xE4\xB8\xAD"},
                                     {"combining mark", "\xCC\x81"}})
        time_growth(tokenizer, name, repeated(unit, 100'000), repeated(unit, 1'000'000));
    time_growth(tokenizer, "random letters", letters(100'000), letters(1'000'000));
} catch (const gg::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
