// The families that gg knows, and the choice by general.architecture.
#pragma once

#include "gg/model/family/gpt2.hpp"
#include "gg/model/family/gpt_oss.hpp"
#include "gg/model/family/llama.hpp"

namespace gg {

/// Calls `f(family)` with a value of the family type that the file's general.architecture names. Refuses any
/// other architecture.
template <class F>
decltype(auto) with_family(const gguf::File& file, F&& f) {
    const auto architecture = file.get<std::string_view>("general.architecture");
    if (architecture == Gpt2::architecture) return f(Gpt2{});
    if (architecture == Llama::architecture) return f(Llama{});
    if (architecture == GptOss::architecture) return f(GptOss{});
    refuse({.file = file.name(),
            .field = "key general.architecture",
            .expected = "one of gpt2, gpt-oss, llama",
            .found = "\"" + gguf::printable(architecture) + "\"",
            .next_step = architecture == "gptoss"
                             ? "An old converter wrote this file: get one with architecture "
                               "gpt-oss, whose experts have type MXFP4 (id 39)."
                             : ""});
}

}  // namespace gg
