#include "engine/model/weight_loader.hpp"

#include <cassert>
#include <cstring>
#include <fmt/format.h>
#include <utility>

namespace troupe::model {

namespace {

ops::matrix_view part_of(const ops::matrix_view& whole, std::int64_t index,
                         std::int64_t count) {
  const auto bytes = whole.bytes.size() / static_cast<std::size_t>(count);
  const auto first = static_cast<std::size_t>(index) * bytes;
  return {whole.type, whole.rows / count, whole.cols,
          whole.bytes.subspan(first, bytes)};
}

} // namespace

weight_loader::weight_loader(const weights::checkpoint& file,
                             ops::backend& backend, reading what,
                             load_progress progress)
    : file_(file), backend_(backend), what_(what),
      progress_(std::move(progress)) {
  for (const auto& one : file.tensors())
    total_ += one.byte_size();
}

result<std::unique_ptr<ops::weight>>
weight_loader::weight(const std::vector<std::string>& names) {
  auto matrices = read_all(names);
  if (!matrices)
    return matrices.error();
  auto loaded = load(matrices->parts, names.front());
  if (loaded)
    advance(matrices->bytes);
  return loaded;
}

result<std::vector<expert>>
weight_loader::experts(const std::vector<std::string>& names,
                       std::int64_t count) {
  auto stacks = read_all(names);
  if (!stacks)
    return stacks.error();
  const auto& all = stacks->parts; // gate, up, down
  std::vector<expert> out;
  for (std::int64_t i = 0; i < count; ++i) {
    auto gate_up =
        load({part_of(all[0], i, count), part_of(all[1], i, count)}, names[0]);
    auto down = load({part_of(all[2], i, count)}, names[2]);
    if (!gate_up || !down)
      return !gate_up ? gate_up.error() : down.error();
    out.push_back({std::move(*gate_up), std::move(*down)});
  }
  advance(stacks->bytes);
  return out;
}

std::unique_ptr<ops::buffer>
weight_loader::floats(const std::vector<std::string>& names) {
  std::vector<float> values;
  for (const auto& name : names) {
    const auto& tensor = find(name);
    const auto before = values.size();
    values.resize(before + tensor.bytes.size() / sizeof(float));
    std::memcpy(values.data() + before, tensor.bytes.data(),
                tensor.bytes.size());
    resident_bytes_ += tensor.bytes.size();
    advance(tensor.bytes.size());
  }
  return backend_.upload(values);
}

const weights::tensor& weight_loader::find(const std::string& name) const {
  auto* found = file_.find_tensor(name);
  assert(found);
  return *found;
}

result<weight_loader::read_matrices>
weight_loader::read_all(const std::vector<std::string>& names) const {
  read_matrices out;
  for (const auto& name : names) {
    const auto& tensor = find(name);
    out.parts.push_back(tensor.matrix());
    out.bytes += tensor.byte_size();
    if (what_ == reading::shapes)
      continue;
    auto read = file_.read(tensor);
    if (!read)
      return read.error();
    out.parts.back().bytes = read->bytes();
    out.elements.push_back(std::move(*read));
  }
  return out;
}

result<std::unique_ptr<ops::weight>>
weight_loader::load(const std::vector<ops::matrix_view>& parts,
                    const std::string& name) {
  auto loaded = backend_.load(parts);
  if (!loaded)
    return error{loaded.error().code,
                 fmt::format("{}: tensor '{}': {}", file_.name(), name,
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
