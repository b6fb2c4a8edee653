// Look-up by name in a list that keeps its order: the list's positions, sorted by name. Costs four bytes an
// element, whatever the names.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <string_view>
#include <vector>

namespace gg::gguf {

/// Positions of a list's elements in the order of their names, for look-up by halving.
using NameIndex = std::vector<std::uint32_t>;

/// The entry of a sorted index with a name, or nullptr. `name_of(element)` gives an element's name.
template <class List, class NameOf>
auto find_by_name(const List& list, const NameIndex& index, std::string_view name, NameOf name_of)
    -> decltype(list.data()) {
    const auto at = std::lower_bound(
        index.begin(), index.end(), name,
        [&](std::uint32_t i, std::string_view n) { return std::string_view(name_of(list[i])) < n; });
    return at != index.end() && name_of(list[*at]) == name ? &list[*at] : nullptr;
}

/// Positions sorted by name; the positions of equal names follow each other, earlier first.
template <class List, class NameOf>
NameIndex index_by_name(const List& list, NameOf name_of) {
    NameIndex index(list.size());
    std::iota(index.begin(), index.end(), 0u);
    std::sort(index.begin(), index.end(), [&](std::uint32_t a, std::uint32_t b) {
        const int order = std::string_view(name_of(list[a])).compare(name_of(list[b]));
        return order < 0 || (order == 0 && a < b);
    });
    return index;
}

}  // namespace gg::gguf
