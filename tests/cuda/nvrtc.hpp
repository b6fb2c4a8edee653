// What tests of the run-time compiler share.
#pragma once

#include <string>

#include "catch.hpp"
#include "gg/core/error.hpp"
#include "gg/cuda/compiler.hpp"

namespace cuda_test {

/// Skips the test, counted, where there is no NVRTC.
#define GG_NEED_NVRTC()                                                                           \
    do {                                                                                          \
        if (gg::cuda::find_library(gg::cuda::nvrtc_query(), gg::cuda::library_folders()).empty()) \
            GG_SKIP("no NVRTC");                                                                  \
    } while (false)

/// The message of the cuda_error that f throws; empty if it throws none.
template <class F>
std::string message_of(F&& f) {
    try {
        f();
    } catch (const gg::Error& error) {
        CHECK(error.code() == gg::ErrorCode::cuda_error);
        return error.what();
    }
    return {};
}

}  // namespace cuda_test
