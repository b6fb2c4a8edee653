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

/// A kernel of a module, ready to be launched on the device that was current when it was made.
class Kernel {
  public:
    Kernel() = default;
    Kernel(cudaKernel_t kernel, std::string name, std::size_t shared_bytes)
        : kernel_(kernel), name_(std::move(name)), shared_bytes_(shared_bytes) {}

    const std::string& name() const { return name_; }
    explicit operator bool() const { return kernel_ != nullptr; }

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
        const cudaError_t result =
            cudaLaunchKernelExC(&config, reinterpret_cast<const void*>(kernel_), pointers);
        if (result != cudaSuccess) check(result, "launching the kernel " + name_);
    }

  private:
    cudaKernel_t kernel_ = nullptr;
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

    /// A kernel that is launched with `shared_bytes` of dynamic shared memory. All kernels ask for the
    /// largest share of shared memory that the chip can set, so that neighbours can overlap without a switch.
    Kernel kernel(const std::string& name, std::size_t shared_bytes) const {
        cudaKernel_t kernel = nullptr;
        check(cudaLibraryGetKernel(&kernel, library_, name.c_str()),
              "finding the kernel " + name + " of " + name_);
        const void* function = reinterpret_cast<const void*>(kernel);
        check(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   static_cast<int>(shared_bytes)),
              "reserving " + std::to_string(shared_bytes) + " bytes of shared memory for the kernel " + name);
        check(cudaFuncSetAttribute(function, cudaFuncAttributePreferredSharedMemoryCarveout,
                                   cudaSharedmemCarveoutMaxShared),
              "choosing the shared memory of the kernel " + name);
        return Kernel(kernel, name, shared_bytes);
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
