// Feeds what comes to the join port, and a token, to their parsers. What is
// taken must be written and read again as the same.
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -I.
//     tests/fuzz/join_fuzz.cpp actors/runtime/join_messages.cpp
//     actors/runtime/token_format.cpp actors/runtime/sha256.cpp
//     -lcrypto -lsimdjson -o join_fuzz

#include "actors/runtime/join_messages.hpp"
#include "actors/runtime/token_format.hpp"

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

namespace {

using namespace troupe;
using namespace troupe::runtime;

constexpr std::size_t bytes_max = 16 * 1024;

void require(bool holds) {
  if (!holds)
    std::abort();
}

/// Writing may make a message longer, so it is read with a larger bound.
template <class Value, class Write, class Read>
void check_round_trip(const result<Value>& value, Write write, Read read) {
  if (!value) {
    require(!value.error().message.empty());
    return;
  }
  auto text = write(*value);
  auto message = read_http(text, 16 * bytes_max);
  require(message && *message);
  auto again = read(**message);
  require(again && *again == *value);
}

void check_message(const http_message& message) {
  auto asked = read_join_request(message);
  if (asked)
    require(check_worker_name(asked->node).has_value());
  check_round_trip(
      asked, [](const auto& x) { return write_join_request(x, "head"); },
      read_join_request);
  auto told = read_join_answer(message);
  if (told)
    check_round_trip(told, write_join_answer, read_join_answer);
}

/// The bytes as they are, and as the body of a request and of an answer.
void check_http(std::string_view bytes) {
  auto message = read_http(bytes, bytes_max);
  require(message || bytes.size() < bytes_max);
  if (message && *message) {
    require(bytes.size() <= bytes_max);
    // It was not there a byte earlier.
    require(!read_http(bytes.substr(0, bytes.size() - 1), bytes_max));
    check_message(**message);
  }
  check_message({"POST /join HTTP/1.1", bytes});
  check_message({"HTTP/1.1 200 OK", bytes});
  check_message({"HTTP/1.1 400 Bad Request", bytes});
}

void check_token(std::string_view text) {
  auto parts = read_token_parts(text);
  if (parts)
    require(write_token_parts(*parts) == text);
  else
    require(!parts.error().message.empty());
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  std::string_view bytes(reinterpret_cast<const char*>(data), size);
  check_http(bytes);
  check_token(bytes);
  check_token("troupe1." + std::string(bytes));
  return 0;
}
