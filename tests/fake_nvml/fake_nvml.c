/* A libnvidia-ml.so.1 for tests: the calls that pynvml makes, on GPUs whose true energy is known.
 * Layouts follow nvml.h (NVML 12/13). FAKE_NVML_STATE names the state file. */
#include "physics.h"
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
       DRIVER_NOT_LOADED = 9 };
enum { FI_ENERGY = 83, FI_AVERAGE = 185, FI_INSTANT = 186 };

typedef struct { uint32_t fieldId, scopeId; int64_t timestamp, latencyUsec; int32_t valueType, nvmlReturn;
                 union { double d; uint32_t ui; uint64_t ull; int64_t ll; } value; } field_value;
typedef struct { char legacy[16]; uint32_t domain, bus, device, pciDeviceId, subsystem; char busId[32]; } pci_info;
typedef struct { uint32_t pid; uint64_t memory; uint32_t gpuInstance, computeInstance; } process_info;
typedef struct { uint64_t total, free, used; } memory_info;
typedef struct { uint32_t version; uint64_t total, reserved, free, used; } memory_info_v2;
typedef struct { uint32_t gpu, memory; } utilization;
typedef struct { uint32_t version; int32_t sensor, temperature; } temperature_v;
typedef uintptr_t handle_t;

/* A handle is 1 + gpu, and for a MIG slice 1 + gpu + 64 x (1 + slice). */
static int gpu_of(handle_t h) { return (int)((h - 1) % 64); }
static int slice_of(handle_t h) { return (int)((h - 1) / 64) - 1; }
static int is_device(fake_state *s, handle_t h) { return h > 0 && gpu_of(h) < s->n_gpus; }

static void count_call(fake_state *s, const char *name, int gpu) {
    for (int i = 0; i < MAX_FUNCTIONS; i++) {
        if (!s->function_names[i][0]) strncpy(s->function_names[i], name, 63);
        if (!strcmp(s->function_names[i], name)) {
            __sync_fetch_and_add(&s->calls[i][gpu < 0 ? MAX_GPUS : gpu], 1);
            return;
        }
    }
}

static void wait_s(double seconds) {
    struct timespec span = {(time_t)seconds, (long)((seconds - (time_t)seconds) * 1e9)};
    nanosleep(&span, NULL);
}

/* The return code that a fault rule asks for (0: none), after its delay. */
static int faulted(fake_state *s, const char *name, int gpu, int field) {
    int code = OK;
    for (int i = 0; i < s->n_faults; i++) {
        const fault_rule *f = &s->faults[i];
        double now = fake_now_s(s);
        int every = !strcmp(f->function, "*") && gpu >= 0;
        if (f->field != field || (f->gpu >= 0 && f->gpu != gpu)) continue;
        if ((!every && strcmp(f->function, name)) || now < f->from_s || now >= f->to_s) continue;
        if (f->kind == RETURN_CODE) code = f->code;
        if (f->kind == DELAY) wait_s(f->seconds);
        while (f->kind == HANG && fake_now_s(s) < f->to_s) wait_s(0.05);
    }
    return code;
}

static int enter(const char *name, int gpu) {
    fake_state *s = fake_state_map();
    if (!s) return UNINITIALIZED;
    count_call(s, name, gpu);
    return faulted(s, name, gpu, 0);
}

#define BEGIN(gpu) \
    fake_state *s = fake_state_map(); \
    int code = enter(__func__, gpu); \
    (void)s; \
    if (code) return code;
#define BEGIN_DEVICE \
    fake_state *s = fake_state_map(); \
    if (!s) return UNINITIALIZED; \
    if (!is_device(s, h)) return INVALID_ARGUMENT; \
    int index = gpu_of(h); \
    gpu_state *g = &s->gpus[index]; \
    int code = enter(__func__, index); \
    double now = fake_now_s(s); \
    (void)g; (void)now; \
    if (code) return code;

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    BEGIN(-1)
    return s->driver_missing ? DRIVER_NOT_LOADED : OK;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { BEGIN(-1) return OK; }
const char *nvmlErrorString(int code) {
    static const char *const texts[] = {"Success", "Uninitialized", "Invalid Argument", "Not Supported",
        "Insufficient Permissions", "Already Initialized", "Not Found", "Insufficient Size",
        "Insufficient External Power", "Driver Not Loaded", "Timeout", "Interrupt Request Issue",
        "NVML Shared Library Not Found", "Function Not Found", "Corrupted infoROM", "GPU is lost"};
    return code >= 0 && code < 16 ? texts[code] : "Unknown Error";
}
static int text(const char *value, char *out, unsigned size) {
    if (strlen(value) + 1 > size) return INSUFFICIENT_SIZE;
    strcpy(out, value);
    return OK;
}
int nvmlSystemGetDriverVersion(char *out, unsigned size) { BEGIN(-1) return text(s->driver, out, size); }
int nvmlSystemGetNVMLVersion(char *out, unsigned size) { BEGIN(-1) return text("13.580.00", out, size); }
int nvmlSystemGetCudaDriverVersion(int *out) { BEGIN(-1) *out = s->cuda_version; return OK; }
int nvmlSystemGetCudaDriverVersion_v2(int *out) { return nvmlSystemGetCudaDriverVersion(out); }
int nvmlDeviceGetCount_v2(unsigned *out) { BEGIN(-1) *out = s->n_gpus; return OK; }

/* A GPU that no process holds is started by the first handle, one at a time, and stays so while that process lives. */
static pthread_mutex_t starting = PTHREAD_MUTEX_INITIALIZER;
static void start_gpu(gpu_state *g) {
    if (g->init_s <= 0) return;
    pthread_mutex_lock(&starting);
    if (!g->starter || kill(g->starter, 0)) {
        wait_s(g->init_s);
        g->starter = getpid();
    }
    pthread_mutex_unlock(&starting);
}
int nvmlDeviceGetHandleByIndex_v2(unsigned i, handle_t *out) {
    BEGIN((int)i < MAX_GPUS ? (int)i : -1)
    if ((int)i >= s->n_gpus) return INVALID_ARGUMENT;
    if (s->gpus[i].denied) return NO_PERMISSION;
    start_gpu(&s->gpus[i]);
    *out = i + 1;
    return OK;
}
static void slice_uuid(const gpu_state *g, int slice, char *out) {
    snprintf(out, 96, "MIG-%08x%s", 0xaa000000u + slice, g->uuid + 12);
}
int nvmlDeviceGetUUID(handle_t h, char *out, unsigned size) {
    BEGIN_DEVICE
    char uuid[96];
    if (slice_of(h) < 0) return text(g->uuid, out, size);
    slice_uuid(g, slice_of(h), uuid);
    return text(uuid, out, size);
}
int nvmlDeviceGetHandleByUUID(const char *uuid, handle_t *out) {
    BEGIN(-1)
    for (int i = 0; i < s->n_gpus; i++)
        if (!strcmp(uuid, s->gpus[i].uuid)) { *out = i + 1; return OK; }
    return NOT_FOUND;
}
int nvmlDeviceGetIndex(handle_t h, unsigned *out) { BEGIN_DEVICE *out = index; return OK; }
int nvmlDeviceGetName(handle_t h, char *out, unsigned size) { BEGIN_DEVICE return text(g->name, out, size); }
int nvmlDeviceGetPciInfo_v3(handle_t h, pci_info *out) {
    BEGIN_DEVICE
    memset(out, 0, sizeof *out);
    strcpy(out->busId, g->bus_id);
    strncpy(out->legacy, g->bus_id + 4, 15);
    out->bus = index;
    return OK;
}
int nvmlDeviceGetCudaComputeCapability(handle_t h, int *major, int *minor) {
    BEGIN_DEVICE
    *major = g->capability_major;
    *minor = g->capability_minor;
    return OK;
}
int nvmlDeviceGetArchitecture(handle_t h, unsigned *out) { BEGIN_DEVICE *out = 9; return OK; }
int nvmlDeviceGetPersistenceMode(handle_t h, unsigned *out) { BEGIN_DEVICE *out = g->persistence; return OK; }
int nvmlDeviceGetComputeMode(handle_t h, unsigned *out) { BEGIN_DEVICE *out = g->compute_mode; return OK; }
int nvmlDeviceGetEccMode(handle_t h, unsigned *current, unsigned *pending) {
    BEGIN_DEVICE
    *current = *pending = g->ecc;
    return OK;
}
int nvmlDeviceGetMigMode(handle_t h, unsigned *current, unsigned *pending) {
    BEGIN_DEVICE
    *current = *pending = g->mig_slices > 0;
    return OK;
}
int nvmlDeviceGetMaxMigDeviceCount(handle_t h, unsigned *out) { BEGIN_DEVICE *out = g->mig_slices; return OK; }
int nvmlDeviceGetMigDeviceHandleByIndex(handle_t h, unsigned i, handle_t *out) {
    BEGIN_DEVICE
    if ((int)i >= g->mig_slices) return NOT_FOUND;
    *out = 1 + index + 64 * (1 + i);
    return OK;
}
int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle_t h, handle_t *out) {
    BEGIN_DEVICE
    *out = 1 + index;
    return OK;
}

int nvmlDeviceGetTotalEnergyConsumption(handle_t h, uint64_t *out) {
    BEGIN_DEVICE
    if (g->no_counter) return NOT_SUPPORTED;
    *out = (uint64_t)(counter_joule(g, now, index) * 1e3);
    return OK;
}
int nvmlDeviceGetPowerUsage(handle_t h, unsigned *out) {
    BEGIN_DEVICE
    *out = (unsigned)((g->average_power_usage ? average_watt(g, now) : instant_watt(g, now, index)) * 1e3);
    return OK;
}
static double limit_of(const gpu_state *g, double now) {
    return g->limit_change_s > 0 && now >= g->limit_change_s ? g->limit_after_w : g->limit_w;
}
int nvmlDeviceGetEnforcedPowerLimit(handle_t h, unsigned *out) { BEGIN_DEVICE *out = limit_of(g, now) * 1e3; return OK; }
int nvmlDeviceGetPowerManagementLimit(handle_t h, unsigned *out) { BEGIN_DEVICE *out = limit_of(g, now) * 1e3; return OK; }
int nvmlDeviceGetPowerManagementDefaultLimit(handle_t h, unsigned *out) { BEGIN_DEVICE *out = g->limit_w * 1e3; return OK; }
int nvmlDeviceGetPowerManagementLimitConstraints(handle_t h, unsigned *low, unsigned *high) {
    BEGIN_DEVICE
    *low = 200000;
    *high = g->limit_w * 1e3;
    return OK;
}
int nvmlDeviceGetTemperature(handle_t h, int sensor, unsigned *out) {
    BEGIN_DEVICE
    (void)sensor;
    *out = (unsigned)(g->temperature_c + g->temperature_rate_c_s * now);
    return OK;
}
int nvmlDeviceGetTemperatureV(handle_t h, temperature_v *out) {
    BEGIN_DEVICE
    out->temperature = (int)(g->temperature_c + g->temperature_rate_c_s * now);
    return OK;
}
int nvmlDeviceGetClockInfo(handle_t h, int type, unsigned *out) { BEGIN_DEVICE *out = type == 2 ? 2619 : 1980; return OK; }
int nvmlDeviceGetUtilizationRates(handle_t h, utilization *out) { BEGIN_DEVICE out->gpu = 97; out->memory = 40; return OK; }
static int throttled(const gpu_state *g, double now) {
    return g->throttle_field && now >= g->throttle_from_s && now < g->throttle_to_s;
}
int nvmlDeviceGetCurrentClocksEventReasons(handle_t h, uint64_t *out) {
    BEGIN_DEVICE
    *out = throttled(g, now) ? 0x40 : 0;
    return OK;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(handle_t h, uint64_t *out) {
    return nvmlDeviceGetCurrentClocksEventReasons(h, out);
}
int nvmlDeviceGetMemoryInfo(handle_t h, memory_info *out) {
    BEGIN_DEVICE
    out->total = 150ull << 30;
    out->used = 20ull << 30;
    out->free = out->total - out->used;
    return OK;
}
int nvmlDeviceGetMemoryInfo_v2(handle_t h, memory_info_v2 *out) {
    BEGIN_DEVICE
    out->total = 150ull << 30;
    out->used = 20ull << 30;
    out->reserved = 0;
    out->free = out->total - out->used;
    return OK;
}
int nvmlDeviceGetComputeRunningProcesses_v3(handle_t h, unsigned *count, process_info *out) {
    BEGIN_DEVICE
    unsigned room = *count;
    *count = g->n_pids;
    if (room < (unsigned)g->n_pids) return INSUFFICIENT_SIZE;
    for (int i = 0; i < g->n_pids; i++) out[i] = (process_info){g->pids[i], 1ull << 30, ~0u, ~0u};
    return OK;
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(handle_t h, unsigned *count, process_info *out) {
    BEGIN_DEVICE
    (void)out;
    *count = 0;
    return OK;
}

static int power_field(gpu_state *g, int index, double now, field_value *v) {
    /* Scope 0 is the GPU, 1 the module, 2 the memory. */
    if (v->scopeId == 0 && g->module_only) return NOT_SUPPORTED;
    if (v->scopeId == 1 && !g->module_only) return NOT_SUPPORTED;
    double share = v->scopeId == 2 ? 0.15 : 1.0;
    double watt = v->fieldId == FI_AVERAGE ? average_watt(g, now) : instant_watt(g, now, index);
    v->value.ui = (uint32_t)(watt * share * 1e3);
    v->valueType = 1;
    return OK;
}
static int one_field(gpu_state *g, int index, double now, field_value *v) {
    switch (v->fieldId) {
    case FI_ENERGY:
        if (g->no_counter || g->module_only) return NOT_SUPPORTED;
        v->value.ull = (uint64_t)(counter_joule(g, now, index) * 1e3);
        v->valueType = 3;
        return OK;
    case FI_AVERAGE:
    case FI_INSTANT: return power_field(g, index, now, v);
    case 74: case 76: case 269: case 270: case 271: {
        double end = now < g->throttle_to_s ? now : g->throttle_to_s, from = g->throttle_from_s;
        int runs = g->throttle_field == (int)v->fieldId && end > from;
        v->value.ull = runs ? (uint64_t)((end - from) * 1e9) : 0;
        v->valueType = 3;
        return OK;
    }
    default: return NOT_SUPPORTED;
    }
}
int nvmlDeviceGetFieldValues(handle_t h, int count, field_value *values) {
    BEGIN_DEVICE
    for (int i = 0; i < count; i++) {
        values[i].nvmlReturn = faulted(s, __func__, index, values[i].fieldId);
        if (!values[i].nvmlReturn) values[i].nvmlReturn = one_field(g, index, now, &values[i]);
        values[i].timestamp = (int64_t)(now * 1e6);
    }
    return OK;
}
