/* The state that the fake libraries and the tests share: one file, mapped by all processes.
 * tests/fake_nvml/driver.py mirrors these structs with ctypes; the sizes are checked at load. */
#ifndef FAKE_NVML_STATE_H
#define FAKE_NVML_STATE_H
#include <stdint.h>

#define MAX_GPUS 16
#define MAX_SEGMENTS 64
#define MAX_EVENTS 16
#define MAX_FAULTS 64
#define MAX_FUNCTIONS 64
#define MAX_PIDS 8

enum wave { CONSTANT, SQUARE, SINE, RAMP };
enum event { RESET_TO, FREEZE_LOSE, FREEZE_CATCH_UP };
enum fault { RETURN_CODE, DELAY, HANG };

typedef struct { double start_s, low_w, high_w, period_s, duty, phase_s; int32_t wave, pad; } segment;
/* RESET_TO: at from_s the counter jumps to value_j. FREEZE_*: it stands still from from_s to to_s. */
typedef struct { double from_s, to_s, value_j; int32_t kind, pad; } counter_event;
/* function "*" is every call on a device; field 0 is the call itself, else that field of GetFieldValues. */
typedef struct { char function[64]; double from_s, to_s, seconds; int32_t gpu, field, kind, code; } fault_rule;

/* init_s: how long the first handle of a GPU takes while no process has one. denied: its handle is not given. */
typedef struct {
    char uuid[96], name[96], bus_id[32];
    double tick_s, tick_phase_s, counter_start_j, counter_gain, counter_window_s;
    double refresh_s, sensor_window_s, sensor_phase_s, sensor_gain, sensor_noise_w;
    double limit_w, limit_after_w, limit_change_s, temperature_c, temperature_rate_c_s;
    double throttle_from_s, throttle_to_s;
    int32_t no_counter, module_only, capability_major, capability_minor, throttle_field, mig_slices;
    int32_t n_segments, n_events, n_pids, persistence, ecc, average_power_usage;
    int32_t denied, compute_mode, starter, pad;
    double init_s;
    int32_t pids[MAX_PIDS];
    segment segments[MAX_SEGMENTS];
    counter_event events[MAX_EVENTS];
} gpu_state;

typedef struct {
    uint64_t size;
    int64_t epoch_ns;
    double wall_step_s, wall_step_at_s;
    double disk_full_from_s, disk_full_to_s;
    char disk_full_under[256];
    int32_t n_gpus, n_faults, driver_missing, cuda_version;
    char driver[32];
    gpu_state gpus[MAX_GPUS];
    fault_rule faults[MAX_FAULTS];
    char function_names[MAX_FUNCTIONS][64];
    uint64_t calls[MAX_FUNCTIONS][MAX_GPUS + 1];
} fake_state;

fake_state *fake_state_map(void);
double fake_now_s(const fake_state *state);
#endif
