/* Count the calls that change files below a folder, and kill the process or fail at the n-th of them.
 *
 * Preloaded with LD_PRELOAD; does nothing until the process calls `faults_arm`. Python, Rust and torch all
 * reach files through these functions of the C library.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum action { COUNT, KILL, KILL_HALFWAY, KILL_AFTER, FAIL_ONCE, FAIL_FROM_THEN_ON };

static char root[PATH_MAX];
static atomic_int armed;
static atomic_long calls;
static long fatal_call;
static enum action what;
static int fault;
static int log_file = -1;

#define REAL(name)                              \
    ({                                          \
        static __typeof__(&name) function;      \
        if (function == NULL)                   \
            function = real(#name);             \
        function;                               \
    })

static void *real(const char *name)
{
    void *function = dlsym(RTLD_NEXT, name);
    if (function == NULL)
        abort();
    return function;
}

/* Without the wrappers below, and without errno. */
static long raw(long number, long a, long b, long c, long d)
{
    int saved = errno;
    long result = REAL(syscall)(number, a, b, c, d);
    errno = saved;
    return result;
}

/* The path that a folder's descriptor and a path below it name; an empty text if there is none. */
static void resolve(int folder, const char *path, char *full)
{
    long length = 0;
    full[0] = 0;
    if (path != NULL && path[0] != '/' && folder == AT_FDCWD) {
        length = raw(SYS_getcwd, (long)full, PATH_MAX, 0, 0) - 1;
    } else if (path == NULL || path[0] != '/') {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        length = raw(SYS_readlinkat, AT_FDCWD, (long)link, (long)full, PATH_MAX - 1);
    }
    if (length < 0)
        length = 0;
    full[length] = 0;
    if (path != NULL)
        snprintf(full + length, PATH_MAX - length, length > 0 ? "/%s" : "%s", path);
}

static int is_below(const char *path)
{
    size_t length = strlen(root);
    return strncmp(path, root, length) == 0 && (path[length] == '/' || path[length] == 0);
}

/* A full disk stops what needs room, and nothing else. */
static int needs_room(const char *name)
{
    static const char *const without_room[] = {"unlink", "rmdir", "rename", "truncate", NULL};
    for (int i = 0; without_room[i] != NULL; i++)
        if (strcmp(name, without_room[i]) == 0)
            return 0;
    return 1;
}

enum verdict { GO_ON, HALFWAY, AFTER, FAIL };

static _Noreturn void die(void)
{
    raw(SYS_kill, 0, SIGKILL, 0, 0); /* the whole group: every process of the command */
    for (;;)
        pause();
}

static enum verdict reached(const char *name, int folder, const char *path)
{
    char full[PATH_MAX + PATH_MAX], line[PATH_MAX + PATH_MAX + 64];
    if (!armed)
        return GO_ON;
    resolve(folder, path, full);
    if (!is_below(full))
        return GO_ON;
    if (what == FAIL_FROM_THEN_ON && fault == ENOSPC && !needs_room(name))
        return GO_ON;
    long number = atomic_fetch_add(&calls, 1) + 1;
    if (log_file >= 0) {
        int length = snprintf(line, sizeof line, "%ld %s %s\n", number, name, full + strlen(root));
        raw(SYS_write, log_file, (long)line, length, 0);
    }
    if (what == COUNT || number < fatal_call || (number > fatal_call && what != FAIL_FROM_THEN_ON))
        return GO_ON;
    switch (what) {
    case KILL:
        die();
    case KILL_HALFWAY:
        return HALFWAY;
    case KILL_AFTER:
        return AFTER;
    default:
        errno = fault;
        return FAIL;
    }
}

/* Count from 1 again. Each call is a line of the log: its number, its kind, and its path below the folder. */
void faults_arm(long call, int action, int error, int log, const char *folder)
{
    snprintf(root, sizeof root, "%s", folder);
    fatal_call = call;
    what = action;
    fault = error;
    log_file = log;
    calls = 0;
    armed = 1;
}

/* Run a call that has no half: at its turn it fails, or the process dies before or after it. */
#define GUARDED(type, failed, name, folder, path, call)         \
    do {                                                        \
        enum verdict verdict = reached(name, folder, path);     \
        if (verdict == FAIL)                                    \
            return failed;                                      \
        type result = call;                                     \
        if (verdict != GO_ON)                                   \
            die();                                              \
        return result;                                          \
    } while (0)

#define MODE(flags, last)                                       \
    mode_t mode = 0;                                            \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                      \
        va_list more;                                           \
        va_start(more, last);                                   \
        mode = (mode_t)va_arg(more, int);                       \
        va_end(more);                                           \
    }

#define CHANGES(flags) ((flags) & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC))

#define OPEN(function)                                                                          \
    int function(const char *path, int flags, ...)                                              \
    {                                                                                           \
        MODE(flags, flags)                                                                      \
        if (!CHANGES(flags))                                                                    \
            return REAL(function)(path, flags, mode);                                           \
        GUARDED(int, -1, "open", AT_FDCWD, path, REAL(function)(path, flags, mode));            \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(function)                                                                        \
    int function(int folder, const char *path, int flags, ...)                                  \
    {                                                                                           \
        MODE(flags, flags)                                                                      \
        if (!CHANGES(flags))                                                                    \
            return REAL(function)(folder, path, flags, mode);                                   \
        GUARDED(int, -1, "open", folder, path, REAL(function)(folder, path, flags, mode));      \
    }
OPENAT(openat)
OPENAT(openat64)

int creat(const char *path, mode_t mode)
{
    GUARDED(int, -1, "open", AT_FDCWD, path, REAL(creat)(path, mode));
}

int creat64(const char *path, mode_t mode)
{
    GUARDED(int, -1, "open", AT_FDCWD, path, REAL(creat64)(path, mode));
}

/* What a stream writes later is not seen: of the programs here, none writes its results through one. */
FILE *fopen(const char *path, const char *mode)
{
    if (strpbrk(mode, "wa+") == NULL)
        return REAL(fopen)(path, mode);
    GUARDED(FILE *, NULL, "open", AT_FDCWD, path, REAL(fopen)(path, mode));
}

FILE *fopen64(const char *path, const char *mode)
{
    if (strpbrk(mode, "wa+") == NULL)
        return REAL(fopen64)(path, mode);
    GUARDED(FILE *, NULL, "open", AT_FDCWD, path, REAL(fopen64)(path, mode));
}

#define WRITES(descriptor, whole, half)                                 \
    do {                                                                \
        enum verdict verdict = reached("write", descriptor, NULL);      \
        if (verdict == FAIL)                                            \
            return -1;                                                  \
        ssize_t result = verdict == HALFWAY ? (half) : (whole);         \
        if (verdict != GO_ON)                                           \
            die();                                                      \
        return result;                                                  \
    } while (0)

ssize_t write(int descriptor, const void *bytes, size_t count)
{
    WRITES(descriptor, REAL(write)(descriptor, bytes, count), REAL(write)(descriptor, bytes, count / 2));
}

#define PWRITE(function, offset_type)                                                           \
    ssize_t function(int descriptor, const void *bytes, size_t count, offset_type offset)       \
    {                                                                                           \
        WRITES(descriptor, REAL(function)(descriptor, bytes, count, offset),                    \
               REAL(function)(descriptor, bytes, count / 2, offset));                           \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t writev(int descriptor, const struct iovec *parts, int count)
{
    WRITES(descriptor, REAL(writev)(descriptor, parts, count),
           REAL(write)(descriptor, parts[0].iov_base, parts[0].iov_len / 2));
}

#define PWRITEV(function, offset_type)                                                          \
    ssize_t function(int descriptor, const struct iovec *parts, int count, offset_type offset)  \
    {                                                                                           \
        WRITES(descriptor, REAL(function)(descriptor, parts, count, offset),                    \
               REAL(pwrite)(descriptor, parts[0].iov_base, parts[0].iov_len / 2, offset));      \
    }
PWRITEV(pwritev, off_t)
PWRITEV(pwritev64, off64_t)

#define SENDFILE(function, offset_type)                                                 \
    ssize_t function(int to, int from, offset_type *offset, size_t count)               \
    {                                                                                   \
        WRITES(to, REAL(function)(to, from, offset, count),                             \
               REAL(function)(to, from, offset, count / 2));                            \
    }
#include <sys/sendfile.h>
SENDFILE(sendfile, off_t)
SENDFILE(sendfile64, off64_t)

ssize_t copy_file_range(int from, off64_t *from_offset, int to, off64_t *to_offset, size_t count, unsigned flags)
{
    WRITES(to, REAL(copy_file_range)(from, from_offset, to, to_offset, count, flags),
           REAL(copy_file_range)(from, from_offset, to, to_offset, count / 2, flags));
}

#define ON_DESCRIPTOR(function, name)                                                   \
    int function(int descriptor)                                                        \
    {                                                                                   \
        GUARDED(int, -1, name, descriptor, NULL, REAL(function)(descriptor));           \
    }
ON_DESCRIPTOR(fsync, "fsync")
ON_DESCRIPTOR(fdatasync, "fsync")

#define FTRUNCATE(function, offset_type)                                                                \
    int function(int descriptor, offset_type length)                                                    \
    {                                                                                                   \
        GUARDED(int, -1, "truncate", descriptor, NULL, REAL(function)(descriptor, length));             \
    }
FTRUNCATE(ftruncate, off_t)
FTRUNCATE(ftruncate64, off64_t)

#define TRUNCATE(function, offset_type)                                                         \
    int function(const char *path, offset_type length)                                          \
    {                                                                                           \
        GUARDED(int, -1, "truncate", AT_FDCWD, path, REAL(function)(path, length));             \
    }
TRUNCATE(truncate, off_t)
TRUNCATE(truncate64, off64_t)

#define ALLOCATE(function, offset_type)                                                                 \
    int function(int descriptor, offset_type offset, offset_type length)                                \
    {                                                                                                   \
        GUARDED(int, fault, "write", descriptor, NULL, REAL(function)(descriptor, offset, length));     \
    }
ALLOCATE(posix_fallocate, off_t)
ALLOCATE(posix_fallocate64, off64_t)

int rename(const char *from, const char *to)
{
    GUARDED(int, -1, "rename", AT_FDCWD, to, REAL(rename)(from, to));
}

int renameat(int from_folder, const char *from, int to_folder, const char *to)
{
    GUARDED(int, -1, "rename", to_folder, to, REAL(renameat)(from_folder, from, to_folder, to));
}

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags)
{
    GUARDED(int, -1, "rename", to_folder, to, REAL(renameat2)(from_folder, from, to_folder, to, flags));
}

int link(const char *from, const char *to)
{
    GUARDED(int, -1, "link", AT_FDCWD, to, REAL(link)(from, to));
}

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags)
{
    GUARDED(int, -1, "link", to_folder, to, REAL(linkat)(from_folder, from, to_folder, to, flags));
}

int symlink(const char *from, const char *to)
{
    GUARDED(int, -1, "link", AT_FDCWD, to, REAL(symlink)(from, to));
}

int symlinkat(const char *from, int to_folder, const char *to)
{
    GUARDED(int, -1, "link", to_folder, to, REAL(symlinkat)(from, to_folder, to));
}

int unlink(const char *path)
{
    GUARDED(int, -1, "unlink", AT_FDCWD, path, REAL(unlink)(path));
}

int unlinkat(int folder, const char *path, int flags)
{
    const char *name = flags & AT_REMOVEDIR ? "rmdir" : "unlink";
    GUARDED(int, -1, name, folder, path, REAL(unlinkat)(folder, path, flags));
}

int remove(const char *path)
{
    GUARDED(int, -1, "unlink", AT_FDCWD, path, REAL(remove)(path));
}

int rmdir(const char *path)
{
    GUARDED(int, -1, "rmdir", AT_FDCWD, path, REAL(rmdir)(path));
}

int mkdir(const char *path, mode_t mode)
{
    GUARDED(int, -1, "mkdir", AT_FDCWD, path, REAL(mkdir)(path, mode));
}

int mkdirat(int folder, const char *path, mode_t mode)
{
    GUARDED(int, -1, "mkdir", folder, path, REAL(mkdirat)(folder, path, mode));
}

long syscall(long number, ...)
{
    va_list more;
    va_start(more, number);
    long a = va_arg(more, long), b = va_arg(more, long), c = va_arg(more, long);
    long d = va_arg(more, long), e = va_arg(more, long), f = va_arg(more, long);
    va_end(more);
    if (number == SYS_renameat2)
        GUARDED(long, -1, "rename", (int)c, (const char *)d, REAL(syscall)(number, a, b, c, d, e, f));
    return REAL(syscall)(number, a, b, c, d, e, f);
}
