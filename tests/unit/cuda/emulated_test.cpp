#include "cuda/runtime/emulated.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

using namespace troupe::cuda;

namespace {

/// Every block writes the sum and the greatest of its threads' numbers.
struct reduce_kernel {
  static constexpr bool collective = true;
  const float* x;
  float* out;

  template <class Threads>
  void operator()(Threads& t) const {
    auto mine = x[t.block_x() * t.count() + t.index()];
    auto sum = block_sum(t, mine, t.shared());
    auto most = block_max(t, mine, t.shared());
    out[(t.block_x() * t.count() + t.index()) * 2] = sum;
    out[(t.block_x() * t.count() + t.index()) * 2 + 1] = most;
  }
};

/// Thread 5 does not wait where the others do.
struct diverging_kernel {
  static constexpr bool collective = true;
  int what;

  template <class Threads>
  void operator()(Threads& t) const {
    if (t.index() != 5)
      t.sync();
    else if (what == 1)
      t.warp_sum(1);
  }
};

/// Reads what its neighbour wrote before they met, or after.
struct neighbour_kernel {
  static constexpr bool collective = true;
  bool waits;
  float* out;

  template <class Threads>
  void operator()(Threads& t) const {
    t.shared()[t.index()] = static_cast<float>(t.index());
    if (waits)
      t.sync();
    out[t.index()] = t.shared()[(t.index() + 1) % t.count()];
  }
};

/// sums += a * b, of matrices that lie as rows.
template <class Stored>
struct matrix_kernel {
  static constexpr bool collective = true;
  const Stored* a; ///< [16][16]
  const Stored* b; ///< [16][8]
  float* sums;     ///< [16][8]

  template <class Threads>
  void operator()(Threads& t) const {
    const unsigned g = t.index() / 4, c = t.index() % 4 * 2;
    const auto word = [](Stored low, Stored high) {
      return std::uint32_t{low.bits} | std::uint32_t{high.bits} << 16;
    };
    const auto of_a = [&](unsigned row, unsigned col) {
      return word(a[row * 16 + col], a[row * 16 + col + 1]);
    };
    const auto of_b = [&](unsigned row) {
      return word(b[row * 8 + g], b[(row + 1) * 8 + g]);
    };
    float* to[] = {sums + g * 8 + c, sums + (g + 8) * 8 + c};
    fragments::sums all{to[0][0], to[0][1], to[1][0], to[1][1]};
    t.template multiply_add<Stored>(
        all, {of_a(g, c), of_a(g + 8, c), of_a(g, c + 8), of_a(g + 8, c + 8)},
        {of_b(c), of_b(c + 8)});
    for (unsigned i = 0; i < 4; ++i)
      to[i / 2][i % 2] = all[i];
  }
};

/// Of whole numbers, so that no order of sums matters.
template <class Stored>
void check_matrices(Stored (*rounded)(float)) {
  std::vector<Stored> a(16 * 16), b(16 * 8);
  std::vector<float> sums(16 * 8), expected(16 * 8);
  for (std::size_t i = 0; i < a.size(); ++i)
    a[i] = rounded(static_cast<float>(i * 7 % 31) - 15);
  for (std::size_t i = 0; i < b.size(); ++i)
    b[i] = rounded(static_cast<float>(i * 5 % 23) - 11);
  for (std::size_t i = 0; i < sums.size(); ++i) {
    sums[i] = expected[i] = static_cast<float>(i);
    for (std::size_t k = 0; k < 16; ++k)
      expected[i] += to_float(a[i / 8 * 16 + k]) * to_float(b[k * 8 + i % 8]);
  }
  emulated_device device;
  device.launch({1, 1, 32, 0},
                matrix_kernel<Stored>{a.data(), b.data(), sums.data()});
  CHECK(sums == expected);
}

} // namespace

TEST_CASE("a warp multiplies matrices of which each lane holds a part") {
  check_matrices(to_f16);
  check_matrices(to_bf16);
}

namespace {

/// Of any numbers, also of those that are none.
template <class Stored>
void check_order(Stored (*rounded)(float)) {
  std::mt19937 random{4};
  std::normal_distribution<float> normal;
  std::vector<Stored> a(16 * 16), b(16 * 8);
  std::vector<float> sums(16 * 8), expected;
  for (auto* all : {&a, &b})
    for (auto& x : *all)
      x = rounded(normal(random));
  for (auto& x : sums)
    x = 100 * normal(random);
  a[16 * 3 + 4] = {1}; // the least
  a[16 * 5 + 7] = rounded(-INFINITY);
  a[16 * 9 + 2] = rounded(NAN);
  b[8 * 4 + 6] = {0x8003};
  b[8 * 7 + 2] = {0};
  sums[8 * 11 + 3] = INFINITY;
  expected = sums;
  for (std::size_t i = 0; i < sums.size(); ++i)
    for (std::size_t k = 0; k < 16; ++k)
      expected[i] += to_float(a[i / 8 * 16 + k]) * to_float(b[k * 8 + i % 8]);
  emulated_device device;
  device.launch({1, 1, 32, 0},
                matrix_kernel<Stored>{a.data(), b.data(), sums.data()});
  for (std::size_t i = 0; i < sums.size(); ++i) {
    INFO("row " << i / 8 << ", column " << i % 8);
    if (std::isnan(expected[i]))
      CHECK(std::isnan(sums[i]));
    else
      CHECK(bits_of(sums[i]) == bits_of(expected[i]));
  }
}

} // namespace

TEST_CASE("a warp's products are added one after the other, each rounded") {
  check_order(to_f16);
  check_order(to_bf16);
}

namespace {

/// Copies 16 bytes per thread, two groups of them, and shows what is there when
/// one of the groups, or both, were waited for.
struct copy_kernel {
  static constexpr bool collective = true;
  const float* from;
  int waits;  ///< 0: for nothing, 1: for the first group, 2: for both
  float* out; ///< [groups][threads]

  template <class Threads>
  void operator()(Threads& t) const {
    constexpr unsigned numbers = 4;
    const unsigned count = t.count();
    for (unsigned group = 0; group < 2; ++group) {
      const unsigned at = (group * count + t.index()) * numbers;
      t.copy_async(t.shared() + at, from + at, t.index() != 1);
      t.commit_copies();
    }
    if (waits == 1)
      t.template wait_copies<1>();
    else if (waits == 2)
      t.template wait_copies<0>();
    t.sync();
    // Its neighbour's last number.
    const unsigned of = (t.index() + 1) % count;
    for (unsigned group = 0; group < 2; ++group)
      out[group * count + t.index()] =
          t.shared()[(group * count + of) * numbers + 3];
  }
};

/// Every thread writes the greatest of its four.
struct quad_kernel {
  static constexpr bool collective = true;
  const float* x;
  float* out;

  template <class Threads>
  void operator()(Threads& t) const {
    out[t.index()] = t.quad_max(x[t.index()]);
  }
};

/// Warps do not wait for each other before they have to.
struct own_way_kernel {
  static constexpr bool collective = true;
  float* out;

  template <class Threads>
  void operator()(Threads& t) const {
    float sum = 0;
    for (unsigned i = 0; i <= t.index() / warp_size; ++i)
      sum += t.warp_sum(1);
    t.sync();
    out[t.index()] = sum;
  }
};

/// But one warp all are done when they have met among themselves.
struct one_less_kernel {
  static constexpr bool collective = true;
  float* out;

  template <class Threads>
  void operator()(Threads& t) const {
    if (t.index() >= warp_size)
      out[t.index()] = t.warp_sum(1);
  }
};

/// Both words of a pair of numbers.
struct pairs_kernel {
  static constexpr bool collective = false;
  float low, high;
  std::uint16_t codes;
  std::uint32_t* out;

  template <class Threads>
  void operator()(Threads& t) const {
    if (t.index() == 0) {
      out[0] = t.round_pair(low, high);
      out[1] = t.widen_pair(codes);
    }
  }
};

} // namespace

TEST_CASE("what is copied to shared memory is there when it was waited for, "
          "and not before") {
  constexpr unsigned threads = 32;
  emulated_device device;
  std::vector<float> x(2 * threads * 4), out(2 * threads);
  std::iota(x.begin(), x.end(), 1.f);
  for (int waits = 0; waits <= 2; ++waits) {
    device.launch({1, 1, threads, x.size()},
                  copy_kernel{x.data(), waits, out.data()});
    for (int group = 0; group < 2; ++group) {
      INFO("waits " << waits << ", group " << group);
      const auto* got = out.data() + group * threads;
      if (group >= waits) {
        CHECK(std::isnan(got[4]));
        continue;
      }
      CHECK(got[4] == x[(group * threads + 5) * 4 + 3]);
      CHECK(got[0] == 0); // of thread 1, which had nothing to copy
    }
  }
}

TEST_CASE("four neighbours get the greatest of theirs") {
  emulated_device device;
  std::vector<float> x(64), out(64);
  for (int i = 0; i < 64; ++i)
    x[i] = static_cast<float>(i * 37 % 64) - 32;
  device.launch({1, 1, 64, 0}, quad_kernel{x.data(), out.data()});
  for (int i = 0; i < 64; ++i)
    CHECK(out[i] ==
          *std::max_element(x.begin() + i / 4 * 4, x.begin() + i / 4 * 4 + 4));
}

TEST_CASE("a warp may do more than another before they meet") {
  emulated_device device;
  std::vector<float> out(96);
  device.launch({1, 1, 96, 0}, own_way_kernel{out.data()});
  for (int i = 0; i < 96; ++i)
    CHECK(out[i] == 32 * (i / 32 + 1));
  device.launch({1, 1, 96, 0}, one_less_kernel{out.data()});
  CHECK(out[95] == 32);
}

TEST_CASE("two numbers become a word, the first its lower half") {
  emulated_device device;
  std::uint32_t out[2];
  device.launch({}, pairs_kernel{1.0f, -2.0f, 0x7f38, out}); // no number, 1
  CHECK(out[0] == 0xc0003c00u);
  CHECK((out[1] & 0xffffu) == 0x3c00u);
  CHECK((out[1] >> 16 & 0x7fffu) > 0x7c00u);
  for (std::uint32_t code = 0; code < 256; ++code) {
    if ((code & 0x7f) == 0x7f)
      continue;
    device.launch(
        {}, pairs_kernel{0, 0, static_cast<std::uint16_t>(code << 8), out});
    CHECK(to_float(f16{static_cast<std::uint16_t>(out[1] >> 16)}) ==
          to_float(e4m3{static_cast<std::uint8_t>(code)}));
  }
}

TEST_CASE("all threads of a block get the sum and the greatest of all") {
  emulated_device device;
  std::vector<float> x(2 * 96), out(2 * x.size());
  std::iota(x.begin(), x.end(), -50.f);
  device.launch({2, 1, 96, 3}, reduce_kernel{x.data(), out.data()});
  for (int block = 0; block < 2; ++block) {
    auto from = x.begin() + block * 96;
    auto sum = std::accumulate(from, from + 96, 0.f);
    for (int i = 0; i < 96; ++i) {
      REQUIRE(out[(block * 96 + i) * 2] == sum);
      REQUIRE(out[(block * 96 + i) * 2 + 1] == from[95]);
    }
  }
}

TEST_CASE("threads that wait for different things are found") {
  emulated_device device;
  CHECK_THROWS_AS(device.launch({1, 1, 32, 0}, diverging_kernel{0}),
                  std::logic_error);
  CHECK_THROWS_AS(device.launch({1, 1, 32, 0}, diverging_kernel{1}),
                  std::logic_error);
  CHECK_THROWS_AS(device.launch({1, 1, 40, 0}, diverging_kernel{0}),
                  std::logic_error); // no whole warps
  // Nobody goes on where those threads were.
  std::vector<float> x(32, 1), out(64);
  device.launch({1, 1, 32, 1}, reduce_kernel{x.data(), out.data()});
  for (int i = 0; i < 32; ++i)
    CHECK(out[2 * i] == 32);
}

TEST_CASE("who does not wait reads what is not there yet") {
  emulated_device device;
  std::vector<float> out(64);
  device.launch({1, 1, 64, 64}, neighbour_kernel{true, out.data()});
  for (int i = 0; i < 64; ++i)
    REQUIRE(out[i] == static_cast<float>((i + 1) % 64));
  device.launch({1, 1, 64, 64}, neighbour_kernel{false, out.data()});
  CHECK(std::isnan(out[0]));
}

namespace {

/// Adds what it was given.
struct add_kernel {
  static constexpr bool collective = false;
  float* to;
  float what;

  template <class Threads>
  void operator()(Threads& t) const {
    if (t.index() == 0)
      *to += what;
  }
};

} // namespace

namespace {

/// The block that counts last says which it is, and how many counted.
struct counting_kernel {
  static constexpr bool collective = false;
  std::uint32_t* count;
  std::uint32_t blocks;
  unsigned* last;

  template <class Threads>
  void operator()(Threads& t) const {
    if (t.index() == 0 && t.arrive(count, blocks))
      last[0] = 10 * t.block_y() + t.block_x();
  }
};

} // namespace

TEST_CASE("of the blocks that count one is the last, in either order") {
  const bool runs_backwards = GENERATE(false, true);
  emulated_device device{{.runs_backwards = runs_backwards}};
  std::uint32_t count = 0;
  for (const std::uint32_t blocks : {6u, 1u, 6u}) {
    unsigned last = 99;
    device.launch({blocks == 6 ? 3u : 1u, blocks == 6 ? 2u : 1u, 32, 0},
                  counting_kernel{&count, blocks, &last});
    CHECK(last == (runs_backwards || blocks == 1 ? 0 : 12));
    CHECK(count == 0);
  }
}

TEST_CASE("a late device does nothing before somebody waits, in order then") {
  emulated_device device{{.is_late = true}};
  float x = 1, sent = 5, kept = 7, back = 0;
  emulated_device::event half{device};
  device.send(&x, &sent, sizeof x);
  device.launch({}, add_kernel{&x, 1});
  device.record(half);
  device.copy_in(&x, &kept, sizeof x);
  device.receive(&back, &x, sizeof x);
  sent = 6; // too early
  kept = 8; // may change
  CHECK(x == 1);
  device.wait(half);
  CHECK(x == 7);
  CHECK(back == 0);
  float out = 0;
  device.copy_out(&out, &x, sizeof x);
  CHECK(out == 7);
  CHECK(back == 7);
}

TEST_CASE("a graph is its launches with their arguments as they were") {
  emulated_usage usage;
  emulated_device device{{.usage = &usage}};
  float x = 1, what = 2;
  const auto graph = device.capture([&] {
    device.launch({}, add_kernel{&x, what});
  });
  CHECK(x == 1);
  what = 100;
  device.launch(*graph);
  device.launch(*graph);
  CHECK(x == 5);
  CHECK(usage.captures == 1);
  CHECK(usage.replays == 2);
  auto captured = [&](auto call) { device.capture(call); };
  CHECK_THROWS_AS(captured([&] { device.allocate(8); }), std::logic_error);
  CHECK_THROWS_AS(captured([&] { device.send(&x, &what, 4); }),
                  std::logic_error);
  CHECK_THROWS_AS(captured([&] { device.copy_out(&x, &what, 4); }),
                  std::logic_error);
  device.launch({}, add_kernel{&x, 1}); // no graph is captured any more
  CHECK(x == 6);
}
