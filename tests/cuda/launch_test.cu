// Launching stages: grids, shared memory, early starts, capture, and what is refused.
#include "cuda/launch.cuh"

#include <algorithm>
#include <string>
#include <vector>

#include "gg/cuda/plan.hpp"
#include "gg/cuda/primitives.cuh"

using cuda_test::DeviceArray;
using gg::cuda::launch;
using gg::cuda::LaunchShape;
using gg::cuda::MatvecPlan;
using gg::cuda::prepare;

namespace {

struct AddArgs {
    int* out;  ///< [grid.y][grid.x][threads]
    int factor;
};

/// out = factor out + 1, by way of the last word of the dynamic shared memory.
template <int threads_, int shared_bytes_>
struct AddStage {
    using Args = AddArgs;
    static constexpr int threads = threads_, shared_bytes = shared_bytes_;

    __device__ static void run(const Args& args) {
        extern __shared__ __align__(128) unsigned char shared[];
        int* last = reinterpret_cast<int*>(shared) + shared_bytes / 4 - 1;
        gg::cuda::launch_next();
        gg::cuda::wait_for_previous();
        if (threadIdx.x == 0) *last = 1;
        __syncthreads();
        int* out = args.out + (blockIdx.y * gridDim.x + blockIdx.x) * threads + threadIdx.x;
        *out = args.factor * *out + *last;
    }
};

using Small = AddStage<64, 16>;
/// More shared memory than a block has without asking.
using Large = AddStage<64, 90 * 1024>;

struct Planned : AddStage<96, 1024> {
    static constexpr int residency = 2;
    static constexpr MatvecPlan plan = [] {
        MatvecPlan p{};
        p.blocks = 3;
        p.warps = 3;
        p.shared_bytes = 1024;
        return p;
    }();
};

constexpr int size = 512, poison = -7;

/// Checks that the first `written` elements became `value` and that the others are as they were.
void check_written(const DeviceArray<int>& out, int written, int value) {
    const std::vector<int> found = out.read();
    std::vector<int> expected(size, poison);
    std::fill_n(expected.begin(), written, value);
    CHECK((found == expected));
}

/// The message of the error of that code; empty if there was none, or another.
template <class F>
std::string refusal(gg::ErrorCode code, const F& f) {
    try {
        f();
    } catch (const gg::Error& error) {
        return error.code() == code ? error.what() : "";
    }
    return "";
}

}  // namespace

TEST_CASE("a stage is launched on its plan's grid, or on the one given") {
    GG_NEED_GPU();
    const DeviceArray<int> out(std::vector<int>(size, poison));
    launch<Planned>({out.data(), 0});
    check_written(out, 3 * 96, 1);
    const DeviceArray<int> plain(std::vector<int>(size, poison));
    launch<Small>(2, {plain.data(), 0});
    check_written(plain, 2 * 64, 1);
    const DeviceArray<int> large(std::vector<int>(size, poison));
    for (int i = 0; i < 2; ++i) launch<Large>(dim3(2, 3), {large.data(), i});
    check_written(large, 6 * 64, 2);
    const DeviceArray<int> shaped(std::vector<int>(size, poison));
    launch<Large>(LaunchShape{1, 2, 64, 90 * 1024}, {shaped.data(), 0});
    check_written(shaped, 2 * 64, 1);
}

TEST_CASE("stages that start early run in order, in a stream and in a graph") {
    GG_NEED_GPU();
    prepare<Small>();
    prepare<Large>();
    cudaStream_t stream = nullptr;
    REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
    const DeviceArray<int> out(std::vector<int>(size, poison));
    const auto enqueue = [&] {
        launch<Small>(2, {out.data(), 0}, stream);
        for (const int factor : {2, 3, 5}) launch<Large>(2, {out.data(), factor}, stream, {.early = true});
    };
    enqueue();
    REQUIRE(cudaStreamSynchronize(stream) == cudaSuccess);
    check_written(out, 2 * 64, ((1 * 2 + 1) * 3 + 1) * 5 + 1);

    // Global: any call that could allocate or synchronise would break the capture.
    REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal) == cudaSuccess);
    enqueue();
    launch<Large>(2, {out.data(), 7}, stream, {.early = true});
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
    std::size_t nodes = 0;
    REQUIRE(cudaGraphGetNodes(graph, nullptr, &nodes) == cudaSuccess);
    CHECK(nodes == 5);
    REQUIRE(cudaGraphInstantiate(&executable, graph, 0) == cudaSuccess);
    REQUIRE(cudaGraphLaunch(executable, stream) == cudaSuccess);
    REQUIRE(cudaStreamSynchronize(stream) == cudaSuccess);
    check_written(out, 2 * 64, (((1 * 2 + 1) * 3 + 1) * 5 + 1) * 7 + 1);
    REQUIRE(cudaGraphExecDestroy(executable) == cudaSuccess);
    REQUIRE(cudaGraphDestroy(graph) == cudaSuccess);
    REQUIRE(cudaStreamDestroy(stream) == cudaSuccess);
}

TEST_CASE("a shape that is another stage's is refused") {
    const std::string message = refusal(gg::ErrorCode::invalid_request, [] {
        launch<Small>(LaunchShape{1, 1, 128, 16}, {nullptr, 0});
    });
    CHECK(message.find("AddStage<64, 16>: expected 64 threads and 16 bytes") != std::string::npos);
    CHECK(message.find("found 128 and 16") != std::string::npos);
    CHECK_FALSE(refusal(gg::ErrorCode::invalid_request, [] {
                    launch<Small>(LaunchShape{1, 1, 64, 32}, {nullptr, 0});
                }).empty());
}

TEST_CASE("without a GPU a launch is an error that says so") {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0) GG_SKIP("there is a GPU");
    const std::string message = refusal(gg::ErrorCode::cuda_error, [] { launch<Small>(1, {nullptr, 0}); });
    CHECK(message.find("cudaError") != std::string::npos);
}
