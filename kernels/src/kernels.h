/* What the three parts share: a template says how frames of one kind are converted, a job where one frame lies. */
#ifndef DICOMTORCH_KERNELS_H
#define DICOMTORCH_KERNELS_H

#include <stdint.h>

#define KERNELS_ABI 1

enum type { I8, U8, I16, U16, I32, U32, F32, F64, I64, TYPES };
enum mode { COPY, CONSTANT, SINGLE, DOUBLE, MODES };
enum flag {
    HAS_ORIGIN = 1,
    HAS_SCALE = 2,
    HAS_OFFSET = 4,
    HAS_CLAMP = 8,
    SWAP = 16,         /* the file has the other byte order */
    PLANES = 32,       /* samples lie in planes already */
    NAN_TO_ZERO = 64,  /* display values of floats */
    NO_OVERFLOW = 128, /* a finite number that becomes infinite is an error */
};
enum error { OK, OPEN, STAT, NOT_REGULAR, CHANGED, READ, SHORT, VALUE, NO_MEMORY, ERRORS };

/* Eight bytes each, in the order in which Python writes them. */
typedef struct {
    int64_t type, out_type, mode, flags;
    int64_t left, right;      /* shifts that drop unused bits: x << left >> right, in the width of the type */
    int64_t pixels, samples;  /* of one frame */
    double origin, scale, offset, low, high;
} Template;

typedef struct {
    int64_t path, path_length; /* into the buffer of paths */
    int64_t size, mtime_ns, inode; /* inode 0: not known */
    int64_t offset;            /* of the frame in its file */
    int64_t template_number;
    int64_t out;               /* bytes into the output */
    int64_t error, number;     /* results: one of enum error, errno */
} Job;

extern const int64_t WIDTHS[TYPES];

/* 0, or why a template is not one; checked once for each call, before anything is read. */
const char *template_problem(const Template *t);
int64_t template_bytes(const Template *t);     /* of a frame in its file */
int64_t template_out_bytes(const Template *t); /* of a frame in the output */

/* Pixels first .. first + count of a frame: `in` holds their samples, aligned; with PLANES of one plane `plane`. */
enum error convert(const Template *t, void *in, char *out, int64_t first, int64_t count, int64_t plane, int level);
int best_level(void);

/* All jobs, in `threads` threads; the number of those that failed. */
int64_t read_frames(Job *jobs, int64_t n, const Template *templates, const char *prefix, int64_t prefix_length,
                    const char *paths, char *out, int threads, int level);
#endif
