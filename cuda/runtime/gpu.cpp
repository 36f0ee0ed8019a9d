#include "cuda/runtime/gpu.hpp"

#include <cstdlib>
#include <new>
#include <string_view>
#include <utility>

namespace troupe::cuda {

namespace {

void check(cudaError_t why, const char* doing) {
  if (why != cudaSuccess)
    throw gpu_failure{doing, why};
}

void check_room(cudaError_t why, const char* doing) {
  if (why == cudaErrorMemoryAllocation) {
    cudaGetLastError(); // it is no failure of the device
    throw std::bad_alloc{};
  }
  check(why, doing);
}

} // namespace

gpu_failure::gpu_failure(const char* doing, cudaError_t why)
    : std::runtime_error(std::string{doing} + ": " + cudaGetErrorString(why)) {
  // nop
}

result<std::unique_ptr<gpu_device>> gpu_device::open(int number) {
  auto failed = [](cudaError_t why) {
    return error{errc::unavailable,
                 std::string{"no GPU can be used: "} + cudaGetErrorString(why)};
  };
  int count = 0;
  if (auto why = cudaGetDeviceCount(&count); why != cudaSuccess)
    return failed(why);
  if (number < 0 || number >= count)
    return error{errc::unavailable, "no GPU " + std::to_string(number) +
                                        "; this process may use " +
                                        std::to_string(count)};
  cudaDeviceProp about;
  if (auto why = cudaGetDeviceProperties(&about, number); why != cudaSuccess)
    return failed(why);
  std::unique_ptr<gpu_device> out{new gpu_device};
  out->number_ = number;
  out->name_ = "sm" + std::to_string(about.major) +
               std::to_string(about.minor) + "-cuda" +
               std::to_string(CUDART_VERSION / 1000);
  out->blocks_wanted_ = 4 * std::int64_t{about.multiProcessorCount};
  out->shared_bytes_most_ = about.sharedMemPerBlockOptin;
  constexpr int hopper = 9; // the first that can
  const char* early = std::getenv("TROUPE_CUDA_EARLY_LAUNCHES");
  out->launches_early_ = about.major >= hopper &&
                         (early == nullptr || std::string_view{early} != "0");
  out->description_ = std::string{about.name} + ", " + out->name_;
  if (auto why = cudaSetDevice(number); why != cudaSuccess)
    return failed(why);
  if (auto why =
          cudaStreamCreateWithFlags(&out->stream_, cudaStreamNonBlocking);
      why != cudaSuccess)
    return failed(why);
  for (auto* event : {&out->begin_, &out->end_})
    if (auto why = cudaEventCreate(event); why != cudaSuccess)
      return failed(why);
  auto products = cublas_lt::open();
  if (!products)
    return products.error();
  out->products_ = std::move(*products);
  return out;
}

gpu_device::~gpu_device() {
  for (auto* event : {begin_, end_})
    if (event != nullptr)
      cudaEventDestroy(event);
  if (stream_ != nullptr)
    cudaStreamDestroy(stream_);
}

void gpu_device::mark(cudaEvent_t event) {
  check(cudaEventRecord(event, stream_), "a GPU's clock could not be read");
}

double gpu_device::seconds_between(cudaEvent_t from, cudaEvent_t to) {
  check(cudaEventSynchronize(to), "a trial of products on a GPU failed");
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, from, to),
        "a GPU's clock could not be read");
  return milliseconds / 1e3;
}

void gpu_device::choose() const {
  check(cudaSetDevice(number_), "a GPU could not be chosen");
}

void* gpu_device::allocate(std::size_t bytes) {
  choose();
  void* out = nullptr;
  check_room(cudaMalloc(&out, bytes), "memory could not be allocated on a GPU");
  return out;
}

void gpu_device::release(void* memory) {
  cudaFree(memory); // waits for what still uses it
}

void gpu_device::zero(void* memory, std::size_t bytes) {
  check(cudaMemsetAsync(memory, 0, bytes, stream_),
        "memory could not be cleared on a GPU");
}

void gpu_device::copy_in(void* to, const void* from, std::size_t bytes) {
  if (bytes > 0)
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_),
          "a copy to a GPU failed");
}

void gpu_device::copy_out(void* to, const void* from, std::size_t bytes) {
  if (bytes > 0)
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_),
          "a copy from a GPU failed");
  check(cudaStreamSynchronize(stream_), "a step on a GPU failed");
}

void gpu_device::copy_within(void* to, const void* from, std::size_t bytes) {
  if (bytes > 0)
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_),
          "a copy between GPUs failed");
}

void gpu_device::wait() {
  check(cudaStreamSynchronize(stream_), "a step on a GPU failed");
}

std::string gpu_device::bus_id() const {
  char out[32] = {};
  check(cudaDeviceGetPCIBusId(out, sizeof out, number_),
        "a GPU's place is not known");
  return out;
}

bool gpu_device::reach(int other) {
  choose();
  int can = 0;
  check(cudaDeviceCanAccessPeer(&can, number_, other),
        "what a GPU can reach is not known");
  if (can == 0)
    return false;
  const auto why = cudaDeviceEnablePeerAccess(other, 0);
  if (why == cudaSuccess)
    return true;
  cudaGetLastError(); // it is no failure of what comes next
  return why == cudaErrorPeerAccessAlreadyEnabled; // by NCCL
}

std::shared_ptr<void> gpu_device::allocate_shared(std::size_t bytes) {
  return {allocate(bytes), [](void* memory) { cudaFree(memory); }};
}

// -- what does not wait -------------------------------------------------------

void* gpu_device::allocate_host(std::size_t bytes) {
  choose();
  void* out = nullptr;
  check_room(cudaMallocHost(&out, bytes),
             "memory for copies to a GPU could not be allocated");
  return out;
}

// It may be on its way still.
void gpu_device::release_host(void* memory) {
  cudaStreamSynchronize(stream_);
  cudaFreeHost(memory);
}

void gpu_device::send(void* to, const void* from_host, std::size_t bytes) {
  copy_in(to, from_host, bytes);
}

void gpu_device::receive(void* to_host, const void* from, std::size_t bytes) {
  if (bytes > 0)
    check(
        cudaMemcpyAsync(to_host, from, bytes, cudaMemcpyDeviceToHost, stream_),
        "a copy from a GPU failed");
}

gpu_device::event::event(gpu_device& device) {
  device.choose();
  check(cudaEventCreate(&of_cuda_), "an event of a GPU could not be made");
}

gpu_device::event::~event() {
  cudaEventDestroy(of_cuda_);
}

void gpu_device::record(event& here) {
  check(cudaEventRecord(here.of_cuda_, stream_),
        "an event of a GPU could not be recorded");
}

void gpu_device::wait(const event& there) {
  check(cudaEventSynchronize(there.of_cuda_), "a step on a GPU failed");
}

double gpu_device::seconds_between(const event& from, const event& to) {
  return seconds_between(from.of_cuda_, to.of_cuda_);
}

gpu_device::graph::graph(graph&& other) noexcept
    : of_cuda_(std::exchange(other.of_cuda_, nullptr)) {
  // nop
}

gpu_device::graph& gpu_device::graph::operator=(graph&& other) noexcept {
  std::swap(of_cuda_, other.of_cuda_);
  return *this;
}

// One that still runs is freed by CUDA when it has.
gpu_device::graph::~graph() {
  if (of_cuda_ != nullptr)
    cudaGraphExecDestroy(of_cuda_);
}

// What fails here leaves the stream as it was, and nothing has run of it.
std::optional<gpu_device::graph>
gpu_device::capture(const std::function<void()>& calls) {
  auto cannot = [](cudaGraph_t captured) {
    if (captured != nullptr)
      cudaGraphDestroy(captured);
    cudaGetLastError(); // it is no failure of what comes next
    return std::nullopt;
  };
  choose();
  cudaGraph_t captured = nullptr;
  if (cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal) !=
      cudaSuccess)
    return cannot(captured);
  try {
    calls();
  } catch (const gpu_failure&) {
    cudaStreamEndCapture(stream_, &captured);
    return cannot(captured); // if it fails without a capture too, that is told
  } catch (...) {
    cudaStreamEndCapture(stream_, &captured);
    cannot(captured);
    throw;
  }
  if (cudaStreamEndCapture(stream_, &captured) != cudaSuccess)
    return cannot(captured);
  cudaGraphExec_t made = nullptr;
  if (cudaGraphInstantiate(&made, captured, 0) != cudaSuccess)
    return cannot(captured);
  cudaGraphDestroy(captured);
  graph out{made};
  // Now, so that what it has no memory for fails here.
  if (cudaGraphUpload(made, stream_) != cudaSuccess)
    return cannot(nullptr);
  return out;
}

void gpu_device::launch(const graph& what) {
  choose();
  check(cudaGraphLaunch(what.of_cuda_, stream_),
        "the graph of a step could not be launched");
}

std::size_t gpu_device::free_bytes() {
  std::size_t free = 0, all = 0;
  choose();
  check(cudaMemGetInfo(&free, &all), "a GPU's memory is not known");
  return free;
}

std::size_t gpu_device::all_bytes() {
  std::size_t free = 0, all = 0;
  choose();
  check(cudaMemGetInfo(&free, &all), "a GPU's memory is not known");
  return all;
}

} // namespace troupe::cuda
