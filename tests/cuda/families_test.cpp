// The kernels of every family, compiled for every architecture that gg names: no decode kernel keeps a
// register in memory. What was compiled is kept in the cache of kernels, so only what changed is compiled
// again.
#include <chrono>
#include <cstdio>
#include <set>

#include "catch.hpp"
#include "gg/cuda/device_headers.hpp"
#include "gg/cuda/engine.hpp"
#include "nvrtc.hpp"

using namespace gg::cuda;

namespace {

/// Chips as they are sold: A100, RTX 4090, H100 SXM, RTX 5090.
const Target targets[] = {{"sm_80", 108}, {"sm_89", 128}, {"sm_90a", 132}, {"sm_120a", 170}};

/// gpt-oss-20b with the formats of its usual file.
std::vector<CompileUnit> gpt_oss_20b(const Target& target) {
    gg::Dims dims;
    dims.layers = 24;
    dims.hidden = 2880;
    dims.heads = 64;
    dims.kv_heads = 8;
    dims.head_dim = 64;
    dims.feed_forward = dims.expert_feed_forward = 2880;
    dims.experts = 32;
    dims.experts_used = 4;
    dims.vocabulary = 201088;
    dims.context = 131072;
    dims.window = 128;
    for (int layer = 0; layer < dims.layers; ++layer) dims.sliding.push_back(layer % 2 == 0);
    dims.norm_epsilon = 1e-5f;
    dims.rope_base = 150000;
    dims.yarn_factor = 32;
    dims.yarn_original_context = 4096;
    const BranchFormats attention = {gg::DType::q8_0, gg::DType::q8_0},
                        experts = {gg::DType::mxfp4, gg::DType::mxfp4};
    ModelFormats formats{{}, gg::DType::q8_0, gg::DType::q8_0};
    formats.layers.assign(static_cast<std::size_t>(dims.layers), {attention, experts});
    std::vector<CompileUnit> units;
    for (const KernelUnit& unit : detail::all_units<gg::GptOss>(dims, formats, target))
        units.push_back(unit.unit);
    return units;
}

std::vector<CompileUnit> units_of(const std::string& model, const Target& target) {
    if (model == "gpt-oss-20b") return gpt_oss_20b(target);
    return model_units(gg::gguf::File::open(GG_TEST_DATA "/model/" + model + ".gguf"), target);
}

void check_model(const std::string& model) {
    const Compiler compiler;
    KernelCache cache(gg::cuda::device_headers());
    for (const Target& target : targets) {
        if (!compiler.knows(target.architecture)) {
            std::printf("SKIPPED: %s does not know %s\n", compiler.name().c_str(),
                        target.architecture.c_str());
            continue;
        }
        const auto begin = std::chrono::steady_clock::now();
        const std::vector<CompiledUnit> units = cache.load(units_of(model, target), target.architecture);
        const std::chrono::duration<double> time = std::chrono::steady_clock::now() - begin;
        int decode_kernels = 0, compiled = 0;
        std::set<std::string> names;
        for (const CompiledUnit& unit : units) {
            INFO(unit.name << " for " << target.architecture << "\n" << unit.log);
            compiled += !unit.cached;
            CHECK(
                unit.cubin.starts_with("\x7f"
                                       "ELF"));
            CHECK(unit.log.find("warning") == unit.log.npos);
            CHECK_FALSE(unit.kernels.empty());
            const bool decodes = unit.name.find("_decode_") != unit.name.npos;
            for (const KernelReport& kernel : unit.kernels) {
                INFO(kernel.name);
                CHECK((kernel.registers == 0 || names.insert(kernel.name).second));
                if (!decodes) continue;
                ++decode_kernels;
                CHECK(kernel.spill_bytes == 0);
            }
        }
        // Five kernels of a layer and the head, for one row and for eight.
        CHECK(decode_kernels >= 10);
        std::printf("%s for %s: %d of %zu units compiled in %.1f s\n", model.c_str(),
                    target.architecture.c_str(), compiled, units.size(), time.count());
    }
}

}  // namespace

TEST_CASE("GPT-2 compiles for every architecture without spills") {
    GG_NEED_NVRTC();
    check_model("gpt2-f32");
}

TEST_CASE("a Llama-shaped model compiles for every architecture without spills") {
    GG_NEED_NVRTC();
    check_model("llama-320");
}

TEST_CASE("gpt-oss compiles for every architecture without spills") {
    GG_NEED_NVRTC();
    check_model("gpt-oss-mxfp4");
}

TEST_CASE("gpt-oss-20b compiles for every architecture without spills") {
    GG_NEED_NVRTC();
    check_model("gpt-oss-20b");
}
