#include "engine/weights/gguf_parser.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <fmt/format.h>
#include <numeric>
#include <optional>
#include <utility>

namespace troupe::weights {

namespace {

static_assert(std::endian::native == std::endian::little,
              "GGUF is read as it lies in memory");

/// The value types of the specification.
enum class value_type : std::uint32_t {
  u8 = 0,
  i8,
  u16,
  i16,
  u32,
  i32,
  f32,
  boolean,
  string,
  array,
  u64,
  i64,
  f64,
};

constexpr std::uint32_t value_type_max = 12;
constexpr std::uint32_t magic = 0x46554747; // "GGUF"
constexpr std::size_t key_bytes_max = 65535;
constexpr std::size_t tensor_name_bytes_max = 64;
constexpr std::uint32_t dimensions_max = 4;
constexpr std::size_t alignment_default = 32;
constexpr std::size_t alignment_max = 1u << 20;
constexpr std::size_t string_overhead_bytes = 56;
constexpr std::size_t entry_overhead_bytes = 160;
constexpr std::size_t tensor_overhead_bytes = 512;
/// The smallest metadata entry: key length, a key of one byte, type, value.
constexpr std::size_t entry_bytes_min = 8 + 1 + 4 + 1;
/// The smallest tensor entry: a name of one byte, one dimension.
constexpr std::size_t tensor_bytes_min = 8 + 1 + 4 + 8 + 4 + 8;

struct type_name {
  std::uint32_t id;
  std::string_view name;
};

/// ggml's tensor types that are not computed with here, by their numbers.
constexpr type_name unsupported_types[] = {
    {9, "Q8_1"},     {15, "Q8_K"},  {16, "IQ2_XXS"}, {17, "IQ2_XS"},
    {18, "IQ3_XXS"}, {19, "IQ1_S"}, {21, "IQ3_S"},   {22, "IQ2_S"},
    {23, "IQ4_XS"},  {24, "I8"},    {25, "I16"},     {26, "I32"},
    {27, "I64"},     {28, "F64"},   {29, "IQ1_M"},   {34, "TQ1_0"},
    {35, "TQ2_0"},   {39, "MXFP4"},
};

struct known_type {
  std::uint32_t id;
  ops::element_type type;
};

/// Those that are, likewise.
constexpr known_type known_types[] = {
    {0, ops::element_type::f32},     {1, ops::element_type::f16},
    {2, ops::element_type::q4_0},    {3, ops::element_type::q4_1},
    {6, ops::element_type::q5_0},    {7, ops::element_type::q5_1},
    {8, ops::element_type::q8_0},    {10, ops::element_type::q2_k},
    {11, ops::element_type::q3_k},   {12, ops::element_type::q4_k},
    {13, ops::element_type::q5_k},   {14, ops::element_type::q6_k},
    {20, ops::element_type::iq4_nl}, {30, ops::element_type::bf16},
};

std::optional<ops::element_type> element_type_of(std::uint32_t id) {
  for (const auto& known : known_types)
    if (known.id == id)
      return known.type;
  return std::nullopt;
}

/// Bytes of one value of a type of fixed size; 0 for strings and arrays.
std::size_t size_of(value_type type) {
  switch (type) {
  case value_type::u8:
  case value_type::i8:
  case value_type::boolean:
    return 1;
  case value_type::u16:
  case value_type::i16:
    return 2;
  case value_type::u32:
  case value_type::i32:
  case value_type::f32:
    return 4;
  case value_type::u64:
  case value_type::i64:
  case value_type::f64:
    return 8;
  case value_type::string:
  case value_type::array:
    return 0;
  }
  return 0;
}

/// Keys and tensor names go into messages and logs, so they are plain ASCII.
bool printable(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](unsigned char c) { return c > 0x20 && c < 0x7f; });
}

/// Reads a file from front to back. Every step returns false after it has put
/// down an error, and then nothing more is read.
class parser {
public:
  parser(std::span<const std::byte> data, std::size_t& overhead_bytes)
      : data_(data), charged_(overhead_bytes) {
    // nop
  }

  bool run() {
    return header() && metadata() && alignment() && tensor_entries() &&
           place_tensors();
  }

  gguf_contents take() {
    return std::move(out_);
  }

  const error& what() const {
    return error_;
  }

private:
  bool fail(errc code, std::string message) {
    error_ = {code, std::move(message)};
    return false;
  }

  bool corrupt(std::string message) {
    return fail(errc::corrupt, std::move(message));
  }

  std::size_t rest() const {
    return data_.size() - at_;
  }

  bool charge(std::size_t count, std::size_t each) {
    if (count > (gguf_overhead_bytes_max - charged_) / each)
      return fail(errc::limit, "the header is too large to be a model's");
    charged_ += count * each;
    return true;
  }

  template <class T>
  bool read(T& out) {
    if (rest() < sizeof out)
      return corrupt(fmt::format("cut short at byte {}", data_.size()));
    std::memcpy(&out, data_.data() + at_, sizeof out);
    at_ += sizeof out;
    return true;
  }

  bool read_string(std::string& out, std::size_t bytes_max) {
    std::uint64_t size = 0;
    if (!read(size))
      return false;
    if (size > rest())
      return corrupt(
          fmt::format("a string at byte {} is longer than the file", at_ - 8));
    if (size > bytes_max)
      return corrupt(fmt::format("a name at byte {} is longer than {} bytes",
                                 at_ - 8, bytes_max));
    out.assign(reinterpret_cast<const char*>(data_.data() + at_), size);
    at_ += size;
    return true;
  }

  bool read_name(std::string& out, std::size_t bytes_max) {
    auto start = at_;
    if (!read_string(out, bytes_max))
      return false;
    if (out.empty() || !printable(out))
      return corrupt(fmt::format(
          "a name at byte {} is empty or has unprintable characters", start));
    return true;
  }

  bool header() {
    std::uint32_t word = 0;
    if (!read(word))
      return false;
    if (word != magic)
      return fail(errc::unsupported, "not a GGUF file (wrong magic)");
    if (!read(word))
      return false;
    if ((word & 0xffff) == 0)
      return fail(errc::unsupported, "big-endian GGUF: not supported");
    if (word != 2 && word != 3)
      return fail(errc::unsupported,
                  fmt::format("GGUF version {}: not supported", word));
    if (!read(tensor_count_) || !read(entry_count_))
      return false;
    if (entry_count_ > rest() / entry_bytes_min)
      return corrupt(
          fmt::format("{} metadata entries do not fit the file", entry_count_));
    if (tensor_count_ > rest() / tensor_bytes_min)
      return corrupt(
          fmt::format("{} tensors do not fit the file", tensor_count_));
    return charge(entry_count_, entry_overhead_bytes) &&
           charge(tensor_count_, tensor_overhead_bytes);
  }

  bool metadata() {
    for (std::uint64_t i = 0; i < entry_count_; ++i)
      if (!metadata_entry())
        return false;
    return true;
  }

  bool metadata_entry() {
    std::string key;
    value_type type{};
    if (!read_name(key, key_bytes_max) || !read_type(key, type))
      return false;
    metadata_value value;
    if (type == value_type::array ? !read_array(key, value)
                                  : !read_scalar(key, type, value))
      return false;
    if (!out_.metadata.emplace(key, std::move(value)).second)
      return corrupt(fmt::format("metadata '{}' is there twice", key));
    return true;
  }

  bool read_type(const std::string& key, value_type& out) {
    std::uint32_t word = 0;
    if (!read(word))
      return false;
    if (word > value_type_max)
      return corrupt(
          fmt::format("metadata '{}' has the unknown type {}", key, word));
    out = static_cast<value_type>(word);
    return true;
  }

  /// Reads a number of type T and widens it.
  template <class T, class Wide>
  bool read_as(Wide& out) {
    T narrow{};
    if (!read(narrow))
      return false;
    out = static_cast<Wide>(narrow);
    return true;
  }

  bool read_bool(const std::string& key, bool& out) {
    std::uint8_t byte = 0;
    if (!read(byte))
      return false;
    if (byte > 1)
      return corrupt(
          fmt::format("metadata '{}' holds a boolean of {}", key, byte));
    out = byte == 1;
    return true;
  }

  bool read_integer(value_type type, std::int64_t& out) {
    switch (type) {
    case value_type::u8:
      return read_as<std::uint8_t>(out);
    case value_type::i8:
      return read_as<std::int8_t>(out);
    case value_type::u16:
      return read_as<std::uint16_t>(out);
    case value_type::i16:
      return read_as<std::int16_t>(out);
    case value_type::u32:
      return read_as<std::uint32_t>(out);
    case value_type::i32:
      return read_as<std::int32_t>(out);
    default:
      return read(out);
    }
  }

  bool read_real(value_type type, double& out) {
    return type == value_type::f32 ? read_as<float>(out) : read(out);
  }

  bool read_scalar(const std::string& key, value_type type,
                   metadata_value& out) {
    switch (type) {
    case value_type::u8:
    case value_type::u16:
    case value_type::u32:
    case value_type::u64: {
      std::int64_t value = 0;
      out = std::uint64_t{0};
      if (!read_integer(type, value))
        return false;
      out = static_cast<std::uint64_t>(value);
      return true;
    }
    case value_type::i8:
    case value_type::i16:
    case value_type::i32:
    case value_type::i64:
      return read_integer(type, out.emplace<std::int64_t>());
    case value_type::f32:
    case value_type::f64:
      return read_real(type, out.emplace<double>());
    case value_type::boolean:
      return read_bool(key, out.emplace<bool>());
    default:
      return read_string(out.emplace<std::string>(), data_.size());
    }
  }

  bool read_array(const std::string& key, metadata_value& out) {
    value_type type{};
    std::uint64_t count = 0;
    if (!read_type(key, type) || !read(count))
      return false;
    if (type == value_type::array)
      return fail(errc::unsupported,
                  fmt::format("metadata '{}': arrays of arrays are not "
                              "supported",
                              key));
    auto each = type == value_type::string ? 8 : size_of(type);
    if (count > rest() / each)
      return corrupt(fmt::format("metadata '{}': {} elements do not fit the "
                                 "file",
                                 key, count));
    return read_elements(key, type, count, out);
  }

  bool read_elements(const std::string& key, value_type type,
                     std::uint64_t count, metadata_value& out) {
    switch (type) {
    case value_type::string:
      return fill(
          out.emplace<std::vector<std::string>>(), count, string_overhead_bytes,
          [&](std::string& one) { return read_string(one, data_.size()); });
    case value_type::boolean:
      return fill(out.emplace<std::vector<bool>>(), count, 1,
                  [&](bool& one) { return read_bool(key, one); });
    case value_type::f32:
    case value_type::f64:
      return fill(out.emplace<std::vector<double>>(), count, sizeof(double),
                  [&](double& one) { return read_real(type, one); });
    default:
      return fill(out.emplace<std::vector<std::int64_t>>(), count,
                  sizeof(std::int64_t), [&](std::int64_t& one) {
                    return read_integer(type, one) && in_range(key, type, one);
                  });
    }
  }

  bool in_range(const std::string& key, value_type type, std::int64_t value) {
    if (type == value_type::u64 && value < 0)
      return corrupt(
          fmt::format("metadata '{}' holds a number of 2^63 or more", key));
    return true;
  }

  template <class T, class ReadOne>
  bool fill(std::vector<T>& out, std::uint64_t count, std::size_t overhead,
            ReadOne read_one) {
    if (!charge(count, overhead))
      return false;
    out.reserve(count);
    for (std::uint64_t i = 0; i < count; ++i) {
      T one{};
      if (!read_one(one))
        return false;
      out.push_back(std::move(one));
    }
    return true;
  }

  bool alignment() {
    auto found = out_.metadata.find("general.alignment");
    if (found == out_.metadata.end())
      return true;
    auto* value = std::get_if<std::uint64_t>(&found->second);
    if (!value)
      return corrupt("metadata 'general.alignment' is not an unsigned number");
    if (*value < 8 || *value > alignment_max || !std::has_single_bit(*value))
      return corrupt(fmt::format("an alignment of {} is not a power of two "
                                 "from 8 to {}",
                                 *value, alignment_max));
    alignment_ = *value;
    return true;
  }

  bool tensor_entries() {
    out_.tensors.reserve(tensor_count_);
    offsets_.reserve(tensor_count_);
    for (std::uint64_t i = 0; i < tensor_count_; ++i)
      if (!tensor_entry())
        return false;
    return true;
  }

  bool tensor_entry() {
    tensor one;
    std::uint64_t offset = 0;
    std::uint32_t type = 0;
    if (!read_name(one.name, tensor_name_bytes_max) || !read_shape(one) ||
        !read(type) || !read(offset) || !set_type(one, type))
      return false;
    if (!out_.tensor_index.emplace(one.name, out_.tensors.size()).second)
      return corrupt(fmt::format("tensor '{}' is there twice", one.name));
    offsets_.push_back(offset);
    out_.tensors.push_back(std::move(one));
    return true;
  }

  bool read_shape(tensor& out) {
    std::uint32_t dimensions = 0;
    if (!read(dimensions))
      return false;
    if (dimensions < 1 || dimensions > dimensions_max)
      return corrupt(
          fmt::format("tensor '{}' has {} dimensions", out.name, dimensions));
    std::int64_t elements = 1;
    for (std::uint32_t i = 0; i < dimensions; ++i) {
      std::int64_t size = 0;
      if (!read(size))
        return false;
      if (size < 1 || __builtin_mul_overflow(elements, size, &elements))
        return corrupt(fmt::format("tensor '{}': dimension {} is zero or "
                                   "too large",
                                   out.name, i));
      out.shape.push_back(size);
    }
    return true;
  }

  bool set_type(tensor& out, std::uint32_t id) {
    auto type = element_type_of(id);
    if (!type)
      return refuse_type(out, id);
    out.type = *type;
    auto block = ops::layout_of(*type).elements;
    if (out.shape[0] % block != 0)
      return corrupt(fmt::format("tensor '{}': rows of {} elements are not "
                                 "whole blocks of {}",
                                 out.name, out.shape[0], block));
    return true;
  }

  bool refuse_type(const tensor& out, std::uint32_t id) {
    for (const auto& known : unsupported_types)
      if (known.id == id)
        return fail(errc::unsupported,
                    fmt::format("tensor '{}': type {} is not supported yet",
                                out.name, known.name));
    return corrupt(
        fmt::format("tensor '{}' has the unknown type {}", out.name, id));
  }

  bool place_tensors() {
    if (out_.tensors.empty())
      return true;
    auto start = (at_ + alignment_ - 1) / alignment_ * alignment_;
    if (start > data_.size())
      return corrupt("cut short before the tensors' data");
    auto data = data_.subspan(start);
    for (std::size_t i = 0; i < out_.tensors.size(); ++i)
      if (!place(out_.tensors[i], offsets_[i], data))
        return false;
    return apart();
  }

  bool place(tensor& out, std::uint64_t offset,
             std::span<const std::byte> data) {
    auto layout = ops::layout_of(out.type);
    // The product of the shape has been checked; the bytes may still overflow.
    auto elements = std::accumulate(out.shape.begin(), out.shape.end(),
                                    std::int64_t{1}, std::multiplies<>{});
    std::int64_t bytes = 0;
    bool overflow = __builtin_mul_overflow(elements / layout.elements,
                                           layout.bytes, &bytes);
    if (offset % alignment_ != 0)
      return corrupt(fmt::format("tensor '{}': offset {} is not aligned to {}",
                                 out.name, offset, alignment_));
    if (overflow || offset > data.size() ||
        static_cast<std::uint64_t>(bytes) > data.size() - offset)
      return corrupt(fmt::format("tensor '{}' reaches past the end of the file",
                                 out.name));
    out.bytes = data.subspan(offset, static_cast<std::size_t>(bytes));
    return true;
  }

  bool apart() {
    std::vector<const tensor*> order;
    for (const auto& one : out_.tensors)
      order.push_back(&one);
    std::sort(order.begin(), order.end(), [](auto* a, auto* b) {
      return a->bytes.data() < b->bytes.data();
    });
    for (std::size_t i = 1; i < order.size(); ++i)
      if (order[i - 1]->bytes.data() + order[i - 1]->bytes.size() >
          order[i]->bytes.data())
        return corrupt(fmt::format("tensors '{}' and '{}' overlap",
                                   order[i - 1]->name, order[i]->name));
    return true;
  }

  std::span<const std::byte> data_;
  std::size_t at_ = 0;
  std::size_t& charged_;
  std::uint64_t tensor_count_ = 0;
  std::uint64_t entry_count_ = 0;
  std::size_t alignment_ = alignment_default;
  std::vector<std::uint64_t> offsets_;
  gguf_contents out_;
  error error_;
};

} // namespace

result<gguf_contents> parse_gguf(std::span<const std::byte> data,
                                 std::size_t& overhead_bytes) {
  parser reader{data, overhead_bytes};
  if (!reader.run())
    return reader.what();
  return reader.take();
}

} // namespace troupe::weights
