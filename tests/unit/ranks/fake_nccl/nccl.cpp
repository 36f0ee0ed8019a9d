#include "tests/unit/ranks/fake_nccl/order.hpp"

#include <algorithm>
#include <climits>
#include <condition_variable>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

// NCCL for tests: what of it cuda/runtime/nccl.cpp calls, between threads of a
// process over its memory. It holds its caller to the rules: ends the process
// when it is called wrongly. A call returns at once, and is over when all ranks
// have made it. Its stream waits for that (order.hpp).

namespace {

struct unique_id {
  char bytes[128];
};

struct configuration {
  std::size_t size;
  unsigned int magic, version;
  int blocking, cluster_size, channels_min, channels_max;
  const char* network;
};

enum status { success = 0 };

void must(bool good, const char* what) {
  if (good)
    return;
  std::fprintf(stderr, "NCCL is called wrongly: %s\n", what);
  std::abort();
}

/// A call of all ranks: what r has for s stands in sends[r][s], where r wants
/// what s has in receives[r][s].
struct call {
  explicit call(std::size_t ranks)
      : sends(ranks, std::vector<const float*>(ranks)),
        receives(ranks, std::vector<float*>(ranks)) {
  }
  std::vector<std::vector<const float*>> sends;
  std::vector<std::vector<float*>> receives;
  std::size_t count = 0; ///< floats of a part
  std::size_t ranks_here = 0;
};

struct clique {
  std::size_t ranks = 0;
  std::size_t connected = 0;
  bool is_broken = false; ///< a rank was aborted: no call is over any more
  std::vector<std::unique_ptr<call>> calls; ///< in order
};

std::mutex mutex;
std::condition_variable changed;
std::map<int, clique> cliques; // by id
int ids = 0;

} // namespace

struct comm {
  clique* of = nullptr;
  std::size_t rank = 0;
  std::size_t calls = 0; ///< made by this rank
  bool is_aborted = false;
};

namespace {

/// Calls of this thread between group_start and group_end.
struct open_group {
  bool is_open = false;
  comm* by = nullptr;
  void* stream = nullptr;
  std::unique_ptr<call> what;
};
thread_local open_group group;
thread_local std::shared_ptr<comm> last; ///< by which this thread posted

std::map<comm*, std::shared_ptr<comm>> comms;
std::set<const comm*> waiting;

bool is_over(const comm& by) {
  return by.calls == 0 ||
         by.of->calls[by.calls - 1]->ranks_here == by.of->ranks;
}

/// The last rank that comes moves everything.
status post(comm& by, const call& own) {
  auto& all = *by.of;
  if (all.is_broken) {
    all.calls.push_back(std::make_unique<call>(all.ranks)); // of this one alone
    by.calls = all.calls.size();
    return success;
  }
  if (all.calls.size() == by.calls)
    all.calls.push_back(std::make_unique<call>(all.ranks));
  auto& one = *all.calls[by.calls++];
  must(one.ranks_here == 0 || one.count == own.count, "counts differ");
  one.count = own.count;
  one.sends[by.rank] = own.sends[by.rank];
  one.receives[by.rank] = own.receives[by.rank];
  if (++one.ranks_here == all.ranks)
    for (std::size_t to = 0; to < all.ranks; ++to)
      for (std::size_t from = 0; from < all.ranks; ++from)
        std::memmove(one.receives[to][from], one.sends[from][to],
                     one.count * sizeof(float));
  changed.notify_all();
  return success;
}

/// Until the last call of this thread is over, or aborted.
void wait_for_last() {
  std::unique_lock lock{mutex};
  if (!last)
    return;
  waiting.insert(last.get());
  changed.wait(lock, [] { return last->is_aborted || is_over(*last); });
  waiting.erase(last.get());
}

/// When it is its turn in the stream, unless it was aborted before.
status post_in_order(comm* by, call own, void* stream) {
  std::shared_ptr<comm> kept;
  {
    std::lock_guard lock{mutex};
    must(comms.contains(by), "no such communicator");
    kept = comms.at(by);
  }
  fake_nccl::run_in_order(
      stream,
      [kept, own = std::move(own)] {
        std::lock_guard lock{mutex};
        last = kept;
        if (!kept->is_aborted)
          post(*kept, own);
      },
      wait_for_last);
  return success;
}

} // namespace

#define EXPORTED extern "C" __attribute__((visibility("default")))

/// Communicators that are not given back.
EXPORTED int fake_nccl_living() {
  std::lock_guard lock{mutex};
  return static_cast<int>(comms.size());
}

/// Until the last call of this thread is over, or aborted.
EXPORTED void fake_nccl_wait() {
  wait_for_last();
}

/// Threads that have to wait still.
EXPORTED int fake_nccl_waiting() {
  std::lock_guard lock{mutex};
  return static_cast<int>(
      std::count_if(waiting.begin(), waiting.end(),
                    [](const comm* one) { return !is_over(*one); }));
}

EXPORTED status ncclGetUniqueId(unique_id* out) {
  std::lock_guard lock{mutex};
  std::memset(out, 0, sizeof *out);
  ++ids;
  std::memcpy(out->bytes + 64, &ids, sizeof ids);
  return success;
}

EXPORTED status ncclCommInitRankConfig(comm** out, int ranks, unique_id id,
                                       int rank, configuration* how) {
  std::unique_lock lock{mutex};
  must(how->magic == 0xcafebeef && how->size >= sizeof *how &&
           how->version >= 21'700,
       "this is no configuration");
  must(how->blocking == 1, "calls are threads");
  constexpr int unset = INT_MIN;
  must(how->cluster_size == unset && how->channels_min == unset &&
           how->network == nullptr,
       "what is not given is not marked so");
  must(how->channels_max >= 1 && how->channels_max <= 32,
       "its memory has no bound");
  int number = 0;
  std::memcpy(&number, id.bytes + 64, sizeof number);
  must(number > 0 && number <= ids && rank >= 0 && rank < ranks, "no such id");
  auto& all = cliques[number];
  all.ranks = static_cast<std::size_t>(ranks);
  ++all.connected;
  auto made = std::make_shared<comm>();
  made->of = &all;
  made->rank = static_cast<std::size_t>(rank);
  comms[made.get()] = made;
  *out = made.get();
  changed.notify_all();
  changed.wait(lock, [&] { return all.connected == all.ranks; });
  return success;
}

EXPORTED status ncclCommAbort(comm* what) {
  std::lock_guard lock{mutex};
  must(comms.contains(what), "no such communicator");
  what->is_aborted = true;
  what->of->is_broken = true;
  comms.erase(what);
  changed.notify_all();
  return success;
}

EXPORTED const char* ncclGetErrorString(status) {
  return "it is broken";
}

EXPORTED status ncclAllGather(const void* from, void* to, std::size_t count,
                              int type, comm* by, void* stream) {
  must(type == 7, "numbers are floats");
  must(by != nullptr, "no communicator");
  const auto ranks = by->of->ranks;
  call own{ranks};
  own.count = count;
  for (std::size_t r = 0; r < ranks; ++r) {
    own.sends[by->rank][r] = static_cast<const float*>(from);
    own.receives[by->rank][r] = static_cast<float*>(to) + r * count;
  }
  return post_in_order(by, std::move(own), stream);
}

EXPORTED status ncclGroupStart() {
  must(!group.is_open, "groups within groups");
  group.is_open = true;
  return success;
}

namespace {

call& grouped(std::size_t count, int type, comm* by, void* stream) {
  must(group.is_open && type == 7, "sends and receives of floats stand in a "
                                   "group");
  must(group.by == nullptr || (group.by == by && group.stream == stream),
       "one communicator and one stream in a group");
  if (!group.what)
    group.what = std::make_unique<call>(by->of->ranks);
  must(group.by == nullptr || group.what->count == count, "counts differ");
  group.by = by;
  group.stream = stream;
  group.what->count = count;
  return *group.what;
}

} // namespace

EXPORTED status ncclSend(const void* from, std::size_t count, int type, int to,
                         comm* by, void* stream) {
  std::lock_guard lock{mutex};
  grouped(count, type, by, stream)
      .sends[by->rank]
      .at(static_cast<std::size_t>(to)) = static_cast<const float*>(from);
  return success;
}

EXPORTED status ncclRecv(void* to, std::size_t count, int type, int from,
                         comm* by, void* stream) {
  std::lock_guard lock{mutex};
  grouped(count, type, by, stream)
      .receives[by->rank]
      .at(static_cast<std::size_t>(from)) = static_cast<float*>(to);
  return success;
}

EXPORTED status ncclGroupEnd() {
  must(group.is_open && group.what, "nothing in a group");
  group.is_open = false;
  for (std::size_t r = 0; r < group.by->of->ranks; ++r)
    must(group.what->sends[group.by->rank][r] != nullptr &&
             group.what->receives[group.by->rank][r] != nullptr,
         "each rank has something for each");
  const auto what = std::move(group.what);
  return post_in_order(std::exchange(group.by, nullptr), std::move(*what),
                       group.stream);
}
