// GPUs as the runtime shows them, what is said when there is none, and launching what was compiled.
#include "gg/cuda/device.hpp"

#include "catch.hpp"
#include "device.hpp"
#include "gg/cuda/compiler.hpp"
#include "gg/cuda/module.hpp"
#include "nvrtc.hpp"

using namespace gg::cuda;
using cuda_test::DeviceArray;

namespace {

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != text.npos;
}

/// y = factor * x + bias by way of dynamic shared memory.
constexpr const char* scale_source = R"(
struct Args { const float* x; float* y; int count; float factor; };
__device__ float bias = 0.25f;
__device__ int launches;
extern "C" __global__ void scale(const __grid_constant__ Args args) {
    extern __shared__ float staged[];
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i == 0) ++launches;
    float* mine = staged + LAST - threadIdx.x;
    if (i < args.count) *mine = args.x[i];
    if (i < args.count) args.y[i] = args.factor * *mine + bias;
})";

struct Args {
    const float* x;
    float* y;
    int count;
    float factor;
};

}  // namespace

TEST_CASE("architectures have the names that compilers use") {
    const auto name = [](int major, int minor) {
        return DeviceInfo{.name = "", .major = major, .minor = minor}.architecture();
    };
    CHECK(name(8, 0) == "sm_80");
    CHECK(name(8, 9) == "sm_89");
    CHECK(name(9, 0) == "sm_90a");
    CHECK(name(10, 0) == "sm_100");
    CHECK(name(12, 0) == "sm_120a");
    CHECK(name(12, 1) == "sm_121");
}

TEST_CASE("why no GPU can be used, and the remedy") {
    const auto told = [](int driver, const std::string& module, int runtime, cudaError_t result,
                         std::vector<DeviceInfo> all = {}) {
        const Devices none = gg::cuda::detail::no_device(driver, module, runtime, result, all);
        CHECK(none.usable.empty());
        CHECK(none.remedy.ends_with('.'));
        return none.problem + ". " + none.remedy;
    };
    CHECK(told(0, "", 13000, cudaErrorInsufficientDriver) ==
          "no NVIDIA driver is installed. Install driver 580 or later.");
    CHECK(contains(told(0, "580.82.07", 13000, cudaErrorInsufficientDriver), "libcuda.so.1"));
    const std::string old = told(12040, "550.54.15", 13000, cudaErrorInsufficientDriver);
    CHECK(contains(old, "driver 550.54.15 is too old: it knows CUDA 12.4, this program needs 13.0"));
    CHECK(contains(old, "580 or later"));
    CHECK(contains(told(11080, "", 12080, cudaErrorInsufficientDriver), "525 or later"));
    CHECK(contains(told(13000, "580.82.07", 13000, cudaErrorNoDevice), "sees no GPU"));
    CHECK(contains(told(13000, "580.82.07", 13000, cudaSuccess), "sees no GPU"));
    CHECK(contains(told(13000, "", 13000, cudaErrorSystemNotReady), "cudaErrorSystemNotReady"));
    const std::string small =
        told(13000, "", 13000, cudaSuccess, {{.name = "Tesla T4", .major = 7, .minor = 5}});
    CHECK(contains(small, "Tesla T4 (sm_75)"));
    CHECK(contains(small, "8.0"));
}

TEST_CASE("the GPUs of this machine") {
    const Devices devices = find_devices();
    CHECK(devices.usable.empty() == !devices.problem.empty());
    for (const DeviceInfo& device : devices.usable) {
        CHECK_FALSE(device.name.empty());
        CHECK(device.usable());
        CHECK(device.multiprocessors > 0);
        CHECK(device.total_bytes > 1 << 30);
        CHECK(device.shared_bytes >= 99 << 10);
        CHECK(device.shared_multiprocessor_bytes > device.shared_bytes);
        CHECK(&devices.at(device.index) == &device);
    }
    try {
        devices.at(1000);
        FAIL("there is no device 1000");
    } catch (const gg::Error& error) {
        CHECK(error.code() == gg::ErrorCode::invalid_request);
        CHECK(contains(error.what(), "CUDA device 1000"));
        CHECK(contains(error.what(), devices.usable.empty() ? devices.problem : devices.usable[0].name));
    }
}

TEST_CASE("errors of the runtime become gg's") {
    CHECK_NOTHROW(check(cudaSuccess, "nothing"));
    const std::string message = cuda_test::message_of([] { check(cudaErrorInvalidValue, "asking"); });
    CHECK(contains(message, "asking"));
    CHECK(contains(message, "cudaErrorInvalidValue"));
    try {
        check(cudaErrorMemoryAllocation, "allocating 5 bytes");
        FAIL("no exception");
    } catch (const gg::Error& error) {
        CHECK(error.code() == gg::ErrorCode::out_of_memory);
        CHECK(contains(error.what(), "allocating 5 bytes"));
    }
}

TEST_CASE("a compiled kernel is loaded and launched") {
    GG_NEED_GPU();
    GG_NEED_NVRTC();
    const Devices devices = find_devices();
    REQUIRE_FALSE(devices.usable.empty());
    const DeviceInfo& device = devices.usable[0];
    REQUIRE(cudaSetDevice(device.index) == cudaSuccess);
    // The last float of the dynamic memory is used, and it is more than a block gets without asking.
    const std::size_t shared_bytes = 64 << 10;
    const CompileUnit unit = {"scale", scale_source, {"-DLAST=" + std::to_string(shared_bytes / 4 - 1)}};
    const CompiledUnit compiled = Compiler().compile(unit, {}, device.architecture(), "scale.cu");
    Module first(compiled.cubin, "scale");
    Module module = std::move(first);
    const Kernel kernel = module.kernel("scale", shared_bytes);
    CHECK(kernel.name() == "scale");

    constexpr int count = 1000, threads = 96;
    std::vector<float> values(count);
    for (int i = 0; i < count; ++i) values[static_cast<std::size_t>(i)] = static_cast<float>(i);
    const DeviceArray<float> x(values), y(std::vector<float>(count, -1.0f));
    const Args args = {x.data(), y.data(), count, 2.0f};
    cudaStream_t stream = nullptr;
    REQUIRE(cudaStreamCreate(&stream) == cudaSuccess);
    const bool programmatic = device.major >= 9;
    for (int launch = 0; launch < 3; ++launch)
        kernel.launch(dim3((count + threads - 1) / threads), threads, stream, args,
                      programmatic && launch > 0);
    REQUIRE(cudaStreamSynchronize(stream) == cudaSuccess);
    const std::vector<float> got = y.read();
    for (int i = 0; i < count; ++i)
        CHECK(got[static_cast<std::size_t>(i)] == 2.0f * static_cast<float>(i) + 0.25f);

    const Module::Global launches = module.global("launches");
    int number = 0;
    REQUIRE(launches.bytes == sizeof number);
    REQUIRE(cudaMemcpy(&number, launches.address, sizeof number, cudaMemcpyDeviceToHost) == cudaSuccess);
    CHECK(number == 3);
    CHECK(cudaStreamDestroy(stream) == cudaSuccess);

    CHECK(contains(cuda_test::message_of([&] { module.kernel("unheard_of", 0); }), "unheard_of"));
    CHECK(contains(cuda_test::message_of([&] { module.global("unheard_of"); }), "unheard_of"));
    CHECK(contains(cuda_test::message_of([&] { module.kernel("scale", std::size_t{1} << 30); }), "scale"));
    // Code may be looked at as late as its first use.
    CHECK(contains(cuda_test::message_of(
                       [] { Module("no code at all, but some bytes", "nonsense").kernel("scale", 0); }),
                   "nonsense"));
    // A launch that cannot be, too many threads, is told at once and leaves nothing behind.
    CHECK(contains(cuda_test::message_of([&] { kernel.launch(dim3(1), 5000, nullptr, args); }), "scale"));
    CHECK(cudaGetLastError() == cudaSuccess);
}
