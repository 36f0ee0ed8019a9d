#include "tests/unit/ptx/one_kernel.hpp"

#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

// Values are the PTX ISA's.

using namespace troupe::ptx;

namespace {

using u32 = std::uint32_t;
using u64 = std::uint64_t;

u64 f32(float x) {
  return std::bit_cast<u32>(x);
}
u64 f64(double x) {
  return std::bit_cast<u64>(x);
}
u64 pair(u64 high, u64 low) {
  return high << 32 | low;
}

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr u64 no_number = 0x7fc12345;

/// What an instruction makes of a, b and c, which %rd11 to %rd13 are, and of
/// which %r, %f, %rs and %fd are the lowest bits. By a whole warp, and by part
/// of one.
u64 result(const std::string& instruction, u64 a, u64 b = 0, u64 c = 0) {
  const auto at = instruction.find('%');
  const auto of =
      instruction.substr(at, instruction.find_first_of("0123456789", at) - at);
  std::string body;
  const auto n = [](unsigned i) { return std::to_string(11 + i); };
  for (unsigned i = 0; i < 3; ++i)
    body += "ld.global.u64 %rd" + n(i) + ", [%rd1+" + std::to_string(8 * i) +
            "];\n"
            "cvt.u32.u64 %r" +
            n(i) + ", %rd" + n(i) +
            ";\n"
            "cvt.u16.u32 %rs" +
            n(i) + ", %r" + n(i) +
            ";\n"
            "mov.b32 %f" +
            n(i) + ", %r" + n(i) +
            ";\n"
            "mov.b64 %fd" +
            n(i) + ", %rd" + n(i) + ";\n";
  body += instruction + "\n";
  if (of == "%r")
    body += "cvt.u64.u32 %rd10, %r10;\n";
  else if (of == "%rs")
    body += "cvt.u64.u16 %rd10, %rs10;\n";
  else if (of == "%f")
    body += "mov.b32 %r10, %f10; cvt.u64.u32 %rd10, %r10;\n";
  else if (of == "%fd")
    body += "mov.b64 %rd10, %fd10;\n";
  else if (of == "%p")
    body += "selp.b64 %rd10, 1, 0, %p10;\n";
  body += "mad.wide.u32 %rd9, %r1, 8, %rd2;\nst.global.u64 [%rd9], %rd10;\n";
  std::vector<u64> in{a, b, c}, whole(32), part(5);
  run_body(body, 32, in, whole);
  run_body(body, 5, in, part);
  for (const auto one : whole)
    REQUIRE(one == whole[0]);
  for (const auto one : part)
    REQUIRE(one == whole[0]);
  return whole[0];
}

TEST_CASE("integers wrap around") {
  CHECK(result("add.s32 %r10, %r11, %r12;", 0x7fffffff, 1) == 0x80000000);
  CHECK(result("add.s64 %rd10, %rd11, -1;", 0) == ~u64{0});
  CHECK(result("sub.s32 %r10, %r11, %r12;", 0, 1) == 0xffffffff);
  CHECK(result("sub.s16 %rs10, %rs11, %rs12;", 1, 3) == 0xfffe);
  CHECK(result("mul.lo.s32 %r10, %r11, %r12;", 0x10001, 0x10001) == 0x20001);
  CHECK(result("mul.lo.s64 %rd10, %rd11, %rd12;", u64{1} << 33, 3) ==
        u64{3} << 33);
  CHECK(result("mul.hi.s32 %r10, %r11, %r12;", 0xfffffffe, 3) == 0xffffffff);
  CHECK(result("mul.hi.u32 %r10, %r11, %r12;", 0xfffffffe, 3) == 2);
  CHECK(result("mul.wide.s32 %rd10, %r11, %r12;", 0xfffffffe, 3) ==
        static_cast<u64>(-6));
  CHECK(result("mul.wide.u32 %rd10, %r11, %r12;", 0xfffffffe, 3) ==
        0x2fffffffa);
  CHECK(result("mul.wide.u16 %r10, %rs11, %rs12;", 0xffff, 0xffff) ==
        0xfffe0001);
  CHECK(result("mad.lo.s32 %r10, %r11, %r12, %r13;", 7, 0xffffffff, 9) == 2);
  CHECK(result("mad.wide.u32 %rd10, %r11, 4, %rd13;", 0xffffffff, 0, 8) ==
        0x400000004);
}

TEST_CASE("quotients are cut off and remainders have the dividend's sign") {
  CHECK(result("div.s32 %r10, %r11, %r12;", static_cast<u32>(-7), 2) ==
        static_cast<u32>(-3));
  CHECK(result("rem.s32 %r10, %r11, %r12;", static_cast<u32>(-7), 2) ==
        static_cast<u32>(-1));
  CHECK(result("div.u32 %r10, %r11, %r12;", static_cast<u32>(-7), 2) ==
        0x7ffffffc);
  CHECK(result("div.s64 %rd10, %rd11, %rd12;", static_cast<u64>(-9), 4) ==
        static_cast<u64>(-2));
  CHECK(result("div.u64 %rd10, %rd11, %rd12;", static_cast<u64>(-1), 16) ==
        ~u64{0} >> 4);
  CHECK(result("div.s32 %r10, %r11, %r12;", 0x80000000, 0xffffffff) ==
        0x80000000);
  CHECK(result("div.u32 %r10, %r11, %r12;", 5, 0) == 0xffffffff);
}

TEST_CASE("the least and the greatest of integers have signs or not") {
  CHECK(result("min.s32 %r10, %r11, %r12;", 0xffffffff, 1) == 0xffffffff);
  CHECK(result("min.u32 %r10, %r11, %r12;", 0xffffffff, 1) == 1);
  CHECK(result("max.s32 %r10, %r11, %r12;", 0xffffffff, 1) == 1);
  CHECK(result("max.u32 %r10, %r11, %r12;", 0xffffffff, 1) == 0xffffffff);
  CHECK(result("max.s64 %rd10, %rd11, %rd12;", ~u64{0}, 1) == 1);
  CHECK(result("neg.s64 %rd10, %rd11;", 5) == static_cast<u64>(-5));
  CHECK(result("abs.s32 %r10, %r11;", static_cast<u32>(-5)) == 5);
}

TEST_CASE("bits") {
  CHECK(result("and.b32 %r10, %r11, %r12;", 0xff0f, 0x0ff0) == 0x0f00);
  CHECK(result("or.b64 %rd10, %rd11, %rd12;", u64{1} << 40, 2) ==
        (u64{1} << 40 | 2));
  CHECK(result("xor.b32 %r10, %r11, %r12;", 0xff, 0x0f) == 0xf0);
  CHECK(result("not.b32 %r10, %r11;", 1) == 0xfffffffe);
  CHECK(result("and.b16 %rs10, %rs11, 255;", 0x1234) == 0x34);
  CHECK(result("shl.b32 %r10, %r11, %r12;", 3, 31) == 0x80000000);
  CHECK(result("shl.b32 %r10, %r11, %r12;", 3, 32) == 0);
  CHECK(result("shl.b64 %rd10, %rd11, %r12;", 3, 40) == u64{3} << 40);
  CHECK(result("shr.u32 %r10, %r11, %r12;", 0x80000000, 31) == 1);
  CHECK(result("shr.u32 %r10, %r11, %r12;", 0x80000000, 200) == 0);
  CHECK(result("shr.s32 %r10, %r11, %r12;", 0x80000000, 200) == 0xffffffff);
  CHECK(result("shr.u16 %rs10, %rs11, 8;", 0xabcd) == 0xab);
  CHECK(result("shf.l.wrap.b32 %r10, %r11, %r12, %r13;", 0x80000001, 0x40000000,
               33) == 0x80000001);
  CHECK(result("shf.r.clamp.b32 %r10, %r11, %r12, %r13;", 1, 0xabcd, 40) ==
        0xabcd);
  CHECK(result("prmt.b32 %r10, %r11, %r12, 0x7520;", 0x33221100, 0x77665544) ==
        0x77552200);
  CHECK(result("prmt.b32 %r10, %r11, %r12, 0x1098;", 0x00008011, 0) ==
        0x8011ff00);
  CHECK(result("bfi.b32 %r10, %r11, %r12, 4, 8;", 0xabc, 0xffffffff) ==
        0xfffffbcf);
  CHECK(result("bfi.b64 %rd10, %rd11, %rd12, 32, 32;", 5, 7) == pair(5, 7));
  CHECK(result("bfe.u32 %r10, %r11, 4, 8;", 0xfedc) == 0xed);
  CHECK(result("bfe.s32 %r10, %r11, 4, 8;", 0xfedc) == 0xffffffed);
  CHECK(result("popc.b64 %r10, %rd11;", ~u64{0}) == 64);
  CHECK(result("clz.b32 %r10, %r11;", 1) == 31);
  CHECK(result("brev.b32 %r10, %r11;", 1) == 0x80000000);
  CHECK(result("bfind.u32 %r10, %r11;", 0x100) == 8);
  CHECK(result("lop3.b32 %r10, %r11, %r12, %r13, 0x96;", 12, 10, 6) ==
        (12 ^ 10 ^ 6));
}

TEST_CASE("comparisons with what is no number") {
  const auto is = [](const std::string& how, float a, float b) {
    return result("setp." + how + ".f32 %p10, %f11, %f12;", f32(a), f32(b));
  };
  const float none = std::bit_cast<float>(u32{no_number});
  for (const auto how : {"eq", "ne", "lt", "le", "gt", "ge", "num"})
    CHECK(is(how, none, 1.0f) == 0);
  for (const auto how : {"equ", "neu", "ltu", "leu", "gtu", "geu", "nan"})
    CHECK(is(how, 1.0f, none) == 1);
  CHECK(is("ne", 1.0f, 2.0f) == 1);
  CHECK(is("eq", -0.0f, 0.0f) == 1);
  CHECK(is("lt", -infinity, 0.0f) == 1);
  CHECK(is("num", 1.0f, 2.0f) == 1);
  CHECK(result("setp.lt.s32 %p10, %r11, %r12;", 0xffffffff, 0) == 1);
  CHECK(result("setp.lt.u32 %p10, %r11, %r12;", 0xffffffff, 0) == 0);
  CHECK(result("setp.gt.u16 %p10, %rs11, %rs12;", 0xffff, 0) == 1);
  CHECK(result("setp.eq.s16 %p10, %rs11, %rs12;", 0xffff, 0xffff) == 1);
  CHECK(result("setp.ge.s64 %p10, %rd11, %rd12;", ~u64{0}, 0) == 0);
}

TEST_CASE("predicates are joined") {
  CHECK(result("setp.eq.s32 %p1, %r11, 1; setp.eq.and.s32 %p10|%p2, %r12, 2, "
               "!%p1;",
               1, 2) == 0);
  const auto joined = [](const std::string& how, u64 a, u64 b) {
    // The result is read from the first operand that is written.
    return result("selp.b32 %r10, 0, 0, 0; setp.ne.s32 %p1, %r11, 0; "
                  "setp.ne.s32 %p2, %r12, 0; " +
                      how + ".pred %p3, %p1, %p2; selp.b32 %r10, 1, 0, %p3;",
                  a, b);
  };
  CHECK(joined("and", 1, 0) == 0);
  CHECK(joined("or", 1, 0) == 1);
  CHECK(joined("xor", 1, 1) == 0);
  CHECK(result("mov.u32 %r10, 0; setp.ne.s32 %p1, %r11, 0; not.pred %p2, %p1; "
               "mov.pred %p3, %p2; @%p3 mov.u32 %r10, 5; @!%p3 mov.u32 %r10, "
               "6;",
               0) == 5);
  CHECK(result("selp.f32 %f10, %f11, %f12, 0;", f32(1), f32(2)) == f32(2));
}

TEST_CASE("sums and products are rounded once") {
  CHECK(result("add.rn.f32 %f10, %f11, %f12;", f32(1), f32(0x1p-24f)) ==
        f32(1));
  CHECK(result("add.f32 %f10, %f11, %f12;", f32(1), f32(0x1.8p-24f)) ==
        f32(1 + 0x1p-23f));
  CHECK(result("sub.rn.f64 %fd10, %fd11, %fd12;", f64(1), f64(0x1p-53)) ==
        f64(1 - 0x1p-53));
  CHECK(result("mul.rn.f32 %f10, %f11, %f12;", f32(0x1p-100f), f32(0x1p-49f)) ==
        1);
  CHECK(result("mul.rn.ftz.f32 %f10, %f11, %f12;", f32(0x1p-100f),
               f32(-0x1p-49f)) == 0x80000000);
  const auto a = f32(1 + 0x1p-12f), c = f32(-(1 + 0x1p-11f));
  CHECK(result("fma.rn.f32 %f10, %f11, %f12, %f13;", a, a, c) == f32(0x1p-24f));
  CHECK(result("fma.rm.f32 %f10, %f11, %f12, %f13;", f32(1), f32(1),
               f32(0x1p-60f)) == f32(1));
  CHECK(result("fma.rm.f32 %f10, %f11, %f12, %f13;", f32(-1), f32(1),
               f32(-0x1p-60f)) == f32(-1 - 0x1p-23f));
  CHECK(result("fma.rm.f32 %f10, %f11, %f12, %f13;", f32(3), f32(2), f32(-6)) ==
        0x80000000);
  CHECK(result("div.rn.f32 %f10, %f11, %f12;", f32(1), f32(3)) ==
        f32(1.0f / 3.0f));
  CHECK(result("rcp.rn.f32 %f10, %f11;", f32(10)) == f32(0.1f));
  CHECK(result("sqrt.rn.f32 %f10, %f11;", f32(2)) == f32(1.41421356f));
  CHECK(result("sub.f32 %f10, %f11, %f12;", f32(infinity), f32(infinity)) ==
        0x7fffffff);
}

TEST_CASE("the least and the greatest prefer numbers") {
  CHECK(result("max.f32 %f10, %f11, %f12;", no_number, f32(-1)) == f32(-1));
  CHECK(result("min.f32 %f10, %f11, %f12;", f32(-1), no_number) == f32(-1));
  CHECK(result("max.f32 %f10, %f11, %f12;", no_number, no_number) ==
        0x7fffffff);
  CHECK(result("max.NaN.f32 %f10, %f11, %f12;", no_number, f32(-1)) ==
        0x7fffffff);
  CHECK(result("min.f32 %f10, %f11, %f12;", 0, 0x80000000) == 0x80000000);
  CHECK(result("max.f32 %f10, %f11, %f12;", 0x80000000, 0) == 0);
  CHECK(result("neg.f32 %f10, %f11;", 0) == 0x80000000);
  CHECK(result("abs.f32 %f10, %f11;", f32(-2)) == f32(2));
  // The sign is that of the first.
  CHECK(result("copysign.f32 %f10, %f11, %f12;", f32(-1), f32(3)) == f32(-3));
}

TEST_CASE("functions") {
  CHECK(result("ex2.approx.ftz.f32 %f10, %f11;", f32(3)) == f32(8));
  CHECK(result("ex2.approx.ftz.f32 %f10, %f11;", f32(-infinity)) == 0);
  CHECK(result("ex2.approx.ftz.f32 %f10, %f11;", f32(-130)) == 0);
  CHECK(result("ex2.approx.f32 %f10, %f11;", f32(-130)) == f32(0x1p-130f));
  CHECK(result("rcp.approx.ftz.f32 %f10, %f11;", f32(-4)) == f32(-0.25f));
  CHECK(result("rcp.approx.ftz.f32 %f10, %f11;", 1) == f32(infinity));
  CHECK(result("rsqrt.approx.f32 %f10, %f11;", f32(16)) == f32(0.25f));
  CHECK(result("lg2.approx.f32 %f10, %f11;", f32(0.125f)) == f32(-3));
  CHECK(result("sin.approx.f32 %f10, %f11;", 0) == 0);
  CHECK(result("cos.approx.f32 %f10, %f11;", 0) == f32(1));
  CHECK(result("tanh.approx.f32 %f10, %f11;", f32(100)) == f32(1));
}

TEST_CASE("two bf16 are multiplied and added, each for itself") {
  // Upper halves: 2 * 3 + 1; lower ones: -1 * 1 + 0.5.
  CHECK(result("fma.rn.bf16x2 %r10, %r11, %r12, %r13;", 0x4000bf80, 0x40403f80,
               0x3f803f00) == 0x40e0bf00);
  // A tie, and just above one.
  CHECK(result("fma.rn.bf16 %rs10, %rs11, %rs12, %rs13;", 0x3b80, 0x3f80,
               0x3f80) == 0x3f80);
  CHECK(result("fma.rn.bf16 %rs10, %rs11, %rs12, %rs13;", 0x3b80, 0x3f81,
               0x3f80) == 0x3f81);
  CHECK(result("fma.rn.f16x2 %r10, %r11, %r12, %r13;", 0x3c004000, 0x40004200,
               0xbc003c00) == 0x3c004700);
}

TEST_CASE("floats become halves, the first operand the upper one") {
  CHECK(result("cvt.rn.f16x2.f32 %r10, %f11, %f12;", f32(1), f32(-2)) ==
        0x3c00c000);
  CHECK(result("cvt.rn.bf16x2.f32 %r10, %f11, %f12;", f32(1), f32(-2)) ==
        0x3f80c000);
  const auto half = [](float x) {
    return result("cvt.rn.f16.f32 %rs10, %f11;", f32(x));
  };
  CHECK(half(65504) == 0x7bff);
  CHECK(half(65519.99f) == 0x7bff);
  CHECK(half(65520) == 0x7c00);
  CHECK(half(-1e30f) == 0xfc00);
  CHECK(half(1 + 0x1p-11f) == 0x3c00);
  CHECK(half(1 + 0x1.8p-10f) == 0x3c02);
  CHECK(half(0x1p-24f) == 1);
  CHECK(half(0x1p-25f) == 0);
  CHECK(half(0x1.8p-24f) == 2);
  CHECK(half(-0x1.ffep-15f) == 0x8400);
  CHECK(result("cvt.rn.f16.f32 %rs10, %f11;", no_number) == 0x7fff);
  CHECK(result("cvt.rn.bf16.f32 %rs10, %f11;", 0x3f808000) == 0x3f80);
  CHECK(result("cvt.rn.bf16.f32 %rs10, %f11;", 0x3f818000) == 0x3f82);
  CHECK(result("cvt.rn.bf16.f32 %rs10, %f11;", 0x7f7fffff) == 0x7f80);
  CHECK(result("cvt.f32.f16 %f10, %rs11;", 0x0001) == f32(0x1p-24f));
  CHECK(result("cvt.f32.f16 %f10, %rs11;", 0xc500) == f32(-5));
  CHECK(result("cvt.f32.bf16 %f10, %rs11;", 0x4049) == 0x40490000);
}

TEST_CASE("a pair of e4m3 becomes halves, the lower byte the lower one") {
  for (unsigned code = 0; code < 256; ++code) {
    const unsigned other = (code * 7 + 3) % 256;
    const auto value = [](unsigned x) {
      const int exponent = x >> 3 & 15;
      const double mantissa = x & 7;
      const double magnitude =
          exponent == 0 ? mantissa / 8 * std::pow(2.0, -6)
                        : (1 + mantissa / 8) * std::pow(2.0, exponent - 7);
      return (x & 128) != 0 ? -magnitude : magnitude;
    };
    if ((code & 127) == 127 || (other & 127) == 127)
      continue;
    const auto halves =
        result("cvt.rn.f16x2.e4m3x2 %r10, %rs11;", other << 8 | code);
    const auto low = result("cvt.f32.f16 %f10, %rs11;", halves & 0xffff);
    const auto high = result("cvt.f32.f16 %f10, %rs11;", halves >> 16);
    REQUIRE(std::bit_cast<float>(static_cast<u32>(low)) == value(code));
    REQUIRE(std::bit_cast<float>(static_cast<u32>(high)) == value(other));
  }
  CHECK(result("cvt.rn.f16x2.e4m3x2 %r10, %rs11;", 0x7fff) == 0x7fff7fff);
  const auto codes = [](float a, float b) {
    return result("cvt.rn.satfinite.e4m3x2.f32 %rs10, %f11, %f12;", f32(a),
                  f32(b));
  };
  CHECK(codes(1, -2) == 0x38c0);
  CHECK(codes(infinity, 449) == 0x7e7e);
  CHECK(codes(0x1p-10f, 0x1.8p-9f) == 0x0002);
  CHECK(codes(17, 19) == 0x585a); // ties
}

TEST_CASE("floats become integers that hold what they can") {
  const auto cut = [](float x) {
    return static_cast<u32>(result("cvt.rzi.s32.f32 %r10, %f11;", f32(x)));
  };
  CHECK(cut(-1.7f) == static_cast<u32>(-1));
  CHECK(cut(3e9f) == 0x7fffffff);
  CHECK(cut(-infinity) == 0x80000000);
  CHECK(result("cvt.rzi.s32.f32 %r10, %f11;", no_number) == 0);
  CHECK(result("cvt.rzi.u64.f64 %rd10, %fd11;", f64(-1)) == 0);
  CHECK(result("cvt.rzi.u64.f64 %rd10, %fd11;", f64(1.5e19)) ==
        15000000000000000000u);
  CHECK(result("cvt.rzi.u64.f64 %rd10, %fd11;", 0x7ff8000000000000) ==
        u64{1} << 63);
  CHECK(result("cvt.rni.s32.f32 %r10, %f11;", f32(2.5f)) == 2);
  CHECK(result("cvt.rmi.f32.f32 %f10, %f11;", f32(-2.5f)) == f32(-3));
  CHECK(result("cvt.rpi.s32.f32 %r10, %f11;", f32(2.1f)) == 3);
}

TEST_CASE("numbers are converted to others") {
  CHECK(result("cvt.rn.f32.s32 %f10, %r11;", static_cast<u32>(-16777217)) ==
        f32(-16777216));
  CHECK(result("cvt.rn.f32.u32 %f10, %r11;", 0xffffffff) == f32(0x1p32f));
  CHECK(result("cvt.rn.f32.s64 %f10, %rd11;", static_cast<u64>(-3)) == f32(-3));
  CHECK(result("cvt.rn.f64.u64 %fd10, %rd11;", ~u64{0}) == f64(0x1p64));
  CHECK(result("cvt.f64.f32 %fd10, %f11;", f32(0.1f)) == f64(double{0.1f}));
  CHECK(result("cvt.rn.f32.f64 %f10, %fd11;", f64(1 + 0x1p-24)) == f32(1));
  CHECK(result("cvt.sat.f32.f32 %f10, %f11;", f32(2)) == f32(1));
  CHECK(result("cvt.sat.f32.f32 %f10, %f11;", f32(-2)) == 0);
  CHECK(result("cvt.sat.f32.f32 %f10, %f11;", no_number) == 0);
  CHECK(result("cvt.s64.s32 %rd10, %r11;", 0x80000000) == 0xffffffff80000000);
  CHECK(result("cvt.u64.u32 %rd10, %r11;", 0x80000000) == 0x80000000);
  CHECK(result("cvt.s64.s32 %rd10, %rd11;", 0x700000080000000) ==
        0xffffffff80000000);
  CHECK(result("cvt.u16.u32 %rs10, %r11;", 0x12345678) == 0x5678);
  CHECK(result("cvt.s32.s8 %r10, %r11;", 0x180) == 0xffffff80);
  CHECK(result("cvt.sat.u8.s32 %r10, %r11;", 300) == 255);
}

TEST_CASE("registers are put together and taken apart") {
  CHECK(result("mov.b32 %r10, {%rs11, %rs12};", 0x1111, 0x2222) == 0x22221111);
  CHECK(result("mov.b64 %rd10, {%r11, %r12};", 1, 2) == pair(2, 1));
  CHECK(result("mov.b64 %rd10, {%rs11, %rs12, %rs13, %rs11};", 1, 2, 3) ==
        0x0001000300020001);
  CHECK(result("mov.b32 %r10, 0; mov.b64 {_, %r10}, %rd11;", pair(7, 8)) == 7);
  CHECK(result("mov.f32 %f10, 0f40490FDB;", 0) == 0x40490fdb);
  CHECK(result("mov.f64 %fd10, 0d3FF0000000000000;", 0) == f64(1));
}

TEST_CASE("what is not known is a fault that names it") {
  const auto of = [](const std::string& instruction) {
    return fault_of(instruction);
  };
  CHECK(says(of("frobnicate.b32 %r1, %r1;"),
             "line 16: frobnicate.b32 %r1, %r1;: the instruction "
             "frobnicate.b32 is not known"));
  CHECK(says(of("add.sat.s32 %r1, %r1, %r1;"), "add.sat.s32"));
  CHECK(says(of("mul.rz.f32 %f1, %f1, %f1;"), "rz"));
  CHECK(says(of("ld.global.L1::evict_last.u32 %r2, [%rd1];"), "evict_last"));
  CHECK(says(of("bra NOWHERE;"), "NOWHERE"));
  CHECK(says(of("add.s32 %r1, %r1, %rd1;"), "%rd1 is not of 4 bytes"));
  CHECK(says(of("add.s32 %r1, %r1, %r99;"), "%r99"));
  CHECK(says(of("mov.u32 %r2, %clock;"), "%clock"));
  CHECK(says(of("mov.u32 %tid.x, 1;"), "has to be a register"));
  CHECK(says(of("bar.sync 1;"), "barrier 0"));
  CHECK(says(of("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%f1, %f2, "
                "%f3, %f4}, {%r1, %r2}, {%r3}, {%f1, %f2, %f3, %f4};"),
             "m16n8k8"));
  CHECK_THROWS_AS(program::parse(".version 9.0\n.frob 1\n"), fault);
}

TEST_CASE("what was never written decides nothing") {
  CHECK(says(fault_of("st.global.u32 [%rd2], %r5;"), "never written"));
  CHECK(says(fault_of("add.s32 %r6, %r5, 1; st.global.u32 [%rd2], %r6;"),
             "never written"));
  CHECK(says(fault_of("ld.global.u32 %r6, [%rd9];"), "never written"));
  CHECK(says(fault_of("setp.eq.s32 %p1, %r5, 1; @%p1 bra END;"),
             "never written"));
  // Only some lanes wrote it.
  CHECK(says(fault_of("setp.lt.u32 %p1, %r1, 9; @%p1 mov.u32 %r5, 1;"
                      "mad.wide.u32 %rd3, %r1, 4, %rd2;"
                      "st.global.u32 [%rd3], %r5;"),
             "lane 9"));
  CHECK(fault_of("add.s32 %r6, %r5, 1;") == "");
}

} // namespace
