/* What the parts of the fake CUDA runtime share. README.md says what it fakes and what it cannot show. */
#ifndef FAKE_CUDA_H
#define FAKE_CUDA_H
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum { OK = 0, OUT_OF_MEMORY = 2, INITIALIZATION = 3, BUSY = 46, NO_DEVICE = 100, INVALID_DEVICE = 101 };
enum { MAX_DEVICES = 16, HOST = MAX_DEVICES, NOWHERE = -1 };

typedef struct { atomic_ulong launches, waits, to_host, to_device, allocations; } fake_counts;
extern fake_counts counts;

/* One line in the log of this process: time, event, number. */
void note(const char *event, long number);
/* The device that this thread has chosen. */
int chosen(void);
int device_count(void);
/* The number that NVML gives to a visible device. */
int physical(int device);
/* As a driver's first call: fails in a process that was forked after another had made one. */
int wake(const char *call);
/* Open this process's context on a device, if it has none. */
int context(int device);
/* Whether this process has a context on a device. */
int has_context(int device);
/* Which device's memory a pointer is in: HOST for pinned memory, NOWHERE for other memory. */
int place_of(const void *pointer);
/* One wait of the host for the device. */
void waited(const char *call);
#endif
