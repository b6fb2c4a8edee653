// Row-wise work: norms (plain and fused with the residual), activations, sums. Included by host/kernels.hpp
// for each instruction set. Element i goes to lane i mod 16 of every sum.

/// Norm of one row: y = norm(x). With `delta`, x += delta first: fused with the residual.
template <class Norm, class Weights>
GG_TARGET void normalise_row(const Weights& weights, float* x, const float* delta, float* y, int width,
                             float epsilon) {
    if (delta) {
        for (int i = 0; i < width; ++i) x[i] += delta[i];
    }
    float mean = 0.0f;
    alignas(64) float part[lanes] = {};
    const int whole = width / lanes * lanes;
    if constexpr (Norm::centred) {
        for (int i = 0; i < whole; i += lanes)
            for (int j = 0; j < lanes; ++j) part[j] += x[i + j];
        for (int i = whole; i < width; ++i) part[i - whole] += x[i];
        mean = sum(load(part)) / static_cast<float>(width);
        for (int j = 0; j < lanes; ++j) part[j] = 0.0f;
    }
    for (int i = 0; i < whole; i += lanes)
        for (int j = 0; j < lanes; ++j) part[j] += (x[i + j] - mean) * (x[i + j] - mean);
    for (int i = whole; i < width; ++i) part[i - whole] += (x[i] - mean) * (x[i] - mean);
    const float scale = Norm::scale(sum(load(part)), width, epsilon);
    for (int i = 0; i < width; ++i) y[i] = Norm::apply(weights, i, x[i], mean, scale);
}

/// y[i] = a(gate[i], up[i]), or a(up[i]) if the activation is not gated; y may be up.
template <class Activation>
GG_TARGET void activate_row(const float* gate, const float* up, float* y, int width) {
    for (int i = 0; i < width; ++i) {
        if constexpr (Activation::gated)
            y[i] = Activation::apply(gate[i], up[i]);
        else
            y[i] = Activation::apply(up[i]);
    }
}

/// y += factor * x.
GG_TARGET inline void add_scaled_row(const float* x, float factor, float* y, int width) {
    for (int i = 0; i < width; ++i) y[i] += factor * x[i];
}
