// Products of many rows of an operand with q, k and v stacked, in each format of tiles, beside cuBLASLt on
// the same shape. BF16 weights multiply two operands, the high and the low part of each activation: twice the
// operations of cuBLASLt's product, but counted once.
//
// The ceiling of all products and of attention is cuBLASLt's product of 8192 x 8192 matrices, FP16.
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

constexpr int width = oss_qkv.width, columns = Oss::hidden, turns = 8;

/// A product by cuBLASLt, from matrices that take turns.
class DensePeer {
  public:
    DensePeer(Bench& bench, const CublasLt& library, bool bfloat, int m, int n, int k, int copies)
        : bench_(bench),
          copies_(copies),
          matrix_(size(m, k)),
          w_(random_sixteen(size(copies) * matrix_, bfloat ? bfloat_ones : half_ones, 50)),
          x_(random_sixteen(size(n, k), bfloat ? bfloat_ones : half_ones, 51)),
          d_(buffer<float>(size(m, n))),
          name_(library.name() + (bfloat ? " BF16" : " FP16")),
          product_(library, {bfloat ? CUDA_R_16BF : CUDA_R_16F, CUDA_R_32F, m, n, k}, w_.data(), x_.data(),
                   d_.data()) {
        Check check("double");
        product_.enqueue(nullptr, w_.data(), x_.data(), d_.data());
        const auto value = [&](unsigned short bits) {
            return bfloat ? float_from_bits(unsigned{bits} << 16) : format::half_to_float(bits);
        };
        for (int i = 0; i < 16; ++i) {
            const int row = sample(i, 16, n), column = sample(15 - i, 16, m);
            std::vector<float> w, x;
            for (const unsigned short bits : read(w_.data() + size(column, k), size(k)))
                w.push_back(value(bits));
            for (const unsigned short bits : read(x_.data() + size(row, k), size(k)))
                x.push_back(value(bits));
            const Dot sum = dot(w, x.data());
            check.see(static_cast<double>(read(d_.data() + size(row, m) + size(column), 1)[0]), sum.value,
                      product_bound(sum, k), "cuBLASLt's product");
        }
    }
    Peer measure() const {
        return {name_, time_calls(bench_, copies_, [&](cudaStream_t stream, int i) {
                    product_.enqueue(stream, w_.data() + size(i % copies_) * matrix_, x_.data(), d_.data());
                })};
    }

  private:
    Bench& bench_;
    int copies_;
    std::size_t matrix_;
    cuda::DeviceBuffer<unsigned short> w_, x_;
    cuda::DeviceBuffer<float> d_;
    std::string name_;
    CublasLt::Product product_;
};

/// gg's product with StoreProduct, rows as many as `tokens` says.
template <class Format, int tokens>
class DenseProduct {
    static constexpr int planes = cuda::Tile<Format>::Operand::planes;
    static constexpr int variant =
        cuda::choose_product(width / 16, tokens, 0, Oss::multiprocessors, planes == 1);
    using Stage = cuda::ProductVariant<Format, columns, cuda::StoreProduct<width>, variant>;
    static constexpr std::size_t plane = size(tokens, columns);

  public:
    DenseProduct(Bench& bench, const Matrices& w)
        : bench_(bench),
          w_(w),
          x_(random_sixteen(planes * plane, planes == 2 ? bfloat_ones : half_ones, 52)),
          y_(buffer<float>(size(tokens, width))) {
        if (planes == 2) fill_sixteen(x_.data() + plane, plane, bfloat_rests, 53);
    }

    Result run() {
        const cuda::LaunchShape shape =
            cuda::variant_launch(variant, cuda::Tile<Format>::bytes, planes, width / 16, tokens, 0);
        const auto call = [&](cudaStream_t stream, int i) {
            cuda::ProductArgs args{};
            args.tiles = w_.tiles(i % w_.copies());
            args.row_units = w_.row_units(i % w_.copies());
            args.x = x_.data();
            args.x_plane = plane;
            args.rows = tokens;
            args.y = y_.data();
            cuda::launch<Stage>(shape, args, stream);
        };
        call(nullptr, 0);
        Check check("double");
        for (int i = 0; i < 32; ++i) {
            const int row = sample(i, 32, tokens), column = sample(31 - i, 32, width);
            const Dot sum = dot(w_.row(0, 0, 0, column), operand(row).data());
            check.see(static_cast<double>(read(y_.data() + size(row, width) + size(column), 1)[0]), sum.value,
                      product_bound(sum, planes * columns),
                      "row " + std::to_string(row) + ", column " + std::to_string(column));
        }
        return {time_calls(bench_, w_.copies(), call), 0, 2.0 * tokens * width * columns, check.text(), {}};
    }

  private:
    std::vector<float> operand(int row) const {
        std::vector<float> x(columns);
        for (int p = 0; p < planes; ++p) {
            const auto bits = read(x_.data() + size(p) * plane + size(row, columns), columns);
            for (std::size_t i = 0; i < x.size(); ++i)
                x[i] +=
                    planes == 2 ? float_from_bits(unsigned{bits[i]} << 16) : format::half_to_float(bits[i]);
        }
        return x;
    }

    Bench& bench_;
    const Matrices& w_;
    cuda::DeviceBuffer<unsigned short> x_;
    cuda::DeviceBuffer<float> y_;
};

/// The peers, each measured once.
class Peers {
  public:
    explicit Peers(Bench& bench) : bench_(bench) {}
    std::vector<Peer> of(bool bfloat, int tokens) {
        const CublasLt* library = CublasLt::get();
        if (!library) return {};
        auto& found = all_[{bfloat, tokens}];
        if (found.empty())
            found.push_back(DensePeer(bench_, *library, bfloat, width, tokens, columns, turns).measure());
        return found;
    }

  private:
    Bench& bench_;
    std::map<std::pair<bool, int>, std::vector<Peer>> all_;
};

template <class Format, int... tokens>
void bench_format(Bench& bench, Peers& peers, std::integer_sequence<int, tokens...>) {
    constexpr DType type = format::dtype_of<Format>;
    const std::string name(info(type).name), block = "product: " + name;
    const auto shape = [](int rows) { return std::to_string(rows) + " x 2880 x 5120"; };
    std::unique_ptr<Matrices> w;
    (bench.measure(
         block, shape(tokens),
         [&] {
             if (!w) w = std::make_unique<Matrices>(Matrices::Shape{type, turns, 1, width, columns}, 54);
             Result result = DenseProduct<Format, tokens>(bench, *w).run();
             result.beside = peers.of(type == DType::bf16, tokens);
             return result;
         }),
     ...);
}

}  // namespace

void bench_products_ceiling(Bench& bench) {
    constexpr int square = 8192;
    bench.measure_ceiling(
        "ceiling: FP16 product, cuBLASLt", "8192 x 8192 x 8192", [&]() -> std::optional<Result> {
            if (!CublasLt::get()) return {};
            Result result;
            result.us = DensePeer(bench, *CublasLt::get(), false, square, square, square, 1).measure().us;
            result.operations = 2.0 * square * square * square;
            result.check = "16 values, double";
            bench.product_ceiling = result.operations / result.us.median * 1e-6;
            return result;
        });
}

void bench_dense_products(Bench& bench) {
    Peers peers(bench);
    using Tokens = std::integer_sequence<int, 64, 512, 2048, 8192>;
    bench_format<format::Q8_0>(bench, peers, Tokens{});
    bench_format<format::F16>(bench, peers, Tokens{});
    bench_format<format::BF16>(bench, peers, Tokens{});
}

}  // namespace gg::bench
