#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "catch.hpp"
#include "gg/format/encode.hpp"
#include "gg/format/visit.hpp"
#include "gg/gguf/file.hpp"
#include "gg/model/quantize.hpp"
#include "nlohmann/json.hpp"
#include "subprocess.hpp"
#include "tiny_model.hpp"

using namespace gg;
using namespace runner_test;
using nlohmann::json;

namespace {

bool contains(const std::string& text, std::string_view part) {
    return text.find(part) != text.npos;
}

std::string golden(const std::string& name) {
    return GG_TEST_DATA "/model/" + name + ".gguf";
}

std::vector<float> floats_of(const TensorView& tensor) {
    std::vector<float> values(tensor.elements());
    for (std::uint64_t row = 0; row < tensor.rows(); ++row)
        format::decode_row(tensor.type, tensor.data + row * tensor.row_bytes(), tensor.row_length(),
                           values.data() + row * tensor.row_length());
    return values;
}

std::vector<std::byte> encoded(DType type, const std::vector<float>& values, std::uint64_t row_length) {
    const std::uint64_t row_bytes = row_length / info(type).elements * info(type).bytes;
    std::vector<std::byte> bytes(values.size() / row_length * row_bytes);
    for (std::uint64_t row = 0; row < values.size() / row_length; ++row)
        format::encode_row(type, values.data() + row * row_length, row_length,
                           bytes.data() + row * row_bytes);
    return bytes;
}

/// A model of the test data with all its matrices as floats of `type`.
void write_master(const std::string& name, DType type, const std::string& path) {
    const auto file = gguf::File::open(golden(name));
    gguf::Writer writer;
    for (const auto& entry : file.metadata()) writer.set(entry.key, entry.value);
    for (const TensorView& tensor : file.tensors()) {
        if (tensor.dimensions < 2 || type == tensor.type) {
            writer.add_tensor(tensor);
            continue;
        }
        const auto shape = std::span(tensor.shape).first(static_cast<std::size_t>(tensor.dimensions));
        const DType as = tensor.type == DType::f32 && !is_quantizable(tensor) ? DType::f32 : type;
        writer.add_tensor(tensor.name, as, shape, encoded(as, floats_of(tensor), tensor.row_length()));
    }
    writer.write(path);
}

/// A file of one F32 tensor.
void write_tensor(const std::string& path, const std::vector<float>& values, std::uint64_t row_length) {
    gguf::Writer writer;
    writer.set("general.architecture", std::string("none"));
    writer.add_tensor("blk.0.ffn_up.weight", DType::f32, {row_length, values.size() / row_length},
                      encoded(DType::f32, values, row_length));
    writer.write(path);
}

Result quantize(const std::string& in, const std::string& out, std::vector<std::string> options) {
    options.insert(options.begin(), {"quantize", in, out});
    return run_gg(options);
}

std::size_t files_in(const std::filesystem::path& folder) {
    const std::filesystem::directory_iterator files(folder);
    return static_cast<std::size_t>(std::distance(begin(files), end(files)));
}

double perplexity(const std::string& model, const std::string& tokens) {
    const Result result = run_gg({"score", "-m", model, "--tokens-file", tokens, "--json"});
    CAPTURE(result.err);
    REQUIRE(result.code == 0);
    return json::parse(result.out)["perplexity"].get<double>();
}

}  // namespace

TEST_CASE("gg quantize writes every type, and the model still runs") {
    gguf_test::TemporaryFolder folder;
    const std::string master = folder / "master.gguf", out = folder / "out.gguf";
    write_master("gpt-oss-k", DType::bf16, master);
    write_file(folder / "tokens", "1 5 9 2 6 5 3 5 8 9 7 9 3 2 3 8 4 6 2 6");
    const double expected = perplexity(master, folder / "tokens");
    const auto source = gguf::File::open(master);
    // Type and general.file_type.
    const std::pair<const char*, std::uint32_t> types[] = {
        {"F32", 0},  {"F16", 1},   {"BF16", 32}, {"Q8_0", 7},  {"Q4_0", 2},
        {"Q5_0", 8}, {"Q4_K", 14}, {"Q5_K", 16}, {"Q6_K", 18}, {"MXFP4", 38}};
    for (const auto& [name, number] : types) {
        CAPTURE(name);
        const Result result = quantize(master, out, {"--type", name, "--json", "--force"});
        CAPTURE(result.err);
        REQUIRE(result.code == 0);
        const json report = json::parse(result.out);
        const auto file = gguf::File::open(out);
        CHECK(report["output_bytes"] == std::filesystem::file_size(out));
        CHECK(report["file_type"] == number);
        CHECK(file.get<std::uint32_t>("general.file_type") == number);
        CHECK(file.get<std::uint32_t>("general.quantization_version") == 2);
        for (const auto& entry : source.metadata())
            if (entry.key != "general.file_type" && entry.key != "general.quantization_version") {
                const gguf::Value* value = file.find(entry.key);
                REQUIRE(value);
                CHECK(std::equal(value->bytes().begin(), value->bytes().end(), entry.value.bytes().begin(),
                                 entry.value.bytes().end()));
            }
        REQUIRE(file.tensors().size() == source.tensors().size());
        const DType type = find_dtype(name)->type;
        double largest = 0;
        for (std::size_t i = 0; i < file.tensors().size(); ++i) {
            const TensorView& from = source.tensors()[i];
            const TensorView& to = file.tensors()[i];
            CAPTURE(from.name);
            CHECK(to.name == from.name);
            CHECK(to.shape == from.shape);
            const bool matrix =
                from.dimensions > 1 && from.name.ends_with(".weight") && !contains(from.name, "ffn_gate_inp");
            CHECK(to.type == (matrix ? type : from.type));
            const auto values = floats_of(from);
            const auto bytes = encoded(to.type, values, from.row_length());
            REQUIRE(bytes.size() == to.bytes());
            CHECK(std::memcmp(bytes.data(), to.data, bytes.size()) == 0);
            const auto back = floats_of(to);
            double error = 0;
            for (std::size_t j = 0; j < back.size(); ++j)
                error += std::pow(static_cast<double>(back[j]) - values[j], 2);
            const json& row = report["tensors"][i];
            CHECK(row["name"] == from.name);
            CHECK(row["from"] == info(from.type).name);
            CHECK(row["to"] == info(to.type).name);
            CHECK(row["bytes"] == to.bytes());
            largest = std::fmax(largest, row["relative_rmse"].get<double>());
            CHECK(row["rmse"].get<double>() ==
                  Approx(std::sqrt(error / static_cast<double>(back.size()))).margin(1e-12));
        }
        // A few times the relative error of the weights, which are random, as is the text.
        CHECK(std::fabs(perplexity(out, folder / "tokens") / expected - 1) < 10 * largest + 1e-6);
        const json about = json::parse(run_gg({"info", out, "--json"}).out);
        CHECK(about["problem"].is_null());
    }
}

TEST_CASE("experts may have a type of their own") {
    gguf_test::TemporaryFolder folder;
    const std::string master = folder / "master.gguf", out = folder / "out.gguf";
    write_master("gpt-oss-k", DType::f16, master);
    const Result result = quantize(master, out, {"--type", "q8_0", "--experts", "mxfp4"});
    REQUIRE(result.code == 0);
    CHECK(result.out.empty());
    for (const char* part : {"Q8_0: ", "MXFP4: ", "F32: ", "relative RMS error", "out.gguf: "})
        CHECK(contains(result.err, part));
    const auto file = gguf::File::open(out);
    for (const TensorView& tensor : file.tensors()) {
        CAPTURE(tensor.name);
        const bool experts = contains(tensor.name, "_exps.weight");
        if (experts) CHECK(tensor.type == DType::mxfp4);
        if (!experts) CHECK((tensor.type == DType::q8_0 || tensor.type == DType::f32));
    }
    CHECK(file.get<std::uint32_t>("general.file_type") == 38);
    write_file(folder / "tokens", "1 2 3 4 5");
    CHECK(perplexity(out, folder / "tokens") > 1);

    // What has its type already is copied; what is quantized otherwise is refused by name.
    const std::string again = folder / "again.gguf";
    REQUIRE(quantize(out, again, {"--type", "Q8_0", "--experts", "MXFP4"}).code == 0);
    const auto copied = gguf::File::open(again);
    for (std::size_t i = 0; i < file.tensors().size(); ++i)
        CHECK(std::memcmp(file.tensors()[i].data, copied.tensors()[i].data, file.tensors()[i].bytes()) == 0);
    const Result refused = quantize(out, folder / "no.gguf", {"--type", "Q8_0", "--json"});
    CHECK(refused.code == 1);
    CHECK(contains(refused.err, "blk.0.ffn_gate_exps.weight"));
    CHECK(contains(refused.err, "--experts MXFP4"));
    CHECK(json::parse(refused.out)["error"]["code"] == "model_load_failed");
    CHECK_FALSE(std::filesystem::exists(folder / "no.gguf"));
}

TEST_CASE("rows that do not fit get another type, and are listed") {
    gguf_test::TemporaryFolder folder;
    const std::string out = folder / "out.gguf";
    TinyModel().write(folder / "tiny.gguf");  // rows of 32 and 64
    const std::tuple<const char*, DType> types[] = {
        {"Q4_K", DType::q5_0}, {"Q5_K", DType::q5_1}, {"Q6_K", DType::q8_0}};
    for (const auto& [name, instead] : types) {
        CAPTURE(name);
        const Result result = quantize(folder / "tiny.gguf", out, {"--type", name, "--force"});
        REQUIRE(result.code == 0);
        const auto file = gguf::File::open(out);
        for (const TensorView& tensor : file.tensors()) {
            CHECK(tensor.type == (tensor.dimensions > 1 ? instead : DType::f32));
            CHECK(contains(result.err, "gg: " + tensor.name + ": rows") == (tensor.dimensions > 1));
        }
        CHECK(contains(result.err, "blk.0.ffn_down.weight: rows of 64 do not fit " + std::string(name) +
                                       ", so it becomes " + std::string(info(instead).name)));
        CHECK(file.get<std::uint32_t>("general.file_type") == file_type(find_dtype(name)->type));
        CHECK(run_gg({"run", "-m", out, "-p", "hey", "-n", "4", "--seed", "1"}).code == 0);
    }
    // Rows of 48, 51 and 35: F16. The position embedding stays.
    for (const char* name : {"llama-f32", "gpt-oss-half", "gpt2-half"})
        for (const char* type : {"Q4_K", "Q8_0", "Q4_0", "MXFP4"}) {
            CAPTURE(name, type);
            const Result result = quantize(golden(name), out, {"--type", type, "--force"});
            REQUIRE(result.code == 0);
            const auto file = gguf::File::open(out), source = gguf::File::open(golden(name));
            for (const TensorView& tensor : file.tensors()) {
                CAPTURE(tensor.name);
                const TensorView& from = source.require_tensor(tensor.name);
                if (!is_quantizable(from)) CHECK(tensor.type == from.type);
                if (is_quantizable(from) && tensor.row_length() % 32 != 0) CHECK(tensor.type == DType::f16);
            }
            if (file.tensor("position_embd.weight"))
                CHECK(file.tensor("position_embd.weight")->type == DType::f32);
            write_file(folder / "tokens", "1 2 3 4 5");
            CHECK(perplexity(out, folder / "tokens") > 1);
        }
}

TEST_CASE("the rule of fitting types") {
    CHECK(fitting_type(DType::q4_k, 2880) == DType::q5_0);
    CHECK(fitting_type(DType::q5_k, 2880) == DType::q5_1);
    CHECK(fitting_type(DType::q6_k, 2880) == DType::q8_0);
    CHECK(fitting_type(DType::q4_k, 4096) == DType::q4_k);
    CHECK(fitting_type(DType::q4_k, 48) == DType::f16);
    CHECK(fitting_type(DType::q8_0, 48) == DType::f16);
    CHECK(fitting_type(DType::mxfp4, 2880) == DType::mxfp4);
    CHECK(fitting_type(DType::f32, 7) == DType::f32);
    CHECK(fitting_type(DType::bf16, 7) == DType::bf16);
}

TEST_CASE("any number of threads writes the same file") {
    gguf_test::TemporaryFolder folder;
    write_master("llama-k", DType::f32, folder / "master.gguf");
    std::string first, report;
    for (const char* threads : {"1", "2", "7"}) {
        const std::string out = folder / "out.gguf";
        const Result result = quantize(folder / "master.gguf", out,
                                       {"--type", "Q4_K", "--threads", threads, "--force", "--json"});
        REQUIRE(result.code == 0);
        if (first.empty()) first = read_file(out), report = result.out;
        CHECK(read_file(out) == first);
        CHECK(result.out == report);
    }
}

TEST_CASE("the parts of a split model become one file") {
    gguf_test::TemporaryFolder folder;
    write_master("llama-k", DType::bf16, folder / "whole.gguf");
    const auto whole = gguf::File::open(folder / "whole.gguf");
    const std::string first = folder / "m-00001-of-00002.gguf", second = folder / "m-00002-of-00002.gguf";
    for (std::uint16_t part = 0; part < 2; ++part) {
        gguf::Writer writer;
        if (part == 0)
            for (const auto& entry : whole.metadata()) writer.set(entry.key, entry.value);
        writer.set("split.no", part);
        writer.set("split.count", std::uint16_t{2});
        writer.set("split.tensors.count", static_cast<std::int32_t>(whole.tensors().size()));
        for (std::size_t i = 0; i < whole.tensors().size(); ++i)
            if ((i < 4) == (part == 0)) writer.add_tensor(whole.tensors()[i]);
        writer.write(part == 0 ? first : second);
    }
    REQUIRE(quantize(first, folder / "a.gguf", {"--type", "Q5_K"}).code == 0);
    REQUIRE(quantize(folder / "whole.gguf", folder / "b.gguf", {"--type", "Q5_K"}).code == 0);
    CHECK(read_file(folder / "a.gguf") == read_file(folder / "b.gguf"));
    // No part is overwritten.
    const std::string before = read_file(second);
    const Result refused = quantize(first, second, {"--type", "Q5_K", "--force"});
    CHECK(refused.code == 1);
    CHECK(contains(refused.err, "the input itself"));
    CHECK(read_file(second) == before);
}

TEST_CASE("an output that must not be written is refused, and nothing is left") {
    gguf_test::TemporaryFolder folder;
    const std::string in = folder / "in.gguf", out = folder / "out.gguf";
    TinyModel().write(in);
    const std::string before = read_file(in);
    SECTION("the input, by any name") {
        std::filesystem::create_symlink(in, folder / "link.gguf");
        for (const std::string& name :
             {in, std::string(folder / "./in.gguf"), std::string(folder / "link.gguf")})
            for (const bool force : {false, true}) {
                std::vector<std::string> options = {"--type", "Q8_0"};
                if (force) options.push_back("--force");
                const Result result = quantize(in, name, options);
                CHECK(result.code == 1);
                CHECK(contains(result.err, "the input itself"));
            }
        CHECK(read_file(in) == before);
        CHECK(files_in(folder.path()) == 2);
    }
    SECTION("an existing file, without --force") {
        write_file(out, "kept");
        const Result result = quantize(in, out, {"--type", "Q8_0"});
        CHECK(result.code == 1);
        CHECK(contains(result.err, "--force"));
        CHECK(read_file(out) == "kept");
        CHECK(quantize(in, out, {"--type", "Q8_0", "--force"}).code == 0);
        CHECK(gguf::File::open(out).tensors().size() == 12);
    }
    SECTION("what is no file, or in no folder") {
        std::filesystem::create_directory(folder / "folder");
        CHECK(quantize(in, folder / "folder", {"--type", "Q8_0", "--force"}).code == 1);
        CHECK(quantize(in, "/dev/null", {"--type", "Q8_0", "--force"}).code == 1);
        const Result result = quantize(in, folder / "none/out.gguf", {"--type", "Q8_0"});
        CHECK(result.code == 1);
        CHECK(contains(result.err, "none/out.gguf"));
        CHECK(files_in(folder.path()) == 2);
    }
    SECTION("a full disk") {
        if (!std::filesystem::exists("/proc/self/fd")) GG_SKIP("no limit on file sizes here");
        // A limit on the size of files fails writes as a full disk does.
        struct rlimit old {};
        REQUIRE(::getrlimit(RLIMIT_FSIZE, &old) == 0);
        struct rlimit small = old;
        small.rlim_cur = 20000;
        ::signal(SIGXFSZ, SIG_IGN);
        REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
        const Result result = quantize(in, out, {"--type", "Q8_0", "--json"});
        REQUIRE(::setrlimit(RLIMIT_FSIZE, &old) == 0);
        CHECK(result.code == 1);
        CHECK(contains(result.err, "room for the file"));
        CHECK(files_in(folder.path()) == 1);
    }
}

TEST_CASE("numbers that cannot be encoded are refused by position") {
    gguf_test::TemporaryFolder folder;
    const std::string in = folder / "in.gguf", out = folder / "out.gguf";
    std::vector<float> values(256 * 9, 0.5f);
    const auto refused = [&](float bad, const char* type) {
        values[256 * 7 + 33] = bad;
        write_tensor(in, values, 256);
        const Result result = quantize(in, out, {"--type", type});
        CHECK(result.code == 1);
        CHECK(files_in(folder.path()) == 1);
        return result.err;
    };
    for (const char* type : {"Q4_K", "Q8_0", "F16", "BF16", "MXFP4"})
        for (const float bad : {std::nanf(""), HUGE_VALF, -HUGE_VALF}) {
            CAPTURE(type, bad);
            CHECK(contains(refused(bad, type), "blk.0.ffn_up.weight, row 7, element 33"));
        }
    CHECK(contains(refused(70000.0f, "F16"), "row 7, element 33"));
    CHECK(contains(refused(1e9f, "Q4_K"), "blk.0.ffn_up.weight, row 7"));
    values[256 * 7 + 33] = 70000.0f;
    write_tensor(in, values, 256);
    CHECK(quantize(in, out, {"--type", "BF16"}).code == 0);
}

TEST_CASE("Ctrl-C leaves what was there") {
    gguf_test::TemporaryFolder folder;
    const std::string in = folder / "in.gguf", out = folder / "out.gguf";
    // 2^26 elements, seconds of work.
    std::vector<float> values(256);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = std::sin(static_cast<float>(i));
    const std::vector<std::byte> row = encoded(DType::bf16, values, 256);
    gguf::Writer writer;
    writer.add_tensor("blk.0.ffn_up.weight", DType::bf16, {256, 1 << 18}, [&row](const gguf::ByteSink& sink) {
        for (int i = 0; i < 1 << 18; ++i) sink(row);
    });
    writer.write(in);
    write_file(out, "kept");
    Child child({"quantize", in, out, "--type", "Q4_K", "--force", "--threads", "1"});
    REQUIRE(Child::wait_until([&] { return files_in(folder.path()) == 3; }));
    child.signal(SIGINT);
    const Result result = child.wait();
    CHECK(result.code == 1);
    CHECK(contains(result.err, "interrupted"));
    CHECK(read_file(out) == "kept");
    CHECK(files_in(folder.path()) == 2);
}

TEST_CASE("wrong usage of gg quantize is exit code 2") {
    for (const std::vector<std::string>& arguments :
         std::vector<std::vector<std::string>>{{"quantize"},
                                               {"quantize", "a", "--type", "Q8_0"},
                                               {"quantize", "a", "b"},
                                               {"quantize", "a", "b", "--type", "Q3_K"},
                                               {"quantize", "a", "b", "--type", "Q4_1"},
                                               {"quantize", "a", "b", "--type", "Q8_0", "--experts", "Q2_K"},
                                               {"quantize", "a", "b", "c", "--type", "Q8_0"},
                                               {"quantize", "a", "b", "--type", "Q8_0", "--threads", "0"}}) {
        const Result result = run_gg(arguments);
        CAPTURE(arguments);
        CHECK(result.code == 2);
        CHECK(result.out.empty());
    }
    CHECK(contains(run_gg({"quantize", "a", "b", "--type", "Q3_K"}).err, "Q8_0, Q4_0, Q5_0, Q4_K"));
    CHECK(contains(run_gg({"help", "quantize"}).out, "--experts"));
    const Result missing = run_gg({"quantize", "/nonexistent/a.gguf", "/nonexistent/b", "--type", "Q8_0"});
    CHECK(missing.code == 1);
    CHECK(contains(missing.err, "/nonexistent/a.gguf"));
}

TEST_CASE("gg quantize refuses an input of another SHA-256") {
    gguf_test::TemporaryFolder folder;
    const std::string out = folder / "out.gguf";
    const Result refused =
        run_gg({"quantize", golden("llama-f32"), out, "--type", "F16", "--sha256", std::string(64, '0')});
    CHECK(refused.code == 1);
    CHECK(contains(refused.err, "SHA-256"));
    CHECK_FALSE(std::filesystem::exists(out));
}
