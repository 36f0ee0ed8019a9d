#include "tests/unit/ptx/one_kernel.hpp"

#include <atomic>
#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <numeric>
#include <thread>

using namespace troupe::ptx;

namespace {

using u32 = std::uint32_t;
using u64 = std::uint64_t;

/// Each thread's word of `in` in %r2, its address in `out` in %rd4.
const std::string own_word = R"(
  mad.wide.u32 %rd3, %r1, 4, %rd1;
  mad.wide.u32 %rd4, %r1, 4, %rd2;
  ld.global.u32 %r2, [%rd3];
)";
const std::string shared_base = "mov.u32 %r20, dynamic;\n"
                                "shl.b32 %r21, %r1, 2;\n"
                                "add.s32 %r22, %r20, %r21;\n";

std::vector<u32> words_of(const std::string& body, unsigned threads = 32,
                          std::size_t shared_bytes = 0) {
  std::vector<u32> in(256), out(256);
  std::iota(in.begin(), in.end(), 100u);
  run_body(body, threads, in, out, shared_bytes);
  out.resize(threads);
  return out;
}

// -- where threads go ---------------------------------------------------------

TEST_CASE("threads part and meet again") {
  const auto out = words_of(own_word + R"(
    mov.u32 %r3, 0;
    mov.u32 %r4, 0;
    setp.eq.s32 %p1, %r1, 0;
    @%p1 bra DONE;
LOOP:
    add.s32 %r3, %r3, %r4;
    add.s32 %r4, %r4, 1;
    and.b32 %r5, %r1, 1;
    setp.eq.s32 %p2, %r5, 0;
    @%p2 bra EVEN;
    add.s32 %r3, %r3, 1000;
    bra.uni NEXT;
EVEN:
    add.s32 %r3, %r3, 1;
NEXT:
    setp.lt.u32 %p3, %r4, %r1;
    @%p3 bra LOOP;
DONE:
    shfl.sync.bfly.b32 %r6|%p4, %r3, 1, 31, -1;
    add.s32 %r3, %r3, %r6;
    st.global.u32 [%rd4], %r3;
)");
  const auto alone = [](u32 t) {
    return t * (t - 1) / 2 * (t > 0) + t * (t % 2 == 1 ? 1000 : 1);
  };
  for (u32 t = 0; t < 32; ++t)
    CHECK(out[t] == alone(t) + alone(t ^ 1));
}

TEST_CASE("a lane waits for others that come from further on") {
  const auto out = words_of(own_word + R"(
    setp.gt.u32 %p1, %r1, 3;
    @%p1 bra LATER;
MEET:
    shfl.sync.idx.b32 %r3, %r2, 31, 31, -1;
    st.global.u32 [%rd4], %r3;
    bra END;
LATER:
    add.s32 %r2, %r2, 1;
    bra MEET;
)");
  CHECK(out == std::vector<u32>(32, 132));
}

TEST_CASE("all blocks and threads of a launch run") {
  const auto all = program::parse(R"(.version 9.0
.target sm_90a
.address_size 64
.global .align 4 .u32 seven = 7;
.visible .entry k(.param .align 4 .b8 first[12], .param .u64 out)
.maxntid 64, 1, 1
{
  .reg .b32 %r<20>;
  .reg .b64 %rd<5>;
  ld.param.u32 %r1, [first+8];
  ld.param.u64 %rd1, [out];
  mov.u32 %r2, %ctaid.x;
  mov.u32 %r3, %ctaid.y;
  mov.u32 %r4, %nctaid.x;
  mov.u32 %r5, %tid.x;
  mov.u32 %r6, %tid.y;
  mov.u32 %r7, %ntid.x;
  mov.u32 %r8, %ntid.y;
  mad.lo.s32 %r9, %r3, %r4, %r2;
  mul.lo.s32 %r10, %r9, %r8;
  add.s32 %r10, %r10, %r6;
  mad.lo.s32 %r11, %r10, %r7, %r5;
  ld.global.u32 %r12, [seven];
  mul.lo.s32 %r13, %r11, %r12;
  add.s32 %r13, %r13, %r1;
  mul.wide.u32 %rd2, %r11, 4;
  add.s64 %rd3, %rd1, %rd2;
  st.global.u32 [%rd3], %r13;
  ret;
}
)");
  CHECK(all.names() == std::vector<std::string>{"k"});
  CHECK(all.find("j") == nullptr);
  const auto& k = *all.find("k");
  CHECK(k.parameters.size() == 2);
  CHECK(k.parameters[1].offset == 16);
  CHECK(k.threads_most == 64);
  std::vector<u32> out(3 * 2 * 33);
  memory known;
  known.add(out.data(), out.size() * 4);
  u32 first[3] = {1, 2, 3};
  void* to = out.data();
  void* arguments[] = {first, &to};
  const auto done = run(k, {{3, 2, 1}, {11, 3, 1}, 0, arguments}, known);
  for (u32 n = 0; n < out.size(); ++n)
    CHECK(out[n] == 7 * n + 3);
  CHECK(done.lane_instructions == 20u * out.size());
  CHECK(done.instructions == 20u * 12);
  CHECK_THROWS_AS(run(k, {{1, 1, 1}, {65, 1, 1}, 0, arguments}, known), fault);
  CHECK_THROWS_AS(run(k, {{1, 1, 1}, {0, 1, 1}, 0, arguments}, known), fault);
  CHECK_THROWS_AS(run(k, {{0, 1, 1}, {1, 1, 1}, 0, arguments}, known), fault);
  CHECK_THROWS_AS(
      run(k, {{1, 1, 1}, {1, 1, 1}, (227 << 10) + 1, arguments}, known), fault);
}

TEST_CASE("a thread that is missing is a fault") {
  const auto missing = fault_of("setp.gt.u32 %p1, %r1, 3; @%p1 bra END;"
                                "shfl.sync.bfly.b32 %r3, %r1, 1, 31, -1;");
  CHECK(says(missing, "lane 4 has ended"));
  CHECK(says(missing, "shfl.sync.bfly.b32"));
  CHECK(says(missing, "kernel k, block (0, 0, 0), thread (0, 0, 0)"));
  CHECK(says(fault_of("bar.warp.sync -1;", 31), "does not exist"));
  CHECK(says(fault_of("setp.gt.u32 %p1, %r1, 3; @%p1 bra OTHER;"
                      "bar.warp.sync -1; bra END;\n"
                      "OTHER: bar.warp.sync -1;"),
             "not all lanes come"));
  CHECK(says(fault_of("setp.gt.u32 %p1, %r1, 3; @!%p1 bar.sync 0;"),
             "has ended"));
  CHECK(says(fault_of("setp.gt.u32 %p1, %r1, 31; @%p1 bra END;"
                      "bar.sync 0;",
                      64),
             "warp 1 has ended and never comes to this barrier"));
  CHECK(fault_of("setp.gt.u32 %p1, %r1, 31; @%p1 bra OTHER;"
                 "bar.sync 0; bra END;\nOTHER: bar.sync 0;",
                 64) == "");
  CHECK(says(fault_of("shfl.sync.idx.b32 %r3, %r1, 4, 31, 15;"),
             "not of its own mask"));
  CHECK(says(fault_of("setp.gt.u32 %p1, %r1, 3; @%p1 bra END;"
                      "shfl.sync.idx.b32 %r3, %r1, 4, 31, 15;"),
             "asks lane 4"));
  CHECK(says(fault_of("trap;"), "a trap"));
}

TEST_CASE("a thread waits for another of this process") {
  std::vector<u32> in(1), out(32);
  std::thread other{[&] {
    std::this_thread::sleep_for(std::chrono::milliseconds{20});
    std::atomic_ref{in[0]}.store(5, std::memory_order_release);
    while (std::atomic_ref{out[0]}.load(std::memory_order_acquire) != 6)
      std::this_thread::yield();
    std::atomic_ref{in[0]}.store(7, std::memory_order_release);
  }};
  run_body(R"(
    setp.ne.s32 %p1, %r1, 0;
    @%p1 bra READY;
LOOP:
    ld.acquire.sys.u32 %r2, [%rd1];
    setp.eq.s32 %p2, %r2, 5;
    @%p2 bra FIVE;
    nanosleep.u32 20;
    bra LOOP;
FIVE:
    st.release.sys.u32 [%rd2], 6;
AGAIN:
    ld.acquire.sys.u32 %r2, [%rd1];
    setp.ne.s32 %p2, %r2, 7;
    @%p2 bra AGAIN;
    st.global.u32 [%rd2+4], %r2;
READY:
    bar.sync 0;
)",
           64, in, out);
  other.join();
  CHECK(out[0] == 6);
  CHECK(out[1] == 7);
}

TEST_CASE("memory that is taken away while a kernel runs is no memory") {
  std::vector<u32> in(1), other(1);
  const auto all = program::parse(text_of(R"(
    ld.global.u64 %rd3, [%rd2];
LOOP:
    ld.global.u32 %r2, [%rd3];
    st.release.sys.u32 [%rd1], 1;
WAIT:
    ld.acquire.sys.u32 %r3, [%rd1];
    setp.ne.s32 %p1, %r3, 2;
    @%p1 bra WAIT;
    bra LOOP;
)"));
  memory known;
  void* address = other.data();
  known.add(in.data(), 4);
  known.add(&address, 8);
  known.add(other.data(), 4);
  void* from = in.data();
  void* to = &address;
  void* arguments[] = {&from, &to};
  std::thread host{[&] {
    while (std::atomic_ref{in[0]}.load() != 1)
      std::this_thread::yield();
    known.remove(other.data());
    std::atomic_ref{in[0]}.store(2);
  }};
  CHECK_THROWS_AS(
      run(*all.find("k"), {{1, 1, 1}, {1, 1, 1}, 0, arguments}, known), fault);
  host.join();
}

// -- memory -------------------------------------------------------------------

TEST_CASE("vectors are read and written in order") {
  std::vector<u32> in{1, 2, 3, 4}, out(8);
  run_body("ld.global.v4.u32 {%r2, %r3, %r4, %r5}, [%rd1];"
           "st.global.v2.u32 [%rd2+8], {%r2, %r3};"
           "ld.global.v4.u8 {%rs1, %rs2, %rs3, %rs4}, [%rd1+4];"
           "st.global.v2.u16 [%rd2+4], {%rs2, %rs1};"
           "st.global.u8 [%rd2], %rs1;"
           "ld.global.s8 %r6, [%rd2]; neg.s32 %r6, %r6;"
           "st.global.u8 [%rd2+16], %r6; ld.global.s8 %rs5, [%rd2+16];"
           "cvt.s32.s16 %r7, %rs5; st.global.u32 [%rd2+20], %r7;"
           "ld.global.u8 %r8, [%rd2+16]; st.global.u32 [%rd2+24], %r8;",
           1, in, out);
  CHECK(out ==
        std::vector<u32>{2, 0x00020000, 1, 2, 0xfe, 0xfffffffe, 0xfe, 0});
}

TEST_CASE("an address of the whole may be of any space") {
  const auto out = words_of(R"(
    .local .align 8 .b8 mine[16];
    .shared .align 4 .b8 of_block[256];
    .reg .b64 %a, %b;
)" + own_word + R"(
    mov.b64 %a, mine;
    cvta.local.u64 %b, %a;
    st.u32 [%b+4], %r2;
    ld.local.u32 %r3, [mine+4];
    mov.u32 %r4, of_block;
    shl.b32 %r5, %r1, 2;
    add.s32 %r4, %r4, %r5;
    cvt.u64.u32 %a, %r4;
    cvta.shared.u64 %rd5, %a;
    st.u32 [%rd5], %r3;
    and.b32 %r6, %r1, 1;
    setp.eq.s32 %p1, %r6, 0;
    cvta.global.u64 %rd6, %rd3;
    selp.b64 %rd7, %rd5, %rd6, %p1;
    ld.u32 %r7, [%rd7];
    cvta.to.shared.u64 %rd8, %rd5;
    ld.shared.u32 %r8, [%rd8];
    add.s32 %r9, %r7, %r8;
    st.global.u32 [%rd4], %r9;
)");
  for (u32 t = 0; t < 32; ++t)
    CHECK(out[t] == 2 * (100 + t));
}

TEST_CASE("an access that is not within one allocation is a fault") {
  CHECK(says(fault_of("ld.global.u32 %r2, [%rd1+1024];"), "no memory at"));
  CHECK(says(fault_of("ld.global.u32 %r2, [%rd1-4];"), "no memory at"));
  CHECK(says(fault_of("ld.global.v4.u32 {%r2, %r3, %r4, %r5}, [%rd1+4];"),
             "no multiple of 16"));
  CHECK(says(fault_of("mov.u64 %rd3, 0; st.global.u32 [%rd3], 1;"),
             "no memory at 0x0"));
  // Of one lane alone.
  CHECK(says(fault_of("mad.wide.u32 %rd3, %r1, 40, %rd1;"
                      "ld.global.u32 %r2, [%rd3];"),
             "lane 26"));
  CHECK(
      says(fault_of("st.shared.u32 [dynamic+64], %r1;", 1, 64), "not within"));
  CHECK(says(fault_of("st.shared.u32 [dynamic+2], %r1;", 1, 64),
             "no multiple of 4"));
  CHECK(says(fault_of(".local .align 4 .b8 mine[8];"
                      "st.local.u32 [mine+8], %r1;"),
             "local memory"));
  CHECK(says(fault_of("mov.u32 %r2, 0; st.shared.u32 [%r2], %r1;", 1, 64),
             "not within"));

  // A part of an element beyond the end.
  std::vector<u64> words(4);
  std::vector<u32> out(32);
  const auto all = program::parse(text_of("ld.global.u64 %rd3, [%rd1+8];"));
  memory known;
  known.add(words.data(), 12);
  void* from = words.data();
  void* arguments[] = {&from, &from};
  const launch once{{1, 1, 1}, {1, 1, 1}, 0, arguments};
  CHECK_THROWS_AS(run(*all.find("k"), once, known), fault);
  CHECK_THROWS_AS(known.add(words.data() + 1, 8), std::invalid_argument);
  known.remove(words.data());
  CHECK_THROWS_AS(known.remove(words.data()), std::invalid_argument);
  known.add(words.data(), 16);
  run(*all.find("k"), once, known);
  known.remove(words.data());
  CHECK_THROWS_AS(run(*all.find("k"), once, known), fault);
}

TEST_CASE("what is shared is written before it is read") {
  CHECK(says(fault_of(shared_base + "ld.shared.u32 %r2, [%r22];", 32, 128),
             "never written in this block"));
  CHECK(says(fault_of("st.shared.u16 [dynamic], 5;"
                      "ld.shared.u32 %r2, [dynamic];",
                      1, 128),
             "shared memory at 2 is read"));
  // The block before wrote it.
  std::vector<u32> in(1), out(1);
  CHECK_THROWS_AS(run_body("mov.u32 %r2, %ctaid.x; setp.eq.s32 %p1, %r2, 0;"
                           "@%p1 st.shared.u32 [dynamic], 5;"
                           "ld.shared.u32 %r2, [dynamic];",
                           1, in, out, 64, 2),
                  fault);
}

TEST_CASE("warps that do not wait for each other race") {
  const auto of = [](const std::string& body) {
    return fault_of(shared_base + body, 64, 512);
  };
  const std::string other_warp = "xor.b32 %r23, %r21, 128;\n"
                                 "add.s32 %r23, %r20, %r23;\n";
  const auto read_after =
      of(other_warp + "st.shared.u32 [%r22], 1;\nld.shared.u32 %r2, [%r23];");
  CHECK((says(read_after, "never written") || says(read_after, "a race")));
  // Warp 0 alone reads, what warp 1 then writes.
  const auto write_read = of(other_warp + "st.shared.u32 [%r22], 1;\n"
                                          "bar.sync 0;\n"
                                          "setp.lt.u32 %p1, %r1, 32;\n"
                                          "@%p1 ld.shared.u32 %r2, [%r23];\n"
                                          "st.shared.u32 [%r22], 2;");
  CHECK(says(write_read, "a race for shared memory"));
  CHECK(says(write_read, "this writes what, since the last barrier, warp 0 "
                         "reads by PTX line"));
  CHECK(says(write_read, "ld.shared.u32 %r2, [%r23];"));
  CHECK(says(write_read, "st.shared.u32 [%r22], 2;"));
  CHECK(of(other_warp + "st.shared.u32 [%r22], 1; bar.sync 0;"
                        "ld.shared.u32 %r2, [%r23]; bar.sync 0;"
                        "st.shared.u32 [%r22], 2;") == "");
  CHECK(says(of("st.shared.u32 [dynamic], 1;"), "writes by"));
  // Halves of a word are told apart.
  const std::string half = "shr.u32 %r24, %r1, 5; shl.b32 %r24, %r24, 1;"
                           "add.s32 %r24, %r20, %r24;";
  CHECK(of(half + "st.shared.u16 [%r24], 7;") == "");
  CHECK(says(of(half + "st.shared.u16 [%r24], 7; bar.sync 0;"
                       "ld.shared.u32 %r2, [dynamic];"
                       "st.shared.u16 [%r24], 8;"),
             "a race"));
  // Atomic ones among themselves do not.
  const std::string first = "setp.eq.s32 %p1, %r1, 0;"
                            "@%p1 st.shared.u32 [dynamic], 0; bar.sync 0;\n";
  CHECK(of(first + "atom.shared.add.u32 %r2, [dynamic], 1;") == "");
  CHECK(says(of(first + "atom.shared.add.u32 %r2, [dynamic], 1;"
                        "ld.shared.u32 %r2, [dynamic];"),
             "a race"));
}

TEST_CASE("lanes that write different values at once are a fault") {
  CHECK(
      says(fault_of("st.shared.u32 [dynamic], %r1;", 32, 64), "another lane"));
  CHECK(fault_of("st.shared.u32 [dynamic], 5;", 32, 64) == "");
  CHECK(says(fault_of("st.global.u32 [%rd2], %r1;"), "another lane"));
}

TEST_CASE("atomic operations give what was there") {
  const auto out = words_of(own_word + R"(
    setp.eq.s32 %p1, %r1, 0;
    @%p1 st.shared.u64 [dynamic], 1000;
    bar.sync 0;
    cvt.u64.u32 %rd5, %r1;
    atom.shared.add.u64 %rd6, [dynamic], %rd5;
    cvt.u32.u64 %r3, %rd6;
    st.global.u32 [%rd4], %r3;
)",
                            32, 64);
  for (u32 t = 0; t < 32; ++t)
    CHECK(out[t] == 1000 + t * (t - 1) / 2 * (t > 0));
}

TEST_CASE("blocks that count begin anew after the last") {
  constexpr u32 bound = 2;
  const auto out = words_of(own_word + R"(
    setp.eq.s32 %p1, %r1, 0;
    @%p1 st.shared.u32 [dynamic], 0;
    bar.sync 0;
    atom.acq_rel.gpu.shared.inc.u32 %r3, [dynamic], 2;
    st.global.u32 [%rd4], %r3;
)",
                            32, 64);
  for (u32 t = 0; t < 32; ++t)
    CHECK(out[t] == t % (bound + 1));
}

// -- asynchronous copies ------------------------------------------------------

const std::string copy_word = R"(
    mad.wide.u32 %rd5, %r1, 16, %rd1;
    mad.wide.u32 %rd4, %r1, 4, %rd2;
    shl.b32 %r21, %r1, 4;
    mov.u32 %r20, dynamic;
    add.s32 %r22, %r20, %r21;
    and.b32 %r3, %r1, 1;
    shl.b32 %r3, %r3, 4;
)";
const std::string begin_copy =
    "cp.async.cg.shared.global [%r22], [%rd5], 16, %r3;\n"
    "cp.async.commit_group;\n";

TEST_CASE("an asynchronous copy is there when it was waited for") {
  const auto out = words_of(copy_word + begin_copy + R"(
    cp.async.wait_group 0;
    bar.sync 0;
    ld.shared.u32 %r4, [%r22+8];
    st.global.u32 [%rd4], %r4;
)",
                            32, 512);
  for (u32 t = 0; t < 32; ++t)
    CHECK(out[t] == (t % 2 == 0 ? 0 : 100 + 4 * t + 2));
}

TEST_CASE("an asynchronous copy that was not waited for is nobody's") {
  const auto of = [](const std::string& body) {
    return fault_of(copy_word + begin_copy + body, 32, 2048);
  };
  const std::string wait = "cp.async.wait_group 0;";
  CHECK(of(wait) == "");
  CHECK(of("cp.async.wait_all;") == "");
  CHECK(says(of(""), "ends before it has waited"));
  CHECK(says(of("ld.shared.u32 %r4, [%r22];" + wait), "was waited for"));
  CHECK(says(of("st.shared.u32 [%r22], 1;" + wait), "was waited for"));
  // One group may be left, and is.
  CHECK(says(of("cp.async.wait_group 1; ld.shared.u32 %r4, [%r22];"),
             "was waited for"));
  CHECK(of("cp.async.commit_group; cp.async.wait_group 1;"
           "ld.shared.u32 %r4, [%r22];") == "");
  CHECK(says(fault_of(copy_word + "add.s32 %r22, %r22, 8;" + begin_copy + wait,
                      32, 2048),
             "no multiple of 16"));
  CHECK(says(fault_of(copy_word + "add.s64 %rd5, %rd5, 8;" + begin_copy + wait,
                      32, 2048),
             "no multiple of 16"));
  CHECK(says(fault_of(copy_word + begin_copy + wait, 32, 511), "not within"));
  // Another warp reads before a barrier.
  CHECK(says(fault_of(copy_word + begin_copy + wait +
                          "setp.gt.u32 %p1, %r1, 31; xor.b32 %r23, %r21, 512;"
                          "add.s32 %r23, %r23, %r20;"
                          "@%p1 ld.shared.u32 %r4, [%r23];",
                      64, 2048),
             "a race"));
}

// -- of a warp ----------------------------------------------------------------

TEST_CASE("lanes give each other what they have") {
  const auto of = [](const std::string& shuffle) {
    return words_of(own_word + shuffle + "\nst.global.u32 [%rd4], %r3;");
  };
  const auto range = [](const std::string& shuffle) {
    return words_of(own_word + shuffle +
                    "\nselp.b32 %r3, 1, 0, %p1; st.global.u32 [%rd4], %r3;");
  };
  const auto bfly = of("shfl.sync.bfly.b32 %r3|%p1, %r2, 5, 31, -1;");
  const auto up = of("shfl.sync.up.b32 %r3|%p1, %r2, 3, 0, -1;");
  const auto down = of("shfl.sync.down.b32 %r3|%p1, %r2, 3, 31, -1;");
  // Segments of 8: c is 24 << 8 | 7.
  const auto index = of("shfl.sync.idx.b32 %r3|%p1, %r2, 10, 6151, -1;");
  const auto down_8 = of("shfl.sync.down.b32 %r3|%p1, %r2, 3, 6151, -1;");
  const auto in_range = range("shfl.sync.up.b32 %r3|%p1, %r2, 3, 0, -1;");
  for (u32 t = 0; t < 32; ++t) {
    CHECK(bfly[t] == 100 + (t ^ 5));
    CHECK(up[t] == 100 + (t < 3 ? t : t - 3));
    CHECK(down[t] == 100 + (t + 3 > 31 ? t : t + 3));
    CHECK(index[t] == 100 + t / 8 * 8 + 2);
    CHECK(down_8[t] == 100 + (t % 8 + 3 > 7 ? t : t + 3));
    CHECK(in_range[t] == (t < 3 ? 0 : 1));
  }
  const auto odd = of("setp.gt.u32 %p1, %r1, 20;"
                      "vote.sync.ballot.b32 %r3, %p1, -1;");
  CHECK(odd[0] == 0xffe00000);
  CHECK(of("setp.gt.u32 %p1, %r1, 20; vote.sync.any.pred %p2, %p1, -1;"
           "vote.sync.all.pred %p3, %p1, -1; selp.b32 %r3, 1, 0, %p2;"
           "@%p3 mov.u32 %r3, 2;")[31] == 1);
}

/// The product of two matrices of which each number is another.
void check_product(const std::string& of, u32 (*word)(float low, float high)) {
  const auto a = [](unsigned row, unsigned k) {
    return static_cast<float>(static_cast<int>(row * 16 + k) - 100);
  };
  const auto b = [](unsigned k, unsigned column) {
    return static_cast<float>(static_cast<int>(k * 8 + column) - 50) / 8;
  };
  const auto c = [](unsigned row, unsigned column) {
    return static_cast<float>(row * 8 + column) + 0.5f;
  };
  // Of each lane: 4 words of a, 2 of b, 4 of c (PTX ISA, figures of m16n8k16).
  std::vector<u32> in(32 * 10), out(32 * 4);
  for (unsigned lane = 0; lane < 32; ++lane) {
    const unsigned group = lane / 4, in_group = lane % 4;
    auto* to = &in[lane * 10];
    for (unsigned i = 0; i < 8; i += 2) {
      const unsigned row = i < 2 || (i >= 4 && i < 6) ? group : group + 8;
      const unsigned k = in_group * 2 + (i < 4 ? 0 : 8);
      *to++ = word(a(row, k), a(row, k + 1));
    }
    for (unsigned i = 0; i < 4; i += 2) {
      const unsigned k = in_group * 2 + (i < 2 ? 0 : 8);
      *to++ = word(b(k, group), b(k + 1, group));
    }
    for (unsigned i = 0; i < 4; ++i)
      *to++ = std::bit_cast<u32>(
          c(i < 2 ? group : group + 8, in_group * 2 + (i & 1)));
  }
  std::string body = "mad.wide.u32 %rd3, %r1, 40, %rd1;"
                     "mad.wide.u32 %rd4, %r1, 16, %rd2;\n";
  for (unsigned n = 0; n < 10; ++n)
    body += "ld.global.u32 %r" + std::to_string(10 + n) + ", [%rd3+" +
            std::to_string(4 * n) + "];\n";
  for (unsigned n = 0; n < 4; ++n)
    body += "mov.b32 %f" + std::to_string(n) + ", %r" + std::to_string(16 + n) +
            ";\n";
  body += "mma.sync.aligned.m16n8k16.row.col.f32." + of + "." + of +
          ".f32 {%f0, %f1, %f2, %f3}, {%r10, %r11, %r12, %r13}, {%r14, %r15}, "
          "{%f0, %f1, %f2, %f3};\n"
          "st.global.v4.f32 [%rd4], {%f0, %f1, %f2, %f3};\n";
  run_body(body, 32, in, out);
  for (unsigned lane = 0; lane < 32; ++lane)
    for (unsigned i = 0; i < 4; ++i) {
      const unsigned row = lane / 4 + (i < 2 ? 0 : 8);
      const unsigned column = lane % 4 * 2 + (i & 1);
      double sum = c(row, column);
      for (unsigned k = 0; k < 16; ++k)
        sum += double{a(row, k)} * double{b(k, column)};
      CHECK(std::bit_cast<float>(out[lane * 4 + i]) == static_cast<float>(sum));
    }
}

/// Of numbers that both kinds hold.
u32 halves_of(float low, float high) {
  const auto half = [](float x) -> u32 {
    if (x == 0)
      return 0;
    int exponent;
    const float fraction = std::frexp(std::abs(x), &exponent);
    return (x < 0 ? 0x8000u : 0u) + (static_cast<u32>(exponent + 14) << 10) +
           (static_cast<u32>(fraction * 2048) & 1023);
  };
  return half(low) | half(high) << 16;
}
u32 brains_of(float low, float high) {
  return std::bit_cast<u32>(low) >> 16 |
         (std::bit_cast<u32>(high) & 0xffff0000);
}

TEST_CASE("matrices are multiplied") {
  check_product("f16", halves_of);
  check_product("bf16", brains_of);
  CHECK(says(fault_of("setp.lt.u32 %p1, %r1, 31; mov.f32 %f1, 0f00000000;"
                      "@%p1 mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                      "{%f0, %f1, %f2, %f3}, {%r1, %r1, %r1, %r1}, {%r1, %r1}, "
                      "{%f1, %f1, %f1, %f1};"),
             "has ended"));
}

// -- launches that begin early ------------------------------------------------

/// Words 0 to 31 of memory are what an earlier launch writes, which may still
/// run; the body begins early, with the address of all of it in %rd1. What its
/// fault says; empty if there was none.
std::string fault_of_early(const std::string& body) {
  const auto all = program::parse(text_of(body));
  const auto earlier = program::parse(text_of(R"(
    mad.wide.u32 %rd3, %r1, 4, %rd1;
    st.global.u32 [%rd3], %r1;)"));
  std::vector<u32> words(128);
  memory known;
  known.add(words.data(), words.size() * sizeof(u32));
  const void* at = words.data();
  void* arguments[] = {&at, &at};
  unfinished_writes unfinished;
  launch one{{1, 1, 1}, {32, 1, 1}, 0, arguments};
  one.unfinished = &unfinished;
  run(*earlier.find("k"), one, known);
  one.begins_early = true;
  try {
    run(*all.find("k"), one, known);
  } catch (const fault& why) {
    return why.what();
  }
  return "";
}

TEST_CASE("what is written is known to the word") {
  unfinished_writes of;
  of.add(std::uint64_t{64}, 4);
  of.add(std::uint64_t{126}, 36);
  CHECK(of.touch(64, 4));
  CHECK(of.touch(60, 8));
  CHECK(!of.touch(60, 4));
  CHECK(!of.touch(68, 32));
  CHECK(of.touch(124, 1)); // words are whole
  CHECK(of.touch(160, 4));
  CHECK(!of.touch(164, 64));
  CHECK(!of.touch(64, 0));
  of.clear();
  CHECK(!of.touch(0, 256));
}

TEST_CASE("a launch that begins early waits before it uses what others write") {
  // Words from 64 on nobody writes.
  CHECK(fault_of_early(R"(
    ld.global.u32 %r2, [%rd1+256];
    griddepcontrol.launch_dependents;
    griddepcontrol.wait;
    ld.global.u32 %r3, [%rd1];
    st.global.u32 [%rd1+128], %r2;)")
            .empty());
  CHECK(says(fault_of_early(R"(
    ld.global.u32 %r2, [%rd1+124];
    griddepcontrol.wait;)"),
             "reads what an earlier launch writes"));
  CHECK(says(fault_of_early(R"(
    mov.u32 %r20, dynamic;
    cp.async.cg.shared.global [%r20], [%rd1], 16;
    griddepcontrol.wait;
    cp.async.wait_all;)"),
             "reads what an earlier launch writes"));
  CHECK(says(fault_of_early(R"(
    mov.u32 %r2, 0;
    st.global.u32 [%rd1+256], %r2;
    griddepcontrol.wait;)"),
             "writes before it has waited"));
  CHECK(says(fault_of_early(R"(
    setp.eq.s32 %p1, %r1, 3;
    @%p1 bra END;
    griddepcontrol.wait;)"),
             "ends and has not waited"));
}

TEST_CASE("several threads run one program") {
  const auto all = program::parse(
      text_of(own_word + "add.s32 %r3, %r2, 1; st.global.u32 [%rd4], %r3;"));
  memory known;
  std::vector<std::vector<u32>> in(4, std::vector<u32>(64, 7)),
      out(4, std::vector<u32>(64));
  for (unsigned n = 0; n < 4; ++n) {
    known.add(in[n].data(), 256);
    known.add(out[n].data(), 256);
  }
  std::vector<std::thread> threads;
  for (unsigned n = 0; n < 4; ++n)
    threads.emplace_back([&, n] {
      const void* from = in[n].data();
      void* to = out[n].data();
      void* arguments[] = {&from, &to};
      run(*all.find("k"), {{2, 1, 1}, {64, 1, 1}, 0, arguments}, known);
    });
  for (auto& one : threads)
    one.join();
  CHECK(out == std::vector<std::vector<u32>>(4, std::vector<u32>(64, 8)));
}

} // namespace
