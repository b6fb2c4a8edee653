// When the blocks of a chain's kernels began, had waited for the kernel before, and ended: what a table of
// stages is made of. Kernels note it if they are compiled with GG_STAMPS (launch_of.cuh); others cost nothing.
#pragma once

namespace gg::cuda {

/// Of one block, nanoseconds of the device's global timer.
struct Stamp {
    unsigned kernel;  ///< StampLog::unit * stamped_kernels + its place in the unit
    unsigned block;
    unsigned multiprocessor;
    unsigned long long begin, waited, end;
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
