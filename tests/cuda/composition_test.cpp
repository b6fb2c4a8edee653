// A family composed outside the library runs on a GPU: its composition is a header that both compilers read,
// and whoever loads the model adds that header's text to the library's.
#include <cstdio>
#include <fstream>
#include <iterator>

#include "cuda/model.hpp"
#include "cuda/nvrtc.hpp"
#include "cuda/parallel_family.hpp"
#include "gg/cuda/model.hpp"

using namespace cuda_test;
using parallel::QkNormFamily;

namespace {

constexpr double median_bound = 1e-3;  ///< as golden_test.cpp explains it

/// The device headers and the composition's.
class Headers {
  public:
    Headers() {
        std::ifstream file(std::string(GG_SOURCE_DIR "/tests/") + QkNormFamily::composition_header);
        text_.assign(std::istreambuf_iterator<char>(file), {});
        const auto library = gg::cuda::device_headers();
        all_.assign(library.begin(), library.end());
        all_.push_back({QkNormFamily::composition_header, text_});
    }
    Headers(const Headers&) = delete;
    Headers& operator=(const Headers&) = delete;
    std::span<const gg::cuda::HeaderText> all() const { return all_; }

  private:
    std::string text_;
    std::vector<gg::cuda::HeaderText> all_;
};

gg::gguf::File open_file() {
    return gg::gguf::File::open(host_test::golden_model("parallel-qknorm"));
}

}  // namespace

TEST_CASE("the kernels of a family composed outside the library compile") {
    GG_NEED_NVRTC();
    const Headers headers;
    const auto file = open_file();
    gg::host::VectorStorage vectors;
    gg::ModelWeights<QkNormFamily, gg::host::HostStore> weights;
    const gg::Dims dims = QkNormFamily::read_dims(file);
    gg::host::bind_weights(file, dims, weights, vectors);
    gg::cuda::KernelCache cache(headers.all());
    for (const gg::cuda::Target& target : {gg::cuda::Target{"sm_80", 108}, gg::cuda::Target{"sm_90a", 132}}) {
        std::vector<gg::cuda::CompileUnit> units;
        for (const gg::cuda::KernelUnit& unit : gg::cuda::detail::all_units<QkNormFamily>(
                 dims, gg::cuda::model_formats<QkNormFamily>(weights), target))
            units.push_back(unit.unit);
        int kernels = 0;
        for (const gg::cuda::CompiledUnit& unit : cache.load(units, target.architecture)) {
            INFO(unit.name << " for " << target.architecture << "\n" << unit.log);
            CHECK(unit.log.find("warning") == unit.log.npos);
            kernels += static_cast<int>(unit.kernels.size());
        }
        CHECK(kernels > 20);
    }
}

TEST_CASE("a family composed outside the library equals its golden on a GPU") {
    GG_NEED_GPU();
    const Headers headers;
    const auto file = open_file();
    gg::cuda::LoadOptions options;
    options.headers = headers.all();
    const gg::cuda::CudaModel<QkNormFamily> model(file, options, gg::cuda::find_devices().at(options.device));
    CHECK(model.info().family == "parallel-qknorm");
    const host_test::Golden golden = host_test::read_golden("parallel-qknorm");
    const auto check = [&](const char* how, const std::vector<int>& pieces) {
        const auto session = model.session(static_cast<int>(golden.tokens.size()));
        const Logits logits =
            pieces.empty() ? score(*session, golden.tokens) : prefill(*session, golden.tokens, pieces);
        const std::size_t step = golden.tokens.size() / logits.size();
        host_test::Differences next, rows;
        for (std::size_t i = 0; i < logits.size(); ++i) {
            const std::size_t position = (i + 1) * step - 1;
            const std::vector<double> found = log_probabilities(logits[i]);
            if (position < golden.logprob.size())
                next.add(found[static_cast<std::size_t>(golden.tokens[position + 1])],
                         golden.logprob[position]);
            for (const host_test::Golden::Row& row : golden.rows)
                if (static_cast<std::size_t>(row.position) == position)
                    for (std::size_t k = 0; k < found.size(); ++k) rows.add(found[k], row.logprob[k]);
        }
        std::printf("parallel-qknorm  %-7s next: median %.1e max %.1e   rows: median %.1e max %.1e\n", how,
                    next.median(), next.max(), rows.median(), rows.max());
        CAPTURE(how, next.median(), next.max(), rows.median(), rows.max());
        CHECK(next.count() + 1 >= logits.size());
        CHECK(rows.count() > 0);
        CHECK(next.median() <= median_bound);
        CHECK(rows.median() <= median_bound);
    };
    REQUIRE(golden.tokens.size() == 60);
    check("prompt", {});
    check("tokens", {1});
    check("pieces", {6});
    check("chunks", {20});
}
