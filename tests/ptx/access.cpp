#include "tests/ptx/decode.hpp"
#include "tests/ptx/lanewise.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <span>

namespace troupe::ptx {

namespace {

using kind = type::kind;
using access = shared_memory::access;

constexpr std::size_t address_at = 4; ///< its slot's place in r

constexpr std::pair<std::string_view, space> spaces[] = {
    {"global", space::global},
    {"const", space::global},
    {"shared", space::shared},
    {"local", space::local},
    {"param", space::parameter}};

[[noreturn]] void wrong(const statement& s) {
  s.fail("not with this type or these modifiers");
}

// -- loads and stores ---------------------------------------------------------
// r[0] ... are what is read or written, `mode` how many; slot 0 for what nobody
// wants.

template <class Stored, class Register>
void load(warp& w, const instruction& i, u32 mask) {
  of_lanes at;
  w.addresses(i, mask, address_at, at);
  warp::spots from;
  w.locate(i, mask, i.where, at, sizeof(Stored) * i.mode, access::read, from);
  for (std::size_t n = 0; n < i.mode; ++n) {
    if (i.r[n] == 0)
      continue;
    Register* const to = w.at<Register>(i.r[n]);
    for_each_lane(mask, [&](unsigned l) {
      Stored x;
      std::memcpy(&x, from.at[l] + n * sizeof x, sizeof x);
      to[l] = static_cast<Register>(x);
    });
    w.define(i.r[n], mask, all_lanes);
  }
}

template <class Stored, class Register>
void store(warp& w, const instruction& i, u32 mask) {
  of_lanes at;
  w.addresses(i, mask, address_at, at);
  warp::spots to;
  w.locate(i, mask, i.where, at, sizeof(Stored) * i.mode, access::write, to);
  for (std::size_t n = 0; n < i.mode; ++n) {
    if (i.where != space::local)
      w.need(i, mask, i.r[n]);
    const Register* const from = w.at<Register>(i.r[n]);
    for_each_lane(mask, [&](unsigned l) {
      const auto x = static_cast<Stored>(from[l]);
      std::memcpy(to.at[l] + n * sizeof x, &x, sizeof x);
    });
  }
  if (i.where == space::local || to.are_apart)
    return;
  for (std::size_t n = 0; n < i.mode; ++n) {
    const Register* const from = w.at<Register>(i.r[n]);
    for_each_lane(mask, [&](unsigned l) {
      const auto x = static_cast<Stored>(from[l]);
      if (std::memcmp(to.at[l] + n * sizeof x, &x, sizeof x) != 0)
        w.fail(i, l, "another lane writes something else there");
    });
  }
}

// Of which other threads of this process may know: one word, at once.

template <class T>
void load_at_once(warp& w, const instruction& i, u32 mask) {
  of_lanes at;
  w.addresses(i, mask, address_at, at);
  warp::spots from;
  w.locate(i, mask, i.where, at, sizeof(T), access::read, from);
  T* const to = w.at<T>(i.r[0]);
  for_each_lane(mask, [&](unsigned l) {
    to[l] = std::atomic_ref{*reinterpret_cast<T*>(from.at[l])}.load();
  });
  w.define(i.r[0], mask, all_lanes);
}

template <class T>
void store_at_once(warp& w, const instruction& i, u32 mask) {
  of_lanes at;
  w.addresses(i, mask, address_at, at);
  w.need(i, mask, i.r[0]);
  warp::spots to;
  w.locate(i, mask, i.where, at, sizeof(T), access::write, to);
  const T* const from = w.at<T>(i.r[0]);
  for_each_lane(mask, [&](unsigned l) {
    std::atomic_ref{*reinterpret_cast<T*>(to.at[l])}.store(from[l]);
  });
}

template <class Stored>
handler transfer_of(bool loads, unsigned bytes) {
  if constexpr (sizeof(Stored) <= 2)
    if (bytes == 2)
      return loads ? load<Stored, u16> : store<Stored, u16>;
  if constexpr (sizeof(Stored) <= 4)
    if (bytes == 4)
      return loads ? load<Stored, u32> : store<Stored, u32>;
  if (bytes == 8)
    return loads ? load<Stored, u64> : store<Stored, u64>;
  return nullptr;
}

handler transfer_of(const type& t, bool loads, unsigned bytes) {
  const bool is_signed = t.what == kind::integer && loads;
  switch (t.size()) {
  case 1:
    return is_signed ? transfer_of<s8>(loads, bytes)
                     : transfer_of<u8>(loads, bytes);
  case 2:
    return is_signed ? transfer_of<s16>(loads, bytes)
                     : transfer_of<u16>(loads, bytes);
  case 4:
    return is_signed ? transfer_of<s32>(loads, bytes)
                     : transfer_of<u32>(loads, bytes);
  default:
    return transfer_of<u64>(loads, bytes);
  }
}

bool take_scope(statement& s) {
  return s.parts.take("sys") || s.parts.take("gpu") || s.parts.take("cta");
}

void read_transfer(statement& s, bool loads) {
  bool at_once = s.parts.take("volatile");
  if (!at_once && (s.parts.take("relaxed") ||
                   s.parts.take(loads ? "acquire" : "release"))) {
    at_once = true;
    if (!take_scope(s))
      s.fail("there should be a scope");
  }
  s.out.where = s.parts.take_one(std::span{spaces}).value_or(space::generic);
  // What is kept near a processor changes no value.
  for (const auto hint : {"nc", "ca", "cg", "cs"})
    if (s.out.where == space::global && s.parts.take(hint))
      break;
  std::size_t count = s.parts.take("v2") ? 2 : s.parts.take("v4") ? 4 : 1;
  const auto t = s.expect_type();
  if (t.bytes == 0 || (count * t.size() > 16) || (count > 1 && at_once))
    wrong(s);
  s.has(2);
  const auto& data = s.operands[loads ? 0 : 1];
  s.address(s.operands[loads ? 1 : 0], address_at);
  std::vector<operand> all{data};
  if (data.what == operand::kind::vector)
    all = data.parts;
  if (all.size() != count)
    s.fail("there should be " + std::to_string(count) + " registers");
  unsigned bytes = std::max(2u, t.size());
  for (const auto& one : all)
    if (one.what == operand::kind::reg)
      bytes = one.bytes; // may be more than what is stored
  for (std::size_t n = 0; n < count; ++n)
    if (!loads)
      s.out.r[n] = s.source(all[n], bytes);
    else if (all[n].what != operand::kind::sink)
      s.out.r[n] = s.destination(all[n], bytes);
  s.out.mode = static_cast<u8>(count);
  if (!at_once)
    s.out.run = transfer_of(t, loads, bytes);
  else if (t.size() == 4 && bytes == 4)
    s.out.run = loads ? load_at_once<u32> : store_at_once<u32>;
  else if (t.size() == 8)
    s.out.run = loads ? load_at_once<u64> : store_at_once<u64>;
  if (s.out.run == nullptr)
    wrong(s);
}

// -- atomic operations --------------------------------------------------------
// r[0] = what was there; r[1] the operand.

struct op_add {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(static_cast<std::make_unsigned_t<T>>(a) +
                          static_cast<std::make_unsigned_t<T>>(b));
  }
};
struct op_min {
  template <class T>
  T operator()(T a, T b) const {
    return std::min(a, b);
  }
};
struct op_max {
  template <class T>
  T operator()(T a, T b) const {
    return std::max(a, b);
  }
};
struct op_and {
  template <class T>
  T operator()(T a, T b) const {
    return a & b;
  }
};
struct op_or {
  template <class T>
  T operator()(T a, T b) const {
    return a | b;
  }
};
struct op_exchange {
  template <class T>
  T operator()(T, T b) const {
    return b;
  }
};

/// Up to a bound, then 0.
struct op_count {
  u32 operator()(u32 a, u32 bound) const {
    return a >= bound ? 0 : a + 1;
  }
};

template <class F, class T>
void change(warp& w, const instruction& i, u32 mask) {
  of_lanes at;
  w.addresses(i, mask, address_at, at);
  w.need(i, mask, i.r[1]);
  warp::spots there;
  w.locate(i, mask, i.where, at, sizeof(T), access::atomic, there);
  T* const out = w.at<T>(i.r[0]);
  const T* const by = w.at<T>(i.r[1]);
  for_each_lane(mask, [&](unsigned l) {
    const std::atomic_ref word{*reinterpret_cast<T*>(there.at[l])};
    T before = word.load();
    const T with = by[l];
    while (!word.compare_exchange_weak(before, F{}(before, with))) {
    }
    if (i.r[0] != 0)
      out[l] = before;
  });
  if (i.r[0] != 0)
    w.define(i.r[0], mask, all_lanes);
}

template <class F>
handler change_of(const type& t) {
  const bool is_signed = t.what == kind::integer;
  if (t.bytes == 4)
    return is_signed ? change<F, s32> : change<F, u32>;
  if (t.bytes == 8)
    return is_signed ? change<F, s64> : change<F, u64>;
  return nullptr;
}

void read_atom(statement& s) {
  if (s.parts.take("relaxed") || s.parts.take("acq_rel") ||
      s.parts.take("acquire") || s.parts.take("release"))
    take_scope(s);
  s.out.where = s.parts.take_one(std::span{spaces}).value_or(space::generic);
  const auto what = s.parts.next();
  s.parts.take(what);
  const auto t = s.expect_type();
  const bool of_bits = what == "and" || what == "or" || what == "exch";
  if (!t.is_integer() || of_bits != (t.what == kind::bits))
    wrong(s);
  const bool counts = what == "inc" && t.what == kind::natural && t.bytes == 4;
  s.out.run = counts           ? change<op_count, u32>
              : what == "add"  ? change_of<op_add>(t)
              : what == "min"  ? change_of<op_min>(t)
              : what == "max"  ? change_of<op_max>(t)
              : what == "and"  ? change_of<op_and>(t)
              : what == "or"   ? change_of<op_or>(t)
              : what == "exch" ? change_of<op_exchange>(t)
                               : nullptr;
  if (s.out.run == nullptr)
    wrong(s);
  s.has(3);
  if (s.operands[0].what != operand::kind::sink)
    s.out.r[0] = s.destination(0, t.bytes);
  s.address(s.operands[1], address_at);
  s.out.r[1] = s.source(2, t.bytes);
}

// -- asynchronous copies ------------------------------------------------------
// r[0]: how many bytes are read, or 0: all. r[5]: where from, `target` its
// offset. mode: bytes.

void copy(warp& w, const instruction& i, u32 mask) {
  of_lanes to, from;
  w.addresses(i, mask, address_at, to);
  w.need(i, mask, i.r[5]);
  if (i.r[0] != 0)
    w.need(i, mask, i.r[0]);
  u32 reads = 0;
  for_each_lane(mask, [&](unsigned l) {
    const auto read = i.r[0] != 0 ? w.at<u32>(i.r[0])[l] : i.mode;
    if (read == i.mode)
      reads |= u32{1} << l;
    else if (read != 0)
      w.fail(i, l, "a copy of a part is not known");
  });
  const auto offset =
      static_cast<u64>(static_cast<s64>(static_cast<s32>(i.target)));
  for (unsigned l = 0; l < lanes; ++l)
    from.at[l] = w.at<u64>(i.r[5])[l] + offset;
  if (reads != 0) {
    const auto one = from.at[std::countr_zero(reads)];
    for (unsigned l = 0; l < lanes; ++l)
      if ((reads >> l & 1) == 0)
        from.at[l] = one;
    w.check_global(i, reads, from, i.mode, access::read);
    if (w.of().how.counts_traffic)
      w.count_traffic(reads, space::global, from, i.mode, access::read);
  }
  if (w.of().how.counts_traffic)
    w.count_traffic(mask, space::shared, to, i.mode, access::write);
  for_each_lane(mask, [&](unsigned l) {
    const auto offset_to = w.shared_offset(i, l, to.at[l], i.mode);
    const bool is_read = (reads >> l & 1) != 0;
    w.begin_copy(i, l, offset_to,
                 reinterpret_cast<const std::byte*>(from.at[l]), i.mode,
                 is_read ? i.mode : 0);
  });
}

void commit(warp& w, const instruction&, u32 mask) {
  w.commit_copies(mask);
}

/// target: how many groups may be left.
void wait_group(warp& w, const instruction& i, u32 mask) {
  w.finish_copies(mask, i.target);
}

void wait_all(warp& w, const instruction&, u32 mask) {
  w.finish_copies(mask, warp::none_left);
}

void read_copy(statement& s) {
  if (!s.parts.take("async"))
    wrong(s);
  if (s.parts.take("commit_group")) {
    s.has(0);
    s.out.run = commit;
    return;
  }
  if (s.parts.take("wait_all")) {
    s.has(0);
    s.out.run = wait_all;
    return;
  }
  if (s.parts.take("wait_group")) {
    s.has(1);
    s.out.target = static_cast<u32>(s.immediate(0));
    s.out.run = wait_group;
    return;
  }
  const bool whole_lines = s.parts.take("cg");
  if (!whole_lines && !s.parts.take("ca"))
    wrong(s);
  if (!s.parts.take("shared") && !s.parts.take("shared::cta"))
    wrong(s);
  if (!s.parts.take("global"))
    wrong(s);
  s.has(3, 4);
  const auto bytes = s.immediate(2);
  if (bytes != 16 && (whole_lines || (bytes != 4 && bytes != 8)))
    s.fail("so many bytes cannot be copied");
  s.out.mode = static_cast<u8>(bytes);
  s.out.where = space::global;
  s.address(s.operands[1], 5);
  if (!s.out.address_is_64)
    s.fail("the source's address has to have 64 bits");
  s.out.target = static_cast<u32>(s.out.offset);
  s.out.where = space::shared;
  s.address(s.operands[0], address_at);
  if (s.operands.size() == 4)
    s.out.r[0] = s.source(3, 4);
  s.out.run = copy;
}

} // namespace

bool decode_access(statement& s) {
  if (s.name == "ld")
    read_transfer(s, true);
  else if (s.name == "st")
    read_transfer(s, false);
  else if (s.name == "atom")
    read_atom(s);
  else if (s.name == "cp")
    read_copy(s);
  else
    return false;
  return true;
}

} // namespace troupe::ptx
