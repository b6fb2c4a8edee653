// gg-bench-model from outside, and the kernels that it measures ceilings with.
#if defined(GG_BENCH_MODEL)

#include <cstdio>
#include <string>

#include "ceilings.hpp"
#include "cuda/nvrtc.hpp"
#include "gg/cuda/device_headers.hpp"

namespace {

struct Result {
    int code;
    std::string text;  ///< standard output and error
};

/// Runs it without a GPU.
Result run(const std::string& arguments) {
    const std::string command = "CUDA_VISIBLE_DEVICES= '" GG_BENCH_MODEL "' " + arguments + " 2>&1";
    std::FILE* const pipe = ::popen(command.c_str(), "r");
    REQUIRE(pipe != nullptr);
    Result result{};
    char text[4096];
    while (std::fgets(text, sizeof text, pipe) != nullptr) result.text += text;
    const int status = ::pclose(pipe);
    result.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    return result;
}

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != text.npos;
}

}  // namespace

TEST_CASE("gg-bench-model explains itself and refuses what it does not know") {
    const Result help = run("--help");
    CHECK(help.code == 0);
    CHECK(contains(help.text, "--preset"));
    CHECK(contains(help.text, "gg-bench-model --preset gpt-oss-20b"));
    const Result nothing = run("");
    CHECK(nothing.code == 2);
    CHECK(contains(nothing.text, "--preset or -m"));
    const Result test = run("--preset gpt2 --test pp512,tg");
    CHECK(test.code == 2);
    CHECK(contains(test.text, "there is no test \"tg\""));
    CHECK(run("--preset gpt3").code == 2);
    CHECK(run("--preset gpt2 --repeat 0").code == 2);
    CHECK(run("--preset gpt-oss-20b --experts Q4_0").code == 2);
    const Result dense = run("--preset gpt2 --experts F16");
    CHECK(dense.code == 1);
    CHECK(contains(dense.text, "--experts: expected a preset with experts, found gpt2"));
    const Result file = run("-m /nonexistent.gguf");
    CHECK(file.code == 1);
    CHECK(contains(file.text, "gg: error: /nonexistent.gguf"));
    const Result device = run("--preset gpt2 --test pp8");
    CHECK(device.code == 1);
    CHECK(contains(device.text, "CUDA device 0"));
}

TEST_CASE("the kernels that measure ceilings compile for every chip") {
    GG_NEED_NVRTC();
    const gg::cuda::Compiler compiler;
    for (const char* architecture : {"sm_80", "sm_89", "sm_90a", "sm_120a"}) {
        if (!compiler.knows(architecture)) continue;
        for (const gg::cuda::KernelUnit& unit :
             {gg::bench::detail::read_memory_unit(), gg::cuda::synthesize_unit()}) {
            const auto compiled =
                compiler.compile(unit.unit, gg::cuda::device_headers(), architecture, "unit.cu");
            INFO(unit.unit.name << " for " << architecture << "\n" << compiled.log);
            CHECK(compiled.log.find("warning") == compiled.log.npos);
            REQUIRE(compiled.kernels.size() == 1);
            CHECK(compiled.kernels[0].spill_bytes == 0);
            CHECK(compiled.kernels[0].registers <= 128);
        }
    }
}

#endif
