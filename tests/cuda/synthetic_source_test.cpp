// Models of random weights made on the GPU compute what the same models read from a file do.
#include "gg/cuda/synthetic_source.hpp"

#include "cuda/model.hpp"
#include "gg/model/synthesize.hpp"

using namespace cuda_test;

TEST_CASE("a model made on the GPU gives the logits of the one in a file") {
    GG_NEED_GPU();
    for (const char* name : {"gpt-oss-20b", "gpt2", "smollm2-135m"})
        gg::with_synthetic_preset(name, [&](auto family, gg::SyntheticModel model) {
            CAPTURE(name);
            using Family = decltype(family);
            model.dims.layers = 2;
            if (model.dims.window > 0) model.dims.sliding = {true, false};
            if (model.dims.experts > 0) model.dims.experts = 6;
            model.dims.vocabulary = 501;
            const gg::SyntheticFile made(family, model, 3);
            gg::gguf::Writer writer;
            gg::host::ThreadPool pool(0);
            gg::set_synthetic_metadata<Family>(writer, model);
            gg::add_synthetic_tensors(writer, gg::synthetic_tensors<Family>(model), 3, pool);
            const std::vector<std::byte> bytes = writer.bytes();
            const auto file = gg::gguf::File::parse(bytes, "written.gguf");

            const auto on_device = load(made.file(), gg::cuda::Launches::early_graph, {}, &made);
            const auto from_file = load(file);
            std::vector<std::int32_t> tokens;
            for (int i = 0; i < 40; ++i) tokens.push_back(i * 97 % 501);
            const auto first = on_device->session(40), second = from_file->session(40);
            const Logits expected = score(*second, tokens);
            CHECK(same_bits(score(*first, tokens), expected));
            for (const float logit : expected.back()) REQUIRE(std::isfinite(logit));
        });
}
