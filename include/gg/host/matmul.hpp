// Products of activations with weights in any format: out[t] = W in[t] + b, several products in one parallel
// loop. One row is multiplied while the weights are decoded; for several rows, a panel of weight rows is
// decoded into scratch once and multiplied with all of them. Both sum in the same order (kernels/dot.inl).
// Bytes moved: each weight once, whatever the number of rows; in and out once for each panel.
#pragma once

#include <span>

#include "gg/host/step.hpp"

namespace gg::host {

/// One product. `bias` has weight.rows floats or is empty; in.width is weight.columns, out.width weight.rows.
struct Product {
    Matrix weight;
    Vector bias;
    Rows in;
    Rows out;
};

namespace detail {

/// Weight rows of one task: a panel that stays in the cache while all rows of `in` pass; for one row, a
/// thread's share, so that each thread reads on where it prefetched, but at most 256 KiB for the balance.
inline int task_rows(const Product& product, int threads) {
    if (product.in.count != 1) return panel_rows;
    const int share = (product.weight.rows + threads - 1) / threads;
    const int most = static_cast<int>((std::size_t{1} << 18) / product.weight.row_bytes);
    return (std::max(std::min(share, most), 16) + 3) / 4 * 4;
}

inline int tasks(const Product& product, int threads) {
    const int rows = task_rows(product, threads);
    return product.in.count == 0 ? 0 : (product.weight.rows + rows - 1) / rows;
}

/// Rows [first, first + count) of one product; `scratch` has room for a panel.
inline void multiply_rows(InstructionSet set, const Product& p, int first, int count, float* scratch) {
    const auto* weight = reinterpret_cast<const unsigned char*>(p.weight.data) +
                         static_cast<std::size_t>(first) * p.weight.row_bytes;
    const float* bias = p.bias.data ? p.bias.data + first : nullptr;
    const int columns = p.weight.columns;
    format::visit(p.weight.type, [&](auto format) {
        using Format = decltype(format);
        if (p.in.count == 1) {
            GG_HOST_DISPATCH(set, dot_rows<Format>(weight, p.weight.row_bytes, count, columns, p.in.data,
                                                   bias, p.out.data + first));
        } else {
            GG_HOST_DISPATCH(set, decode_panel<Format>(weight, p.weight.row_bytes, count, columns, scratch,
                                                       row_stride(columns)));
        }
    });
    if (p.in.count > 1)
        GG_HOST_DISPATCH(set,
                         multiply_panel(scratch, row_stride(columns), count, columns, p.in.data, p.in.stride,
                                        p.in.count, bias, p.out.data + first, p.out.stride));
}

}  // namespace detail

/// Computes all products.
inline void multiply(Step& step, std::span<const Product> products) {
    const int threads = step.pool.size();
    long tasks = 0;
    std::size_t panel_floats = 0;
    for (const Product& product : products) {
        tasks += detail::tasks(product, threads);
        if (product.in.count > 1)
            panel_floats =
                std::max(panel_floats, row_stride(product.weight.columns) *
                                           static_cast<std::size_t>(detail::task_rows(product, threads)));
    }
    Workspace::Scope scope(step.workspace);
    float* scratch = step.workspace.floats(panel_floats * static_cast<std::size_t>(threads));
    step.pool.run(tasks, [&](long task, int thread) {
        std::size_t i = 0;
        while (task >= detail::tasks(products[i], threads)) task -= detail::tasks(products[i++], threads);
        const int rows = detail::task_rows(products[i], threads);
        const int first = static_cast<int>(task) * rows;
        const int count = std::min(rows, products[i].weight.rows - first);
        detail::multiply_rows(step.set, products[i], first, count,
                              scratch + panel_floats * static_cast<std::size_t>(thread));
    });
}

/// Computes one or a few products.
template <class... Products>
void multiply(Step& step, const Product& first, const Products&... others) {
    const Product products[] = {first, others...};
    multiply(step, std::span<const Product>(products));
}

}  // namespace gg::host
