#include "engine/weights/safetensors.hpp"

#include "engine/weights/json_document.hpp"
#include "engine/weights/printable.hpp"
#include "engine/weights/text_file.hpp"
#include "engine/weights/tree_hash.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <fmt/format.h>
#include <optional>
#include <set>

namespace troupe::weights {

namespace dom = simdjson::dom;

namespace {

static_assert(std::endian::native == std::endian::little,
              "safetensors are read as they lie in memory");

constexpr std::uint64_t header_bytes_max = 100'000'000; // the format's own
constexpr std::size_t dimensions_max = 8;
constexpr std::size_t name_bytes_max = 256;
constexpr std::size_t shards_max = 4096;

struct type_row {
  stored_type type;
  std::string_view name;
  std::size_t bytes;
};

constexpr type_row types[] = {
    {stored_type::f64, "F64", 8},         {stored_type::f32, "F32", 4},
    {stored_type::f16, "F16", 2},         {stored_type::bf16, "BF16", 2},
    {stored_type::f8_e4m3, "F8_E4M3", 1}, {stored_type::f8_e5m2, "F8_E5M2", 1},
    {stored_type::i64, "I64", 8},         {stored_type::i32, "I32", 4},
    {stored_type::i16, "I16", 2},         {stored_type::i8, "I8", 1},
    {stored_type::u64, "U64", 8},         {stored_type::u32, "U32", 4},
    {stored_type::u16, "U16", 2},         {stored_type::u8, "U8", 1},
    {stored_type::boolean, "BOOL", 1},
};

/// Names go into messages and logs, so they are plain ASCII.
bool plain_name(std::string_view name) {
  return !name.empty() && name.size() <= name_bytes_max &&
         std::all_of(name.begin(), name.end(),
                     [](unsigned char c) { return c > 0x20 && c < 0x7f; });
}

/// Reads one header. Every step returns false after it has put down an error.
class header_reader {
public:
  header_reader(std::span<const std::byte> data, const std::string& name)
      : data_(data), name_(name) {
    // nop
  }

  result<std::vector<stored_tensor>> run() {
    std::string_view text;
    if (!find_header(text))
      return problem();
    auto header = json_document::parse(text, name_ + ": header");
    if (!header)
      return header.error();
    out_.reserve(header->root().size());
    for (auto field : header->root())
      if (!(field.key == "__metadata__" ? notes(field.value)
                                        : entry(field.key, field.value)))
        return problem();
    if (!without_gaps())
      return problem();
    return std::move(out_);
  }

private:
  bool fail(errc code, std::string message) {
    error_ = {code, std::move(message)};
    return false;
  }

  bool corrupt(std::string message) {
    return fail(errc::corrupt, std::move(message));
  }

  error problem() const {
    return {error_.code, name_ + ": " + error_.message};
  }

  bool find_header(std::string_view& out) {
    std::uint64_t size = 0;
    if (data_.size() < sizeof size)
      return corrupt("cut short: no header");
    std::memcpy(&size, data_.data(), sizeof size);
    auto rest = data_.subspan(sizeof size);
    if (size > header_bytes_max)
      return corrupt(fmt::format("a header of {} bytes is above the format's "
                                 "100 MB: not a safetensors file",
                                 size));
    if (size > rest.size())
      return corrupt(
          fmt::format("a header of {} bytes does not fit the file", size));
    out = {reinterpret_cast<const char*>(rest.data()),
           static_cast<std::size_t>(size)};
    if (!out.starts_with('{'))
      return corrupt("the header does not begin with '{'");
    buffer_ = rest.subspan(out.size());
    return true;
  }

  /// "__metadata__": texts that mean nothing here.
  bool notes(dom::element value) {
    dom::object all;
    if (value.get(all))
      return corrupt("'__metadata__' is not an object");
    for (auto field : all)
      if (!field.value.is_string())
        return corrupt("'__metadata__' holds something else than texts");
    return true;
  }

  bool entry(std::string_view name, dom::element value) {
    if (!plain_name(name))
      return corrupt(fmt::format("the tensor name '{}' is empty, too long or "
                                 "has unprintable characters",
                                 printable(name)));
    stored_tensor one;
    one.name = name;
    dom::object fields;
    if (value.get(fields))
      return corrupt(fmt::format("tensor '{}' is not an object", name));
    return known_fields(name, fields) && read_type(fields, one) &&
           read_shape(fields, one) && read_place(fields, one);
  }

  bool known_fields(std::string_view name, const dom::object& fields) {
    std::set<std::string_view> seen;
    for (auto field : fields) {
      if (field.key != "dtype" && field.key != "shape" &&
          field.key != "data_offsets")
        return corrupt(fmt::format("tensor '{}' has the unknown field '{}'",
                                   name, printable(field.key)));
      if (!seen.insert(field.key).second)
        return corrupt(
            fmt::format("tensor '{}' says '{}' twice", name, field.key));
    }
    return true;
  }

  bool read_type(const dom::object& fields, stored_tensor& out) {
    std::string_view name;
    if (fields.at_key("dtype").get(name))
      return corrupt(fmt::format("tensor '{}' has no dtype", out.name));
    for (const auto& row : types)
      if (row.name == name) {
        out.type = row.type;
        return true;
      }
    return fail(errc::unsupported,
                fmt::format("tensor '{}': dtype {} is not supported", out.name,
                            printable(name)));
  }

  bool read_shape(const dom::object& fields, stored_tensor& out) {
    dom::array shape;
    if (fields.at_key("shape").get(shape))
      return corrupt(fmt::format("tensor '{}' has no shape", out.name));
    if (shape.size() > dimensions_max)
      return corrupt(
          fmt::format("tensor '{}' has {} dimensions", out.name, shape.size()));
    std::int64_t elements = 1;
    for (auto value : shape) {
      std::int64_t size = 0;
      if (value.get(size) || size < 0 ||
          __builtin_mul_overflow(elements, size, &elements))
        return corrupt(fmt::format("tensor '{}': a dimension is no whole "
                                   "number or too large",
                                   out.name));
      out.shape.push_back(size);
    }
    return true;
  }

  bool read_place(const dom::object& fields, stored_tensor& out) {
    dom::array offsets;
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
    if (fields.at_key("data_offsets").get(offsets) || offsets.size() != 2 ||
        offsets.at(0).get(begin) || offsets.at(1).get(end))
      return corrupt(
          fmt::format("tensor '{}' has no pair of data_offsets", out.name));
    if (end < begin)
      return corrupt(
          fmt::format("tensor '{}' ends before it begins", out.name));
    if (end > buffer_.size())
      return corrupt(fmt::format("tensor '{}' reaches past the end of the file",
                                 out.name));
    std::int64_t bytes = 0;
    if (__builtin_mul_overflow(out.elements(),
                               static_cast<std::int64_t>(size_of(out.type)),
                               &bytes) ||
        static_cast<std::uint64_t>(bytes) != end - begin)
      return corrupt(
          fmt::format("tensor '{}' has {} bytes, its dtype and shape "
                      "say otherwise",
                      out.name, end - begin));
    out.bytes = buffer_.subspan(begin, end - begin);
    out_.push_back(std::move(out));
    return true;
  }

  /// The format demands that the tensors fill the file.
  bool without_gaps() {
    std::vector<const stored_tensor*> order;
    for (const auto& one : out_)
      order.push_back(&one);
    std::sort(order.begin(), order.end(), [](auto* a, auto* b) {
      return std::pair{a->bytes.data(), a->bytes.size()} <
             std::pair{b->bytes.data(), b->bytes.size()};
    });
    auto* at = buffer_.data();
    for (const auto* one : order) {
      if (one->bytes.data() != at)
        return corrupt(fmt::format("tensor '{}' {}", one->name,
                                   one->bytes.data() < at
                                       ? "overlaps another one"
                                       : "comes after a hole"));
      at += one->bytes.size();
    }
    if (at != buffer_.data() + buffer_.size())
      return corrupt("bytes after the last tensor belong to none");
    return true;
  }

  std::span<const std::byte> data_;
  const std::string& name_;
  std::span<const std::byte> buffer_; ///< behind the header
  std::vector<stored_tensor> out_;
  error error_;
};

/// A file beside the index: no way out of its directory.
bool plain_file_name(std::string_view name) {
  return plain_name(name) && name.find('/') == std::string_view::npos &&
         name.ends_with(".safetensors");
}

using weight_map = std::map<std::string, std::string, std::less<>>;

result<weight_map> read_index(const std::filesystem::path& path) {
  const auto name = path.filename().string();
  auto text = read_text_file(path, json_document::bytes_max);
  if (!text)
    return text.error();
  auto index = json_document::parse(*text, name);
  if (!index)
    return index.error();
  dom::object entries;
  if (index->root().at_key("weight_map").get(entries))
    return error{errc::corrupt, name + ": no weight_map"};
  weight_map out;
  for (auto field : entries) {
    std::string_view file;
    if (field.value.get(file) || !plain_file_name(file))
      return error{errc::corrupt,
                   fmt::format("{}: the file of tensor '{}' is not one beside "
                               "the index",
                               name, printable(field.key))};
    if (!out.emplace(field.key, file).second)
      return error{errc::corrupt, fmt::format("{}: tensor '{}' is there twice",
                                              name, printable(field.key))};
  }
  return out;
}

} // namespace

std::string_view name_of(stored_type type) {
  return types[static_cast<std::size_t>(type)].name;
}

std::size_t size_of(stored_type type) {
  return types[static_cast<std::size_t>(type)].bytes;
}

std::int64_t stored_tensor::elements() const {
  std::int64_t out = 1;
  for (auto size : shape)
    out *= size; // the reader has checked that it fits
  return out;
}

result<std::vector<stored_tensor>>
parse_safetensors(std::span<const std::byte> data, const std::string& name) {
  return header_reader{data, name}.run();
}

result<void> safetensors_set::open_shard(const std::filesystem::path& path) {
  auto file = mapped_file::open(path);
  if (!file)
    return file.error();
  auto found = parse_safetensors(file->bytes(), path.filename().string());
  if (!found)
    return found.error();
  tensors_.insert(tensors_.end(), std::make_move_iterator(found->begin()),
                  std::make_move_iterator(found->end()));
  files_.push_back(std::move(*file));
  return {};
}

result<void>
safetensors_set::open_index(const std::filesystem::path& directory) {
  const auto path = directory / "model.safetensors.index.json";
  auto index = read_index(path);
  if (!index)
    return index.error();
  std::set<std::string> shards;
  for (const auto& [tensor, file] : *index)
    shards.insert(file);
  if (shards.size() > shards_max)
    return error{errc::limit,
                 fmt::format("{}: names {} files", path.filename().string(),
                             shards.size())};
  for (const auto& shard : shards) {
    auto first = tensors_.size();
    if (auto done = open_shard(directory / shard); !done)
      return done;
    for (auto i = first; i < tensors_.size(); ++i) {
      auto said = index->find(tensors_[i].name);
      if (said == index->end() || said->second != shard)
        return error{errc::corrupt,
                     fmt::format("{}: holds tensor '{}', which the index does "
                                 "not place there",
                                 shard, tensors_[i].name)};
    }
  }
  if (tensors_.size() == index->size())
    return {};
  for (const auto& one : tensors_)
    index->erase(one.name);
  const auto& [tensor, file] = *index->begin();
  return error{errc::corrupt,
               fmt::format("{}: tensor '{}' is missing, the index places it "
                           "there",
                           file, printable(tensor))};
}

result<safetensors_set>
safetensors_set::open(const std::filesystem::path& directory) {
  safetensors_set out;
  auto done = out.open_shard(directory / "model.safetensors");
  if (!done && done.error().code == errc::not_found)
    done = out.open_index(directory);
  if (!done && done.error().code == errc::not_found && out.files_.empty() &&
      !std::filesystem::exists(directory / "model.safetensors.index.json"))
    return error{errc::not_found, "no model.safetensors and no "
                                  "model.safetensors.index.json"};
  if (!done)
    return done.error();
  std::sort(out.tensors_.begin(), out.tensors_.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  return out;
}

const stored_tensor* safetensors_set::find(std::string_view name) const {
  auto found = std::lower_bound(tensors_.begin(), tensors_.end(), name,
                                [](const auto& one, std::string_view wanted) {
                                  return one.name < wanted;
                                });
  return found == tensors_.end() || found->name != name ? nullptr : &*found;
}

std::string safetensors_set::content_hash(int threads) const {
  std::string all;
  for (const auto& file : files_)
    all += tree_hash(file.bytes(), threads);
  return tree_hash(std::as_bytes(std::span{all}), 1);
}

bool safetensors_set::changed() const {
  return std::any_of(files_.begin(), files_.end(),
                     [](const mapped_file& one) { return one.changed(); });
}

} // namespace troupe::weights
