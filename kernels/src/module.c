/* The module: buffers in, every bound checked, nothing of the interpreter's used while frames are read. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "kernels.h"

#include <stdlib.h>
#include <string.h>

static void release(Py_buffer *buffers, int n) {
    while (n) PyBuffer_Release(buffers + --n);
}

/* A buffer of whole items of `size` bytes, aligned for 64-bit numbers; the number of items, or -1. */
static int64_t items(const Py_buffer *buffer, int64_t size, const char *name) {
    if (buffer->len % size || (uintptr_t)buffer->buf % sizeof(int64_t)) {
        PyErr_Format(PyExc_ValueError, "%s must be an aligned buffer of items of %d bytes", name, (int)size);
        return -1;
    }
    return buffer->len / size;
}

static int check_templates(const Template *templates, int64_t n, const Tap *taps, int64_t n_taps) {
    for (int64_t k = 0; k < n; k++) {
        const char *problem = template_problem(templates + k, taps, n_taps);
        if (problem) {
            PyErr_Format(PyExc_ValueError, "template %zd: %s is out of range", (Py_ssize_t)k, problem);
            return 0;
        }
    }
    return 1;
}

#ifndef _WIN32
/* Of a job that reads `bytes` of a file or source of `size` bytes and writes `out_bytes`. */
static const char *place_problem(const Job *job, int64_t size, int64_t bytes, int64_t out_bytes, int64_t out) {
    if (size < 0 || job->offset < 0 || job->offset > size || bytes > size - job->offset) return "offset";
    if (job->out < 0 || job->out > out || out_bytes > out - job->out) return "out";
    return 0;
}

static const char *job_problem(const Job *job, int64_t bytes, int64_t out_bytes, int64_t paths, int64_t out) {
    if (job->path < 0 || job->path_length < 1 || job->path > paths || job->path_length > paths - job->path)
        return "path";
    return place_problem(job, job->size, bytes, out_bytes, out);
}

/* Of a job in files with `paths` bytes of names, or in `n_sources` sources. */
static const char *read_problem(const Job *job, const Template *templates, int64_t n_templates, int64_t paths,
                                const Py_buffer *sources, int64_t n_sources, const Py_buffer *out) {
    if (job->template_number < 0 || job->template_number >= n_templates) return "template";
    const Template *t = templates + job->template_number;
    if (t->flags & RLE && job->number < 8) return "number";
    if (sources && (job->path < 0 || job->path >= n_sources)) return "path";
    const int64_t bytes = t->flags & RLE ? job->number : template_bytes(t), out_bytes = template_out_bytes(t);
    const char *problem = sources ? place_problem(job, sources[job->path].len, bytes, out_bytes, out->len)
                                  : job_problem(job, bytes, out_bytes, paths, out->len);
    return problem || !(((uintptr_t)out->buf + (uintptr_t)job->out) % (uintptr_t)WIDTHS[t->out_type]) ? problem : "out";
}

static const char *plane_problem(const Plane *planes, int64_t k, int64_t pixels, int64_t paths, int64_t out) {
    const Plane *plane = planes + k;
    if (plane->bit < 0 || plane->bit > 7) return "bit";
    if (plane->value < 1 || plane->value > 255) return "value";
    if (plane->joins < 0 || plane->joins > 1) return "joins";
    if (plane->joins && (!k || plane[-1].job.out != plane->job.out || plane[-1].value != plane->value)) return "joins";
    if (plane->low < 0 || plane->low > pixels || (plane->low % 64 && plane->low != pixels)) return "low";
    if (plane->high < 0 || plane->high > pixels || (plane->high % 64 && plane->high != pixels)) return "high";
    return job_problem(&plane->job, pixels / 8 + (pixels % 8 + plane->bit + 7) / 8, pixels, paths, out);
}

PyDoc_STRVAR(read_doc,
             "read(jobs, templates, taps, prefix, paths, out, threads, level=-1)\n--\n\n"
             "Reads and converts frames. jobs, templates and taps are arrays of records; error and number of each job are\n"
             "written. Returns how many failed; their part of out is undefined.\n\n"
             "Raises ValueError for a record that points outside its buffer; nothing is read then.");

static PyObject *py_read(PyObject *module, PyObject *args) {
    (void)module;
    Py_buffer all[6], *jobs = all, *templates = all + 1, *taps = all + 2, *prefix = all + 3, *paths = all + 4, *out = all + 5;
    int threads, level = -1;
    if (!PyArg_ParseTuple(args, "w*y*y*y*y*w*i|i:read", jobs, templates, taps, prefix, paths, out, &threads, &level))
        return 0;
    int64_t failed = -1;
    int64_t n = items(jobs, sizeof(Job), "jobs"), m = items(templates, sizeof(Template), "templates");
    int64_t n_taps = items(taps, sizeof(Tap), "taps");
    if (n < 0 || m < 0 || n_taps < 0 || !check_templates(templates->buf, m, taps->buf, n_taps)) goto end;
    if (memchr(prefix->buf, 0, (size_t)prefix->len)) {
        PyErr_SetString(PyExc_ValueError, "prefix has a zero byte");
        goto end;
    }
    for (int64_t k = 0; k < n; k++) {
        const char *problem = read_problem((Job *)jobs->buf + k, templates->buf, m, paths->len, 0, 0, out);
        if (problem) {
            PyErr_Format(PyExc_ValueError, "job %zd: %s is out of range", (Py_ssize_t)k, problem);
            goto end;
        }
    }
    if (level < 0 || level > best_level()) level = best_level();
    const Call call = {.templates = templates->buf, .taps = taps->buf, .prefix = prefix->buf, .prefix_length = prefix->len,
                       .paths = paths->buf, .out = out->buf, .level = level};
    Py_BEGIN_ALLOW_THREADS
    failed = read_frames(&call, jobs->buf, n, threads < 1 ? 1 : threads);
    Py_END_ALLOW_THREADS
end:
    release(all, 6);
    return failed < 0 ? 0 : PyLong_FromLongLong(failed);
}

PyDoc_STRVAR(read_memory_doc,
             "read_memory(jobs, templates, taps, sources, out, threads, level=-1)\n--\n\n"
             "Converts frames that lie in memory, as read does those of files: path of a job is the number of its source in\n"
             "a list of buffers, offset counts in that.\n\n"
             "Raises ValueError for a record that points outside its buffer; nothing is read then.");

/* The buffers of a list; how many of them were got, all if there is no error. */
static int get_sources(PyObject *list, Py_buffer *sources, const char **where, int n) {
    for (int k = 0; k < n; k++) {
        PyObject *source = PyList_GetItem(list, k);
        if (!source || PyObject_GetBuffer(source, sources + k, PyBUF_SIMPLE)) return k;
        where[k] = sources[k].buf;
    }
    return n;
}

static PyObject *py_read_memory(PyObject *module, PyObject *args) {
    (void)module;
    Py_buffer all[4], *jobs = all, *templates = all + 1, *taps = all + 2, *out = all + 3, *sources = 0;
    const char **where = 0;
    PyObject *list;
    int threads, level = -1, got = 0;
    if (!PyArg_ParseTuple(args, "w*y*y*O!w*i|i:read_memory", jobs, templates, taps, &PyList_Type, &list, out, &threads,
                          &level))
        return 0;
    int64_t failed = -1;
    const int64_t n = items(jobs, sizeof(Job), "jobs"), m = items(templates, sizeof(Template), "templates");
    const int64_t n_taps = items(taps, sizeof(Tap), "taps"), count = PyList_Size(list);
    if (n < 0 || m < 0 || n_taps < 0 || !check_templates(templates->buf, m, taps->buf, n_taps)) goto end;
    if (count >= 1 << 24) {
        PyErr_SetString(PyExc_ValueError, "these are too many sources");
        goto end;
    }
    sources = malloc((size_t)(count + 1) * sizeof *sources);
    where = malloc((size_t)(count + 1) * sizeof *where);
    if (!sources || !where) {
        PyErr_NoMemory();
        goto end;
    }
    got = get_sources(list, sources, where, (int)count);
    if (got < count) goto end;
    for (int64_t k = 0; k < n; k++) {
        const char *problem = read_problem((Job *)jobs->buf + k, templates->buf, m, 0, sources, count, out);
        if (problem) {
            PyErr_Format(PyExc_ValueError, "job %zd: %s is out of range", (Py_ssize_t)k, problem);
            goto end;
        }
    }
    if (level < 0 || level > best_level()) level = best_level();
    const Call call = {.templates = templates->buf, .taps = taps->buf, .sources = where, .out = out->buf, .level = level};
    Py_BEGIN_ALLOW_THREADS
    failed = read_frames(&call, jobs->buf, n, threads < 1 ? 1 : threads);
    Py_END_ALLOW_THREADS
end:
    if (sources) release(sources, got);
    free(sources);
    free(where);
    release(all, 4);
    return failed < 0 ? 0 : PyLong_FromLongLong(failed);
}

PyDoc_STRVAR(paint_planes_doc,
             "paint_planes(planes, prefix, paths, out, pixels)\n--\n\n"
             "Reads frames of one bit a pixel and paints them into images of `pixels` bytes, one over the other; error,\n"
             "number and area of each are written. Returns 0, or 1 if one failed: it alone has an error then, no other is\n"
             "read after it, and out is undefined.\n\n"
             "Raises ValueError for a record that points outside its buffer; nothing is read then.");

static PyObject *py_paint_planes(PyObject *module, PyObject *args) {
    (void)module;
    Py_buffer all[4], *planes = all, *prefix = all + 1, *paths = all + 2, *out = all + 3;
    long long pixels;
    if (!PyArg_ParseTuple(args, "w*y*y*w*L:paint_planes", planes, prefix, paths, out, &pixels)) return 0;
    int64_t failed = -1;
    int64_t n = items(planes, sizeof(Plane), "planes");
    if (n < 0) goto end;
    if (pixels < 1 || pixels > out->len || memchr(prefix->buf, 0, (size_t)prefix->len)) {
        PyErr_SetString(PyExc_ValueError, "pixels is out of range, or prefix has a zero byte");
        goto end;
    }
    for (int64_t k = 0; k < n; k++) {
        const char *problem = plane_problem(planes->buf, k, pixels, paths->len, out->len);
        if (problem) {
            PyErr_Format(PyExc_ValueError, "plane %zd: %s is out of range", (Py_ssize_t)k, problem);
            goto end;
        }
    }
    const Call call = {.prefix = prefix->buf, .prefix_length = prefix->len, .paths = paths->buf, .out = out->buf};
    Py_BEGIN_ALLOW_THREADS
    failed = paint_planes(&call, planes->buf, n, pixels);
    Py_END_ALLOW_THREADS
end:
    release(all, 4);
    return failed < 0 ? 0 : PyLong_FromLongLong(failed);
}
#endif

PyDoc_STRVAR(paint_runs_doc,
             "paint_runs(line, first, end, columns, value, out)\n--\n\n"
             "Writes value into the columns first to end - 1 of lines of an image of bytes.\n\n"
             "Raises ValueError for a run that is outside the image; nothing is written then.");

static PyObject *py_paint_runs(PyObject *module, PyObject *args) {
    (void)module;
    Py_buffer all[4], *line = all, *first = all + 1, *end = all + 2, *out = all + 3;
    long long columns;
    int value;
    if (!PyArg_ParseTuple(args, "y*y*y*Liw*:paint_runs", line, first, end, &columns, &value, out)) return 0;
    int done = -1;
    const int64_t n = items(line, sizeof(int64_t), "line");
    if (n < 0 || items(first, sizeof(int64_t), "first") < 0 || items(end, sizeof(int64_t), "end") < 0) goto finally;
    done = columns > 0 && first->len == line->len && end->len == line->len &&
           paint_runs(line->buf, first->buf, end->buf, n, out->len / columns, columns, value & 255, out->buf);
    if (!done) PyErr_SetString(PyExc_ValueError, "a run is outside the image");
finally:
    release(all, 4);
    if (done != 1) return 0;
    Py_RETURN_NONE;
}

/* Whether there are three vertices a polygon or more, all of them near enough to the pixels; planes are few enough. */
static int polygons_are_right(const Py_buffer *points, const Py_buffer *counts, const Py_buffer *planes, const Grid *grid) {
    const int64_t n = items(counts, sizeof(int64_t), "counts"), total = items(points, 2 * sizeof(double), "points");
    if (n < 0 || total < 0 || items(planes, sizeof(int64_t), "planes") < 0) return 0;
    const int64_t *count = counts->buf, *plane = planes->buf;
    int64_t left = planes->len == counts->len ? total : -1;
    for (int64_t k = 0; k < n && left >= 0; k++)
        left = count[k] >= 3 && count[k] <= left && plane[k] >= 0 && plane[k] < (1 << 24) ? left - count[k] : -1;
    const double *number = points->buf;
    for (int64_t k = 0; k < 2 * total; k++)
        if (!(number[k] > -1e9 && number[k] < 1e9)) left = -1;
    if (grid->rows < 1 || grid->rows > (1 << 18) || grid->columns < 1 || grid->columns > (1 << 18)) left = -1;
    for (int k = 0; k < 2; k++)
        if (!(grid->scale[k] > 0 && grid->scale[k] < 1e9)) left = -1;
    if (!(grid->near < 1e9)) left = -1;
    if (left) PyErr_SetString(PyExc_ValueError, "these are no polygons on pixels");
    return !left;
}

PyDoc_STRVAR(fill_polygons_doc,
             "fill_polygons(points, counts, planes, rows, columns, scale, near, near_squared, most)\n--\n\n"
             "The runs of polygons as 64-bit numbers: all lines, then first columns, then columns behind the last; None\n"
             "where more than `most` lines are crossed.\n\n"
             "Raises ValueError for numbers that are no polygons on pixels.");

static PyObject *py_fill_polygons(PyObject *module, PyObject *args) {
    (void)module;
    Py_buffer all[3], *points = all, *counts = all + 1, *planes = all + 2;
    long long rows, columns, most;
    Grid grid;
    if (!PyArg_ParseTuple(args, "y*y*y*LL(dd)ddL:fill_polygons", points, counts, planes, &rows, &columns,
                          &grid.scale[0], &grid.scale[1], &grid.near, &grid.near_squared, &most))
        return 0;
    int64_t *runs = 0, found = 0;
    grid.rows = rows;
    grid.columns = columns;
    const int right = polygons_are_right(points, counts, planes, &grid);
    if (right) {
        Py_BEGIN_ALLOW_THREADS
        found = fill_polygons(points->buf, counts->buf, planes->buf, counts->len / 8, &grid, most, &runs);
        Py_END_ALLOW_THREADS
    }
    release(all, 3);
    if (!right) return 0;
    if (found == TOO_MANY) Py_RETURN_NONE;
    if (found == SHORT_OF_MEMORY) return PyErr_NoMemory();
    PyObject *result = PyBytes_FromStringAndSize((const char *)runs, (Py_ssize_t)(found * 3 * 8));
    free(runs);
    return result;
}

PyDoc_STRVAR(convert_doc,
             "convert(template, taps, data, out, level=-1)\n--\n\n"
             "Converts one frame from memory. Returns 0, or VALUE where a number does not fit.\n\n"
             "Raises ValueError where data or out is too small for the template.");

static PyObject *py_convert(PyObject *module, PyObject *args) {
    (void)module;
    Py_buffer all[4], *templates = all, *taps = all + 1, *data = all + 2, *out = all + 3;
    int level = -1;
    if (!PyArg_ParseTuple(args, "y*y*y*w*|i:convert", templates, taps, data, out, &level)) return 0;
    int64_t result = -1;
    char *memory = 0;
    const Template *t = templates->buf;
    int64_t m = items(templates, sizeof(Template), "template"), n_taps = items(taps, sizeof(Tap), "taps");
    if (m < 0 || n_taps < 0 || !check_templates(t, m, taps->buf, n_taps)) goto end;
    if (m != 1 || t->flags & RLE || (uintptr_t)out->buf % (uintptr_t)WIDTHS[t->out_type] ||
        data->len < template_bytes(t) || out->len < template_out_bytes(t)) {
        PyErr_SetString(PyExc_ValueError, "convert takes one template, and data and out that are large enough for it");
        goto end;
    }
    if (level < 0 || level > best_level()) level = best_level();
    memory = malloc((size_t)BLOCK);
    if (memory) {
        Py_BEGIN_ALLOW_THREADS
        result = convert_memory(t, taps->buf, data->buf, memory, out->buf, level);
        Py_END_ALLOW_THREADS
    }
    if (!memory || result == NO_MEMORY) {
        PyErr_NoMemory();
        result = -1;
    }
end:
    free(memory);
    release(all, 4);
    return result < 0 ? 0 : PyLong_FromLongLong(result);
}

static PyMethodDef methods[] = {
#ifndef _WIN32
    {"read", py_read, METH_VARARGS, read_doc},
    {"read_memory", py_read_memory, METH_VARARGS, read_memory_doc},
    {"paint_planes", py_paint_planes, METH_VARARGS, paint_planes_doc},
#endif
    {"paint_runs", py_paint_runs, METH_VARARGS, paint_runs_doc},
    {"fill_polygons", py_fill_polygons, METH_VARARGS, fill_polygons_doc},
    {"convert", py_convert, METH_VARARGS, convert_doc},
    {0, 0, 0, 0},
};

static int add_constants(PyObject *module) {
    return PyModule_AddIntConstant(module, "ABI", KERNELS_ABI) ||
           PyModule_AddIntConstant(module, "MASKS_ABI", MASKS_ABI) ||
           PyModule_AddIntConstant(module, "PLANE_BYTES", sizeof(Plane)) ||
           PyModule_AddIntConstant(module, "JOB_BYTES", sizeof(Job)) ||
           PyModule_AddIntConstant(module, "TEMPLATE_BYTES", sizeof(Template)) ||
           PyModule_AddIntConstant(module, "TAP_BYTES", sizeof(Tap)) ||
           PyModule_AddIntConstant(module, "FLAGS", FLAGS) ||
           PyModule_AddIntConstant(module, "LEVELS", best_level() + 1) ||
           PyModule_AddStringConstant(module, "__version__", "0.1.0");
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, add_constants}, {0, 0}};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "dicomtorch_kernels",
    .m_doc = "Reads and converts batches of uncompressed frames, and paints masks; see dicomtorch, which uses it.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit_dicomtorch_kernels(void) { return PyModuleDef_Init(&definition); }
