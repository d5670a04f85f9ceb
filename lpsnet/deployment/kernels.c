/* The two loops that a picture waits for on its way through, in C: from bytes to a path's input, and from scores to
   labels. Compiled when the package is installed, if there is a compiler, and called by kernels.py; without one the same
   is computed by OpenCV and NumPy (preparation.py, label_map.py). No Python in here: a call holds no lock. */

#include <stdint.h>
#include <string.h>

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

/* Several versions of a function, of which the processor's best is taken when the library is loaded */
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__GLIBC__)
#define FOR_EVERY_CPU __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FOR_EVERY_CPU
#endif

#define MAX_CLASSES 255

#define MAX_PADDED 256
#define NEVER 2.0f /* past the end of any line */
#define SLACK 1e-6f /* of the spread of the scores, which rounding may err by */

/* One pixel, or one place: three channels and a fourth number that means nothing */
static inline void sample_pixel(
    const float *from, const int32_t *column, const int32_t *next_column, const float *part, const float *scale,
    const float *shift, float *red, float *green, float *blue, int64_t x)
{
    float *const to[3] = {red + x, green + x, blue + x};
    for (int channel = 0; channel < 3; channel++) {
        const float left = from[3 * column[x] + channel];
        *to[channel] = (left + part[x] * (from[3 * next_column[x] + channel] - left)) * scale[channel] + shift[channel];
    }
}

#if defined(__GNUC__)
typedef float Four __attribute__((vector_size(16)));
typedef int32_t FourIndices __attribute__((vector_size(16)));
#if defined(__clang__)
#define PICK(a, b, w, x, y, z) __builtin_shufflevector(a, b, w, x, y, z)
#else
#define PICK(a, b, w, x, y, z) __builtin_shuffle(a, b, (FourIndices){w, x, y, z})
#endif

static inline Four load(const float *from)
{
    Four four;
    memcpy(&four, from, sizeof four);
    return four;
}

/* A whole row: four pixels at a time, each with its channels side by side, which are then brought into planes */
static inline void sample_row(
    const float *from, const int32_t *column, const int32_t *next_column, const float *part, const float *scale,
    const float *shift, float *red, float *green, float *blue, int64_t count)
{
    const Four factor = {scale[0], scale[1], scale[2], 0}, offset = {shift[0], shift[1], shift[2], 0};
    int64_t x = 0;
    for (; x + 4 <= count; x += 4) {
        Four pixel[4];
        for (int i = 0; i < 4; i++) {
            const Four left = load(from + 3 * column[x + i]), right = load(from + 3 * next_column[x + i]);
            pixel[i] = (left + part[x + i] * (right - left)) * factor + offset;
        }
        const Four rg01 = PICK(pixel[0], pixel[1], 0, 4, 1, 5), rg23 = PICK(pixel[2], pixel[3], 0, 4, 1, 5);
        const Four b01 = PICK(pixel[0], pixel[1], 2, 6, 3, 7), b23 = PICK(pixel[2], pixel[3], 2, 6, 3, 7);
        const Four reds = PICK(rg01, rg23, 0, 1, 4, 5), greens = PICK(rg01, rg23, 2, 3, 6, 7);
        const Four blues = PICK(b01, b23, 0, 1, 4, 5);
        memcpy(red + x, &reds, sizeof reds);
        memcpy(green + x, &greens, sizeof greens);
        memcpy(blue + x, &blues, sizeof blues);
    }
    for (; x < count; x++) sample_pixel(from, column, next_column, part, scale, shift, red, green, blue, x);
}
#else
static inline void sample_row(
    const float *from, const int32_t *column, const int32_t *next_column, const float *part, const float *scale,
    const float *shift, float *red, float *green, float *blue, int64_t count)
{
    for (int64_t x = 0; x < count; x++) sample_pixel(from, column, next_column, part, scale, shift, red, green, blue, x);
}
#endif

/* Bilinear samples of a picture, normalised, a plane for each channel.

   picture: H x W x 3 bytes, rows `stride` bytes apart.
   row, next_row, row_part: for every target row, the two source rows around it, and how far it is from the first, 0 to 1.
   column, next_column, column_part: the same for target columns.
   scale, shift: of each channel: a sample is byte * scale + shift.
   target: 3 x num_rows x num_columns; filled are the rows from `begin` to before `end`.
   buffer: 3 x width + 1 floats of the caller's. */
EXPORT FOR_EVERY_CPU void lpsnet_sample(
    const uint8_t *picture, int64_t stride, int64_t width, const int32_t *row, const int32_t *next_row,
    const float *row_part, const int32_t *column, const int32_t *next_column, const float *column_part,
    const float *scale, const float *shift, float *target, int64_t num_rows, int64_t num_columns, int64_t begin,
    int64_t end, float *buffer)
{
    for (int64_t y = begin; y < end; y++) {
        const uint8_t *restrict above = picture + row[y] * stride, *restrict below = picture + next_row[y] * stride;
        const float down = row_part[y];
        float *restrict between = buffer;
        for (int64_t i = 0; i < 3 * width; i++) {
            const float high = above[i];
            between[i] = high + down * ((float)below[i] - high);
        }
        float *restrict red = target + y * num_columns;
        sample_row(buffer, column, next_column, column_part, scale, shift, red, red + num_rows * num_columns,
                   red + 2 * num_rows * num_columns, num_columns);
    }
}

/* Of the lines from `first` to `last`, the one that is the first to overtake that of `label`; `place`: where, 0 to 1 */
static inline int overtaker(const float *restrict first, const float *restrict last, int padded, int label, float *place)
{
    const float high_first = first[label], high_last = last[label];
    float places[MAX_PADDED], least = NEVER;
    for (int k = 0; k < padded; k++) {
        const float lead = high_first - first[k], gain = last[k] - high_last;
        /* a lead below 0 is rounding's: that class overtakes at once */
        places[k] = gain > 0 ? (lead > 0 ? lead / (lead + gain) : 0.0f) : NEVER;
    }
    for (int k = 0; k < padded; k++) least = places[k] < least ? places[k] : least;
    int next = label;
    for (int k = 0; k < padded; k++)
        if (places[k] == least && last[k] > last[next]) next = k;
    *place = least;
    return next;
}

/* The labels along a straight line of scores, from `first` to `last`, at `count` places (`part`, rising, 0 to 1).

   `label` and `end` are the largest classes at its two ends. The largest of straight lines is convex: a class that is
   largest at two places is so between them, and one that overtakes ends higher than the one before. Mostly `end` overtakes
   `label` and no third class is above the two where they cross; else the next is found by looking at all. */
static inline void label_line(
    const float *restrict first, const float *restrict last, int padded, int label, int end, const float *part,
    int64_t count, uint8_t *labels, int64_t step)
{
    int64_t pixel = 0;
    while (label != end && pixel < count) {
        const float lead = first[label] - first[end], gain = last[end] - last[label];
        float place = lead > 0 ? lead / (lead + (gain > 0 ? gain : 0.0f)) : 0.0f;
        const float height = first[label] + place * (last[label] - first[label]);
        float highest = height;
        for (int k = 0; k < padded; k++) {
            const float value = first[k] + place * (last[k] - first[k]);
            highest = value > highest ? value : highest;
        }
        const int next = highest > height + SLACK ? overtaker(first, last, padded, label, &place) : end;
        for (; pixel < count && part[pixel] < place; pixel++) labels[pixel * step] = (uint8_t)label;
        if (next == label) break;
        label = next;
    }
    for (; pixel < count; pixel++) labels[pixel * step] = (uint8_t)label;
}

/* Labels of one row of scores, at every output column */
static inline void label_row(
    const float *scores, const uint8_t *nodes, int padded, int64_t num_cells, int64_t last_node, const int32_t *start,
    const float *part, uint8_t *labels)
{
    for (int64_t cell = 0; cell < num_cells; cell++) {
        const int64_t next = cell < last_node ? cell + 1 : last_node, from = start[cell], count = start[cell + 1] - from;
        if (nodes[cell] == nodes[next])
            memset(labels + from, nodes[cell], (size_t)count);
        else
            label_line(scores + cell * padded, scores + next * padded, padded, nodes[cell], nodes[next], part + from,
                       count, labels + from, 1);
    }
}

/* The class with the largest score at every pixel, of scores resized bilinearly; see label_map.py.

   scores: h x w x padded, classes last; those that only fill up are lower than any other.
   nodes: h x w, the class with the largest score.
   row_start, column_start: for every cell between two scores, the first pixel in it, and at the end the number of pixels.
   row_part, column_part: for every pixel, how far it is between the two scores of its cell, 0 to 1.
   column_cell: for every pixel, its cell.
   labels: row_start's last x column_start's last; filled are the cells of rows from `begin` to before `end`.
   buffer: twice as many bytes as there are columns, of the caller's. */
EXPORT FOR_EVERY_CPU void lpsnet_label_map(
    const float *scores, const uint8_t *nodes, int64_t height, int64_t width, int64_t padded, const int32_t *row_start,
    const float *row_part, const int32_t *column_start, const int32_t *column_cell, const float *column_part,
    int64_t num_columns, uint8_t *labels, int64_t begin, int64_t end, uint8_t *buffer)
{
    const int64_t num_cells = width > 1 ? width - 1 : 1, row_scores = width * padded;
    float first[MAX_PADDED], last[MAX_PADDED];
    uint8_t *upper = buffer, *lower = buffer + num_columns;
    if (padded > MAX_PADDED) return;
    label_row(scores + begin * row_scores, nodes + begin * width, (int)padded, num_cells, width - 1, column_start,
              column_part, upper);
    for (int64_t cell = begin; cell < end; cell++) {
        const int64_t next = cell + 1 < height ? cell + 1 : height - 1;
        const int64_t from = row_start[cell], count = row_start[cell + 1] - from;
        const float *above = scores + cell * row_scores, *below = scores + next * row_scores;
        label_row(below, nodes + next * width, (int)padded, num_cells, width - 1, column_start, column_part, lower);
        for (int64_t y = 0; y < count; y++) memcpy(labels + (from + y) * num_columns, upper, (size_t)num_columns);
        for (int64_t x = 0; x < num_columns && count; x++) {
            if (upper[x] == lower[x]) continue;
            const int64_t left = column_cell[x], right = left < width - 1 ? left + 1 : left;
            const float part = column_part[x];
            const float *a = above + left * padded, *b = above + right * padded;
            const float *c = below + left * padded, *d = below + right * padded;
            for (int k = 0; k < padded; k++) {
                first[k] = a[k] + part * (b[k] - a[k]);
                last[k] = c[k] + part * (d[k] - c[k]);
            }
            label_line(first, last, (int)padded, upper[x], lower[x], row_part + from, count,
                       labels + from * num_columns + x, num_columns);
        }
        uint8_t *same = upper;
        upper = lower;
        lower = same;
    }
}
