#pragma once

#include "actors/protocol/routing_table.hpp"
#include "engine/codec/error.hpp"
#include "engine/codec/tagged.hpp"

#include <concepts>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

// The one encoder of all records between processes. A record type says once
// which field has which number:
//
//   template <>
//   struct layout<endpoint> {
//     static constexpr std::string_view name = "endpoint";
//     static constexpr auto fields
//       = std::tuple{number(1, &endpoint::address), ...};
//   };
//
// and can be written and read from then on. What a member's type means in
// bytes:
//   number, bool, enum      its little-endian bytes
//   string                  its bytes
//   record                  an encoded record of its own
//   list of plain values    one field, elements one after the other
//   list of id/weight pairs the same, the two halves one after the other
//   any other list          one field per element
//   optional                what it holds; nothing = no field
// A member that holds its default is left out. Enums state their last value
// with an overload of `last_value`, so that no unknown one gets in. Numbers are
// never used again for something else.
//
// Versions: a member that came with protocol version N is `droppable_since(N,
// ...)`: it is left out for an older reader, which goes on without it. What an
// older reader cannot go on without is no new member but a new message.

namespace troupe::protocol {

/// A record of more bytes than this is refused (errc::limit).
inline constexpr std::size_t record_bytes_max = std::size_t{64} << 20;

/// A list of more elements than this, one field each, is refused (errc::limit).
inline constexpr std::size_t list_elements_max = std::size_t{1} << 20;

template <class Record>
struct layout;

template <class Record, class Member>
struct numbered_member {
  std::uint16_t tag;
  Member Record::*member;
  bool even_default = false; ///< written also when it holds its default
  std::uint32_t since = 0;   ///< the protocol version that it came with
};

template <class Record, class Member>
constexpr numbered_member<Record, Member> number(std::uint16_t tag,
                                                 Member Record::*member) {
  return {tag, member};
}

/// For a member whose default differs between versions.
template <class Record, class Member>
constexpr numbered_member<Record, Member> always(std::uint16_t tag,
                                                 Member Record::*member) {
  return {tag, member, true};
}

/// For a member that came with protocol version `since`, and without which an
/// older reader does well enough.
template <class Record, class Member>
constexpr numbered_member<Record, Member>
droppable_since(std::uint32_t since, std::uint16_t tag,
                Member Record::*member) {
  return {tag, member, false, since};
}

template <class T>
concept record = requires {
  layout<T>::fields;
};

/// For a reader of protocol version `version`.
template <record Record>
codec::bytes encode_record(const Record& from,
                           std::uint32_t version = protocol_version);

/// `from` holds all fields of one record and nothing else. Reads as a reader of
/// protocol version `version` does.
template <record Record>
result<Record> decode_record(codec::bytes_view from,
                             std::uint32_t version = protocol_version);

namespace detail {

template <class T>
concept scalar = std::is_arithmetic_v<T> || std::is_enum_v<T>;

template <class T>
concept plain = std::is_trivially_copyable_v<T> && !std::is_enum_v<T> &&
                !record<T> && !std::same_as<T, bool>;

template <class T>
concept plain_list = plain<typename T::value_type> &&
    std::same_as<T, std::vector<typename T::value_type>>;

/// Fields in the making, and the protocol version of their reader.
struct target {
  codec::writer& out;
  std::uint32_t version;
};

template <scalar T>
void write(target to, std::uint16_t tag, T value) {
  to.out.put(tag, value);
}

inline void write(target to, std::uint16_t tag, const std::string& value) {
  to.out.put(tag, std::string_view{value});
}

template <record T>
void write(target to, std::uint16_t tag, const T& value) {
  to.out.put(tag, encode_record(value, to.version));
}

template <plain T>
void write(target to, std::uint16_t tag, const std::vector<T>& list) {
  to.out.put(tag, list);
}

template <scalar First, scalar Second>
void write(target to, std::uint16_t tag,
           const std::vector<std::pair<First, Second>>& list) {
  codec::bytes packed(list.size() * (sizeof(First) + sizeof(Second)));
  auto* at = packed.data();
  for (const auto& [first, second] : list) {
    std::memcpy(at, &first, sizeof first);
    std::memcpy(at + sizeof first, &second, sizeof second);
    at += sizeof first + sizeof second;
  }
  to.out.put(tag, packed);
}

template <class T>
requires(!plain<T>) void write(target to, std::uint16_t tag,
                               const std::vector<T>& list) {
  for (const auto& element : list)
    write(to, tag, element);
}

template <class T>
void write(target to, std::uint16_t tag, const std::optional<T>& value) {
  if (value)
    write(to, tag, *value);
}

// -- reading: errors are values, the caller names the record -----------------

using outcome = result<void>;

/// One field of a record, and the protocol version of who reads it.
struct source {
  std::string_view name; ///< of the record
  const codec::field& field;
  std::uint32_t version;

  error broken() const {
    return codec::broken_field(name, field.tag);
  }
};

template <scalar T>
outcome read(source from, T& to) {
  if (!from.field.get(to))
    return from.broken();
  if constexpr (std::is_enum_v<T>)
    if (to > last_value(T{}))
      return from.broken();
  return {};
}

inline outcome read(source from, std::string& to) {
  to.assign(reinterpret_cast<const char*>(from.field.payload.data()),
            from.field.payload.size());
  return {};
}

template <record T>
outcome read(source from, T& to) {
  auto inner = decode_record<T>(from.field.payload, from.version);
  if (!inner)
    return inner.error();
  to = std::move(*inner);
  return {};
}

template <class T>
outcome read(source from, std::optional<T>& to) {
  return read(from, to.emplace());
}

template <plain T>
outcome read(source from, std::vector<T>& to) {
  if (!from.field.get(to))
    return from.broken();
  return {};
}

template <scalar First, scalar Second>
outcome read(source from, std::vector<std::pair<First, Second>>& to) {
  constexpr auto step = sizeof(First) + sizeof(Second);
  if (from.field.payload.size() % step != 0)
    return from.broken();
  to.resize(from.field.payload.size() / step);
  const auto* at = from.field.payload.data();
  for (auto& [first, second] : to) {
    std::memcpy(&first, at, sizeof first);
    std::memcpy(&second, at + sizeof first, sizeof second);
    at += step;
  }
  return {};
}

template <class T>
requires(!plain<T>) outcome read(source from, std::vector<T>& to) {
  if (to.size() == list_elements_max)
    return error{errc::limit, std::string{from.name} + ": field " +
                                  std::to_string(from.field.tag) +
                                  " occurs too often"};
  return read(from, to.emplace_back());
}

} // namespace detail

template <record Record>
codec::bytes encode_record(const Record& from, std::uint32_t version) {
  codec::writer out;
  const Record fallback;
  auto put = [&](const auto& field) {
    const auto& value = from.*field.member;
    if (field.since > version)
      return;
    if (field.even_default || !(value == fallback.*field.member))
      detail::write({out, version}, field.tag, value);
  };
  std::apply([&](const auto&... field) { (put(field), ...); },
             layout<Record>::fields);
  return out.take();
}

template <record Record>
result<Record> decode_record(codec::bytes_view from, std::uint32_t version) {
  constexpr auto name = layout<Record>::name;
  if (from.size() > record_bytes_max)
    return error{errc::limit, std::string{name} + ": too many bytes"};
  Record to;
  codec::reader in{from};
  codec::field next;
  while (in.next(next)) {
    detail::outcome read_it = codec::unknown_field(name, next.tag);
    auto take = [&](const auto& field) {
      if (field.tag == next.tag && field.since <= version)
        read_it = detail::read({name, next, version}, to.*field.member);
    };
    std::apply([&](const auto&... field) { (take(field), ...); },
               layout<Record>::fields);
    if (!read_it)
      return read_it.error();
  }
  if (!in.ok())
    return error{errc::corrupt, std::string{name} + ": cut short"};
  return to;
}

} // namespace troupe::protocol
