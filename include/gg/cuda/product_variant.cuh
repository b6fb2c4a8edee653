// The variants of a product of many rows, as the plan numbers them (prefill_plan.hpp): product.cuh in each of
// its tilings, then product_warpgroup.cuh in each of its own.
#pragma once

#include "gg/cuda/product_warpgroup.cuh"

namespace gg::cuda {

namespace detail {

template <class Format, int columns, class Epilogue, int variant, bool warpgroups>
struct ProductVariantOf {
    using Stage = Product<Format, columns, Epilogue, variant>;
};
template <class Format, int columns, class Epilogue, int variant>
struct ProductVariantOf<Format, columns, Epilogue, variant, true> {
    using Stage = WarpgroupProduct<Format, columns, Epilogue, variant - product_tilings>;
};

}  // namespace detail

/// The stage of a variant, launched as variant_launch().
template <class Format, int columns, class Epilogue, int variant>
using ProductVariant = typename detail::ProductVariantOf<Format, columns, Epilogue, variant,
                                                         (variant >= product_tilings)>::Stage;

}  // namespace gg::cuda
