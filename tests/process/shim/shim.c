/* Faults between the connector and its operating system, for tests: loaded with LD_PRELOAD, steered by a small file
 * that is mapped into memory, so that a test can change its mind while the process runs.
 *
 * It counts *points* (before and after each fsync, at the first and at a later write of every group of writes to the
 * ledger's files, around every connect, send and first answer of the upstream's sockets) and kills the process with
 * SIGKILL at the point whose number or name it was given. It makes fsync slow or fail, fills the disk, stops epoll_wait for
 * good, makes connections deaf, loses name resolution, and moves the wall clock. Under PostgreSQL the files of its tables
 * take the place of the ledger's. Without LATCHKEY_SHIM it does nothing. The layout of the file stands in faults.py too.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct control {
    int64_t points;      /* passed so far */
    int64_t die_at;      /* number of the point to die at; 0 for never */
    int64_t wall_ns;     /* added to the wall clock */
    int32_t stalled;     /* while 1, epoll_wait does not return */
    int32_t sync_errno;  /* what fsync of the ledger fails with */
    int32_t sync_times;  /* how often; negative for ever */
    int32_t sync_ms;     /* how long each fsync of the ledger takes */
    int32_t full;        /* 1: no write to the ledger's files succeeds; 2: only while its reserve exists */
    int32_t deaf_below;  /* connections with a lower number neither send nor receive any more */
    int32_t connections; /* made so far */
    int32_t unresolved;  /* while 1, names cannot be resolved */
    int32_t tracing;     /* 1: write every point to FILE.trace */
    char died_at[64];
    char die_place[64];  /* name of the point to die at when it is next passed; empty for none */
};

static struct control *shared;
static char trace_path[4096];

#define FILES 65536
static int32_t upstream[FILES];       /* number of the connection, 0 where the file is none */
static const char *asked[FILES];      /* what was last sent on it and not yet answered */

#define REAL(name)                                          \
    static __typeof__(&name) real;                          \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("LATCHKEY_SHIM");
    if (!path) return;
    int file = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
    if (file < 0) return;
    void *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    syscall(SYS_close, file);
    if (memory == MAP_FAILED) return;
    shared = memory;
    snprintf(trace_path, sizeof trace_path, "%s.trace", path);
}

static void pause_ms(long ms) {
    struct timespec time = {ms / 1000, (ms % 1000) * 1000000};
    syscall(SYS_nanosleep, &time, NULL);
}

static void point(const char *what) {
    int64_t number = __atomic_add_fetch(&shared->points, 1, __ATOMIC_SEQ_CST);
    if (shared->tracing) {
        char line[96];
        int length = snprintf(line, sizeof line, "%s\n", what);
        int file = (int)syscall(SYS_openat, AT_FDCWD, trace_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        syscall(SYS_write, file, line, length);
        syscall(SYS_close, file);
    }
    if (number == shared->die_at || (shared->die_place[0] && strcmp(what, shared->die_place) == 0)) {
        shared->die_place[0] = 0;
        snprintf(shared->died_at, sizeof shared->died_at, "%s", what);
        for (;;) {
            syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
            pause_ms(1000);
        }
    }
}

/* --- the ledger's files --- */

enum kind { OTHER, DATABASE, LOG, WITNESS, RESERVE, KEY, KINDS };
static const char *const kinds[KINDS] = {"", "ledger", "log", "witness", "reserve", "key"};
static int writes[KINDS]; /* since the last fsync; one thread writes, so a lost count would only move a point */

static enum kind kind_of_path(const char *path) {
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    if (strstr(name, "witness")) return WITNESS;
    if (strstr(name, "api-key")) return KEY;
    if (strstr(path, "/data/base/")) return DATABASE; /* of PostgreSQL; its log lies elsewhere */
    if (strncmp(name, "ledger.db", 9) != 0) return OTHER;
    name += 9;
    if (*name == 0) return DATABASE;
    if (strcmp(name, "-wal") == 0) return LOG;
    if (strncmp(name, ".reserve", 8) == 0) return RESERVE;
    return OTHER;
}

static enum kind kind_of(int file, char *path, size_t size) {
    if (!shared || file <= 2) return OTHER;
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = syscall(SYS_readlink, link, path, size - 1);
    if (length <= 0) return OTHER;
    path[length] = 0;
    return path[0] == '/' ? kind_of_path(path) : OTHER;
}

static void named(const char *what, enum kind kind) {
    char name[64];
    snprintf(name, sizeof name, "%s %s", what, kinds[kind]);
    point(name);
}

/* Answers whether the disk is full for this write. */
static int is_full(enum kind kind, const char *path) {
    if (shared->full == 1) return 1;
    if (shared->full != 2) return 0;
    if (kind == RESERVE) return 1;
    char reserve[4200];
    snprintf(reserve, sizeof reserve, "%s", path);
    char *end = strstr(reserve, "ledger.db");
    if (!end) return 0;
    strcpy(end + 9, ".reserve");
    return syscall(SYS_faccessat, AT_FDCWD, reserve, F_OK) == 0;
}

/* Before a write: counts, and answers an error number where it must fail. */
static int writing(int file) {
    char path[4096];
    enum kind kind = kind_of(file, path, sizeof path);
    if (kind == OTHER) return 0;
    if (is_full(kind, path)) return ENOSPC;
    if (kind == RESERVE) return 0;
    int number = ++writes[kind];
    if (number == 1) named("before the first write to", kind);
    if (number == 6) named("amid the writes to", kind);
    return 0;
}

static ssize_t upstream_write(int file, const void *bytes, size_t length, ssize_t (*send_it)(int, const void *, size_t));

static ssize_t raw_write(int file, const void *bytes, size_t length) {
    REAL(write);
    return real(file, bytes, length);
}

ssize_t write(int file, const void *bytes, size_t length) {
    if (!shared) return raw_write(file, bytes, length);
    if (file >= 0 && file < FILES && upstream[file]) return upstream_write(file, bytes, length, raw_write);
    int error = writing(file);
    if (error) return errno = error, -1;
    return raw_write(file, bytes, length);
}

ssize_t pwrite(int file, const void *bytes, size_t length, off_t at) {
    REAL(pwrite);
    int error = shared ? writing(file) : 0;
    if (error) return errno = error, -1;
    return real(file, bytes, length, at);
}

ssize_t pwrite64(int file, const void *bytes, size_t length, off64_t at) {
    REAL(pwrite64);
    int error = shared ? writing(file) : 0;
    if (error) return errno = error, -1;
    return real(file, bytes, length, at);
}

static int syncing(int file, int (*sync_it)(int)) {
    char path[4096];
    enum kind kind = shared ? kind_of(file, path, sizeof path) : OTHER;
    if (kind == OTHER || kind == RESERVE) return sync_it(file);
    named("before the sync of", kind);
    if (shared->sync_ms) pause_ms(shared->sync_ms);
    if (shared->sync_times) {
        if (shared->sync_times > 0) __atomic_sub_fetch(&shared->sync_times, 1, __ATOMIC_SEQ_CST);
        writes[kind] = 0;
        return errno = shared->sync_errno, -1;
    }
    int done = sync_it(file);
    writes[kind] = 0;
    named("after the sync of", kind);
    return done;
}

int fsync(int file) {
    REAL(fsync);
    return syncing(file, real);
}

int fdatasync(int file) {
    REAL(fdatasync);
    return syncing(file, real);
}

static int truncating(int file, off64_t length, int (*cut)(int, off64_t)) {
    char path[4096];
    enum kind kind = shared ? kind_of(file, path, sizeof path) : OTHER;
    if (kind == OTHER || kind == RESERVE) return cut(file, length);
    named("before cutting", kind);
    int done = cut(file, length);
    named("after cutting", kind);
    return done;
}

int ftruncate(int file, off_t length) {
    REAL(ftruncate);
    return truncating(file, length, (int (*)(int, off64_t))real);
}

int ftruncate64(int file, off64_t length) {
    REAL(ftruncate64);
    return truncating(file, length, real);
}

int unlink(const char *path) {
    REAL(unlink);
    enum kind kind = shared ? kind_of_path(path) : OTHER;
    if (kind == OTHER || kind == RESERVE) return real(path);
    named("before removing", kind);
    int done = real(path);
    named("after removing", kind);
    return done;
}

/* --- the upstream's sockets: every connection that this process makes --- */

int connect(int file, const struct sockaddr *address, socklen_t length) {
    REAL(connect);
    if (!shared || file < 0 || file >= FILES || (address->sa_family != AF_INET && address->sa_family != AF_INET6))
        return real(file, address, length);
    point("before connecting");
    int done = real(file, address, length);
    if (done == 0 || errno == EINPROGRESS) {
        int error = errno;
        upstream[file] = __atomic_add_fetch(&shared->connections, 1, __ATOMIC_SEQ_CST);
        asked[file] = NULL;
        errno = error;
    }
    return done;
}

int close(int file) {
    REAL(close);
    if (file >= 0 && file < FILES) upstream[file] = 0;
    return real(file);
}

static const char *call_of(const void *bytes, size_t length) {
    const char *text = bytes;
    if (length >= 4 && memcmp(text, "POST", 4) == 0) return "POST";
    if (length >= 6 && memcmp(text, "DELETE", 6) == 0) return "DELETE";
    if (length >= 3 && memcmp(text, "GET", 3) == 0) return "GET";
    return "a body";
}

static int is_deaf(int file) { return upstream[file] < shared->deaf_below; }

static ssize_t upstream_write(int file, const void *bytes, size_t length, ssize_t (*send_it)(int, const void *, size_t)) {
    if (is_deaf(file)) return (ssize_t)length;
    const char *call = call_of(bytes, length);
    char name[64];
    snprintf(name, sizeof name, "before sending %s", call);
    point(name);
    ssize_t sent = send_it(file, bytes, length);
    int error = errno;
    if (sent > 0) {
        asked[file] = call;
        snprintf(name, sizeof name, "after sending %s", call);
        point(name);
    }
    errno = error;
    return sent;
}

static ssize_t raw_send(int file, const void *bytes, size_t length) {
    REAL(send);
    return real(file, bytes, length, MSG_NOSIGNAL);
}

ssize_t send(int file, const void *bytes, size_t length, int flags) {
    REAL(send);
    if (!shared || file < 0 || file >= FILES || !upstream[file]) return real(file, bytes, length, flags);
    return upstream_write(file, bytes, length, raw_send);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    REAL(writev);
    if (!shared || file < 0 || file >= FILES || !upstream[file] || count < 1) return real(file, parts, count);
    if (is_deaf(file)) {
        ssize_t all = 0;
        for (int i = 0; i < count; i++) all += (ssize_t)parts[i].iov_len;
        return all;
    }
    const char *call = call_of(parts[0].iov_base, parts[0].iov_len);
    char name[64];
    snprintf(name, sizeof name, "before sending %s", call);
    point(name);
    ssize_t sent = real(file, parts, count);
    int error = errno;
    if (sent > 0) {
        asked[file] = call;
        snprintf(name, sizeof name, "after sending %s", call);
        point(name);
    }
    errno = error;
    return sent;
}

ssize_t recv(int file, void *bytes, size_t length, int flags) {
    REAL(recv);
    if (!shared || file < 0 || file >= FILES || !upstream[file]) return real(file, bytes, length, flags);
    if (is_deaf(file)) return errno = EAGAIN, -1;
    ssize_t got = real(file, bytes, length, flags);
    int error = errno;
    if (got > 0 && asked[file] && !(flags & MSG_PEEK)) {
        char name[64];
        snprintf(name, sizeof name, "answered %s", asked[file]);
        asked[file] = NULL;
        point(name);
    }
    errno = error;
    return got;
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    REAL(getaddrinfo);
    if (shared && shared->unresolved) return EAI_AGAIN;
    return real(node, service, hints, found);
}

/* --- the runtime and the clock --- */

int epoll_wait(int file, struct epoll_event *events, int most, int timeout) {
    REAL(epoll_wait);
    int found = real(file, events, most, timeout);
    int error = errno;
    while (shared && shared->stalled) pause_ms(20);
    errno = error;
    return found;
}

int clock_gettime(clockid_t which, struct timespec *time) {
    REAL(clock_gettime);
    int done = real(which, time);
    if (done == 0 && shared && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE)) {
        int64_t moved = __atomic_load_n(&shared->wall_ns, __ATOMIC_RELAXED) + time->tv_nsec;
        time->tv_sec += moved / 1000000000;
        time->tv_nsec = moved % 1000000000;
        if (time->tv_nsec < 0) {
            time->tv_nsec += 1000000000;
            time->tv_sec -= 1;
        }
    }
    return done;
}

/* What PostgreSQL asks for the time. */
int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    REAL(gettimeofday);
    int done = real(time, zone);
    if (done == 0 && shared) {
        int64_t moved = __atomic_load_n(&shared->wall_ns, __ATOMIC_RELAXED) / 1000 + time->tv_usec;
        time->tv_sec += moved / 1000000;
        time->tv_usec = moved % 1000000;
        if (time->tv_usec < 0) {
            time->tv_usec += 1000000;
            time->tv_sec -= 1;
        }
    }
    return done;
}
