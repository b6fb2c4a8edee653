// libFuzzer target for the tokenizer's loader: any bytes are refused by gg::Error or make a tokenizer that
// encodes and decodes; loading allocates at most 16 times their size and 16 MiB.
#include <sanitizer/allocator_interface.h>

#include "gg/text/tokenizer.hpp"

namespace {

std::uint64_t allocated = 0;

void count(const volatile void*, std::size_t bytes) {
    allocated += bytes;
}
void ignore(const volatile void*) {}

/// Traps if the ids of a text are not its bytes. A text may be refused for a byte without token.
void round_trip(const gg::text::Tokenizer& tokenizer, std::string_view text,
                gg::text::Tokenizer::Specials specials) {
    try {
        const std::vector<std::int32_t> ids = tokenizer.encode(text, specials);
        if (tokenizer.decode(ids) != text) __builtin_trap();
        gg::text::StreamDecoder decoder(tokenizer);
        std::string streamed;
        for (const std::int32_t id : ids) streamed += decoder.push(id);
        if (streamed + decoder.finish() != text) __builtin_trap();
    } catch (const gg::Error& error) {
        if (error.code() != gg::ErrorCode::invalid_request) __builtin_trap();
    }
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
    return __sanitizer_install_malloc_and_free_hooks(count, ignore) > 0 ? 0 : 1;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::uint64_t before = allocated;
    try {
        const auto bytes = std::as_bytes(std::span(data, size));
        const auto tokenizer = gg::text::Tokenizer::from_gguf(gg::gguf::File::parse(bytes, "fuzzed.gguf"));
        if (allocated - before > 16 * size + (16u << 20)) __builtin_trap();
        const std::string_view raw(reinterpret_cast<const char*>(data), std::min<std::size_t>(size, 4096));
        std::string all;
        for (std::int32_t id = 0; id < std::min(tokenizer.size(), 300); ++id) all += tokenizer.bytes(id);
        for (const std::string_view text :
             {raw, std::string_view(all), std::string_view("hello hell<|im_end|> it's 12")}) {
            round_trip(tokenizer, text, gg::text::Tokenizer::Specials::as_text);
            round_trip(tokenizer, text, gg::text::Tokenizer::Specials::parse);
        }
    } catch (const gg::Error&) {
        if (allocated - before > 16 * size + (16u << 20)) __builtin_trap();
    }
    return 0;
}
