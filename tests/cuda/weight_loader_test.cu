// Tensors of a file brought to a GPU: what lies there afterwards is what the file holds, whatever the size of
// the pieces.
#include "gg/cuda/weight_loader.hpp"

#include <algorithm>
#include <cstring>
#include <functional>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "cuda/device.hpp"
#include "cuda/random_blocks.hpp"
#include "cuda/tiles.hpp"
#include "gg/cuda/launch.hpp"
#include "gg/cuda/repack.cuh"
#include "gg/cuda/synthesize.cuh"
#include "gg/cuda/synthetic_source.hpp"
#include "gg/gguf/writer.hpp"
#include "gg/model/synthesize.hpp"

using gg::DType;
using gg::host::Matrices;
using gg::host::Matrix;
using namespace gg::cuda;

namespace {

void launch_repack(DType target, const RepackArgs& args, cudaStream_t stream) {
    gg::format::visit(target, [&](auto format) {
        using Target = decltype(format);
        if constexpr (device_type(gg::format::dtype_of<Target>) == gg::format::dtype_of<Target>)
            launch<Repack<Target>>(repack_blocks(args), args, stream);
        else
            throw gg::Error(gg::ErrorCode::internal, "not a format of tiles");
    });
}

/// A file in memory with random tensors.
class TestFile {
  public:
    void add(const std::string& name, DType type, int columns, int rows, int count) {
        const auto info = gg::info(type);
        std::vector<std::byte> bytes(static_cast<std::size_t>(columns) / info.elements * info.bytes *
                                     static_cast<std::size_t>(rows * count));
        gg::format::visit(type, [&](auto format) {
            cuda_test::fill_random<decltype(format)>(reinterpret_cast<unsigned char*>(bytes.data()),
                                                     bytes.size(), random_);
        });
        writer_.add_tensor(name, type,
                           {static_cast<std::uint64_t>(columns), static_cast<std::uint64_t>(rows),
                            static_cast<std::uint64_t>(count)},
                           std::move(bytes));
    }
    /// No tensor may be added after.
    const gg::gguf::File& file() {
        if (bytes_.empty()) {
            bytes_ = writer_.bytes();
            file_.emplace(gg::gguf::File::parse(bytes_, "test.gguf"));
        }
        return *file_;
    }
    Matrices matrices(const std::string& name) {
        const gg::TensorView& tensor = file().require_tensor(name);
        return {{tensor.type, tensor.data, static_cast<int>(tensor.shape[0]),
                 static_cast<int>(tensor.shape[1]), static_cast<std::size_t>(tensor.row_bytes())},
                static_cast<int>(tensor.shape[2])};
    }
    Matrix matrix(const std::string& name) { return matrices(name).first; }
    /// The bytes of a tensor, to be changed.
    unsigned char* writable(const std::string& name) {
        const std::byte* data = file().require_tensor(name).data;
        return reinterpret_cast<unsigned char*>(bytes_.data() + (data - bytes_.data()));
    }

  private:
    std::mt19937 random_{17};
    gg::gguf::Writer writer_;
    std::vector<std::byte> bytes_;
    std::optional<gg::gguf::File> file_;
};

TestFile make_file() {
    TestFile file;
    file.add("q", DType::q5_0, 96, 40, 1);
    file.add("k", DType::q8_0, 96, 24, 1);
    file.add("v", DType::iq4_nl, 96, 7, 1);
    file.add("output", DType::q6_k, 256, 70, 1);
    file.add("gate", DType::mxfp4, 96, 19, 5);
    file.add("up", DType::mxfp4, 96, 19, 5);
    file.add("down", DType::mxfp4, 32, 33, 5);
    file.add("dense_gate", DType::bf16, 83, 29, 1);
    file.add("dense_up", DType::f16, 83, 29, 1);
    file.add("head", DType::bf16, 83, 131, 1);
    file.add("embedding", DType::q4_k, 256, 41, 1);
    return file;
}

float value_of(const Matrix& m, int row, int column) {
    std::vector<float> values(static_cast<std::size_t>(m.columns));
    gg::format::decode_row(m.type, m.data + static_cast<std::size_t>(row) * m.row_bytes, values.size(),
                           values.data());
    return values[static_cast<std::size_t>(column)];
}

/// Device memory for one test, poisoned, so that a read beyond it shows.
class Memory {
  public:
    unsigned char* take(std::uint64_t bytes) {
        check(cudaMemset(arena_.data() + used_, 0xA5, padded_piece(bytes)), "poisoning");
        unsigned char* piece = arena_.data() + used_;
        used_ += padded_piece(bytes);
        REQUIRE(used_ <= arena_.size());
        return piece;
    }

  private:
    DeviceBuffer<unsigned char> arena_{std::size_t{1} << 20, "test"};
    std::uint64_t used_ = 0;
};

std::vector<unsigned char> read(const void* device, std::uint64_t bytes) {
    std::vector<unsigned char> values(bytes);
    REQUIRE(cudaMemcpy(values.data(), device, bytes, cudaMemcpyDeviceToHost) == cudaSuccess);
    return values;
}

/// Elements of the tiles that differ from `expected(matrix, row, column)`.
template <class Expected>
long differences(const TileMatrix& m, Expected expected) {
    const auto bytes = read(m.tiles, m.bytes_per_matrix * static_cast<std::uint64_t>(m.count));
    return gg::format::visit(m.type, [&](auto format) {
        using Format = decltype(format);
        long wrong = 0;
        if constexpr (device_type(gg::format::dtype_of<Format>) == gg::format::dtype_of<Format>) {
            for (int i = 0; i < m.count; ++i)
                for (int row = 0; row < m.rows; ++row)
                    for (int column = 0; column < (m.columns + 63) / 64 * 64; ++column) {
                        float value = column < m.columns ? expected(i, row, column) : 0.0f;
                        if (m.type == DType::f16)
                            value = gg::format::half_to_float(gg::format::float_to_half(value));
                        const unsigned char* tiles =
                            bytes.data() + m.bytes_per_matrix * static_cast<std::uint64_t>(i);
                        wrong += cuda_test::tiles_value<Format>(tiles, m.columns, row, column) !=
                                 static_cast<double>(value);
                    }
        } else {
            wrong = -1;
        }
        return wrong;
    });
}

float interleaved_value(const Matrices& gate, const Matrices& up, int i, int row, int column) {
    const Matrix m = (row % 16 < 8 ? gate : up)[i];
    const int r = row / 16 * 8 + row % 8;
    return r < m.rows ? value_of(m, r, column) : 0.0f;
}

void check_load(std::size_t piece_bytes, gg::host::ThreadPool* pool) {
    CAPTURE(piece_bytes);
    TestFile file = make_file();
    Memory memory;
    std::vector<std::uint64_t> progress;
    std::uint64_t brought = 0;
    const auto allocate = [&](std::uint64_t bytes) { return memory.take(bytes); };
    FileSource source(file.file(), {.buffer_bytes = piece_bytes / 3, .buffers = 2, .pool = pool});
    WeightLoader loader(
        file.file(), source, nullptr, allocate, launch_repack,
        {.piece_bytes = piece_bytes, .progress = [&](std::uint64_t bytes) { progress.push_back(bytes); }});
    const Matrix q = file.matrix("q"), k = file.matrix("k"), v = file.matrix("v");
    const Matrices gate = file.matrices("gate"), up = file.matrices("up"), down = file.matrices("down");
    const Matrices dense_gate = file.matrices("dense_gate"), dense_up = file.matrices("dense_up");

    const TileMatrix qkv = loader.load_stacked({q, k, v});
    const TileMatrix output = loader.load(file.matrix("output"));
    const TileMatrix experts = loader.load_interleaved(gate, up);
    const TileMatrix downs = loader.load(down);
    const TileMatrix dense = loader.load_interleaved(dense_gate.first, dense_up.first);
    const TileMatrix head = loader.load(file.matrix("head"));
    const RowMatrix embedding = loader.load_rows(file.matrix("embedding"));
    loader.finish();

    CHECK(qkv.type == DType::q8_0);
    CHECK(qkv.rows == 48 + 32 + 16);
    CHECK(differences(qkv, [&](int, int row, int column) {
              const Matrix& m = row < 48 ? q : row < 80 ? k : v;
              const int r = row < 48 ? row : row < 80 ? row - 48 : row - 80;
              return r < m.rows ? value_of(m, r, column) : 0.0f;
          }) == 0);
    CHECK(output.type == DType::f16);
    CHECK(differences(output, [&](int, int row, int column) {
              return row < 70 ? value_of(file.matrix("output"), row, column) : 0.0f;
          }) == 0);
    CHECK(experts.type == DType::mxfp4);
    CHECK(experts.count == 5);
    CHECK(experts.rows == 48);
    CHECK(differences(experts, [&](int i, int row, int column) {
              return interleaved_value(gate, up, i, row, column);
          }) == 0);
    CHECK(differences(downs, [&](int i, int row, int column) {
              return row < 33 ? value_of(down[i], row, column) : 0.0f;
          }) == 0);
    CHECK(dense.type == DType::f16);
    CHECK(differences(dense, [&](int i, int row, int column) {
              return interleaved_value(dense_gate, dense_up, i, row, column);
          }) == 0);
    CHECK(head.type == DType::bf16);
    CHECK(differences(head, [&](int, int row, int column) {
              return row < 131 ? value_of(file.matrix("head"), row, column) : 0.0f;
          }) == 0);

    CHECK(embedding.type == DType::q4_k);
    const auto rows = read(embedding.rows, 41 * embedding.row_bytes);
    CHECK(std::memcmp(rows.data(), file.matrix("embedding").data, rows.size()) == 0);

    for (const gg::TensorView& tensor : file.file().tensors()) brought += tensor.bytes();
    REQUIRE(!progress.empty());
    CHECK(std::is_sorted(progress.begin(), progress.end()));
    CHECK(progress.back() == brought);
}

std::string refusal(TestFile& file, const std::function<void(WeightLoader&)>& load) {
    Memory memory;
    FileSource source(file.file(), {.buffer_bytes = 1 << 16});
    WeightLoader loader(file.file(), source, nullptr, [&](std::uint64_t bytes) { return memory.take(bytes); },
                        launch_repack, {.piece_bytes = 1 << 16});
    load(loader);
    try {
        loader.finish();
    } catch (const gg::Error& error) {
        CHECK(error.code() == gg::ErrorCode::model_load_failed);
        return error.what();
    }
    return "";
}

}  // namespace

TEST_CASE("a file's tensors lie on the GPU as tiles and rows") {
    GG_NEED_GPU();
    gg::host::ThreadPool pool(2);
    // 16 rows of the widest matrix, then several pieces a matrix, several matrices a piece, all in one.
    for (const std::size_t piece_bytes : {3360, 5000, 8192, 1 << 20}) check_load(piece_bytes, nullptr);
    check_load(std::size_t{1} << 19, &pool);
}

namespace {

/// All matrices of a file on the device, as tiles or, if their type has none, as rows.
std::vector<std::vector<unsigned char>> all_matrices(const gg::gguf::File& file, ByteSource& source) {
    DeviceArena arena(std::size_t{4} << 20, "test");
    std::vector<std::vector<unsigned char>> all;
    // Several pieces a matrix.
    WeightLoader loader(file, source, nullptr, [&](std::uint64_t bytes) { return arena.take(bytes); },
                        launch_repack, {.piece_bytes = 20000});
    for (const gg::TensorView& tensor : file.tensors()) {
        if (tensor.dimensions < 2) continue;
        const Matrices matrices{
            {tensor.type, tensor.data, static_cast<int>(tensor.shape[0]), static_cast<int>(tensor.shape[1]),
             static_cast<std::size_t>(tensor.row_bytes())},
            static_cast<int>(tensor.shape[2])};
        const TileMatrix tiles = loader.load(matrices);
        const RowMatrix rows = loader.load_rows(matrices.first);
        loader.finish();
        all.push_back(read(tiles.tiles, tiles.bytes_per_matrix * static_cast<std::uint64_t>(tiles.count)));
        all.push_back(read(rows.rows, rows.row_bytes * static_cast<std::uint64_t>(rows.count)));
    }
    return all;
}

}  // namespace

TEST_CASE("random weights made on the GPU are those of the file") {
    GG_NEED_GPU();
    for (const DType dense : {DType::q8_0, DType::f16, DType::bf16})
        gg::with_synthetic_preset("gpt-oss-20b", [&](auto family, gg::SyntheticModel model) {
            using Family = decltype(family);
            model.dims.layers = 2;
            model.dims.sliding = {true, false};
            model.dims.hidden = 96;
            model.dims.heads = 5;
            model.dims.kv_heads = 1;
            model.dims.experts = 3;
            model.dims.experts_used = 2;
            model.dims.expert_feed_forward = 160;
            model.dims.vocabulary = 301;
            model.dense = dense;
            const gg::SyntheticFile made(family, model, 11);
            gg::gguf::Writer writer;
            gg::host::ThreadPool pool(1);
            gg::set_synthetic_metadata<Family>(writer, model);
            gg::add_synthetic_tensors(writer, gg::synthetic_tensors<Family>(model), 11, pool);
            const std::vector<std::byte> bytes = writer.bytes();
            const auto file = gg::gguf::File::parse(bytes, "written.gguf");

            SyntheticSource on_device(made, [](const SynthesizeArgs& args, cudaStream_t stream) {
                launch<Synthesize>(dim3(synthesize_blocks(args)), args, stream);
            });
            FileSource from_file(file, {.buffer_bytes = 4096});
            const auto found = all_matrices(made.file(), on_device), expected = all_matrices(file, from_file);
            REQUIRE(found.size() == expected.size());
            CHECK(found.size() > 20);
            for (std::size_t i = 0; i < found.size(); ++i) CHECK((found[i] == expected[i]));
        });
}

TEST_CASE("a tensor that does not fit its format on the GPU is named") {
    GG_NEED_GPU();
    TestFile file = make_file();
    CHECK(refusal(file, [&](WeightLoader& loader) {
              loader.load_interleaved(file.matrices("gate"), file.matrices("up"));
          }).empty());
    file.writable("up")[17 * 50] = 250;
    const std::string mxfp4 = refusal(file, [&](WeightLoader& loader) {
        loader.load(file.matrices("down"));
        loader.load_interleaved(file.matrices("gate"), file.matrices("up"));
    });
    CHECK(mxfp4 ==
          "test.gguf: tensor up: expected E8M0 scales of 240 at most, which a GPU can multiply, found 1 "
          "others. Run it on the host.");
    cuda_test::put_16(file.writable("dense_gate") + 2 * 83, 0x4780);  // 65536
    const std::string half = refusal(file, [&](WeightLoader& loader) {
        loader.load_interleaved(file.matrix("dense_gate"), file.matrix("dense_up"));
    });
    CHECK(half.find("tensor dense_gate: expected finite weights of magnitude 65504 at most") !=
          std::string::npos);
    cuda_test::put_16(file.writable("k"), 0x7C00);
    const std::string scale = refusal(file, [&](WeightLoader& loader) {
        loader.load_stacked({file.matrix("q"), file.matrix("k"), file.matrix("v")});
    });
    CHECK(scale.find("tensor k: expected finite scales, found 1 others") != std::string::npos);
}

TEST_CASE("more tensors than counters are all checked") {
    GG_NEED_GPU();
    TestFile file;
    file.add("small", DType::q8_0, 32, 1, 1);
    file.add("bad", DType::q8_0, 32, 1, 1);
    cuda_test::put_16(file.writable("bad"), 0xFC00);
    FileSource source(file.file(), {.buffer_bytes = 4096});
    for (const int before : {0, 1500}) {
        DeviceBuffer<unsigned char> tiles(1088 + 16, "test");  // and units
        WeightLoader loader(file.file(), source, nullptr, [&](std::uint64_t) { return tiles.data(); },
                            launch_repack, {.piece_bytes = 4096});
        for (int i = 0; i < before; ++i) loader.load(file.matrix("small"));
        loader.load(file.matrix("bad"));
        CHECK_THROWS_AS(loader.finish(), gg::Error);
    }
    DeviceBuffer<unsigned char> tiles(1088 + 16, "test");
    WeightLoader loader(file.file(), source, nullptr, [&](std::uint64_t) { return tiles.data(); },
                        launch_repack, {.piece_bytes = 4096});
    loader.load(file.matrix("bad"));
    const auto fill = [&] {
        for (int i = 0; i < 1100; ++i) loader.load(file.matrix("small"));
    };
    CHECK_THROWS_AS(fill(), gg::Error);
}

TEST_CASE("a piece that holds no row tile is refused") {
    GG_NEED_GPU();
    TestFile file = make_file();
    DeviceBuffer<unsigned char> memory(1 << 20, "test");
    FileSource source(file.file(), {.buffer_bytes = 256});
    WeightLoader loader(file.file(), source, nullptr, [&](std::uint64_t) { return memory.data(); },
                        launch_repack, {.piece_bytes = 256});
    CHECK_THROWS_AS(loader.load(file.matrix("output")), gg::Error);
}

TEST_CASE("one allocation is given out in pieces of 256 bytes") {
    GG_NEED_GPU();
    DeviceArena arena(1000, "the weights");
    unsigned char* const first = arena.take(1);
    CHECK(arena.take(300) == first + 256);
    CHECK(arena.take(0) == first + 768);
    CHECK(arena.used() == 768);
    CHECK_THROWS_AS(arena.take(1), gg::Error);
}

TEST_CASE("device memory that is not there is refused with the numbers") {
    GG_NEED_GPU();
    try {
        const DeviceBuffer<unsigned char> impossible(std::size_t{1} << 50, "the weights");
        FAIL("allocated a pebibyte");
    } catch (const gg::Error& error) {
        CHECK(error.code() == gg::ErrorCode::out_of_memory);
        CHECK(std::string(error.what()).find("the weights: expected 1125899906842624 bytes") !=
              std::string::npos);
    }
    CHECK(cudaGetLastError() == cudaSuccess);
}
