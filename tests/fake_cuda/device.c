/* Devices and contexts: who may open one, what they say of themselves, and the log. */
#define _GNU_SOURCE
#include "fake_cuda.h"
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* cudaDeviceProp of CUDA 13, the members that torch reads at their places. */
typedef struct {
    char name[256];
    unsigned char uuid[16];
    char gap0[16];
    size_t totalGlobalMem, sharedMemPerBlock;
    int regsPerBlock, warpSize;
    char gap1[8];
    int maxThreadsPerBlock, maxThreadsDim[3], maxGridSize[3];
    char gap2[12];
    int major, minor;
    size_t textureAlignment;
    char gap3[8];
    int multiProcessorCount;
    char gap4[172];
    int concurrentKernels;
    char gap5[4];
    int pciBusID;
    char gap6[12];
    int asyncEngineCount, unifiedAddressing;
    char gap7[4];
    int l2CacheSize;
    char gap8[4];
    int maxThreadsPerMultiProcessor, streamPrioritiesSupported;
    char gap9[12];
    size_t sharedMemPerMultiprocessor;
    int regsPerMultiprocessor;
    char gap10[32];
    int cooperativeLaunch;
    size_t sharedMemPerBlockOptin;
    char gap11[8];
    int maxBlocksPerMultiProcessor;
    char gap12[28];
    int memoryPoolsSupported;
    char gap13[284];
} properties;
_Static_assert(sizeof(properties) == 1008, "cudaDeviceProp of CUDA 13");

fake_counts counts;
static __thread int current;
static pid_t woken;
static char opened[MAX_DEVICES];
static pid_t opened_by;

static int number(const char *name, int otherwise) {
    const char *value = getenv(name);
    return value && *value ? atoi(value) : otherwise;
}

void note(const char *event, long value) {
    static __thread pid_t owner;
    static __thread int handle = -1;
    const char *folder = getenv("FAKE_CUDA_LOG");
    if (!folder) return;
    if (owner != getpid()) { /* each process has a file of its own, forks too */
        char path[4096];
        snprintf(path, sizeof path, "%s/%d.log", folder, getpid());
        handle = open(path, O_CREAT | O_APPEND | O_WRONLY | O_CLOEXEC, 0600);
        owner = getpid();
    }
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    char line[256];
    int length = snprintf(line, sizeof line, "%lld\t%s\t%ld\t%lu\n", now.tv_sec * 1000000000ll + now.tv_nsec, event,
                          value, (unsigned long)counts.launches);
    if (handle >= 0 && write(handle, line, length) != length) abort();
}

int wake(const char *call) {
    if (!woken) {
        woken = getpid();
        note("woken", 0);
    }
    if (woken == getpid()) return OK;
    note("used after a fork", 0);
    fprintf(stderr, "fake cuda: %s in a fork of a process that had used CUDA\n", call);
    return INITIALIZATION;
}

/* EXCLUSIVE_PROCESS: a file for each device, held by the process that is named in it while that lives. */
static int claimed(int device) {
    const char *folder = getenv("FAKE_CUDA_EXCLUSIVE");
    if (!folder) return OK;
    char path[4096], text[32] = "";
    snprintf(path, sizeof path, "%s/device-%d", folder, physical(device));
    int handle = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    if (handle < 0) return BUSY;
    ssize_t length = read(handle, text, sizeof text - 1);
    pid_t owner = length > 0 ? atoi(text) : 0;
    int busy = owner && owner != getpid() && kill(owner, 0) == 0;
    if (!busy) {
        length = snprintf(text, sizeof text, "%-20d", getpid());
        busy = pwrite(handle, text, length, 0) != length;
    }
    close(handle);
    if (busy) note("busy", device);
    return busy ? BUSY : OK;
}

int context(int device) {
    int error = wake("a context");
    if (error) return error;
    if (device < 0 || device >= device_count()) return INVALID_DEVICE;
    if (opened_by != getpid()) memset(opened, 0, sizeof opened);
    opened_by = getpid();
    if (opened[device]) return OK;
    error = claimed(device);
    if (error) return error;
    opened[device] = 1;
    note("context", physical(device));
    return OK;
}

int has_context(int device) { return opened_by == getpid() && opened[device]; }
int chosen(void) { return current; }

/* As the driver counts: up to the first name in CUDA_VISIBLE_DEVICES that is no device. */
int device_count(void) {
    int there = number("FAKE_CUDA_DEVICES", 1), seen = 0;
    const char *names = getenv("CUDA_VISIBLE_DEVICES");
    if (!names) return there;
    while (*names && seen < MAX_DEVICES) {
        int named = atoi(names);
        if (strncmp(names, "GPU-", 4) == 0) named = (int)strtoul(names + 4, NULL, 16) - 0x1a;
        if (named < 0 || named >= there) break;
        seen++;
        names += strcspn(names, ",");
        if (*names) names++;
    }
    return seen;
}

int physical(int device) {
    const char *names = getenv("CUDA_VISIBLE_DEVICES");
    if (!names) return device;
    for (int i = 0; i < device; i++) {
        names += strcspn(names, ",");
        if (*names) names++;
    }
    return strncmp(names, "GPU-", 4) == 0 ? (int)strtoul(names + 4, NULL, 16) - 0x1a : atoi(names);
}

int cudaGetDeviceCount(int *out) {
    int error = wake(__func__);
    if (error) return error;
    *out = device_count();
    return *out ? OK : NO_DEVICE;
}
int cudaGetDevice(int *out) { *out = current; return OK; }
int cudaSetDevice(int device) {
    int error = wake(__func__);
    if (error) return error;
    if (device < 0 || device >= device_count()) return INVALID_DEVICE;
    current = device;
    return context(device);
}

/* The digits that fake_nvml gives to the same device. */
static void write_uuid(unsigned char *out, int index) {
    unsigned first = index + 0x1a;
    const unsigned char digits[16] = {first >> 24, first >> 16, first >> 8, first, 0x11, 0x11, 0x22, 0x22, 0x33, 0x33,
                                      0, 0, 0, 0, index >> 8, index};
    memcpy(out, digits, 16);
}

static int capability(void) { return number("FAKE_CUDA_CAPABILITY", 90); }

int cudaGetDeviceProperties(void *out, int device) {
    int error = wake(__func__);
    if (error) return error;
    if (device < 0 || device >= device_count()) return INVALID_DEVICE;
    properties *p = out;
    memset(p, 0, sizeof *p);
    strcpy(p->name, "NVIDIA Fake H100");
    write_uuid(p->uuid, physical(device));
    p->totalGlobalMem = 141ul << 30;
    p->sharedMemPerBlock = 48 << 10;
    p->regsPerBlock = p->regsPerMultiprocessor = 1 << 16;
    p->warpSize = 32;
    p->maxThreadsPerBlock = p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
    p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = 0x7fffffff;
    p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    p->major = capability() / 10;
    p->minor = capability() % 10;
    p->textureAlignment = 512;
    p->multiProcessorCount = 132;
    p->pciBusID = physical(device) + 1;
    p->asyncEngineCount = 3;
    p->l2CacheSize = 50 << 20;
    p->maxThreadsPerMultiProcessor = 2048;
    p->sharedMemPerMultiprocessor = 228 << 10;
    p->sharedMemPerBlockOptin = 227 << 10;
    p->maxBlocksPerMultiProcessor = 32;
    p->concurrentKernels = p->unifiedAddressing = p->streamPrioritiesSupported = 1;
    p->cooperativeLaunch = p->memoryPoolsSupported = 1;
    return OK;
}

int cudaDeviceGetAttribute(int *out, int attribute, int device) {
    (void)device;
    switch (attribute) {
    case 1: *out = 1024; break;                                /* threads of a block */
    case 5: *out = 0x7fffffff; break;                          /* blocks of a grid in x */
    case 6: case 7: *out = 65535; break;                       /* in y and z */
    case 8: *out = 48 << 10; break;                            /* shared memory of a block */
    case 10: *out = 32; break;                                 /* warp */
    case 16: *out = 132; break;                                /* multiprocessors */
    case 39: *out = 2048; break;                               /* threads of a multiprocessor */
    case 75: *out = capability() / 10; break;
    case 76: *out = capability() % 10; break;
    case 81: *out = 228 << 10; break;                          /* shared memory of a multiprocessor */
    case 97: *out = 227 << 10; break;                          /* shared memory of a block that asks for it */
    default: *out = 1;                                         /* most others ask whether something is there */
    }
    return OK;
}
int cudaDeviceGetPCIBusId(char *out, int size, int device) {
    snprintf(out, size, "0000:%02X:00.0", physical(device) + 1);
    return OK;
}
int cudaDeviceGetDefaultMemPool(void **out, int device) { (void)device; *out = (void *)1; return OK; }
int cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    *least = 0;
    *greatest = -5;
    return context(current);
}
int cudaDeviceCanAccessPeer(int *out, int device, int peer) { *out = device != peer; return OK; }
int cudaDeviceEnablePeerAccess(int peer, unsigned flags) { (void)flags; return context(peer); }
int cudaDriverGetVersion(int *out) { *out = number("FAKE_CUDA_DRIVER", 13000); return OK; }
int cudaRuntimeGetVersion(int *out) { *out = 13000; return OK; }
int cudaGetLastError(void) { return OK; }
int cudaPeekAtLastError(void) { return OK; }

const char *cudaGetErrorString(int error) {
    switch (error) {
    case OUT_OF_MEMORY: return "out of memory";
    case INITIALIZATION: return "initialization error";
    case BUSY: return "CUDA-capable device(s) is/are busy or unavailable";
    case NO_DEVICE: return "no CUDA-capable device is detected";
    case INVALID_DEVICE: return "invalid device ordinal";
    default: return "no error";
    }
}
const char *cudaGetErrorName(int error) { return cudaGetErrorString(error); }

/* There is a driver where there are devices: who looks for its file finds one. Python's stat is stat64. */
int stat64(const char *path, void *out) {
    if (!strcmp(path, "/dev/nvidiactl") && getenv("FAKE_CUDA_DEVICES")) path = "/dev/null";
    return syscall(SYS_newfstatat, AT_FDCWD, path, out, 0) ? -1 : 0;
}
