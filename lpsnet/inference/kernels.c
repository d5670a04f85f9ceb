/* The loops over an image's pixels, in C: from bytes to the paths' inputs, and from logits to
   labels. Compiled when the package is installed, if there is a compiler, and called by kernels.py; without one the same
   is computed by OpenCV and NumPy (preprocess.py, label_map.py). No Python in here: a call holds no lock. */

#include <stdint.h>
#include <string.h>

#include "../loops.h"

#define MAX_PADDED 256
#define NEVER 2.0f /* past the end of any line */
#define BELOW_ALL -4.0f /* padding, among relative logits of -1 to 0 */
#define SLACK 1e-6f /* of the spread of the logits, which rounding may err by */

/* One place between two pixels of a row: its three channels, `distance` floats apart from `to` on */
static inline void sample_pixel(
    const float *left, const float *right, float part, const float *scale, const float *shift, float *to,
    int64_t distance)
{
    for (int channel = 0; channel < 3; channel++)
        to[channel * distance] = (left[channel] + part * (right[channel] - left[channel])) * scale[channel] + shift[channel];
}

#if defined(__GNUC__)
typedef float Four __attribute__((vector_size(16)));
typedef int32_t FourIndices __attribute__((vector_size(16)));
#if defined(__clang__)
#define PICK(a, b, w, x, y, z) __builtin_shufflevector(a, b, w, x, y, z)
#else
#define PICK(a, b, w, x, y, z) __builtin_shuffle(a, b, (FourIndices){w, x, y, z})
#endif

/* `sample_pixel`, with a fourth number that means nothing */
static inline Four sample_four(const float *left, const float *right, float part, Four factor, Four offset)
{
    Four first, second;
    memcpy(&first, left, sizeof first);
    memcpy(&second, right, sizeof second);
    return (first + part * (second - first)) * factor + offset;
}
#endif

/* A row in the layout NCHW, channels `distance` floats apart: four pixels at a time, whose channels lie side by side */
static inline void sample_nchw(
    const float *from, const int32_t *column, const int32_t *next_column, const float *part, const float *scale,
    const float *shift, float *to, int64_t distance, int64_t count)
{
    int64_t x = 0;
#if defined(__GNUC__)
    const Four factor = {scale[0], scale[1], scale[2], 0}, offset = {shift[0], shift[1], shift[2], 0};
    for (; x + 4 <= count; x += 4) {
        Four pixel[4];
        for (int i = 0; i < 4; i++)
            pixel[i] = sample_four(from + 3 * column[x + i], from + 3 * next_column[x + i], part[x + i], factor, offset);
        const Four rg01 = PICK(pixel[0], pixel[1], 0, 4, 1, 5), rg23 = PICK(pixel[2], pixel[3], 0, 4, 1, 5);
        const Four b01 = PICK(pixel[0], pixel[1], 2, 6, 3, 7), b23 = PICK(pixel[2], pixel[3], 2, 6, 3, 7);
        const Four channels[3] = {PICK(rg01, rg23, 0, 1, 4, 5), PICK(rg01, rg23, 2, 3, 6, 7), PICK(b01, b23, 0, 1, 4, 5)};
        for (int channel = 0; channel < 3; channel++) memcpy(to + channel * distance + x, channels + channel, sizeof(Four));
    }
#endif
    for (; x < count; x++)
        sample_pixel(from + 3 * column[x], from + 3 * next_column[x], part[x], scale, shift, to + x, distance);
}

/* A row with the three channels of a pixel side by side */
static inline void sample_pixels(
    const float *from, const int32_t *column, const int32_t *next_column, const float *part, const float *scale,
    const float *shift, float *to, int64_t count)
{
    int64_t x = 0;
#if defined(__GNUC__)
    const Four factor = {scale[0], scale[1], scale[2], 0}, offset = {shift[0], shift[1], shift[2], 0};
    for (; x + 1 < count; x++) { /* the fourth number is written over by the next pixel */
        const Four pixel = sample_four(from + 3 * column[x], from + 3 * next_column[x], part[x], factor, offset);
        memcpy(to + 3 * x, &pixel, sizeof pixel);
    }
#endif
    for (; x < count; x++)
        sample_pixel(from + 3 * column[x], from + 3 * next_column[x], part[x], scale, shift, to + 3 * x, 1);
}

/* Each number as the nearest bfloat16, that is, its upper half; of two that are equally near, the even one */
static inline void round_row(const float *restrict from, uint16_t *restrict to, int64_t count)
{
    for (int64_t x = 0; x < count; x++) {
        uint32_t bits;
        memcpy(&bits, from + x, sizeof bits);
        to[x] = (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
    }
}

/* The numbers of `from`, each as the nearest bfloat16; see round_row. */
EXPORT FOR_EVERY_CPU void lpsnet_round(const float *from, uint16_t *to, int64_t begin, int64_t end)
{
    round_row(from + begin, to + begin, end - begin);
}

enum { NCHW, NHWC, NHWC_BF16 };

/* Bilinear samples of an image, normalised.

   image: H x W x 3 bytes, rows `stride` bytes apart.
   row, next_row, row_part: for every target row, the two source rows around it, and how far it is from the first, 0 to 1.
   column, next_column, column_part: the same for target columns.
   scale, shift: of each channel: a sample is byte * scale + shift.
   target: by `layout`, 3 x num_rows x num_columns floats, or num_rows x num_columns x 3 floats or bfloat16; filled are the
   rows from `begin` to before `end`.
   buffer: 3 x width + 1 + 3 x num_columns floats of the caller's. */
EXPORT FOR_EVERY_CPU void lpsnet_sample_rows(
    const uint8_t *image, int64_t stride, int64_t width, const int32_t *row, const int32_t *next_row,
    const float *row_part, const int32_t *column, const int32_t *next_column, const float *column_part,
    const float *scale, const float *shift, void *target, int64_t layout, int64_t num_rows, int64_t num_columns,
    int64_t begin, int64_t end, float *buffer)
{
    float *const sampled = buffer + 3 * width + 1;
    for (int64_t y = begin; y < end; y++) {
        const uint8_t *restrict above = image + row[y] * stride, *restrict below = image + next_row[y] * stride;
        const float down = row_part[y];
        float *restrict between = buffer;
        for (int64_t i = 0; i < 3 * width; i++) {
            const float high = above[i];
            between[i] = high + down * ((float)below[i] - high);
        }
        if (layout == NCHW) {
            sample_nchw(buffer, column, next_column, column_part, scale, shift, (float *)target + y * num_columns,
                          num_rows * num_columns, num_columns);
        } else {
            float *const to = layout == NHWC ? (float *)target + 3 * y * num_columns : sampled;
            sample_pixels(buffer, column, next_column, column_part, scale, shift, to, num_columns);
            if (layout == NHWC_BF16) round_row(sampled, (uint16_t *)target + 3 * y * num_columns, 3 * num_columns);
        }
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

/* The labels along a straight line of logits, from `first` to `last`, at `count` places (`part`, rising, 0 to 1).

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

/* The largest difference between two classes at one place, in rows from `begin` to before `end`, into `spread`; returns
   whether all logits are finite. For logits and strides see lpsnet_labels.

   buffer: 2 x width floats of the caller's. */
EXPORT FOR_EVERY_CPU int64_t lpsnet_spread(
    const float *logits, int64_t num_classes, int64_t width, int64_t class_stride, int64_t row_stride, float *spread,
    int64_t begin, int64_t end, float *buffer)
{
    float *restrict highest = buffer, *restrict lowest = buffer + width, largest = 0;
    uint32_t exponents = 0; /* the largest there is; all bits of it are set in what is not finite */
    for (int64_t y = begin; y < end; y++) {
        for (int64_t k = 0; k < num_classes; k++) {
            const float *restrict from = logits + k * class_stride + y * row_stride;
            if (k == 0) {
                memcpy(highest, from, (size_t)width * sizeof *from);
                memcpy(lowest, from, (size_t)width * sizeof *from);
            }
            for (int64_t x = 0; x < width; x++) {
                uint32_t bits;
                memcpy(&bits, from + x, sizeof bits);
                bits &= 0x7f800000;
                exponents = bits > exponents ? bits : exponents;
                highest[x] = from[x] > highest[x] ? from[x] : highest[x];
                lowest[x] = from[x] < lowest[x] ? from[x] : lowest[x];
            }
        }
        for (int64_t x = 0; x < width; x++) {
            const float here = highest[x] - lowest[x];
            largest = here > largest ? here : largest;
        }
    }
    *spread = largest;
    return exponents != 0x7f800000;
}

/* A row of logits with its classes last, each less the largest of its place and over `spread`, padded to be lower than any;
   and the largest class of every place, of several the first */
static inline void relative_row(
    const float *logits, int64_t num_classes, int64_t padded, int64_t width, int64_t class_stride, float spread,
    float *restrict highest, float *restrict by_class, int32_t *restrict nodes, float *restrict relative)
{
    memcpy(highest, logits, (size_t)width * sizeof *logits);
    memset(nodes, 0, (size_t)width * sizeof *nodes);
    for (int32_t k = 1; k < num_classes; k++) {
        const float *restrict from = logits + k * class_stride;
        for (int64_t x = 0; x < width; x++) {
            nodes[x] = from[x] > highest[x] ? k : nodes[x];
            highest[x] = from[x] > highest[x] ? from[x] : highest[x];
        }
    }
    for (int64_t k = 0; k < num_classes; k++)
        for (int64_t x = 0; x < width; x++)
            by_class[k * width + x] = (logits[k * class_stride + x] - highest[x]) / spread;
    for (int64_t x = 0; x < width; x++) {
        float *restrict to = relative + x * padded;
        for (int64_t k = 0; k < num_classes; k++) to[k] = by_class[k * width + x];
        for (int64_t k = num_classes; k < padded; k++) to[k] = BELOW_ALL;
    }
}

/* Labels of one row of logits, at every output column */
static inline void label_row(
    const float *logits, const int32_t *nodes, int padded, int64_t num_cells, int64_t last_node, const int32_t *start,
    const float *part, uint8_t *labels)
{
    for (int64_t cell = 0; cell < num_cells; cell++) {
        const int64_t next = cell < last_node ? cell + 1 : last_node, from = start[cell], count = start[cell + 1] - from;
        if (nodes[cell] == nodes[next])
            memset(labels + from, nodes[cell], (size_t)count);
        else
            label_line(logits + cell * padded, logits + next * padded, padded, nodes[cell], nodes[next], part + from,
                       count, labels + from, 1);
    }
}

/* The class with the largest logit at every pixel, of logits resized bilinearly; see label_map.py.

   logits: num_classes x height x width, classes `class_stride` floats apart, rows `row_stride`, columns one; finite.
   padded: num_classes or a little more, of which a processor can handle several at a time; at most MAX_PADDED.
   spread: the largest difference between classes at one place, not 0.
   row_start, column_start: for every cell between two logits, the first pixel in it, and at the end the number of pixels.
   row_part, column_part: for every pixel, how far it is between the two logits of its cell, 0 to 1.
   column_cell: for every pixel, its cell.
   labels: row_start's last x num_columns; filled are the cells of rows from `begin` to before `end`.
   buffer: width x (3 x padded + 2) floats of the caller's.
   label_buffer: 2 x num_columns bytes of the caller's. */
EXPORT FOR_EVERY_CPU void lpsnet_labels(
    const float *logits, int64_t num_classes, int64_t height, int64_t width, int64_t class_stride, int64_t row_stride,
    int64_t padded, float spread, const int32_t *row_start, const float *row_part, const int32_t *column_start,
    const int32_t *column_cell, const float *column_part, int64_t num_columns, uint8_t *labels, int64_t begin,
    int64_t end, float *buffer, uint8_t *label_buffer)
{
    const int64_t num_cells = width > 1 ? width - 1 : 1;
    float first[MAX_PADDED], last[MAX_PADDED];
    float *above = buffer, *below = above + width * padded, *const by_class = below + width * padded;
    float *const highest = by_class + width * padded;
    int32_t *const nodes = (int32_t *)(highest + width);
    uint8_t *upper = label_buffer, *lower = label_buffer + num_columns;
    if (padded > MAX_PADDED) return;
    relative_row(logits + begin * row_stride, num_classes, padded, width, class_stride, spread, highest, by_class, nodes, above);
    label_row(above, nodes, (int)padded, num_cells, width - 1, column_start, column_part, upper);
    for (int64_t cell = begin; cell < end; cell++) {
        const int64_t next = cell + 1 < height ? cell + 1 : height - 1;
        const int64_t from = row_start[cell], count = row_start[cell + 1] - from;
        relative_row(logits + next * row_stride, num_classes, padded, width, class_stride, spread, highest, by_class, nodes, below);
        label_row(below, nodes, (int)padded, num_cells, width - 1, column_start, column_part, lower);
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
        uint8_t *const labels_above = upper;
        float *const logits_above = above;
        upper = lower, lower = labels_above;
        above = below, below = logits_above;
    }
}
