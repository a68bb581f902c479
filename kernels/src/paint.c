/* Masks: frames of one bit a pixel, read and painted into label maps and channels of bytes. */
#include "kernels.h"

#include <string.h>

#ifndef _WIN32

#define PART ((int64_t)1 << 20) /* pixels of all planes that are painted before the next ones */

/* The eight bytes of eight pixels, 255 where a bit is set. */
static uint64_t spread(uint64_t byte) {
    const uint64_t each = UINT64_C(0x0101010101010101);
    const uint64_t apart = (byte * each) & UINT64_C(0x8040201008040201);
    return ((apart + UINT64_C(0x7F7F7F7F7F7F7F7F)) >> 7 & each) * 255;
}

static uint64_t load(const char *from) {
    uint64_t word;
    memcpy(&word, from, sizeof word);
    return word;
}

/* Eight pixels or fewer. */
static void paint_byte(uint64_t byte, uint64_t eight, char *out, int64_t pixels) {
    uint64_t old = 0;
    memcpy(&old, out, (size_t)pixels);
    old ^= (old ^ eight) & spread(byte);
    memcpy(out, &old, (size_t)pixels);
}

static int64_t ones(uint64_t word) {
    word -= word >> 1 & UINT64_C(0x5555555555555555);
    word = (word & UINT64_C(0x3333333333333333)) + (word >> 2 & UINT64_C(0x3333333333333333));
    return (int64_t)(((word + (word >> 4)) & UINT64_C(0x0F0F0F0F0F0F0F0F)) * UINT64_C(0x0101010101010101) >> 56);
}

static void paint_word(uint64_t word, uint64_t eight, char *out) {
    for (int k = 0; k < 8; k++, word >>= 8, out += 8) {
        if (!(word & 255)) continue;
        if ((word & 255) == 255) memcpy(out, &eight, 8);
        else paint_byte(word & 255, eight, out, 8);
    }
}

/* The number of pixels that are set among `pixels`; they are painted. */
static int64_t paint_words(const char *words, int64_t pixels, uint64_t eight, char *out) {
    int64_t area = 0, first = 0;
    for (; first + 512 <= pixels; first += 512) {
        const char *here = words + first / 8;
        uint64_t any = 0;
        for (int k = 0; k < 8; k++) any |= load(here + 8 * k);
        for (int k = 0; any && k < 8; k++) {
            const uint64_t word = load(here + 8 * k);
            if (!word) continue;
            area += ones(word);
            paint_word(word, eight, out + first + 64 * k);
        }
    }
    for (; first < pixels; first += 8) {
        const int64_t left = pixels - first < 8 ? pixels - first : 8;
        const uint64_t byte = (unsigned char)words[first / 8] & ((UINT64_C(1) << left) - 1);
        area += ones(byte);
        paint_byte(byte, eight, out + first, left);
    }
    return area;
}

/* Bits of a plane as words, its first pixel at bit 0 of the first. */
static void shift(const char *bytes, int64_t bit, int64_t pixels, char *words) {
    for (int64_t at = 0; 8 * at < pixels; at += 8) {
        uint64_t word = load(bytes + at) >> bit;
        if (bit) word |= (uint64_t)(unsigned char)bytes[at + 8] << (64 - bit);
        memcpy(words + at, &word, 8);
    }
}

static void unite(const char *bytes, int64_t pixels, char *words) {
    for (int64_t at = 0; 8 * at < pixels; at += 8) {
        const uint64_t word = load(words + at) | load(bytes + at);
        memcpy(words + at, &word, 8);
    }
}

/* What lies in `memory`: bits as they are read, the same from bit 0 on, those that are united. */
#define READ_AT (2 * ROOM)
#define UNITED_AT ROOM
#define ROOM (PART / 8 + 64)

/* The whole words from the first to the last that has a bit, as pixels; the same number twice of none. */
static void narrow(const char *words, int64_t pixels, int64_t *low, int64_t *high) {
    int64_t from = 0, to = (pixels + 63) / 64;
    while (from < to && !load(words + 8 * from)) from++;
    while (to > from && !load(words + 8 * to - 8)) to--;
    *low = 64 * from < pixels ? 64 * from : pixels;
    *high = 64 * to < pixels ? 64 * to : pixels;
}

static enum error paint_part(const Call *call, File *file, Plane *plane, int64_t first, int64_t pixels, char *memory,
                             int is_last) {
    const enum error error = open_file(file, &plane->job, call->prefix, call->prefix_length, call->paths);
    if (error) return error;
    char *bytes = memory + READ_AT, *united = memory + UNITED_AT, *out = call->out + plane->job.out;
    const uint64_t eight = (uint64_t)plane->value * UINT64_C(0x0101010101010101);
    const int64_t from = plane->low > first ? plane->low : first;
    const int64_t to = plane->high < first + pixels ? plane->high : first + pixels;
    const int is_alone = is_last && !plane->joins;
    if (!is_alone && !plane->joins) memset(united, 0, (size_t)(pixels + 63) / 64 * 8);
    if (from < to) {
        const int64_t length = (plane->bit + to - from + 7) / 8;
        memset(bytes + length, 0, 16); /* whole words are looked at */
        const enum error failed = read_at(file, &plane->job, bytes, length, from / 8);
        if (failed) return failed;
        if (plane->bit) {
            shift(bytes, plane->bit, to - from, memory);
            bytes = memory;
        }
        if ((to - from) % 64) {
            char *last = bytes + (to - from) / 64 * 8;
            const uint64_t word = load(last) & ((UINT64_C(1) << (to - from) % 64) - 1);
            memcpy(last, &word, 8);
        }
        int64_t low, high;
        narrow(bytes, to - from, &low, &high);
        if (low < high) {
            if (from + low < plane->first_set) plane->first_set = from + low;
            plane->end_set = from + high;
            if (is_alone) plane->area += paint_words(bytes + low / 8, high - low, eight, out + from + low);
            else unite(bytes + low / 8, high - low, united + (from - first + low) / 8);
        }
    }
    if (is_last && !is_alone) plane->area += paint_words(united, pixels, eight, out + first);
    return OK;
}

int paint_planes(const Call *call, Plane *planes, int64_t n, int64_t pixels) {
    char *memory = take_memory();
    File file = {.descriptor = -1};
    enum error error = memory ? OK : NO_MEMORY;
    for (int64_t k = 0; k < n; k++) {
        planes[k].area = planes[k].end_set = planes[k].job.number = 0;
        planes[k].first_set = pixels;
        planes[k].job.error = k ? OK : error;
    }
    for (int64_t first = 0; first < pixels && !error; first += PART) {
        const int64_t here = pixels - first < PART ? pixels - first : PART;
        for (int64_t k = 0; k < n && !error; k++) {
            const int is_last = k + 1 == n || !planes[k + 1].joins;
            error = planes[k].job.error = paint_part(call, &file, planes + k, first, here, memory, is_last);
        }
    }
    close_file(&file);
    if (memory) give_memory(memory);
    return n && error;
}

#endif

int paint_runs(const int64_t *line, const int64_t *first, const int64_t *end, int64_t n, int64_t rows, int64_t columns,
               int value, char *out) {
    for (int64_t k = 0; k < n; k++)
        if (line[k] < 0 || line[k] >= rows || first[k] < 0 || first[k] > end[k] || end[k] > columns) return 0;
    for (int64_t k = 0; k < n; k++) memset(out + line[k] * columns + first[k], value, (size_t)(end[k] - first[k]));
    return 1;
}
