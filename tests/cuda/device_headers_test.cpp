// The headers inside the program: complete, and each readable by the run-time compiler alone.
#include "gg/cuda/device_headers.hpp"

#include <algorithm>
#include <fstream>
#include <iterator>

#include "catch.hpp"
#include "nvrtc.hpp"

using namespace gg::cuda;

TEST_CASE("the program holds the device headers as they are in the tree") {
    const auto headers = gg::cuda::device_headers();
    CHECK(headers.size() > 10);
    for (const HeaderText& header : headers) {
        CAPTURE(header.name);
        std::ifstream file(std::string(GG_SOURCE_DIR "/include/") + std::string(header.name),
                           std::ios::binary);
        const bool equal = header.text == std::string((std::istreambuf_iterator<char>(file)), {});
        CHECK(equal);
        const auto same = [&](const HeaderText& other) { return other.name == header.name; };
        CHECK(std::count_if(headers.begin(), headers.end(), same) == 1);
    }
}

TEST_CASE("every device header compiles alone without a toolkit header") {
    GG_NEED_NVRTC();
    const Compiler compiler;
    for (const char* architecture : {"sm_80", "sm_89", "sm_90a", "sm_120a"}) {
        if (!compiler.knows(architecture)) continue;
        for (const HeaderText& header : gg::cuda::device_headers()) {
            const std::string source = "#include \"" + std::string(header.name) + "\"\n";
            std::string log;
            const std::string refused = cuda_test::message_of([&] {
                log =
                    compiler.compile({"alone", source}, gg::cuda::device_headers(), architecture, "alone.cu")
                        .log;
            });
            INFO(header.name << " for " << architecture);
            CHECK(refused == "");
            CHECK(log.find("warning") == log.npos);
        }
    }
}
