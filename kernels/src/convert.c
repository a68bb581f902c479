/* Stored samples to numbers of the output. Each step is rounded by itself and in the order of the NumPy path, which
   decides the constants; the clamp keeps NaN and -0.0 as NumPy's clip does. */
#include "kernels.h"

#include <string.h>

const int64_t WIDTHS[TYPES] = {1, 1, 2, 2, 4, 4, 4, 8, 8};

/* name, C type, unsigned type of the same width */
#define INTEGERS(X) X(i8, int8_t, uint8_t) X(u8, uint8_t, uint8_t) X(i16, int16_t, uint16_t) \
    X(u16, uint16_t, uint16_t) X(i32, int32_t, uint32_t) X(u32, uint32_t, uint32_t)

#define SHIFTED(T, U, v) ((T)((T)((U)(v) << left) >> right))
#define SAME(T, U, v) (v)
/* The same as SHIFTED in numbers of 32 bits, for which every instruction set has shifts and conversions; those of fewer
   bits fit into a signed one. */
#define REST(U) (32 - 8 * (int)sizeof(U))
#define WIDE_SIGNED(U, v) ((int32_t)((uint32_t)(U)(v) << (left + REST(U))) >> (right + REST(U)))
#define WIDE_UNSIGNED(U, v) ((int32_t)(((uint32_t)(v) << (left + REST(U))) >> (right + REST(U))))
#define WIDE_U32(U, v) ((uint32_t)(v) << left >> right)

#define CLAMP(x) if (clamps) { x = x < low ? low : x; x = x > high ? high : x; }

#define SINGLE_STEPS(v) \
    float x = (float)VALUE_OF(v); \
    if (shifts_origin) x = x - origin; \
    if (scales) x = x * scale; \
    if (adds) x = x + offset; \
    CLAMP(x) \
    out[i] = x;

#define DOUBLE_STEPS(v) \
    double d = (double)VALUE_OF(v) * scale; \
    float x = (float)(d + offset); \
    CLAMP(x) \
    out[i] = x;

#define PROLOGUE(real) \
    const real origin = (real)t->origin, scale = (real)t->scale, offset = (real)t->offset; \
    const float low = (float)t->low, high = (float)t->high; \
    const int shifts_origin = steps & HAS_ORIGIN, scales = steps & HAS_SCALE, adds = steps & HAS_OFFSET; \
    const int clamps = steps & HAS_CLAMP; \
    (void)origin, (void)scale, (void)offset, (void)low, (void)high; \
    (void)shifts_origin, (void)scales, (void)adds, (void)clamps;

/* One channel: samples `stride` apart to numbers one behind the other. Where the arguments of the loop are constants
   nothing is decided in it, which would take longer than the steps themselves. */
#define DEFINE(name, attribute, T, real, STEPS, CASES) \
    attribute static ALWAYS_INLINE void name##_loop(const T *restrict in, float *restrict out, int64_t n, \
                                                    const int64_t stride, const Template *t, const int left, \
                                                    const int right, const int steps) { \
        (void)left, (void)right; \
        PROLOGUE(real) \
        for (int64_t i = 0; i < n; i++) { STEPS(in[i * stride]) } \
    } \
    attribute static void name(const void *in, float *out, int64_t n, int64_t stride, const Template *t) { \
        const int left = (int)t->left, right = (int)t->right, steps = (int)t->flags & ALL_STEPS; \
        if (stride == 1) { CASES(name) } \
        if (stride == 3 && !(left | right)) name##_loop(in, out, n, 3, t, 0, 0, steps); \
        else name##_loop(in, out, n, stride, t, left, right, steps); \
    }

#define ALL_STEPS (HAS_ORIGIN | HAS_SCALE | HAS_OFFSET | HAS_CLAMP)
#define CASE(name, left, right, steps) case steps: name##_loop(in, out, n, 1, t, left, right, steps); return;
#define TWO_CASES(name, more) CASE(name, 0, 0, more) CASE(name, 0, 0, more | HAS_OFFSET)
#define SINGLE_CASES(name) \
    if (!(left | right)) \
        switch (steps) { \
            TWO_CASES(name, 0) \
            TWO_CASES(name, HAS_SCALE) \
            TWO_CASES(name, HAS_ORIGIN | HAS_SCALE) \
            TWO_CASES(name, HAS_CLAMP) \
            TWO_CASES(name, HAS_SCALE | HAS_CLAMP) \
            TWO_CASES(name, HAS_ORIGIN | HAS_SCALE | HAS_CLAMP) \
        } \
    switch (steps) { \
        CASE(name, left, right, HAS_OFFSET) \
        CASE(name, left, right, HAS_SCALE | HAS_OFFSET) \
        CASE(name, left, right, HAS_SCALE | HAS_CLAMP) \
        CASE(name, left, right, HAS_SCALE | HAS_OFFSET | HAS_CLAMP) \
    }
#define DOUBLE_CASES(name) \
    if (!(left | right)) name##_loop(in, out, n, 1, t, 0, 0, steps); \
    else name##_loop(in, out, n, 1, t, left, right, steps); \
    return;

#define LINEAR(name, T, level, attribute) \
    DEFINE(single_##name##_##level, attribute, T, float, SINGLE_STEPS, SINGLE_CASES) \
    DEFINE(double_##name##_##level, attribute, T, double, DOUBLE_STEPS, DOUBLE_CASES)

typedef void (*Linear)(const void *, float *, int64_t, int64_t, const Template *);

/* VALUE_OF is looked up where LINEAR is expanded, so each type has its own. */
#define BASE
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define HAS_AVX2 1
#define AVX2 __attribute__((target("avx2")))
#endif
#if defined(__GNUC__) || defined(__clang__)
#define ALWAYS_INLINE inline __attribute__((always_inline))
#else
#define ALWAYS_INLINE inline
#endif

#define VALUE_OF(v) WIDE_SIGNED(uint8_t, v)
LINEAR(i8, int8_t, base, BASE)
#ifdef HAS_AVX2
LINEAR(i8, int8_t, avx2, AVX2)
#endif
#undef VALUE_OF
#define VALUE_OF(v) WIDE_UNSIGNED(uint8_t, v)
LINEAR(u8, uint8_t, base, BASE)
#ifdef HAS_AVX2
LINEAR(u8, uint8_t, avx2, AVX2)
#endif
#undef VALUE_OF
#define VALUE_OF(v) WIDE_SIGNED(uint16_t, v)
LINEAR(i16, int16_t, base, BASE)
#ifdef HAS_AVX2
LINEAR(i16, int16_t, avx2, AVX2)
#endif
#undef VALUE_OF
#define VALUE_OF(v) WIDE_UNSIGNED(uint16_t, v)
LINEAR(u16, uint16_t, base, BASE)
#ifdef HAS_AVX2
LINEAR(u16, uint16_t, avx2, AVX2)
#endif
#undef VALUE_OF
#define VALUE_OF(v) WIDE_SIGNED(uint32_t, v)
LINEAR(i32, int32_t, base, BASE)
#ifdef HAS_AVX2
LINEAR(i32, int32_t, avx2, AVX2)
#endif
#undef VALUE_OF
#define VALUE_OF(v) WIDE_U32(uint32_t, v)
LINEAR(u32, uint32_t, base, BASE)
#ifdef HAS_AVX2
LINEAR(u32, uint32_t, avx2, AVX2)
#endif
#undef VALUE_OF
#define VALUE_OF(v) SAME(, , v)
LINEAR(f32, float, base, BASE)
LINEAR(f64, double, base, BASE)
#ifdef HAS_AVX2
LINEAR(f32, float, avx2, AVX2)
LINEAR(f64, double, avx2, AVX2)
#endif
#undef VALUE_OF

#define ROWS(level) \
    {{single_i8_##level, single_u8_##level, single_i16_##level, single_u16_##level, single_i32_##level, \
      single_u32_##level, single_f32_##level, single_f64_##level}, \
     {double_i8_##level, double_u8_##level, double_i16_##level, double_u16_##level, double_i32_##level, \
      double_u32_##level, double_f32_##level, double_f64_##level}}
static const Linear LINEAR_BASE[2][F64 + 1] = ROWS(base);
#ifdef HAS_AVX2
static const Linear LINEAR_AVX2[2][F64 + 1] = ROWS(avx2);
#endif

int best_level(void) {
#ifdef HAS_AVX2
    return __builtin_cpu_supports("avx2") ? 1 : 0;
#else
    return 0;
#endif
}

/* ---- stored values as they are, in a type that holds them ------------------------------------------------------- */

typedef void (*Copy)(const void *, void *, int64_t, int64_t, const Template *);
#define COPY_TO(name, T, U, to, O, VALUE) \
    static ALWAYS_INLINE void copy_##name##_##to##_loop(const T *restrict in, O *restrict out, int64_t n, \
                                                        const int64_t stride, const int left, const int right) { \
        (void)left, (void)right; \
        for (int64_t i = 0; i < n; i++) out[i] = (O)VALUE(T, U, in[i * stride]); \
    } \
    static void copy_##name##_##to(const void *in, void *out, int64_t n, int64_t stride, const Template *t) { \
        const int left = (int)t->left, right = (int)t->right; \
        if (stride == 1 && !(left | right)) copy_##name##_##to##_loop(in, out, n, 1, 0, 0); \
        else if (stride == 3 && !(left | right)) copy_##name##_##to##_loop(in, out, n, 3, 0, 0); \
        else copy_##name##_##to##_loop(in, out, n, stride, left, right); \
    }
#define COPY_INTEGER(name, T, U) \
    COPY_TO(name, T, U, i8, int8_t, SHIFTED) COPY_TO(name, T, U, u8, uint8_t, SHIFTED) \
    COPY_TO(name, T, U, i16, int16_t, SHIFTED) COPY_TO(name, T, U, u16, uint16_t, SHIFTED) \
    COPY_TO(name, T, U, i32, int32_t, SHIFTED) COPY_TO(name, T, U, u32, uint32_t, SHIFTED) \
    COPY_TO(name, T, U, f32, float, SHIFTED) COPY_TO(name, T, U, f64, double, SHIFTED) \
    COPY_TO(name, T, U, i64, int64_t, SHIFTED)
INTEGERS(COPY_INTEGER)
COPY_TO(f32, float, , f32, float, SAME)
COPY_TO(f32, float, , f64, double, SAME)
COPY_TO(f64, double, , f64, double, SAME)

#define COPIES(name) \
    {copy_##name##_i8, copy_##name##_u8, copy_##name##_i16, copy_##name##_u16, copy_##name##_i32, copy_##name##_u32, \
     copy_##name##_f32, copy_##name##_f64, copy_##name##_i64}
static const Copy COPY_TABLE[F64 + 1][TYPES] = {
    COPIES(i8), COPIES(u8), COPIES(i16), COPIES(u16), COPIES(i32), COPIES(u32),
    {0, 0, 0, 0, 0, 0, copy_f32_f32, copy_f32_f64, 0},
    {0, 0, 0, 0, 0, 0, 0, copy_f64_f64, 0},
};

/* ---- templates ---------------------------------------------------------------------------------------------------- */

#define MOST_PIXELS ((int64_t)1 << 40)

const char *template_problem(const Template *t, const Tap *taps, int64_t n_taps) {
    if (t->type < 0 || t->type > F64) return "type";
    if (t->out_type < 0 || t->out_type >= TYPES) return "out_type";
    if (t->mode < 0 || t->mode >= MODES) return "mode";
    if (t->flags < 0 || t->flags > FLAGS) return "flags";
    if (t->left < 0 || t->right < 0 || t->left >= 8 * WIDTHS[t->type] || t->right >= 8 * WIDTHS[t->type])
        return "left or right";
    if (t->type >= F32 && (t->left || t->right)) return "left or right";
    if (t->pixels < 0 || t->pixels > MOST_PIXELS) return "pixels";
    if (t->samples < 1 || t->samples > 4) return "samples";
    if (t->flags & RLE && (t->type > U32 || t->flags & SWAP || !t->pixels || (t->samples > 1 && !(t->flags & PLANES))))
        return "flags";
    if (t->flags & NORMALIZE && (t->flags & HAS_CLAMP || t->mode == COPY || t->type > U32)) return "flags";
    if (t->flags & THRICE && (t->samples != 1 || t->mode == COPY)) return "flags";
    if (t->mode == COPY ? !COPY_TABLE[t->type][t->out_type] : t->out_type != F32) return "out_type";
    return t->factor == 1 ? 0 : reduce_problem(t, taps, n_taps);
}

int64_t template_bytes(const Template *t) { return t->pixels * t->samples * WIDTHS[t->type]; }

static int64_t out_samples(const Template *t) {
    return (t->factor == 1 ? t->pixels : t->out_rows * t->out_columns) * t->samples;
}

int64_t template_out_bytes(const Template *t) {
    return out_samples(t) * (t->flags & THRICE ? 3 : 1) * WIDTHS[t->out_type];
}

/* Whether the numbers of the output are the bytes of the samples, in their order. */
static int is_verbatim(const Template *t) {
    const int same = t->type == t->out_type || (t->type <= U32 && t->out_type <= U32);
    return t->mode == COPY && same && WIDTHS[t->type] == WIDTHS[t->out_type] && !t->left && !t->right &&
           (t->samples == 1 || t->flags & PLANES);
}

/* ---- one block ------------------------------------------------------------------------------------------------------ */

void swap_bytes(void *data, int64_t n, int64_t width) {
    if (width == 2) {
        uint16_t *p = data;
        for (int64_t i = 0; i < n; i++) p[i] = __builtin_bswap16(p[i]);
    } else if (width == 4) {
        uint32_t *p = data;
        for (int64_t i = 0; i < n; i++) p[i] = __builtin_bswap32(p[i]);
    } else if (width == 8) {
        uint64_t *p = data;
        for (int64_t i = 0; i < n; i++) p[i] = __builtin_bswap64(p[i]);
    }
}

static int is_finite(double x) { return x - x == 0.0; }

static enum error after(const Template *t, const void *in, float *out, int64_t n, int64_t stride) {
    if (t->flags & NO_OVERFLOW && t->type >= F32)
        for (int64_t i = 0; i < n; i++) {
            const double from = t->type == F32 ? ((const float *)in)[i * stride] : ((const double *)in)[i * stride];
            if (!is_finite(out[i]) && out[i] == out[i] && is_finite(from)) return VALUE;
        }
    if (t->flags & NAN_TO_ZERO)
        for (int64_t i = 0; i < n; i++)
            if (out[i] != out[i]) out[i] = 0.0f;
    return OK;
}

static void normalize(const Template *t, float *out, int64_t n) {
    const float center = (float)t->low, width = (float)t->high;
    for (int64_t i = 0; i < n; i++) {
        const float moved = out[i] - center;
        out[i] = moved / width;
    }
}

static void fill(const Template *t, float *out, int64_t n) {
    float x = (float)t->offset;
    if (t->flags & HAS_CLAMP) {
        float low = (float)t->low, high = (float)t->high;
        x = x < low ? low : x;
        x = x > high ? high : x;
    }
    for (int64_t i = 0; i < n; i++) out[i] = x;
}

static Linear linear_of(const Template *t, int64_t type, int level) {
#ifdef HAS_AVX2
    if (level >= 1) return LINEAR_AVX2[t->mode == DOUBLE][type];
#else
    (void)level;
#endif
    return LINEAR_BASE[t->mode == DOUBLE][type];
}

void convert_floats(const Template *t, const float *in, float *out, int64_t n, int level) {
    if (t->mode == CONSTANT) fill(t, out, n);
    else linear_of(t, F32, level)(in, out, n, 1, t);
    if (t->flags & NORMALIZE) normalize(t, out, n);
}

/* Pixels first .. first + count of a frame: `in` holds their samples, aligned and of this byte order; with PLANES of one
   plane `plane`. */
static enum error convert(const Template *t, const void *in, char *out, int64_t first, int64_t count, int64_t plane, int level) {
    const int64_t width = WIDTHS[t->type], out_width = WIDTHS[t->out_type];
    if (is_verbatim(t)) {
        memcpy(out + (plane * t->pixels + first) * width, in, (size_t)(count * width));
        return OK;
    }
    const int planar = (t->flags & PLANES) != 0;
    const int64_t stride = planar ? 1 : t->samples, channels = planar ? 1 : t->samples;
    for (int64_t c = 0; c < channels; c++) {
        const char *from = (const char *)in + c * width;
        char *to = out + ((planar ? plane : c) * t->pixels + first) * out_width;
        if (t->mode == COPY) {
            COPY_TABLE[t->type][t->out_type](from, to, count, stride, t);
        } else if (t->mode == CONSTANT) {
            fill(t, (float *)to, count);
        } else {
            linear_of(t, t->type, level)(from, (float *)to, count, stride, t);
            enum error error = after(t, from, (float *)to, count, stride);
            if (error) return error;
        }
        if (t->flags & NORMALIZE) normalize(t, (float *)to, count);
    }
    return OK;
}

/* Calls `step` for the blocks of a frame. */
#define EACH_BLOCK(step) \
    const int planar = (t->flags & PLANES) != 0; \
    const int64_t planes = planar ? t->samples : 1, stride = planar ? 1 : t->samples, group = stride * WIDTHS[t->type]; \
    for (int64_t plane = 0; plane < planes; plane++) \
        for (int64_t first = 0; first < t->pixels; first += BLOCK / group) { \
            const int64_t count = t->pixels - first < BLOCK / group ? t->pixels - first : BLOCK / group; \
            enum error error = step; \
            if (error) return error; \
        } \
    return OK;

static enum error fetched(const Template *t, Fetch fetch, void *source, char *memory, char *out, int64_t first,
                          int64_t count, int64_t plane, int64_t stride, int level) {
    const int64_t width = WIDTHS[t->type], at = (plane * t->pixels + first) * stride * width;
    const int in_place = is_verbatim(t);
    if (in_place) memory = out + at;
    enum error error = fetch(source, memory, count * stride * width, at);
    if (error) return error;
    if (t->flags & SWAP) swap_bytes(memory, count * stride, width);
    return in_place ? OK : convert(t, memory, out, first, count, plane, level);
}

static void repeat(const Template *t, char *out) {
    const size_t bytes = (size_t)(out_samples(t) * WIDTHS[t->out_type]);
    memcpy(out + bytes, out, bytes);
    memcpy(out + 2 * bytes, out, bytes);
}

static enum error fetched_frame(const Template *t, Fetch fetch, void *source, char *memory, char *out, int level) {
    EACH_BLOCK(fetched(t, fetch, source, memory, out, first, count, plane, stride, level))
}

enum error convert_frame(const Template *t, const Tap *taps, Fetch fetch, void *source, char *memory, char *out,
                         int level) {
    enum error error = t->factor == 1 ? fetched_frame(t, fetch, source, memory, out, level)
                                      : reduce_frame(t, taps, fetch, source, memory, out, level);
    if (!error && t->flags & THRICE) repeat(t, out);
    return error;
}

static enum error copied(void *source, char *to, int64_t length, int64_t offset) {
    memcpy(to, (const char *)source + offset, (size_t)length);
    return OK;
}

static enum error frame_in_place(const Template *t, const char *data, char *out, int level) {
    EACH_BLOCK(convert(t, data + (plane * t->pixels + first) * group, out, first, count, plane, level))
}

enum error convert_memory(const Template *t, const Tap *taps, const char *data, char *memory, char *out, int level) {
    if (t->factor != 1 || t->flags & SWAP || (uintptr_t)data % (uintptr_t)WIDTHS[t->type])
        return convert_frame(t, taps, copied, (void *)data, memory, out, level);
    enum error error = frame_in_place(t, data, out, level);
    if (!error && t->flags & THRICE) repeat(t, out);
    return error;
}
