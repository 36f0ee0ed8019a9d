#include "tests/ptx/decode.hpp"
#include "tests/ptx/lanewise.hpp"
#include "tests/ptx/numbers.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <type_traits>

namespace troupe::ptx {

namespace {

using kind = type::kind;

template <class T>
using natural_of = std::make_unsigned_t<T>;
/// Of twice the size.
template <class T>
using wide_of = std::conditional_t<
    sizeof(T) == 2, std::conditional_t<std::is_signed_v<T>, s32, u32>,
    std::conditional_t<
        sizeof(T) == 4, std::conditional_t<std::is_signed_v<T>, s64, u64>,
        std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>>>;

template <class T>
T flush(T x, bool does) {
  if constexpr (std::is_same_v<T, float>)
    return does ? flushed(x) : x;
  else
    return x;
}

// -- what is done -------------------------------------------------------------
// Of integers, which wrap around, and of floats.

struct add {
  template <class T>
  T operator()(T a, T b) const {
    if constexpr (std::is_integral_v<T>)
      return static_cast<T>(static_cast<natural_of<T>>(a) +
                            static_cast<natural_of<T>>(b));
    else
      return canonical(a + b);
  }
};
struct sub {
  template <class T>
  T operator()(T a, T b) const {
    if constexpr (std::is_integral_v<T>)
      return static_cast<T>(static_cast<natural_of<T>>(a) -
                            static_cast<natural_of<T>>(b));
    else
      return canonical(a - b);
  }
};
template <class T>
T product_low(T a, T b) {
  // Not as int, which u16 would become and overflow.
  return static_cast<T>(static_cast<u64>(a) * static_cast<u64>(b));
}
struct mul {
  template <class T>
  T operator()(T a, T b) const {
    if constexpr (std::is_integral_v<T>)
      return product_low(a, b);
    else
      return canonical(a * b);
  }
};
struct mul_high {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(static_cast<wide_of<T>>(a) *
                              static_cast<wide_of<T>>(b) >>
                          8 * sizeof(T));
  }
};
struct mul_wide {
  template <class T>
  wide_of<T> operator()(T a, T b) const {
    return static_cast<wide_of<T>>(a) * static_cast<wide_of<T>>(b);
  }
};
struct mad {
  template <class T>
  T operator()(T a, T b, T c) const {
    return add{}(product_low(a, b), c);
  }
};
struct mad_high {
  template <class T>
  T operator()(T a, T b, T c) const {
    return add{}(mul_high{}(a, b), c);
  }
};
struct mad_wide {
  template <class T, class W>
  W operator()(T a, T b, W c) const {
    return add{}(mul_wide{}(a, b), c);
  }
};
struct fma {
  template <class T>
  T operator()(T a, T b, T c) const {
    return canonical(std::fma(a, b, c));
  }
};
#if defined(__x86_64__)
/// As fma does it, eight lanes at once.
__attribute__((target("avx2,fma"))) void
fma_of_all(float* to, const float* a, const float* b, const float* c) {
#pragma GCC ivdep
  for (unsigned l = 0; l < lanes; ++l)
    to[l] = canonical(__builtin_fmaf(a[l], b[l], c[l]));
}

void fma_at_once(warp& w, const instruction& i, u32 mask) {
  if (mask != all_lanes) {
    lanewise<fma, float, float, float, float>::run(w, i, mask);
    return;
  }
  fma_of_all(w.at<float>(i.r[0]), w.at<float>(i.r[1]), w.at<float>(i.r[2]),
             w.at<float>(i.r[3]));
  w.define(i.r[0], mask,
           w.defined(i.r[1]) & w.defined(i.r[2]) & w.defined(i.r[3]));
}

handler fastest_fma() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")
             ? fma_at_once
             : lanewise<fma, float, float, float, float>::run;
}
#else
handler fastest_fma() {
  return lanewise<fma, float, float, float, float>::run;
}
#endif

/// Rounded down.
struct fma_down {
  float operator()(float a, float b, float c) const {
    // The product is exact, the sum is or is odd.
    const double exact = sum_to_odd(double{a} * double{b}, double{c});
    const auto nearest = static_cast<float>(exact);
    if (static_cast<double>(nearest) > exact)
      return std::nextafter(nearest, -std::numeric_limits<float>::infinity());
    // An exact 0 of unlike signs is -0.
    if (exact == 0 && (double{a} * double{b} != 0 || c != 0 ||
                       std::signbit(double{a} * double{b}) != std::signbit(c)))
      return -0.0f;
    return canonical(nearest);
  }
};
/// By zero: all bits, as GPUs have it (the ISA leaves it open).
struct quotient {
  template <class T>
  T operator()(T a, T b) const {
    if constexpr (std::is_integral_v<T>) {
      if (b == 0)
        return static_cast<T>(-1);
      if (std::is_signed_v<T> && b == static_cast<T>(-1))
        return sub{}(T{0}, a);
      return static_cast<T>(a / b);
    } else {
      return canonical(a / b);
    }
  }
};
struct remainder {
  template <class T>
  T operator()(T a, T b) const {
    if (b == 0)
      return a;
    if (std::is_signed_v<T> && b == static_cast<T>(-1))
      return 0;
    return static_cast<T>(a % b);
  }
};
struct absolute {
  template <class T>
  T operator()(T a) const {
    if constexpr (std::is_integral_v<T>)
      return a < 0 ? sub{}(T{0}, a) : a;
    else
      return std::abs(a);
  }
};
struct negated {
  template <class T>
  T operator()(T a) const {
    if constexpr (std::is_integral_v<T>)
      return sub{}(T{0}, a);
    else
      return -a;
  }
};
struct minimum {
  template <class T>
  T operator()(T a, T b) const {
    if constexpr (std::is_integral_v<T>)
      return std::min(a, b);
    else
      return least(a, b);
  }
};
struct maximum {
  template <class T>
  T operator()(T a, T b) const {
    if constexpr (std::is_integral_v<T>)
      return std::max(a, b);
    else
      return greatest(a, b);
  }
};
struct minimum_or_nan {
  template <class T>
  T operator()(T a, T b) const {
    return a != a || b != b ? canonical(a + b) : least(a, b);
  }
};
struct maximum_or_nan {
  template <class T>
  T operator()(T a, T b) const {
    return a != a || b != b ? canonical(a + b) : greatest(a, b);
  }
};

struct bits_and {
  template <class T>
  T operator()(T a, T b) const {
    return a & b;
  }
};
struct bits_or {
  template <class T>
  T operator()(T a, T b) const {
    return a | b;
  }
};
struct bits_xor {
  template <class T>
  T operator()(T a, T b) const {
    return a ^ b;
  }
};
struct bits_not {
  template <class T>
  T operator()(T a) const {
    return static_cast<T>(~a);
  }
};
/// By more than there are: as by as many.
struct shift_left {
  template <class T>
  T operator()(T a, u32 by) const {
    constexpr u32 all = 8 * sizeof(T);
    return by < all ? static_cast<T>(static_cast<u64>(a) << by) : T{0};
  }
};
struct shift_right {
  template <class T>
  T operator()(T a, u32 by) const {
    constexpr u32 all = 8 * sizeof(T);
    if (by < all)
      return static_cast<T>(a >> by);
    return a < 0 ? static_cast<T>(-1) : T{0};
  }
};
struct funnel_left_wrap {
  u32 operator()(u32 low, u32 high, u32 by) const {
    by &= 31;
    return static_cast<u32>((u64{high} << 32 | low) << by >> 32);
  }
};
struct funnel_right_wrap {
  u32 operator()(u32 low, u32 high, u32 by) const {
    return static_cast<u32>((u64{high} << 32 | low) >> (by & 31));
  }
};
struct funnel_left_clamp {
  u32 operator()(u32 low, u32 high, u32 by) const {
    return static_cast<u32>((u64{high} << 32 | low) << std::min(by, 32u) >> 32);
  }
};
struct funnel_right_clamp {
  u32 operator()(u32 low, u32 high, u32 by) const {
    return static_cast<u32>((u64{high} << 32 | low) >> std::min(by, 32u));
  }
};
struct permuted {
  u32 operator()(u32 a, u32 b, u32 how) const {
    const u64 from = u64{b} << 32 | a;
    u32 out = 0;
    for (u32 n = 0; n < 4; ++n) {
      const u32 one = how >> 4 * n & 15;
      u32 byte = static_cast<u32>(from >> 8 * (one & 7)) & 0xff;
      if ((one & 8) != 0) // its sign, eight times
        byte = (byte & 0x80) != 0 ? 0xff : 0;
      out |= byte << 8 * n;
    }
    return out;
  }
};
struct extracted {
  template <class T>
  T operator()(T a, u32 begin, u32 count) const {
    constexpr u32 most = 8 * sizeof(T) - 1;
    begin &= 0xff;
    count &= 0xff;
    if (count == 0)
      return 0;
    natural_of<T> out = 0;
    const u32 sign_at = std::min(begin + count - 1, most);
    const bool sign = std::is_signed_v<T> &&
                      (static_cast<natural_of<T>>(a) >> sign_at & 1) != 0;
    for (u32 n = 0; n <= most; ++n) {
      const bool bit =
          n < count && begin + n <= most
              ? (static_cast<natural_of<T>>(a) >> (begin + n) & 1) != 0
              : sign;
      out |= static_cast<natural_of<T>>(bit) << n;
    }
    return static_cast<T>(out);
  }
};
struct inserted {
  template <class T>
  T operator()(T a, T into, u32 begin, u32 count) const {
    begin &= 0xff;
    count &= 0xff;
    for (u32 n = 0; n < count && begin + n < 8 * sizeof(T); ++n) {
      const T bit = T{1} << (begin + n);
      into = (a >> n & 1) != 0 ? into | bit : into & ~bit;
    }
    return into;
  }
};
struct bits_set {
  template <class T>
  u32 operator()(T a) const {
    return static_cast<u32>(std::popcount(a));
  }
};
struct leading_zeros {
  template <class T>
  u32 operator()(T a) const {
    return static_cast<u32>(std::countl_zero(a));
  }
};
/// Where the most significant one is that is no sign; none: all bits.
struct most_significant {
  template <class T>
  u32 operator()(T a) const {
    const auto bits = static_cast<natural_of<T>>(a < 0 ? ~a : a);
    return bits == 0 ? 0xffffffffu : static_cast<u32>(std::bit_width(bits)) - 1;
  }
};
struct reversed {
  template <class T>
  T operator()(T a) const {
    T out = 0;
    for (u32 n = 0; n < 8 * sizeof(T); ++n)
      out |= (a >> n & 1) << (8 * sizeof(T) - 1 - n);
    return out;
  }
};
/// Any function of three bits.
struct lookup {
  u32 operator()(u32 a, u32 b, u32 c, u32 table) const {
    u32 out = 0;
    for (u32 n = 0; n < 8; ++n)
      if ((table >> n & 1) != 0)
        out |= ((n & 4) != 0 ? a : ~a) & ((n & 2) != 0 ? b : ~b) &
               ((n & 1) != 0 ? c : ~c);
    return out;
  }
};

struct square_root {
  template <class T>
  T operator()(T a) const {
    return canonical(std::sqrt(a));
  }
};
struct reciprocal {
  template <class T>
  T operator()(T a) const {
    return canonical(T{1} / a);
  }
};
struct reciprocal_root {
  float operator()(float a) const {
    return canonical(static_cast<float>(1.0 / std::sqrt(double{a})));
  }
};
struct power_of_2 {
  float operator()(float a) const {
    return canonical(static_cast<float>(std::exp2(double{a})));
  }
};
struct logarithm {
  float operator()(float a) const {
    return canonical(static_cast<float>(std::log2(double{a})));
  }
};
struct sine {
  float operator()(float a) const {
    return canonical(static_cast<float>(std::sin(double{a})));
  }
};
struct cosine {
  float operator()(float a) const {
    return canonical(static_cast<float>(std::cos(double{a})));
  }
};
struct hyperbolic_tangent {
  float operator()(float a) const {
    return canonical(static_cast<float>(std::tanh(double{a})));
  }
};
/// The sign of a with the magnitude of b.
struct with_sign {
  template <class T>
  T operator()(T a, T b) const {
    return std::copysign(b, a);
  }
};

/// F with subnormal numbers as 0, before and after.
template <class F>
struct flushing {
  template <class... T>
  auto operator()(T... x) const {
    return flush(F{}(flush(x, true)...), true);
  }
};
// -- of f16 and bf16, one or two to a register --------------------------------

template <bool Brain>
float widened(u16 x) {
  return Brain ? float_of_bf16(x) : float_of_f16(x);
}
template <bool Brain>
u16 narrowed(float x) {
  return Brain ? bf16_of(x) : f16_of(x);
}

/// Exact in double, or odd (numbers.hpp), and then rounded.
struct small_add {
  double operator()(double a, double b) const {
    return sum_to_odd(a, b);
  }
};
struct small_sub {
  double operator()(double a, double b) const {
    return sum_to_odd(a, -b);
  }
};
struct small_mul {
  double operator()(double a, double b) const {
    return a * b;
  }
};
struct small_fma {
  double operator()(double a, double b, double c) const {
    return sum_to_odd(a * b, c);
  }
};
template <class F, bool Brain>
struct small {
  template <class... S>
  u16 one(S... x) const {
    return narrowed<Brain>(
        float_to_odd(F{}(static_cast<double>(widened<Brain>(x))...)));
  }
  template <class T, class... S>
  T operator()(T x, S... more) const {
    if constexpr (sizeof(T) == 2)
      return one(x, more...);
    else
      return u32{one(static_cast<u16>(x), static_cast<u16>(more)...)} |
             u32{one(static_cast<u16>(x >> 16),
                     static_cast<u16>(more >> 16)...)}
                 << 16;
  }
};
/// Of the signs alone.
struct small_negated {
  template <class T>
  T operator()(T x) const {
    return static_cast<T>(x ^ static_cast<T>(0x80008000u));
  }
};
struct small_absolute {
  template <class T>
  T operator()(T x) const {
    return static_cast<T>(x & static_cast<T>(0x7fff7fffu));
  }
};

// -- which handler ------------------------------------------------------------

template <class F, class T, std::size_t... N>
handler same(std::index_sequence<N...>) {
  return lanewise<F, T, std::enable_if_t<(N >= 0), T>...>::run;
}
/// F of `Count` numbers of type T.
template <class F, std::size_t Count, class T>
handler same() {
  return same<F, T>(std::make_index_sequence<Count>{});
}

template <class F, std::size_t Count>
handler of_integers(const type& t) {
  const bool is_signed = t.what == kind::integer;
  switch (t.bytes) {
  case 2:
    return is_signed ? same<F, Count, s16>() : same<F, Count, u16>();
  case 4:
    return is_signed ? same<F, Count, s32>() : same<F, Count, u32>();
  case 8:
    return is_signed ? same<F, Count, s64>() : same<F, Count, u64>();
  default:
    return nullptr;
  }
}

template <class F, std::size_t Count>
handler of_bits(const type& t) {
  switch (t.bytes) {
  case 2:
    return same<F, Count, u16>();
  case 4:
    return same<F, Count, u32>();
  case 8:
    return same<F, Count, u64>();
  default:
    return nullptr;
  }
}

template <class F, std::size_t Count>
handler of_real(const type& t, bool ftz) {
  if (t.bytes == 8)
    return ftz ? nullptr : same<F, Count, double>();
  if (t.bytes != 4)
    return nullptr;
  return ftz ? same<flushing<F>, Count, float>() : same<F, Count, float>();
}

template <class F, std::size_t Count>
handler of_small(const type& t) {
  if (t.what == kind::brain)
    return t.is_pair ? same<small<F, true>, Count, u32>()
                     : same<small<F, true>, Count, u16>();
  return t.is_pair ? same<small<F, false>, Count, u32>()
                   : same<small<F, false>, Count, u16>();
}

bool is_small(const type& t) {
  return t.bytes == 2 && (t.what == kind::real || t.what == kind::brain);
}

/// Registers of the type, one result and the rest.
void take_same(statement& s, const type& t, std::size_t count) {
  s.has(count);
  s.out.r[0] = s.destination(0, t.size());
  for (std::size_t n = 1; n < count; ++n)
    s.out.r[n] = s.source(n, t.size());
}

[[noreturn]] void wrong_type(const statement& s) {
  s.fail("not with this type or these modifiers");
}

void need_handler(const statement& s) {
  if (s.out.run == nullptr)
    wrong_type(s);
}

/// add, sub, mul of floats, min, max: `Small` of f16 and bf16.
template <class F, class Small, std::size_t Count>
void read_numbers(statement& s, bool has_rounding) {
  const bool rounded = has_rounding && s.parts.take("rn");
  const bool ftz = s.parts.take("ftz");
  const auto t = s.expect_type();
  if (t.is_integer()) {
    if (rounded || ftz)
      wrong_type(s);
    s.out.run = of_integers<F, Count>(t);
  } else if (is_small(t)) {
    if (ftz)
      wrong_type(s);
    s.out.run = of_small<Small, Count>(t);
  } else if (t.what == kind::real) {
    s.out.run = of_real<F, Count>(t, ftz);
  }
  need_handler(s);
  take_same(s, t, Count + 1);
}

template <class F, class OrNan>
void read_extreme(statement& s) {
  const bool ftz = s.parts.take("ftz");
  const bool or_nan = s.parts.take("NaN");
  const auto t = s.expect_type();
  if (t.is_integer() && !ftz && !or_nan)
    s.out.run = of_integers<F, 2>(t);
  else if (t.what == kind::real && or_nan)
    s.out.run = of_real<OrNan, 2>(t, ftz);
  else if (t.what == kind::real)
    s.out.run = of_real<F, 2>(t, ftz);
  need_handler(s);
  take_same(s, t, 3);
}

template <class T>
void choose_wide(statement& s, bool with_sum) {
  if (with_sum)
    s.out.run = lanewise<mad_wide, wide_of<T>, T, T, wide_of<T>>::run;
  else
    s.out.run = lanewise<mul_wide, wide_of<T>, T, T>::run;
}

void read_integer_product(statement& s, bool with_sum) {
  const bool low = s.parts.take("lo");
  const bool high = !low && s.parts.take("hi");
  const bool wide = !low && !high && s.parts.take("wide");
  if (!low && !high && !wide)
    wrong_type(s);
  const auto t = s.expect_type();
  if (!t.is_integer())
    wrong_type(s);
  if (!wide) {
    if (with_sum)
      s.out.run = low ? of_integers<mad, 3>(t) : of_integers<mad_high, 3>(t);
    else
      s.out.run = low ? of_integers<mul, 2>(t) : of_integers<mul_high, 2>(t);
    need_handler(s);
    take_same(s, t, with_sum ? 4 : 3);
    return;
  }
  const bool is_signed = t.what == kind::integer;
  if (t.bytes == 2)
    is_signed ? choose_wide<s16>(s, with_sum) : choose_wide<u16>(s, with_sum);
  else if (t.bytes == 4)
    is_signed ? choose_wide<s32>(s, with_sum) : choose_wide<u32>(s, with_sum);
  else
    wrong_type(s);
  s.has(with_sum ? 4 : 3);
  s.out.r[0] = s.destination(0, 2 * t.bytes);
  s.out.r[1] = s.source(1, t.bytes);
  s.out.r[2] = s.source(2, t.bytes);
  if (with_sum)
    s.out.r[3] = s.source(3, 2 * t.bytes);
}

bool is_integer_product(const statement& s) {
  const auto next = s.parts.next();
  return next == "lo" || next == "hi" || next == "wide";
}

void read_fma(statement& s) {
  if (s.parts.take("rm")) {
    const auto t = s.expect_type();
    if (!t.is(kind::real, 4))
      wrong_type(s);
    s.out.run = same<fma_down, 3, float>();
    take_same(s, t, 4);
    return;
  }
  if (!s.parts.take("rn"))
    wrong_type(s);
  read_numbers<fma, small_fma, 3>(s, false);
  if (s.out.run == lanewise<fma, float, float, float, float>::run)
    s.out.run = fastest_fma();
}

void read_quotient(statement& s) {
  // Approximate ones are the best there are.
  const bool of_floats =
      s.parts.take("rn") || s.parts.take("approx") || s.parts.take("full");
  const bool ftz = s.parts.take("ftz");
  const auto t = s.expect_type();
  if (of_floats ? t.what != kind::real : ftz || !t.is_integer())
    wrong_type(s);
  s.out.run =
      of_floats ? of_real<quotient, 2>(t, ftz) : of_integers<quotient, 2>(t);
  need_handler(s);
  take_same(s, t, 3);
}

template <class F>
void read_function(statement& s, bool may_be_exact, bool must_be_exact_of_f64) {
  const bool exact = may_be_exact && s.parts.take("rn");
  if (!exact && !s.parts.take("approx"))
    wrong_type(s);
  const bool ftz = s.parts.take("ftz");
  const auto t = s.expect_type();
  if (t.what != kind::real ||
      (t.bytes == 8 && (!must_be_exact_of_f64 || !exact)))
    wrong_type(s);
  if constexpr (std::is_invocable_v<F, double> &&
                !std::is_same_v<std::invoke_result_t<F, double>, float>)
    s.out.run = of_real<F, 1>(t, ftz);
  else if (t.bytes == 4)
    s.out.run = ftz ? same<flushing<F>, 1, float>() : same<F, 1, float>();
  need_handler(s);
  take_same(s, t, 2);
}

template <class F>
void read_sign(statement& s) {
  const bool ftz = s.parts.take("ftz");
  const auto t = s.expect_type();
  if (t.what == kind::integer && !ftz)
    s.out.run = of_integers<F, 1>(t);
  else if (is_small(t) && !ftz) {
    using small_one = std::conditional_t<std::is_same_v<F, negated>,
                                         small_negated, small_absolute>;
    s.out.run =
        t.is_pair ? same<small_one, 1, u32>() : same<small_one, 1, u16>();
  } else if (t.what == kind::real)
    s.out.run = of_real<F, 1>(t, ftz);
  need_handler(s);
  take_same(s, t, 2);
}

// -- predicates ---------------------------------------------------------------

template <class F>
void predicates_2(warp& w, const instruction& i, u32 mask) {
  const u32 out = F{}(w.predicate(i.r[1]), w.predicate(i.r[2]));
  w.predicate(i.r[0]) = (w.predicate(i.r[0]) & ~mask) | (out & mask);
  w.define(i.r[0], mask, w.defined(i.r[1]) & w.defined(i.r[2]));
}

void predicate_not(warp& w, const instruction& i, u32 mask) {
  const u32 out = ~w.predicate(i.r[1]);
  w.predicate(i.r[0]) = (w.predicate(i.r[0]) & ~mask) | (out & mask);
  w.define(i.r[0], mask, w.defined(i.r[1]));
}

template <class F>
void read_bits_2(statement& s) {
  const auto t = s.expect_type();
  if (t.what == kind::predicate) {
    s.has(3);
    s.out.run = predicates_2<F>;
    s.out.r[0] = s.destination(0, 0);
    s.out.r[1] = s.predicate(s.operands[1]);
    s.out.r[2] = s.predicate(s.operands[2]);
    return;
  }
  if (t.what != kind::bits)
    wrong_type(s);
  s.out.run = of_bits<F, 2>(t);
  need_handler(s);
  take_same(s, t, 3);
}

void read_not(statement& s) {
  const auto t = s.expect_type();
  if (t.what == kind::predicate) {
    s.has(2);
    s.out.run = predicate_not;
    s.out.r[0] = s.destination(0, 0);
    s.out.r[1] = s.predicate(s.operands[1]);
    return;
  }
  if (t.what != kind::bits)
    wrong_type(s);
  s.out.run = of_bits<bits_not, 1>(t);
  need_handler(s);
  take_same(s, t, 2);
}

// -- comparisons --------------------------------------------------------------

template <class F, bool OrNan>
struct compare {
  template <class T>
  bool operator()(T a, T b) const {
    if constexpr (std::is_floating_point_v<T>)
      if (OrNan && (a != a || b != b))
        return true;
    return F{}(a, b);
  }
};
// C++'s own are false where one is no number, but for !=.
struct equal {
  template <class T>
  bool operator()(T a, T b) const {
    return a == b;
  }
};
struct different {
  template <class T>
  bool operator()(T a, T b) const {
    return a < b || a > b;
  }
};
struct less {
  template <class T>
  bool operator()(T a, T b) const {
    return a < b;
  }
};
struct less_or_equal {
  template <class T>
  bool operator()(T a, T b) const {
    return a <= b;
  }
};
struct greater {
  template <class T>
  bool operator()(T a, T b) const {
    return a > b;
  }
};
struct greater_or_equal {
  template <class T>
  bool operator()(T a, T b) const {
    return a >= b;
  }
};
struct both_numbers {
  template <class T>
  bool operator()(T a, T b) const {
    return a == a && b == b;
  }
};
struct one_is_nan {
  template <class T>
  bool operator()(T a, T b) const {
    return !(a == a && b == b);
  }
};
template <class F, bool Brain>
struct small_compare {
  bool operator()(u16 a, u16 b) const {
    return F{}(widened<Brain>(a), widened<Brain>(b));
  }
};
template <class F>
struct flushing_compare {
  bool operator()(float a, float b) const {
    return F{}(flushed(a), flushed(b));
  }
};

enum class join : u8 { none, is_and, is_or, is_xor };

/// r: p, q (0: none), a, b, c (0: none); mode: a join, 4: c is negated.
template <class F, class T>
void set_predicate(warp& w, const instruction& i, u32 mask) {
  u32 yes = compared<F>(w.at<T>(i.r[2]), w.at<T>(i.r[3]), mask);
  u32 no = ~yes;
  u32 whole = w.defined(i.r[2]) & w.defined(i.r[3]);
  if (i.r[4] != 0) {
    const u32 c =
        (i.mode & 4) != 0 ? ~w.predicate(i.r[4]) : w.predicate(i.r[4]);
    whole &= w.defined(i.r[4]);
    switch (static_cast<join>(i.mode & 3)) {
    case join::is_and:
      yes &= c;
      no &= c;
      break;
    case join::is_or:
      yes |= c;
      no |= c;
      break;
    default:
      yes ^= c;
      no ^= c;
    }
  }
  const auto set = [&](u32 slot, u32 to) {
    w.predicate(slot) = (w.predicate(slot) & ~mask) | (to & mask);
    w.define(slot, mask, whole);
  };
  if (i.r[0] != 0)
    set(i.r[0], yes);
  if (i.r[1] != 0)
    set(i.r[1], no);
}

template <class F>
handler comparison(const type& t, bool ftz) {
  if (ftz)
    return t.is(kind::real, 4) ? set_predicate<flushing_compare<F>, float>
                               : nullptr;
  if (t.what == kind::real && !t.is_pair) {
    if (t.bytes == 4)
      return set_predicate<F, float>;
    if (t.bytes == 8)
      return set_predicate<F, double>;
    return set_predicate<small_compare<F, false>, u16>;
  }
  if (t.is(kind::brain, 2))
    return set_predicate<small_compare<F, true>, u16>;
  if (!t.is_integer())
    return nullptr;
  const bool is_signed = t.what == kind::integer;
  switch (t.bytes) {
  case 2:
    return is_signed ? set_predicate<F, s16> : set_predicate<F, u16>;
  case 4:
    return is_signed ? set_predicate<F, s32> : set_predicate<F, u32>;
  case 8:
    return is_signed ? set_predicate<F, s64> : set_predicate<F, u64>;
  default:
    return nullptr;
  }
}

handler comparison_named(std::string_view name, const type& t, bool ftz) {
  const bool is_float = !t.is_integer();
  const auto plain = [&]<class F>(F) {
    return comparison<compare<F, false>>(t, ftz);
  };
  const auto or_nan = [&]<class F>(F) -> handler {
    return is_float ? comparison<compare<F, true>>(t, ftz) : nullptr;
  };
  if (name == "eq")
    return plain(equal{});
  if (name == "ne")
    return plain(different{});
  if (t.what != kind::bits) {
    if (name == "lt" || (name == "lo" && t.what == kind::natural))
      return plain(less{});
    if (name == "le" || (name == "ls" && t.what == kind::natural))
      return plain(less_or_equal{});
    if (name == "gt" || (name == "hi" && t.what == kind::natural))
      return plain(greater{});
    if (name == "ge" || (name == "hs" && t.what == kind::natural))
      return plain(greater_or_equal{});
  }
  if (name == "equ")
    return or_nan(equal{});
  if (name == "neu")
    return or_nan(different{});
  if (name == "ltu")
    return or_nan(less{});
  if (name == "leu")
    return or_nan(less_or_equal{});
  if (name == "gtu")
    return or_nan(greater{});
  if (name == "geu")
    return or_nan(greater_or_equal{});
  if (name == "num" && is_float)
    return plain(both_numbers{});
  if (name == "nan" && is_float)
    return plain(one_is_nan{});
  return nullptr;
}

void read_setp(statement& s) {
  const auto name = s.parts.next();
  s.parts.take(name);
  auto with = join::none;
  if (s.parts.take("and"))
    with = join::is_and;
  else if (s.parts.take("or"))
    with = join::is_or;
  else if (s.parts.take("xor"))
    with = join::is_xor;
  const bool ftz = s.parts.take("ftz");
  const auto t = s.expect_type();
  s.out.run = comparison_named(name, t, ftz);
  need_handler(s);
  s.has(with == join::none ? 3 : 4);
  const auto result = [&](const operand& to) -> u32 {
    return to.what == operand::kind::sink ? 0 : s.destination(to, 0);
  };
  if (s.operands[0].what == operand::kind::pair) {
    s.out.r[0] = result(s.operands[0].parts[0]);
    s.out.r[1] = result(s.operands[0].parts[1]);
  } else {
    s.out.r[0] = s.destination(0, 0);
  }
  s.out.r[2] = s.source(1, t.size());
  s.out.r[3] = s.source(2, t.size());
  if (with != join::none) {
    auto c = s.operands[3];
    s.out.mode = static_cast<u8>(static_cast<u8>(with) | (c.is_not ? 4 : 0));
    c.is_not = false;
    s.out.r[4] = s.predicate(c);
  }
}

/// r: to, a, b, which of them.
template <class T>
void select(warp& w, const instruction& i, u32 mask) {
  T* const to = w.at<T>(i.r[0]);
  const T* const a = w.at<T>(i.r[1]);
  const T* const b = w.at<T>(i.r[2]);
  const u32 p = w.predicate(i.r[3]);
  if (mask == all_lanes) {
#pragma GCC ivdep
    for (unsigned l = 0; l < lanes; ++l)
      to[l] = (p >> l & 1) != 0 ? a[l] : b[l];
  } else {
    for (auto m = mask; m != 0; m &= m - 1) {
      const auto l = static_cast<unsigned>(std::countr_zero(m));
      to[l] = (p >> l & 1) != 0 ? a[l] : b[l];
    }
  }
  w.define(i.r[0], mask,
           w.defined(i.r[3]) &
               ((w.defined(i.r[1]) & p) | (w.defined(i.r[2]) & ~p)));
}

void select_predicate(warp& w, const instruction& i, u32 mask) {
  const u32 p = w.predicate(i.r[3]);
  const u32 out = (w.predicate(i.r[1]) & p) | (w.predicate(i.r[2]) & ~p);
  w.predicate(i.r[0]) = (w.predicate(i.r[0]) & ~mask) | (out & mask);
  w.define(i.r[0], mask,
           w.defined(i.r[3]) &
               ((w.defined(i.r[1]) & p) | (w.defined(i.r[2]) & ~p)));
}

void read_selp(statement& s) {
  const auto t = s.expect_type();
  s.has(4);
  if (t.what == kind::predicate) {
    s.out.run = select_predicate;
    s.out.r[0] = s.destination(0, 0);
    s.out.r[1] = s.predicate(s.operands[1]);
    s.out.r[2] = s.predicate(s.operands[2]);
  } else {
    s.out.run = t.size() == 2   ? select<u16>
                : t.size() == 4 ? select<u32>
                : t.size() == 8 ? select<u64>
                                : nullptr;
    need_handler(s);
    s.out.r[0] = s.destination(0, t.size());
    s.out.r[1] = s.source(1, t.size());
    s.out.r[2] = s.source(2, t.size());
  }
  s.out.r[3] = s.predicate(s.operands[3]);
}

// -- bits ---------------------------------------------------------------------

template <class F, class... T>
handler shift_of(unsigned bytes) {
  handler out = nullptr;
  ((sizeof(T) == bytes ? (out = lanewise<F, T, T, u32>::run) : nullptr), ...);
  return out;
}

void read_shift(statement& s, bool left) {
  const auto t = s.expect_type();
  if (!t.is_integer() || (left && t.what != kind::bits))
    wrong_type(s);
  if (left)
    s.out.run = shift_of<shift_left, u16, u32, u64>(t.bytes);
  else if (t.what == kind::integer)
    s.out.run = shift_of<shift_right, s16, s32, s64>(t.bytes);
  else
    s.out.run = shift_of<shift_right, u16, u32, u64>(t.bytes);
  need_handler(s);
  s.has(3);
  s.out.r[0] = s.destination(0, t.bytes);
  s.out.r[1] = s.source(1, t.bytes);
  s.out.r[2] = s.source(2, 4);
}

void read_funnel(statement& s) {
  const bool left = s.parts.take("l");
  if (!left && !s.parts.take("r"))
    wrong_type(s);
  const bool wraps = s.parts.take("wrap");
  if (!wraps && !s.parts.take("clamp"))
    wrong_type(s);
  const auto t = s.expect_type();
  if (!t.is(kind::bits, 4))
    wrong_type(s);
  if (left)
    s.out.run = wraps ? same<funnel_left_wrap, 3, u32>()
                      : same<funnel_left_clamp, 3, u32>();
  else
    s.out.run = wraps ? same<funnel_right_wrap, 3, u32>()
                      : same<funnel_right_clamp, 3, u32>();
  take_same(s, t, 4);
}

void read_extract(statement& s) {
  const auto t = s.expect_type();
  if (t.is(kind::natural, 4))
    s.out.run = lanewise<extracted, u32, u32, u32, u32>::run;
  else if (t.is(kind::integer, 4))
    s.out.run = lanewise<extracted, s32, s32, u32, u32>::run;
  else if (t.is(kind::natural, 8))
    s.out.run = lanewise<extracted, u64, u64, u32, u32>::run;
  else if (t.is(kind::integer, 8))
    s.out.run = lanewise<extracted, s64, s64, u32, u32>::run;
  need_handler(s);
  s.has(4);
  s.out.r[0] = s.destination(0, t.bytes);
  s.out.r[1] = s.source(1, t.bytes);
  s.out.r[2] = s.source(2, 4);
  s.out.r[3] = s.source(3, 4);
}

void read_insert(statement& s) {
  const auto t = s.expect_type();
  if (t.is(kind::bits, 4))
    s.out.run = lanewise<inserted, u32, u32, u32, u32, u32>::run;
  else if (t.is(kind::bits, 8))
    s.out.run = lanewise<inserted, u64, u64, u64, u32, u32>::run;
  need_handler(s);
  s.has(5);
  s.out.r[0] = s.destination(0, t.bytes);
  s.out.r[1] = s.source(1, t.bytes);
  s.out.r[2] = s.source(2, t.bytes);
  s.out.r[3] = s.source(3, 4);
  s.out.r[4] = s.source(4, 4);
}

template <class F, class A, class B>
void read_count(statement& s) {
  const auto t = s.expect_type();
  if (t.bytes == 4)
    s.out.run = lanewise<F, u32, A>::run;
  else if (t.bytes == 8)
    s.out.run = lanewise<F, u32, B>::run;
  if (!t.is_integer())
    wrong_type(s);
  need_handler(s);
  s.has(2);
  s.out.r[0] = s.destination(0, 4);
  s.out.r[1] = s.source(1, t.bytes);
}

void read_find(statement& s) {
  const auto what = s.parts.next();
  if (what == "s32" || what == "s64")
    read_count<most_significant, s32, s64>(s);
  else
    read_count<most_significant, u32, u64>(s);
}

void read_reverse(statement& s) {
  const auto t = s.expect_type();
  s.out.run = t.is(kind::bits, 4)   ? same<reversed, 1, u32>()
              : t.is(kind::bits, 8) ? same<reversed, 1, u64>()
                                    : nullptr;
  need_handler(s);
  take_same(s, t, 2);
}

void read_words(statement& s, handler run, std::size_t sources) {
  const auto t = s.expect_type();
  if (!t.is(kind::bits, 4))
    wrong_type(s);
  s.out.run = run;
  take_same(s, t, sources + 1);
}

void read_copysign(statement& s) {
  const auto t = s.expect_type();
  if (t.what == kind::real)
    s.out.run = of_real<with_sign, 2>(t, false);
  need_handler(s);
  take_same(s, t, 3);
}

void read_remainder(statement& s) {
  const auto t = s.expect_type();
  if (t.is_integer())
    s.out.run = of_integers<remainder, 2>(t);
  need_handler(s);
  take_same(s, t, 3);
}

} // namespace

bool decode_arithmetic(statement& s) {
  const auto name = s.name;
  if (name == "add")
    read_numbers<add, small_add, 2>(s, true);
  else if (name == "sub")
    read_numbers<sub, small_sub, 2>(s, true);
  else if (name == "mul" && is_integer_product(s))
    read_integer_product(s, false);
  else if (name == "mul")
    read_numbers<mul, small_mul, 2>(s, true);
  else if (name == "mad" && is_integer_product(s))
    read_integer_product(s, true);
  else if (name == "fma" || name == "mad")
    read_fma(s);
  else if (name == "div")
    read_quotient(s);
  else if (name == "rem")
    read_remainder(s);
  else if (name == "min")
    read_extreme<minimum, minimum_or_nan>(s);
  else if (name == "max")
    read_extreme<maximum, maximum_or_nan>(s);
  else if (name == "neg")
    read_sign<negated>(s);
  else if (name == "abs")
    read_sign<absolute>(s);
  else if (name == "copysign")
    read_copysign(s);
  else if (name == "sqrt")
    read_function<square_root>(s, true, true);
  else if (name == "rcp")
    read_function<reciprocal>(s, true, true);
  else if (name == "rsqrt")
    read_function<reciprocal_root>(s, false, false);
  else if (name == "lg2")
    read_function<logarithm>(s, false, false);
  else if (name == "sin")
    read_function<sine>(s, false, false);
  else if (name == "cos")
    read_function<cosine>(s, false, false);
  else if (name == "ex2")
    read_function<power_of_2>(s, false, false);
  else if (name == "tanh")
    read_function<hyperbolic_tangent>(s, false, false);
  else if (name == "and")
    read_bits_2<bits_and>(s);
  else if (name == "or")
    read_bits_2<bits_or>(s);
  else if (name == "xor")
    read_bits_2<bits_xor>(s);
  else if (name == "not")
    read_not(s);
  else if (name == "setp")
    read_setp(s);
  else if (name == "selp")
    read_selp(s);
  else if (name == "shl")
    read_shift(s, true);
  else if (name == "shr")
    read_shift(s, false);
  else if (name == "shf")
    read_funnel(s);
  else if (name == "prmt")
    read_words(s, same<permuted, 3, u32>(), 3);
  else if (name == "lop3")
    read_words(s, same<lookup, 4, u32>(), 4);
  else if (name == "bfe")
    read_extract(s);
  else if (name == "bfi")
    read_insert(s);
  else if (name == "popc")
    read_count<bits_set, u32, u64>(s);
  else if (name == "clz")
    read_count<leading_zeros, u32, u64>(s);
  else if (name == "bfind")
    read_find(s);
  else if (name == "brev")
    read_reverse(s);
  else
    return false;
  return true;
}

} // namespace troupe::ptx
