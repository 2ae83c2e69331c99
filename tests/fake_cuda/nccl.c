/* NCCL's collectives over shared memory: these compute, and every rank waits for the others. */
#define _GNU_SOURCE
#include "fake_cuda.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { SLOT = 1 << 20, MAX_RANKS = 16, FAILED = 1 };
enum { SUM, PRODUCT, MAXIMUM, MINIMUM, AVERAGE };

typedef struct { char name[128]; } unique_id;
typedef struct { atomic_int arrived, turn, splits; int colors[MAX_RANKS], keys[MAX_RANKS]; } board;
typedef struct { board *board; char *slots; int rank, size; char name[64]; atomic_int aborted; } comm;

static void meet(comm *c) {
    int turn = c->board->turn;
    if (atomic_fetch_add(&c->board->arrived, 1) == c->size - 1) {
        c->board->arrived = 0;
        c->board->turn++;
    }
    /* A rank that starts late is waited for long, and waiting takes a processor too. */
    for (unsigned us = 10; c->board->turn == turn && !c->aborted; us += us < 1000 ? us : 0) usleep(us);
}

static int join(comm **out, int size, const char *name, int rank) {
    if (size > MAX_RANKS) return FAILED;
    comm *c = *out = calloc(1, sizeof **out);
    c->size = size;
    c->rank = rank;
    snprintf(c->name, sizeof c->name, "%s", name);
    char path[80];
    snprintf(path, sizeof path, "/fake-nccl-%s", name);
    int handle = shm_open(path, O_CREAT | O_RDWR, 0600);
    size_t whole = sizeof(board) + (size_t)size * SLOT;
    if (handle < 0 || ftruncate(handle, whole)) return FAILED;
    char *memory = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_SHARED, handle, 0);
    close(handle);
    if (memory == MAP_FAILED) return FAILED;
    c->board = (board *)memory;
    c->slots = memory + sizeof(board);
    meet(c);
    if (rank == 0) shm_unlink(path);
    return OK;
}

int ncclGetUniqueId(unique_id *out) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    memset(out, 0, sizeof *out);
    snprintf(out->name, sizeof out->name, "%d-%lld", getpid(), now.tv_sec * 1000000000ll + now.tv_nsec);
    return OK;
}
int ncclCommInitRankConfig(comm **out, int size, unique_id id, int rank, void *config) {
    (void)config;
    if (context(chosen())) return FAILED;
    return join(out, size, id.name, rank);
}
int ncclCommInitRank(comm **out, int size, unique_id id, int rank) {
    return ncclCommInitRankConfig(out, size, id, rank, NULL);
}
int ncclCommSplit(comm *c, int color, int key, comm **out, void *config) {
    (void)config;
    c->board->colors[c->rank] = color;
    c->board->keys[c->rank] = key;
    meet(c);
    int size = 0, rank = 0, split = c->board->splits;
    for (int i = 0; i < c->size; i++) {
        int before = c->board->keys[i] < key || (c->board->keys[i] == key && i < c->rank);
        if (c->board->colors[i] == color) size++, rank += before;
    }
    meet(c);
    if (c->rank == 0) c->board->splits++;
    meet(c);
    *out = NULL;
    if (color < 0) return OK;
    char name[64];
    snprintf(name, sizeof name, "%.40s.%d.%d", c->name, split, color);
    return join(out, size, name, rank);
}
int ncclCommAbort(comm *c) { c->aborted = 1; return OK; }
int ncclCommGetAsyncError(comm *c, int *out) { (void)c; *out = 0; return OK; }
int ncclCommCount(comm *c, int *out) { *out = c->size; return OK; }
int ncclCommUserRank(comm *c, int *out) { *out = c->rank; return OK; }
int ncclGetVersion(int *out) { *out = 22907; return OK; }
const char *ncclGetErrorString(int error) { return error ? "fake nccl failed" : "no error"; }
const char *ncclGetLastError(comm *c) { (void)c; return ""; }

/* Bytes of ncclDataType_t: int8, uint8, int32, uint32, int64, uint64, half, float, double, bfloat16, two float8. */
static size_t width(int type) {
    static const size_t widths[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2, 1, 1};
    return widths[type];
}
static float of_bfloat(uint16_t value) {
    uint32_t bits = (uint32_t)value << 16;
    float out;
    memcpy(&out, &bits, 4);
    return out;
}
static uint16_t to_bfloat(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits >> 16;
}

#define ONE(a, b) (op == MAXIMUM ? (a > b ? a : b) : op == MINIMUM ? (a < b ? a : b) : op == PRODUCT ? a * b : a + b)
#define ALL(T) { T *x = into; const T *y = from; for (size_t i = 0; i < count; i++) x[i] = ONE(x[i], y[i]); } break
static void reduce(void *into, const void *from, size_t count, int type, int op) {
    switch (type) {
    case 0: ALL(int8_t);
    case 1: ALL(uint8_t);
    case 2: ALL(int32_t);
    case 3: ALL(uint32_t);
    case 4: ALL(int64_t);
    case 5: ALL(uint64_t);
    case 6: ALL(_Float16);
    case 7: ALL(float);
    case 8: ALL(double);
    case 9: {
        uint16_t *x = into;
        const uint16_t *y = from;
        for (size_t i = 0; i < count; i++) {
            float a = of_bfloat(x[i]), b = of_bfloat(y[i]);
            x[i] = to_bfloat(ONE(a, b));
        }
        break;
    }
    default: abort();
    }
}
#define SHARE(T) { T *x = values; for (size_t i = 0; i < count; i++) x[i] /= ranks; } break
static void divide(void *values, size_t count, int type, int ranks) {
    switch (type) {
    case 6: SHARE(_Float16);
    case 7: SHARE(float);
    case 8: SHARE(double);
    case 9: {
        uint16_t *x = values;
        for (size_t i = 0; i < count; i++) x[i] = to_bfloat(of_bfloat(x[i]) / ranks);
        break;
    }
    default: abort();
    }
}

/* Hands `size` byte of every rank to `take`, slot by slot: (its state, offset, length). */
#define IN_PIECES(size, own) \
    counts.launches++; \
    for (size_t at = 0, length; at < (size); at += length) { \
        length = (size) - at < SLOT ? (size) - at : SLOT; \
        memcpy(c->slots + (size_t)c->rank * SLOT, (const char *)(own) + at, length); \
        meet(c);
#define END_PIECES \
        meet(c); \
    }

int ncclAllReduce(const void *from, void *to, size_t count, int type, int op, comm *c, void *stream) {
    (void)stream;
    char *sum = malloc(SLOT);
    IN_PIECES(count * width(type), from)
        memcpy(sum, c->slots, length);
        for (int r = 1; r < c->size; r++)
            reduce(sum, c->slots + (size_t)r * SLOT, length / width(type), type, op);
        if (op == AVERAGE) divide(sum, length / width(type), type, c->size);
        memcpy((char *)to + at, sum, length);
    END_PIECES
    free(sum);
    return OK;
}
int ncclReduce(const void *from, void *to, size_t count, int type, int op, int root, comm *c, void *stream) {
    char *all = c->rank == root ? to : malloc(count * width(type) + 1);
    int error = ncclAllReduce(from, all, count, type, op, c, stream);
    if (all != to) free(all);
    return error;
}
int ncclBroadcast(const void *from, void *to, size_t count, int type, int root, comm *c, void *stream) {
    (void)stream;
    IN_PIECES(count * width(type), c->rank == root ? from : to)
        memcpy((char *)to + at, c->slots + (size_t)root * SLOT, length);
    END_PIECES
    return OK;
}
int ncclBcast(void *values, size_t count, int type, int root, comm *c, void *stream) {
    return ncclBroadcast(values, values, count, type, root, c, stream);
}
int ncclAllGather(const void *from, void *to, size_t count, int type, comm *c, void *stream) {
    (void)stream;
    size_t size = count * width(type);
    IN_PIECES(size, from)
        for (int r = 0; r < c->size; r++)
            memcpy((char *)to + (size_t)r * size + at, c->slots + (size_t)r * SLOT, length);
    END_PIECES
    return OK;
}
int ncclReduceScatter(const void *from, void *to, size_t count, int type, int op, comm *c, void *stream) {
    size_t size = count * width(type);
    char *all = malloc(size * c->size + 1);
    int error = ncclAllReduce(from, all, count * c->size, type, op, c, stream);
    memcpy(to, all + (size_t)c->rank * size, size);
    free(all);
    return error;
}
int ncclRedOpCreatePreMulSum(int *out) { *out = SUM; return OK; }
