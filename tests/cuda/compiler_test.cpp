// The run-time compiler: code for every architecture, reports, and what it says when it cannot.
#include "gg/cuda/compiler.hpp"

#include "catch.hpp"
#include "gguf/temporary_folder.hpp"
#include "nvrtc.hpp"

using namespace gg::cuda;
using cuda_test::message_of;

namespace {

constexpr const char* architectures[] = {"sm_80", "sm_89", "sm_90a", "sm_120a"};

/// 64 values a thread that live across a barrier; a launch bound of 1024 threads and two blocks leaves a
/// thread 32 registers.
std::string crowded_source(const std::string& bounds) {
    return "extern \"C\" __global__ void " + bounds + " crowded(volatile float* x) {\n" + R"(
    float values[64];
#pragma unroll
    for (int i = 0; i < 64; ++i) values[i] = x[64 * threadIdx.x + i];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 64; ++i) x[64 * threadIdx.x + i] = values[63 - i];
})";
}

}  // namespace

TEST_CASE("NVRTC compiles for every architecture that gg names") {
    GG_NEED_NVRTC();
    const Compiler compiler;
    const std::string text = "namespace own { constexpr int two = 2; }";
    const HeaderText headers[] = {{"own/two.cuh", text}};
    const CompileUnit unit = {"simple",
                              R"(#include "own/two.cuh"
extern "C" __global__ void first(float* x) { x[threadIdx.x] *= own::two; }
extern "C" __global__ void second(float* x) {
    __shared__ float shared[32];
    shared[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = shared[31 - threadIdx.x] + FACTOR;
})",
                              {"-DFACTOR=3"}};
    for (const char* architecture : architectures) {
        CAPTURE(architecture, compiler.name());
        if (!compiler.knows(architecture)) {
            std::printf("SKIPPED: %s does not know %s\n", compiler.name().c_str(), architecture);
            continue;
        }
        const CompiledUnit compiled = compiler.compile(unit, headers, architecture, "simple.cu");
        CHECK(compiled.name == "simple");
        CHECK(
            compiled.cubin.starts_with("\x7f"
                                       "ELF"));
        CHECK_FALSE(compiled.cached);
        REQUIRE(compiled.kernels.size() == 2);
        const bool in_order = compiled.kernels[0].name == "first";
        const KernelReport& first = compiled.kernels[in_order ? 0 : 1];
        const KernelReport& second = compiled.kernels[in_order ? 1 : 0];
        CHECK(first.name == "first");
        CHECK(first.registers > 0);
        CHECK(first.shared_bytes == 0);
        CHECK(second.name == "second");
        CHECK(second.shared_bytes == 128);
        for (const KernelReport& kernel : compiled.kernels) {
            CHECK(kernel.spill_bytes == 0);
            CHECK(kernel.stack_bytes == 0);
        }
    }
}

TEST_CASE("a kernel that spills is reported") {
    GG_NEED_NVRTC();
    const Compiler compiler;
    for (const char* architecture : {"sm_80", "sm_90a"}) {
        CAPTURE(architecture);
        const CompiledUnit free = compiler.compile({"free", crowded_source("")}, {}, architecture, "free.cu");
        REQUIRE(free.kernels.size() == 1);
        CHECK(free.kernels[0].registers > 64);
        CHECK(free.kernels[0].spill_bytes == 0);
        const CompiledUnit tight = compiler.compile({"tight", crowded_source("__launch_bounds__(1024, 2)")},
                                                    {}, architecture, "tight.cu");
        REQUIRE(tight.kernels.size() == 1);
        CHECK(tight.kernels[0].registers <= 32);
        // At least the values that have no register are written once and read once.
        CHECK(tight.kernels[0].spill_bytes >= 2 * 4 * 32);
        CHECK(tight.kernels[0].stack_bytes >= 4 * 32);
    }
}

TEST_CASE("reports are read from the assembler's log") {
    const std::vector<KernelReport> kernels = read_reports(
        "unit.cu(3): warning #177-D: variable \"x\" was declared but never referenced\n"
        "ptxas info    : 0 bytes gmem\n"
        "ptxas info    : Compiling entry function 'k2' for 'sm_90a'\n"
        "ptxas info    : Function properties for k2\n"
        "ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n"
        "ptxas info    : Used 14 registers, used 1 barriers, 128 bytes smem\n"
        "ptxas info    : Compiling entry function 'k' for 'sm_90a'\n"
        "ptxas info    : Function properties for k\n"
        "ptxas         .     1632 bytes stack frame, 1132 bytes spill stores, 1388 bytes spill loads\n"
        "ptxas info    : Used 32 registers, used 1 barriers, 1632 bytes cumulative stack size, 372 bytes "
        "cmem[0]\n"
        "ptxas info    : Function properties for f\n"
        "ptxas         .     8 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads");
    REQUIRE(kernels.size() == 3);
    CHECK(kernels[0].name == "k2");
    CHECK(kernels[0].registers == 14);
    CHECK(kernels[0].shared_bytes == 128);
    CHECK(kernels[0].spill_bytes == 0);
    CHECK(kernels[1].name == "k");
    CHECK(kernels[1].registers == 32);
    CHECK(kernels[1].spill_bytes == 1132 + 1388);
    CHECK(kernels[1].stack_bytes == 1632);
    CHECK(kernels[1].shared_bytes == 0);
    CHECK(kernels[2].name == "f");
    CHECK(kernels[2].spill_bytes == 8);
    CHECK(kernels[2].registers == 0);
    CHECK(read_reports("").empty());
}

TEST_CASE("a source that does not compile is refused with the compiler's words") {
    GG_NEED_NVRTC();
    const Compiler compiler;
    const auto compile = [&](const std::string& source, const std::string& architecture) {
        return message_of([&] { compiler.compile({"wrong", source}, {}, architecture, "wrong.cu"); });
    };
    const std::string syntax =
        compile("extern \"C\" __global__ void k(float* x) {\n    x[0] = unheard_of;\n}", "sm_80");
    CHECK(syntax.find("kernels of wrong") == 0);
    CHECK(syntax.find(compiler.name() + " compiles for sm_80") != syntax.npos);
    CHECK(syntax.find("wrong.cu(2): error") != syntax.npos);
    CHECK(syntax.find("unheard_of") != syntax.npos);
    const std::string header = compile("#include \"gg/cuda/unheard_of.cuh\"\n", "sm_80");
    CHECK(header.find("gg/cuda/unheard_of.cuh") != header.npos);
    // A function for the host is none of the device's.
    CHECK(compile("inline int host() { return 1; }", "sm_80").find("__host__") != std::string::npos);
    for (const char* architecture : {"sm_20", "sm_999", "compute_90", "90", "sm_", ""}) {
        CAPTURE(architecture);
        CHECK_FALSE(compiler.knows(architecture));
        const std::string unknown = compile("", architecture);
        CHECK(unknown.find(architecture) != unknown.npos);
        CHECK(unknown.find("which knows sm_") != unknown.npos);
        CHECK(unknown.find("pip install -U nvidia-cuda-nvrtc") != unknown.npos);
    }
}

TEST_CASE("a missing NVRTC is named with the remedy") {
    gguf_test::TemporaryFolder folder;
    const Folders empty = {folder.path()};
    const std::string none = message_of([&] { Compiler compiler(empty); });
    CHECK(none.find("libnvrtc.so.13 or libnvrtc.so.12") != none.npos);
    CHECK(none.find("none in " + folder.path().string()) != none.npos);
    CHECK(none.find("pip install nvidia-cuda-nvrtc") != none.npos);
    CHECK(none.find("CUDA_HOME") != none.npos);
    CHECK(message_of([&] { Compiler compiler(Folders{}); }).find("pip install") != std::string::npos);
    // One that is there but cannot be loaded is named with the loader's reason.
    std::ofstream(folder / "libnvrtc.so.13") << "no library";
    const std::string broken = message_of([&] { Compiler compiler(empty); });
    CHECK(broken.find((folder / "libnvrtc.so.13").string() + ": ") != broken.npos);
    CHECK(broken.find("pip install nvidia-cuda-nvrtc") != broken.npos);
}
