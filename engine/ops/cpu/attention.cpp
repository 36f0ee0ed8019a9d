#include "engine/ops/cpu/attention.hpp"

#include "engine/ops/cpu/bf16_tile.hpp"

#include <algorithm>

namespace troupe::ops::cpu {

namespace {

std::int64_t partial_floats(const attention::call& c) {
  return partial_header + c.pool.shape().head_dim;
}

std::int32_t group_size(const attention::call& c) {
  return c.how.heads / c.pool.shape().kv_heads;
}

/// The first position that a row at `position` sees.
std::int32_t first_seen(const attention::call& c, std::int32_t position) {
  return c.how.window > 0 ? std::max(0, position - (c.how.window - 1)) : 0;
}

/// The last position that it sees, of a sequence whose last is `end`.
std::int32_t last_seen(const attention::call& c, std::int32_t position,
                       std::int32_t end) {
  return c.how.ahead < end - position ? position + c.how.ahead : end;
}

std::int32_t first_span(const attention::call& c, std::int32_t position) {
  return first_seen(c, position) / span_positions;
}

std::int32_t spans_until(std::int32_t position) {
  return position / span_positions + 1;
}

/// Row and head of query `query` of a tile's rows.
struct query_place {
  std::int32_t row;
  std::int32_t head;
};

query_place place_of(const attention::call& c, std::int32_t first_row,
                     std::int32_t query, std::int32_t kv_head) {
  const auto group = group_size(c);
  return {first_row + query / group, kv_head * group + query % group};
}

const float* query_at(const attention::call& c, query_place place) {
  return c.qkv + place.row * c.qkv_stride +
         place.head * c.pool.shape().head_dim;
}

} // namespace

void attention::list_tiles(const call& c) {
  tiles_.clear();
  most_spans_ = 0;
  most_queries_ = 0;
  const auto& rows = c.batch.sequences;
  const auto group = group_size(c);
  const auto count = static_cast<std::int32_t>(rows.size());
  for (std::int32_t row = 0; row < count;) {
    auto end = row;
    while (end < count && rows[end] == rows[row])
      ++end;
    const auto queries = (end - row) * group;
    const auto most = c.pool.shape().bf16 ? rounded_query_tile : query_tile;
    const auto last_position = c.batch.positions[end - 1];
    for (std::int32_t first = 0; first < queries; first += most) {
      const auto n = std::min(most, queries - first);
      const auto begin = c.batch.positions[row + first / group];
      const auto last = c.batch.positions[row + (first + n - 1) / group];
      tiles_.push_back({row, first, n, last_position, first_span(c, begin),
                        spans_until(last_seen(c, last, last_position))});
      most_spans_ = std::max<std::int64_t>(most_spans_, tiles_.back().spans);
      most_queries_ = std::max<std::int64_t>(most_queries_, n);
    }
    row = end;
  }
}

void attention::make_rooms(const call& c) {
  const std::int64_t dims = c.pool.shape().head_dim;
  const auto room = rounded_query_tile * bf16_blocks(dims) * block_columns;
  rooms_.resize(workers_.size());
  for (auto& one : rooms_) {
    one.gathered.resize(rounded_query_tile * dims);
    one.rounded.resize(room * kernels_.rounded_bytes + rounded_slack);
  }
}

void attention::run(const call& c) {
  list_tiles(c);
  if (c.pool.shape().bf16)
    make_rooms(c);
  const auto kv_heads = c.pool.shape().kv_heads;
  const auto items = static_cast<std::int64_t>(tiles_.size()) * kv_heads;
  if (most_spans_ > 1 && workers_.size() > 1 && items < 8 * workers_.size())
    return run_split(c);
  const auto scratch = most_queries_ * most_spans_ * partial_floats(c);
  partials_.resize(
      std::max<std::size_t>(partials_.size(), scratch * workers_.size()));
  workers_.run(items, [&](std::int64_t begin, std::int64_t end, int thread) {
    for (auto item = begin; item < end; ++item)
      run_whole(c, item, thread);
  });
}

void attention::run_whole(const call& c, std::int64_t item, int thread) {
  const auto tiles = static_cast<std::int64_t>(tiles_.size());
  const auto& t = tiles_[item % tiles];
  const auto kv_head = static_cast<std::int32_t>(item / tiles);
  const auto stride = t.spans * partial_floats(c);
  float* partials =
      partials_.data() + partials_.size() / workers_.size() * thread;
  const auto* rounded = queries_for(c, t, kv_head, thread);
  for (auto span = t.first_span; span < t.spans; ++span)
    attend(c, t, kv_head, span, rounded, partials, stride);
  merge(c, t, kv_head, partials, stride);
}

void attention::run_split(const call& c) {
  const auto kv_heads = c.pool.shape().kv_heads;
  const auto items = static_cast<std::int64_t>(tiles_.size()) * kv_heads;
  const auto stride = most_spans_ * partial_floats(c);
  const auto item_floats = most_queries_ * stride;
  partials_.resize(
      std::max<std::size_t>(partials_.size(), items * item_floats));
  workers_.run(items * most_spans_, [&](std::int64_t begin, std::int64_t end,
                                        int thread) {
    for (auto i = begin; i < end; ++i) {
      const auto item = i / most_spans_;
      const auto span = static_cast<std::int32_t>(i % most_spans_);
      const auto& t = tiles_[item / kv_heads];
      const auto kv_head = static_cast<std::int32_t>(item % kv_heads);
      if (span >= t.first_span && span < t.spans)
        attend(c, t, kv_head, span, queries_for(c, t, kv_head, thread),
               partials_.data() + item * item_floats, stride);
    }
  });
  for (std::int64_t item = 0; item < items; ++item)
    merge(c, tiles_[item / kv_heads],
          static_cast<std::int32_t>(item % kv_heads),
          partials_.data() + item * item_floats, stride);
}

const std::byte* attention::queries_for(const call& c, const tile& t,
                                        std::int32_t kv_head, int thread) {
  if (!c.pool.shape().bf16)
    return nullptr;
  const auto dims = c.pool.shape().head_dim;
  auto& room = rooms_[thread];
  for (std::int32_t q = 0; q < t.count; ++q)
    std::copy_n(query_at(c, place_of(c, t.row, t.first + q, kv_head)), dims,
                room.gathered.data() + q * dims);
  kernels_.round(room.gathered.data(), t.count, dims, room.rounded.data());
  return room.rounded.data();
}

void attention::attend(const call& c, const tile& t, std::int32_t kv_head,
                       std::int32_t span, const std::byte* rounded,
                       float* partials, std::int64_t query_stride) {
  const auto& shape = c.pool.shape();
  const auto start = span * span_positions;
  attention_span a{};
  a.rounded = rounded;
  a.count = t.count;
  a.head_dim = shape.head_dim;
  a.scale = c.how.scale;
  a.soft_cap = c.how.soft_cap;
  int most = 0;
  for (int q = 0; q < t.count; ++q) {
    const auto place = place_of(c, t.row, t.first + q, kv_head);
    if (rounded == nullptr)
      a.queries[q] = query_at(c, place);
    const auto position = c.batch.positions[place.row];
    a.first[q] = std::clamp(first_seen(c, position) - start, 0, span_positions);
    const auto last = last_seen(c, position, t.last_position);
    a.visible[q] = std::clamp(last + 1 - start, 0, span_positions);
    a.partial[q] = partials + q * query_stride + span * partial_floats(c);
    most = std::max(most, a.visible[q]);
  }
  const auto& table = c.batch.tables[c.batch.sequences[t.row]];
  for (int g = 0; g * 16 < most; ++g) {
    const auto block = table[(start + g * 16) / shape.block_tokens];
    const auto within = (start + g * 16) % shape.block_tokens;
    a.keys[g] = c.pool.keys(c.layer, block, kv_head) + within * shape.head_dim;
    a.values[g] =
        c.pool.values(c.layer, block, kv_head) + within * shape.head_dim;
  }
  if (rounded == nullptr)
    kernels_.attend(a);
  else
    kernels_.attend_rounded(a);
}

void attention::merge(const call& c, const tile& t, std::int32_t kv_head,
                      const float* partials, std::int64_t query_stride) {
  const auto head_dim = c.pool.shape().head_dim;
  for (int q = 0; q < t.count; ++q) {
    const auto place = place_of(c, t.row, t.first + q, kv_head);
    float* out =
        c.out + (std::int64_t{place.row} * c.how.heads + place.head) * head_dim;
    const auto position = c.batch.positions[place.row];
    const auto from = first_span(c, position);
    const auto until = spans_until(last_seen(c, position, t.last_position));
    kernels_.merge(partials + q * query_stride + from * partial_floats(c),
                   partial_floats(c), until - from, head_dim, out);
  }
}

} // namespace troupe::ops::cpu
