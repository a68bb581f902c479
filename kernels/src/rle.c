/* RLE frames (PS3.5 annex G): a segment for each byte of a sample, the most significant first, sample after sample. What
   is not exactly as the standard has it is left to the caller, who says what is wrong or finds out what was meant. */
#include "kernels.h"

#include <string.h>

#define HEADER 64
#define MOST_SEGMENTS 15
#define LONGEST_RUN 128
#define STEP 16    /* bytes that a run is copied by */
#define PART 4096  /* bytes of each segment that are unpacked at once: they stay in the first-level cache */

typedef struct {
    const uint8_t *at, *end;
    int64_t ready; /* bytes of `bytes` that were unpacked and not yet taken */
    uint8_t bytes[PART + LONGEST_RUN + STEP];
} Segment;

typedef struct {
    const uint8_t *stream;
    int64_t edges[MOST_SEGMENTS + 1];
    int64_t width, plane_bytes, taken; /* taken: of the samples of the frame */
    Segment segments[4];
} Stream;

/* Where the segments begin and end; each has at least a byte. */
static int find_segments(Stream *s, int64_t length, int64_t count) {
    uint32_t header[16];
    if (length < HEADER) return 0;
    memcpy(header, s->stream, HEADER);
    if (header[0] != (uint32_t)count || count > MOST_SEGMENTS || header[1] != HEADER) return 0;
    for (int64_t k = 0; k < count; k++) s->edges[k] = header[1 + k];
    s->edges[count] = length;
    for (int64_t k = 0; k < count; k++)
        if (s->edges[k] >= s->edges[k + 1]) return 0;
    return 1;
}

/* Unpacks until `wanted` bytes are ready. Both kinds of runs take the same way, because which comes next cannot be
   foreseen; the stream has STREAM_SLACK bytes behind its end, so that reading a little too far does no harm. */
static int unpack(Segment *segment, int64_t wanted) {
    const uint8_t *at = segment->at, *end = segment->end;
    uint8_t *out = segment->bytes + segment->ready, *stop = segment->bytes + wanted;
    while (out < stop) {
        if (at >= end) return 0;
        const uint8_t code = at[0];
        if (code == 128) {
            at++;
            continue;
        }
        const int repeats = code > 128;
        const int64_t length = repeats ? 257 - code : code + 1, takes = repeats ? 2 : code + 2;
        if (takes > end - at) return 0;
        const uint64_t same = at[1] * UINT64_C(0x0101010101010101);
        uint64_t first, second;
        memcpy(&first, at + 1, 8);
        memcpy(&second, at + 9, 8);
        first = repeats ? same : first;
        second = repeats ? same : second;
        memcpy(out, &first, 8);
        memcpy(out + 8, &second, 8);
        if (length > STEP) {
            if (repeats) memset(out + STEP, at[1], (size_t)(length - STEP));
            else memcpy(out + STEP, at + 1 + STEP, (size_t)(length - STEP));
        }
        out += length;
        at += takes;
    }
    segment->at = at;
    segment->ready = out - segment->bytes;
    return 1;
}

static void begin_plane(Stream *s, int64_t plane) {
    for (int64_t k = 0; k < s->width; k++) {
        Segment *segment = s->segments + k;
        const int64_t number = plane * s->width + k;
        segment->at = s->stream + s->edges[number];
        segment->end = s->stream + s->edges[number + 1];
        segment->ready = 0;
    }
}

/* A plane is there in whole: no run went beyond it, and no more than a pad byte follows. */
static int is_complete(const Stream *s) {
    for (int64_t k = 0; k < s->width; k++)
        if (s->segments[k].ready || s->segments[k].end - s->segments[k].at > 1) return 0;
    return 1;
}

static void join(const Segment *segments, char *to, int64_t n, int64_t width) {
    const uint8_t *a = segments[0].bytes, *b = segments[1].bytes, *c = segments[2].bytes, *d = segments[3].bytes;
    if (width == 1) {
        memcpy(to, a, (size_t)n);
    } else if (width == 2) {
        uint16_t *restrict words = (uint16_t *)to;
        for (int64_t i = 0; i < n; i++) words[i] = (uint16_t)(a[i] << 8 | b[i]);
    } else {
        uint32_t *restrict words = (uint32_t *)to;
        for (int64_t i = 0; i < n; i++)
            words[i] = (uint32_t)a[i] << 24 | (uint32_t)b[i] << 16 | (uint32_t)c[i] << 8 | d[i];
    }
}

/* The next samples, in planes; both ways of converting a frame ask for them one after the other. */
static enum error fetch(void *source, char *to, int64_t length, int64_t offset) {
    Stream *s = source;
    if (offset != s->taken) return CODE;
    while (length) {
        const int64_t inside = s->taken % s->plane_bytes;
        if (!inside) begin_plane(s, s->taken / s->plane_bytes);
        int64_t part = PART * s->width;
        if (part > length) part = length;
        if (part > s->plane_bytes - inside) part = s->plane_bytes - inside;
        const int64_t n = part / s->width;
        for (int64_t k = 0; k < s->width; k++)
            if (!unpack(s->segments + k, n)) return CODE;
        join(s->segments, to, n, s->width);
        for (int64_t k = 0; k < s->width; k++) {
            Segment *segment = s->segments + k;
            segment->ready -= n;
            memmove(segment->bytes, segment->bytes + n, (size_t)segment->ready);
        }
        s->taken += part;
        to += part;
        length -= part;
        if (inside + part == s->plane_bytes && !is_complete(s)) return CODE;
    }
    return OK;
}

enum error rle_frame(const Template *t, const Tap *taps, const char *stream, int64_t length, char *memory, char *out,
                     int level) {
    Stream s;
    s.stream = (const uint8_t *)stream;
    s.width = WIDTHS[t->type];
    s.plane_bytes = t->pixels * s.width;
    s.taken = 0;
    if (!find_segments(&s, length, t->samples * s.width)) return CODE;
    return convert_frame(t, taps, fetch, &s, memory, out, level);
}
