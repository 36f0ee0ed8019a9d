#include "tests/ptx/decode.hpp"
#include "tests/ptx/lanewise.hpp"
#include "tests/ptx/numbers.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <type_traits>

namespace troupe::ptx {

namespace {

using kind = type::kind;

[[noreturn]] void wrong(const statement& s) {
  s.fail("not between these types, or not with these modifiers");
}

// -- integers -----------------------------------------------------------------

template <class D, class S>
struct converted {
  template <class R>
  D operator()(R x) const {
    return static_cast<D>(static_cast<S>(x));
  }
};
/// What D does not hold becomes what is nearest to it.
template <class D, class S>
struct clamped {
  template <class R>
  D operator()(R x) const {
    using wide = __int128;
    const auto value = static_cast<wide>(static_cast<S>(x));
    return static_cast<D>(std::clamp<wide>(value, std::numeric_limits<D>::min(),
                                           std::numeric_limits<D>::max()));
  }
};

/// Registers have 16 bits at least, and may have 32 for types of 8; what is
/// read as 32 bits may have 64.
template <class D, class S, class To, class From>
handler between(bool sat) {
  return sat ? lanewise<clamped<D, S>, To, From>::run
             : lanewise<converted<D, S>, To, From>::run;
}

template <class T>
using register_of =
    std::conditional_t<sizeof(T) == 1,
                       std::conditional_t<std::is_signed_v<T>, s16, u16>, T>;

template <class D, class S>
handler between_registers(bool sat, unsigned to, unsigned from) {
  if (to == sizeof(register_of<D>) && from == sizeof(register_of<S>))
    return between<D, S, register_of<D>, register_of<S>>(sat);
  if (sizeof(D) == 1 && to == 4 && from == sizeof(register_of<S>))
    return between<D, S, s32, register_of<S>>(sat);
  if (sizeof(S) == 1 && from == 4 && to == sizeof(register_of<D>))
    return between<D, S, register_of<D>, u32>(sat);
  if (sizeof(S) == 4 && from == 8 && to == sizeof(register_of<D>))
    return between<D, S, register_of<D>, u64>(sat);
  return nullptr;
}

template <class F>
handler with_integer(const type& t, F f) {
  const bool is_signed = t.what == kind::integer;
  switch (t.bytes) {
  case 1:
    return is_signed ? f(s8{}) : f(u8{});
  case 2:
    return is_signed ? f(s16{}) : f(u16{});
  case 4:
    return is_signed ? f(s32{}) : f(u32{});
  default:
    return is_signed ? f(s64{}) : f(u64{});
  }
}

// -- between integers and floats ----------------------------------------------

enum class rounding : u8 { none, nearest, to_zero, down, up };

struct nearest_integer {
  double operator()(double x) const {
    return std::nearbyint(x);
  }
};
struct to_zero {
  double operator()(double x) const {
    return std::trunc(x);
  }
};
struct down {
  double operator()(double x) const {
    return std::floor(x);
  }
};
struct up {
  double operator()(double x) const {
    return std::ceil(x);
  }
};

/// What D does not hold becomes what is nearest to it. No number becomes 0, or
/// the highest bit alone where there are 64 bits on one side.
template <class D, class S, class Round, bool Ftz>
struct integer_of {
  D operator()(S x) const {
    if (x != x)
      return sizeof(S) == 8 || sizeof(D) == 8
                 ? static_cast<D>(u64{1} << (8 * sizeof(D) - 1))
                 : D{0};
    double value = x;
    if constexpr (Ftz)
      value = flushed(static_cast<float>(x));
    value = Round{}(value);
    // Exact: one more than the greatest.
    const double beyond = std::ldexp(1.0, static_cast<int>(8 * sizeof(D)) -
                                              (std::is_signed_v<D> ? 1 : 0));
    if (value >= beyond)
      return std::numeric_limits<D>::max();
    if (value < static_cast<double>(std::numeric_limits<D>::min()))
      return std::numeric_limits<D>::min();
    return static_cast<D>(value);
  }
};

template <class D>
struct float_of {
  template <class S>
  D operator()(S x) const {
    return static_cast<D>(x);
  }
};

template <class F>
handler with_rounding(rounding r, F f) {
  switch (r) {
  case rounding::nearest:
    return f(nearest_integer{});
  case rounding::to_zero:
    return f(to_zero{});
  case rounding::down:
    return f(down{});
  case rounding::up:
    return f(up{});
  default:
    return nullptr;
  }
}

handler float_to_integer(const type& to, const type& from, rounding r,
                         bool ftz) {
  return with_rounding(r, [&]<class Round>(Round) {
    return with_integer(to, [&]<class D>(D) -> handler {
      if constexpr (sizeof(D) == 1)
        return nullptr;
      else if (from.bytes == 8)
        return ftz ? nullptr
                   : lanewise<integer_of<D, double, Round, false>, D,
                              double>::run;
      else
        return ftz ? lanewise<integer_of<D, float, Round, true>, D, float>::run
                   : lanewise<integer_of<D, float, Round, false>, D,
                              float>::run;
    });
  });
}

handler integer_to_float(const type& to, const type& from) {
  return with_integer(from, [&]<class S>(S) -> handler {
    if constexpr (sizeof(S) == 1)
      return nullptr;
    else
      return to.bytes == 8 ? lanewise<float_of<double>, double, S>::run
                           : lanewise<float_of<float>, float, S>::run;
  });
}

// -- floats -------------------------------------------------------------------

struct narrower {
  float operator()(double x) const {
    return canonical(static_cast<float>(x));
  }
};
struct wider {
  double operator()(float x) const {
    return canonical(static_cast<double>(x));
  }
};
struct saturated {
  float operator()(float x) const {
    return x > 0.0f ? std::min(x, 1.0f) : 0.0f;
  }
};
template <class Round>
struct rounded {
  float operator()(float x) const {
    return canonical(static_cast<float>(Round{}(double{x})));
  }
};
struct to_f16 {
  u16 operator()(float x) const {
    return f16_of(x);
  }
};
struct from_f16 {
  float operator()(u16 x) const {
    return float_of_f16(x);
  }
};
struct to_bf16 {
  u16 operator()(float x) const {
    return bf16_of(x);
  }
};
struct from_bf16 {
  float operator()(u16 x) const {
    return float_of_bf16(x);
  }
};

// Of two the first operand is the upper half.

struct to_f16_pair {
  u32 operator()(float a, float b) const {
    return u32{f16_of(a)} << 16 | f16_of(b);
  }
};
struct to_bf16_pair {
  u32 operator()(float a, float b) const {
    return u32{bf16_of(a)} << 16 | bf16_of(b);
  }
};
struct to_e4m3_pair {
  u16 operator()(float a, float b) const {
    return static_cast<u16>(e4m3_of(a) << 8 | e4m3_of(b));
  }
};
struct to_e5m2_pair {
  u16 operator()(float a, float b) const {
    return static_cast<u16>(e5m2_of(a) << 8 | e5m2_of(b));
  }
};
struct from_e4m3_pair {
  u32 operator()(u16 x) const {
    return u32{f16_of(float_of_e4m3(static_cast<u8>(x >> 8)))} << 16 |
           f16_of(float_of_e4m3(static_cast<u8>(x)));
  }
};
struct from_e5m2_pair {
  u32 operator()(u16 x) const {
    return u32{f16_of(float_of_e5m2(static_cast<u8>(x >> 8)))} << 16 |
           f16_of(float_of_e5m2(static_cast<u8>(x)));
  }
};

struct cvt_modifiers {
  rounding of_float = rounding::none;   ///< rn ...
  rounding of_integer = rounding::none; ///< rni ...
  bool ftz = false, sat = false, satfinite = false;

  bool none_but_rn() const {
    return of_float == rounding::nearest && of_integer == rounding::none &&
           !ftz && !sat;
  }
  bool none() const {
    return of_float == rounding::none && of_integer == rounding::none && !ftz &&
           !sat && !satfinite;
  }
};

cvt_modifiers read_modifiers(statement& s) {
  constexpr std::pair<std::string_view, rounding> of_floats[] = {
      {"rn", rounding::nearest}, {"rz", rounding::to_zero}};
  constexpr std::pair<std::string_view, rounding> of_integers[] = {
      {"rni", rounding::nearest},
      {"rzi", rounding::to_zero},
      {"rmi", rounding::down},
      {"rpi", rounding::up}};
  cvt_modifiers out;
  for (const auto& [word, which] : of_floats)
    if (s.parts.take(word))
      out.of_float = which;
  for (const auto& [word, which] : of_integers)
    if (s.parts.take(word))
      out.of_integer = which;
  out.ftz = s.parts.take("ftz");
  out.satfinite = s.parts.take("satfinite");
  out.sat = s.parts.take("sat");
  return out;
}

handler float_to_float(const type& to, const type& from,
                       const cvt_modifiers& how) {
  const auto is_f32 = [](const type& t) { return t.is(kind::real, 4); };
  const auto is_f64 = [](const type& t) { return t.is(kind::real, 8); };
  if (is_f32(to) && is_f32(from)) {
    if (how.sat && how.of_integer == rounding::none && !how.ftz)
      return lanewise<saturated, float, float>::run;
    if (how.sat || how.ftz || how.of_float != rounding::none)
      return nullptr;
    return with_rounding(how.of_integer, [&]<class Round>(Round) {
      return lanewise<rounded<Round>, float, float>::run;
    });
  }
  if (is_f64(to) && is_f32(from) && how.none())
    return lanewise<wider, double, float>::run;
  if (is_f32(to) && from.is(kind::real, 2) && how.none())
    return lanewise<from_f16, float, u16>::run;
  if (is_f32(to) && from.is(kind::brain, 2) && how.none())
    return lanewise<from_bf16, float, u16>::run;
  if (!how.none_but_rn() || how.satfinite)
    return nullptr;
  if (is_f32(to) && is_f64(from))
    return lanewise<narrower, float, double>::run;
  if (to.is(kind::real, 2) && is_f32(from))
    return lanewise<to_f16, u16, float>::run;
  if (to.is(kind::brain, 2) && is_f32(from))
    return lanewise<to_bf16, u16, float>::run;
  return nullptr;
}

/// A pair, of two floats or of another pair.
void read_pair(statement& s, const type& to, const type& from,
               const cvt_modifiers& how) {
  if (!how.none_but_rn())
    wrong(s);
  const bool is_8_bit = to.bytes == 1;
  if (from.is(kind::real, 4) && how.satfinite == is_8_bit) {
    if (is_8_bit)
      s.out.run = to.what == kind::e4m3
                      ? lanewise<to_e4m3_pair, u16, float, float>::run
                      : lanewise<to_e5m2_pair, u16, float, float>::run;
    else
      s.out.run = to.what == kind::brain
                      ? lanewise<to_bf16_pair, u32, float, float>::run
                      : lanewise<to_f16_pair, u32, float, float>::run;
    s.has(3);
    s.out.r[2] = s.source(2, 4);
  } else if (to.what == kind::real && from.bytes == 1 && from.is_pair &&
             !how.satfinite) {
    s.out.run = from.what == kind::e4m3
                    ? lanewise<from_e4m3_pair, u32, u16>::run
                    : lanewise<from_e5m2_pair, u32, u16>::run;
    s.has(2);
  } else {
    wrong(s);
  }
  s.out.r[0] = s.destination(0, to.size());
  s.out.r[1] = s.source(1, from.size());
}

void read_cvt(statement& s) {
  const auto how = read_modifiers(s);
  const auto to = s.expect_type();
  const auto from = s.expect_type();
  if (to.is_pair) {
    read_pair(s, to, from, how);
    return;
  }
  s.has(2);
  auto to_bytes = to.bytes, from_bytes = from.bytes;
  if (to.is_integer() && from.is_integer()) {
    if (how.of_float != rounding::none || how.of_integer != rounding::none ||
        how.ftz || how.satfinite || to.what == kind::bits ||
        from.what == kind::bits)
      wrong(s);
    // A register may be wider than what is in it.
    const auto& d = s.operands[0];
    const auto& a = s.operands[1];
    to_bytes = to.bytes == 1 ? d.bytes : to.bytes;
    if (from.bytes == 1)
      from_bytes = a.what == operand::kind::reg ? a.bytes : 2;
    else if (from.bytes == 4 && a.bytes == 8)
      from_bytes = 8;
    s.out.run = with_integer(to, [&]<class D>(D) {
      return with_integer(from, [&]<class S>(S) {
        return between_registers<D, S>(how.sat, to_bytes, from_bytes);
      });
    });
  } else if (to.is_integer() && from.what == kind::real && from.bytes >= 4) {
    if (how.of_float == rounding::none && !how.sat && !how.satfinite)
      s.out.run = float_to_integer(to, from, how.of_integer, how.ftz);
  } else if (to.what == kind::real && to.bytes >= 4 && from.is_integer()) {
    if (how.none_but_rn() && !how.satfinite)
      s.out.run = integer_to_float(to, from);
  } else {
    s.out.run = float_to_float(to, from, how);
  }
  if (s.out.run == nullptr)
    wrong(s);
  s.out.r[0] = s.destination(0, to_bytes);
  s.out.r[1] = s.source(1, from_bytes);
}

// -- moves --------------------------------------------------------------------

struct moved {
  template <class T>
  T operator()(T x) const {
    return x;
  }
};

void move_predicate(warp& w, const instruction& i, u32 mask) {
  w.predicate(i.r[0]) =
      (w.predicate(i.r[0]) & ~mask) | (w.predicate(i.r[1]) & mask);
  w.define(i.r[0], mask, w.defined(i.r[1]));
}

/// r[0] = {r[1], ...}, the first of which is lowest.
template <class Whole, class Part>
void pack(warp& w, const instruction& i, u32 mask) {
  constexpr std::size_t count = sizeof(Whole) / sizeof(Part);
  Whole out[lanes] = {};
  u32 whole = all_lanes;
  for (std::size_t n = 0; n < count; ++n) {
    const Part* const from = w.at<Part>(i.r[1 + n]);
    for (unsigned l = 0; l < lanes; ++l)
      out[l] |= static_cast<Whole>(static_cast<Whole>(from[l])
                                   << 8 * sizeof(Part) * n);
    whole &= w.defined(i.r[1 + n]);
  }
  Whole* const to = w.at<Whole>(i.r[0]);
  for (auto m = mask; m != 0; m &= m - 1) {
    const auto l = static_cast<unsigned>(std::countr_zero(m));
    to[l] = out[l];
  }
  w.define(i.r[0], mask, whole);
}

/// {r[1], ...} = r[0]; slot 0 is for what nobody wants.
template <class Whole, class Part>
void unpack(warp& w, const instruction& i, u32 mask) {
  constexpr std::size_t count = sizeof(Whole) / sizeof(Part);
  Whole from[lanes];
  std::copy_n(w.at<Whole>(i.r[0]), lanes, from);
  const auto whole = w.defined(i.r[0]);
  for (std::size_t n = 0; n < count; ++n) {
    if (i.r[1 + n] == 0)
      continue;
    Part* const to = w.at<Part>(i.r[1 + n]);
    for (auto m = mask; m != 0; m &= m - 1) {
      const auto l = static_cast<unsigned>(std::countr_zero(m));
      to[l] = static_cast<Part>(from[l] >> 8 * sizeof(Part) * n);
    }
    w.define(i.r[1 + n], mask, whole);
  }
}

void read_parts(statement& s, const type& t, bool packs) {
  const auto& parts = s.operands[packs ? 1 : 0].parts;
  const auto bytes =
      parts.empty() ? 0u : t.bytes / static_cast<unsigned>(parts.size());
  if (t.bytes == 4 && bytes == 2)
    s.out.run = packs ? pack<u32, u16> : unpack<u32, u16>;
  else if (t.bytes == 8 && bytes == 4)
    s.out.run = packs ? pack<u64, u32> : unpack<u64, u32>;
  else if (t.bytes == 8 && bytes == 2)
    s.out.run = packs ? pack<u64, u16> : unpack<u64, u16>;
  if (t.what != kind::bits || s.out.run == nullptr)
    wrong(s);
  s.out.r[0] = packs ? s.destination(0, t.bytes) : s.source(1, t.bytes);
  for (std::size_t n = 0; n < parts.size(); ++n)
    if (packs)
      s.out.r[1 + n] = s.source(parts[n], bytes);
    else if (parts[n].what != operand::kind::sink)
      s.out.r[1 + n] = s.destination(parts[n], bytes);
}

void read_mov(statement& s) {
  const auto t = s.expect_type();
  s.has(2);
  if (t.what == kind::predicate) {
    s.out.run = move_predicate;
    s.out.r[0] = s.destination(0, 0);
    s.out.r[1] = s.predicate(s.operands[1]);
    return;
  }
  const bool packs = s.operands[1].what == operand::kind::vector;
  if (packs || s.operands[0].what == operand::kind::vector) {
    read_parts(s, t, packs);
    return;
  }
  s.out.run = t.bytes == 2   ? lanewise<moved, u16, u16>::run
              : t.bytes == 4 ? lanewise<moved, u32, u32>::run
              : t.bytes == 8 ? lanewise<moved, u64, u64>::run
                             : nullptr;
  if (s.out.run == nullptr || t.is_pair)
    wrong(s);
  s.out.r[0] = s.destination(0, t.bytes);
  s.out.r[1] = s.source(1, t.bytes);
}

struct sum {
  u64 operator()(u64 a, u64 b) const {
    return a + b;
  }
};

/// From a space's addresses to those of the whole, or back.
void read_cvta(statement& s) {
  constexpr std::pair<std::string_view, u64> windows[] = {
      {"global", 0},
      {"const", 0},
      {"shared", shared_window},
      {"local", local_window},
      {"param", parameter_window}};
  const bool back = s.parts.take("to");
  const auto window = s.parts.take_one(std::span{windows});
  if (!window)
    s.fail("there should be a space");
  const auto t = s.expect_type();
  if (!t.is(kind::natural, 8))
    wrong(s);
  s.has(2);
  s.out.run = lanewise<sum, u64, u64, u64>::run;
  s.out.r[0] = s.destination(0, 8);
  s.out.r[1] = s.source(1, 8);
  s.out.r[2] = s.number(back ? ~*window + 1 : *window, 8);
}

} // namespace

bool decode_conversion(statement& s) {
  if (s.name == "cvt")
    read_cvt(s);
  else if (s.name == "mov")
    read_mov(s);
  else if (s.name == "cvta")
    read_cvta(s);
  else
    return false;
  return true;
}

} // namespace troupe::ptx
