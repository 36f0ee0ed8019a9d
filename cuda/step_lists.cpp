#include "cuda/step_lists.hpp"

#include <algorithm>
#include <cassert>

namespace troupe::cuda {

namespace {

/// Calls f(first row, rows) of each sequence of a step.
template <class F>
void for_runs(const ops::batch_view& batch, F f) {
  const auto& of = batch.sequences;
  for (std::size_t begin = 0, end = 0; begin < of.size(); begin = end) {
    while (end < of.size() && of[end] == of[begin])
      ++end;
    f(static_cast<std::int32_t>(begin), static_cast<std::int32_t>(end - begin));
  }
}

/// Tiles (first row, rows) of both kinds.
void put_tiles(const ops::batch_view& batch, std::int32_t* of_one,
               std::int32_t* of_many) {
  auto put = [](std::int32_t*& to, std::int32_t first, std::int32_t rows) {
    *to++ = first;
    *to++ = rows;
  };
  for_runs(batch, [&](std::int32_t begin, std::int32_t rows) {
    const auto end = begin + rows;
    if (rows < few_rows)
      for (auto r = begin; r < end; ++r)
        put(of_one, r, 1);
    else
      for (auto r = begin; r < end; r += tile_rows)
        put(of_many, r, std::min(tile_rows, end - r));
  });
}

} // namespace

tile_counts count_tiles(const ops::batch_view& batch) {
  tile_counts out;
  for_runs(batch, [&](std::int32_t begin, std::int32_t rows) {
    if (rows < few_rows) {
      out.of_one += static_cast<std::size_t>(rows);
      return;
    }
    out.of_many += static_cast<std::size_t>((rows + tile_rows - 1) / tile_rows);
    out.rows_of_many = std::max(out.rows_of_many, std::min(rows, tile_rows));
    out.last_of_many =
        std::max(out.last_of_many, batch.positions[begin + rows - 1]);
  });
  return out;
}

bool are_alone(const ops::batch_view& batch) {
  const auto& of = batch.sequences;
  return std::adjacent_find(of.begin(), of.end()) == of.end();
}

step_places places_of(const ops::step_input& in) {
  const auto rows = in.batch.positions.size();
  step_places out;
  out.logit_rows = in.ids.size();
  out.positions = out.logit_rows + in.logit_rows.size();
  out.sequences = out.positions + rows;
  out.last = out.sequences + rows;
  out.tiles = out.last + rows;
  out.table_begins = out.tiles + 2 * rows;
  out.tables = out.table_begins + in.batch.tables.size();
  out.end = out.tables;
  for (const auto& table : in.batch.tables)
    out.end += table.size();
  return out;
}

void pack_step(const ops::step_input& in, std::span<std::int32_t> to) {
  const auto places = places_of(in);
  assert(to.size() == places.end);
  auto put = [&](std::span<const std::int32_t> list, std::size_t at) {
    std::copy(list.begin(), list.end(), to.begin() + at);
  };
  const auto& [positions, sequences, tables] = in.batch;
  put(in.ids, 0);
  put(in.logit_rows, places.logit_rows);
  put(positions, places.positions);
  put(sequences, places.sequences);
  // Rows of a sequence stand together, in ascending positions.
  for (auto r = positions.size(); r-- > 0;) {
    const auto ends =
        r + 1 == positions.size() || sequences[r + 1] != sequences[r];
    to[places.last + r] = ends ? positions[r] : to[places.last + r + 1];
  }
  // There are no more tiles than rows; what is behind them is not read.
  auto* tiles = to.data() + places.tiles;
  std::fill_n(tiles, 2 * positions.size(), 0);
  put_tiles(in.batch, tiles, tiles + 2 * count_tiles(in.batch).of_one);
  std::size_t begin = 0;
  for (std::size_t s = 0; s < tables.size(); ++s) {
    to[places.table_begins + s] = static_cast<std::int32_t>(begin);
    put(tables[s], places.tables + begin);
    begin += tables[s].size();
  }
}

} // namespace troupe::cuda
