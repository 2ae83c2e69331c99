/* Memory of the devices: one arena of addresses for each, so that a pointer tells where it is. It starts as zeros,
 * and as no kernel computes, it stays so unless something is copied there. */
#define _GNU_SOURCE
#include "fake_cuda.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { HEADER = 512, CLASSES = 48 };
static const size_t ARENA = 1ul << 40;

typedef struct block { struct block *next; size_t size; int class; } block;
typedef struct { char *base; size_t used, held; block *idle[CLASSES]; } arena;

static arena arenas[MAX_DEVICES + 1];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

int place_of(const void *pointer) {
    for (int i = 0; i <= MAX_DEVICES; i++)
        if (arenas[i].base && (const char *)pointer >= arenas[i].base && (const char *)pointer < arenas[i].base + ARENA)
            return i;
    return NOWHERE;
}

/* Bytes that one process may hold on a device: FAKE_CUDA_LIMIT, on all or on FAKE_CUDA_LIMIT_DEVICE. */
static int fits(int place, size_t size) {
    const char *limit = getenv("FAKE_CUDA_LIMIT"), *only = getenv("FAKE_CUDA_LIMIT_DEVICE");
    if (place == HOST || !limit || (only && atoi(only) != physical(place))) return 1;
    return arenas[place].held + size <= strtoul(limit, NULL, 10);
}

static block *fresh(arena *a, int class) {
    if (!a->base) {
        void *base = mmap(NULL, ARENA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (base == MAP_FAILED) return NULL;
        a->base = base;
    }
    size_t whole = (1ul << class) + HEADER;
    if (a->used + whole > ARENA) return NULL;
    block *found = (block *)(a->base + a->used);
    a->used += whole;
    found->class = class;
    return found;
}

static int allocate(void **out, size_t size, int place) {
    int class = 9; /* 512 byte, as CUDA aligns */
    while ((1ul << class) < size) class++;
    pthread_mutex_lock(&lock);
    arena *a = &arenas[place];
    block *found = fits(place, size) ? a->idle[class] : NULL;
    int old = found != NULL;
    if (old) a->idle[class] = found->next;
    else if (fits(place, size)) found = fresh(a, class);
    if (found) {
        found->size = size;
        a->held += size;
    }
    pthread_mutex_unlock(&lock);
    if (!found) {
        note("out of memory", place == HOST ? -1 : physical(place));
        return OUT_OF_MEMORY;
    }
    *out = (char *)found + HEADER;
    if (old) memset(*out, 0, size);
    counts.allocations++;
    return OK;
}

static int release(void *pointer) {
    int place = place_of(pointer);
    if (place == NOWHERE) return OK;
    block *freed = (block *)((char *)pointer - HEADER);
    pthread_mutex_lock(&lock);
    arena *a = &arenas[place];
    a->held -= freed->size;
    freed->next = a->idle[freed->class];
    a->idle[freed->class] = freed;
    pthread_mutex_unlock(&lock);
    return OK;
}

int cudaMalloc(void **out, size_t size) {
    int error = context(chosen());
    return error ? error : allocate(out, size, chosen());
}
int cudaMallocAsync(void **out, size_t size, void *stream) { (void)stream; return cudaMalloc(out, size); }
int cudaFree(void *pointer) { return pointer ? release(pointer) : context(chosen()); }
int cudaFreeAsync(void *pointer, void *stream) { (void)stream; return release(pointer); }
int cudaHostAlloc(void **out, size_t size, unsigned flags) {
    (void)flags;
    int error = context(chosen());
    return error ? error : allocate(out, size, HOST);
}
int cudaFreeHost(void *pointer) { return release(pointer); }

typedef struct { int type, device; void *device_pointer, *host_pointer; } attributes;
int cudaPointerGetAttributes(attributes *out, const void *pointer) {
    int place = place_of(pointer);
    memset(out, 0, sizeof *out);
    out->type = place == NOWHERE ? 0 : place == HOST ? 1 : 2;
    out->device = place == NOWHERE ? -1 : place == HOST ? 0 : place;
    if (place != NOWHERE) out->device_pointer = (void *)pointer;
    if (out->type < 2) out->host_pointer = (void *)pointer;
    return OK;
}

int cudaMemGetInfo(size_t *idle, size_t *total) {
    int error = context(chosen());
    *total = 141ul << 30;
    *idle = *total - arenas[chosen()].held;
    return error;
}

static int copy(void *to, const void *from, size_t size, void *stream) {
    (void)stream;
    int error = context(chosen()), target = place_of(to), source = place_of(from);
    if (error) return error;
    int on = target >= 0 && target < HOST, off = source >= 0 && source < HOST;
    if (off && !on) counts.to_host++;
    if (on && !off) counts.to_device++;
    if (on && off && target != source) {
        note("copy between devices", physical(target));
        error = context(source) ? context(source) : context(target);
    }
    if (!error) memmove(to, from, size);
    return error;
}
int cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, void *stream) {
    (void)kind;
    return copy(to, from, size, stream);
}
int cudaMemcpy(void *to, const void *from, size_t size, int kind) {
    waited(__func__);
    return cudaMemcpyAsync(to, from, size, kind, NULL);
}
int cudaMemcpyPeerAsync(void *to, int there, const void *from, int here, size_t size, void *stream) {
    (void)there;
    (void)here;
    return copy(to, from, size, stream);
}
int cudaMemcpy2DAsync(char *to, size_t step_to, const char *from, size_t step_from, size_t width, size_t height,
                      int kind, void *stream) {
    int error = OK;
    for (size_t row = 0; row < height && !error; row++)
        error = cudaMemcpyAsync(to + row * step_to, from + row * step_from, width, kind, stream);
    return error;
}
int cudaMemset(void *to, int value, size_t size) { memset(to, value, size); return OK; }
int cudaMemsetAsync(void *to, int value, size_t size, void *stream) {
    (void)stream;
    return cudaMemset(to, value, size);
}
int cudaGetSymbolAddress(void **out, const void *symbol) {
    static char anything[1 << 16];
    (void)symbol;
    *out = anything;
    return OK;
}
