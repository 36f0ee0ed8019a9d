#pragma once

#include "tests/ptx/machine.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace troupe::ptx {

/// A text with one entry, "k", of two addresses, `in` and `out`, which %rd1 and
/// %rd2 hold when `body` begins; %r1 is the thread. There are %p, %rs, %r, %f,
/// %rd and %fd of numbers below 40, and a label END is before its end.
inline std::string text_of(const std::string& body) {
  return R"(.version 9.0
.target sm_90a
.address_size 64
.extern .shared .align 16 .b8 dynamic[];
.visible .entry k(.param .u64 in, .param .u64 out)
{
  .reg .pred %p<40>;
  .reg .b16 %rs<40>;
  .reg .b32 %r<40>;
  .reg .f32 %f<40>;
  .reg .b64 %rd<40>;
  .reg .f64 %fd<40>;
  ld.param.u64 %rd1, [in];
  ld.param.u64 %rd2, [out];
  mov.u32 %r1, %tid.x;
)" + body +
         R"(
END:
  ret;
}
)";
}

/// Runs such a text over memory of this process.
template <class In, class Out>
work_done run_body(const std::string& body, unsigned threads,
                   std::vector<In>& in, std::vector<Out>& out,
                   std::size_t shared_bytes = 0, unsigned blocks = 1) {
  const auto all = program::parse(text_of(body));
  memory known;
  known.add(in.data(), in.size() * sizeof(In));
  known.add(out.data(), out.size() * sizeof(Out));
  const void* from = in.data();
  void* to = out.data();
  void* arguments[] = {&from, &to};
  return run(*all.find("k"),
             {{blocks, 1, 1}, {threads, 1, 1}, shared_bytes, arguments}, known);
}

/// What a fault says; empty if there was none.
inline std::string fault_of(const std::string& body, unsigned threads = 32,
                            std::size_t shared_bytes = 0) {
  std::vector<std::uint32_t> in(256, 1), out(256);
  try {
    run_body(body, threads, in, out, shared_bytes);
  } catch (const fault& why) {
    return why.what();
  }
  return "";
}

inline bool says(const std::string& fault, const std::string& what) {
  return fault.find(what) != std::string::npos;
}

} // namespace troupe::ptx
