// Ten thousand damaged files: each is either refused by gg::Error or can be read in full, and parsing it
// allocates no more than its size allows. Run under AddressSanitizer by the preset dev, where a stray read
// ends the test.
#include <atomic>
#include <cstdlib>
#include <new>
#include <random>

#include "raw.hpp"
#include "samples.hpp"
#include "temporary_folder.hpp"

namespace {

std::atomic<std::uint64_t> allocated{0};  // bytes asked for since the program began, never less

void* counted(std::size_t bytes) noexcept {
    allocated += bytes;
    return std::malloc(bytes ? bytes : 1);
}

void* counted_or_throw(std::size_t bytes) {
    if (void* memory = counted(bytes)) return memory;
    throw std::bad_alloc();
}

}  // namespace

// The whole test program counts.
void* operator new(std::size_t bytes) {
    return counted_or_throw(bytes);
}
void* operator new[](std::size_t bytes) {
    return counted_or_throw(bytes);
}
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
    return counted(bytes);
}
void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept {
    return counted(bytes);
}
void operator delete(void* memory) noexcept {
    std::free(memory);
}
void operator delete[](void* memory) noexcept {
    std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
    std::free(memory);
}
void operator delete[](void* memory, std::size_t) noexcept {
    std::free(memory);
}

using namespace gguf_test;

namespace {

// What is promised of any file is 16 times its size and 16 MiB. Held here is 16 times and 16 KiB: a small
// file that makes the parser reserve memory by one of its numbers would hide below the promise.
constexpr std::uint64_t allowed(std::uint64_t file_bytes) {
    return 16 * file_bytes + (16u << 10);
}

constexpr std::uint64_t extremes[] = {0,
                                      1,
                                      2,
                                      0x7f,
                                      0xff,
                                      0x7fffffff,
                                      0x80000000,
                                      0xffffffff,
                                      std::uint64_t{1} << 32,
                                      std::uint64_t{1} << 40,
                                      (std::uint64_t{1} << 61) + 1,
                                      two_to_63 - 1,
                                      two_to_63,
                                      u64_max - 31,
                                      u64_max - 7,
                                      u64_max};

class Mutator {
  public:
    Mutator(const std::vector<std::vector<std::byte>>& samples, std::uint64_t seed)
        : samples_(samples), random_(seed), bytes_(samples[below(samples.size())]) {}

    std::vector<std::byte> run() {
        const std::uint64_t steps = 1 + below(4);
        for (std::uint64_t i = 0; i < steps && !bytes_.empty(); ++i) step();
        return std::move(bytes_);
    }

  private:
    std::uint64_t below(std::uint64_t limit) { return limit ? random_() % limit : 0; }
    std::uint64_t place() { return below(bytes_.size()); }

    void step() {
        switch (below(8)) {
            case 0:
                bytes_[place()] ^= static_cast<std::byte>(1u << below(8));
                break;
            case 1:
                bytes_[place()] = static_cast<std::byte>(below(256));
                break;
            case 2:
                bytes_.resize(place());
                break;
            case 3:
                set_number(place());
                break;
            case 4:
                set_number(length_field());
                break;
            case 5:
                splice();
                break;
            case 6:
                duplicate();
                break;
            default:
                erase();
                break;
        }
    }

    /// A place whose eight bytes look like a length, a count or a dimension.
    std::uint64_t length_field() {
        std::vector<std::uint64_t> places;
        for (std::uint64_t i = 0; i + 8 <= bytes_.size(); ++i) {
            const auto number = gg::gguf::detail::load<std::uint64_t>(bytes_.data() + i);
            if (number > 0 && number <= bytes_.size()) places.push_back(i);
        }
        return places.empty() ? place() : places[below(places.size())];
    }

    void set_number(std::uint64_t at) {
        std::uint64_t number = extremes[below(std::size(extremes))];
        if (below(4) == 0) number = bytes_.size() - at + below(64) - 32;
        const std::uint64_t width = std::min<std::uint64_t>(below(2) ? 8 : 4, bytes_.size() - at);
        std::memcpy(bytes_.data() + at, &number, width);
    }

    void splice() {
        const std::vector<std::byte>& other = samples_[below(samples_.size())];
        const auto keep = static_cast<std::ptrdiff_t>(place());
        const auto from = static_cast<std::ptrdiff_t>(below(other.size()));
        bytes_.erase(bytes_.begin() + keep, bytes_.end());
        bytes_.insert(bytes_.end(), other.begin() + from, other.end());
    }

    std::vector<std::byte> range() {
        const std::uint64_t from = place();
        const auto first = bytes_.begin() + static_cast<std::ptrdiff_t>(from);
        return {first, first + static_cast<std::ptrdiff_t>(
                                   1 + below(std::min<std::uint64_t>(bytes_.size() - from, 64)))};
    }

    void duplicate() {
        const std::vector<std::byte> copy = range();
        bytes_.insert(bytes_.begin() + static_cast<std::ptrdiff_t>(place()), copy.begin(), copy.end());
    }

    void erase() {
        const std::uint64_t from = place();
        const auto first = bytes_.begin() + static_cast<std::ptrdiff_t>(from);
        bytes_.erase(first, first + static_cast<std::ptrdiff_t>(
                                        below(std::min<std::uint64_t>(bytes_.size() - from, 64))));
    }

    const std::vector<std::vector<std::byte>>& samples_;
    std::mt19937_64 random_;
    std::vector<std::byte> bytes_;
};

/// Whether bytes parse; if they do, everything in them is read. Checks what was allocated either way.
bool parses(const std::vector<std::byte>& bytes) {
    const std::uint64_t before = allocated;
    std::optional<gg::gguf::File> file;
    try {
        file = gg::gguf::File::parse(bytes, "mutated.gguf");
    } catch (const gg::Error& error) {
        if (error.code() != gg::ErrorCode::model_load_failed || error.mismatch().field.empty() ||
            error.mismatch().expected.empty() || error.mismatch().found.empty())
            FAIL("an incomplete error: " << error.what());
    }
    const std::uint64_t used = allocated - before;
    if (used > allowed(bytes.size())) FAIL(used << " bytes allocated to parse " << bytes.size());
    if (file && touch_everything(*file) == 0) FAIL("nothing read");
    return file.has_value();
}

}  // namespace

TEST_CASE("the samples are correct files") {
    for (const std::vector<std::byte>& sample : sample_files()) {
        CHECK(parses(sample));
        CHECK(sample.size() < 16384);
    }
}

TEST_CASE("10,000 mutated files are refused or read, within the bound on memory") {
    const std::vector<std::vector<std::byte>> samples = sample_files();
    int read = 0, refused = 0;
    for (std::uint64_t seed = 0; seed < 10000; ++seed) {
        CAPTURE(seed);
        ++(parses(Mutator(samples, seed).run()) ? read : refused);
    }
    CHECK(read + refused == 10000);
    CHECK(read > 500);  // damage to data and texts goes unseen, damage to structure does not
    CHECK(refused > 5000);
}

TEST_CASE("mutated files are refused or read from disk too") {
    const std::vector<std::vector<std::byte>> samples = sample_files();
    TemporaryFolder folder;
    int read = 0, refused = 0;
    for (std::uint64_t seed = 20000; seed < 20300; ++seed) {
        CAPTURE(seed);
        write_bytes(folder / "m-00001-of-00002.gguf", Mutator(samples, seed).run());
        write_bytes(folder / "m-00002-of-00002.gguf", Mutator(samples, seed + 1).run());
        try {
            const auto file = gg::gguf::File::open(folder / "m-00001-of-00002.gguf");
            if (touch_everything(file) == 0) FAIL("nothing read");
            ++read;
        } catch (const gg::Error&) {
            ++refused;
        }
    }
    CHECK(read > 10);
    CHECK(refused > 100);
}

TEST_CASE("a large file of the smallest entries stays within 16 times its size") {
    const std::uint32_t entries = 20000;
    const auto name = [](std::uint32_t i) {
        std::string text;
        for (; text.size() < 3; i /= 64) text += static_cast<char>('0' + i % 64);
        return text;
    };
    SECTION("keys") {
        RawFile file;
        for (std::uint32_t i = 0; i < entries; ++i) file.key(name(i), id_u8, '\1');
        const std::vector<std::byte> bytes = file.build();
        const std::uint64_t before = allocated;
        const auto parsed = gg::gguf::File::parse(bytes, "keys.gguf");
        CHECK(allocated - before < 16 * bytes.size());
        CHECK(parsed.metadata().size() == entries);
    }
    SECTION("tensors") {
        RawFile file;
        for (std::uint32_t i = 0; i < entries; ++i) file.tensor(name(i), {1}, type_f32, 32 * i);
        const std::vector<std::byte> bytes = file.data(32 * entries).build();
        const std::uint64_t before = allocated;
        const auto parsed = gg::gguf::File::parse(bytes, "tensors.gguf");
        CHECK(allocated - before < 16 * (bytes.size() - 32 * entries));
        CHECK(parsed.tensors().size() == entries);
    }
    SECTION("strings") {
        const std::vector<std::byte> bytes =
            RawFile{}
                .key("k", id_array, id_string, std::uint64_t{100000}, Bytes{std::vector<std::byte>(800000)})
                .build();
        const std::uint64_t before = allocated;
        const auto parsed = gg::gguf::File::parse(bytes, "strings.gguf");
        CHECK(parsed.get<std::vector<std::string_view>>("k").size() == 100000);
        CHECK(allocated - before < 16 * bytes.size());
    }
}
