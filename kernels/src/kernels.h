/* What the parts share: a template says how frames of one kind are converted, a job where one frame lies. */
#ifndef DICOMTORCH_KERNELS_H
#define DICOMTORCH_KERNELS_H

#include <stdint.h>

#define KERNELS_ABI 2 /* of read and convert */
#define MASKS_ABI 1   /* of paint_planes, paint_runs and fill_polygons */
#define BLOCK ((int64_t)1 << 19) /* bytes read at once: they stay in the second-level cache */

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
    LOWEST = 256,      /* what surrounds a frame of means is its lowest number, not `around` */
    HAS_BOUNDS = 512,  /* resized numbers are brought between floor and ceiling */
    RLE = 1024,        /* frames are items with RLE streams, whose planes are apart */
    NORMALIZE = 2048,  /* in place of a clamp: minus low, divided by high */
    THRICE = 4096,     /* the one channel is written three times */
    FLAGS = 8191,
};
enum error { OK, OPEN, STAT, NOT_REGULAR, CHANGED, READ, SHORT, VALUE, NO_MEMORY, CODE, ERRORS };

/* Eight bytes each, in the order in which Python writes them. */
typedef struct {
    int64_t type, out_type, mode, flags;
    int64_t left, right;      /* shifts that drop unused bits: x << left >> right, in the width of the type */
    int64_t pixels, samples;  /* of one frame */
    double origin, scale, offset, low, high;
    /* Only where factor, the side of the blocks that become their mean, is more than 1: the frame is rows x columns,
       its means are resized to inner_rows x inner_columns, which lie at top, left in out_rows x out_columns. */
    int64_t factor, rows, columns, inner_rows, inner_columns, top, left_column, out_rows, out_columns;
    int64_t row_taps, column_taps; /* taps of each row and column of the result */
    int64_t row_at, column_at;     /* which of all taps come first: those of tap 0 for each row, of tap 1, ... */
    double around, floor, ceiling;
} Template;

/* Part of a row or column of the result: a row or column of means, and its weight. */
typedef struct {
    int32_t index;
    float weight;
} Tap;

typedef struct {
    int64_t path, path_length; /* into the buffer of paths; path: the number of a source in memory */
    int64_t size, mtime_ns, inode; /* inode 0: not known */
    int64_t offset;            /* of the frame in its file */
    int64_t template_number;
    int64_t out;               /* bytes into the output */
    int64_t error, number;     /* results: one of enum error, errno; before, with RLE, number has the bytes of the item */
} Job;

/* The frame of one bit a pixel that one segment has on one image. */
typedef struct {
    Job job;       /* offset: of the byte with its first pixel; out: of its channel; the template is not used */
    int64_t bit;   /* which bit of that byte the first pixel is, the least significant first */
    int64_t value; /* what its pixels become: 1 to 255 */
    int64_t joins; /* 1: its pixels are united with those of the plane before, which has the same channel and value */
    int64_t low, high; /* no pixel before and from there on is set; multiples of 64, or the number of pixels */
    int64_t area;      /* result: pixels; of united planes all, at the last of them */
    int64_t first_set, end_set; /* results: the same as low and high, as narrow as they can be */
} Plane;

extern const int64_t WIDTHS[TYPES];

/* 0, or why a template is not one; checked once for each call, before anything is read. */
const char *template_problem(const Template *t, const Tap *taps, int64_t n_taps);
int64_t template_bytes(const Template *t);     /* of the samples of a frame */
int64_t template_out_bytes(const Template *t); /* of a frame in the output */

/* Reads `length` bytes from `offset` of a frame. */
typedef enum error (*Fetch)(void *source, char *to, int64_t length, int64_t offset);

/* One whole frame; `memory` has room for a BLOCK. */
enum error convert_frame(const Template *t, const Tap *taps, Fetch fetch, void *source, char *memory, char *out, int level);
enum error reduce_frame(const Template *t, const Tap *taps, Fetch fetch, void *source, char *memory, char *out, int level);
#define STREAM_SLACK 16 /* readable bytes behind a stream */
enum error rle_frame(const Template *t, const Tap *taps, const char *stream, int64_t length, char *memory, char *out,
                     int level);
/* One whole frame that lies in memory, without a copy where it can be read in place. */
enum error convert_memory(const Template *t, const Tap *taps, const char *data, char *memory, char *out, int level);
const char *reduce_problem(const Template *t, const Tap *taps, int64_t n_taps);
int best_level(void);

/* Numbers that lie one behind the other, by the steps of a template. */
void convert_floats(const Template *t, const float *in, float *out, int64_t n, int level);
void swap_bytes(void *data, int64_t n, int64_t width);

typedef struct {
    const Template *templates;
    const Tap *taps;
    const char *prefix; /* of all paths */
    int64_t prefix_length;
    const char *paths;
    const char *const *sources; /* where frames lie in memory, the `path` of a job is its number; 0: in files */
    char *out;
    int level;
} Call;

/* The file that was read last stays open: jobs come ordered by file. */
typedef struct {
    int descriptor; /* -1: none */
    int64_t path, size, mtime_ns, inode;
} File;

enum error open_file(File *file, Job *job, const char *prefix, int64_t prefix_length, const char *paths);
void close_file(File *file);
enum error read_at(const File *file, Job *job, char *to, int64_t length, int64_t offset); /* from the frame's first byte */
char *take_memory(void); /* a BLOCK, or 0 */
void give_memory(char *memory);

/* Paints planes into images of `pixels` bytes, one over the other; whether one failed, after which no other is read. */
int paint_planes(const Call *call, Plane *planes, int64_t n, int64_t pixels);

/* Writes `value` into runs of pixels of an image of bytes; 0, and nothing is written, if one is outside. */
int paint_runs(const int64_t *line, const int64_t *first, const int64_t *end, int64_t n, int64_t rows, int64_t columns,
               int value, char *out);

/* The pixels on which polygons lie, and how near a pixel centre on the path is, in millimetres. */
typedef struct {
    int64_t rows, columns;
    double scale[2]; /* millimetres from column to column, from row to row */
    double near, near_squared; /* less than 0: no pixel is on the path */
} Grid;

enum { SHORT_OF_MEMORY = -1, TOO_MANY = -2 };

/* The runs of `n` polygons: lines, first columns and columns behind the last, one array after the other, to be freed;
   their number, or one of the above. Planes have `rows` lines each; `most` lines may be crossed by all edges. */
int64_t fill_polygons(const double *points, const int64_t *counts, const int64_t *planes, int64_t n, const Grid *grid,
                      int64_t most, int64_t **out);

/* All jobs, in `threads` threads; the number of those that failed. */
int64_t read_frames(const Call *call, Job *jobs, int64_t n, int threads);
#endif
