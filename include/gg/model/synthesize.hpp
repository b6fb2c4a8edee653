// Models of random weights, for benchmarks and rehearsals of memory that need no published file.
#pragma once

#include "gg/model/synthetic_blocks.hpp"
#include "gg/model/synthetic_file.hpp"
#include "gg/model/synthetic_fill.hpp"
#include "gg/model/synthetic_metadata.hpp"
#include "gg/model/synthetic_presets.hpp"
#include "gg/model/synthetic_tensors.hpp"
