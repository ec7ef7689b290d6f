/* A power switch for the process that it is preloaded into. Beside one database file and its log it
   keeps images of what is on the disk for certain: PATH.on-disk is what had been written to PATH
   before the start of a sync of that file which returned success.

   POWER_LOSS_FILE: the path of the database; PATH-wal is its log. Paths are compared as they are
   given, so it must be one without links. No other file is concerned.
   POWER_LOSS_EARLY: a seed. About half of the writes, which ones it decides, then reach the image
   at once too, some of them in part, as a system may write pages back when it likes. Without it,
   nothing reaches the image before a sync.

   The switch is SIGUSR1. From then on every call below blocks for ever before it does anything, and
   so does a sync that has just returned before it tells its caller. No image changes any more as
   soon as the changes under way are done, which PATH.off says: then the process can be killed. So
   no image is torn, and what the process said before it was killed it said because of syncs that
   are in the images as a whole.

   Which calls SQLite makes on Linux was looked at with strace: open, pwrite, ftruncate, fsync,
   unlink. A write of another kind to one of the files ends the process. Writes by mmap are not
   seen; SQLite makes none to these files unless told to. The rollback journal, which SQLite needs
   while it makes the file and not after, is not kept. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* A write, or a truncation (without bytes, to the size `at`). */
struct change {
    struct change *next;
    uint64_t number;
    int truncates;
    off_t at;
    size_t size;
    char bytes[];
};

/* A file that one of the names leads to, or led to: these are never freed. */
struct file {
    dev_t device;
    ino_t inode;
    int image;
    /* The name is on the disk too, so that the image is PATH.on-disk, and not PATH.unnamed. */
    int named;
    /* What is not surely on the disk, in the order in which it was written. */
    pthread_mutex_t list;
    struct change *first, **end;
    uint64_t last;
    /* Held while the image is changed: changes come in order, and each once. */
    pthread_mutex_t imaging;
};

/* `turn` counts what the name led to. */
struct name {
    char path[PATH_MAX], on_disk[PATH_MAX], unnamed[PATH_MAX];
    _Atomic(struct file *) file;
    uint64_t turn;
};

static struct name names[2];
static char folder[PATH_MAX], marker[PATH_MAX];
static pthread_mutex_t naming = PTHREAD_MUTEX_INITIALIZER;
static int active, early;
static uint64_t seed;

static int (*real_open)(const char *, int, ...);
static int (*real_openat)(int, const char *, int, ...);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_writev)(int, const struct iovec *, int);
static ssize_t (*real_pwritev)(int, const struct iovec *, int, off_t);
static int (*real_ftruncate)(int, off_t);
static int (*real_fallocate)(int, off_t, off_t);
static int (*real_fsync)(int), (*real_fdatasync)(int);
static int (*real_unlink)(const char *);

static void must(int holds, const char *what) {
    if (holds) return;
    fprintf(stderr, "power_loss: %s: %s\n", what, strerror(errno));
    abort();
}

/* The switch. A change of an image is counted before it looks whether the power is off, and the
   handler says so before it looks for changes: one of the two sees the other, and the last change
   leaves the marker if the handler did not. Later ones never begin. */
static atomic_int off, changing;

static void mark(void) {
    int fd = real_open(marker, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd >= 0) close(fd);
}

static void switch_off(int signal) {
    int kept = errno;
    (void)signal;
    atomic_store(&off, 1);
    if (atomic_load(&changing) == 0) mark();
    errno = kept;
}

static void stop_when_off(void) {
    if (!atomic_load(&off)) return;
    for (;;) pause();
}

static void change_ends(void) {
    if (atomic_fetch_sub(&changing, 1) == 1 && atomic_load(&off)) mark();
}

/* Never called with a lock, because it may not return. */
static void change_begins(void) {
    atomic_fetch_add(&changing, 1);
    if (!atomic_load(&off)) return;
    change_ends();
    stop_when_off();
}

/* Before the constructor has run, other libraries may call already. */
static void find_real(void) {
    if (real_unlink) return;
    *(void **)&real_open = dlsym(RTLD_NEXT, "open64");
    *(void **)&real_openat = dlsym(RTLD_NEXT, "openat64");
    *(void **)&real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    *(void **)&real_write = dlsym(RTLD_NEXT, "write");
    *(void **)&real_writev = dlsym(RTLD_NEXT, "writev");
    *(void **)&real_pwritev = dlsym(RTLD_NEXT, "pwritev64");
    *(void **)&real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
    *(void **)&real_fallocate = dlsym(RTLD_NEXT, "posix_fallocate64");
    *(void **)&real_fsync = dlsym(RTLD_NEXT, "fsync");
    *(void **)&real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    *(void **)&real_unlink = dlsym(RTLD_NEXT, "unlink");
}

static void joined(char *to, const char *path, const char *more) {
    must(snprintf(to, PATH_MAX, "%s%s", path, more) < PATH_MAX, "the path is too long");
}

__attribute__((constructor)) static void begin(void) {
    find_real();
    const char *path = getenv("POWER_LOSS_FILE"), *chance = getenv("POWER_LOSS_EARLY");
    if (!path) return;
    for (int i = 0; i < 2; i++) {
        joined(names[i].path, path, i ? "-wal" : "");
        joined(names[i].on_disk, names[i].path, ".on-disk");
        joined(names[i].unnamed, names[i].path, ".unnamed");
    }
    joined(marker, path, ".off");
    joined(folder, path, "");
    must(folder[0] == '/', "not an absolute path");
    *strrchr(folder, '/') = 0;
    early = chance != NULL;
    seed = chance ? strtoull(chance, NULL, 10) : 0;
    struct sigaction action = {.sa_handler = switch_off, .sa_flags = SA_RESTART};
    must(sigaction(SIGUSR1, &action, NULL) == 0, "no switch");
    active = 1;
}

/* The file that a descriptor leads to, whatever code opened it. */
static struct file *file_of(int fd) {
    struct stat found;
    if (!active || fstat(fd, &found) != 0) return NULL;
    for (int i = 0; i < 2; i++) {
        struct file *file = atomic_load(&names[i].file);
        if (file && file->inode == found.st_ino && file->device == found.st_dev) return file;
    }
    return NULL;
}

static struct name *name_of(const char *path) {
    for (int i = 0; active && i < 2; i++)
        if (strcmp(path, names[i].path) == 0) return &names[i];
    return NULL;
}

static uint64_t chance_of(uint64_t number) {
    uint64_t mixed = (number + seed) * 0x9e3779b97f4a7c15u;
    mixed ^= mixed >> 29;
    mixed *= 0xbf58476d1ce4e5b9u;
    return mixed ^ mixed >> 32;
}

static void apply(struct file *file, const struct change *change, size_t size) {
    if (change->truncates) {
        must(real_ftruncate(file->image, change->at) == 0, "an image cannot be truncated");
        return;
    }
    for (size_t done = 0; done < size;) {
        ssize_t wrote = real_pwrite(
            file->image, change->bytes + done, size - done, change->at + (off_t)done);
        must(wrote > 0, "an image cannot be written");
        done += (size_t)wrote;
    }
}

/* Called after the call that changed the file: a sync that begins in between is not taken to have
   seen it. Two threads that write to one place at once have no order here; SQLite's locks keep them
   from that. */
static void changed(struct file *file, int truncates, const void *from, size_t size, off_t at) {
    struct change *change = malloc(sizeof *change + size);
    must(change != NULL, "no memory");
    *change = (struct change){.truncates = truncates, .at = at, .size = size};
    if (size) memcpy(change->bytes, from, size);
    if (early) change_begins();
    pthread_mutex_lock(&file->imaging);
    pthread_mutex_lock(&file->list);
    change->number = ++file->last;
    *file->end = change;
    file->end = &change->next;
    pthread_mutex_unlock(&file->list);
    uint64_t chance = chance_of(change->number);
    /* One in four of those that come early is cut off at the end of a sector. */
    if (early && chance % 2) apply(file, change, chance & 6 ? size : size / 1024 * 512);
    pthread_mutex_unlock(&file->imaging);
    if (early) change_ends();
}

/* What was written before a sync began is on the disk. Two syncs may overlap: each takes what had
   been written before its own start and is left. After a sync that failed nothing is taken, so the
   next one covers it too. (A real disk may have lost it by then; no sync fails here.) */
static void on_disk(struct file *file, uint64_t last) {
    change_begins();
    pthread_mutex_lock(&file->imaging);
    pthread_mutex_lock(&file->list);
    struct change *first = file->first, **end = &first;
    while (*end && (*end)->number <= last) end = &(*end)->next;
    file->first = *end;
    if (!file->first) file->end = &file->first;
    *end = NULL;
    pthread_mutex_unlock(&file->list);
    while (first) {
        struct change *next = first->next;
        apply(file, first, first->size);
        free(first);
        first = next;
    }
    pthread_mutex_unlock(&file->imaging);
    change_ends();
}

/* Names are on the disk once the folder was synced. Until then the worst case counts: a file that
   was made is not there, and one that was removed still is, with all that was in it. So the image
   of a removed log stays, also beside a new log, until a sync of the folder takes the old one away
   and puts the new one in its place. */
static int folder_synced(int fd, int (*real)(int)) {
    uint64_t turns[2];
    pthread_mutex_lock(&naming);
    for (int i = 0; i < 2; i++) turns[i] = names[i].turn;
    pthread_mutex_unlock(&naming);
    int result = real(fd), kept = errno;
    if (result != 0) return result;
    change_begins();
    pthread_mutex_lock(&naming);
    for (int i = 0; i < 2; i++) {
        struct file *file = atomic_load(&names[i].file);
        if (names[i].turn != turns[i]) continue;
        if (!file) {
            real_unlink(names[i].on_disk);
        } else if (!file->named) {
            must(rename(names[i].unnamed, names[i].on_disk) == 0, "an image cannot be renamed");
            file->named = 1;
        }
    }
    pthread_mutex_unlock(&naming);
    change_ends();
    errno = kept;
    return result;
}

static int is_folder(int fd) {
    struct stat found, wanted;
    return active && fstat(fd, &found) == 0 && S_ISDIR(found.st_mode) &&
           stat(folder, &wanted) == 0 && found.st_ino == wanted.st_ino &&
           found.st_dev == wanted.st_dev;
}

static int synced(int fd, int (*real)(int)) {
    stop_when_off();
    struct file *file = file_of(fd);
    if (!file) return is_folder(fd) ? folder_synced(fd, real) : real(fd);
    pthread_mutex_lock(&file->list);
    uint64_t last = file->last;
    pthread_mutex_unlock(&file->list);
    int result = real(fd), kept = errno;
    if (result == 0) on_disk(file, last);
    errno = kept;
    return result;
}

/* A name leads to a file that was not known: one just made, or what there was when the process
   began, which is on the disk. */
static void met(struct name *name, int fd, int was_there) {
    struct stat found;
    must(fstat(fd, &found) == 0, "an opened file cannot be looked at");
    struct file *file = atomic_load(&name->file);
    if (file && file->inode == found.st_ino && file->device == found.st_dev) return;
    must(file == NULL, "a file was replaced");
    must((file = calloc(1, sizeof *file)) != NULL, "no memory");
    *file = (struct file){.device = found.st_dev, .inode = found.st_ino, .named = was_there};
    file->end = &file->first;
    pthread_mutex_init(&file->list, NULL);
    pthread_mutex_init(&file->imaging, NULL);
    const char *image = was_there ? name->on_disk : name->unnamed;
    file->image = real_open(image, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    must(file->image >= 0, "an image cannot be made");
    char piece[1 << 16];
    for (off_t at = 0; at < found.st_size;) {
        ssize_t size = pread(fd, piece, sizeof piece, at);
        must(size > 0 && real_pwrite(file->image, piece, (size_t)size, at) == size,
             "an image cannot be copied");
        at += size;
    }
    name->turn++;
    atomic_store(&name->file, file);
}

static int opened(int at, const char *path, int flags, mode_t mode) {
    find_real();
    stop_when_off();
    struct name *name = name_of(path);
    if (!name) return real_openat(at, path, flags, mode);
    must(!(flags & O_TRUNC), "a file is emptied as it is opened");
    change_begins();
    pthread_mutex_lock(&naming);
    int was_there = access(path, F_OK) == 0;
    int fd = real_openat(at, path, flags, mode), kept = errno;
    if (fd >= 0) met(name, fd, was_there);
    pthread_mutex_unlock(&naming);
    change_ends();
    errno = kept;
    return fd;
}

#define MODE(mode, flags)                                                                          \
    mode_t mode = 0;                                                                               \
    if (((flags) & O_CREAT) || ((flags) & O_TMPFILE) == O_TMPFILE) {                               \
        va_list more;                                                                              \
        va_start(more, flags);                                                                     \
        mode = va_arg(more, mode_t);                                                               \
        va_end(more);                                                                              \
    }

int open(const char *path, int flags, ...) {
    MODE(mode, flags)
    return opened(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    MODE(mode, flags)
    return opened(AT_FDCWD, path, flags, mode);
}

int openat(int at, const char *path, int flags, ...) {
    MODE(mode, flags)
    return opened(at, path, flags, mode);
}

int openat64(int at, const char *path, int flags, ...) {
    MODE(mode, flags)
    return opened(at, path, flags, mode);
}

static ssize_t wrote(int fd, const void *from, size_t size, off_t at) {
    find_real();
    stop_when_off();
    struct file *file = file_of(fd);
    ssize_t result = real_pwrite(fd, from, size, at);
    int kept = errno;
    if (file && result > 0) changed(file, 0, from, (size_t)result, at);
    errno = kept;
    return result;
}

ssize_t pwrite(int fd, const void *from, size_t size, off_t at) {
    return wrote(fd, from, size, at);
}

ssize_t pwrite64(int fd, const void *from, size_t size, off64_t at) {
    return wrote(fd, from, size, at);
}

static int truncated(int fd, off_t size) {
    find_real();
    stop_when_off();
    struct file *file = file_of(fd);
    int result = real_ftruncate(fd, size), kept = errno;
    if (file && result == 0) changed(file, 1, NULL, 0, size);
    errno = kept;
    return result;
}

int ftruncate(int fd, off_t size) { return truncated(fd, size); }

int ftruncate64(int fd, off64_t size) { return truncated(fd, size); }

int fsync(int fd) {
    find_real();
    return synced(fd, real_fsync);
}

int fdatasync(int fd) {
    find_real();
    return synced(fd, real_fdatasync);
}

int unlink(const char *path) {
    find_real();
    stop_when_off();
    struct name *name = name_of(path);
    if (!name) return real_unlink(path);
    change_begins();
    pthread_mutex_lock(&naming);
    int result = real_unlink(path), kept = errno;
    struct file *file = result == 0 ? atomic_exchange(&name->file, NULL) : NULL;
    if (file && !file->named) real_unlink(name->unnamed);
    if (result == 0) name->turn++;
    pthread_mutex_unlock(&naming);
    change_ends();
    errno = kept;
    return result;
}

/* What is not kept must not happen unseen. */
static void refuse(int fd) {
    find_real();
    must(file_of(fd) == NULL, "a write of a kind that is not kept");
}

ssize_t write(int fd, const void *from, size_t size) {
    refuse(fd);
    return real_write(fd, from, size);
}

ssize_t writev(int fd, const struct iovec *from, int count) {
    refuse(fd);
    return real_writev(fd, from, count);
}

ssize_t pwritev(int fd, const struct iovec *from, int count, off_t at) {
    refuse(fd);
    return real_pwritev(fd, from, count, at);
}

ssize_t pwritev64(int fd, const struct iovec *from, int count, off64_t at) {
    refuse(fd);
    return real_pwritev(fd, from, count, at);
}

int posix_fallocate(int fd, off_t at, off_t size) {
    refuse(fd);
    return real_fallocate(fd, at, size);
}

int posix_fallocate64(int fd, off64_t at, off64_t size) {
    refuse(fd);
    return real_fallocate(fd, at, size);
}
