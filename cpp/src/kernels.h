/* The functions of lpsnet/inference/kernels.c, which is compiled as it is; what they take is described there. */
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

void lpsnet_sample_rows(
    const uint8_t *image, int64_t stride, int64_t width, const int32_t *row, const int32_t *next_row,
    const float *row_part, const int32_t *column, const int32_t *next_column, const float *column_part,
    const float *scale, const float *shift, void *target, int64_t layout, int64_t num_rows, int64_t num_columns,
    int64_t begin, int64_t end, float *buffer);

void lpsnet_round(const float *from, uint16_t *to, int64_t begin, int64_t end);

int64_t lpsnet_spread(
    const float *logits, int64_t num_classes, int64_t width, int64_t class_stride, int64_t row_stride, float *spread,
    int64_t begin, int64_t end, float *buffer);

void lpsnet_labels(
    const float *logits, int64_t num_classes, int64_t height, int64_t width, int64_t class_stride, int64_t row_stride,
    int64_t padded, float spread, const int32_t *row_start, const float *row_part, const int32_t *column_start,
    const int32_t *column_cell, const float *column_part, int64_t num_columns, uint8_t *labels, int64_t begin,
    int64_t end, float *buffer, uint8_t *label_buffer);

#ifdef __cplusplus
}
#endif
