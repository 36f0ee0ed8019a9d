#include "engine/text/byte_pair_merges.hpp"

#include <algorithm>
#include <bit>
#include <functional>
#include <queue>

namespace troupe::text {

namespace {

// Up to here looking at all pairs for each merge is faster than a queue.
constexpr std::size_t few = 32;

std::uint64_t pair_key(token_id left, token_id right) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 |
         static_cast<std::uint32_t>(right);
}

} // namespace

byte_pair_merges::byte_pair_merges(std::size_t count)
    : slots_(std::bit_ceil(std::max<std::size_t>(count * 2, 2))),
      shift_(64 - std::countr_zero(slots_.size())) {
  // nop
}

const byte_pair_merges::slot* byte_pair_merges::find(token_id left,
                                                     token_id right) const {
  auto key = pair_key(left, right);
  auto at = (key * 0x9E3779B97F4A7C15ull) >> shift_;
  while (slots_[at].pair != key && slots_[at].pair != UINT64_MAX)
    at = (at + 1) & (slots_.size() - 1);
  return &slots_[at];
}

void byte_pair_merges::add(token_id left, token_id right, std::uint32_t rank,
                           token_id merged) {
  auto* at = const_cast<slot*>(find(left, right));
  *at = {pair_key(left, right), rank, merged};
}

std::uint32_t byte_pair_merges::rank_of(token_id left, token_id right) const {
  const auto* at = find(left, right);
  return at->pair == UINT64_MAX ? no_rank : at->rank;
}

void byte_pair_merges::apply(std::vector<token_id>& ids,
                             std::size_t from) const {
  auto tail = std::span{ids}.subspan(from);
  ids.resize(from +
             (tail.size() <= few ? apply_to_few(tail) : apply_to_many(tail)));
}

std::size_t byte_pair_merges::apply_to_few(std::span<token_id> ids) const {
  std::uint32_t ranks[few]; // of (ids[i], ids[i + 1])
  auto n = ids.size();
  for (std::size_t i = 0; i + 1 < n; ++i)
    ranks[i] = rank_of(ids[i], ids[i + 1]);
  while (n > 1) {
    auto* best = std::min_element(ranks, ranks + n - 1);
    if (*best == no_rank)
      break;
    auto i = static_cast<std::size_t>(best - ranks);
    ids[i] = find(ids[i], ids[i + 1])->merged;
    auto* gone = ids.data() + i + 1;
    std::copy(gone + 1, ids.data() + n, gone);
    std::copy(ranks + i + 1, ranks + n - 1, ranks + i);
    --n;
    if (i > 0)
      ranks[i - 1] = rank_of(ids[i - 1], ids[i]);
    if (i + 1 < n)
      ranks[i] = rank_of(ids[i], ids[i + 1]);
  }
  return n;
}

std::size_t byte_pair_merges::apply_to_many(std::span<token_id> ids) const {
  constexpr auto none = UINT32_MAX;
  auto n = static_cast<std::uint32_t>(ids.size());
  std::vector<std::uint32_t> previous(n);
  std::vector<std::uint32_t> next(n);
  std::vector<std::uint64_t> start; // rank << 32 | position of the left id
  start.reserve(n);
  for (std::uint32_t i = 0; i < n; ++i) {
    previous[i] = i == 0 ? none : i - 1;
    next[i] = i + 1 == n ? none : i + 1;
  }
  auto candidate = [&](std::uint32_t at) -> std::uint64_t {
    auto rank = rank_of(ids[at], ids[next[at]]);
    return static_cast<std::uint64_t>(rank) << 32 | at;
  };
  auto is_merge = [](std::uint64_t c) { return c >> 32 != no_rank; };
  for (std::uint32_t i = 0; i + 1 < n; ++i)
    if (auto c = candidate(i); is_merge(c))
      start.push_back(c);
  std::priority_queue queue{std::greater<>{}, std::move(start)};
  auto push = [&](std::uint32_t at) {
    if (auto c = candidate(at); is_merge(c))
      queue.push(c);
  };
  while (!queue.empty()) {
    auto best = queue.top();
    queue.pop();
    auto at = static_cast<std::uint32_t>(best);
    // Merges since then have taken one of the two, or made it longer.
    if (ids[at] < 0 || next[at] == none || candidate(at) != best)
      continue;
    auto right = next[at];
    ids[at] = find(ids[at], ids[right])->merged;
    ids[right] = -1;
    next[at] = next[right];
    if (next[at] != none) {
      previous[next[at]] = at;
      push(at);
    }
    if (previous[at] != none)
      push(previous[at]);
  }
  auto end = std::remove(ids.begin(), ids.end(), -1);
  return static_cast<std::size_t>(end - ids.begin());
}

} // namespace troupe::text
