/* Faults of the operating system, by LD_PRELOAD: a wall clock that is stepped, a disk that is full. */
#define _GNU_SOURCE
#include "state.h"
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = syscall(SYS_clock_gettime, clock, time);
    if (result || clock != CLOCK_REALTIME) return result;
    fake_state *state = fake_state_map();
    if (state && state->wall_step_s && fake_now_s(state) >= state->wall_step_at_s) {
        int64_t ns = (int64_t)time->tv_sec * 1000000000 + time->tv_nsec + (int64_t)(state->wall_step_s * 1e9);
        time->tv_sec = ns / 1000000000;
        time->tv_nsec = ns % 1000000000;
    }
    return 0;
}

static int disk_full(int handle) {
    fake_state *state = fake_state_map();
    if (!state || !state->disk_full_under[0]) return 0;
    double now = fake_now_s(state);
    if (now < state->disk_full_from_s || now >= state->disk_full_to_s) return 0;
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strncmp(path, state->disk_full_under, strlen(state->disk_full_under)) == 0;
}

ssize_t write(int handle, const void *data, size_t size) {
    if (disk_full(handle)) {
        errno = ENOSPC;
        return -1;
    }
    return syscall(SYS_write, handle, data, size);
}
