/* Opens, checks, reads and converts frames in several threads, without the interpreter. */
#ifndef _WIN32
#define _GNU_SOURCE
#include "kernels.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOST_THREADS 64
#define LONGEST_PATH 4096
#define ITEM 0xE000FFFEu /* (FFFE,E000) */
#define ITEM_HEAD 8

/* Memory that blocks are read into, kept between calls: fresh pages cost a fault each. */
static struct {
    pthread_mutex_t lock;
    char *free[MOST_THREADS];
    int count;
} kept = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Another thread may have held the lock, and been half done, when the process was forked: the child keeps nothing. */
static void forget_in_child(void) {
    pthread_mutex_init(&kept.lock, 0);
    kept.count = 0;
}

__attribute__((constructor)) static void prepare(void) { pthread_atfork(0, 0, forget_in_child); }

char *take_memory(void) {
    char *memory = 0;
    pthread_mutex_lock(&kept.lock);
    if (kept.count) memory = kept.free[--kept.count];
    pthread_mutex_unlock(&kept.lock);
    if (!memory && posix_memalign((void **)&memory, 4096, (size_t)BLOCK)) return 0;
    return memory;
}

void give_memory(char *memory) {
    pthread_mutex_lock(&kept.lock);
    if (memory && kept.count < MOST_THREADS) {
        kept.free[kept.count++] = memory;
        memory = 0;
    }
    pthread_mutex_unlock(&kept.lock);
    free(memory);
}

void close_file(File *file) {
    if (file->descriptor >= 0) close(file->descriptor);
    file->descriptor = -1;
}

static int64_t modified(const struct stat *info) {
#ifdef __APPLE__
    const struct timespec time = info->st_mtimespec;
#else
    const struct timespec time = info->st_mtim;
#endif
    return (int64_t)((uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec);
}

enum error open_file(File *file, Job *job, const char *prefix, int64_t prefix_length, const char *paths) {
    if (file->descriptor >= 0 && file->path == job->path && file->size == job->size &&
        file->mtime_ns == job->mtime_ns && file->inode == job->inode)
        return OK;
    close_file(file);
    char path[LONGEST_PATH];
    if (prefix_length + job->path_length >= LONGEST_PATH) {
        job->number = ENAMETOOLONG;
        return OPEN;
    }
    memcpy(path, prefix, (size_t)prefix_length);
    memcpy(path + prefix_length, paths + job->path, (size_t)job->path_length);
    path[prefix_length + job->path_length] = 0;
    if (memchr(path, 0, (size_t)(prefix_length + job->path_length))) {
        job->number = ENOENT; /* no file has such a name */
        return OPEN;
    }
    do file->descriptor = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    while (file->descriptor < 0 && errno == EINTR);
    if (file->descriptor < 0) {
        job->number = errno;
        return OPEN;
    }
    struct stat info;
    enum error error = OK;
    if (fstat(file->descriptor, &info)) {
        job->number = errno;
        error = STAT;
    } else if (!S_ISREG(info.st_mode)) {
        error = NOT_REGULAR;
    } else if ((int64_t)info.st_size != job->size || modified(&info) != job->mtime_ns ||
               (job->inode && info.st_ino && (int64_t)info.st_ino != job->inode)) {
        error = CHANGED;
    }
    if (error) {
        close_file(file);
        return error;
    }
    file->path = job->path;
    file->size = job->size;
    file->mtime_ns = job->mtime_ns;
    file->inode = job->inode;
    return OK;
}

/* Memory for streams, as long as the longest yet. */
typedef struct {
    char *memory;
    int64_t length;
} Room;

static char *room_for(Room *room, int64_t length) {
    if (room->length < length) {
        if (room->length > BLOCK) free(room->memory);
        else give_memory(room->memory);
        room->memory = length > BLOCK ? malloc((size_t)length) : take_memory();
        room->length = !room->memory ? 0 : length > BLOCK ? length : BLOCK;
    }
    return room->memory;
}

static void leave_room(Room *room) {
    if (room->length > BLOCK) free(room->memory);
    else give_memory(room->memory);
}

/* A frame of the file that is open, or one that lies at `data`. */
typedef struct {
    const File *file;
    Job *job;
    const char *data;
} Frame;

enum error read_at(const File *file, Job *job, char *to, int64_t length, int64_t offset) {
    for (int64_t done = 0; done < length;) {
        ssize_t got = pread(file->descriptor, to + done, (size_t)(length - done), (off_t)(job->offset + offset + done));
        if (got < 0) {
            if (errno == EINTR) continue;
            job->number = errno;
            return READ;
        }
        if (!got) return SHORT;
        done += got;
    }
    return OK;
}

static enum error fetch(void *source, char *to, int64_t length, int64_t offset) {
    const Frame *frame = source;
    if (frame->data) {
        memcpy(to, frame->data + offset, (size_t)length);
        return OK;
    }
    return read_at(frame->file, frame->job, to, length, offset);
}

/* A frame in one item; with another length than was indexed the caller says so. */
static enum error read_rle(const Call *call, Frame *frame, int64_t length, Room *room, char *memory, char *out) {
    char *item = room_for(room, length + STREAM_SLACK);
    if (!item) return NO_MEMORY;
    enum error error = fetch(frame, item, length, 0);
    if (error) return error;
    uint32_t head[2];
    memcpy(head, item, ITEM_HEAD);
    if (head[0] != ITEM || head[1] != length - ITEM_HEAD) return CODE;
    memset(item + length, 0, STREAM_SLACK);
    return rle_frame(call->templates + frame->job->template_number, call->taps, item + ITEM_HEAD, length - ITEM_HEAD,
                     memory, out, call->level);
}

typedef struct {
    const Call *call;
    Job *jobs;
    int64_t n, part;
    _Atomic int64_t next;
} Work;

/* Jobs are taken in runs, so that most runs of one file are read by one thread. */
static void *work(void *argument) {
    Work *w = argument;
    const Call *call = w->call;
    char *memory = take_memory();
    File file = {.descriptor = -1};
    Room room = {0};
    for (;;) {
        const int64_t start = atomic_fetch_add(&w->next, w->part);
        if (start >= w->n) break;
        const int64_t end = start + w->part < w->n ? start + w->part : w->n;
        for (Job *job = w->jobs + start; job < w->jobs + end; job++) {
            if (!memory) {
                job->error = NO_MEMORY;
                continue;
            }
            const Template *t = call->templates + job->template_number;
            const int64_t length = job->number;
            if (t->flags & RLE) job->number = 0;
            Frame frame = {.file = &file, .job = job, .data = call->sources ? call->sources[job->path] + job->offset : 0};
            job->error = call->sources ? OK : open_file(&file, job, call->prefix, call->prefix_length, call->paths);
            if (job->error) continue;
            char *out = call->out + job->out;
            job->error = t->flags & RLE ? read_rle(call, &frame, length, &room, memory, out)
                         : call->sources ? convert_memory(t, call->taps, frame.data, memory, out, call->level)
                                         : convert_frame(t, call->taps, fetch, &frame, memory, out, call->level);
        }
    }
    close_file(&file);
    leave_room(&room);
    if (memory) give_memory(memory);
    return 0;
}

int64_t read_frames(const Call *call, Job *jobs, int64_t n, int threads) {
    if (threads > MOST_THREADS) threads = MOST_THREADS;
    int64_t part = threads > 1 ? n / (threads * 4) : n;
    Work w = {.call = call, .jobs = jobs, .n = n, .part = part > 0 ? part : 1};
    pthread_t others[MOST_THREADS];
    int started = 0;
    while (started < threads - 1 && started + 1 < n && !pthread_create(&others[started], 0, work, &w)) started++;
    work(&w);
    for (int k = 0; k < started; k++) pthread_join(others[k], 0);
    int64_t failed = 0;
    for (int64_t k = 0; k < n; k++) failed += jobs[k].error != OK;
    return failed;
}
#else
typedef int nothing;
#endif
