// Writes the seed corpus of gguf_fuzz.cpp into the folder given.
#include <cstdio>
#include <fstream>

#include "gguf/samples.hpp"

int main(int argc, char** argv) {
    if (argc != 2) {
        std::fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
        return 2;
    }
    int number = 0;
    for (const std::vector<std::byte>& file : gguf_test::sample_files()) {
        std::ofstream out(std::string(argv[1]) + "/sample-" + std::to_string(number++) + ".gguf",
                          std::ios::binary);
        out.write(reinterpret_cast<const char*>(file.data()), static_cast<std::streamsize>(file.size()));
        if (!out.flush()) return 1;
    }
    return 0;
}
