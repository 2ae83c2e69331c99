/* Streams, events and launches. Work is done when it is asked for: a stream is always idle, an event is a time. */
#define _GNU_SOURCE
#include "fake_cuda.h"
#include <stdlib.h>
#include <string.h>
#include <time.h>

void waited(const char *call) {
    counts.waits++;
    note(call, 0);
}

int cudaDeviceSynchronize(void) {
    int error = context(chosen());
    waited(__func__);
    return error;
}
int cudaStreamSynchronize(void *stream) { (void)stream; waited(__func__); return OK; }
int cudaEventSynchronize(void *event) { (void)event; waited(__func__); return OK; }

int cudaStreamCreateWithPriority(void **out, unsigned flags, int priority) {
    static atomic_long last = 16;
    (void)flags;
    (void)priority;
    *out = (void *)(last += 16);
    return context(chosen());
}
int cudaStreamCreateWithFlags(void **out, unsigned flags) { return cudaStreamCreateWithPriority(out, flags, 0); }
int cudaStreamCreate(void **out) { return cudaStreamCreateWithPriority(out, 0, 0); }
int cudaStreamIsCapturing(void *stream, int *out) { (void)stream; *out = 0; return OK; }
int cudaStreamGetCaptureInfo(void *stream, int *status, unsigned long long *id) {
    (void)stream;
    *status = 0;
    if (id) *id = 0;
    return OK;
}
int cudaStreamGetPriority(void *stream, int *out) { (void)stream; *out = 0; return OK; }
int cudaLaunchHostFunc(void *stream, void (*call)(void *), void *data) { (void)stream; call(data); return OK; }
int cudaStreamAddCallback(void *stream, void (*call)(void *, int, void *), void *data, unsigned flags) {
    (void)flags;
    call(stream, OK, data);
    return OK;
}

int cudaEventCreateWithFlags(struct timespec **out, unsigned flags) {
    (void)flags;
    *out = calloc(1, sizeof **out);
    return context(chosen());
}
int cudaEventCreate(struct timespec **out) { return cudaEventCreateWithFlags(out, 0); }
int cudaEventDestroy(struct timespec *event) { free(event); return OK; }
int cudaEventRecord(struct timespec *event, void *stream) {
    (void)stream;
    return clock_gettime(CLOCK_MONOTONIC, event);
}
int cudaEventRecordWithFlags(struct timespec *event, void *stream, unsigned flags) {
    (void)flags;
    return cudaEventRecord(event, stream);
}
int cudaEventElapsedTime(float *out_ms, const struct timespec *from, const struct timespec *to) {
    *out_ms = (to->tv_sec - from->tv_sec) * 1e3 + (to->tv_nsec - from->tv_nsec) * 1e-6;
    return OK;
}

/* Launches: counted, and nothing is computed. */
typedef struct { unsigned x, y, z; } size3;
static __thread struct { size3 grid, block; size_t shared; void *stream; } pushed;

static int launched(void) {
    counts.launches++;
    return context(chosen());
}
int cudaLaunchKernel(void) { return launched(); }
int __cudaLaunchKernel(void) { return launched(); }
int cudaLaunchKernelExC(void) { return launched(); }
int cudaLaunchCooperativeKernel(void) { return launched(); }
int __cudaGetKernel(const void **out, const void *function) { *out = function; return OK; }
unsigned __cudaPushCallConfiguration(size3 grid, size3 block, size_t shared, void *stream) {
    pushed.grid = grid;
    pushed.block = block;
    pushed.shared = shared;
    pushed.stream = stream;
    return OK;
}
int __cudaPopCallConfiguration(size3 *grid, size3 *block, size_t *shared, void **stream) {
    *grid = pushed.grid;
    *block = pushed.block;
    *shared = pushed.shared;
    *stream = pushed.stream;
    return OK;
}
void **__cudaRegisterFatBinary(void *binary) {
    static void *handle[4];
    (void)binary;
    return handle;
}

typedef struct {
    size_t shared, constant, local;
    int threads, registers, ptx, binary, cache, most_shared, carveout;
} function_attributes;
int cudaFuncGetAttributes(function_attributes *out, const void *function) {
    (void)function;
    memset(out, 0, sizeof *out);
    out->threads = 1024;
    out->registers = 32;
    out->ptx = out->binary = 90;
    out->most_shared = 48 << 10;
    return OK;
}
int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *out) { *out = 2; return OK; }
int cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *out) { *out = 2; return OK; }
int cudaLibraryGetKernel(void **out) { *out = (void *)1; return OK; }

/* The driver's own interface: what torch asks of it by name. */
static int primary_state(int device, unsigned *flags, int *active) {
    if (flags) *flags = 0;
    *active = has_context(device);
    return OK;
}
static int anything(void) { return OK; }
int cudaGetDriverEntryPointByVersion(const char *name, void **out, unsigned version, unsigned long long flags,
                                     int *status) {
    (void)version;
    (void)flags;
    *out = strcmp(name, "cuDevicePrimaryCtxGetState") ? (void *)anything : (void *)primary_state;
    if (status) *status = 0;
    return OK;
}
int fake_primary_state(int device, unsigned *flags, int *active) { return primary_state(device, flags, active); }

/* Libraries of matrices: a handle, a version, and for each product one algorithm. */
static int handle(void **out) { *out = (void *)1; return OK; }
int cublasCreate_v2(void **out) { return context(chosen()) ? 1 : handle(out); }
int cublasLtCreate(void **out) { return handle(out); }
int cublasLtMatmulDescCreate(void **out) { return handle(out); }
int cublasLtMatrixLayoutCreate(void **out) { return handle(out); }
int cublasLtMatmulPreferenceCreate(void **out) { return handle(out); }
int cublasGetPointerMode_v2(void *of, int *out) { (void)of; *out = 0; return OK; }
int cublasGetMathMode(void *of, int *out) { (void)of; *out = 0; return OK; }
int cublasLtMatmulAlgoGetHeuristic(void *of, void *what, void *a, void *b, void *c, void *d, void *wish, int most,
                                   void *results, int *found) {
    (void)of; (void)what; (void)a; (void)b; (void)c; (void)d; (void)wish; (void)most;
    memset(results, 0, 64);
    *found = 1;
    return OK;
}
size_t cublasLtGetVersion(void) { return 130101; }
int cudnnGetProperty(int which, int *out) {
    static const int version[] = {9, 20, 0};
    *out = version[which];
    return OK;
}
size_t cudnnGetVersion(void) { return 92000; }
const char *cudnnGetErrorString(int error) { (void)error; return "fake cudnn"; }
