// Actions that must be refused.
#pragma once

#include <string>

#include "catch.hpp"
#include "gg/core/error.hpp"

namespace gg_test {

/// Runs an action that must be refused, and returns the message.
template <class Action>
std::string refusal(gg::ErrorCode code, Action&& action) {
    try {
        action();
    } catch (const gg::Error& error) {
        CHECK(error.code() == code);
        return error.what();
    }
    FAIL("it was not refused");
    return {};
}

}  // namespace gg_test
