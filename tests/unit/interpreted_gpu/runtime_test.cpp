#include <catch2/catch.hpp>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <cuda_runtime_api.h>
#include <string>
#include <thread>
#include <vector>

// What stands in the CUDA runtime's place is as strict as that, or more.

extern "C" {
void** __cudaRegisterFatBinary(void*);
void __cudaRegisterFunction(void**, const char*, char*, const char*, int,
                            uint3*, uint3*, dim3*, dim3*, int*);
cudaError_t __cudaGetKernel(cudaKernel_t*, const void*);
cudaError_t __cudaLaunchKernel(cudaKernel_t, dim3, dim3, void**, std::size_t,
                               cudaStream_t);
}

namespace {

/// An entry for the threads of one block. When `body` begins, thread i has x[i]
/// in %f1 and the address of y[i] in %rd5.
std::string entry(const std::string& name, const std::string& body) {
  return ".visible .entry " + name + R"((.param .u64 x, .param .u64 y) {
  .reg .b32 %r<4>;
  .reg .b64 %rd<8>;
  .reg .f32 %f<3>;
  ld.param.u64 %rd1, [x];
  ld.param.u64 %rd2, [y];
  mov.u32 %r1, %tid.x;
  mul.wide.u32 %rd3, %r1, 4;
  add.s64 %rd4, %rd1, %rd3;
  add.s64 %rd5, %rd2, %rd3;
  ld.global.f32 %f1, [%rd4];
)" + body +
         "  ret;\n}\n";
}

/// y[i] = 2 x[i], and y[i] = x[i] by one that waits after it has read.
const std::string text = ".version 8.0\n.target sm_90\n.address_size 64\n" +
                         entry("twice", R"(
  add.rn.f32 %f2, %f1, %f1;
  st.global.f32 [%rd5], %f2;
)") + entry("reads_early", R"(
  griddepcontrol.wait;
  st.global.f32 [%rd5], %f1;
)");

/// As nvcc lays it out.
struct binary {
  std::uint32_t magic = 0xba55ed50;
  std::uint16_t version = 1, header_bytes = 16;
  std::uint64_t bytes;
  char text[2048];
};

struct wrapper {
  int magic = 0x466243b1, version = 1;
  const binary* data;
  void* file = nullptr;
};

void stub() {
  // nop
}
void stub_early() {
  // nop
}

cudaKernel_t twice() {
  static const cudaKernel_t made = [] {
    static binary all;
    all.bytes = text.size() + 1;
    REQUIRE(all.bytes <= sizeof all.text);
    std::memcpy(all.text, text.c_str(), all.bytes);
    static wrapper around;
    around.data = &all;
    auto** handle = __cudaRegisterFatBinary(&around);
    __cudaRegisterFunction(handle, reinterpret_cast<const char*>(&stub),
                           nullptr, "twice", -1, nullptr, nullptr, nullptr,
                           nullptr, nullptr);
    __cudaRegisterFunction(handle, reinterpret_cast<const char*>(&stub_early),
                           nullptr, "reads_early", -1, nullptr, nullptr,
                           nullptr, nullptr, nullptr);
    cudaKernel_t out = nullptr;
    REQUIRE(__cudaGetKernel(&out, reinterpret_cast<const void*>(&stub)) ==
            cudaSuccess);
    return out;
  }();
  return made;
}

/// Two vectors of a device, and a stream.
struct fixture {
  explicit fixture(int number) : device(number) {
    ::setenv("INTERPRETED_GPUS", "8", 1);
    REQUIRE(cudaSetDevice(device) == cudaSuccess);
    REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) ==
            cudaSuccess);
    for (auto* one : {&x, &y})
      REQUIRE(cudaMalloc(reinterpret_cast<void**>(one), bytes) == cudaSuccess);
  }
  ~fixture() {
    cudaFree(x);
    cudaFree(y);
    cudaStreamDestroy(stream);
  }

  cudaError_t launch(float* from, float* to, std::size_t shared = 0) {
    void* arguments[] = {&from, &to};
    return __cudaLaunchKernel(twice(), dim3{1}, dim3{count}, arguments, shared,
                              stream);
  }

  /// Perhaps before those before it are over; y[i] = x[i], or, if it never
  /// waits for them, 2 x[i].
  cudaError_t launch_early(float* from, float* to, bool waits = true) {
    void* arguments[] = {&from, &to};
    cudaLaunchAttribute early{};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t how{};
    how.gridDim = dim3{1};
    how.blockDim = dim3{count};
    how.stream = stream;
    how.attrs = &early;
    how.numAttrs = 1;
    (void)twice(); // is known then
    return cudaLaunchKernelExC(
        &how, reinterpret_cast<const void*>(waits ? &stub_early : &stub),
        arguments);
  }

  static constexpr unsigned count = 32;
  static constexpr std::size_t bytes = count * sizeof(float);
  const int device;
  cudaStream_t stream = nullptr;
  float *x = nullptr, *y = nullptr;
};

std::vector<float> numbers() {
  std::vector<float> out;
  for (unsigned i = 0; i < fixture::count; ++i)
    out.push_back(static_cast<float>(i));
  return out;
}

} // namespace

TEST_CASE("an interpreted GPU computes what it is launched with",
          "[interpreted_gpu]") {
  fixture on{0};
  auto from = numbers();
  CHECK(cudaMemcpyAsync(on.x, from.data(), on.bytes, cudaMemcpyHostToDevice,
                        on.stream) == cudaSuccess);
  from.assign(from.size(), -1.0f); // was read at once
  CHECK(on.launch(on.x, on.y) == cudaSuccess);
  std::vector<float> to(on.count);
  CHECK(cudaMemcpyAsync(to.data(), on.y, on.bytes, cudaMemcpyDeviceToHost,
                        on.stream) == cudaSuccess);
  CHECK(cudaStreamSynchronize(on.stream) == cudaSuccess);
  for (unsigned i = 0; i < on.count; ++i)
    CHECK(to[i] == 2.0f * static_cast<float>(i));
}

TEST_CASE("a launch for another device than the thread's is refused",
          "[interpreted_gpu]") {
  fixture on{0};
  REQUIRE(cudaSetDevice(1) == cudaSuccess);
  CHECK(on.launch(on.x, on.y) == cudaErrorInvalidResourceHandle);
  CHECK(cudaGetLastError() == cudaErrorInvalidResourceHandle);
  REQUIRE(cudaSetDevice(0) == cudaSuccess);
  CHECK(on.launch(on.x, on.y) == cudaSuccess);
  cudaError_t there = cudaSuccess;
  std::thread{[&] { // begins with device 0
    cudaSetDevice(1);
    there = on.launch(on.x, on.y);
  }}
      .join();
  CHECK(there == cudaErrorInvalidResourceHandle);
}

TEST_CASE("shared memory has to be asked for", "[interpreted_gpu]") {
  fixture on{0};
  constexpr std::size_t much = 100 << 10;
  CHECK(on.launch(on.x, on.y, much) == cudaErrorInvalidValue);
  CHECK(cudaFuncSetAttribute(reinterpret_cast<const void*>(&stub),
                             cudaFuncAttributeMaxDynamicSharedMemorySize,
                             int{228 << 10}) == cudaErrorInvalidValue);
  CHECK(cudaFuncSetAttribute(reinterpret_cast<const void*>(&stub),
                             cudaFuncAttributeMaxDynamicSharedMemorySize,
                             int{much}) == cudaSuccess);
  CHECK(on.launch(on.x, on.y, much) == cudaSuccess);
}

TEST_CASE("a graph repeats what was captured, which did not run",
          "[interpreted_gpu]") {
  fixture on{0};
  const auto from = numbers();
  cudaMemcpyAsync(on.x, from.data(), on.bytes, cudaMemcpyHostToDevice,
                  on.stream);
  cudaMemsetAsync(on.y, 0, on.bytes, on.stream);
  REQUIRE(cudaStreamBeginCapture(on.stream, cudaStreamCaptureModeThreadLocal) ==
          cudaSuccess);
  CHECK(on.launch(on.x, on.y) == cudaSuccess);
  CHECK(on.launch(on.y, on.x) == cudaSuccess);
  cudaGraph_t captured = nullptr;
  REQUIRE(cudaStreamEndCapture(on.stream, &captured) == cudaSuccess);
  cudaGraphExec_t made = nullptr;
  REQUIRE(cudaGraphInstantiate(&made, captured, 0) == cudaSuccess);
  cudaGraphDestroy(captured);
  const auto read = [&] {
    std::vector<float> out(on.count);
    cudaMemcpyAsync(out.data(), on.y, on.bytes, cudaMemcpyDeviceToHost,
                    on.stream);
    CHECK(cudaStreamSynchronize(on.stream) == cudaSuccess);
    return out;
  };
  CHECK(read()[3] == 0);
  for (const float expected : {6.0f, 24.0f}) {
    CHECK(cudaGraphLaunch(made, on.stream) == cudaSuccess);
    CHECK(read()[3] == expected);
  }
  cudaGraphExecDestroy(made);
}

TEST_CASE("what a captured stream does not allow spoils the graph",
          "[interpreted_gpu]") {
  fixture on{0};
  std::vector<float> pageable(on.count);
  void* memory = nullptr;
  const auto what = GENERATE(0, 1, 2, 3);
  REQUIRE(cudaStreamBeginCapture(on.stream, cudaStreamCaptureModeThreadLocal) ==
          cudaSuccess);
  if (what == 0)
    CHECK(cudaMalloc(&memory, 16) != cudaSuccess);
  if (what == 1)
    CHECK(cudaMemcpyAsync(on.x, pageable.data(), on.bytes,
                          cudaMemcpyHostToDevice, on.stream) != cudaSuccess);
  if (what == 2)
    CHECK(cudaStreamSynchronize(on.stream) != cudaSuccess);
  if (what == 3)
    CHECK(cudaFree(on.x) != cudaSuccess);
  cudaGraph_t captured = nullptr;
  CHECK(cudaStreamEndCapture(on.stream, &captured) != cudaSuccess);
  CHECK(captured == nullptr);
  cudaGetLastError();
  CHECK(on.launch(on.x, on.y) == cudaSuccess); // and nothing else
}

TEST_CASE("the host runs ahead of a stream, up to an event",
          "[interpreted_gpu]") {
  fixture on{0};
  float* pinned = nullptr;
  REQUIRE(cudaMallocHost(reinterpret_cast<void**>(&pinned), on.bytes) ==
          cudaSuccess);
  cudaEvent_t passed = nullptr;
  REQUIRE(cudaEventCreate(&passed) == cudaSuccess);
  CHECK(cudaEventSynchronize(passed) == cudaSuccess); // never recorded
  for (unsigned i = 0; i < on.count; ++i)
    pinned[i] = 1;
  cudaMemcpyAsync(on.x, pinned, on.bytes, cudaMemcpyHostToDevice, on.stream);
  on.launch(on.x, on.y);
  cudaMemcpyAsync(pinned, on.y, on.bytes, cudaMemcpyDeviceToHost, on.stream);
  CHECK(cudaEventRecord(passed, on.stream) == cudaSuccess);
  CHECK(cudaEventSynchronize(passed) == cudaSuccess);
  CHECK(pinned[7] == 2);
  REQUIRE(cudaSetDevice(1) == cudaSuccess);
  cudaEvent_t other = nullptr;
  REQUIRE(cudaEventCreate(&other) == cudaSuccess);
  CHECK(cudaEventRecord(other, on.stream) == cudaErrorInvalidResourceHandle);
  cudaGetLastError();
  cudaSetDevice(0);
  cudaEventDestroy(other);
  cudaEventDestroy(passed);
  CHECK(cudaFreeHost(pinned) == cudaSuccess);
}

TEST_CASE("memory of a GPU is no number until it is written, and has an end",
          "[interpreted_gpu]") {
  fixture on{0};
  std::vector<float> out(on.count);
  cudaMemcpyAsync(out.data(), on.x, on.bytes, cudaMemcpyDeviceToHost,
                  on.stream);
  cudaStreamSynchronize(on.stream);
  CHECK(out[0] != out[0]);
  std::size_t free = 0, all = 0;
  REQUIRE(cudaMemGetInfo(&free, &all) == cudaSuccess);
  void* memory = nullptr;
  CHECK(cudaMalloc(&memory, free + 1) == cudaErrorMemoryAllocation);
  CHECK(memory == nullptr);
}

TEST_CASE("a copy stays within what was allocated", "[interpreted_gpu]") {
  fixture on{0};
  std::vector<float> host(2 * on.count);
  const auto in = [&](float* to, std::size_t bytes) {
    return cudaMemcpyAsync(to, host.data(), bytes, cudaMemcpyHostToDevice,
                           on.stream);
  };
  CHECK(in(on.x, on.bytes) == cudaSuccess);
  CHECK(in(on.x + 1, on.bytes) == cudaErrorInvalidValue);
  CHECK(in(host.data(), on.bytes) == cudaErrorInvalidValue);
  CHECK(cudaMemcpyAsync(host.data(), on.x, on.bytes + 4, cudaMemcpyDeviceToHost,
                        on.stream) == cudaErrorInvalidValue);
  CHECK(cudaMemsetAsync(on.x, 0, on.bytes + 4, on.stream) ==
        cudaErrorInvalidValue);
  cudaGetLastError();
  CHECK(cudaStreamSynchronize(on.stream) == cudaSuccess);
}

TEST_CASE("a GPU's memory is reached by another that asked for it alone",
          "[interpreted_gpu]") {
  fixture on{0}, other{1};
  REQUIRE(cudaSetDevice(0) == cudaSuccess);
  int can = 0;
  CHECK(cudaDeviceCanAccessPeer(&can, 0, 1) == cudaSuccess);
  CHECK(can == 1);
  CHECK(cudaDeviceEnablePeerAccess(1, 0) == cudaSuccess);
  CHECK(cudaDeviceEnablePeerAccess(1, 0) == cudaErrorPeerAccessAlreadyEnabled);
  cudaGetLastError();
  const auto from = numbers();
  cudaMemcpyAsync(on.x, from.data(), on.bytes, cudaMemcpyHostToDevice,
                  on.stream);
  CHECK(on.launch(on.x, other.y) == cudaSuccess);
  CHECK(cudaStreamSynchronize(on.stream) == cudaSuccess);
}

TEST_CASE("what a kernel may not touch ends its device", "[interpreted_gpu]") {
  fixture other{0};
  const auto refused = [&](int device, auto wrong) {
    fixture on{device};
    CHECK(on.launch(wrong(on), on.y) == cudaSuccess);
    CHECK(cudaStreamSynchronize(on.stream) == cudaErrorLaunchFailure);
    CHECK(on.launch(on.x, on.y) == cudaErrorLaunchFailure);
    void* memory = nullptr;
    CHECK(cudaMalloc(&memory, 16) == cudaErrorLaunchFailure);
  };
  refused(2, [](fixture& on) { return on.x + 1; }); // the last one is outside
  refused(3, [](fixture&) { return static_cast<float*>(nullptr); });
  refused(4, [&](fixture&) { return other.x; });
  {
    fixture on{5};
    CHECK(on.launch_early(on.x, on.y, false) == cudaSuccess);
    CHECK(cudaStreamSynchronize(on.stream) == cudaErrorLaunchFailure);
  }
  REQUIRE(cudaSetDevice(0) == cudaSuccess);
  CHECK(other.launch(other.x, other.y) == cudaSuccess);
  CHECK(cudaStreamSynchronize(other.stream) == cudaSuccess);
}

TEST_CASE("a launch that begins early does not read what those before it write",
          "[interpreted_gpu]") {
  const auto from = numbers();
  const auto copy_to = [&](fixture& on, float* to) {
    return cudaMemcpyAsync(to, from.data(), on.bytes, cudaMemcpyHostToDevice,
                           on.stream);
  };
  float* z = nullptr;
  fixture on{6};
  REQUIRE(cudaMalloc(reinterpret_cast<void**>(&z), on.bytes) == cudaSuccess);
  // Others wrote it, but a copy, or a launch that waits for all, is between.
  CHECK(copy_to(on, on.x) == cudaSuccess);
  CHECK(on.launch(on.x, on.y) == cudaSuccess);
  CHECK(copy_to(on, on.x) == cudaSuccess);
  CHECK(on.launch_early(on.y, z) == cudaSuccess);
  CHECK(on.launch(on.x, on.y) == cudaSuccess);
  CHECK(on.launch_early(on.x, z) == cudaSuccess);
  CHECK(cudaStreamSynchronize(on.stream) == cudaSuccess);
  // One that began early is between: those before it may run still.
  CHECK(on.launch(on.x, on.y) == cudaSuccess);
  CHECK(on.launch_early(on.x, z) == cudaSuccess);
  CHECK(on.launch_early(on.y, z) == cudaSuccess);
  CHECK(cudaStreamSynchronize(on.stream) == cudaErrorLaunchFailure);
}
