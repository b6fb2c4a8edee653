#include "bench.hpp"

#include <cstdio>

#include "../results.hpp"

namespace gg::bench {

namespace {

/// A rate in thousands of millions or millions of millions a second, from an amount and microseconds.
Measure rate_of(const Times& us, double amount, double per_unit) {
    const auto rate = [&](double time) { return amount / time * 1e6 / per_unit; };
    return {rate(us.median), rate(us.high), rate(us.low)};
}

}  // namespace

Times times_of(std::vector<double> rounds) {
    const Measure measure = measure_of(std::move(rounds));
    return {measure.median, measure.low, measure.high};
}

Bench::Bench(Settings settings, cuda::DeviceInfo device)
    : settings_(std::move(settings)), device_(std::move(device)) {}
Bench::~Bench() = default;

void Bench::measure(const std::string& block, const std::string& shape, const std::function<Result()>& f) {
    if (!matches(block, shape)) return;
    ++wanted_;
    measure_any(block, shape, [&]() -> std::optional<Result> { return f(); });
}

void Bench::measure_ceiling(const std::string& block, const std::string& shape,
                            const std::function<std::optional<Result>()>& f) {
    if (matches(block, shape)) ++wanted_;
    measure_any(block, shape, f);
}

void Bench::measure_any(const std::string& block, const std::string& shape,
                        const std::function<std::optional<Result>()>& f) {
    if (settings_.list) {
        std::printf("%s, %s\n", block.c_str(), shape.c_str());
        return;
    }
    try {
        if (const std::optional<Result> result = f()) add(block, shape, *result);
    } catch (const Error& error) {
        ++failures_;
        std::fflush(stdout);
        std::fprintf(stderr, "failed: %s, %s: %s\n", block.c_str(), shape.c_str(), error.what());
    }
}

void Bench::add(const std::string& block, const std::string& shape, const Result& result) {
    const bool products = result.operations > 0;
    const double amount = products ? result.operations : result.bytes, per_unit = products ? 1e12 : 1e9;
    const std::string unit = amount == 0 ? "us" : products ? "TFLOP/s" : "GB/s";
    const auto row_of = [&](const std::string& name, const std::string& test, const Times& us) {
        Row row{name, test, amount == 0 ? Measure{us.median, us.low, us.high} : rate_of(us, amount, per_unit),
                unit};
        if (result.bytes > 0) row.bytes = result.bytes;
        if (amount > 0) row.ceiling = products ? product_ceiling : read_ceiling;
        return row;
    };
    const Row row = row_of(block, shape, result.us);
    rows_.push_back(row);
    if (amount > 0) rows_.push_back({block, shape, {result.us.median, result.us.low, result.us.high}, "us"});
    std::string beside;
    for (const Peer& peer : result.beside) {
        const Row other = row_of(peer.name, block + ", " + shape, peer.us);
        rows_.push_back(other);
        beside += (beside.empty() ? "" : "; ") + peer.name + " " + detail::number_text(other.value.median);
    }
    if (!headed_)
        std::printf("%-34s %-30s %9s %19s %9s %-8s %6s  %s\n", "block", "shape", "us", "spread, us", "rate",
                    "", "% max", "beside; check");
    headed_ = true;
    const std::string spread =
        detail::number_text(result.us.low) + " to " + detail::number_text(result.us.high);
    char percent[16] = "";
    if (const auto p = row.percent()) std::snprintf(percent, sizeof percent, "%.1f", *p);
    std::printf("%-34s %-30s %9s %19s %9s %-8s %6s  %s%s%s\n", block.c_str(), shape.c_str(),
                detail::number_text(result.us.median).c_str(), spread.c_str(),
                amount == 0 ? "" : detail::number_text(row.value.median).c_str(),
                amount == 0 ? "" : unit.c_str(), percent, beside.c_str(), beside.empty() ? "" : "; ",
                result.check.c_str());
    std::fflush(stdout);
}

}  // namespace gg::bench
