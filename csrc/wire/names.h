// names.h - what both readers of requests ask of the names in one.
//
// A pure function, safe from any thread.

#pragma once

#include <algorithm>
#include <vector>

namespace pyserve {

// Whether no two of `all` have one name.  Compares each with each: the readers bound their number.
template <class Named>
bool names_differ(const std::vector<Named>& all) noexcept {
  for (auto one = all.begin(); one != all.end(); ++one) {
    const auto same = [&](const Named& other) { return other.name == one->name; };
    if (std::any_of(all.begin(), one, same)) return false;
  }
  return true;
}

}  // namespace pyserve
