/* Polygons on a grid of pixels: the steps of dicomtorch's masks/polygons.py, number for number. */
#include "kernels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A run by line * (columns + 1) + first column, and the column behind its last. */
typedef struct {
    uint64_t key;
    int64_t stop;
} Run;

typedef struct {
    Run *runs;
    int64_t n, room;
    int is_short; /* of memory */
} Found;

static void add(Found *found, uint64_t key, int64_t stop) {
    if (found->n == found->room) {
        const int64_t room = found->room ? 2 * found->room : 1024;
        Run *more = realloc(found->runs, (size_t)room * sizeof(Run));
        if (!more) {
            found->is_short = 1;
            return;
        }
        found->runs = more;
        found->room = room;
    }
    found->runs[found->n++] = (Run){key, stop};
}

/* In the order of keys, eleven bits at a time. */
static void sort(Found *found) {
    enum { BITS = 11, KINDS = 1 << BITS };
    Run *from = found->runs, *to = malloc((size_t)(found->n + 1) * sizeof(Run));
    uint64_t all = 0;
    if (!to) {
        found->is_short = 1;
        return;
    }
    for (int64_t k = 0; k < found->n; k++) all |= from[k].key;
    for (int shift = 0; shift < 64 && all >> shift; shift += BITS) {
        int64_t at[KINDS + 1] = {0};
        for (int64_t k = 0; k < found->n; k++) at[(from[k].key >> shift & (KINDS - 1)) + 1]++;
        for (int k = 0; k < KINDS; k++) at[k + 1] += at[k];
        for (int64_t k = 0; k < found->n; k++) to[at[from[k].key >> shift & (KINDS - 1)]++] = from[k];
        Run *other = from;
        from = to;
        to = other;
    }
    free(to);
    found->runs = from;
    found->room = found->n;
}

static double clip(double value, double low, double high) { return value < low ? low : value > high ? high : value; }

static double smaller(double a, double b) { return a < b ? a : b; }

static double larger(double a, double b) { return a > b ? a : b; }

/* From where to where the line at height `y` is within `near` of the segment from a to b. */
static void capsule(const double *a, const double *b, double y, const Grid *grid, double *left, double *right) {
    const double *ends[] = {a, b};
    *left = INFINITY;
    *right = -INFINITY;
    for (int k = 0; k < 2; k++) {
        const double down = y - ends[k][1], half = grid->near_squared - down * down;
        if (!(half >= 0)) continue;
        const double width = sqrt(half);
        *left = smaller(*left, ends[k][0] - width);
        *right = larger(*right, ends[k][0] + width);
    }
    const double along = b[0] - a[0], up = b[1] - a[1], height = y - a[1], length = hypot(along, up);
    const double near = grid->near;
    if (!(length > 0) || (up == 0 && fabs(height) > near)) return;
    if (along == 0 && (up * height < 0 || up * height > length * length)) return;
    const double at[] = {(along * height - near * length) / up, -up * height / along};
    const double way[] = {(along * height + near * length) / up, (length * length - up * height) / along};
    double low = -INFINITY, high = INFINITY;
    for (int k = 0; k < 2; k++)
        if (isfinite(at[k]) && isfinite(way[k])) {
            low = larger(low, smaller(at[k], way[k]));
            high = smaller(high, larger(at[k], way[k]));
        }
    if (!(low <= high)) return;
    *left = smaller(*left, a[0] + low);
    *right = larger(*right, a[0] + high);
}

/* The lines low to high - 1. */
typedef struct {
    int64_t low, high;
} Lines;

static Lines lines_of(double low, double high, int64_t rows) {
    return (Lines){(int64_t)clip(low, 0, (double)rows), (int64_t)clip(high, 0, (double)rows)};
}

static Lines crossed(const double *a, const double *b, const Grid *grid) {
    return lines_of(ceil(smaller(a[1], b[1])), ceil(larger(a[1], b[1])), grid->rows);
}

static Lines near_to(const double *a, const double *b, const Grid *grid) {
    const double reach = grid->near / grid->scale[1];
    return lines_of(ceil(smaller(a[1], b[1]) - reach), floor(larger(a[1], b[1]) + reach) + 1, grid->rows);
}

static void cross(const double *a, const double *b, uint64_t first_line, const Grid *grid, Found *found) {
    const Lines lines = crossed(a, b, grid);
    const double across = b[0] - a[0], down = b[1] - a[1];
    for (int64_t row = lines.low; row < lines.high; row++) {
        const double column = ceil(a[0] + ((double)row - a[1]) * across / down);
        add(found, (first_line + (uint64_t)row) * (uint64_t)(grid->columns + 1) +
                       (uint64_t)clip(column, 0, (double)grid->columns), 0);
    }
}

static void touch(const double *a, const double *b, uint64_t first_line, const Grid *grid, Found *found) {
    const Lines lines = near_to(a, b, grid);
    const double *scale = grid->scale, columns = (double)grid->columns;
    const double from[] = {a[0] * scale[0], a[1] * scale[1]}, to[] = {b[0] * scale[0], b[1] * scale[1]};
    for (int64_t row = lines.low; row < lines.high; row++) {
        double left, right;
        capsule(from, to, (double)row * scale[1], grid, &left, &right);
        const double first = ceil(clip(left / scale[0], -1, columns)), last = floor(clip(right / scale[0], -1, columns));
        const int64_t begin = first > 0 ? (int64_t)first : 0;
        const int64_t stop = (int64_t)last + 1 < grid->columns ? (int64_t)last + 1 : grid->columns;
        if (begin < stop)
            add(found, (first_line + (uint64_t)row) * (uint64_t)(grid->columns + 1) + (uint64_t)begin, stop);
    }
}

/* Two crossings of a line, one after the other, are the ends of a run. */
static void pair(Found *found, int64_t columns) {
    const uint64_t width = (uint64_t)columns + 1;
    int64_t n = 0;
    for (int64_t k = 0; k + 1 < found->n; k += 2) {
        const Run *both = found->runs + k;
        if (both[0].key < both[1].key) {
            const Run run = {both[0].key, (int64_t)(both[1].key % width)};
            found->runs[n++] = run;
        }
    }
    found->n = n;
}

static void join(Found *found, int64_t columns) {
    const uint64_t width = (uint64_t)columns + 1;
    int64_t n = 0;
    for (int64_t k = 0; k < found->n; k++) {
        const Run run = found->runs[k];
        Run *last = found->runs + (n ? n - 1 : 0);
        if (n && last->key / width == run.key / width && (int64_t)(run.key % width) <= last->stop) {
            if (run.stop > last->stop) last->stop = run.stop;
        } else {
            found->runs[n++] = run;
        }
    }
    found->n = n;
}

typedef void (*Visit)(const double *a, const double *b, uint64_t first_line, const Grid *grid, Found *found);

static void each_edge(const double *points, const int64_t *counts, const int64_t *planes, int64_t n, const Grid *grid,
                      Found *found, Visit visit) {
    for (int64_t k = 0; k < n; points += 2 * counts[k++])
        for (int64_t at = 0; at < counts[k] && !found->is_short; at++)
            visit(points + 2 * at, points + 2 * (at + 1 < counts[k] ? at + 1 : 0),
                  (uint64_t)planes[k] * (uint64_t)grid->rows, grid, found);
}

static void count_lines(const double *a, const double *b, uint64_t first_line, const Grid *grid, Found *found) {
    const Lines lines = grid->near < 0 ? crossed(a, b, grid) : near_to(a, b, grid);
    (void)first_line;
    if (lines.high > lines.low) found->n += lines.high - lines.low;
}

int64_t fill_polygons(const double *points, const int64_t *counts, const int64_t *planes, int64_t n, const Grid *grid,
                      int64_t most, int64_t **out) {
    Found found = {0};
    each_edge(points, counts, planes, n, grid, &found, count_lines);
    if (found.n > most) return TOO_MANY;
    found.n = 0;
    each_edge(points, counts, planes, n, grid, &found, cross);
    if (!found.is_short) sort(&found);
    pair(&found, grid->columns);
    if (grid->near >= 0) {
        each_edge(points, counts, planes, n, grid, &found, touch);
        if (!found.is_short) sort(&found);
    }
    join(&found, grid->columns);
    *out = found.is_short ? 0 : malloc((size_t)(3 * found.n + 1) * sizeof(int64_t));
    if (*out)
        for (int64_t k = 0; k < found.n; k++) {
            const uint64_t width = (uint64_t)grid->columns + 1;
            (*out)[k] = (int64_t)(found.runs[k].key / width);
            (*out)[found.n + k] = (int64_t)(found.runs[k].key % width);
            (*out)[2 * found.n + k] = found.runs[k].stop;
        }
    free(found.runs);
    return *out ? found.n : SHORT_OF_MEMORY;
}
