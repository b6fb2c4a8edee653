// Catch2 version 3 where it is installed, version 2 otherwise.
#pragma once

#include <cstdio>
#include <string>

#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
using Catch::Approx;
#else
#include <catch2/catch.hpp>
#endif

// Ends a test that cannot run here: counted by tests/tools/summary.py, never silently passed. Catch2's own
// SKIP is not used: version 2 lacks it, and in version 3 a program whose tests are all skipped fails.
#define GG_SKIP(reason)                                                            \
    do {                                                                           \
        const std::string gg_test(Catch::getResultCapture().getCurrentTestName()); \
        std::printf("SKIPPED: %s (in test %s)\n", reason, gg_test.c_str());        \
        return;                                                                    \
    } while (false)
