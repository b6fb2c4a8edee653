// Brings a model's tensors to a GPU. Rows come piece by piece from a source (byte_source.hpp) to one device
// buffer and go from there through the repack kernels (repack.cuh), so that a tensor never lies on the device
// whole in the file's format. A piece is whole matrices, or whole row tiles of one matrix.
//
// What lasts is taken from the caller's allocator. finish() waits and refuses the file if a weight does not
// fit its format, naming the tensor. Bytes moved: the tensors' once by the source, once by the kernels.
#pragma once

#include <algorithm>
#include <functional>
#include <initializer_list>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "gg/cuda/byte_source.hpp"
#include "gg/cuda/repack_args.hpp"
#include "gg/cuda/store.hpp"
#include "gg/cuda/weight_format.hpp"
#include "gg/cuda/weight_plan.hpp"

namespace gg::cuda {

class WeightLoader {
  public:
    /// Device memory for `bytes` bytes that begins at a multiple of 256.
    using Allocate = std::function<unsigned char*(std::uint64_t bytes)>;
    /// Enqueues Repack of a target format with repack_blocks(args) blocks of repack_threads threads.
    using Launch = std::function<void(DType target, const RepackArgs& args, cudaStream_t stream)>;
    /// Told how many bytes of the file were brought so far; may throw.
    using Progress = std::function<void(std::uint64_t bytes)>;
    struct Options {
        std::size_t piece_bytes = loading_piece_bytes;  ///< of the device buffer; 16 rows must fit
        Progress progress = {};
    };

    /// The file, the source and the stream outlive the loader.
    WeightLoader(const gguf::File& file, ByteSource& source, cudaStream_t stream, Allocate allocate,
                 Launch launch, const Options& options)
        : file_(file),
          source_(source),
          stream_(stream),
          allocate_(std::move(allocate)),
          launch_(std::move(launch)),
          progress_(options.progress),
          device_(options.piece_bytes, "the buffer for loading weights"),
          counters_(loading_counters, "the counters for loading weights") {
        clear_counters();
    }
    WeightLoader(const WeightLoader&) = delete;
    WeightLoader& operator=(const WeightLoader&) = delete;
    ~WeightLoader() {
        cudaStreamSynchronize(stream_);  // kernels still use the buffers
    }

    /// One matrix, or the same matrix of every expert.
    TileMatrix load(const host::Matrix& matrix) { return load(detail::one(matrix)); }
    TileMatrix load(const host::Matrices& matrices) {
        TileMatrix out = allocate_tiles(device_type(matrices.first.type), matrices.first.rows,
                                        matrices.first.columns, matrices.count);
        repack({&matrices, 1}, out.type, tiles(out), units(out));
        return out;
    }

    /// Matrices of the same columns one under the other, each padded to whole row tiles.
    TileMatrix load_stacked(std::span<const host::Matrix> parts) {
        std::vector<DType> types;
        int rows = 0;
        for (const host::Matrix& part : parts) {
            types.push_back(part.type);
            rows += TileGeometry::padded_rows(part.rows);
        }
        TileMatrix out = allocate_tiles(shared_device_type(types), rows, parts[0].columns, 1);
        unsigned char* at = tiles(out);
        unsigned char* row_units = units(out);
        for (const host::Matrix& part : parts) {
            const host::Matrices single = detail::one(part);
            repack({&single, 1}, out.type, at, row_units);
            at += TileGeometry::bytes(out.type, part.rows, part.columns);
            if (row_units) row_units += TileGeometry::padded_rows(part.rows);
        }
        return out;
    }
    TileMatrix load_stacked(std::initializer_list<host::Matrix> parts) {
        return load_stacked(std::span<const host::Matrix>(parts.begin(), parts.size()));
    }

    /// Two matrices of the same shape, eight rows of each in turn; padded to whole row tiles.
    TileMatrix load_interleaved(const host::Matrix& gate, const host::Matrix& up) {
        return load_interleaved(detail::one(gate), detail::one(up));
    }
    TileMatrix load_interleaved(const host::Matrices& gate, const host::Matrices& up) {
        TileMatrix out =
            allocate_tiles(shared_device_type({gate.first.type, up.first.type}),
                           TileGeometry::interleaved_rows(gate.first.rows), gate.first.columns, gate.count);
        const host::Matrices sources[] = {gate, up};
        repack(sources, out.type, tiles(out), units(out));
        return out;
    }

    /// The matrix as it is.
    RowMatrix load_rows(const host::Matrix& matrix) {
        const std::size_t rows = static_cast<std::size_t>(matrix.rows);
        const std::size_t piece = std::max<std::size_t>(device_.bytes() / matrix.row_bytes, 1);
        unsigned char* const out = allocate_(rows * matrix.row_bytes);
        for (std::size_t row = 0; row < rows; row += piece)
            bring(matrix.data + row * matrix.row_bytes, std::min(piece, rows - row) * matrix.row_bytes,
                  out + row * matrix.row_bytes);
        return {out, matrix.type, matrix.rows, matrix.columns, matrix.row_bytes};
    }

    /// Waits until everything is on the device. Throws gg::Error model_load_failed for the first tensor with
    /// weights that its format on the device cannot hold.
    void finish() {
        require_no_faults();
        file_.require_whole();
    }

  private:
    /// Whose faults a counter counts.
    struct Counted {
        const std::byte* data;
        DType target;
    };

    static unsigned char* tiles(const TileMatrix& matrix) {
        return const_cast<unsigned char*>(matrix.tiles);  // what allocate_ gave
    }
    static unsigned char* units(const TileMatrix& matrix) {
        return const_cast<unsigned char*>(matrix.row_units);
    }

    TileMatrix allocate_tiles(DType type, int rows, int columns, int count) {
        const std::uint64_t bytes = TileGeometry::bytes(type, rows, columns),
                            units = TileGeometry::unit_bytes(type, rows),
                            matrices = static_cast<std::uint64_t>(count);
        unsigned char* const tiles = allocate_((bytes + units) * matrices);
        unsigned char* const row_units = units > 0 ? tiles + bytes * matrices : nullptr;
        if (row_units)
            check(cudaMemsetAsync(row_units, 0, units * matrices, stream_), "clearing units of rows");
        return {tiles, type, TileGeometry::padded_rows(rows), columns, bytes, count, row_units};
    }

    /// Makes tiles of one source, or of two interleaved, and the units of their rows.
    void repack(std::span<const host::Matrices> sources, DType target, unsigned char* out,
                unsigned char* row_units) {
        const host::Matrix& first = sources[0].first;
        const bool interleaved = sources.size() == 2;
        std::size_t row_bytes = 0;  // of one row of each source
        for (const host::Matrices& source : sources) row_bytes += source.first.row_bytes;
        const std::size_t source_rows = static_cast<std::size_t>(repack_tile_rows(interleaved));  // in a tile
        const std::size_t rows = static_cast<std::size_t>(first.rows);
        const std::size_t fitting = device_.bytes() / row_bytes;
        const std::size_t whole = fitting / rows;  // matrices in a piece
        const std::size_t step = whole > 0 ? rows : fitting / source_rows * source_rows;
        require_piece(step, first, std::to_string(source_rows) + " rows");

        RepackArgs args{};
        args.faults = take_counters(sources, target);
        args.columns = first.columns;
        args.interleaved = interleaved;
        const std::size_t count = static_cast<std::size_t>(sources[0].count);
        for (std::size_t matrix = 0; matrix < count; matrix += std::max<std::size_t>(whole, 1)) {
            const std::size_t n = std::min(std::max<std::size_t>(whole, 1), count - matrix);
            for (std::size_t row = 0; row < rows; row += step) {
                args.matrices = static_cast<int>(n);
                args.rows = static_cast<int>(std::min(step, rows - row));
                args.tiles = out;
                args.row_units = row_units;
                make_tiles(sources, matrix * rows + row, target, args);
                out += repack_tiles(args) * TileGeometry::tile_bytes(target);
                if (row_units) row_units += args.matrices * repack_row_tiles(args) * tile_rows;
            }
        }
    }

    /// Brings the rows that `args` speaks of, from row `row` over all matrices on, and rearranges them.
    void make_tiles(std::span<const host::Matrices> sources, std::size_t row, DType target,
                    RepackArgs& args) {
        const std::size_t rows =
            static_cast<std::size_t>(args.matrices) * static_cast<std::size_t>(args.rows);
        std::size_t bytes = 0;
        for (std::size_t i = 0; i < sources.size(); ++i) {
            const host::Matrix& source = sources[i].first;
            bring(source.data + row * source.row_bytes, rows * source.row_bytes, device_.data() + bytes);
            args.sources[i] = {device_.data() + bytes, source.row_bytes, static_cast<int>(source.type)};
            bytes += rows * source.row_bytes;
        }
        launch_(target, args, stream_);
    }

    void bring(const std::byte* from, std::size_t bytes, unsigned char* to) {
        source_.bring(from, bytes, to, stream_);
        brought_ += bytes;
        if (progress_) progress_(brought_);
    }

    void require_piece(std::size_t rows, const host::Matrix& matrix, const std::string& expected) const {
        if (rows == 0)
            throw Error(ErrorCode::internal, {.field = "the buffer for loading weights",
                                              .expected = "room for " + expected + " of " +
                                                          std::to_string(matrix.columns) + " elements",
                                              .found = std::to_string(device_.bytes()) + " bytes"});
    }

    int* take_counters(std::span<const host::Matrices> sources, DType target) {
        if (counted_.size() + sources.size() > loading_counters) require_no_faults();
        int* counters = counters_.data() + counted_.size();
        for (const host::Matrices& source : sources) counted_.push_back({source.first.data, target});
        return counters;
    }

    void clear_counters() {
        check(cudaMemsetAsync(counters_.data(), 0, counters_.bytes(), stream_), "clearing counters");
        counted_.clear();
    }

    void require_no_faults() {
        std::vector<int> counts(loading_counters);
        check(cudaMemcpyAsync(counts.data(), counters_.data(), counters_.bytes(), cudaMemcpyDeviceToHost,
                              stream_),
              "reading counters");
        check(cudaStreamSynchronize(stream_), "loading weights");
        for (std::size_t i = 0; i < counted_.size(); ++i)
            if (counts[i] != 0) refuse_tensor(counted_[i], counts[i]);
        clear_counters();
    }

    [[noreturn]] void refuse_tensor(const Counted& counted, int count) const {
        const TensorView* tensor = tensor_at(file_, counted.data);
        std::string expected, next_step = "Run it on the host.";
        if (counted.target == DType::mxfp4) {
            expected = "E8M0 scales of 240 at most, which a GPU can multiply";
        } else if (counted.target == DType::f16) {
            expected = "finite weights of magnitude 65504 at most, which FP16 can hold";
        } else {
            expected = counted.target == DType::q8_0 ? "finite scales" : "finite weights";
            next_step = "The file is damaged: get it again.";
        }
        refuse({.file = file_.name(),
                .field = "tensor " + (tensor ? tensor->name : std::string("of unknown name")),
                .expected = expected,
                .found = std::to_string(count) + " others",
                .next_step = next_step});
    }

    const gguf::File& file_;
    ByteSource& source_;
    cudaStream_t stream_;
    Allocate allocate_;
    Launch launch_;
    Progress progress_;
    DeviceBuffer<unsigned char> device_;
    DeviceBuffer<int> counters_;
    std::vector<Counted> counted_;
    std::uint64_t brought_ = 0;
};

}  // namespace gg::cuda
