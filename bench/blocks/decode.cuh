// The rows of the fused stages of decoding but attention, for steps of so many rows.
#pragma once

#include <memory>

#include "decode_dense.cuh"
#include "decode_experts.cuh"

namespace gg::bench {

template <int rows>
void bench_decode(Bench& bench) {
    const std::string shape = std::to_string(rows) + (rows == 1 ? " row, " : " rows, ");
    std::unique_ptr<DenseStages<rows>> dense;  // made when first wanted
    std::unique_ptr<ExpertStages<rows>> experts;
    const auto get = [&](auto& stages) -> auto& {
        using Stages = std::remove_reference_t<decltype(*stages)>;
        if (!stages) stages = std::make_unique<Stages>(bench);
        return *stages;
    };
    bench.measure("decode: norm, q, k, v", shape + "Q8_0", [&] { return get(dense).qkv(); });
    bench.measure("decode: output, residual", shape + "Q8_0", [&] { return get(dense).output(); });
    bench.measure("decode: norm, route, up", shape + "MXFP4", [&] { return get(experts).up(); });
    bench.measure("decode: down, residual", shape + "MXFP4", [&] { return get(experts).down(); });
    bench.measure("decode: norm, head", shape + "Q8_0", [&] { return get(dense).head(); });
}

}  // namespace gg::bench
