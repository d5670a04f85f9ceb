// The C interface: exceptions end here and become texts.
#include <cstring>
#include <exception>
#include <new>

#include "internal.hpp"
#include "lpsnet/lpsnet.h"

struct lpsnet_segmenter {
    lpsnet::Segmenter segment;
    std::string engine, precision;
};

namespace {

constexpr std::size_t max_message = 512;
thread_local char message[max_message] = "";  // no allocation, which may be what failed

void keep(const char *text) noexcept {
    std::strncpy(message, text, max_message - 1);
    message[max_message - 1] = '\0';
    for (char *letter = message; *letter; letter++)
        if (static_cast<unsigned char>(*letter) < ' ') *letter = ' ';  // of a file's name, perhaps
}

// The result of `call`, or `failed` with the reason kept
template <class Result, class Call>
Result guarded(Result failed, Call call) noexcept {
    try {
        return call();
    } catch (const std::bad_alloc &) {
        keep("out of memory");
    } catch (const std::exception &error) {
        keep(error.what());
    } catch (...) {
        keep("an unknown error");
    }
    return failed;
}

lpsnet::Image image_of(const lpsnet_image *image) {
    if (!image) throw lpsnet::Error("an image is needed; got NULL");
    return {image->data, image->height, image->width, image->stride, image->channels, image->bits};
}

const lpsnet::Segmenter &use(const lpsnet_segmenter *segmenter) {
    if (!segmenter)
        throw lpsnet::Error("a segmenter is needed; got NULL: lpsnet_open failed, and lpsnet_error said why");
    return segmenter->segment;
}

template <class Items>
bool has(const Items &items, int number) {
    return number >= 0 && static_cast<std::size_t>(number) < items.size();
}

}  // namespace

extern "C" {

const char *lpsnet_error(void) { return message; }

lpsnet_segmenter *lpsnet_open(const char *model, const lpsnet_options *options) {
    return guarded<lpsnet_segmenter *>(nullptr, [&] {
        if (!model) throw lpsnet::Error("the path of a model file is needed; got NULL");
        lpsnet::Options how;
        if (options) {
            how.runtime = options->runtime ? options->runtime : "";
            how.precision = options->precision ? options->precision : "";
            how.num_threads = options->num_threads;
            how.input_size = {options->input_height, options->input_width};
            how.path_inputs = options->whole_input == 0;
        }
        lpsnet::Segmenter segment(model, how);
        std::string engine = segment.engine(), precision = segment.precision();
        return new lpsnet_segmenter{std::move(segment), std::move(engine), std::move(precision)};
    });
}

void lpsnet_close(lpsnet_segmenter *segmenter) { delete segmenter; }

int lpsnet_segment(const lpsnet_segmenter *segmenter, const lpsnet_image *image, uint8_t *labels) {
    return guarded(1, [&] {
        use(segmenter).segment(image_of(image), labels);
        return 0;
    });
}

int lpsnet_logits(
    const lpsnet_segmenter *segmenter, const lpsnet_image *image, float *logits, size_t capacity, int shape[3]) {
    return guarded(1, [&] {
        if (!shape) throw lpsnet::Error("the shape of the logits needs room for three numbers; got NULL");
        const lpsnet::Logits found = use(segmenter).logits(image_of(image));
        shape[0] = found.classes, shape[1] = found.height, shape[2] = found.width;
        if (capacity == 0) return 0;
        if (!logits || capacity < found.values.size())
            throw lpsnet::Error(
                "the logits are " + std::to_string(found.values.size()) + " floats; there is less room");
        std::memcpy(logits, found.values.data(), found.values.size() * sizeof(float));
        return 0;
    });
}

int lpsnet_overlay(
    const lpsnet_segmenter *segmenter, const lpsnet_image *rgb, const uint8_t *labels, double opacity,
    uint8_t *pixels) {
    return guarded(1, [&] {
        if (!pixels) throw lpsnet::Error("an overlay needs height x width x 3 bytes; got none");
        const lpsnet::Picture drawn = lpsnet::overlay(image_of(rgb), labels, use(segmenter).record(), opacity);
        std::memcpy(pixels, drawn.pixels.data(), drawn.pixels.size());
        return 0;
    });
}

int lpsnet_num_classes(const lpsnet_segmenter *segmenter) {
    return segmenter ? static_cast<int>(segmenter->segment.record().class_names.size()) : 0;
}

const char *lpsnet_class_name(const lpsnet_segmenter *segmenter, int number) {
    if (!segmenter || !has(segmenter->segment.record().class_names, number)) return nullptr;
    return segmenter->segment.record().class_names[static_cast<std::size_t>(number)].c_str();
}

uint32_t lpsnet_class_colour(const lpsnet_segmenter *segmenter, int number) {
    if (!segmenter || !has(segmenter->segment.record().class_colours, number)) return 0;
    const lpsnet::Colour colour = segmenter->segment.record().class_colours[static_cast<std::size_t>(number)];
    return static_cast<uint32_t>(colour.red) << 16 | static_cast<uint32_t>(colour.green) << 8 | colour.blue;
}

int lpsnet_num_channels(const lpsnet_segmenter *segmenter) {
    return segmenter ? static_cast<int>(segmenter->segment.record().channels.size()) : 0;
}

const char *lpsnet_channel_name(const lpsnet_segmenter *segmenter, int number) {
    if (!segmenter || !has(segmenter->segment.record().channels, number)) return nullptr;
    return segmenter->segment.record().channels[static_cast<std::size_t>(number)].c_str();
}

int lpsnet_bits(const lpsnet_segmenter *segmenter) { return segmenter ? segmenter->segment.record().bits : 0; }

const char *lpsnet_licence(const lpsnet_segmenter *segmenter) {
    return segmenter ? segmenter->segment.record().licence.c_str() : nullptr;
}

const char *lpsnet_engine(const lpsnet_segmenter *segmenter) { return segmenter ? segmenter->engine.c_str() : nullptr; }

const char *lpsnet_precision(const lpsnet_segmenter *segmenter) {
    return segmenter ? segmenter->precision.c_str() : nullptr;
}

int lpsnet_path_inputs(const lpsnet_segmenter *segmenter) {
    return segmenter && segmenter->segment.path_inputs() ? 1 : 0;
}

}  // extern "C"
