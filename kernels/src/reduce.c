/* Frames whose blocks of 2, 4 or 8 pixels a side become their mean before they are converted and resized. The sums are
   exact, so that their order is free; every later step is rounded by itself, in the order of the NumPy path. */
#include "kernels.h"

#include <stdlib.h>

#define MOST_SIDE ((int64_t)1 << 20)

static int64_t halved(int64_t side, int64_t factor) { return (side + factor - 1) / factor; }

static int64_t group_bytes(const Template *t) { return (t->flags & PLANES ? 1 : t->samples) * WIDTHS[t->type]; }

static int are_taps(const Tap *taps, int64_t n_taps, int64_t at, int64_t n, int64_t wanted, int64_t there) {
    if (n < 1 || n > MOST_SIDE || at < 0 || at > n_taps || n * wanted > n_taps - at) return 0;
    for (int64_t k = at; k < at + n * wanted; k++)
        if (taps[k].index < 0 || taps[k].index >= there) return 0;
    return 1;
}

static int is_inside(int64_t first, int64_t length, int64_t whole) {
    return whole >= 1 && whole <= MOST_SIDE && first >= 0 && first <= whole && length >= 1 && length <= whole - first;
}

const char *reduce_problem(const Template *t, const Tap *taps, int64_t n_taps) {
    if (t->factor != 2 && t->factor != 4 && t->factor != 8) return "factor";
    if (t->type > U16) return "type";
    if (t->mode == COPY) return "mode";
    if (t->rows < 1 || t->rows > MOST_SIDE || t->columns < 1 || t->columns > MOST_SIDE) return "rows or columns";
    if (t->rows * t->columns != t->pixels) return "pixels";
    if (t->factor * t->columns * group_bytes(t) > BLOCK) return "columns";
    if (!is_inside(t->top, t->inner_rows, t->out_rows)) return "top";
    if (!is_inside(t->left_column, t->inner_columns, t->out_columns)) return "left_column";
    if (!are_taps(taps, n_taps, t->row_at, t->row_taps, t->inner_rows, halved(t->rows, t->factor))) return "row_taps";
    if (!are_taps(taps, n_taps, t->column_at, t->column_taps, t->inner_columns, halved(t->columns, t->factor)))
        return "column_taps";
    return 0;
}

/* ---- means ------------------------------------------------------------------------------------------------------ */

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define HAS_AVX2 1
#define AVX2 __attribute__((target("avx2")))
#endif

/* Sums of the pixels of some rows that lie below each other. */
typedef void (*Add)(const void *, int32_t *, int64_t, int64_t, int64_t, int, int);
#define DEFINE_ADD(name, attribute, type, unsigned_type) \
    attribute static void name(const void *from, int32_t *restrict sums, int64_t rows, int64_t columns, int64_t stride, \
                               int left, int right) { \
        typedef type T; \
        typedef unsigned_type U; \
        const T *restrict in = from; \
        for (int64_t x = 0; x < columns; x++) sums[x] = 0; \
        for (int64_t y = 0; y < rows; y++, in += columns * stride) { \
            if (stride == 1) for (int64_t x = 0; x < columns; x++) sums[x] += (T)((T)((U)in[x] << left) >> right); \
            else for (int64_t x = 0; x < columns; x++) sums[x] += (T)((T)((U)in[x * stride] << left) >> right); \
        } \
    }
DEFINE_ADD(add_i8, , int8_t, uint8_t)
DEFINE_ADD(add_u8, , uint8_t, uint8_t)
DEFINE_ADD(add_i16, , int16_t, uint16_t)
DEFINE_ADD(add_u16, , uint16_t, uint16_t)
static const Add ADD_BASE[] = {add_i8, add_u8, add_i16, add_u16};
#ifdef HAS_AVX2
DEFINE_ADD(add_i8_avx2, AVX2, int8_t, uint8_t)
DEFINE_ADD(add_u8_avx2, AVX2, uint8_t, uint8_t)
DEFINE_ADD(add_i16_avx2, AVX2, int16_t, uint16_t)
DEFINE_ADD(add_u16_avx2, AVX2, uint16_t, uint16_t)
static const Add ADD_AVX2[] = {add_i8_avx2, add_u8_avx2, add_i16_avx2, add_u16_avx2};
#endif

static Add add_of(const Template *t, int level) {
#ifdef HAS_AVX2
    if (level >= 1) return ADD_AVX2[t->type];
#else
    (void)level;
#endif
    return ADD_BASE[t->type];
}

static float mean(int32_t sum, int64_t count) { return (float)((double)sum / (double)count); }

/* A row of means from sums over `rows` rows. Divided by a power of two they are exact; what is there of a block at the
   edge may have any number of pixels. */
static void means_of(const int32_t *restrict sums, float *restrict means, int64_t columns, int64_t factor, int64_t rows) {
    const int64_t whole = columns / factor;
    const float part = 1.0f / (float)(factor * factor);
#define WHOLE(SUM) \
    if (rows == factor) for (int64_t x = 0; x < whole; x++) means[x] = (float)(SUM) * part; \
    else for (int64_t x = 0; x < whole; x++) means[x] = mean(SUM, rows * factor)
#define TWO(s) ((s)[0] + (s)[1])
#define FOUR(s) (TWO(s) + TWO((s) + 2))
    if (factor == 2) {
        WHOLE(TWO(sums + 2 * x));
    } else if (factor == 4) {
        WHOLE(FOUR(sums + 4 * x));
    } else {
        WHOLE(FOUR(sums + 8 * x) + FOUR(sums + 8 * x + 4));
    }
    if (whole * factor < columns) {
        int32_t sum = 0;
        for (int64_t x = whole * factor; x < columns; x++) sum += sums[x];
        means[whole] = mean(sum, rows * (columns - whole * factor));
    }
}

/* What the steps need besides a block. */
typedef struct {
    int32_t *sums; /* one row of pixels */
    float *means;  /* one row of means */
    float *row;    /* one row of the result before its columns are resized */
    float *plane;  /* means of one channel, converted */
} Room;

static enum error reduce_block(const Template *t, char *block, int64_t first, int64_t rows, const Room *room,
                               float *planes, int level) {
    const int64_t stride = t->flags & PLANES ? 1 : t->samples, width = WIDTHS[t->type];
    const int64_t down = halved(t->rows, t->factor), across = halved(t->columns, t->factor);
    if (t->flags & SWAP) swap_bytes(block, rows * t->columns * stride, width);
    const Add add = add_of(t, level);
    for (int64_t c = 0; c < stride; c++)
        for (int64_t y = 0; y < rows; y += t->factor) {
            const int64_t there = rows - y < t->factor ? rows - y : t->factor;
            const char *from = block + (y * t->columns * stride + c) * width;
            add(from, room->sums, there, t->columns, stride, (int)t->left, (int)t->right);
            means_of(room->sums, room->means, t->columns, t->factor, there);
            float *to = planes + (c * down + (first + y) / t->factor) * across;
            convert_floats(t, room->means, to, across, level);
        }
    return OK;
}

/* ---- resizing --------------------------------------------------------------------------------------------------- */

static void weigh_rows(const float *plane, float *restrict row, int64_t across, const Tap *tap, int64_t n, int64_t step) {
    for (int64_t k = 0; k < n; k++, tap += step) {
        const float *restrict from = plane + tap->index * across;
        const float weight = tap->weight;
        if (k) for (int64_t x = 0; x < across; x++) row[x] += from[x] * weight;
        else for (int64_t x = 0; x < across; x++) row[x] = from[x] * weight;
    }
}

static void weigh_columns(const float *restrict row, float *restrict out, int64_t wanted, const Tap *taps, int64_t n) {
    for (int64_t x = 0; x < wanted; x++) out[x] = row[taps[x].index] * taps[x].weight;
    for (int64_t k = 1; k < n; k++) {
        taps += wanted;
        for (int64_t x = 0; x < wanted; x++) out[x] += row[taps[x].index] * taps[x].weight;
    }
}

static void resize(const Template *t, const Tap *taps, const float *plane, float *row, float *out) {
    const int64_t across = halved(t->columns, t->factor);
    const float floor = (float)t->floor, ceiling = (float)t->ceiling;
    for (int64_t y = 0; y < t->inner_rows; y++) {
        float *to = out + (t->top + y) * t->out_columns + t->left_column;
        weigh_rows(plane, row, across, taps + t->row_at + y, t->row_taps, t->inner_rows);
        weigh_columns(row, to, t->inner_columns, taps + t->column_at, t->column_taps);
        if (t->flags & HAS_BOUNDS)
            for (int64_t x = 0; x < t->inner_columns; x++) {
                to[x] = to[x] < floor ? floor : to[x];
                to[x] = to[x] > ceiling ? ceiling : to[x];
            }
    }
}

static float lowest_of(const Template *t, const float *out) {
    float lowest = 0.0f;
    int found = 0;
    for (int64_t c = 0; c < t->samples; c++, out += t->out_rows * t->out_columns)
        for (int64_t y = 0; y < t->inner_rows; y++) {
            const float *row = out + (t->top + y) * t->out_columns + t->left_column;
            for (int64_t x = 0; x < t->inner_columns; x++)
                if (row[x] - row[x] == 0.0f && (!found || row[x] < lowest)) {
                    lowest = row[x];
                    found = 1;
                }
        }
    return lowest + 0.0f; /* the sign of a zero is nobody's choice */
}

static void surround(const Template *t, float *out, float number) {
    const int64_t below = t->top + t->inner_rows, right = t->left_column + t->inner_columns;
    for (int64_t y = 0; y < t->out_rows; y++, out += t->out_columns) {
        const int outside = y < t->top || y >= below;
        for (int64_t x = 0; x < (outside ? t->out_columns : t->left_column); x++) out[x] = number;
        if (!outside) for (int64_t x = right; x < t->out_columns; x++) out[x] = number;
    }
}

enum error reduce_frame(const Template *t, const Tap *taps, Fetch fetch, void *source, char *memory, char *out,
                        int level) {
    const int64_t down = halved(t->rows, t->factor), across = halved(t->columns, t->factor);
    const int64_t planes = t->flags & PLANES ? t->samples : 1, together = t->samples / planes;
    /* No more than the frame has in its file, whose size is checked by now, and a row. */
    float *room = malloc((size_t)(together * down * across + 2 * across + t->columns) * sizeof(float));
    if (!room) return NO_MEMORY;
    const Room rooms = {.sums = (int32_t *)(room + 2 * across), .means = room, .row = room + across,
                        .plane = room + 2 * across + t->columns};
    const int64_t row_bytes = t->columns * group_bytes(t), step = BLOCK / row_bytes / t->factor * t->factor;
    const int64_t out_pixels = t->out_rows * t->out_columns;
    float *numbers = (float *)out;
    enum error error = OK;
    for (int64_t plane = 0; plane < planes && !error; plane++) {
        for (int64_t first = 0; first < t->rows && !error; first += step) {
            const int64_t rows = t->rows - first < step ? t->rows - first : step;
            error = fetch(source, memory, rows * row_bytes, (plane * t->rows + first) * row_bytes);
            if (!error) error = reduce_block(t, memory, first, rows, &rooms, rooms.plane, level);
        }
        for (int64_t c = 0; c < together && !error; c++)
            resize(t, taps, rooms.plane + c * down * across, rooms.row, numbers + (plane + c) * out_pixels);
    }
    free(room);
    if (error) return error;
    if (t->inner_rows < t->out_rows || t->inner_columns < t->out_columns) {
        const float number = t->flags & LOWEST ? lowest_of(t, numbers) : (float)t->around;
        for (int64_t c = 0; c < t->samples; c++) surround(t, numbers + c * out_pixels, number);
    }
    return OK;
}
