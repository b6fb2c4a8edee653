// What the parts of gg-bench-blocks share: which rows are wanted, what a row is, and its line of the table.
//
// A part calls measure(block, shape, f) for each of its rows; f, which makes the Result, is called for those
// that are wanted. It checks the block's output before it measures, and throws if it is wrong: the row is
// then a failure, and the others go on. Outside f nothing may touch a GPU: there is none where rows are only
// listed.
#pragma once

#include <cmath>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "gg/cuda/device.hpp"

namespace gg::bench {

struct Row;  // results.hpp, which takes a compiler long, is included where results are written

/// Microseconds of one call of a block: median, least and most of several rounds.
struct Times {
    double median = 0, low = 0, high = 0;
};
Times times_of(std::vector<double> rounds);

/// What the same work takes elsewhere.
struct Peer {
    std::string name;
    Times us;
};

/// One block of one shape.
struct Result {
    Times us;               ///< of one launch
    double bytes = 0;       ///< that it must move through memory; 0: not what limits it
    double operations = 0;  ///< floating-point operations, for products and attention; 0: bytes count
    std::string check;      ///< how its output was checked
    std::vector<Peer> beside;
};

struct Settings {
    std::string filter;
    bool list = false;
    int rounds = 11;  ///< of each measurement
};

class Bench {
  public:
    Bench(Settings settings, cuda::DeviceInfo device);
    ~Bench();

    int rounds() const { return settings_.rounds; }
    const cuda::DeviceInfo& device() const { return device_; }
    bool failed() const { return failures_ > 0; }
    /// Rows that the filter let through, measured or failed.
    int wanted() const { return wanted_; }
    const std::vector<Row>& rows() const { return rows_; }

    /// Measures a row if it is wanted; lists it where rows are only listed.
    void measure(const std::string& block, const std::string& shape, const std::function<Result()>& f);
    /// The same for what percentages refer to, wanted whatever the filter says; f may find that there is
    /// none.
    void measure_ceiling(const std::string& block, const std::string& shape,
                         const std::function<std::optional<Result>()>& f);

    /// Rates that a device reaches at best, measured in the same run.
    std::optional<double> read_ceiling;     ///< GB/s
    std::optional<double> product_ceiling;  ///< TFLOP/s

  private:
    bool matches(const std::string& block, const std::string& shape) const {
        return (block + ", " + shape).find(settings_.filter) != std::string::npos;
    }
    void measure_any(const std::string& block, const std::string& shape,
                     const std::function<std::optional<Result>()>& f);
    void add(const std::string& block, const std::string& shape, const Result& result);

    Settings settings_;
    cuda::DeviceInfo device_;
    std::vector<Row> rows_;
    int failures_ = 0, wanted_ = 0;
    bool headed_ = false;
};

/// Compares an output with a reference, and remembers how many values it saw. Throws gg::Error (internal) at
/// the first value that misses by more than its bound.
class Check {
  public:
    explicit Check(std::string against) : against_(std::move(against)) {}

    void see(double found, double expected, double bound, const std::string& where) {
        ++seen_;
        if (std::fabs(found - expected) <= bound) return;
        throw Error(ErrorCode::internal,
                    {.field = where,
                     .expected = std::to_string(expected) + " within " + std::to_string(bound),
                     .found = std::to_string(found)});
    }
    std::string text() const { return std::to_string(seen_) + " values, " + against_; }

  private:
    std::string against_;
    long seen_ = 0;
};

// The parts, in the order in which they run.
void bench_reads(Bench& bench);
void bench_products_ceiling(Bench& bench);
void bench_decode_1(Bench& bench);
void bench_decode_8(Bench& bench);
void bench_decode_attention(Bench& bench);
void bench_prefill_attention(Bench& bench);
void bench_dense_products(Bench& bench);
void bench_expert_products(Bench& bench);
void bench_rows(Bench& bench);
void bench_repack(Bench& bench);
void bench_sampler(Bench& bench);

}  // namespace gg::bench
