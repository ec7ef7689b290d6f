/* Makes reads, writes and syncs of files fail with EIO, each now and then, in the process that it is preloaded into. Only calls that name a
   position are concerned, which are the database's; pipes and logs are left alone.

   FAULTY_READS, FAULTY_WRITES, FAULTY_SYNCS: one call in so many fails; 0 or nothing: none. FAULTY_AFTER: not before so many calls.
   FAULTY_SEED: which ones. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_ullong calls;

static uint64_t number(const char *name) {
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : 0;
}

static int fails(const char *kind) {
    uint64_t one_in = number(kind), call = atomic_fetch_add(&calls, 1);
    if (one_in == 0 || call < number("FAULTY_AFTER")) return 0;
    uint64_t mixed = (call + number("FAULTY_SEED")) * 0x9e3779b97f4a7c15u;
    mixed ^= mixed >> 29;
    mixed *= 0xbf58476d1ce4e5b9u;
    mixed ^= mixed >> 32;
    if (mixed % one_in) return 0;
    errno = EIO;
    return 1;
}

#define FAULTY(result, name, kind, params, args)                             \
    result name params {                                                     \
        static result (*real) params;                                        \
        if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name);                \
        return fails(kind) ? -1 : real args;                                 \
    }

FAULTY(ssize_t, pread, "FAULTY_READS", (int fd, void *to, size_t size, off_t at), (fd, to, size, at))
FAULTY(ssize_t, pread64, "FAULTY_READS", (int fd, void *to, size_t size, off64_t at), (fd, to, size, at))
FAULTY(ssize_t, pwrite, "FAULTY_WRITES", (int fd, const void *from, size_t size, off_t at), (fd, from, size, at))
FAULTY(ssize_t, pwrite64, "FAULTY_WRITES", (int fd, const void *from, size_t size, off64_t at), (fd, from, size, at))
FAULTY(int, fsync, "FAULTY_SYNCS", (int fd), (fd))
FAULTY(int, fdatasync, "FAULTY_SYNCS", (int fd), (fd))
