// The chain that decode_chain.hpp declares, in the namespace GG_CHAIN.
#pragma once

#include <cstring>

#include "cuda/decode_chain.hpp"
#include "cuda/launch.cuh"
#include "cuda/stage_cases.hpp"
#include "gg/cuda/down_stage.cuh"
#include "gg/cuda/output_stage.cuh"
#include "gg/cuda/qkv_stage.cuh"
#include "gg/cuda/up_stage.cuh"

namespace GG_CHAIN {

using namespace cuda_test;

/// Tiles of random weights, about as large as 1 / sqrt(columns) for the widths used here.
template <class Format>
std::vector<unsigned char> random_tiles(int tiles, Random& random) {
    constexpr int bytes = TileBytes<Format>::bytes;
    std::vector<unsigned char> all(static_cast<std::size_t>(tiles) * bytes);
    for (unsigned char& byte : all) byte = static_cast<unsigned char>(random.bits());
    for (std::size_t begin = 0; begin < all.size(); begin += bytes) {
        unsigned char* tile = all.data() + begin;
        if constexpr (std::is_same_v<Format, gg::format::MXFP4>) {
            for (int i = 512; i < bytes; ++i)
                tile[i] = static_cast<unsigned char>(Codes<Format>::scale(random) + 14);
        } else {
            constexpr bool scaled = TileBytes<Format>::scaled;
            for (int i = scaled ? 1024 : 0; i < bytes; i += 2)
                put_16(tile + i, scaled ? Codes<Format>::scale(random) : Codes<Format>::element(random));
        }
    }
    return all;
}

/// What stands for attention.
struct MixArgs {
    const float* qkv;  ///< [slots][rows][width]
    unsigned short* mixed;
    int used_rows;
    int* overflows;
};

/// mixed_i = q_i + v_(i mod width of v) / 2, of the sums over slots.
template <class Stage, class Dims, class Operand, int rows>
struct MixStage {
    using Args = MixArgs;
    static constexpr int threads = 128, shared_bytes = 0, blocks_of_grid = 7;

    __device__ static void run(const Args& args) {
        using namespace gg::cuda;
        constexpr int width = Dims::heads * Dims::head_dim, kv_width = Dims::kv_heads * Dims::head_dim;
        constexpr QkvColumns columns = qkv_columns(Dims::heads, Dims::kv_heads, Dims::head_dim);
        static_assert(width % 64 == 0);
        launch_next();
        wait_for_previous();
        const auto value = [&](int n, int i) {
            float sum = 0.0f;
            for (int q = 0; q < Stage::plan.slots; ++q)
                sum += load_cg(args.qkv + (q * rows + n) * columns.width + i);
            return sum;
        };
        const auto mixed = [&](int n, int i) {
            return value(n, i) + 0.5f * value(n, columns.v + i % kv_width);
        };
        jitter();
        for (int i = static_cast<int>(blockIdx.x) * threads + static_cast<int>(threadIdx.x);
             i < args.used_rows * width / 2; i += blocks_of_grid * threads) {
            const int n = i / (width / 2), k = i % (width / 2) * 2;
            store_operand<Operand>(args.mixed + n * width, Size(rows) * width, Size(k), mixed(n, k),
                                   mixed(n, k + 1), args.overflows);
        }
    }
};

constexpr int layers = 2;

template <class Dims, class Norm_, class Block, class AttentionFormat, class FeedFormat, int rows_>
struct ChainTypes {
    using Norm = Norm_;
    using Feed = gg::cuda::FeedForward<Block, Dims>;
    using AttentionOperand = typename gg::cuda::Tile<AttentionFormat>::Operand;
    using FeedOperand = typename gg::cuda::Tile<FeedFormat>::Operand;
    static constexpr int rows = rows_, slots = 4, hidden = Dims::hidden;
    static constexpr int mixed_width = Dims::heads * Dims::head_dim;
    static constexpr int qkv_width = gg::cuda::qkv_columns(Dims::heads, Dims::kv_heads, Dims::head_dim).width;
    using Qkv = gg::cuda::QkvStage<Dims, Norm, AttentionFormat, rows, slots>;
    using Output = gg::cuda::OutputStage<Dims, AttentionFormat, rows, slots, Feed::experts>;
    using Up = gg::cuda::UpStage<Dims, Norm, Block, FeedFormat, FeedOperand, rows, slots>;
    using Down = gg::cuda::DownStage<Dims, Block, FeedFormat, rows, slots, 0>;
    static_assert(Output::plan.slots <= slots && Down::plan.slots <= slots);
    static_assert(Feed::width % 64 == 0, "so that h has no padding and can be poisoned whole");

    using Mix = MixStage<Qkv, Dims, AttentionOperand, rows>;
    static constexpr int experts = Feed::routed ? Feed::experts : 1;
    static constexpr int attention_planes = AttentionOperand::planes, feed_planes = FeedOperand::planes;

    static std::vector<unsigned char> qkv_tiles(Random& r) {
        return random_tiles<AttentionFormat>(qkv_width / 16 * ((hidden + 63) / 64), r);
    }
    static std::vector<unsigned char> output_tiles(Random& r) {
        return random_tiles<AttentionFormat>((hidden + 15) / 16 * (mixed_width / 64), r);
    }
    static constexpr int up_expert_tiles = Up::matrix_rows * ((hidden + 63) / 64);
    static constexpr int down_expert_tiles = (hidden + 15) / 16 * (Feed::width / 64);
    static constexpr int tile_bytes = gg::cuda::Tile<FeedFormat>::bytes;
    static std::vector<unsigned char> up_tiles(Random& r) {
        return random_tiles<FeedFormat>(experts * up_expert_tiles, r);
    }
    static std::vector<unsigned char> down_tiles(Random& r) {
        return random_tiles<FeedFormat>(experts * down_expert_tiles, r);
    }
};

/// The weights of one layer.
template <class T>
struct LayerWeights {
    DeviceArray<unsigned char> qkv, output, up, down;
    DeviceArray<float> gain, norm_bias, router, bias;

    explicit LayerWeights(Random& r)
        : qkv(T::qkv_tiles(r)),
          output(T::output_tiles(r)),
          up(T::up_tiles(r)),
          down(T::down_tiles(r)),
          gain(r.floats(T::hidden, 0.5f, 1.5f)),
          norm_bias(r.floats(T::hidden, -0.2f, 0.2f)),
          router(r.floats(elements(T::hidden, T::experts), -0.1f, 0.1f)),
          // one for all: the longest that any stage reads
          bias(r.floats(elements(T::experts, T::hidden + T::qkv_width + T::Feed::width), -0.3f, 0.3f)) {}

    auto norm() const {
        typename T::Norm::template Weights<gg::cuda::CudaStore> w{};
        w.gain.data = gain.data();
        if constexpr (T::Norm::centred) w.bias.data = norm_bias.data();
        return w;
    }
};

template <class T>
class ChainRun {
  public:
    ChainRun()
        : random_(42),
          first_(random_),
          second_(random_),
          start_(random_.floats(elements(T::Down::plan.slots, T::rows, T::hidden), -1.0f, 1.0f)),
          x_(start_),
          between_(poison<float>(elements(T::Output::plan.slots, T::rows, T::hidden))),
          qkv_(poison<float>(elements(T::Qkv::plan.slots, T::rows, T::qkv_width))),
          mixed_(poison<unsigned short>(elements(T::attention_planes, T::rows, T::mixed_width))),
          h_(poison<unsigned short>(h_size)),
          sums_(poison<float>(elements(T::Output::plan.blocks, T::rows, T::experts))),
          choice_(std::vector<int>(choice_size, 0)),
          overflows_(std::vector<int>{0}) {
        REQUIRE(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking) == cudaSuccess);
    }
    ChainRun(const ChainRun&) = delete;
    ChainRun& operator=(const ChainRun&) = delete;
    ~ChainRun() { cudaStreamDestroy(stream_); }

    ChainBits run(ChainLaunch how, int runs) {
        const bool dependent = how == ChainLaunch::dependent_stream || how == ChainLaunch::dependent_graph;
        cudaGraphExec_t executable = nullptr;
        if (how == ChainLaunch::graph || how == ChainLaunch::dependent_graph)
            executable = make_graph(dependent);
        ChainBits all;
        for (int i = 0; i < runs; ++i) {
            reset();
            if (executable)
                REQUIRE(cudaGraphLaunch(executable, stream_) == cudaSuccess);
            else
                enqueue(dependent);
            REQUIRE(cudaStreamSynchronize(stream_) == cudaSuccess);
            all.push_back(result());
        }
        if (executable) REQUIRE(cudaGraphExecDestroy(executable) == cudaSuccess);
        return all;
    }

  private:
    using Chosen = gg::cuda::Choice<T::rows, T::Feed::used, T::Feed::most(T::rows)>;
    static constexpr std::size_t choice_size = sizeof(Chosen) / sizeof(int);
    static constexpr std::size_t h_size = elements(T::feed_planes, T::rows* T::Feed::used, T::Feed::width);
    static constexpr int kernels = 5 * layers, used_rows = T::rows == 1 ? 1 : T::rows - 3;

    template <class Value>
    static std::vector<Value> poison(std::size_t count) {
        std::vector<Value> values(count);
        std::memset(values.data(), 0xFF, count * sizeof(Value));
        return values;
    }
    template <class Value>
    static void copy(const DeviceArray<Value>& to, const std::vector<Value>& from) {
        REQUIRE(cudaMemcpy(to.data(), from.data(), from.size() * sizeof(Value), cudaMemcpyHostToDevice) ==
                cudaSuccess);
    }

    /// Everything that the chain writes, so that nothing of an earlier run can be taken for this one's. A
    /// choice of zeros can be followed without leaving the buffers.
    void reset() {
        copy(x_, start_);
        copy(between_, poison<float>(elements(T::Output::plan.slots, T::rows, T::hidden)));
        copy(qkv_, poison<float>(elements(T::Qkv::plan.slots, T::rows, T::qkv_width)));
        copy(mixed_, poison<unsigned short>(elements(T::attention_planes, T::rows, T::mixed_width)));
        copy(h_, poison<unsigned short>(h_size));
        copy(sums_, poison<float>(elements(T::Output::plan.blocks, T::rows, T::experts)));
        copy(choice_, std::vector<int>(choice_size, 0));
        copy(overflows_, std::vector<int>{0});
        REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
    }

    void enqueue(bool dependent) {
        layer(first_, dependent);
        layer(second_, dependent);
    }

    void layer(const LayerWeights<T>& w, bool dependent) {
        const gg::cuda::LaunchOptions how{.early = dependent};
        const gg::cuda::ResidualStream x{x_.data(), T::Down::plan.slots};
        const gg::cuda::ResidualStream between{between_.data(), T::Output::plan.slots};
        const float* bias = T::Feed::has_bias ? w.bias.data() : nullptr;
        launch<typename T::Qkv>({x, w.norm(), w.qkv.data(), bias, qkv_.data(), used_rows, overflows_.data()},
                                stream_, how);
        launch<typename T::Mix>(T::Mix::blocks_of_grid,
                                {qkv_.data(), mixed_.data(), used_rows, overflows_.data()}, stream_, how);
        launch<typename T::Output>(
            {x, mixed_.data(), w.output.data(), bias, T::Feed::routed ? w.router.data() : nullptr,
             between_.data(), sums_.data(), used_rows},
            stream_, how);
        gg::cuda::UpArgs<typename T::Norm> up{};
        up.x = between;
        up.norm = w.norm();
        up.tiles = w.up.data();
        up.expert_bytes = 1ull * T::up_expert_tiles * T::tile_bytes;
        up.gate_bias = bias;
        up.up_bias = bias;
        up.h = h_.data();
        up.router_sums = sums_.data();
        up.router_blocks = T::Output::plan.blocks;
        up.router_bias = bias;
        up.choice = choice_.data();
        up.used_rows = used_rows;
        up.overflows = overflows_.data();
        launch<typename T::Up>(up, stream_, how);
        gg::cuda::DownArgs down{};
        down.x = between;
        down.h = h_.data();
        down.tiles = w.down.data();
        down.expert_bytes = 1ull * T::down_expert_tiles * T::tile_bytes;
        down.bias = bias;
        down.choice = choice_.data();
        down.out = x_.data();
        down.used_rows = used_rows;
        launch<typename T::Down>(down, stream_, how);
    }

    cudaGraphExec_t make_graph(bool dependent) {
        enqueue(false);  // so that every kernel has been loaded
        REQUIRE(cudaStreamSynchronize(stream_) == cudaSuccess);
        cudaGraph_t graph = nullptr;
        REQUIRE(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeRelaxed) == cudaSuccess);
        enqueue(dependent);
        REQUIRE(cudaStreamEndCapture(stream_, &graph) == cudaSuccess);
        check_edges(graph, dependent && attributes_of<typename T::Qkv>().ptxVersion >= 90);
        cudaGraphExec_t executable = nullptr;
        REQUIRE(cudaGraphInstantiate(&executable, graph, 0) == cudaSuccess);
        REQUIRE(cudaGraphDestroy(graph) == cudaSuccess);
        return executable;
    }

    /// A chain: each kernel but the first has one edge to it, all of one type.
    static void check_edges(cudaGraph_t graph, bool programmatic) {
        std::size_t count = 64;
        cudaGraphNode_t from[64], to[64];
        cudaGraphEdgeData data[64];
#if CUDART_VERSION >= 13000
        REQUIRE(cudaGraphGetEdges(graph, from, to, data, &count) == cudaSuccess);
#else
        REQUIRE(cudaGraphGetEdges_v2(graph, from, to, data, &count) == cudaSuccess);
#endif
        REQUIRE(count == kernels - 1);
        for (std::size_t i = 0; i < count; ++i)
            CHECK(data[i].type ==
                  (programmatic ? cudaGraphDependencyTypeProgrammatic : cudaGraphDependencyTypeDefault));
    }

    std::vector<unsigned> result() const {
        const std::vector<float> x = x_.read();
        const std::vector<unsigned short> h = h_.read();
        std::vector<unsigned> bits;
        long not_finite = 0;
        for (int q = 0; q < T::Down::plan.slots; ++q)
            for (int i = 0; i < used_rows * T::hidden; ++i) {
                const float value = x[static_cast<std::size_t>(q) * T::rows * T::hidden + i];
                not_finite += !std::isfinite(value);
                bits.push_back(gg::float_bits(value));
            }
        CHECK(not_finite == 0);
        CHECK(overflows_.read()[0] == 0);
        const std::size_t plane = h_size / T::feed_planes;
        for (int p = 0; p < T::feed_planes; ++p)
            for (std::size_t i = 0; i < elements(used_rows, T::Feed::used, T::Feed::width); ++i)
                bits.push_back(h[static_cast<std::size_t>(p) * plane + i]);
        return bits;
    }

    Random random_;
    LayerWeights<T> first_, second_;
    std::vector<float> start_;
    DeviceArray<float> x_, between_, qkv_;
    DeviceArray<unsigned short> mixed_, h_;
    DeviceArray<float> sums_;
    DeviceArray<int> choice_, overflows_;
    cudaStream_t stream_ = nullptr;
};

// Types of this namespace, so that the kernels have names of their own.
struct RoutedDims : TestDims<LargeChip, 512, 8, 2, 64, 512, 6, 2> {};
struct DenseDims : TestDims<SmallChip, 320, 5, 1, 64, 640> {};

ChainBits run_routed(ChainLaunch how, int runs) {
    using Block = gg::MixtureOfExperts<gg::ClampedSwiglu, gg::Bias>;
    ChainRun<ChainTypes<RoutedDims, gg::RmsNorm, Block, gg::format::Q8_0, gg::format::MXFP4, 1>> chain;
    return chain.run(how, runs);
}

ChainBits run_dense(ChainLaunch how, int runs) {
    using Block = gg::Mlp<gg::GeluTanh, gg::Bias>;
    ChainRun<ChainTypes<DenseDims, gg::LayerNorm, Block, gg::format::BF16, gg::format::F16, 8>> chain;
    return chain.run(how, runs);
}

}  // namespace GG_CHAIN
