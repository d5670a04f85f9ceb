/* Training in bfloat16 on a processor: batch norm with its activation, and depthwise convolution, forwards and back.
   Maps are N x H x W x C in memory (channels last), their numbers the upper halves of floats; sums are of floats.
   Compiled as kernels.c is (build_kernels.py), and called by training_kernels.py; a call holds no lock of Python's. */

#include <stdint.h>
#include <string.h>

#include "../loops.h"

#define BLOCK 128 /* rows that are added up as floats, before they are added as doubles */
#define LANES 16 /* channels that a loop of the convolutions keeps sums of in registers */

typedef uint16_t bf16;

INLINE float wide(bf16 value)
{
    uint32_t bits = (uint32_t)value << 16;
    float number;
    memcpy(&number, &bits, sizeof number);
    return number;
}

/* To nearest, ties to even; what is not a number stays so */
INLINE bf16 narrow(float number)
{
    uint32_t bits;
    memcpy(&bits, &number, sizeof bits);
    bits += 0x7fff + (bits >> 16 & 1);
    return (bf16)(bits >> 16);
}

/* Sums of every channel, `sums`, and of its squares, C numbers later, of pixels begin to end; `buffer`: 2 C numbers */
EXPORT FOR_EVERY_CPU void lpsnet_norm_sums(
    const bf16 *maps, int64_t channels, int64_t begin, int64_t end, double *sums, float *buffer)
{
    for (int64_t first = begin; first < end; first += BLOCK) {
        int64_t last = first + BLOCK < end ? first + BLOCK : end;
        float *total = buffer, *squares = buffer + channels;
        memset(buffer, 0, 2 * channels * sizeof *buffer);
        for (int64_t pixel = first; pixel < last; pixel++)
            for (int64_t c = 0; c < channels; c++) {
                float x = wide(maps[pixel * channels + c]);
                total[c] += x;
                squares[c] += x * x;
            }
        for (int64_t i = 0; i < 2 * channels; i++)
            sums[i] += buffer[i];
    }
}

/* result = maps * scale + shift, not below `low` nor above `high` */
EXPORT FOR_EVERY_CPU void lpsnet_norm(
    const bf16 *maps, const float *scale, const float *shift, float low, float high, int64_t channels, int64_t begin,
    int64_t end, bf16 *result)
{
    for (int64_t pixel = begin; pixel < end; pixel++)
        for (int64_t c = 0; c < channels; c++) {
            float y = wide(maps[pixel * channels + c]) * scale[c] + shift[c];
            y = y < low ? low : y;
            result[pixel * channels + c] = narrow(y > high ? high : y);
        }
}

/* The gradient before the activation: none where the result lay at a bound */
INLINE float before(float x, bf16 gradient, float scale, float shift, float low, float high)
{
    float y = x * scale + shift;
    return y > low && y < high ? wide(gradient) : 0;
}

/* As `lpsnet_norm_sums`, of the gradient before the activation and of its product with the maps */
EXPORT FOR_EVERY_CPU void lpsnet_norm_gradient_sums(
    const bf16 *maps, const bf16 *gradient, const float *scale, const float *shift, float low, float high,
    int64_t channels, int64_t begin, int64_t end, double *sums, float *buffer)
{
    for (int64_t first = begin; first < end; first += BLOCK) {
        int64_t last = first + BLOCK < end ? first + BLOCK : end;
        float *total = buffer, *products = buffer + channels;
        memset(buffer, 0, 2 * channels * sizeof *buffer);
        for (int64_t pixel = first; pixel < last; pixel++)
            for (int64_t c = 0; c < channels; c++) {
                float x = wide(maps[pixel * channels + c]);
                float g = before(x, gradient[pixel * channels + c], scale[c], shift[c], low, high);
                total[c] += g;
                products[c] += g * x;
            }
        for (int64_t i = 0; i < 2 * channels; i++)
            sums[i] += buffer[i];
    }
}

/* result = scale * (gradient before the activation) - constant - slope * maps */
EXPORT FOR_EVERY_CPU void lpsnet_norm_gradient(
    const bf16 *maps, const bf16 *gradient, const float *scale, const float *shift, const float *constant,
    const float *slope, float low, float high, int64_t channels, int64_t begin, int64_t end, bf16 *result)
{
    for (int64_t pixel = begin; pixel < end; pixel++)
        for (int64_t c = 0; c < channels; c++) {
            float x = wide(maps[pixel * channels + c]);
            float g = before(x, gradient[pixel * channels + c], scale[c], shift[c], low, high);
            result[pixel * channels + c] = narrow(scale[c] * g - constant[c] - slope[c] * x);
        }
}

/* A depthwise convolution: sizes of input and result, the result's pixel (y, x) sees the input from (y * stride - top,
   x * stride - left) on; beyond the input there are zeros */
typedef struct {
    int64_t height, width, result_height, result_width, channels, kernel, stride, top, left;
} Shape;

/* From `first` on, and before `last` */
typedef struct {
    int64_t first, last;
} Range;

/* Of the kernel's rows or columns, those that see an input of that length, from place `from` on */
INLINE Range seen(int64_t from, int64_t length, int64_t kernel)
{
    Range taps = {from < 0 ? -from : 0, from + kernel > length ? length - from : kernel};
    return taps;
}

/* Of the result's rows or columns, those that see place `at` of the input */
INLINE Range seeing(int64_t at, int64_t result_length, int64_t kernel, int64_t stride)
{
    int64_t last = at / stride + 1; /* of the places p with at - kernel < p * stride <= at */
    Range places = {at < kernel ? 0 : (at - kernel) / stride + 1, last < result_length ? last : result_length};
    return places;
}

/* Channels c to c + lanes of one row of the result; weights: kernel x kernel x C floats */
INLINE void convolve_row(
    const bf16 *maps, const float *weights, const Shape s, int64_t row, int64_t c, const int lanes, const int kernel,
    bf16 *result)
{
    const bf16 *image = maps + row / s.result_height * s.height * s.width * s.channels + c;
    int64_t y = row % s.result_height * s.stride - s.top;
    const Range rows = seen(y, s.height, kernel);
    for (int64_t column = 0; column < s.result_width; column++) {
        float sums[LANES] = {0};
        int64_t x = column * s.stride - s.left;
        const Range columns = seen(x, s.width, kernel);
        for (int64_t i = rows.first; i < rows.last; i++)
            for (int64_t j = columns.first; j < columns.last; j++) {
                const bf16 *pixel = image + ((y + i) * s.width + x + j) * s.channels;
                const float *weight = weights + (i * kernel + j) * s.channels + c;
                for (int lane = 0; lane < lanes; lane++)
                    sums[lane] += weight[lane] * wide(pixel[lane]);
            }
        for (int lane = 0; lane < lanes; lane++)
            result[(row * s.result_width + column) * s.channels + c + lane] = narrow(sums[lane]);
    }
}

/* Channels c to c + lanes of one row of the gradient of the input */
INLINE void input_gradient_row(
    const bf16 *gradient, const float *weights, const Shape s, int64_t row, int64_t c, const int lanes,
    const int kernel, const int stride, bf16 *result)
{
    const bf16 *image = gradient + row / s.height * s.result_height * s.result_width * s.channels + c;
    int64_t y = row % s.height + s.top;
    const Range rows = seeing(y, s.result_height, kernel, stride);
    for (int64_t column = 0; column < s.width; column++) {
        float sums[LANES] = {0};
        int64_t x = column + s.left;
        const Range columns = seeing(x, s.result_width, kernel, stride);
        for (int64_t i = rows.first; i < rows.last; i++)
            for (int64_t j = columns.first; j < columns.last; j++) {
                const bf16 *pixel = image + (i * s.result_width + j) * s.channels;
                const float *weight = weights + ((y - i * stride) * kernel + x - j * stride) * s.channels + c;
                for (int lane = 0; lane < lanes; lane++)
                    sums[lane] += weight[lane] * wide(pixel[lane]);
            }
        for (int lane = 0; lane < lanes; lane++)
            result[(row * s.width + column) * s.channels + c + lane] = narrow(sums[lane]);
    }
}

/* Adds one row of the result's share of the gradient of the weights, kernel x kernel x C floats */
INLINE void weight_gradient_row(
    const bf16 *maps, const bf16 *gradient, const Shape s, int64_t row, int64_t c, const int lanes, const int kernel,
    float *result)
{
    float sums[25][LANES] = {{0}};
    const bf16 *image = maps + row / s.result_height * s.height * s.width * s.channels + c;
    int64_t y = row % s.result_height * s.stride - s.top;
    const Range rows = seen(y, s.height, kernel);
    for (int64_t column = 0; column < s.result_width; column++) {
        const bf16 *own = gradient + (row * s.result_width + column) * s.channels + c;
        int64_t x = column * s.stride - s.left;
        const Range columns = seen(x, s.width, kernel);
        float g[LANES];
        for (int lane = 0; lane < lanes; lane++)
            g[lane] = wide(own[lane]);
        if (rows.last - rows.first == kernel && columns.last - columns.first == kernel) {
            for (int i = 0; i < kernel; i++) /* the usual case, for which all sums stay in registers */
                for (int j = 0; j < kernel; j++)
                    for (int lane = 0; lane < lanes; lane++)
                        sums[i * kernel + j][lane] +=
                            g[lane] * wide(image[((y + i) * s.width + x + j) * s.channels + lane]);
            continue;
        }
        for (int64_t i = rows.first; i < rows.last; i++)
            for (int64_t j = columns.first; j < columns.last; j++)
                for (int lane = 0; lane < lanes; lane++)
                    sums[i * kernel + j][lane] +=
                        g[lane] * wide(image[((y + i) * s.width + x + j) * s.channels + lane]);
    }
    for (int tap = 0; tap < kernel * kernel; tap++)
        for (int lane = 0; lane < lanes; lane++)
            result[tap * s.channels + c + lane] += sums[tap][lane];
}

/* CALL for rows begin to end and all channels: LANES of them at a time, what is left one by one */
#define ALL_CHANNELS(CALL) \
    for (int64_t row = begin; row < end; row++) { \
        int64_t c = 0; \
        for (; c + LANES <= s.channels; c += LANES) { \
            const int lanes = LANES; \
            CALL; \
        } \
        for (; c < s.channels; c++) { \
            const int lanes = 1; \
            CALL; \
        } \
    }

/* The same, compiled for both sizes of kernels */
#define ALL_CHANNELS_OF_KERNEL(CALL) \
    if (s.kernel == 3) { \
        const int kernel = 3; \
        ALL_CHANNELS(CALL) \
    } else { \
        const int kernel = 5; \
        ALL_CHANNELS(CALL) \
    }

/* Rows begin to end of all results, N * result_height of them */
EXPORT FOR_EVERY_CPU void lpsnet_depthwise(
    const bf16 *maps, const float *weights, const Shape *shape, int64_t begin, int64_t end, bf16 *result)
{
    const Shape s = *shape;
    ALL_CHANNELS_OF_KERNEL(convolve_row(maps, weights, s, row, c, lanes, kernel, result))
}

/* Rows begin to end of all inputs, N * height of them */
EXPORT FOR_EVERY_CPU void lpsnet_depthwise_input_gradient(
    const bf16 *gradient, const float *weights, const Shape *shape, int64_t begin, int64_t end, bf16 *result)
{
    const Shape s = *shape;
    if (s.stride == 1) {
        ALL_CHANNELS_OF_KERNEL(input_gradient_row(gradient, weights, s, row, c, lanes, kernel, 1, result))
    } else {
        ALL_CHANNELS_OF_KERNEL(input_gradient_row(gradient, weights, s, row, c, lanes, kernel, 2, result))
    }
}

/* What rows begin to end of all results, N * result_height of them, add to the gradient of the weights */
EXPORT FOR_EVERY_CPU void lpsnet_depthwise_weight_gradient(
    const bf16 *maps, const bf16 *gradient, const Shape *shape, int64_t begin, int64_t end, float *result)
{
    const Shape s = *shape;
    ALL_CHANNELS_OF_KERNEL(weight_gradient_row(maps, gradient, s, row, c, lanes, kernel, result))
}
