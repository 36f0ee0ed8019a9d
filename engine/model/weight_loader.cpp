#include "engine/model/weight_loader.hpp"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <fmt/format.h>
#include <iterator>
#include <string_view>
#include <utility>

namespace troupe::model {

namespace {

ops::matrix_view part_of(const ops::matrix_view& whole, std::int64_t index,
                         std::int64_t count) {
  const auto bytes = whole.bytes.size() / static_cast<std::size_t>(count);
  const auto first = static_cast<std::size_t>(index) * bytes;
  const auto scales = whole.scales.size() / static_cast<std::size_t>(count);
  return {
      whole.type,
      whole.rows / count,
      whole.cols,
      whole.bytes.subspan(first, bytes),
      whole.as_e4m3,
      whole.scales.subspan(static_cast<std::size_t>(index) * scales, scales),
      whole.row_scales};
}

/// First and number of the rows that a rank takes.
std::vector<std::pair<std::int64_t, std::int64_t>>
rows_of(const tensor_cut& how, std::int64_t rows, const shard& rank) {
  if (rank.size == 1 || how.what != cut::outputs)
    return {{0, rows}};
  std::vector<std::pair<std::int64_t, std::int64_t>> out;
  std::int64_t first = 0;
  for (const auto& group : how.groups) {
    const auto share = group.rows / group.shares;
    const auto which = rank.rank * group.shares / rank.size;
    out.emplace_back(first + which * share, share);
    first += group.rows;
  }
  return out;
}

/// Why a matrix cannot be cut; empty if it can.
std::string why_not(const tensor_cut& how, const ops::matrix_view& whole,
                    const shard& rank) {
  const auto block = whole.row_scales > 1 ? ops::scale_cols
                                          : ops::layout_of(whole.type).elements;
  if (rank.size == 1 || how.what != cut::inputs ||
      whole.cols % (rank.size * block) == 0)
    return {};
  return fmt::format("its {} columns, in blocks of {}, cannot be divided by {}",
                     whole.cols, block, rank.size);
}

/// Scales of a rank's rows, each.
std::int64_t row_scales_of(const tensor_cut& how, const ops::matrix_view& whole,
                           const shard& rank) {
  const bool divided = how.what == cut::inputs && whole.row_scales > 1;
  return divided ? whole.row_scales / rank.size : whole.row_scales;
}

/// What a rank has of a matrix, without its elements.
ops::matrix_view shape_of(const tensor_cut& how, const ops::matrix_view& whole,
                          const shard& rank) {
  auto out = whole;
  out.rows = 0;
  for (auto [first, count] : rows_of(how, whole.rows, rank))
    out.rows += count;
  if (how.what == cut::inputs)
    out.cols /= rank.size;
  out.row_scales = row_scales_of(how, whole, rank);
  return out;
}

std::vector<std::byte> cut_out(const tensor_cut& how,
                               const ops::matrix_view& whole,
                               const shard& rank) {
  const auto layout = ops::layout_of(whole.type);
  const auto row_bytes = whole.cols / layout.elements * layout.bytes;
  const auto inputs = how.what == cut::inputs;
  const auto taken = inputs ? row_bytes / rank.size : row_bytes;
  const auto from = inputs ? rank.rank * taken : 0;
  std::vector<std::byte> out;
  for (auto [first, count] : rows_of(how, whole.rows, rank))
    for (auto row = first; row < first + count; ++row) {
      const auto* at = whole.bytes.data() + row * row_bytes + from;
      out.insert(out.end(), at, at + taken);
    }
  return out;
}

/// What a rank takes of the scales of a matrix in e4m3.
std::vector<float> scales_of(const tensor_cut& how,
                             const ops::matrix_view& whole,
                             std::span<const float> scales, const shard& rank) {
  std::vector<float> out;
  if (scales.empty())
    return out;
  const auto taken = row_scales_of(how, whole, rank);
  const auto from = taken < whole.row_scales ? rank.rank * taken : 0;
  for (auto [first, count] : rows_of(how, whole.rows, rank))
    for (auto row = first; row < first + count; ++row)
      std::copy_n(scales.begin() + row * whole.row_scales + from, taken,
                  std::back_inserter(out));
  return out;
}

/// What is loaded at once, of which one may be meant.
std::string named(const std::vector<weight_loader::part>& parts) {
  std::vector<std::string_view> names;
  for (const auto& one : parts)
    names.push_back(one.name);
  return fmt::format("{} '{}'", names.size() == 1 ? "tensor" : "one of",
                     fmt::join(names, "', '"));
}

} // namespace

weight_loader::weight_loader(const weights::checkpoint& file,
                             ops::backend& backend, reading what,
                             load_progress progress, shard rank)
    : file_(file), backend_(backend), what_(what),
      progress_(std::move(progress)), rank_(rank) {
  for (const auto& one : file.tensors())
    total_ += one.byte_size();
}

result<std::unique_ptr<ops::weight>>
weight_loader::weight(const std::vector<part>& parts) {
  auto matrices = read_all(parts);
  if (!matrices)
    return matrices.error();
  auto loaded = counted(backend_.load(matrices->parts), parts);
  if (loaded)
    advance(matrices->bytes);
  return loaded;
}

result<std::unique_ptr<ops::expert_weights>>
weight_loader::experts(const std::vector<part>& parts, std::int64_t count) {
  auto stacks = read_all(parts);
  if (!stacks)
    return stacks.error();
  const auto& all = stacks->parts; // gate, up, down
  std::vector<ops::expert_matrices> each;
  for (std::int64_t i = 0; i < count; ++i)
    each.push_back({part_of(all[0], i, count), part_of(all[1], i, count),
                    part_of(all[2], i, count)});
  auto loaded = counted(backend_.load_experts(each), parts);
  if (loaded)
    advance(stacks->bytes);
  return loaded;
}

std::unique_ptr<ops::buffer>
weight_loader::floats(const std::vector<part>& parts) {
  std::vector<float> values;
  for (const auto& one : parts) {
    const auto& tensor = find(one.name);
    std::vector<float> whole(tensor.bytes.size() / sizeof(float));
    std::memcpy(whole.data(), tensor.bytes.data(), tensor.bytes.size());
    for (auto [first, count] :
         rows_of(one.cut, static_cast<std::int64_t>(whole.size()), rank_))
      values.insert(values.end(), whole.begin() + first,
                    whole.begin() + first + count);
    advance(tensor.bytes.size());
  }
  return upload(values);
}

std::unique_ptr<ops::buffer> weight_loader::zeros(std::size_t count) {
  return upload(std::vector<float>(count));
}

std::unique_ptr<ops::buffer>
weight_loader::upload(const std::vector<float>& values) {
  resident_bytes_ += values.size() * sizeof(float);
  return backend_.upload(values);
}

const weights::tensor& weight_loader::find(const std::string& name) const {
  auto* found = file_.find_tensor(name);
  assert(found);
  return *found;
}

result<weight_loader::read_matrices>
weight_loader::read_all(const std::vector<part>& parts) const {
  read_matrices out;
  for (const auto& one : parts) {
    const auto& tensor = find(one.name);
    auto matrix = tensor.matrix();
    out.bytes += tensor.byte_size();
    if (auto why = why_not(one.cut, matrix, rank_); !why.empty())
      return error{errc::unsupported, fmt::format("{}: tensor '{}': {}",
                                                  file_.name(), one.name, why)};
    out.parts.push_back(shape_of(one.cut, matrix, rank_));
    if (what_ == reading::shapes)
      continue;
    auto read = file_.read(tensor);
    if (!read)
      return read.error();
    matrix.bytes = read->bytes();
    const auto scales = std::move(read->scales);
    if (rank_.size > 1 && one.cut.what != cut::none)
      *read = weights::tensor_data{cut_out(one.cut, matrix, rank_)};
    out.parts.back().bytes = read->bytes();
    out.parts.back().scales =
        out.scales.emplace_back(scales_of(one.cut, matrix, scales, rank_));
    out.elements.push_back(std::move(*read));
  }
  return out;
}

template <class Loaded>
result<Loaded> weight_loader::counted(result<Loaded> loaded,
                                      const std::vector<part>& of) {
  if (!loaded)
    return error{loaded.error().code,
                 fmt::format("{}: {}: {}", file_.name(), named(of),
                             loaded.error().message)};
  resident_bytes_ += static_cast<std::uint64_t>((*loaded)->bytes());
  return loaded;
}

void weight_loader::advance(std::uint64_t bytes) {
  done_ += bytes;
  if (progress_)
    progress_(done_, total_);
}

} // namespace troupe::model
