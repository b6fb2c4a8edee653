// The GPU's sampler, run on the host: every thread of every block in turn, in random orders, so that a result
// which depends on the order of threads or blocks is found here. The GPU itself: tests/cuda/sampler_test.cu.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <memory>
#include <numeric>
#include <random>
#include <type_traits>
#include <vector>

#include "catch.hpp"
#include "cuda/sampler_cases.hpp"
#include "gg/cuda/sampler_choose.hpp"
#include "gg/cuda/sampler_stages.hpp"

using gg::cuda::SamplerArgs;
using gg::cuda::SamplerState;
using gg::cuda::Tally;
using sampler_cases::compare;
using sampler_cases::Source;

namespace {

std::mt19937 scheduler(99);

std::vector<int> shuffled(int count) {
    std::vector<int> order(static_cast<std::size_t>(count));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), scheduler);
    return order;
}

/// A block whose threads run one after the other.
template <int thread_count>
struct SerialBlock {
    static constexpr int threads = thread_count;
    std::vector<int> order = shuffled(threads);

    template <class F>
    void phase(F f) {
        for (const int thread : order) f(thread);
    }
    template <class T, class F, class Combine>
    T reduce(F f, Combine combine) {
        T result = f(order[0]);
        for (std::size_t i = 1; i < order.size(); ++i) result = combine(result, f(order[i]));
        return result;
    }
    template <class F>
    gg::cuda::SamplerKey largest(F f) {
        return reduce<gg::cuda::SamplerKey>(f, gg::cuda::larger);
    }
    bool last(unsigned* done, int count) { return ++*done == static_cast<unsigned>(count); }
    template <class Value, class Use>
    void scan(Value value, Use use) {
        std::vector<Tally> before(threads), own(threads);
        for (const int thread : order) own[static_cast<std::size_t>(thread)] = value(thread);
        for (std::size_t i = 1; i < before.size(); ++i) before[i] = before[i - 1] + own[i - 1];
        for (const int thread : order) use(thread, before[static_cast<std::size_t>(thread)]);
    }
    template <class T>
    T load(const T* p) {
        return *p;
    }
    template <class T>
    T add(T* p, T n) {
        const T old = *p;
        *p += n;
        return old;
    }
    void set_bits(unsigned* p, unsigned bits) { *p |= bits; }
    // All threads of a warp call this together on a GPU; here each adds its own, which comes to the same.
    void tally(gg::cuda::Cells& cells, bool active, int cell, unsigned long long mass) {
        if (active) cells.add(*this, cell, {mass, 1});
    }
};

/// Shared memory as a block finds it.
template <class T>
std::unique_ptr<T> dirty() {
    auto shared = std::make_unique<T>();
    std::fill_n(reinterpret_cast<unsigned char*>(shared.get()), sizeof(T),
                static_cast<unsigned char>(scheduler()));
    return shared;
}

class SerialDevice {
  public:
    SerialDevice(int vocabulary, int stride, const std::vector<gg::text::SamplerOptions>& options,
                 const std::vector<std::vector<unsigned>>& blocked)
        : vocabulary_(vocabulary),
          stride_(stride),
          blocked_(blocked),
          recent_(options.size()),
          drawn_(options.size()) {
        for (std::size_t row = 0; row < options.size(); ++row) {
            recent_[row].resize(static_cast<std::size_t>(gg::cuda::sampler_recent(options[row])));
            states_.push_back(gg::cuda::sampler_state(options[row],
                                                      blocked_[row].empty() ? nullptr : blocked_[row].data(),
                                                      recent_[row].data(), drawn_[row].data()));
        }
    }

    void accept(int row, const std::vector<int>& tokens) {
        SerialBlock<256> block;
        SamplerState& state = states_[static_cast<std::size_t>(row)];
        if (!tokens.empty())
            gg::cuda::accept_tokens(block, &state, state.settings, tokens.data(),
                                    static_cast<int>(tokens.size()));
    }

    std::vector<int> sample(std::vector<float> logits, bool append = false) {
        const int rows = static_cast<int>(states_.size()), overflows = 5 + static_cast<int>(calls_);
        std::vector<gg::cuda::Row> list;
        for (int row = 0; row < rows; ++row)
            list.push_back({-77, row, row, 0, nullptr, logits.data() + row * stride_,
                            &states_[static_cast<std::size_t>(row)]});
        for (auto& ring : drawn_) ring.fill({-77, -77});
        std::vector<unsigned long long> workspace(gg::cuda::sampler_workspace_bytes(vocabulary_, rows) / 8);
        for (auto& word : workspace) word = scheduler() * 0x100000001ULL;
        const SamplerArgs args = {list.data(), rows,
                                  vocabulary_, reinterpret_cast<unsigned char*>(workspace.data()),
                                  &overflows,  append};
        const auto task = [&](int row, int slice) {
            return gg::cuda::sampler_task(args, settings(row), row, slice);
        };
        each_slice<gg::cuda::MaximumShared>(rows, [&](auto& block, auto& shared, int row, int slice) {
            using Block = std::remove_reference_t<decltype(block)>;
            const auto blocked = [&](int thread) {
                return gg::cuda::blocked_ids<Block>(settings(row).blocked, task(row, slice).slice, thread);
            };
            gg::cuda::find_maximum(block, shared, task(row, slice), settings(row), &state(row),
                                   logits.data() + row * stride_, blocked);
        });
        each_slice<gg::cuda::CollectShared>(rows, [&](auto& block, auto& shared, int row, int slice) {
            gg::cuda::collect(block, shared, task(row, slice), settings(row), &state(row));
        });
        each_slice<gg::cuda::ChooseShared>(rows, [&](auto& block, auto& shared, int row, int slice) {
            const auto r = static_cast<std::size_t>(row);
            gg::cuda::choose(block, shared, task(row, slice), args, settings(row), &states_[r], list[r]);
        });
        std::vector<int> ids;
        const std::size_t slot = calls_++ % gg::cuda::drawn_slots;
        for (int row = 0; row < rows; ++row) {
            const auto& ring = drawn_[static_cast<std::size_t>(row)];
            ids.push_back(ring[slot].id);
            for (std::size_t i = 0; i < ring.size(); ++i)
                REQUIRE(ring[i].overflows == (i == slot ? overflows : -77));
            const gg::cuda::Row& moved = list[static_cast<std::size_t>(row)];
            REQUIRE(moved.token == (append ? std::max(ids.back(), 0) : -77));
            REQUIRE(moved.position == row + append);
        }
        return ids;
    }

    const SamplerState& state(int row) const { return states_[static_cast<std::size_t>(row)]; }

  private:
    const gg::cuda::SamplerSettings& settings(int row) const {
        return states_[static_cast<std::size_t>(row)].settings;
    }
    template <class Shared, class F>
    void each_slice(int rows, F run) {
        const int slices = gg::cuda::sampler_slices(vocabulary_);
        for (const int i : shuffled(slices * rows)) {
            SerialBlock<512> block;
            run(block, *dirty<Shared>(), i / slices, i % slices);
        }
    }

    int vocabulary_, stride_;
    std::size_t calls_ = 0;
    std::vector<std::vector<unsigned>> blocked_;
    std::vector<std::vector<int>> recent_;
    std::vector<std::array<gg::cuda::Drawn, gg::cuda::drawn_slots>> drawn_;
    std::vector<SamplerState> states_;
};

}  // namespace

TEST_CASE("the stages of the GPU's sampler pick the host's ids") {
    Source source(3);
    for (int round = 0; round < 200; ++round)
        compare<SerialDevice>(source, source.pick<int>({1, 2, 7, 40, 333, 2048, 2049, 5000}),
                              source.uniform(1, 4), 3, source.uniform(0, sampler_cases::kinds - 1));
    for (int kind = 0; kind < sampler_cases::kinds; kind += 3)
        compare<SerialDevice>(source, 50257, 3, 2, kind);
}

TEST_CASE("top-p counts what top-k left, where top-k ends among many equal logits") {
    Source source(7);
    std::vector<gg::text::SamplerOptions> options;
    std::vector<gg::text::Sampler> samplers;
    for (const int top_k : {5, 20, 60, 500})
        for (const float top_p : {0.3F, 0.5F, 0.9F, 0.99F}) {
            options.push_back({.temperature = 1, .top_k = top_k, .top_p = top_p, .min_p = 0, .seed = 1});
            samplers.emplace_back(options.back(), 2000);
        }
    SerialDevice device(2000, 2000, options, std::vector<std::vector<unsigned>>(options.size()));
    for (int step = 0; step < 20; ++step) {
        const std::vector<float> row = source.logits(sampler_cases::terraces, 2000);
        std::vector<float> logits;
        std::vector<int> expected;
        for (auto& sampler : samplers) {
            logits.insert(logits.end(), row.begin(), row.end());
            expected.push_back(sampler.sample(row));
        }
        REQUIRE(device.sample(logits) == expected);
    }
}

TEST_CASE("a large vocabulary on the stages of the GPU's sampler") {
    Source source(4);
    for (int kind = 0; kind < sampler_cases::kinds; kind += 6)
        compare<SerialDevice>(source, 201088, 6, 1, kind);
}

TEST_CASE("a small top-k on the stages of the GPU's sampler") {
    Source source(41);
    source.most_top_k = 48;
    for (int kind = 0; kind < sampler_cases::kinds; ++kind) {
        compare<SerialDevice>(source, 16500, 4, 4, kind);  // 65 slices
        compare<SerialDevice>(source, 50257, 2, 2, kind);
    }
    // More slices than give a threshold.
    compare<SerialDevice>(source, 262208, 2, 1, sampler_cases::peaked);
}

TEST_CASE("at least top-k ids are not below the threshold, and hardly more of the slices' first ones") {
    Source source(42);
    for (int round = 0; round < 2000; ++round) {
        SerialBlock<512> block;
        auto shared = dirty<gg::cuda::ThresholdShared>();
        const int slices = source.uniform(1, gg::cuda::sampler_short_list);
        const int top_k = source.uniform(1, slices), values = source.pick<int>({1, 3, 100, 1000000});
        std::vector<unsigned> orders;
        for (int slice = 0; slice < gg::cuda::sampler_short_list; ++slice) {
            const float logit = source.uniform(0, 9)
                                    ? 1e-3F * static_cast<float>(source.uniform(-values, values))
                                    : -sampler_cases::inf;
            const auto key = gg::text::order_key(logit, static_cast<unsigned>(slice) * 2048);
            shared->firsts[slice] = slice < slices ? gg::cuda::threshold_key(key, slice) : 0;
            if (slice < slices) orders.push_back(static_cast<unsigned>(key >> 32));
        }
        std::sort(orders.rbegin(), orders.rend());
        const unsigned last = orders[static_cast<std::size_t>(top_k - 1)];
        const unsigned threshold = gg::cuda::find_threshold(block, *shared, top_k);
        REQUIRE(threshold <= last);
        REQUIRE(last - threshold < gg::cuda::sampler_short_list);
    }
}

TEST_CASE("options choose the way to the id") {
    using gg::cuda::SamplerMode;
    const auto mode = [](float temperature, int top_k, float top_p, int vocabulary) {
        gg::text::SamplerOptions options;
        options.temperature = temperature;
        options.top_k = top_k;
        options.top_p = top_p;
        const auto state = gg::cuda::sampler_state(options, nullptr, nullptr, nullptr);
        return gg::cuda::sampler_mode(state.settings, vocabulary);
    };
    CHECK(mode(0, 40, 0.95F, 201088) == SamplerMode::greedy);
    for (const int vocabulary : {32000, 50257, 128256, 151936, 201088, 262208})
        CHECK(mode(0.8F, 40, 0.95F, vocabulary) == SamplerMode::threshold);
    CHECK(mode(0.8F, 0, 1, 201088) == SamplerMode::whole);
    CHECK(mode(0.8F, 201088, 1, 201088) == SamplerMode::whole);
    CHECK(mode(0.8F, 500, 1, 201088) == SamplerMode::bins);
    CHECK(mode(0.8F, 0, 0.95F, 201088) == SamplerMode::bins);
    CHECK(mode(0.8F, 40, 0.95F, 1000) == SamplerMode::bins);
}

TEST_CASE("the GPU's sampler reports logits that no model should give") {
    const float nan = std::numeric_limits<float>::quiet_NaN(), inf = sampler_cases::inf;
    for (const float temperature : {0.0F, 0.8F}) {
        gg::text::SamplerOptions options;
        options.temperature = temperature;
        SerialDevice device(5, 5, {options}, {{0b00100}});
        CHECK(device.sample({-inf, -inf, nan, -inf, -inf}) ==
              std::vector<int>{gg::cuda::sampler_all_infinite});
        CHECK(device.sample({-inf, 1, 2, -nan, nan}) == std::vector<int>{gg::cuda::sampler_nan - 3});
        CHECK(device.sample({-inf, -inf, nan, 7, -inf}) == std::vector<int>{3});
        CHECK(device.state(0).step == 1);
        CHECK(device.state(0).calls == 3);
        try {
            gg::cuda::drawn_id(gg::cuda::sampler_nan - 3, 12);
            FAIL("no error");
        } catch (const gg::Error& error) {
            CHECK(error.code() == gg::ErrorCode::internal);
            CHECK(std::string(error.what()).find("step 12") != std::string::npos);
            CHECK(std::string(error.what()).find("NaN for id 3") != std::string::npos);
        }
    }
    CHECK(gg::cuda::drawn_id(8, 0) == 8);
}

TEST_CASE("a drawn id is accepted if asked for") {
    gg::text::SamplerOptions options;
    options.temperature = 0;
    options.repeat_penalty = 2;
    options.repeat_window = 2;
    SerialDevice device(3, 3, {options}, {{}});
    const std::vector<float> logits = {4, 3, 2.5F};
    CHECK(device.sample(logits, true) == std::vector<int>{0});
    CHECK(device.sample(logits, true) == std::vector<int>{1});
    CHECK(device.sample(logits, true) == std::vector<int>{2});
    CHECK(device.sample(logits, true) == std::vector<int>{0});
    CHECK(device.state(0).accepted == 4);
}

TEST_CASE("an edge is found exactly") {
    Source source(8);
    auto& random = source.random;
    gg::cuda::Cells cells;
    gg::cuda::Found found{};
    int tried = 0;
    for (int round = 0; round < 3000; ++round) {
        SerialBlock<1024> block;
        const int count = round % 50 == 0 ? source.uniform(1, 6000) : source.uniform(1, 60);
        const float top = source.normal(10), spread = std::ldexp(1.0F, source.uniform(-18, 2));
        const int values = source.pick<int>({1, 2, 5, 1000000});
        std::vector<gg::cuda::SamplerKey> keys = {gg::text::order_key(top, 77)};
        for (int i = 1; i < count; ++i) {
            const float below =
                spread * static_cast<float>(source.uniform(0, values)) / static_cast<float>(values);
            keys.push_back(gg::text::order_key(top - below,
                                               static_cast<unsigned>(source.pick<int>({1000, 100000}) + i)));
        }
        std::shuffle(keys.begin(), keys.end(), random);
        const auto any = [&] { return keys[random() % keys.size()]; };
        const auto bin = [&](gg::cuda::SamplerKey key) {
            return gg::cuda::logit_bin(gg::text::key_logit(key), top);
        };
        gg::cuda::KeyFilter filter = {bin(any()), bin(any()), random() % 2 ? any() : 0, top, 0.7F};
        std::vector<gg::cuda::SamplerKey> eligible;
        for (const auto key : keys)
            if (key >= filter.lowest && bin(key) >= filter.first_bin && bin(key) <= filter.last_bin)
                eligible.push_back(key);
        if (eligible.empty()) continue;
        ++tried;
        std::sort(eligible.rbegin(), eligible.rend());
        // The edge is put between two keys, or by mass also anywhere inside the one that reaches it.
        const std::size_t kept = 1 + random() % eligible.size();
        unsigned long long needed = kept, mass = 0;
        const bool by_mass = random() % 2;
        for (std::size_t i = 0; i + 1 < kept; ++i) mass += filter.mass(eligible[i]);
        const unsigned long long last = filter.mass(eligible[kept - 1]);
        if (by_mass) needed = mass + source.pick<unsigned long long>({1, last, 1 + random() % last});
        const gg::cuda::KeyList list = {keys.data(), keys.data(), count, source.uniform(0, count)};
        const auto lowest = gg::cuda::select_key(block, cells, found, list, filter, by_mass, needed);
        for (const auto key : keys)
            if (bin(key) >= filter.first_bin) REQUIRE((key >= lowest) == (key >= eligible[kept - 1]));
    }
    CHECK(tried > 1000);
}

TEST_CASE("bins of logits follow the order") {
    std::mt19937 random(5);
    for (int i = 0; i < 200000; ++i) {
        const float largest =
            std::ldexp(std::normal_distribution<float>()(random), static_cast<int>(random() % 60) - 30);
        float a = largest - std::ldexp(1.0F, static_cast<int>(random() % 60) - 40) *
                                static_cast<float>(random() % 1000);
        float b = random() % 2 ? std::nextafter(a, -sampler_cases::inf)
                               : a - std::ldexp(1.0F, static_cast<int>(random() % 60) - 40);
        const int bin_a = gg::cuda::logit_bin(a, largest), bin_b = gg::cuda::logit_bin(b, largest);
        REQUIRE(bin_a <= bin_b);
        REQUIRE((bin_a == 0) == (a == largest));
        REQUIRE(bin_b < gg::cuda::sampler_bins);
    }
    CHECK(gg::cuda::logit_bin(-sampler_cases::inf, 0) == gg::cuda::sampler_bins - 1);
    CHECK(gg::cuda::logit_bin(3, sampler_cases::inf) == gg::cuda::sampler_bins - 1);
    CHECK(gg::cuda::logit_bin(sampler_cases::inf, sampler_cases::inf) == 0);
}

TEST_CASE("tallies carry into the high word") {
    gg::cuda::Cells cells;
    cells.clear(3);
    SerialBlock<32> block;
    unsigned long long sum = 0;
    std::mt19937_64 random(6);
    for (int i = 0; i < 100000; ++i) {
        const unsigned long long mass = random() >> (24 + random() % 40);
        sum += mass;
        cells.add(block, 3, {mass, 1});
        REQUIRE(cells.mass(3) == sum);
    }
    CHECK(cells.get(3).count == 100000);
}
