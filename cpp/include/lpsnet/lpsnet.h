/* Runs an lpsnet model file: an image in, the class of every pixel out. For C, and for languages that call C.

   No function throws or exits. Those that can fail return NULL or a number other than 0; `lpsnet_error` then has the
   reason, one line. A segmenter may be used from several threads at once. */
#ifndef LPSNET_H
#define LPSNET_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define LPSNET_C_API
#else
#define LPSNET_C_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lpsnet_segmenter lpsnet_segmenter;

/* H x W x C numbers of 8 or 16 bits, the channels of a pixel side by side, RGB unless the model takes other channels */
typedef struct {
    const void *data;
    int height, width; /* at least 1 x 1 */
    ptrdiff_t stride;  /* bytes from row to row; 0: no gap between rows */
    int channels, bits;
} lpsnet_image;

/* Zeros are the defaults */
typedef struct {
    const char *runtime;           /* "openvino" or "onnxruntime"; NULL: the first this library was built with */
    const char *precision;         /* "f32", also for int8 files, or "bf16" by OpenVINO; NULL: f32 */
    int num_threads;               /* 0: the engine's choice */
    int input_height, input_width; /* that the network runs at; 0: those of the record */
    int whole_input;               /* 1: the engine resizes the image for the network's paths, not this library */
} lpsnet_options;

/* Why the last call on this thread that failed did; valid until the next one that fails */
LPSNET_C_API const char *lpsnet_error(void);

/* Load a model file; `options` may be NULL. NULL if it cannot be used. */
LPSNET_C_API lpsnet_segmenter *lpsnet_open(const char *model, const lpsnet_options *options);
LPSNET_C_API void lpsnet_close(lpsnet_segmenter *segmenter); /* NULL is allowed */

/* The class of every pixel into height x width bytes. 0 if done. */
LPSNET_C_API int lpsnet_segment(const lpsnet_segmenter *segmenter, const lpsnet_image *image, uint8_t *labels);

/* The network's own output, classes x height x width; `shape` gets these three. `logits` has room for `capacity`
   floats; with 0 only the shape is asked for. 0 if done. */
LPSNET_C_API int lpsnet_logits(
    const lpsnet_segmenter *segmenter, const lpsnet_image *image, float *logits, size_t capacity, int shape[3]);

/* An RGB image of 8 bits under the colours of its classes, into height x width x 3 bytes. 0 if done. */
LPSNET_C_API int lpsnet_overlay(
    const lpsnet_segmenter *segmenter, const lpsnet_image *rgb, const uint8_t *labels, double opacity, uint8_t *pixels);

/* What the model says about itself. Texts live as long as the segmenter; numbers out of range give NULL or 0. */
LPSNET_C_API int lpsnet_num_classes(const lpsnet_segmenter *segmenter);
LPSNET_C_API const char *lpsnet_class_name(const lpsnet_segmenter *segmenter, int number);
LPSNET_C_API uint32_t lpsnet_class_colour(const lpsnet_segmenter *segmenter, int number); /* 0xRRGGBB */
LPSNET_C_API int lpsnet_num_channels(const lpsnet_segmenter *segmenter);
LPSNET_C_API const char *lpsnet_channel_name(const lpsnet_segmenter *segmenter, int number);
LPSNET_C_API int lpsnet_bits(const lpsnet_segmenter *segmenter);
LPSNET_C_API const char *lpsnet_licence(const lpsnet_segmenter *segmenter);
LPSNET_C_API const char *lpsnet_engine(const lpsnet_segmenter *segmenter);    /* engine and version */
LPSNET_C_API const char *lpsnet_precision(const lpsnet_segmenter *segmenter); /* really used: "f32", "bf16" or "int8" */
LPSNET_C_API int lpsnet_path_inputs(const lpsnet_segmenter *segmenter);       /* 1: images are resized here */

#ifdef __cplusplus
}
#endif

#endif
