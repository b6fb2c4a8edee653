// The bundled models on the host agree with float32 references over 2000
// positions of held-out prose.
#include "host/demo.hpp"

#include "catch.hpp"
#include "host/golden.hpp"

TEST_CASE("bundled models agree with transformers on held-out prose") {
  for (const std::string name : {"demo-gpt-oss", "demo-gpt2"}) {
    INFO(name);
    const auto file = gg::gguf::File::open(host_test::demo_model(name));
    const host_test::Agreement found = host_test::agreement(
        *host_test::load(file), host_test::read_demo(name));
    REQUIRE(found.positions >= 2000);
    CHECK(found.differences[found.differences.size() / 2] <= 1e-5);
    CHECK(found.differences.back() <= 1e-3);
    CHECK(found.same_token >= 0.99 * found.positions);
  }
}
