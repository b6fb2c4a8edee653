// The plan of a matrix-vector stage, by brute force: every tile belongs to one warp, and what the plan
// reserves is enough for every block, round and warp.
#include "gg/cuda/plan.hpp"

#include <algorithm>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "catch.hpp"

using namespace gg::cuda;

namespace {

constexpr Chip chips[] = {{132, 115712, 231424}, {4, 49152, 101376}, {78, 82944, 166912}};

/// The first thing that is wrong, and how many are.
struct Faults {
    long count = 0;
    std::string first;

    void expect(bool right, const std::string& what) {
        if (!right && count++ == 0) first = what;
    }
};

/// One block's run, as Matvec walks it: rounds of at most `round_tiles`, each shared by the warps. `owners`
/// counts how often a tile is multiplied.
void walk(Faults& faults, const MatvecPlan& plan, int columns, int begin, int end, int round_tiles,
          std::vector<int>& owners) {
    for (int round = begin; round < end; round += round_tiles) {
        const int count = std::min(round_tiles, end - round), first_row = round / columns;
        faults.expect((round + count - 1) / columns - first_row < plan.round_rows, "rows of a round");
        std::set<int> places;
        for (int warp = 0; warp < plan.warps; ++warp) {
            int row = -1;
            for (int t = share_begin(count, warp, plan.warps); t < share_begin(count, warp + 1, plan.warps);
                 ++t) {
                ++owners[static_cast<std::size_t>(round + t)];
                faults.expect(share_of(count, t, plan.warps) == warp, "the warp of a tile");
                if ((round + t) / columns == row) continue;
                row = (round + t) / columns;
                const int place = row - first_row + warp;
                faults.expect(place < plan.round_rows + plan.warps, "places of sums");
                faults.expect(places.insert(place).second, "two sums in one place");
            }
        }
    }
}

/// A plan at work on `columns` tiles a row, at most those that it was made for, and `row_tiles` rows.
void check_coverage(Faults& faults, const MatvecShape& shape, const MatvecPlan& plan, int row_tiles,
                    int columns) {
    const int tiles = row_tiles * columns;
    std::vector<int> owners(static_cast<std::size_t>(tiles));
    std::vector<int> filled(static_cast<std::size_t>(row_tiles));  // slots of each row
    for (int block = 0; block < plan.blocks; ++block) {
        const int units = shape.whole_rows ? row_tiles : tiles, size = shape.whole_rows ? columns : 1;
        const int begin = share_begin(units, block, plan.blocks) * size;
        const int end = share_begin(units, block + 1, plan.blocks) * size;
        walk(faults, plan, columns, begin, end,
             shape.whole_rows ? plan.round_rows * columns : std::max(end - begin, 1), owners);
        if (shape.whole_rows) continue;
        faults.expect(begin < end, "a block without tiles leaves its slot empty");
        for (int row = begin / columns; begin < end && row <= (end - 1) / columns; ++row) {
            const int first = share_of(tiles, row * columns, plan.blocks);
            const int last = share_of(tiles, (row + 1) * columns - 1, plan.blocks);
            faults.expect(first <= block && block <= last && last - first < plan.slots, "slots");
            faults.expect(filled[static_cast<std::size_t>(row)]++ == block - first, "order of slots");
        }
    }
    faults.expect(std::all_of(owners.begin(), owners.end(), [](int n) { return n == 1; }),
                  "each tile belongs to one warp");
}

void check_memory(Faults& faults, const MatvecShape& s, const MatvecPlan& plan, const Chip& chip) {
    const int budget = s.rows == 1 ? chip.shared_half : chip.shared_whole;
    faults.expect(plan.depth <= 8, "depth");
    faults.expect(plan.ring_bytes == plan.depth * plan.warps * plan.chunk_tiles * s.tile_bytes, "ring");
    faults.expect(plan.sum_bytes >= (plan.round_rows + plan.warps) * 16 * s.rows * 4, "sums");
    faults.expect(plan.shared_bytes == plan.ring_bytes + plan.sum_bytes + s.activation_bytes, "total");
    faults.expect(plan.shared_bytes + 8 * plan.warps * plan.depth <= budget, "budget");
    faults.expect((plan.ring_bytes + plan.sum_bytes) % 16 == 0 && plan.ring_bytes % 16 == 0, "alignment");
    faults.expect(plan.blocks >= 1 && (s.dealt || plan.blocks <= chip.multiprocessors), "blocks");
}

/// There is a plan unless even four warps with two copies each leave less than 2 KiB.
void check_plan(Faults& faults, const MatvecShape& s, const MatvecPlan& plan, const Chip& chip) {
    if (plan.depth >= 2) {
        check_coverage(faults, s, plan, s.row_tiles, s.column_tiles);
        check_memory(faults, s, plan, chip);
        return;
    }
    const int budget = s.rows == 1 ? chip.shared_half : chip.shared_whole;
    const int copies = 2 * 4 * plan.chunk_tiles * s.tile_bytes;
    faults.expect(plan.depth == 0 &&
                      copies + plan.sum_bytes + s.activation_bytes + reserved_shared_bytes(s.rows) > budget,
                  "no plan, though one fits");
}

std::string text(const MatvecShape& s, const Chip& chip) {
    return std::to_string(s.rows) + " rows, " + std::to_string(s.row_tiles) + " x " +
           std::to_string(s.column_tiles) + " tiles of " + std::to_string(s.tile_bytes) +
           (s.whole_rows ? ", whole rows, " : ", ") + std::to_string(chip.multiprocessors) +
           " multiprocessors";
}

/// Calls f(shape, plan, chip) for shapes small and real.
template <class F>
void for_each_plan(bool whole_rows, const F& f) {
    std::vector<int> row_counts, column_counts;
    for (int n = 1; n <= 40; ++n) row_counts.push_back(n);
    for (const int n : {63, 64, 131, 132, 133, 180, 263, 320, 1440, 3142}) row_counts.push_back(n);
    for (int n = 1; n <= 12; ++n) column_counts.push_back(n);
    for (const int n : {23, 45, 64, 180}) column_counts.push_back(n);
    for (const Chip& chip : chips)
        for (const int rows : {1, 2, 8})
            for (const int tile_bytes : {544, 1088, 2048})
                for (const int row_tiles : row_counts)
                    for (const int columns : column_counts) {
                        if (row_tiles * columns > 150000) continue;
                        const MatvecShape shape{rows,       row_tiles,  columns,
                                                tile_bytes, whole_rows, rows * 32 * columns};
                        f(shape, plan_matvec(shape, chip), chip);
                    }
}

}  // namespace

TEST_CASE("a long step's blocks are dealt out, a short one's are not") {
    for (const Chip& chip : chips)
        for (const int rows : {1, 2})
            for (const int row_tiles : {1, 132, 3142, 12568}) {
                MatvecShape shape{rows, row_tiles, 45, 1088, true, 45 * 128};
                const MatvecPlan whole = plan_matvec(shape, chip);
                shape.dealt = true;
                const MatvecPlan plan = plan_matvec(shape, chip);
                const int filling = chip.shared_half / (45 * 1088);
                const bool is_long =
                    rows == 1 && filling > 0 && row_tiles / chip.multiprocessors >= long_share * filling;
                Faults faults;
                check_plan(faults, shape, plan, chip);
                INFO(text(shape, chip) << ": " << faults.first);
                CHECK(faults.count == 0);
                if (is_long) {
                    CHECK((row_tiles + plan.blocks - 1) / plan.blocks == dealt_share * filling);
                    CHECK(plan.pause == 0);
                } else {
                    CHECK(plan.blocks == whole.blocks);
                }
            }
}

TEST_CASE("share_of is the inverse of share_begin") {
    Faults faults;
    for (int units = 1; units <= 200; ++units)
        for (int shares = 1; shares <= 200; ++shares) {
            faults.expect(share_begin(units, 0, shares) == 0, "begin");
            faults.expect(share_begin(units, shares, shares) == units, "end");
            for (int c = 0; c < shares; ++c) {
                const int begin = share_begin(units, c, shares), end = share_begin(units, c + 1, shares);
                faults.expect(begin <= end && end - begin <= (units + shares - 1) / shares, "size");
                for (int u = begin; u < end; ++u)
                    faults.expect(share_of(units, u, shares) == c,
                                  std::to_string(u) + " of " + std::to_string(units));
            }
        }
    // The largest of the stated range: 25 million tiles, 170 blocks.
    for (int c = 0; c < 170; ++c) {
        const int begin = share_begin(25'000'000, c, 170), end = share_begin(25'000'000, c + 1, 170);
        faults.expect(share_of(25'000'000, begin, 170) == c && share_of(25'000'000, end - 1, 170) == c,
                      "large");
    }
    INFO(faults.first);
    CHECK(faults.count == 0);
}

TEST_CASE("a warp's memory holds as many tiles as it can, in pieces of about 2 KiB") {
    const auto copies = [](int bytes, int tile_bytes) {
        const detail::CopyPlan plan = detail::plan_copies(bytes, tile_bytes);
        return std::pair(plan.tiles, plan.depth);
    };
    CHECK(copies(12 * 544, 544) == std::pair(4, 3));
    CHECK(copies(11 * 544 - 1, 544) == std::pair(5, 2));
    CHECK(copies(7 * 1088 - 1, 1088) == std::pair(2, 3));
    CHECK(copies(5 * 1088, 1088) == std::pair(1, 5));
    CHECK(copies(2 * 2048, 2048) == std::pair(1, 2));
    CHECK(copies(2 * 2048 - 1, 2048).second == 0);
    CHECK(copies(-1, 544).second == 0);
}

TEST_CASE("plans of rows that blocks share cover every tile once") {
    for_each_plan(false, [](const MatvecShape& shape, const MatvecPlan& plan, const Chip& chip) {
        Faults faults;
        check_plan(faults, shape, plan, chip);
        if (faults.count == 0) return;
        INFO(text(shape, chip) << ": " << faults.first);
        CHECK(faults.count == 0);
    });
}

TEST_CASE("plans of whole rows cover every tile once") {
    for_each_plan(true, [](const MatvecShape& shape, const MatvecPlan& plan, const Chip& chip) {
        Faults faults;
        check_plan(faults, shape, plan, chip);
        if (faults.count == 0) return;
        INFO(text(shape, chip) << ": " << faults.first);
        CHECK(faults.count == 0);
    });
}

// Eight rows use 1 to 8 times as many experts as one; the plan is made for the most.
TEST_CASE("a plan for many experts serves few") {
    struct Case {
        int row_tiles, columns, used, most;
    };
    for (const Chip& chip : chips)
        for (const Case& c : {Case{20, 2, 4, 32}, Case{5, 2, 2, 5}, Case{180, 45, 4, 32}, Case{4, 1, 1, 8},
                              Case{1, 1, 4, 32}, Case{5, 2, 8, 64}, Case{45, 3, 4, 16}})
            for (const int tile_bytes : {544, 2048})
                for (int count = c.used; count <= c.most; ++count) {
                    const MatvecShape down{8, c.row_tiles, c.columns * c.most, tile_bytes, false, 0};
                    const MatvecPlan down_plan = plan_matvec(down, chip);
                    Faults faults;
                    check_coverage(faults, down, down_plan, c.row_tiles, c.columns * count);
                    const MatvecShape up{8, c.row_tiles * c.most, c.columns, tile_bytes, true, 4096};
                    const MatvecPlan up_plan = plan_matvec(up, chip);
                    check_coverage(faults, up, up_plan, c.row_tiles * count, c.columns);
                    INFO(text(down, chip) << ", " << count << " experts: " << faults.first);
                    CHECK(faults.count == 0);
                }
}

TEST_CASE("a shape whose activations do not fit has no plan") {
    CHECK(plan_matvec({8, 10, 10, 2048, true, 231424}, chips[0]).depth == 0);
    CHECK(plan_matvec({1, 10, 10, 2048, true, 115712 - 8192}, chips[0]).depth == 0);
    // Four warps with two copies each are the least.
    const MatvecPlan tight =
        plan_matvec({1, 10, 10, 2048, true, 49152 - reserved_shared_bytes(1) - 20 * 64 - 2 * 8192}, chips[1]);
    CHECK(tight.warps == 4);
    CHECK(tight.depth == 2);
}
