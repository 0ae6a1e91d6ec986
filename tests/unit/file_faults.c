#include "file_faults.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static struct {
    bool on;
    fault_kind kind;
    int at, calls, error;
} faults;

void faults_begin(fault_kind kind, int at, int error)
{
    faults.on = true;
    faults.kind = kind;
    faults.at = at;
    faults.calls = 0;
    faults.error = error;
}

int faults_end(void)
{
    faults.on = false;
    return faults.calls;
}

/* Is it this call's turn? Ends the process where that is asked. */
static bool is_hit(void)
{
    if (!faults.on || faults.calls++ != faults.at)
        return false;
    if (faults.kind == FAULT_KILL)
        _exit(FAULT_KILLED);
    errno = faults.error;
    return true;
}

int __real_open64(const char *path, int flags, ...);
int __real_open(const char *path, int flags, ...);
ssize_t __real_write(int fd, const void *data, size_t bytes);
int __real_close(int fd);
int __real_rename(const char *from, const char *to);
int __real_mkdir(const char *path, mode_t mode);
int __real_unlink(const char *path);
int __real_rmdir(const char *path);

int __wrap_open64(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
ssize_t __wrap_write(int fd, const void *data, size_t bytes);
int __wrap_close(int fd);
int __wrap_fsync(int fd);
int __wrap_rename(const char *from, const char *to);
int __wrap_mkdir(const char *path, mode_t mode);
int __wrap_unlink(const char *path);
int __wrap_rmdir(const char *path);

int __wrap_open64(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return is_hit() ? -1 : __real_open64(path, flags, mode);
}

int __wrap_open(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return is_hit() ? -1 : __real_open(path, flags, mode);
}

/* A full disk takes what still fits, and then nothing. */
ssize_t __wrap_write(int fd, const void *data, size_t bytes)
{
    if (!is_hit())
        return __real_write(fd, data, bytes);
    if (faults.kind == FAULT_FAIL)
        return -1;
    ssize_t half = __real_write(fd, data, bytes / 2);
    if (faults.kind == FAULT_KILL_HALF)
        _exit(FAULT_KILLED);
    faults.kind = FAULT_FAIL;
    faults.at++;
    return half;
}

int __wrap_close(int fd)
{
    bool hit = is_hit();
    int result = __real_close(fd);
    if (hit)
        errno = faults.error;
    return hit ? -1 : result;
}

/* Nobody takes the power away here, and what the kernel has been told survives its process. */
int __wrap_fsync(int fd)
{
    (void)fd;
    return is_hit() ? -1 : 0;
}

int __wrap_rename(const char *from, const char *to)
{
    return is_hit() ? -1 : __real_rename(from, to);
}

int __wrap_mkdir(const char *path, mode_t mode)
{
    return is_hit() ? -1 : __real_mkdir(path, mode);
}

int __wrap_unlink(const char *path)
{
    return is_hit() ? -1 : __real_unlink(path);
}

int __wrap_rmdir(const char *path)
{
    return is_hit() ? -1 : __real_rmdir(path);
}
