// Writes the seed corpus of tokenizer_fuzz.cpp into the folder given: small vocabularies of each
// pre-tokenizer.
#include <cstdio>

#include "text/vocabularies.hpp"

int main(int argc, char** argv) {
    if (argc != 2) {
        std::fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
        return 2;
    }
    const auto write = [&](const text_test::TinyVocabulary& vocabulary, const std::string& name) {
        const std::vector<std::byte> bytes = vocabulary.bytes();
        std::ofstream out(std::string(argv[1]) + "/" + name + ".gguf", std::ios::binary);
        out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
        return static_cast<bool>(out.flush());
    };
    bool written = true;
    for (const std::string_view pre : gg::text::pre_tokenizer_names) {
        text_test::TinyVocabulary vocabulary;
        vocabulary.pre = pre;
        written = write(vocabulary, std::string(pre)) && written;
    }
    text_test::TinyVocabulary vocabulary;
    vocabulary.scores = std::vector<float>(vocabulary.tokens.size());
    vocabulary.ids.emplace_back("tokenizer.ggml.bos_token_id", 262);
    vocabulary.add_bos = true;
    written = write(vocabulary, "roles") && written;
    vocabulary.types.clear();
    written = write(vocabulary, "no-types") && written;
    return written ? 0 : 1;
}
