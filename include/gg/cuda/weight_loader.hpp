// Brings a file's tensors to a GPU. Rows go piece by piece (upload.hpp) to one device buffer and from there
// through the repack kernels (repack.cuh), so that a tensor never lies on the device whole in the file's
// format. A piece is whole matrices, or whole row tiles of one matrix.
//
// What lasts is taken from the caller's allocator. finish() waits and refuses the file if a weight does not
// fit its format, naming the tensor. Bytes moved: the file's tensors once over the bus.
#pragma once

#include <functional>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include "gg/cuda/repack_args.hpp"
#include "gg/cuda/store.hpp"
#include "gg/cuda/upload.hpp"
#include "gg/cuda/weight_format.hpp"

namespace gg::cuda {

/// `count` matrices as tiles, one behind the other.
struct TileMatrix {
    const unsigned char* tiles = nullptr;
    DType type = DType::f16;
    int rows = 0;  ///< of tiles: a multiple of 16, padding included
    int columns = 0;
    std::uint64_t bytes_per_matrix = 0;
    int count = 0;
};

/// A matrix as it lies in the file, in device memory.
struct RowMatrix {
    const unsigned char* rows = nullptr;
    DType type = DType::f32;
    int count = 0;  ///< of rows
    int columns = 0;
    std::uint64_t row_bytes = 0;
};

class WeightLoader {
  public:
    /// Device memory for `bytes` bytes that begins at a multiple of 256.
    using Allocate = std::function<unsigned char*(std::uint64_t bytes)>;
    /// Enqueues Repack of a target format with repack_blocks(args) blocks of repack_threads threads.
    using Launch = std::function<void(DType target, const RepackArgs& args, cudaStream_t stream)>;
    struct Options {
        std::size_t piece_bytes = std::size_t{32} << 20;  ///< of the buffers; 16 rows must fit
        host::ThreadPool* pool = nullptr;                 ///< fills pinned buffers; null: this thread
        Upload::Progress progress = {};
    };

    /// The file and the stream outlive the loader.
    WeightLoader(const gguf::File& file, cudaStream_t stream, Allocate allocate, Launch launch,
                 const Options& options)
        : file_(file),
          allocate_(std::move(allocate)),
          launch_(std::move(launch)),
          device_(options.piece_bytes, "the buffer for loading weights"),
          counters_(counters_held, "the counters for loading weights"),
          upload_(stream, options.piece_bytes, options.pool, options.progress) {
        clear_counters();
    }
    WeightLoader(const WeightLoader&) = delete;
    WeightLoader& operator=(const WeightLoader&) = delete;

    /// One matrix, or the same matrix of every expert.
    TileMatrix load(const host::Matrix& matrix) { return load(detail::one(matrix)); }
    TileMatrix load(const host::Matrices& matrices) {
        TileMatrix out = allocate_tiles(device_type(matrices.first.type), matrices.first.rows,
                                        matrices.first.columns, matrices.count);
        repack({&matrices, 1}, out.type, tiles(out));
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
        for (const host::Matrix& part : parts) {
            const host::Matrices single = detail::one(part);
            repack({&single, 1}, out.type, at);
            at += TileGeometry::bytes(out.type, part.rows, part.columns);
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
        repack(sources, out.type, tiles(out));
        return out;
    }

    /// The matrix as it is.
    RowMatrix load_rows(const host::Matrix& matrix) {
        const std::size_t bytes = static_cast<std::size_t>(matrix.rows) * matrix.row_bytes;
        unsigned char* out = allocate_(bytes);
        upload_.copy(matrix.data, bytes, out);
        return {out, matrix.type, matrix.rows, matrix.columns, matrix.row_bytes};
    }

    /// The matrix as F32 [rows][columns].
    const float* load_floats(const host::Matrix& matrix) {
        const std::size_t row_floats = static_cast<std::size_t>(matrix.columns);
        const std::size_t row_bytes = row_floats * sizeof(float);
        const std::size_t piece_rows = upload_.piece_bytes() / row_bytes;
        require_piece(piece_rows, matrix, "one row");
        const std::size_t rows = static_cast<std::size_t>(matrix.rows);
        unsigned char* const out = allocate_(rows * row_bytes);
        for (std::size_t row = 0; row < rows; row += piece_rows) {
            const std::size_t n = std::min(piece_rows, rows - row);
            auto* values = reinterpret_cast<float*>(upload_.begin());
            for (std::size_t i = 0; i < n; ++i)
                format::decode_row(matrix.type, matrix.data + (row + i) * matrix.row_bytes, row_floats,
                                   values + i * row_floats);
            upload_.wrote(n * row_bytes, n * matrix.row_bytes);
            upload_.send(out + row * row_bytes);
        }
        return reinterpret_cast<const float*>(out);
    }

    /// Floats of a vector; null for one that the composition lacks.
    Vector load_vector(const host::Vector& vector) {
        if (vector.size == 0) return {};
        const std::size_t bytes = vector.size * sizeof(float);
        unsigned char* out = allocate_(bytes);
        upload_.copy(reinterpret_cast<const std::byte*>(vector.data), bytes, out);
        return {reinterpret_cast<const float*>(out)};
    }

    /// Waits until everything is on the device. Throws gg::Error model_load_failed for the first tensor with
    /// weights that its format on the device cannot hold.
    void finish() {
        require_no_faults();
        file_.require_whole();
    }

  private:
    static constexpr std::size_t counters_held = 1024;

    /// Whose faults a counter counts.
    struct Counted {
        const std::byte* data;
        DType target;
    };

    static unsigned char* tiles(const TileMatrix& matrix) {
        return const_cast<unsigned char*>(matrix.tiles);  // what allocate_ gave
    }

    TileMatrix allocate_tiles(DType type, int rows, int columns, int count) {
        const std::uint64_t bytes = TileGeometry::bytes(type, rows, columns);
        return {allocate_(bytes * static_cast<std::uint64_t>(count)),
                type,
                TileGeometry::padded_rows(rows),
                columns,
                bytes,
                count};
    }

    /// Makes tiles of one source, or of two interleaved.
    void repack(std::span<const host::Matrices> sources, DType target, unsigned char* out) {
        const host::Matrix& first = sources[0].first;
        const bool interleaved = sources.size() == 2;
        std::size_t row_bytes = 0;  // of one row of each source
        for (const host::Matrices& source : sources) row_bytes += source.first.row_bytes;
        const std::size_t tile_rows = static_cast<std::size_t>(repack_tile_rows(interleaved));
        const std::size_t rows = static_cast<std::size_t>(first.rows);
        const std::size_t fitting = upload_.piece_bytes() / row_bytes;
        const std::size_t whole = fitting / rows;  // matrices in a piece
        const std::size_t step = whole > 0 ? rows : fitting / tile_rows * tile_rows;
        require_piece(step, first, std::to_string(tile_rows) + " rows");

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
                bring(sources, matrix * rows + row, target, args);
                out += repack_tiles(args) * TileGeometry::tile_bytes(target);
            }
        }
    }

    /// Copies the rows that `args` speaks of, from row `row` over all matrices on, and rearranges them.
    void bring(std::span<const host::Matrices> sources, std::size_t row, DType target, RepackArgs& args) {
        const std::size_t rows =
            static_cast<std::size_t>(args.matrices) * static_cast<std::size_t>(args.rows);
        std::size_t bytes = 0;
        upload_.begin();
        for (std::size_t i = 0; i < sources.size(); ++i) {
            const host::Matrix& source = sources[i].first;
            upload_.add(source.data + row * source.row_bytes, rows * source.row_bytes);
            args.sources[i] = {device_.data() + bytes, source.row_bytes, static_cast<int>(source.type)};
            bytes += rows * source.row_bytes;
        }
        upload_.send(device_.data());
        launch_(target, args, upload_.stream());
    }

    void require_piece(std::size_t rows, const host::Matrix& matrix, const std::string& expected) const {
        if (rows == 0)
            throw Error(ErrorCode::internal, {.field = "the buffer for loading weights",
                                              .expected = "room for " + expected + " of " +
                                                          std::to_string(matrix.columns) + " elements",
                                              .found = std::to_string(upload_.piece_bytes()) + " bytes"});
    }

    int* take_counters(std::span<const host::Matrices> sources, DType target) {
        if (counted_.size() + sources.size() > counters_held) require_no_faults();
        int* counters = counters_.data() + counted_.size();
        for (const host::Matrices& source : sources) counted_.push_back({source.first.data, target});
        return counters;
    }

    void clear_counters() {
        check(cudaMemsetAsync(counters_.data(), 0, counters_.bytes(), upload_.stream()), "clearing counters");
        counted_.clear();
    }

    void require_no_faults() {
        std::vector<int> counts(counters_held);
        check(cudaMemcpyAsync(counts.data(), counters_.data(), counters_.bytes(), cudaMemcpyDeviceToHost,
                              upload_.stream()),
              "reading counters");
        check(cudaStreamSynchronize(upload_.stream()), "loading weights");
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
    Allocate allocate_;
    Launch launch_;
    DeviceBuffer<unsigned char> device_;
    DeviceBuffer<int> counters_;
    std::vector<Counted> counted_;
    Upload upload_;  // destroyed first: it waits for the stream
};

}  // namespace gg::cuda
