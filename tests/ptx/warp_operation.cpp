#include "tests/ptx/decode.hpp"
#include "tests/ptx/lanewise.hpp"
#include "tests/ptx/numbers.hpp"

#include <algorithm>
#include <atomic>

namespace troupe::ptx {

namespace {

using kind = type::kind;

[[noreturn]] void wrong(const statement& s) {
  s.fail("not with this type or these modifiers");
}

/// Whether the lanes that are named together in r[slot] are all here; if not
/// those of `mask` wait. Lanes may be of several groups.
bool meet(warp& w, const instruction& i, u32 mask, std::size_t slot) {
  w.need(i, mask, i.r[slot]);
  const u32* const named = w.at<u32>(i.r[slot]);
  if (mask == all_lanes &&
      std::all_of(named, named + lanes, [](u32 m) { return m == all_lanes; }))
    return true;
  u32 wanted = 0;
  for_each_lane(mask, [&](unsigned l) {
    if ((named[l] >> l & 1) == 0)
      w.fail(i, l, "the lane is not of its own mask");
    wanted |= named[l];
  });
  if (!w.meet(i, mask, wanted))
    return false;
  for_each_lane(mask, [&](unsigned l) {
    for_each_lane(named[l], [&](unsigned other) {
      if (named[other] != named[l])
        w.fail(i, l, "lanes of one mask have different ones");
    });
  });
  return true;
}

// -- shuffles -----------------------------------------------------------------
// r: to, whether it is in range (0: nobody asks), a, b, c, mask of members.

enum class shuffle : std::uint8_t { up, down, bfly, idx };

template <shuffle How>
void shuffled(warp& w, const instruction& i, u32 mask) {
  if (!meet(w, i, mask, 5))
    return;
  for (const auto slot : {2, 3, 4})
    w.need(i, mask, i.r[slot]);
  const u32* const named = w.at<u32>(i.r[5]);
  const u32* const a = w.at<u32>(i.r[2]);
  u32 out[lanes];
  u32 in_range = 0;
  for_each_lane(mask, [&](unsigned l) {
    const u32 b = w.at<u32>(i.r[3])[l] & 31;
    const u32 c = w.at<u32>(i.r[4])[l];
    const u32 segment = c >> 8 & 31;
    const u32 most = (l & segment) | (c & 31 & ~segment);
    const u32 least = l & segment;
    int from;
    bool is_in_range;
    if constexpr (How == shuffle::up) {
      from = static_cast<int>(l) - static_cast<int>(b);
      is_in_range = from >= static_cast<int>(most);
    } else {
      from = static_cast<int>(How == shuffle::down   ? l + b
                              : How == shuffle::bfly ? l ^ b
                                                     : least | (b & ~segment));
      is_in_range = from <= static_cast<int>(most);
    }
    if (is_in_range)
      in_range |= u32{1} << l;
    else
      from = static_cast<int>(l);
    if ((named[l] >> from & 1) == 0)
      w.fail(i, l,
             "it asks lane " + std::to_string(from) +
                 ", which is not of the mask");
    out[l] = a[from];
  });
  u32* const to = w.at<u32>(i.r[0]);
  for_each_lane(mask, [&](unsigned l) { to[l] = out[l]; });
  w.define(i.r[0], mask, all_lanes);
  if (i.r[1] != 0) {
    w.predicate(i.r[1]) = (w.predicate(i.r[1]) & ~mask) | (in_range & mask);
    w.define(i.r[1], mask, all_lanes);
  }
}

void read_shuffle(statement& s) {
  if (!s.parts.take("sync"))
    wrong(s);
  if (s.parts.take("up"))
    s.out.run = shuffled<shuffle::up>;
  else if (s.parts.take("down"))
    s.out.run = shuffled<shuffle::down>;
  else if (s.parts.take("bfly"))
    s.out.run = shuffled<shuffle::bfly>;
  else if (s.parts.take("idx"))
    s.out.run = shuffled<shuffle::idx>;
  else
    wrong(s);
  if (!s.expect_type().is(kind::bits, 4))
    wrong(s);
  s.has(5);
  if (s.operands[0].what == operand::kind::pair) {
    s.out.r[0] = s.destination(s.operands[0].parts[0], 4);
    s.out.r[1] = s.destination(s.operands[0].parts[1], 0);
  } else {
    s.out.r[0] = s.destination(0, 4);
  }
  for (std::size_t n = 1; n < 5; ++n)
    s.out.r[1 + n] = s.source(n, 4);
}

// -- votes --------------------------------------------------------------------
// r: to, a predicate, mask of members.

void ballot(warp& w, const instruction& i, u32 mask) {
  if (!meet(w, i, mask, 2))
    return;
  w.need(i, mask, i.r[1]);
  const u32* const named = w.at<u32>(i.r[2]);
  u32* const to = w.at<u32>(i.r[0]);
  for_each_lane(mask,
                [&](unsigned l) { to[l] = w.predicate(i.r[1]) & named[l]; });
  w.define(i.r[0], mask, all_lanes);
}

template <bool All>
void vote(warp& w, const instruction& i, u32 mask) {
  if (!meet(w, i, mask, 2))
    return;
  w.need(i, mask, i.r[1]);
  const u32* const named = w.at<u32>(i.r[2]);
  u32 out = 0;
  for_each_lane(mask, [&](unsigned l) {
    const u32 yes = w.predicate(i.r[1]) & named[l];
    if (All ? yes == named[l] : yes != 0)
      out |= u32{1} << l;
  });
  w.predicate(i.r[0]) = (w.predicate(i.r[0]) & ~mask) | out;
  w.define(i.r[0], mask, all_lanes);
}

void read_vote(statement& s) {
  if (!s.parts.take("sync"))
    wrong(s);
  const bool is_ballot = s.parts.take("ballot");
  if (is_ballot)
    s.out.run = ballot;
  else if (s.parts.take("all"))
    s.out.run = vote<true>;
  else if (s.parts.take("any"))
    s.out.run = vote<false>;
  else
    wrong(s);
  const auto t = s.expect_type();
  if (is_ballot ? !t.is(kind::bits, 4) : t.what != kind::predicate)
    wrong(s);
  s.has(3);
  s.out.r[0] = s.destination(0, is_ballot ? 4 : 0);
  s.out.r[1] = s.predicate(s.operands[1]);
  s.out.r[2] = s.source(2, 4);
}

// -- products of matrices -----------------------------------------------------
// m16n8k16. r: 4 of d, 4 of a, 2 of b, 4 of c.

struct matrices {
  static constexpr std::size_t rows = 16, columns = 8, depth = 16;
  u16 a[rows][depth], b[depth][columns]; ///< as they are stored
  float of_a[rows][depth], of_b[depth][columns];
  double sums[rows][columns];
};

template <bool Brain>
inline __attribute__((always_inline)) void multiply(matrices& m) {
  const auto number = [](u16 bits) {
    return Brain ? float_of_bf16(bits) : float_of_f16(bits);
  };
  for (std::size_t row = 0; row < matrices::rows; ++row)
    for (std::size_t k = 0; k < matrices::depth; ++k)
      m.of_a[row][k] = number(m.a[row][k]);
  for (std::size_t k = 0; k < matrices::depth; ++k)
    for (std::size_t column = 0; column < matrices::columns; ++column)
      m.of_b[k][column] = number(m.b[k][column]);
  double b[matrices::depth][matrices::columns];
  for (std::size_t k = 0; k < matrices::depth; ++k)
    for (std::size_t column = 0; column < matrices::columns; ++column)
      b[k][column] = double{m.of_b[k][column]};
  for (std::size_t row = 0; row < matrices::rows; ++row) {
    double sums[matrices::columns];
    for (std::size_t column = 0; column < matrices::columns; ++column)
      sums[column] = m.sums[row][column];
    for (std::size_t k = 0; k < matrices::depth; ++k) {
      const double a = double{m.of_a[row][k]};
      for (std::size_t column = 0; column < matrices::columns; ++column)
        sums[column] += a * b[k][column];
    }
    for (std::size_t column = 0; column < matrices::columns; ++column)
      m.sums[row][column] = sums[column];
  }
}

template <bool Brain>
void multiply_plain(matrices& m) {
  multiply<Brain>(m);
}
#if defined(__x86_64__)
template <bool Brain>
__attribute__((target("avx2"))) void multiply_avx2(matrices& m) {
  multiply<Brain>(m);
}
#endif

template <bool Brain>
void multiply_best(matrices& m) {
#if defined(__x86_64__)
  static const bool has_avx2 = __builtin_cpu_supports("avx2");
  if (has_avx2) {
    multiply_avx2<Brain>(m);
    return;
  }
#endif
  multiply_plain<Brain>(m);
}

template <bool Brain>
void multiplied(warp& w, const instruction& i, u32 mask) {
  if (!w.meet(i, mask, all_lanes))
    return;
  ++w.done.products;
  constexpr std::size_t a_at = 4, b_at = 8, c_at = 10;
  for (std::size_t n = a_at; n < c_at + 4; ++n)
    w.need(i, mask, i.r[n]);
  matrices m;
  // Of a lane's group, lane / 4, are a row of a, and that + 8, and a column of
  // b; of its place in the group two numbers beside each other, and two 8
  // further on. A register has two, the first in its lower half.
  for (unsigned r = 0; r < 4; ++r) {
    const u32* const from = w.at<u32>(i.r[a_at + r]);
    for (unsigned l = 0; l < lanes; ++l) {
      u16* const to = &m.a[l / 4 + (r == 1 || r == 3 ? 8 : 0)]
                          [2 * (l % 4) + (r >= 2 ? 8 : 0)];
      to[0] = static_cast<u16>(from[l]);
      to[1] = static_cast<u16>(from[l] >> 16);
    }
  }
  for (unsigned r = 0; r < 2; ++r) {
    const u32* const from = w.at<u32>(i.r[b_at + r]);
    for (unsigned l = 0; l < lanes; ++l) {
      const unsigned k = 2 * (l % 4) + (r == 1 ? 8 : 0);
      m.b[k][l / 4] = static_cast<u16>(from[l]);
      m.b[k + 1][l / 4] = static_cast<u16>(from[l] >> 16);
    }
  }
  // Of the sums: two beside each other, and two 8 rows further on.
  const auto sum = [&](unsigned l, unsigned n) -> double& {
    return m.sums[l / 4 + (n >= 2 ? 8 : 0)][2 * (l % 4) + n % 2];
  };
  for (unsigned n = 0; n < 4; ++n)
    for (unsigned l = 0; l < lanes; ++l)
      sum(l, n) = double{w.at<float>(i.r[c_at + n])[l]};
  multiply_best<Brain>(m);
  for (unsigned n = 0; n < 4; ++n) {
    for (unsigned l = 0; l < lanes; ++l)
      w.at<float>(i.r[n])[l] = canonical(static_cast<float>(sum(l, n)));
    w.define(i.r[n], mask, all_lanes);
  }
}

void read_multiply(statement& s) {
  for (const auto part : {"sync", "aligned", "m16n8k16", "row", "col", "f32"})
    if (!s.parts.take(part))
      wrong(s);
  const bool is_brain = s.parts.next() == "bf16";
  const auto of = is_brain ? "bf16" : "f16";
  if (!s.parts.take(of) || !s.parts.take(of) || !s.parts.take("f32"))
    wrong(s);
  s.out.run = is_brain ? multiplied<true> : multiplied<false>;
  s.has(4);
  constexpr std::size_t counts[] = {4, 4, 2, 4};
  std::size_t at = 0;
  for (std::size_t n = 0; n < 4; ++n) {
    const auto& matrix = s.operands[n];
    if (matrix.what != operand::kind::vector ||
        matrix.parts.size() != counts[n])
      s.fail("a matrix has other registers");
    for (const auto& one : matrix.parts)
      s.out.r[at++] = n == 0 ? s.destination(one, 4) : s.source(one, 4);
  }
}

// -- barriers -----------------------------------------------------------------

void wait_for_block(warp& w, const instruction& i, u32 mask) {
  if (w.meet(i, mask, w.exists()))
    w.wait_for_block();
}

/// r[0]: mask of members.
void wait_for_warp(warp& w, const instruction& i, u32 mask) {
  (void)meet(w, i, mask, 0);
}

void read_barrier(statement& s) {
  if (s.parts.take("warp")) {
    if (!s.parts.take("sync"))
      wrong(s);
    s.has(1);
    s.out.run = wait_for_warp;
    s.out.r[0] = s.source(0, 4);
    return;
  }
  s.parts.take("cta");
  if (!s.parts.take("sync"))
    wrong(s);
  s.parts.take("aligned");
  s.has(1);
  if (s.immediate(0) != 0)
    s.fail("only barrier 0, of all threads, is known");
  s.out.run = wait_for_block;
}

} // namespace

bool decode_warp_operation(statement& s) {
  if (s.name == "shfl")
    read_shuffle(s);
  else if (s.name == "vote")
    read_vote(s);
  else if (s.name == "mma")
    read_multiply(s);
  else if (s.name == "bar" || s.name == "barrier")
    read_barrier(s);
  else
    return false;
  return true;
}

// -- where a thread goes on ---------------------------------------------------

namespace {

void branch(warp& w, const instruction& i, u32 mask) {
  w.branch(mask, i.target);
}

void end(warp& w, const instruction&, u32 mask) {
  w.end_threads(mask);
}

void trap(warp& w, const instruction& i, u32 mask) {
  w.fail(i, static_cast<unsigned>(std::countr_zero(mask)), "a trap");
}

void sleep(warp& w, const instruction&, u32) {
  w.give_turn();
}

void fence(warp&, const instruction&, u32) {
  std::atomic_thread_fence(std::memory_order_seq_cst);
}

void wait_for_earlier(warp& w, const instruction&, u32 mask) {
  w.wait_for_earlier(mask);
}

/// Later launches may begin; here they never do before this one is over.
void let_later_begin(warp&, const instruction&, u32) {
  // nop
}

} // namespace

bool decode_flow(statement& s) {
  if (s.name == "bra") {
    s.out.run = branch;
    return true;
  }
  if (s.name == "nanosleep") {
    if (!s.expect_type().is(kind::natural, 4))
      wrong(s);
    s.has(1);
    (void)s.source(0, 4);
    s.out.run = sleep;
    return true;
  }
  if (s.name == "ret" || s.name == "exit")
    s.out.run = end;
  else if (s.name == "trap")
    s.out.run = trap;
  else if (s.name == "membar" &&
           (s.parts.take("cta") || s.parts.take("gl") || s.parts.take("sys")))
    s.out.run = fence;
  else if (s.name == "griddepcontrol" && s.parts.take("wait"))
    s.out.run = wait_for_earlier;
  else if (s.name == "griddepcontrol" && s.parts.take("launch_dependents"))
    s.out.run = let_later_begin;
  else
    return false;
  s.has(0);
  return true;
}

} // namespace troupe::ptx
