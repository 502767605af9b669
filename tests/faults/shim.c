/* A disk that fails when it is told to: preloaded into a process, it counts what the process changes
   below a folder, and at the n-th change kills it, says an error, or writes half; or keeps a log of
   all changes, from which every state can be made that a power cut could leave.

     cc -shared -fPIC -O1 -o shim.so shim.c -ldl        LD_PRELOAD=.../shim.so

   fault_arm(folder, n, what): what is FAULT_KILL, FAULT_HALF, or an errno. From ENOSPC and EDQUOT on
   nothing more can be added, from EROFS and EACCES on nothing changed; EIO is of one change.
   fault_log(folder, file): a line for each change, `op TAB path TAB argument TAB offset TAB bytes`,
   and after `write` the bytes.
   fault_count(): how many changes there were since. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define FAULT_KILL -9
#define FAULT_HALF -1

enum { ADDS, CHANGES, SYNCS };

static char below[PATH_MAX];
static long at, count;
static int what, log_fd = -1;

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static ssize_t plain_write(int fd, const void *bytes, size_t size) {
    REAL(write);
    return real(fd, bytes, size);
}

void fault_arm(const char *folder, long n, int kind) {
    snprintf(below, sizeof below, "%s", folder);
    at = n; what = kind; count = 0;
}

void fault_log(const char *folder, const char *file) {
    REAL(open64);
    snprintf(below, sizeof below, "%s", folder);
    at = 0; count = 0;
    log_fd = real(file, O_CREAT | O_WRONLY | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);
}

long fault_count(void) { return count; }

/* The path without links to follow: of a name in a folder, or of an open file. */
static int full(int dir, const char *name, char *path) {
    char folder[PATH_MAX], link[64];
    if (name && name[0] == '/') { snprintf(path, PATH_MAX, "%s", name); return 1; }
    if (dir == AT_FDCWD) { if (!getcwd(folder, sizeof folder)) return 0; }
    else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
        ssize_t size = readlink(link, folder, sizeof folder - 1);
        if (size < 0) return 0;
        folder[size] = 0;
    }
    if (name) { size_t room = PATH_MAX - strlen(folder) - 2; snprintf(path, PATH_MAX, "%s/%.*s", folder, (int)room, name); }
    else snprintf(path, PATH_MAX, "%s", folder);
    return 1;
}

static int ours(const char *path) {
    size_t size = strlen(below);
    return size && !strncmp(path, below, size) && (path[size] == '/' || !path[size]);
}

/* 0: go on; 1: errno is set; 2: half of it. */
static int step(const char *path, int kind) {
    if (!ours(path)) return 0;
    count++;
    if (!at || count < at) return 0;
    if (what == FAULT_KILL) { raise(SIGKILL); for (;;) pause(); }
    if (what == FAULT_HALF) return count == at ? 2 : 0;
    if (what == EIO && count != at) return 0;
    if ((what == ENOSPC || what == EDQUOT) && kind != ADDS) return 0;
    if ((what == EROFS || what == EACCES) && kind == SYNCS) return 0;
    errno = what;
    return 1;
}

static void tell(const char *op, const char *path, const char *argument, long offset, long bytes) {
    char line[3 * PATH_MAX];
    if (log_fd < 0 || !ours(path)) return;
    int size = snprintf(line, sizeof line, "%s\t%s\t%s\t%ld\t%ld\n", op, path, argument, offset, bytes);
    plain_write(log_fd, line, size);
}

static int adds(int flags) { return (flags & O_ACCMODE) != O_RDONLY; }

static int opened(int dir, const char *file, int flags, mode_t mode) {
    REAL(openat64);
    char path[PATH_MAX];
    if (!adds(flags) || !full(dir, file, path)) return real(dir, file, flags, mode);
    struct stat there;
    int is_new = stat(path, &there) != 0;
    if (!is_new && !(flags & O_TRUNC)) return real(dir, file, flags, mode);
    if (step(path, ADDS) == 1) return -1;
    int fd = real(dir, file, flags, mode);
    if (fd >= 0) tell("create", path, "", 0, 0);
    return fd;
}

#define MODE(flags) mode_t mode = 0; if ((flags) & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); }
int open(const char *file, int flags, ...) { MODE(flags) return opened(AT_FDCWD, file, flags, mode); }
int open64(const char *file, int flags, ...) { MODE(flags) return opened(AT_FDCWD, file, flags, mode); }
int openat(int dir, const char *file, int flags, ...) { MODE(flags) return opened(dir, file, flags, mode); }
int openat64(int dir, const char *file, int flags, ...) { MODE(flags) return opened(dir, file, flags, mode); }

static void tell_bytes(int fd, const char *path, long offset, const void *bytes, long size) {
    if (log_fd < 0 || size <= 0 || !ours(path)) return;
    struct stat there;
    if (fstat(fd, &there) == 0 && (fcntl(fd, F_GETFL) & O_APPEND)) offset = there.st_size - size;
    tell("write", path, "", offset, size);
    plain_write(log_fd, bytes, size);
}

ssize_t write(int fd, const void *bytes, size_t size) {
    char path[PATH_MAX];
    if (!*below || fd <= 2 || fd == log_fd || !full(fd, NULL, path) || !ours(path)) return plain_write(fd, bytes, size);
    int fate = step(path, ADDS);
    if (fate == 1) return -1;
    if (fate == 2 && size > 1) size /= 2;
    long offset = lseek(fd, 0, SEEK_CUR);
    ssize_t done = plain_write(fd, bytes, size);
    tell_bytes(fd, path, offset, bytes, done);
    return done;
}

ssize_t writev(int fd, const struct iovec *parts, int n) {
    REAL(writev);
    char path[PATH_MAX];
    if (!*below || !full(fd, NULL, path) || !ours(path)) return real(fd, parts, n);
    ssize_t done = 0;
    for (int i = 0; i < n; i++) {
        ssize_t more = write(fd, parts[i].iov_base, parts[i].iov_len);
        if (more < 0) return done ? done : more;
        done += more;
        if ((size_t)more < parts[i].iov_len) break;
    }
    return done;
}

static ssize_t placed(int fd, const void *bytes, size_t size, off64_t offset) {
    REAL(pwrite64);
    char path[PATH_MAX];
    if (!*below || !full(fd, NULL, path) || !ours(path)) return real(fd, bytes, size, offset);
    if (step(path, ADDS) == 1) return -1;
    ssize_t done = real(fd, bytes, size, offset);
    tell_bytes(fd, path, offset, bytes, done);
    return done;
}
ssize_t pwrite(int fd, const void *bytes, size_t size, off_t offset) { return placed(fd, bytes, size, offset); }
ssize_t pwrite64(int fd, const void *bytes, size_t size, off64_t offset) { return placed(fd, bytes, size, offset); }

static ssize_t sent(int out, int in, off64_t *offset, size_t size) {
    REAL(sendfile64);
    char path[PATH_MAX];
    if (!*below || !full(out, NULL, path) || !ours(path)) return real(out, in, offset, size);
    if (step(path, ADDS) == 1) return -1;
    long from = offset ? (long)*offset : lseek(in, 0, SEEK_CUR), to = lseek(out, 0, SEEK_CUR);
    ssize_t done = real(out, in, offset, size);
    if (log_fd >= 0 && done > 0) {
        char *bytes = malloc(done);
        if (pread(in, bytes, done, from) == done) tell_bytes(out, path, to, bytes, done);
        free(bytes);
    }
    return done;
}
ssize_t sendfile(int out, int in, off_t *offset, size_t size) { return sent(out, in, (off64_t *)offset, size); }
ssize_t sendfile64(int out, int in, off64_t *offset, size_t size) { return sent(out, in, offset, size); }

static int synced(const char *name, int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    char path[PATH_MAX];
    if (!*below || !full(fd, NULL, path) || !ours(path)) return real(fd);
    if (step(path, SYNCS) == 1) return -1;
    int done = real(fd);
    if (!done) tell("fsync", path, "", 0, 0);
    return done;
}
int fsync(int fd) { return synced("fsync", fd); }
int fdatasync(int fd) { return synced("fdatasync", fd); }

static int renamed(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
    REAL(renameat2);
    char old[PATH_MAX], new[PATH_MAX];
    if (!*below || !full(from_dir, from, old) || !full(to_dir, to, new)) return real(from_dir, from, to_dir, to, flags);
    if (step(new, CHANGES) == 1) return -1;
    int done = real(from_dir, from, to_dir, to, flags);
    if (!done) tell(flags ? "exchange" : "rename", old, new, 0, 0);
    return done;
}
int rename(const char *from, const char *to) { return renamed(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int from_dir, const char *from, int to_dir, const char *to) { return renamed(from_dir, from, to_dir, to, 0); }
int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) { return renamed(from_dir, from, to_dir, to, flags); }

static int removed(int dir, const char *file, int flags) {
    REAL(unlinkat);
    char path[PATH_MAX];
    struct stat there;
    if (!*below || !full(dir, file, path) || lstat(path, &there)) return real(dir, file, flags);
    if (step(path, CHANGES) == 1) return -1;
    int done = real(dir, file, flags);
    if (!done) tell("remove", path, "", 0, 0);
    return done;
}
int unlink(const char *file) { return removed(AT_FDCWD, file, 0); }
int rmdir(const char *file) { return removed(AT_FDCWD, file, AT_REMOVEDIR); }
int unlinkat(int dir, const char *file, int flags) { return removed(dir, file, flags); }

static int made(int dir, const char *file, mode_t mode) {
    REAL(mkdirat);
    char path[PATH_MAX];
    struct stat there;
    if (!*below || !full(dir, file, path) || !lstat(path, &there)) return real(dir, file, mode);
    if (step(path, ADDS) == 1) return -1;
    int done = real(dir, file, mode);
    if (!done) tell("mkdir", path, "", 0, 0);
    return done;
}
int mkdir(const char *file, mode_t mode) { return made(AT_FDCWD, file, mode); }
int mkdirat(int dir, const char *file, mode_t mode) { return made(dir, file, mode); }

static int linked(const char *goal, int dir, const char *file) {
    REAL(symlinkat);
    char path[PATH_MAX];
    if (!*below || !full(dir, file, path)) return real(goal, dir, file);
    if (step(path, ADDS) == 1) return -1;
    int done = real(goal, dir, file);
    if (!done) tell("symlink", path, goal, 0, 0);
    return done;
}
int symlink(const char *goal, const char *file) { return linked(goal, AT_FDCWD, file); }
int symlinkat(const char *goal, int dir, const char *file) { return linked(goal, dir, file); }

static int cut(int fd, off64_t size) {
    REAL(ftruncate64);
    char path[PATH_MAX], to[32];
    if (!*below || !full(fd, NULL, path) || !ours(path)) return real(fd, size);
    if (step(path, ADDS) == 1) return -1;
    int done = real(fd, size);
    snprintf(to, sizeof to, "%ld", (long)size);
    if (!done) tell("truncate", path, to, 0, 0);
    return done;
}
int ftruncate(int fd, off_t size) { return cut(fd, size); }
int ftruncate64(int fd, off64_t size) { return cut(fd, size); }
