/* A disk between a process and the system, loaded with LD_PRELOAD: it writes down all that is done to the files of one
 * folder, and fails on demand. Compiled by the tests where there is a C compiler; disk_shim.py reads what it wrote.
 *
 * DISK_FOLDER   the folder
 * DISK_TRACE    the file to which every step is added
 * DISK_CONTROL  two 32-bit numbers: with which errno writing fails now, and with which forcing to disk; 0 for neither
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static const char *folder;
static size_t folder_length;
static int trace = -1;
static volatile int32_t *control;
static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) ((__typeof__(&name))real(#name))
#define LOCK pthread_mutex_lock(&one_at_a_time)
#define UNLOCK pthread_mutex_unlock(&one_at_a_time)

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

__attribute__((constructor)) static void set_up(void) {
    const char *wanted = getenv("DISK_FOLDER"), *out = getenv("DISK_TRACE"), *told = getenv("DISK_CONTROL");
    if (!wanted || !out || !told) return;
    trace = REAL(open64)(out, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    int file = REAL(open64)(told, O_RDONLY | O_CLOEXEC);
    void *mapped = mmap(NULL, 8, PROT_READ, MAP_SHARED, file, 0);
    if (trace < 0 || file < 0 || mapped == MAP_FAILED) abort();
    control = mapped;
    folder = wanted;
    folder_length = strlen(wanted);
}

/* Where a path lies in the folder; NULL for what is not ours to watch. The index of the log lives in memory only. */
static const char *inside(const char *path) {
    if (!folder || strncmp(path, folder, folder_length) || path[folder_length] != '/') return NULL;
    size_t length = strlen(path);
    if (length > 4 && !strcmp(path + length - 4, "-shm")) return NULL;
    if (length > 10 && !strcmp(path + length - 10, " (deleted)")) return NULL;
    return path + folder_length + 1;
}

static const char *absolute(int at, const char *path, char *buffer) {
    char link[64];
    ssize_t length = 0;
    if (!folder) return NULL;
    if (path[0] == '/') return inside(path);
    if (at == AT_FDCWD) length = getcwd(buffer, PATH_MAX) ? (ssize_t)strlen(buffer) : -1;
    else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", at);
        length = readlink(link, buffer, PATH_MAX - 1);
    }
    if (length < 0 || (size_t)length + strlen(path) + 2 > PATH_MAX) return NULL;
    buffer[length] = '/';
    strcpy(buffer + length + 1, path);
    return inside(buffer);
}

static const char *of_file(int file, char *buffer) {
    char link[64];
    if (!folder || file == trace) return NULL;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, buffer, PATH_MAX - 1);
    if (length < 0) return NULL;
    buffer[length] = 0;
    if ((size_t)length == folder_length && !strcmp(buffer, folder)) return ".";
    return inside(buffer);
}

static void put(struct iovec *part, const void *data, size_t length) {
    part->iov_base = (void *)data;
    part->iov_len = length;
}

static void note(char kind, const char *path, const char *to, uint64_t at, const void *data, size_t length) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    struct __attribute__((packed)) {
        char kind;
        uint64_t time, at;
        uint32_t path, to, data;
    } head = {kind, now.tv_sec * 1000000000ull + now.tv_nsec, at, strlen(path), to ? strlen(to) : 0, length};
    struct iovec parts[4];
    put(parts, &head, sizeof head);
    put(parts + 1, path, head.path);
    put(parts + 2, to ? to : "", head.to);
    put(parts + 3, data ? data : "", length);
    ssize_t want = sizeof head + head.path + head.to + length;
    if (REAL(writev)(trace, parts, 4) != want) abort();
}

static int refuses(const char *path) {
    if (path && control[0]) errno = control[0];
    return path && control[0];
}

static int opened(int at, const char *path, int flags, mode_t mode) {
    char buffer[PATH_MAX];
    const char *mine = (flags & (O_WRONLY | O_RDWR | O_CREAT)) ? absolute(at, path, buffer) : NULL;
    if (!mine) return REAL(openat64)(at, path, flags, mode);
    LOCK;
    int new = (flags & O_CREAT) && faccessat(at, path, F_OK, 0);
    int result = -1;
    if ((new || control[0] == EROFS) && refuses(mine)) goto done;
    result = REAL(openat64)(at, path, flags, mode);
    if (result >= 0 && new) note('c', mine, NULL, 0, NULL, 0);
    if (result >= 0 && !new && (flags & O_TRUNC)) note('t', mine, NULL, 0, NULL, 0);
done:
    UNLOCK;
    return result;
}

#define MODE                                                                                                            \
    mode_t mode = 0;                                                                                                    \
    if (flags & (O_CREAT | __O_TMPFILE)) {                                                                              \
        va_list more;                                                                                                   \
        va_start(more, flags);                                                                                          \
        mode = va_arg(more, mode_t);                                                                                    \
        va_end(more);                                                                                                   \
    }

int open(const char *path, int flags, ...) { MODE return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE return opened(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE return opened(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE return opened(at, path, flags, mode); }

static uint64_t place_of(int file) {
    off64_t at = lseek64(file, 0, SEEK_CUR);
    if (fcntl(file, F_GETFL) & O_APPEND) {
        struct stat64 state;
        at = fstat64(file, &state) ? at : state.st_size;
    }
    return at;
}

static ssize_t written(int file, const struct iovec *parts, int count, off64_t at) {
    char buffer[PATH_MAX];
    const char *mine = of_file(file, buffer);
    if (!mine) return at < 0 ? REAL(writev)(file, parts, count) : REAL(pwritev64)(file, parts, count, at);
    LOCK;
    ssize_t result = -1;
    if (!refuses(mine)) {
        uint64_t place = at < 0 ? place_of(file) : (uint64_t)at;
        result = at < 0 ? REAL(writev)(file, parts, count) : REAL(pwritev64)(file, parts, count, at);
        ssize_t left = result;
        for (int part = 0; part < count && left > 0; part++) {
            size_t some = (size_t)left < parts[part].iov_len ? (size_t)left : parts[part].iov_len;
            note('w', mine, NULL, place, parts[part].iov_base, some);
            place += some;
            left -= some;
        }
    }
    UNLOCK;
    return result;
}

static ssize_t written_one(int file, const void *data, size_t length, off64_t at) {
    struct iovec part;
    put(&part, data, length);
    return written(file, &part, 1, at);
}

ssize_t write(int file, const void *data, size_t length) { return written_one(file, data, length, -1); }
ssize_t pwrite(int file, const void *data, size_t length, off_t at) { return written_one(file, data, length, at); }
ssize_t pwrite64(int file, const void *data, size_t length, off64_t at) { return written_one(file, data, length, at); }
ssize_t writev(int file, const struct iovec *parts, int count) { return written(file, parts, count, -1); }
ssize_t pwritev(int file, const struct iovec *parts, int count, off_t at) { return written(file, parts, count, at); }
ssize_t pwritev64(int file, const struct iovec *parts, int count, off64_t at) { return written(file, parts, count, at); }

static int forced(int file, int (*force)(int)) {
    char buffer[PATH_MAX];
    struct stat64 state;
    const char *mine = of_file(file, buffer);
    if (!mine) return force(file);
    LOCK;
    int result = -1, is_folder = !fstat64(file, &state) && S_ISDIR(state.st_mode);
    if (control[1]) {
        errno = control[1];
        if (!is_folder) note('f', mine, NULL, 0, NULL, 0);
    } else {
        result = force(file);
        if (!result) note(is_folder ? 'd' : 's', mine, NULL, 0, NULL, 0);
    }
    UNLOCK;
    return result;
}

int fsync(int file) { return forced(file, REAL(fsync)); }
int fdatasync(int file) { return forced(file, REAL(fdatasync)); }

int ftruncate64(int file, off64_t length) {
    char buffer[PATH_MAX];
    const char *mine = of_file(file, buffer);
    if (!mine) return REAL(ftruncate64)(file, length);
    LOCK;
    int result = refuses(mine) ? -1 : REAL(ftruncate64)(file, length);
    if (!result) note('t', mine, NULL, length, NULL, 0);
    UNLOCK;
    return result;
}
int ftruncate(int file, off_t length) { return ftruncate64(file, length); }

#define TWO_NAMES(kind, call)                                                                                           \
    char one[PATH_MAX], two[PATH_MAX];                                                                                  \
    const char *mine = absolute(old_at, old, one), *goal = absolute(new_at, new, two);                                  \
    if (!mine || !goal) return call;                                                                                    \
    LOCK;                                                                                                               \
    int result = refuses(mine) ? -1 : call;                                                                             \
    if (!result) note(kind, mine, goal, 0, NULL, 0);                                                                    \
    UNLOCK;                                                                                                             \
    return result;

int renameat2(int old_at, const char *old, int new_at, const char *new, unsigned flags) {
    TWO_NAMES('m', REAL(renameat2)(old_at, old, new_at, new, flags))
}
int linkat(int old_at, const char *old, int new_at, const char *new, int flags) {
    TWO_NAMES('l', REAL(linkat)(old_at, old, new_at, new, flags))
}
int renameat(int old_at, const char *old, int new_at, const char *new) { return renameat2(old_at, old, new_at, new, 0); }
int rename(const char *old, const char *new) { return renameat2(AT_FDCWD, old, AT_FDCWD, new, 0); }
int link(const char *old, const char *new) { return linkat(AT_FDCWD, old, AT_FDCWD, new, 0); }

int unlinkat(int at, const char *path, int flags) {
    char buffer[PATH_MAX];
    const char *mine = (flags & AT_REMOVEDIR) ? NULL : absolute(at, path, buffer);
    if (!mine) return REAL(unlinkat)(at, path, flags);
    LOCK;
    int result = control[0] == EROFS && refuses(mine) ? -1 : REAL(unlinkat)(at, path, flags);
    if (!result) note('r', mine, NULL, 0, NULL, 0);
    UNLOCK;
    return result;
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
