#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace troupe::test {

/// Bytes written one after the other, little-endian.
class byte_writer {
public:
  template <class T>
  byte_writer& put(T value) {
    auto old = bytes_.size();
    bytes_.resize(old + sizeof value);
    std::memcpy(bytes_.data() + old, &value, sizeof value);
    return *this;
  }

  byte_writer& raw(std::string_view text) {
    bytes_ += text;
    return *this;
  }

  /// Length (u64) and bytes, as GGUF writes a string.
  byte_writer& string(std::string_view text) {
    return put(std::uint64_t{text.size()}).raw(text);
  }

  const std::string& bytes() const {
    return bytes_;
  }

private:
  std::string bytes_;
};

/// GGUF's numbers for value and tensor types.
enum gguf_value : std::uint32_t {
  gguf_u8 = 0,
  gguf_i8 = 1,
  gguf_u32 = 4,
  gguf_i32 = 5,
  gguf_f32 = 6,
  gguf_bool = 7,
  gguf_string = 8,
  gguf_array = 9,
  gguf_u64 = 10,
  gguf_i64 = 11,
  gguf_f64 = 12,
};

enum gguf_tensor_type : std::uint32_t {
  gguf_tensor_f32 = 0,
  gguf_tensor_f16 = 1,
  gguf_tensor_q4_0 = 2,
  gguf_tensor_q8_0 = 8,
  gguf_tensor_bf16 = 30,
};

/// One tensor entry as it shall stand in the file, right or wrong.
struct gguf_tensor_entry {
  std::string name;
  std::vector<std::uint64_t> shape;
  std::uint32_t type = gguf_tensor_f32;
  std::string data;
  std::optional<std::uint64_t> offset; ///< unset: after the one before
};

/// Builds GGUF files, also broken ones: every count and offset can be forged.
/// A key that is set again replaces the old value; `twice` keeps both.
class gguf_builder {
public:
  std::uint32_t magic = 0x46554747;
  std::uint32_t version = 3;
  std::optional<std::uint64_t> tensor_count;
  std::optional<std::uint64_t> entry_count;
  std::size_t alignment = 32;
  std::vector<gguf_tensor_entry> tensors;

  gguf_builder& set(std::string key, std::uint32_t type, std::string value) {
    for (auto& [name, old] : entries_)
      if (name == key) {
        old = {type, std::move(value)};
        return *this;
      }
    return twice(std::move(key), type, std::move(value));
  }

  gguf_builder& twice(std::string key, std::uint32_t type, std::string value) {
    entries_.push_back({std::move(key), {type, std::move(value)}});
    return *this;
  }

  gguf_builder& erase(std::string_view key) {
    std::erase_if(entries_, [&](auto& entry) { return entry.first == key; });
    return *this;
  }

  gguf_builder& u32(std::string key, std::uint32_t value) {
    return set(std::move(key), gguf_u32, byte_writer{}.put(value).bytes());
  }

  gguf_builder& f32(std::string key, float value) {
    return set(std::move(key), gguf_f32, byte_writer{}.put(value).bytes());
  }

  gguf_builder& boolean(std::string key, bool value) {
    return set(std::move(key), gguf_bool,
               byte_writer{}.put(std::uint8_t{value}).bytes());
  }

  gguf_builder& string(std::string key, std::string_view value) {
    return set(std::move(key), gguf_string,
               byte_writer{}.string(value).bytes());
  }

  gguf_builder& strings(std::string key,
                        const std::vector<std::string>& values) {
    byte_writer out;
    out.put(std::uint32_t{gguf_string}).put(std::uint64_t{values.size()});
    for (const auto& value : values)
      out.string(value);
    return set(std::move(key), gguf_array, out.bytes());
  }

  gguf_builder& booleans(std::string key, const std::vector<bool>& values) {
    byte_writer out;
    out.put(std::uint32_t{gguf_bool}).put(std::uint64_t{values.size()});
    for (bool value : values)
      out.put(static_cast<std::uint8_t>(value));
    return set(std::move(key), gguf_array, out.bytes());
  }

  gguf_builder& i32s(std::string key, const std::vector<std::int32_t>& values) {
    byte_writer out;
    out.put(std::uint32_t{gguf_i32}).put(std::uint64_t{values.size()});
    for (auto value : values)
      out.put(value);
    return set(std::move(key), gguf_array, out.bytes());
  }

  gguf_builder& f32s(std::string key, const std::vector<float>& values) {
    byte_writer out;
    out.put(std::uint32_t{gguf_f32}).put(std::uint64_t{values.size()});
    for (auto value : values)
      out.put(value);
    return set(std::move(key), gguf_array, out.bytes());
  }

  /// A tensor of zeros.
  gguf_builder& f32_tensor(std::string name, std::vector<std::uint64_t> shape) {
    std::uint64_t elements = 1;
    for (auto size : shape)
      elements *= size;
    tensors.push_back({std::move(name),
                       std::move(shape),
                       gguf_tensor_f32,
                       std::string(elements * 4, '\0'),
                       {}});
    return *this;
  }

  gguf_tensor_entry& tensor(std::string_view name) {
    for (auto& one : tensors)
      if (one.name == name)
        return one;
    return tensors.emplace_back();
  }

  std::string build() const {
    byte_writer out;
    out.put(magic).put(version);
    out.put(tensor_count.value_or(tensors.size()));
    out.put(entry_count.value_or(entries_.size()));
    for (const auto& [key, value] : entries_)
      out.string(key).put(value.first).raw(value.second);
    std::string data;
    for (const auto& one : tensors)
      write_entry(one, out, data);
    if (tensors.empty())
      return out.bytes();
    return padded(out.bytes()) + data;
  }

private:
  std::string padded(std::string bytes) const {
    bytes.resize((bytes.size() + alignment - 1) / alignment * alignment);
    return bytes;
  }

  void write_entry(const gguf_tensor_entry& one, byte_writer& out,
                   std::string& data) const {
    data = padded(std::move(data));
    out.string(one.name).put(static_cast<std::uint32_t>(one.shape.size()));
    for (auto size : one.shape)
      out.put(size);
    out.put(one.type).put(one.offset.value_or(data.size()));
    data += one.data;
  }

  std::vector<std::pair<std::string, std::pair<std::uint32_t, std::string>>>
      entries_;
};

inline std::span<const std::byte> as_bytes(const std::string& text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

} // namespace troupe::test
