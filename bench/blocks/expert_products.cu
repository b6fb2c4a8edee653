// The products of a routed block for many tokens: tokens sorted by expert, all experts in one launch. Each
// token takes 4 of 32 experts at random. Beside them cuBLASLt in FP16 with the same routing: one call an
// expert that has rows, its rows already side by side, no activation.
#include <algorithm>
#include <map>
#include <memory>

#include "cublaslt.hpp"
#include "data.hpp"
#include "gg/cuda/launch.hpp"
#include "gg/cuda/product_variant.cuh"
#include "gg/format/visit.hpp"
#include "gpt_oss.hpp"

namespace gg::bench {

namespace {

constexpr int hidden = Oss::hidden, experts = Oss::experts, used = Oss::experts_used;

/// Which rows go to which expert.
struct Routing {
    int pairs;
    std::vector<int> offsets{0}, rows;  ///< [experts + 1]; the token of each sorted pair
    cuda::DeviceBuffer<int> device_offsets, device_rows;

    explicit Routing(int tokens) : pairs(tokens * used) {
        std::vector<std::vector<int>> of_expert(experts);
        std::uint64_t state = 1;
        for (int token = 0; token < tokens; ++token)
            for (int rank = 0; rank < used;) {
                state = state * 6364136223846793005u + 1442695040888963407u;
                std::vector<int>& list = of_expert[state >> 59];
                if (!list.empty() && list.back() == token) continue;
                list.push_back(token);
                ++rank;
            }
        for (const std::vector<int>& list : of_expert) {
            rows.insert(rows.end(), list.begin(), list.end());
            offsets.push_back(static_cast<int>(rows.size()));
        }
        device_offsets = buffer(offsets);
        device_rows = buffer(rows);
    }
    int expert_of(int pair) const {
        return static_cast<int>(std::upper_bound(offsets.begin(), offsets.end(), pair) - offsets.begin()) - 1;
    }
};

/// cuBLASLt's products of all experts, m rows of weights each.
std::vector<Peer> measure_peer(Bench& bench, const Routing& routing, int m, bool short_result) {
    const CublasLt* library = CublasLt::get();
    if (!library) return {};
    using Product = CublasLt::Product;
    const auto w = random_sixteen(size(experts, m, hidden), bfloat_ones, 60);
    const auto x = random_sixteen(size(routing.pairs, hidden), bfloat_ones, 61);
    const auto d = buffer<float>(size(routing.pairs, m));
    const std::size_t result_bytes = short_result ? 2 : 4;
    const auto result_at = [&](int row) {
        return reinterpret_cast<unsigned char*>(d.data()) + size(row, m) * result_bytes;
    };
    std::map<int, std::unique_ptr<Product>> products;  // by rows
    const auto call = [&](cudaStream_t stream, int) {
        for (int e = 0; e < experts; ++e) {
            const int first = routing.offsets[size(e)], count = routing.offsets[size(e) + 1] - first;
            if (count == 0) continue;
            const unsigned short *we = w.data() + size(e, m, hidden), *xe = x.data() + size(first, hidden);
            auto& product = products[count];
            if (!product)
                product = std::make_unique<Product>(
                    *library,
                    Product::Shape{CUDA_R_16BF, short_result ? CUDA_R_16BF : CUDA_R_32F, m, count, hidden},
                    we, xe, result_at(first));
            product->enqueue(stream, we, xe, result_at(first));
        }
    };
    return {{library->name() + " BF16, a call an expert", time_calls(bench, 1, call)}};
}

/// What both products share: operands, outputs, and a launch.
template <class Epilogue, int tokens>
class ExpertProduct {
    static constexpr int variant =
        cuda::choose_product(Epilogue::covered_row_tiles, tokens* used, experts, Oss::multiprocessors, true);
    using Stage = cuda::ProductVariant<format::MXFP4, hidden, Epilogue, variant>;

  public:
    static constexpr bool gated = !std::is_same_v<Epilogue, cuda::StoreProduct<hidden>>;

    ExpertProduct(Bench& bench, const Matrices& w)
        : bench_(bench),
          w_(w),
          routing_(tokens),
          x_(random_sixteen(size(routing_.pairs, hidden), half_ones, 62)),
          operand_(buffer<unsigned short>(size(routing_.pairs, hidden))),
          y_(buffer<float>(size(routing_.pairs, hidden))),
          overflows_(buffer<int>(1)) {}

    Result run() {
        const cuda::LaunchShape shape =
            cuda::variant_launch(variant, cuda::Tile<format::MXFP4>::bytes, 1, Epilogue::covered_row_tiles,
                                 routing_.pairs, experts);
        const auto call = [&](cudaStream_t stream, int) {
            cuda::ProductArgs args{};
            args.tiles = w_.tiles(0);
            args.row_units = w_.row_units(0);
            args.expert_bytes = w_.matrix_bytes();
            args.x = x_.data();
            args.x_plane = size(gated ? tokens : routing_.pairs, hidden);
            args.x_rows = gated ? routing_.device_rows.data() : nullptr;
            args.offsets = routing_.device_offsets.data();
            args.experts = experts;
            args.rows = routing_.pairs;
            args.y = y_.data();
            args.operand = operand_.data();
            args.operand_plane = size(routing_.pairs, hidden);
            args.overflows = overflows_.data();
            cuda::launch<Stage>(shape, args, stream);
        };
        call(nullptr, 0);
        Check check("double");
        for (int i = 0; i < 48; ++i)
            check_one(check, sample(i, 48, routing_.pairs), sample(i * 7 % 48, 48, hidden));
        Result result{time_calls(bench_, 1, call),
                      0,
                      2.0 * routing_.pairs * hidden * hidden * (gated ? 2 : 1),
                      check.text(),
                      {}};
        result.beside = measure_peer(bench_, routing_, (gated ? 2 : 1) * hidden, gated);
        return result;
    }

  private:
    void check_one(Check& check, int pair, int feature) const {
        const int e = routing_.expert_of(pair), row = gated ? routing_.rows[size(pair)] : pair;
        std::vector<float> x;
        for (const unsigned short bits : read(x_.data() + size(row, hidden), hidden))
            x.push_back(format::half_to_float(bits));
        const Dot first = dot(w_.row(0, e, 0, feature), x.data());
        const std::size_t at = size(pair, hidden) + size(feature);
        const std::string where = "pair " + std::to_string(pair) + ", feature " + std::to_string(feature);
        if constexpr (gated) {
            const Dot up = dot(w_.row(0, e, 1, feature), x.data());
            const double g = std::min(first.value, 7.0), u = std::clamp(up.value, -7.0, 7.0);
            const double s = g / (1 + std::exp(-static_cast<double>(ClampedSwiglu::alpha) * g));
            const double gate_error = product_bound(first, hidden), up_error = product_bound(up, hidden);
            check.see(static_cast<double>(format::half_to_float(read(operand_.data() + at, 1)[0])),
                      s * (u + 1),
                      1.1 * gate_error * (std::fabs(u + 1) + up_error) + std::fabs(s) * up_error +
                          1e-3 * std::fabs(s * (u + 1)) + 1e-6,
                      where);
        } else {
            check.see(static_cast<double>(read(y_.data() + at, 1)[0]), first.value,
                      product_bound(first, hidden), where);
        }
    }

    Bench& bench_;
    const Matrices& w_;
    Routing routing_;
    cuda::DeviceBuffer<unsigned short> x_, operand_;
    cuda::DeviceBuffer<float> y_;
    cuda::DeviceBuffer<int> overflows_;
};

template <class Epilogue, int... tokens>
void bench_epilogue(Bench& bench, const std::string& block, std::integer_sequence<int, tokens...>) {
    const auto shape = [](int count) { return std::to_string(count) + " tokens, 4 of 32"; };
    std::unique_ptr<Matrices> w;
    (bench.measure(block, shape(tokens),
                   [&] {
                       using Product = ExpertProduct<Epilogue, tokens>;
                       if (!w)
                           w = std::make_unique<Matrices>(
                               Matrices::Shape{DType::mxfp4, 1, experts, hidden, hidden, Product::gated}, 63);
                       return Product(bench, *w).run();
                   }),
     ...);
}

}  // namespace

void bench_expert_products(Bench& bench) {
    using Tokens = std::integer_sequence<int, 64, 512, 2048, 8192>;
    bench_epilogue<cuda::ActivateProduct<ClampedSwiglu, hidden, cuda::HalfOperand>>(
        bench, "experts: gate, up, activation", Tokens{});
    bench_epilogue<cuda::StoreProduct<hidden>>(bench, "experts: down", Tokens{});
}

}  // namespace gg::bench
