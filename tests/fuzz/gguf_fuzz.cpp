// libFuzzer target for the reader: any bytes are refused by gg::Error or can be read in full, and parsing
// them allocates at most 16 times their size and 64 KiB (of the 16 MiB that are promised).
#include <sanitizer/allocator_interface.h>

#include <optional>

#include "gguf/samples.hpp"

namespace {

std::uint64_t allocated = 0;

void count(const volatile void*, std::size_t bytes) {
    allocated += bytes;
}
void ignore(const volatile void*) {}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
    return __sanitizer_install_malloc_and_free_hooks(count, ignore) > 0 ? 0 : 1;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::uint64_t before = allocated;
    std::optional<gg::gguf::File> file;
    try {
        file = gg::gguf::File::parse(std::as_bytes(std::span(data, size)), "fuzzed.gguf");
    } catch (const gg::Error&) {
    }
    if (allocated - before > 16 * size + (64u << 10)) __builtin_trap();
    if (file && gguf_test::touch_everything(*file) == 0) __builtin_trap();
    return 0;
}
