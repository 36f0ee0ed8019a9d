// Feeds the request parser whole and in pieces; both must agree.
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -I.
//     tests/fuzz/http_fuzz.cpp router/http/request_parser.cpp
//     router/http/syntax.cpp -o http_fuzz

#include "router/http/request_parser.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

namespace {

using troupe::http::limits;
using troupe::http::request;
using troupe::http::request_parser;

struct outcome {
  std::vector<request> requests;
  request_parser::stage last = request_parser::stage::request_line;
  int status = 0;

  bool operator==(const outcome&) const = default;
};

const limits& small_bounds() {
  static const limits bounds = [] {
    limits l;
    l.header_bytes = 512;
    l.header_fields = 8;
    l.target_bytes = 128;
    l.body_bytes = 1024;
    return l;
  }();
  return bounds;
}

outcome parse(std::string_view bytes, std::size_t piece_bytes) {
  request_parser parser(small_bounds());
  outcome out;
  while (!bytes.empty() && parser.where() != request_parser::stage::failed) {
    auto used = parser.feed(bytes.substr(0, piece_bytes));
    if (used == 0)
      std::abort();
    bytes.remove_prefix(used);
    if (parser.where() == request_parser::stage::done)
      out.requests.push_back(parser.take());
  }
  out.last = parser.where();
  out.status = parser.why().status;
  return out;
}

void check(const request& r) {
  if (r.method.empty() || r.path.empty() || r.path.front() != '/' ||
      r.path.find("//") != r.path.npos || r.path.find('\0') != r.path.npos ||
      r.header("host").empty() || r.body.size() > small_bounds().body_bytes ||
      r.headers.size() > small_bounds().header_fields)
    std::abort();
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  std::string_view bytes(reinterpret_cast<const char*>(data), size);
  auto whole = parse(bytes, bytes.npos);
  std::for_each(whole.requests.begin(), whole.requests.end(), check);
  if (!(parse(bytes, 1) == whole) || !(parse(bytes, 7) == whole))
    std::abort();
  return 0;
}
