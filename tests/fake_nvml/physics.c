/* Power that is known exactly, and what NVIDIA's sensors make of it. Times in s since the epoch of the state. */
#include "physics.h"
#include <math.h>
#include <string.h>

static double square_integral(const segment *s, double y) {
    double whole = floor(y / s->period_s), rest = y - whole * s->period_s;
    double high_s = fmin(rest, s->duty * s->period_s);
    return s->low_w * y + (s->high_w - s->low_w) * (whole * s->duty * s->period_s + high_s);
}

/* Energy of a segment from its start to x seconds later, in closed form. */
static double segment_energy(const segment *s, double x) {
    double swing = 0.5 * (s->high_w - s->low_w), turn = 2 * M_PI / s->period_s;
    switch (s->wave) {
    case SQUARE: return square_integral(s, x + s->phase_s) - square_integral(s, s->phase_s);
    case SINE:
        return 0.5 * (s->high_w + s->low_w) * x
             + swing / turn * (cos(turn * s->phase_s) - cos(turn * (x + s->phase_s)));
    case RAMP: {
        double r = fmin(x, s->period_s);
        return s->low_w * r + swing * r * r / s->period_s + s->high_w * (x - r);
    }
    default: return s->low_w * x;
    }
}

double true_energy(const gpu_state *gpu, double t) {
    double energy = 0;
    for (int i = 0; i < gpu->n_segments && gpu->segments[i].start_s < t; i++) {
        double end = i + 1 < gpu->n_segments ? fmin(t, gpu->segments[i + 1].start_s) : t;
        energy += segment_energy(&gpu->segments[i], end - gpu->segments[i].start_s);
    }
    return energy;
}

static double last_update(double t, double period, double phase) {
    return floor((t - phase) / period) * period + phase;
}

/* What a counter that integrates only counter_window_s of every tick has summed up at tick time t. */
static double part_time_energy(const gpu_state *gpu, double t, int index) {
    static double done_t[MAX_GPUS], done_j[MAX_GPUS];
    if (done_t[index] > t) done_t[index] = done_j[index] = 0;
    while (done_t[index] + gpu->tick_s <= t + 1e-9) {
        double next = done_t[index] + gpu->tick_s;
        double seen = true_energy(gpu, next) - true_energy(gpu, next - gpu->counter_window_s);
        done_j[index] += seen * gpu->tick_s / gpu->counter_window_s;
        done_t[index] = next;
    }
    return done_j[index];
}

static double counted(const gpu_state *gpu, double t, int index) {
    double at = last_update(t, gpu->tick_s, gpu->tick_phase_s);
    if (gpu->counter_window_s > 0) return part_time_energy(gpu, at, index) * gpu->counter_gain;
    return true_energy(gpu, at) * gpu->counter_gain;
}

double counter_joule(const gpu_state *gpu, double t, int index) {
    double offset = gpu->counter_start_j;
    for (int i = 0; i < gpu->n_events; i++) {
        const counter_event *e = &gpu->events[i];
        if (t < e->from_s) break;
        if (e->kind == RESET_TO) offset = e->value_j - counted(gpu, e->from_s, index);
        else if (t < e->to_s) return offset + counted(gpu, e->from_s, index);
        else if (e->kind == FREEZE_LOSE) offset -= counted(gpu, e->to_s, index) - counted(gpu, e->from_s, index);
    }
    return offset + counted(gpu, t, index);
}

/* A fixed pseudo-random number in (-1, 1) x sqrt(3) for each update: unit variance, the same in every process. */
static double noise(int index, int64_t update) {
    uint64_t x = (uint64_t)update * 0x9E3779B97F4A7C15ull + (uint64_t)(index + 1) * 0xBF58476D1CE4E5B9ull;
    x ^= x >> 31; x *= 0x94D049BB133111EBull; x ^= x >> 29;
    return ((double)(x >> 11) / 4503599627370496.0 - 1.0) * 1.7320508;
}

double instant_watt(const gpu_state *gpu, double t, int index) {
    double at = last_update(t, gpu->refresh_s, gpu->sensor_phase_s), window = gpu->sensor_window_s;
    double watt = (true_energy(gpu, at) - true_energy(gpu, at - window)) / window * gpu->sensor_gain;
    return watt + gpu->sensor_noise_w * noise(index, llround(at / gpu->refresh_s));
}

double average_watt(const gpu_state *gpu, double t) {
    double at = last_update(t, gpu->refresh_s, gpu->sensor_phase_s);
    return (true_energy(gpu, at) - true_energy(gpu, at - 1.0)) * gpu->sensor_gain;
}
