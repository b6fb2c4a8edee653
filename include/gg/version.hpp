// The version of gg, read by CMakeLists.txt too.
#pragma once

#define GG_VERSION_MAJOR 0
#define GG_VERSION_MINOR 1
#define GG_VERSION_PATCH 0

namespace gg {
inline constexpr const char* version = "0.1.0";
}
