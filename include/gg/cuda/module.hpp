// Compiled code on a GPU: a Module owns what was loaded from a cubin, a Kernel launches one of its functions.
// Kernels and addresses of globals are valid as long as their module.
//
// Kernels take one argument, a struct passed by value (const __grid_constant__). A launch allocates and
// synchronises nothing, and can be captured into a graph: what loading does lazily is done by Module::kernel.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

#include "gg/core/error.hpp"
#include "gg/cuda/device.hpp"

namespace gg::cuda {

/// A kernel and its dynamic shared memory.
class Kernel {
  public:
    Kernel() = default;
    Kernel(const void* function, std::string name, std::size_t shared_bytes)
        : function_(function), name_(std::move(name)), shared_bytes_(shared_bytes) {}

    const std::string& name() const { return name_; }
    explicit operator bool() const { return function_ != nullptr; }

    /// Sets its shared memory on the current device. All kernels ask for the largest share that the chip can
    /// set, so that neighbours can overlap without a switch.
    void prepare() const {
        check(
            cudaFuncSetAttribute(function_, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 static_cast<int>(shared_bytes_)),
            "reserving " + std::to_string(shared_bytes_) + " bytes of shared memory for the kernel " + name_);
        check(cudaFuncSetAttribute(function_, cudaFuncAttributePreferredSharedMemoryCarveout,
                                   cudaSharedmemCarveoutMaxShared),
              "choosing the shared memory of the kernel " + name_);
    }

    /// Enqueues the kernel. `args` points to its argument and is read before this returns. `programmatic`
    /// lets it start before its predecessor in the stream has ended (sm_90 and later); then it must wait
    /// itself (griddepcontrol.wait).
    template <class Args>
    void launch(dim3 grid, unsigned threads, cudaStream_t stream, const Args& args,
                bool programmatic = false) const {
        launch_pointer(grid, threads, stream, &args, programmatic);
    }

    /// The same for an argument whose type is not known here.
    void launch_pointer(dim3 grid, unsigned threads, cudaStream_t stream, const void* args,
                        bool programmatic) const {
        cudaLaunchAttribute attribute = {};
        attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
        attribute.val.programmaticStreamSerializationAllowed = 1;
        cudaLaunchConfig_t config = {};
        config.gridDim = grid;
        config.blockDim = dim3(threads);
        config.dynamicSmemBytes = shared_bytes_;
        config.stream = stream;
        config.attrs = &attribute;
        config.numAttrs = programmatic ? 1 : 0;
        void* pointers[] = {const_cast<void*>(args)};
        const cudaError_t result = cudaLaunchKernelExC(&config, function_, pointers);
        if (result != cudaSuccess) check(result, "launching the kernel " + name_);
    }

  private:
    const void* function_ = nullptr;  ///< a cudaKernel_t, or the host's handle of a __global__ function
    std::string name_;
    std::size_t shared_bytes_ = 0;
};

/// Loaded machine code; unloaded at the end.
class Module {
  public:
    /// Loads a cubin; `name` is for messages. Throws cuda_error.
    Module(std::string_view cubin, std::string name) : name_(std::move(name)) {
        check(cudaLibraryLoadData(&library_, cubin.data(), nullptr, nullptr, 0, nullptr, nullptr, 0),
              "loading the kernels of " + name_);
    }
    Module(const Module&) = delete;
    Module& operator=(const Module&) = delete;
    Module(Module&& other) noexcept
        : library_(std::exchange(other.library_, nullptr)), name_(std::move(other.name_)) {}
    Module& operator=(Module&& other) noexcept {
        std::swap(library_, other.library_);
        std::swap(name_, other.name_);
        return *this;
    }
    ~Module() {
        if (library_ != nullptr) cudaLibraryUnload(library_);
    }

    /// A kernel that is launched with `shared_bytes` of dynamic shared memory.
    Kernel kernel(const std::string& name, std::size_t shared_bytes) const {
        cudaKernel_t kernel = nullptr;
        check(cudaLibraryGetKernel(&kernel, library_, name.c_str()),
              "finding the kernel " + name + " of " + name_);
        const Kernel found(reinterpret_cast<const void*>(kernel), name, shared_bytes);
        found.prepare();
        return found;
    }

    struct Global {
        void* address = nullptr;
        std::size_t bytes = 0;
    };

    /// A __device__ or __constant__ variable.
    Global global(const std::string& name) const {
        Global found;
        check(cudaLibraryGetGlobal(&found.address, &found.bytes, library_, name.c_str()),
              "finding the variable " + name + " of " + name_);
        return found;
    }

  private:
    cudaLibrary_t library_ = nullptr;
    std::string name_;
};

}  // namespace gg::cuda
