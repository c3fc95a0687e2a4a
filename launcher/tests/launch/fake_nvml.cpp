// What the launcher calls of NVML, over three GPUs and a part of one that are not there. NVML does not list them in the order
// of their addresses. HANG: asked how busy a GPU is, it makes the file
// FAKE_NVML_ASKED and never answers. LOST: the GPU at the last address answers once.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>

enum Answer { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6, LOST_GPU = 15 };

struct Gpu {
    const char *uuid;
    unsigned bus;
    std::atomic<int> asked{0};
    bool is_part() const { return !strncmp(uuid, "MIG-", 4); }
    bool is_lost() const {
#ifdef LOST
        return bus == 0x99 && asked > 1;
#else
        return false;
#endif
    }
};

static Gpu gpus[] = {{"GPU-aa11", 0x41}, {"GPU-aa22", 0x17}, {"GPU-bb33", 0x99}, {"MIG-77", 0x99}};
// The GPU at index 1 is another user's.
static const int listed[] = {0, -1, 1, 2};

struct Pci {
    char legacy[16];
    unsigned domain, bus, device, ids, subsystem;
    char id[32];
};
struct Utilization {
    unsigned gpu, memory;
};
struct Memory {
    unsigned version;
    unsigned long long total, reserved, free, used;
};

extern "C" {
Answer nvmlInit_v2() { return SUCCESS; }
Answer nvmlShutdown() { return SUCCESS; }

Answer nvmlDeviceGetCount_v2(unsigned *count) {
    *count = 4;
    return SUCCESS;
}

Answer nvmlDeviceGetHandleByIndex_v2(unsigned index, Gpu **gpu) {
    if (index >= 4) return INVALID_ARGUMENT;
    if (listed[index] < 0) return NO_PERMISSION;
    *gpu = &gpus[listed[index]];
    return SUCCESS;
}

Answer nvmlDeviceGetHandleByUUID(const char *uuid, Gpu **gpu) {
    for (Gpu &it : gpus)
        if (!strcmp(it.uuid, uuid)) return *gpu = &it, SUCCESS;
    return NOT_FOUND;
}

Answer nvmlDeviceGetUUID(Gpu *gpu, char *text, unsigned size) {
    snprintf(text, size, "%s", gpu->uuid);
    return SUCCESS;
}

Answer nvmlDeviceGetName(Gpu *, char *text, unsigned size) {
    snprintf(text, size, "NVIDIA Nothing");
    return SUCCESS;
}

Answer nvmlDeviceGetPciInfo_v3(Gpu *gpu, Pci *pci) {
    memset(pci, 0, sizeof *pci);
    pci->bus = gpu->bus;
    return SUCCESS;
}

// 80 %, 0 %, 80 %, ...
Answer nvmlDeviceGetUtilizationRates(Gpu *gpu, Utilization *utilization) {
#ifdef HANG
    if (const char *file = getenv("FAKE_NVML_ASKED")) close(creat(file, 0600));
    for (;;) pause();
#endif
    if (gpu->is_part()) return NOT_SUPPORTED;
    gpu->asked++;
    if (gpu->is_lost()) return LOST_GPU;
    *utilization = {gpu->asked % 2 ? 80u : 0u, 0};
    return SUCCESS;
}

// In use: as many GiB as the number of its bus.
Answer nvmlDeviceGetMemoryInfo_v2(Gpu *gpu, Memory *memory) {
    if (memory->version != (sizeof *memory | 2u << 24)) return INVALID_ARGUMENT;
    if (gpu->is_lost()) return LOST_GPU;
    memory->used = (unsigned long long)gpu->bus << 30;
    memory->total = 160ull << 30;
    return SUCCESS;
}
}
