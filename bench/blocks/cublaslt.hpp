// cuBLASLt beside gg's products: the same shape in FP16 or BF16, sums in FP32. The library is loaded when
// first asked for; where it is missing, the comparisons are left out.
//
//   D [n][m] = X [n][k] W [m][k]^T
//
// The fastest of the algorithms that its heuristic proposes for a shape is taken, by a trial of each.
#pragma once

#include <cublasLt.h>

#include <memory>
#include <string>
#include <vector>

#include "gg/cuda/device_memory.hpp"
#include "timing.hpp"

namespace gg::bench {

class CublasLt {
  public:
    /// The library, or nullptr where it cannot be loaded, which is then said once on standard error.
    static const CublasLt* get();

    /// "cuBLASLt 13.0.2".
    const std::string& name() const { return name_; }

    /// One product, ready to be enqueued on any operands of its shape.
    class Product {
      public:
        struct Shape {
            cudaDataType_t type;    ///< of W and X
            cudaDataType_t result;  ///< of D
            int m, n, k;
        };
        /// Tries the algorithms on these operands.
        Product(const CublasLt& library, const Shape& shape, const void* w, const void* x, void* d);
        Product(const Product&) = delete;
        Product& operator=(const Product&) = delete;
        ~Product();

        void enqueue(cudaStream_t stream, const void* w, const void* x, void* d) const {
            library_.check(enqueue_with(algorithm_, stream, w, x, d), "a product");
        }

      private:
        cublasStatus_t enqueue_with(const cublasLtMatmulAlgo_t& algorithm, cudaStream_t stream, const void* w,
                                    const void* x, void* d) const;

        const CublasLt& library_;
        cublasLtMatmulDesc_t operation_ = nullptr;
        cublasLtMatrixLayout_t w_ = nullptr, x_ = nullptr, d_ = nullptr;
        cublasLtMatmulAlgo_t algorithm_ = {};
    };

  private:
    CublasLt();
    void check(cublasStatus_t status, const char* what) const;

    std::string name_;
    cublasLtHandle_t handle_ = nullptr;
    cuda::DeviceBuffer<unsigned char> workspace_;
    decltype(&cublasLtCreate) create_ = nullptr;
    decltype(&cublasLtGetVersion) version_ = nullptr;
    decltype(&cublasLtMatmul) matmul_ = nullptr;
    decltype(&cublasLtMatmulDescCreate) operation_create_ = nullptr;
    decltype(&cublasLtMatmulDescDestroy) operation_destroy_ = nullptr;
    decltype(&cublasLtMatmulDescSetAttribute) operation_set_ = nullptr;
    decltype(&cublasLtMatrixLayoutCreate) layout_create_ = nullptr;
    decltype(&cublasLtMatrixLayoutDestroy) layout_destroy_ = nullptr;
    decltype(&cublasLtMatmulPreferenceCreate) preference_create_ = nullptr;
    decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy_ = nullptr;
    decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set_ = nullptr;
    decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic_ = nullptr;
};

}  // namespace gg::bench
