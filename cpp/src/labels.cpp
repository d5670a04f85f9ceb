// From logits to labels and to the overlay, as lpsnet/inference/label_map.py and result.py do it.
#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>

#include "internal.hpp"
#include "kernels.h"

namespace lpsnet {
namespace {

constexpr int lanes = 8;  // classes are padded to a multiple of this, as in kernels.py
constexpr std::int64_t min_for_threads = std::int64_t{1} << 20;  // logits; with fewer, threads cost more than they save

// The largest difference between two classes at one position
float spread_of(const LogitsView &logits, Pool &pool) {
    const std::int64_t plane = static_cast<std::int64_t>(logits.height) * logits.width;
    const int bands = plane * logits.classes >= min_for_threads ? pool.size() : 1;
    std::mutex mutex;
    float largest = 0;
    bool is_finite = true;
    pool.in_bands(logits.height, bands, [&](std::int64_t begin, std::int64_t end) {
        std::vector<float> buffer(2 * static_cast<std::size_t>(logits.width));
        float spread = 0;
        const bool fits = lpsnet_spread(
            logits.data, logits.classes, logits.width, plane, logits.width, &spread, begin, end, buffer.data());
        const std::lock_guard lock(mutex);
        largest = std::max(largest, spread);
        is_finite &= fits;
    });
    if (!is_finite || !std::isfinite(largest))
        throw Error("logits hold NaN, infinity or differences beyond float32; labels need finite logits");
    return largest;
}

// For every class and channel, what each of the 256 numbers of an image becomes under its colour
class BlendedColours {
  public:
    BlendedColours(const Record &record, double opacity) : table_(3 * 256 * record.class_colours.size()) {
        const auto own = static_cast<float>(1 - opacity), above = static_cast<float>(opacity);
        std::uint8_t *to = table_.data();
        for (const Colour colour : record.class_colours)
            for (const std::uint8_t number : {colour.red, colour.green, colour.blue})
                for (int value = 0; value < 256; value++) {
                    // As OpenCV: the image's part is added with one rounding (exact here), and halves become even
                    const double exact = static_cast<double>(value) * own + static_cast<float>(number) * above;
                    *to++ = static_cast<std::uint8_t>(std::lrint(static_cast<float>(exact)));
                }
    }

    const std::uint8_t *of(int label) const { return table_.data() + 3 * 256 * label; }

  private:
    std::vector<std::uint8_t> table_;
};

}  // namespace

void label_map(
    const LogitsView &logits, Size size, bool align_corners, std::uint8_t *labels, Workspace &memory, Pool &pool) {
    const float spread = spread_of(logits, pool);
    if (spread == 0) {
        std::fill_n(
            labels, static_cast<std::size_t>(size.height) * static_cast<std::size_t>(size.width), std::uint8_t{0});
        return;
    }
    const Axis &rows = memory.axis(0, logits.height, size.height, align_corners);
    const Axis &columns = memory.axis(0, logits.width, size.width, align_corners);
    const std::int64_t padded = (logits.classes + lanes - 1) / lanes * lanes;
    pool.in_bands(std::max(logits.height - 1, 1), pool.size(), [&](std::int64_t begin, std::int64_t end) {
        std::vector<float> buffer(static_cast<std::size_t>(logits.width) * (3 * static_cast<std::size_t>(padded) + 2));
        std::vector<std::uint8_t> label_buffer(2 * static_cast<std::size_t>(size.width));
        lpsnet_labels(
            logits.data, logits.classes, logits.height, logits.width,
            static_cast<std::int64_t>(logits.height) * logits.width, logits.width, padded, spread, rows.starts.data(),
            rows.weight.data(), columns.starts.data(), columns.before.data(), columns.weight.data(), size.width, labels,
            begin, end, buffer.data(), label_buffer.data());
    });
}

Picture overlay(const Image &rgb, const std::uint8_t *labels, const Record &record, double opacity) {
    if (!(opacity >= 0 && opacity <= 1)) throw Error("opacity lies between 0 and 1; got " + std::to_string(opacity));
    Record plain;
    plain.channels = {"red", "green", "blue"};
    const Image image = check_image(rgb, plain);
    if (!labels) throw Error("an overlay takes a label map; got none");
    const std::size_t count = record.class_colours.size();
    const BlendedColours colours(record, opacity);
    Picture drawn{image.height, image.width, {}};
    drawn.pixels.resize(3 * static_cast<std::size_t>(image.height) * static_cast<std::size_t>(image.width));
    std::uint8_t *to = drawn.pixels.data();
    for (int y = 0; y < image.height; y++) {
        const std::uint8_t *from = static_cast<const std::uint8_t *>(image.data) + y * image.stride;
        for (int x = 0; x < image.width; x++, labels++, from += 3, to += 3) {
            if (*labels >= count && *labels != ignore_index)
                throw Error("the label map has the id " + std::to_string(*labels) + ", which is no class of the model");
            const std::uint8_t *const table = *labels == ignore_index ? nullptr : colours.of(*labels);
            for (int channel = 0; channel < 3; channel++)
                to[channel] = table ? table[256 * channel + from[channel]] : from[channel];
        }
    }
    return drawn;
}

}  // namespace lpsnet
