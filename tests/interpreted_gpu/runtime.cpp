#include "tests/interpreted_gpu/counts.hpp"
#include "tests/interpreted_gpu/device.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

// What the module calls of CUDA's runtime, over devices that interpret PTX. It
// is linked in the runtime's place; what CUDA leaves to chance or forbids is an
// error here:
//
// - a launch for a stream of a device that is not the thread's current one, an
//   event for one of another device than its own
// - copies from and to pageable memory, waits and allocations while a stream is
//   captured
// - more shared memory than was asked for, or than there is
// - copies beyond an allocation
// - launches that begin early (programmatic dependent launch) and read before
//   they wait what those before them write, or write anything

using namespace troupe;
using namespace troupe::interpreted;

struct CUstream_st : stream {
  using stream::stream;
};

struct CUevent_st : event {
  explicit CUevent_st(int of) : device(of) {
    // nop
  }
  const int device;
};

struct CUgraph_st {
  std::vector<work> all;
};

struct CUgraphExec_st {
  std::vector<work> all;
};

namespace {

thread_local int current = 0;
thread_local cudaError_t last = cudaSuccess;
/// The stream that this thread captures.
thread_local cudaStream_t capturing = nullptr;

cudaError_t said(cudaError_t what) {
  if (what != cudaSuccess)
    last = what;
  return what;
}

/// What has failed for good.
cudaError_t failure() {
  return device_of(current).failure();
}

bool is_device(int number) {
  return number >= 0 && number < device_count();
}

/// Skipped once the device has failed.
work unless_failed(device& of, work what) {
  return [&of, what = std::move(what)] {
    if (of.failure() == cudaSuccess)
      what();
  };
}

// -- the module's kernels -----------------------------------------------------

struct loaded_program {
  ptx::program program;
  int target; ///< 90 of sm_90a
};

struct known_kernel {
  const loaded_program* of = nullptr;
  std::string name;
  /// By device; 0: nothing was.
  std::array<std::atomic<std::size_t>, devices_most> shared_asked{};
};

struct known_kernels {
  std::mutex mutex;
  std::deque<loaded_program> programs;
  std::unordered_map<const void*, known_kernel> by_stub;
};

known_kernels& kernels() {
  static auto* all = new known_kernels;
  return *all;
}

/// What nvcc puts into a module: a list of what it was compiled to, one of them
/// PTX, which is not compressed (cuda/CMakeLists.txt).
struct fat_binary {
  std::uint32_t magic;
  std::uint16_t version;
  std::uint16_t header_bytes;
  std::uint64_t bytes; ///< after the header
};

struct fat_binary_wrapper {
  int magic;
  int version;
  const fat_binary* data;
  void* file;
};

std::string_view ptx_of(const fat_binary_wrapper& wrapper) {
  const std::string_view all{reinterpret_cast<const char*>(wrapper.data),
                             wrapper.data->header_bytes + wrapper.data->bytes};
  const auto begin = all.find(".version ");
  if (begin == std::string_view::npos) {
    std::fputs("interpreted GPU: the module has no PTX\n", stderr);
    std::abort();
  }
  return all.substr(begin, all.find('\0', begin) - begin);
}

int target_of(std::string_view text) {
  constexpr std::string_view before = ".target sm_";
  const auto at = text.find(before);
  return at == std::string_view::npos
             ? 0
             : std::atoi(text.data() + at + before.size());
}

/// A kernel's arguments, which may be gone when it runs.
struct kept_arguments {
  std::vector<std::vector<std::byte>> bytes;
  std::vector<void*> places;

  kept_arguments(const ptx::kernel& of, void** arguments) {
    for (std::size_t i = 0; i < of.parameters.size(); ++i) {
      const auto* from = static_cast<const std::byte*>(arguments[i]);
      bytes.emplace_back(from, from + of.parameters[i].bytes);
    }
    for (auto& one : bytes)
      places.push_back(one.data());
  }
};

struct configuration {
  dim3 blocks, threads;
  std::size_t shared;
  cudaStream_t stream;
  bool begins_early = false;
};

thread_local std::vector<configuration> configurations;

/// Null: it is none of a module's.
known_kernel* find_kernel(const void* stub) {
  std::lock_guard guard{kernels().mutex};
  const auto found = kernels().by_stub.find(stub);
  return found == kernels().by_stub.end() ? nullptr : &found->second;
}

cudaError_t launch_kernel(known_kernel& known, const configuration& how,
                          void** arguments) {
  if (how.stream == nullptr)
    return cudaErrorInvalidResourceHandle; // ours have streams
  auto& of = how.stream->of();
  if (of.number() != current)
    return cudaErrorInvalidResourceHandle;
  if (of.failure() != cudaSuccess)
    return of.failure();
  const auto* entry = known.of->program.find(known.name);
  if (entry == nullptr)
    return cudaErrorInvalidDeviceFunction;
  constexpr unsigned blocks_y_most = 65535, threads_most = 1024;
  const auto threads = how.threads.x * how.threads.y * how.threads.z;
  const auto asked =
      known.shared_asked[static_cast<std::size_t>(current)].load();
  if (how.shared > std::max(asked, device_facts::shared_unasked) ||
      how.shared + entry->shared_bytes > device_facts::shared_most ||
      how.blocks.x == 0 || how.blocks.y == 0 || how.blocks.z == 0 ||
      how.blocks.x > 0x7fffffffu || how.blocks.y > blocks_y_most ||
      threads == 0 || threads > threads_most)
    return cudaErrorInvalidValue;
  auto kept = std::make_shared<kept_arguments>(*entry, arguments);
  return how.stream->add(unless_failed(of, [entry, kept, how, &of] {
    ptx::launch one;
    const dim3 &blocks = how.blocks, &threads = how.threads;
    one.blocks[0] = blocks.x, one.blocks[1] = blocks.y,
    one.blocks[2] = blocks.z;
    one.threads[0] = threads.x, one.threads[1] = threads.y,
    one.threads[2] = threads.z;
    one.shared_bytes = how.shared;
    one.arguments = kept->places.data();
    one.counts_traffic = counts_are_wanted();
    one.begins_early = how.begins_early;
    one.unfinished = &stream::unfinished();
    if (!one.begins_early)
      one.unfinished->clear();
    const auto done = ptx::run(*entry, one, of.reached());
    if (one.counts_traffic)
      count(entry->name, one, done);
  }));
}

cudaError_t launch_said(known_kernel& known, const configuration& how,
                        void** arguments) {
  try {
    return said(launch_kernel(known, how, arguments));
  } catch (const ptx::fault& why) {
    std::fprintf(stderr, "interpreted GPU: %s\n", why.what());
    return said(cudaErrorInvalidPtx);
  }
}

/// Done when all before it is over.
work alone(device& of, work what) {
  return unless_failed(of, [what = std::move(what)] {
    stream::unfinished().clear();
    what();
  });
}

/// Pageable memory of the host is read at once, and written before the call
/// returns.
cudaError_t copy(void* to, const void* from, std::size_t bytes,
                 cudaMemcpyKind kind, cudaStream_t stream) {
  auto& of = stream->of();
  auto move = [to, from, bytes] { std::memcpy(to, from, bytes); };
  const bool is_in = kind == cudaMemcpyHostToDevice;
  const bool is_out = kind == cudaMemcpyDeviceToHost;
  if ((!is_out && !is_on_a_device(to, bytes)) ||
      (!is_in && !is_on_a_device(from, bytes)))
    return cudaErrorInvalidValue;
  const void* host = is_in ? from : is_out ? to : nullptr;
  if (host != nullptr && !is_pinned(host, bytes)) {
    if (touches_pinned(host, bytes))
      return cudaErrorInvalidValue;
    if (stream->is_captured())
      return stream->spoil_capture();
    if (is_in) {
      const auto* first = static_cast<const char*>(from);
      auto staged = std::make_shared<std::vector<char>>(first, first + bytes);
      return stream->add(alone(of, [to, staged] {
        std::memcpy(to, staged->data(), staged->size());
      }));
    }
    const auto why = stream->add(alone(of, move));
    return why == cudaSuccess ? stream->wait() : why;
  }
  return stream->add(alone(of, move));
}

/// Of those that a launch may have, the one that is known.
std::optional<bool> begins_early(const cudaLaunchConfig_t& how) {
  bool out = false;
  for (unsigned i = 0; i < how.numAttrs; ++i) {
    if (how.attrs[i].id != cudaLaunchAttributeProgrammaticStreamSerialization)
      return std::nullopt;
    out = how.attrs[i].val.programmaticStreamSerializationAllowed != 0;
  }
  return out;
}

} // namespace

extern "C" {

// -- what nvcc's code calls ---------------------------------------------------

void** __cudaRegisterFatBinary(void* wrapper) {
  const auto text = ptx_of(*static_cast<fat_binary_wrapper*>(wrapper));
  std::lock_guard guard{kernels().mutex};
  kernels().programs.push_back(
      {ptx::program::parse(std::string{text}), target_of(text)});
  return reinterpret_cast<void**>(&kernels().programs.back());
}

void __cudaRegisterFatBinaryEnd(void**) {
  // nop
}

// For variables that a module manages, of which ours has none; unoptimised code
// has the call.
char __cudaInitModule(void**) {
  return 1;
}

// Kernels that still run use it.
void __cudaUnregisterFatBinary(void**) {
  // nop
}

void __cudaRegisterFunction(void** handle, const char* stub, char*,
                            const char* name, int, uint3*, uint3*, dim3*, dim3*,
                            int*) {
  std::lock_guard guard{kernels().mutex};
  auto& known = kernels().by_stub[stub];
  known.of = reinterpret_cast<const loaded_program*>(handle);
  known.name = name;
}

unsigned __cudaPushCallConfiguration(dim3 blocks, dim3 threads,
                                     std::size_t shared, CUstream_st* stream) {
  configurations.push_back({blocks, threads, shared, stream});
  return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3* blocks, dim3* threads,
                                       std::size_t* shared, void* stream) {
  if (configurations.empty())
    return cudaErrorMissingConfiguration;
  const auto how = configurations.back();
  configurations.pop_back();
  *blocks = how.blocks;
  *threads = how.threads;
  *shared = how.shared;
  *static_cast<cudaStream_t*>(stream) = how.stream;
  return cudaSuccess;
}

cudaError_t __cudaGetKernel(cudaKernel_t* out, const void* stub) {
  *out = reinterpret_cast<cudaKernel_t>(find_kernel(stub));
  return *out == nullptr ? said(cudaErrorInvalidDeviceFunction) : cudaSuccess;
}

cudaError_t __cudaLaunchKernel(cudaKernel_t what, dim3 blocks, dim3 threads,
                               void** arguments, std::size_t shared,
                               cudaStream_t stream) {
  return launch_said(*reinterpret_cast<known_kernel*>(what),
                     {blocks, threads, shared, stream}, arguments);
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* how, const void* stub,
                                void** arguments) {
  auto* known = find_kernel(stub);
  const auto early = begins_early(*how);
  if (known == nullptr)
    return said(cudaErrorInvalidDeviceFunction);
  if (!early)
    return said(cudaErrorNotSupported);
  return launch_said(
      *known,
      {how->gridDim, how->blockDim, how->dynamicSmemBytes, how->stream, *early},
      arguments);
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* out, const void* stub) {
  const auto* known = find_kernel(stub);
  if (known == nullptr)
    return said(cudaErrorInvalidDeviceFunction);
  std::memset(out, 0, sizeof *out);
  out->ptxVersion = known->of->target;
  out->binaryVersion = device_facts::major * 10 + device_facts::minor;
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* stub, cudaFuncAttribute which,
                                 int value) {
  if (which != cudaFuncAttributeMaxDynamicSharedMemorySize)
    return said(cudaErrorNotSupported);
  auto* known = find_kernel(stub);
  if (known == nullptr)
    return said(cudaErrorInvalidDeviceFunction);
  if (value < 0 || static_cast<std::size_t>(value) > device_facts::shared_most)
    return said(cudaErrorInvalidValue);
  known->shared_asked[static_cast<std::size_t>(current)] =
      static_cast<std::size_t>(value);
  return cudaSuccess;
}

// -- devices ------------------------------------------------------------------

cudaError_t cudaGetDeviceCount(int* count) {
  *count = device_count();
  return *count == 0 ? said(cudaErrorNoDevice) : cudaSuccess;
}

cudaError_t cudaSetDevice(int number) {
  if (!is_device(number))
    return said(cudaErrorInvalidDevice);
  current = number;
  return said(failure());
}

cudaError_t cudaGetDevice(int* number) {
  *number = current;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* out, int number) {
  if (!is_device(number))
    return said(cudaErrorInvalidDevice);
  std::memset(out, 0, sizeof *out);
  std::snprintf(out->name, sizeof out->name, "%s", device_facts::name);
  out->major = device_facts::major;
  out->minor = device_facts::minor;
  out->multiProcessorCount = device_facts::multiprocessors;
  out->sharedMemPerBlock = device_facts::shared_unasked;
  out->sharedMemPerBlockOptin = device_facts::shared_most;
  out->totalGlobalMem = device_facts::bytes;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char* out, int size, int number) {
  if (!is_device(number))
    return said(cudaErrorInvalidDevice);
  std::snprintf(out, static_cast<std::size_t>(size), "0000:%02x:00.0",
                number + 1);
  return cudaSuccess;
}

cudaError_t cudaDeviceCanAccessPeer(int* can, int from, int to) {
  if (!is_device(from) || !is_device(to))
    return said(cudaErrorInvalidDevice);
  *can = from != to ? 1 : 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceEnablePeerAccess(int to, unsigned flags) {
  if (!is_device(to) || flags != 0)
    return said(cudaErrorInvalidValue);
  return said(device_of(current).reach(device_of(to)));
}

cudaError_t cudaGetLastError() {
  const auto out = last;
  last = failure();
  return out;
}

const char* cudaGetErrorString(cudaError_t what) {
  switch (what) {
  case cudaSuccess:
    return "no error";
  case cudaErrorMemoryAllocation:
    return "out of memory";
  case cudaErrorNoDevice:
    return "no CUDA-capable device is detected";
  case cudaErrorLaunchFailure:
    return "a kernel or a copy failed (said above)";
  case cudaErrorInvalidPtx:
    return "a kernel's PTX cannot be read (said above)";
  case cudaErrorInvalidResourceHandle:
    return "a stream or an event is not of the current device";
  case cudaErrorStreamCaptureUnsupported:
  case cudaErrorStreamCaptureInvalidated:
    return "a call that a captured stream does not allow";
  default: {
    thread_local std::string number;
    number = "error " + std::to_string(what) + " of the runtime";
    return number.c_str();
  }
  }
}

// -- memory -------------------------------------------------------------------

cudaError_t cudaMalloc(void** out, std::size_t bytes) {
  if (capturing != nullptr)
    return said(capturing->spoil_capture());
  if (failure() != cudaSuccess)
    return said(failure());
  *out = nullptr;
  if (bytes == 0)
    return cudaSuccess;
  *out = device_of(current).allocate(bytes);
  return *out == nullptr ? said(cudaErrorMemoryAllocation) : cudaSuccess;
}

// Of whichever device; all that it does is over first.
cudaError_t cudaFree(void* at) {
  if (at == nullptr)
    return cudaSuccess;
  if (capturing != nullptr)
    return said(capturing->spoil_capture());
  for (int i = 0; i < device_count(); ++i)
    if (device_of(i).has(at)) {
      device_of(i).finish();
      device_of(i).release(at);
      return said(failure());
    }
  return said(cudaErrorInvalidValue);
}

cudaError_t cudaMallocHost(void** out, std::size_t bytes) {
  if (capturing != nullptr)
    return said(capturing->spoil_capture());
  *out = allocate_pinned(bytes);
  return *out == nullptr ? said(cudaErrorMemoryAllocation) : cudaSuccess;
}

cudaError_t cudaFreeHost(void* at) {
  return at == nullptr || release_pinned(at) ? cudaSuccess
                                             : said(cudaErrorInvalidValue);
}

cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* all) {
  if (failure() != cudaSuccess)
    return said(failure());
  *free = device_of(current).free_bytes();
  *all = device_facts::bytes;
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes,
                            cudaStream_t stream) {
  if (!is_on_a_device(to, bytes))
    return said(cudaErrorInvalidValue);
  return said(
      stream->add(alone(stream->of(), [=] { std::memset(to, value, bytes); })));
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes,
                            cudaMemcpyKind kind, cudaStream_t stream) {
  return said(copy(to, from, bytes, kind, stream));
}

// -- streams and events -------------------------------------------------------

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* out, unsigned flags) {
  if (flags != cudaStreamNonBlocking)
    return said(cudaErrorNotSupported);
  if (failure() != cudaSuccess)
    return said(failure());
  *out = new CUstream_st{device_of(current)};
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t one) {
  delete one;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return said(stream->wait());
}

cudaError_t cudaEventCreate(cudaEvent_t* out) {
  if (failure() != cudaSuccess)
    return said(failure());
  *out = new CUevent_st{current};
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t one) {
  delete one;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t one, cudaStream_t stream) {
  if (one->device != stream->of().number())
    return said(cudaErrorInvalidResourceHandle);
  if (stream->is_captured())
    return said(stream->spoil_capture());
  auto passed = one->record();
  const auto why = stream->add(passed);
  if (why != cudaSuccess)
    passed(); // nobody waits for it
  return said(why);
}

cudaError_t cudaEventSynchronize(cudaEvent_t one) {
  one->wait();
  return said(device_of(one->device).failure());
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from,
                                 cudaEvent_t to) {
  if (!from->is_recorded() || !to->is_recorded())
    return said(cudaErrorInvalidResourceHandle);
  if (!from->is_passed() || !to->is_passed())
    return said(cudaErrorNotReady);
  *milliseconds = static_cast<float>(to->seconds_since(*from) * 1e3);
  return cudaSuccess;
}

// -- graphs -------------------------------------------------------------------

cudaError_t cudaStreamBeginCapture(cudaStream_t stream,
                                   cudaStreamCaptureMode mode) {
  if (mode != cudaStreamCaptureModeThreadLocal)
    return said(cudaErrorNotSupported);
  const auto why = stream->begin_capture();
  if (why == cudaSuccess)
    capturing = stream;
  return said(why);
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* out) {
  *out = nullptr;
  if (capturing != stream)
    return said(cudaErrorStreamCaptureWrongThread);
  capturing = nullptr;
  auto made = std::make_unique<CUgraph_st>();
  const auto why = stream->end_capture(made->all);
  if (why == cudaSuccess)
    *out = made.release();
  return said(why);
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* out, cudaGraph_t from,
                                 unsigned long long flags) {
  if (flags != 0)
    return said(cudaErrorInvalidValue);
  *out = new CUgraphExec_st{from->all};
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t one) {
  delete one;
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t one) {
  delete one; // what was launched of it has its own copies
  return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) {
  return said(failure());
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t one, cudaStream_t stream) {
  for (const auto& each : one->all)
    if (const auto why = stream->add(each); why != cudaSuccess)
      return said(why);
  return cudaSuccess;
}

} // extern "C"
