// When the blocks of a chain's kernels began, came to certain moments and ended: what a table of stages is
// made of. Kernels note it if they are compiled with GG_STAMPS (launch_of.cuh); others cost nothing.
//
// moment      in the stages around a product             in attention
// waited      the kernels before have ended              the same
// ready       activations lie in shared memory           sums of q, k and v have come
// fetched     the first weights have come                heads are formed
// multiplied  the first warp has multiplied its share    the first warp has seen its keys
// together    it has come to the barrier behind (the others may not be there yet), in both
// stored      the first thread has stored its sum
#pragma once

namespace gg::cuda {

enum Moment { waited, ready, fetched, multiplied, together, stored, moments };

/// Of one block, nanoseconds of the device's global timer.
struct Stamp {
    unsigned kernel;  ///< StampLog::unit * stamped_kernels + its place in the unit
    unsigned block;
    unsigned multiprocessor, padding;  ///< 0: stamps are copied whole, and all of them has been written
    unsigned long long begin, end;
    unsigned long long at[moments];  ///< when its first thread was there; 0: never
};

/// Kernels of a unit at most.
inline constexpr unsigned stamped_kernels = 4096;

/// Where the blocks of a unit's kernels write, the variable gg_stamp_log of its module.
struct StampLog {
    Stamp* stamps;    ///< [capacity]
    unsigned* count;  ///< stamps so far, also those beyond the capacity
    unsigned capacity;
    unsigned unit;
};

}  // namespace gg::cuda
