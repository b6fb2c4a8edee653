#include "cublaslt.hpp"

#include <cstdio>

#include "gg/cuda/device_memory.hpp"
#include "gg/cuda/shared_library.hpp"

namespace gg::bench {

namespace {

constexpr std::size_t workspace_bytes = std::size_t{64} << 20;
constexpr int trials = 8;  ///< algorithms tried for a shape

}  // namespace

const CublasLt* CublasLt::get() {
    static const std::unique_ptr<CublasLt> library = []() -> std::unique_ptr<CublasLt> {
        try {
            return std::unique_ptr<CublasLt>(new CublasLt());
        } catch (const Error& error) {
            std::fprintf(stderr, "note: nothing is measured beside cuBLASLt: %s\n", error.what());
            return nullptr;
        }
    }();
    return library.get();
}

CublasLt::CublasLt() {
    const std::string major = std::to_string(CUBLAS_VER_MAJOR);
    const cuda::SharedLibrary library(
        {.names = {"libcublasLt.so." + major},
         .purpose = "which products are measured beside",
         .remedy = "Install it by \"pip install nvidia-cublas" + (major == "12" ? std::string("-cu12") : "") +
                   "\", or install the CUDA toolkit " + major + ", or set CUDA_HOME."});
    library.bind(create_, "cublasLtCreate");
    library.bind(version_, "cublasLtGetVersion");
    library.bind(matmul_, "cublasLtMatmul");
    library.bind(operation_create_, "cublasLtMatmulDescCreate");
    library.bind(operation_destroy_, "cublasLtMatmulDescDestroy");
    library.bind(operation_set_, "cublasLtMatmulDescSetAttribute");
    library.bind(layout_create_, "cublasLtMatrixLayoutCreate");
    library.bind(layout_destroy_, "cublasLtMatrixLayoutDestroy");
    library.bind(preference_create_, "cublasLtMatmulPreferenceCreate");
    library.bind(preference_destroy_, "cublasLtMatmulPreferenceDestroy");
    library.bind(preference_set_, "cublasLtMatmulPreferenceSetAttribute");
    library.bind(heuristic_, "cublasLtMatmulAlgoGetHeuristic");
    check(create_(&handle_), "its handle");
    workspace_ = cuda::DeviceBuffer<unsigned char>(workspace_bytes, "cuBLASLt's workspace");
    // 130002 is 13.0.2 from version 12 on
    const std::size_t version = version_();
    name_ = "cuBLASLt " + std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
            std::to_string(version % 100);
}

void CublasLt::check(cublasStatus_t status, const char* what) const {
    if (status != CUBLAS_STATUS_SUCCESS)
        throw Error(ErrorCode::cuda_error, {.field = std::string("cuBLASLt, ") + what,
                                            .found = "status " + std::to_string(static_cast<int>(status))});
}

CublasLt::Product::Product(const CublasLt& library, const Shape& s, const void* w, const void* x, void* d)
    : library_(library) {
    const auto ready = [&](cublasStatus_t status) { library_.check(status, "describing a product"); };
    const auto m = static_cast<std::uint64_t>(s.m), n = static_cast<std::uint64_t>(s.n),
               k = static_cast<std::uint64_t>(s.k);
    // column-major: W^T is k x m, X^T is k x n, D^T is m x n
    const cublasOperation_t transposed = CUBLAS_OP_T;
    ready(library_.operation_create_(&operation_, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    ready(library_.operation_set_(operation_, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed));
    ready(library_.layout_create_(&w_, s.type, k, m, s.k));
    ready(library_.layout_create_(&x_, s.type, k, n, s.k));
    ready(library_.layout_create_(&d_, s.result, m, n, s.m));
    cublasLtMatmulPreference_t preference = nullptr;
    ready(library_.preference_create_(&preference));
    const std::size_t bytes = workspace_bytes;
    ready(
        library_.preference_set_(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof bytes));
    const std::uint32_t alignment = 128;  // of X: a row of 2880 has 45 times as many bytes
    ready(library_.preference_set_(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &alignment,
                                   sizeof alignment));
    cublasLtMatmulHeuristicResult_t found[trials] = {};
    int count = 0;
    const cublasStatus_t status =
        library_.heuristic_(library_.handle_, operation_, w_, x_, d_, d_, preference, trials, found, &count);
    library_.preference_destroy_(preference);
    library_.check(status, "its heuristic");
    cuda::check(cudaDeviceSynchronize(), "making the data of a product");
    const cuda::Stream stream;
    const TimedEvent begin, end;
    double least = 0;
    for (int i = 0; i < count; ++i) {
        if (found[i].state != CUBLAS_STATUS_SUCCESS ||
            enqueue_with(found[i].algo, stream, w, x, d) != CUBLAS_STATUS_SUCCESS)
            continue;
        begin.record(stream);
        for (int repeat = 0; repeat < 3; ++repeat)
            library_.check(enqueue_with(found[i].algo, stream, w, x, d), "a trial");
        end.record(stream);
        const double time = end.since(begin);
        if (least > 0 && time >= least) continue;
        least = time;
        algorithm_ = found[i].algo;
    }
    if (least == 0)
        throw Error(ErrorCode::cuda_error,
                    {.field = "cuBLASLt, its heuristic", .expected = "an algorithm", .found = "none"});
}

CublasLt::Product::~Product() {
    if (w_) library_.layout_destroy_(w_);
    if (x_) library_.layout_destroy_(x_);
    if (d_) library_.layout_destroy_(d_);
    if (operation_) library_.operation_destroy_(operation_);
}

cublasStatus_t CublasLt::Product::enqueue_with(const cublasLtMatmulAlgo_t& algorithm, cudaStream_t stream,
                                               const void* w, const void* x, void* d) const {
    const float one = 1.0f, zero = 0.0f;
    return library_.matmul_(library_.handle_, operation_, &one, w, w_, x, x_, &zero, d, d_, d, d_, &algorithm,
                            library_.workspace_.data(), workspace_bytes, stream);
}

}  // namespace gg::bench
