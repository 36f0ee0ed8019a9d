#pragma once

#include "engine/codec/error.hpp"
#include "engine/codec/tagged.hpp"

#include <concepts>
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
// A member that holds its default is left out. Enums state their last value
// with an overload of `last_value`, so that no unknown one gets in. Numbers are
// never used again for something else.

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

template <class T>
concept record = requires {
  layout<T>::fields;
};

template <record Record>
codec::bytes encode_record(const Record& from);

/// `from` holds all fields of one record and nothing else.
template <record Record>
result<Record> decode_record(codec::bytes_view from);

namespace detail {

template <class T>
concept scalar = std::is_arithmetic_v<T> || std::is_enum_v<T>;

template <class T>
concept plain = std::is_trivially_copyable_v<T> && !std::is_enum_v<T> &&
                !record<T> && !std::same_as<T, bool>;

template <class T>
concept plain_list = plain<typename T::value_type> &&
    std::same_as<T, std::vector<typename T::value_type>>;

template <scalar T>
void write(codec::writer& out, std::uint16_t tag, T value) {
  out.put(tag, value);
}

inline void write(codec::writer& out, std::uint16_t tag,
                  const std::string& value) {
  out.put(tag, std::string_view{value});
}

template <record T>
void write(codec::writer& out, std::uint16_t tag, const T& value) {
  out.put(tag, encode_record(value));
}

template <plain T>
void write(codec::writer& out, std::uint16_t tag, const std::vector<T>& list) {
  out.put(tag, list);
}

template <scalar First, scalar Second>
void write(codec::writer& out, std::uint16_t tag,
           const std::vector<std::pair<First, Second>>& list) {
  codec::bytes packed(list.size() * (sizeof(First) + sizeof(Second)));
  auto* at = packed.data();
  for (const auto& [first, second] : list) {
    std::memcpy(at, &first, sizeof first);
    std::memcpy(at + sizeof first, &second, sizeof second);
    at += sizeof first + sizeof second;
  }
  out.put(tag, packed);
}

template <class T>
requires(!plain<T>) void write(codec::writer& out, std::uint16_t tag,
                               const std::vector<T>& list) {
  for (const auto& element : list)
    write(out, tag, element);
}

// -- reading: errors are values, the caller names the record -----------------

using outcome = result<void>;

template <scalar T>
outcome read(std::string_view name, const codec::field& from, T& to) {
  if (!from.get(to))
    return codec::broken_field(name, from.tag);
  if constexpr (std::is_enum_v<T>)
    if (to > last_value(T{}))
      return codec::broken_field(name, from.tag);
  return {};
}

inline outcome read(std::string_view, const codec::field& from,
                    std::string& to) {
  to.assign(reinterpret_cast<const char*>(from.payload.data()),
            from.payload.size());
  return {};
}

template <record T>
outcome read(std::string_view, const codec::field& from, T& to) {
  auto inner = decode_record<T>(from.payload);
  if (!inner)
    return inner.error();
  to = std::move(*inner);
  return {};
}

template <plain T>
outcome read(std::string_view name, const codec::field& from,
             std::vector<T>& to) {
  if (!from.get(to))
    return codec::broken_field(name, from.tag);
  return {};
}

template <scalar First, scalar Second>
outcome read(std::string_view name, const codec::field& from,
             std::vector<std::pair<First, Second>>& to) {
  constexpr auto step = sizeof(First) + sizeof(Second);
  if (from.payload.size() % step != 0)
    return codec::broken_field(name, from.tag);
  to.resize(from.payload.size() / step);
  const auto* at = from.payload.data();
  for (auto& [first, second] : to) {
    std::memcpy(&first, at, sizeof first);
    std::memcpy(&second, at + sizeof first, sizeof second);
    at += step;
  }
  return {};
}

template <class T>
requires(!plain<T>) outcome
    read(std::string_view name, const codec::field& from, std::vector<T>& to) {
  if (to.size() == list_elements_max)
    return error{errc::limit, std::string{name} + ": field " +
                                  std::to_string(from.tag) +
                                  " occurs too often"};
  return read(name, from, to.emplace_back());
}

} // namespace detail

template <record Record>
codec::bytes encode_record(const Record& from) {
  codec::writer out;
  const Record fallback;
  auto put = [&](const auto& field) {
    const auto& value = from.*field.member;
    if (field.even_default || !(value == fallback.*field.member))
      detail::write(out, field.tag, value);
  };
  std::apply([&](const auto&... field) { (put(field), ...); },
             layout<Record>::fields);
  return out.take();
}

template <record Record>
result<Record> decode_record(codec::bytes_view from) {
  constexpr auto name = layout<Record>::name;
  if (from.size() > record_bytes_max)
    return error{errc::limit, std::string{name} + ": too many bytes"};
  Record to;
  codec::reader in{from};
  codec::field next;
  while (in.next(next)) {
    detail::outcome read_it = codec::unknown_field(name, next.tag);
    auto take = [&](const auto& field) {
      if (field.tag == next.tag)
        read_it = detail::read(name, next, to.*field.member);
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
