#include <cstring>

// Stands for libnvidia-ml.so.1 on machines without a GPU: two of one kind.

extern "C" {

int nvmlInit_v2() {
  return 0;
}

int nvmlShutdown() {
  return 0;
}

int nvmlDeviceGetCount_v2(unsigned* count) {
  *count = 2;
  return 0;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void** device) {
  static int devices[2];
  if (index >= 2)
    return 2;
  *device = &devices[index];
  return 0;
}

int nvmlDeviceGetHandleByUUID(const char* uuid, void** device) {
  const bool first = std::strcmp(uuid, "GPU-first") == 0;
  if (!first && std::strcmp(uuid, "GPU-second") != 0)
    return 2;
  return nvmlDeviceGetHandleByIndex_v2(first ? 0 : 1, device);
}

int nvmlDeviceGetUUID(void* device, char* uuid, unsigned length) {
  void* first = nullptr;
  nvmlDeviceGetHandleByIndex_v2(0, &first);
  const char* text = device == first ? "GPU-first" : "GPU-second";
  if (length <= std::strlen(text))
    return 7;
  std::strcpy(uuid, text);
  return 0;
}

// The second one is what has no such rate.
int nvmlDeviceGetUtilizationRates(void* device, unsigned* percent) {
  void* first = nullptr;
  nvmlDeviceGetHandleByIndex_v2(0, &first);
  if (device != first)
    return 3;
  percent[0] = 93; // GPU, memory
  percent[1] = 7;
  return 0;
}

int nvmlDeviceGetMemoryInfo(void* device, unsigned long long* memory) {
  if (!device)
    return 2;
  memory[0] = 80ull << 30; // total, free, used
  memory[1] = 79ull << 30;
  memory[2] = 1ull << 30;
  return 0;
}

int nvmlDeviceGetName(void* device, char* name, unsigned length) {
  constexpr char text[] = "NVIDIA A100-SXM4-80GB";
  if (!device || length < sizeof text)
    return 7;
  std::memcpy(name, text, sizeof text);
  return 0;
}
}
