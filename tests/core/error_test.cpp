// The message of gg::Error, made from the parts of a mismatch, with any of them missing.
#include "gg/core/error.hpp"

#include "catch.hpp"

namespace {

std::string message(const gg::Mismatch& mismatch) {
    return gg::Error(gg::ErrorCode::model_load_failed, mismatch).what();
}

}  // namespace

TEST_CASE("a mismatch reads as one line, whatever parts it has") {
    CHECK(message({.file = "m.gguf", .field = "key a", .expected = "1", .found = "2", .next_step = "Do."}) ==
          "m.gguf: key a: expected 1, found 2. Do.");
    CHECK(message({.field = "key a", .expected = "1", .found = "2", .next_step = "Do."}) ==
          "key a: expected 1, found 2. Do.");
    CHECK(message({.file = "m.gguf", .expected = "1", .found = "2"}) == "m.gguf: expected 1, found 2");
    CHECK(message({.file = "m.gguf", .field = "key a", .found = "2"}) == "m.gguf: key a: found 2");
    CHECK(message({.file = "m.gguf", .field = "key a", .expected = "1"}) == "m.gguf: key a: expected 1");
    CHECK(message({.file = "m.gguf", .field = "key a", .next_step = "Do."}) == "m.gguf: key a. Do.");
    CHECK(message({.expected = "1", .found = "2"}) == "expected 1, found 2");
    CHECK(message({.found = "2"}) == "found 2");
    CHECK(message({.next_step = "Do."}) == "Do.");
    CHECK(message({.file = "m.gguf"}) == "m.gguf");
    CHECK(message({}).empty());
}

TEST_CASE("an error keeps its code and its parts") {
    const gg::Error error(gg::ErrorCode::timeout, {.file = "f", .field = "x", .expected = "a", .found = "b"});
    CHECK(error.code() == gg::ErrorCode::timeout);
    CHECK(error.mismatch().file == "f");
    CHECK(error.mismatch().field == "x");
    CHECK(error.mismatch().expected == "a");
    CHECK(error.mismatch().found == "b");
    CHECK(error.mismatch().next_step.empty());
    const gg::Error plain(gg::ErrorCode::internal, "text");
    CHECK(std::string(plain.what()) == "text");
    CHECK(plain.mismatch().file.empty());
    CHECK(plain.mismatch().found.empty());
}

TEST_CASE("refuse throws model_load_failed") {
    try {
        gg::refuse({.file = "m.gguf", .found = "nothing"});
    } catch (const gg::Error& error) {
        CHECK(error.code() == gg::ErrorCode::model_load_failed);
        CHECK(std::string(error.what()) == "m.gguf: found nothing");
        return;
    }
    FAIL("refuse returned");
}

TEST_CASE("error codes have the names that programs see") {
    using gg::ErrorCode;
    CHECK(gg::to_string(ErrorCode::invalid_request) == "invalid_request");
    CHECK(gg::to_string(ErrorCode::model_load_failed) == "model_load_failed");
    CHECK(gg::to_string(ErrorCode::out_of_memory) == "out_of_memory");
    CHECK(gg::to_string(ErrorCode::cuda_error) == "cuda_error");
    CHECK(gg::to_string(ErrorCode::cancelled) == "cancelled");
    CHECK(gg::to_string(ErrorCode::timeout) == "timeout");
    CHECK(gg::to_string(ErrorCode::context_full) == "context_full");
    CHECK(gg::to_string(ErrorCode::internal) == "internal");
}
