#include "cuda/step_lists.hpp"

#include <algorithm>
#include <cassert>

namespace troupe::cuda {

step_places places_of(const ops::step_input& in) {
  const auto rows = in.batch.positions.size();
  step_places out;
  out.logit_rows = in.ids.size();
  out.positions = out.logit_rows + in.logit_rows.size();
  out.sequences = out.positions + rows;
  out.last = out.sequences + rows;
  out.table_begins = out.last + rows;
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
  std::size_t begin = 0;
  for (std::size_t s = 0; s < tables.size(); ++s) {
    to[places.table_begins + s] = static_cast<std::int32_t>(begin);
    put(tables[s], places.tables + begin);
    begin += tables[s].size();
  }
}

} // namespace troupe::cuda
