// Fills a model's weight handles from a file for the host: the visitor of model/weights.hpp.
#pragma once

#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "gg/host/store.hpp"
#include "gg/model/families.hpp"
#include "gg/model/tensor_directory.hpp"
#include "gg/model/weights.hpp"

namespace gg::host {

/// Vectors converted to float32, owned by the model; addresses stay.
using VectorStorage = std::deque<std::vector<float>>;

class Binder {
  public:
    Binder(TensorDirectory& directory, VectorStorage& storage) : directory_(directory), storage_(storage) {}

    void begin_layer(int i) { prefix_ = "blk." + std::to_string(i) + "."; }
    void end_layers() { prefix_.clear(); }
    bool has(const char* stem, const char* suffix) const { return directory_.has(name(stem, suffix)); }

    void vector(const char* stem, const char* suffix, Vector& out, int n) {
        vector_part(stem, suffix, out, n, 0, n);
    }

    void vector_part(const char* stem, const char* suffix, Vector& out, int total, int first, int n) {
        if (const TensorView* tensor = directory_.take_floats(name(stem, suffix), {total}))
            out = convert(*tensor, static_cast<std::size_t>(first), static_cast<std::size_t>(n));
    }

    void vectors(const char* stem, const char* suffix, Vector& out, int n, int count) {
        if (const TensorView* tensor = directory_.take_floats(name(stem, suffix), {n, count}))
            out = convert(*tensor, 0, static_cast<std::size_t>(n) * static_cast<std::size_t>(count));
    }

    void matrix(const char* stem, const char* suffix, Matrix& out, int columns, int rows) {
        matrix_rows(stem, suffix, out, columns, rows, 0, rows);
    }

    void matrix_rows(const char* stem, const char* suffix, Matrix& out, int columns, int total, int first,
                     int rows) {
        if (const TensorView* tensor = directory_.take(name(stem, suffix), {columns, total})) {
            out = view(*tensor, columns, rows);
            out.data += static_cast<std::size_t>(first) * out.row_bytes;
        }
    }

    void matrices(const char* stem, const char* suffix, Matrices& out, int columns, int rows, int count) {
        if (const TensorView* tensor = directory_.take(name(stem, suffix), {columns, rows, count}))
            out = {view(*tensor, columns, rows), count};
    }

  private:
    std::string name(const char* stem, const char* suffix) const { return prefix_ + stem + "." + suffix; }

    static Matrix view(const TensorView& tensor, int columns, int rows) {
        return {tensor.type, tensor.data, columns, rows, static_cast<std::size_t>(tensor.row_bytes())};
    }

    Vector convert(const TensorView& tensor, std::size_t first, std::size_t n) {
        std::vector<float>& values = storage_.emplace_back(n);
        format::decode_row(tensor.type, tensor.data + first * info(tensor.type).bytes, n, values.data());
        return {values.data(), n};
    }

    TensorDirectory& directory_;
    VectorStorage& storage_;
    std::string prefix_;
};

/// Binds every tensor of a model of the family. Refuses a file with tensors of other shapes or types, or with
/// missing or surplus ones. The file must outlive the weights.
template <class Family>
void bind_weights(const gguf::File& file, const Dims& dims, ModelWeights<Family, HostStore>& weights,
                  VectorStorage& vectors) {
    TensorDirectory directory(file);
    Binder binder(directory, vectors);
    visit_weights<Family>(binder, weights, dims);
    directory.finish();
}

/// Binds a file of any family that gg has, and calls f(family, dims, weights); what it returns must not point
/// into the weights.
template <class F>
auto with_bound_weights(const gguf::File& file, F&& f) {
    return with_family(file, [&](auto family) {
        using Family = decltype(family);
        const Dims dims = Family::read_dims(file);
        VectorStorage vectors;
        ModelWeights<Family, HostStore> weights;
        bind_weights(file, dims, weights, vectors);
        return f(family, dims, std::as_const(weights));
    });
}

}  // namespace gg::host
