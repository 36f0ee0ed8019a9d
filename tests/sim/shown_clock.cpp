#include "tests/sim/shown_clock.hpp"

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <sys/time.h>

namespace troupe::sim {

namespace {

using std::chrono::steady_clock;
using std::chrono::system_clock;

thread_local const host_clock* shown = nullptr;
thread_local const world* shown_in = nullptr;

std::int64_t wall_nanoseconds() {
  return nanoseconds{shown->read_wall(shown_in->now()).time_since_epoch()}
      .count();
}

[[noreturn]] void refuse(const char* what) {
  std::fprintf(stderr, "shipped code asked the system: %s\n", what);
  std::abort();
}

constexpr std::int64_t second = 1'000'000'000;

} // namespace

shown_clock::shown_clock(const host_clock& clock, const world& of)
    : clock_before_(shown), world_before_(shown_in) {
  shown = &clock;
  shown_in = &of;
}

shown_clock::~shown_clock() {
  shown = clock_before_;
  shown_in = world_before_;
}

} // namespace troupe::sim

// The linker's --wrap: a call of f goes to __wrap_f, __real_f is f itself. The
// mangled names are those of the two standard clocks' now().
extern "C" {

using troupe::sim::refuse;
using troupe::sim::second;
using troupe::sim::shown;
using troupe::sim::wall_nanoseconds;
using system_time = std::chrono::system_clock::time_point;
using steady_time = std::chrono::steady_clock::time_point;

system_time __real__ZNSt6chrono3_V212system_clock3nowEv();
system_time __wrap__ZNSt6chrono3_V212system_clock3nowEv() {
  return shown ? system_time{std::chrono::nanoseconds{wall_nanoseconds()}}
               : __real__ZNSt6chrono3_V212system_clock3nowEv();
}

steady_time __real__ZNSt6chrono3_V212steady_clock3nowEv();
steady_time __wrap__ZNSt6chrono3_V212steady_clock3nowEv() {
  if (shown)
    refuse("steady_clock");
  return __real__ZNSt6chrono3_V212steady_clock3nowEv();
}

time_t __real_time(time_t*);
time_t __wrap_time(time_t* out) {
  if (!shown)
    return __real_time(out);
  auto now = static_cast<time_t>(wall_nanoseconds() / second);
  if (out)
    *out = now;
  return now;
}

int __real_gettimeofday(timeval*, void*);
int __wrap_gettimeofday(timeval* out, void* zone) {
  if (!shown)
    return __real_gettimeofday(out, zone);
  auto now = wall_nanoseconds();
  *out = {now / second, now % second / 1000};
  return 0;
}

int __real_clock_gettime(clockid_t, timespec*);
int __wrap_clock_gettime(clockid_t which, timespec* out) {
  if (!shown)
    return __real_clock_gettime(which, out);
  if (which != CLOCK_REALTIME)
    refuse("clock_gettime");
  auto now = wall_nanoseconds();
  *out = {now / second, now % second};
  return 0;
}

} // extern "C"
