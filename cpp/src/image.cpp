// From an image to the inputs of a network, as lpsnet/inference/preprocess.py does it.
//
// An image of the network's own size goes through the loops of kernels.c, from bytes to all paths' inputs. Any other is
// normalised and resized channel by channel in float32, averaged first if it is halved or more.
#include <algorithm>
#include <climits>
#include <cstring>

#include "kernels.h"
#include "sampling.hpp"

namespace lpsnet {
namespace {

constexpr std::int64_t max_pixels = std::int64_t{1} << 30;

// Rows of one channel of an image, normalised: bytes by a table of the 256 values, 16 bits by a multiplication
class ChannelRows {
  public:
    ChannelRows(const Image &image, const Record &record, std::size_t channel)
        : from_(static_cast<const std::uint8_t *>(image.data)),
          stride_(image.stride),
          width_(image.width),
          step_(image.channels),
          bits_(image.bits) {
        const double mean = record.mean[channel], std = record.std[channel];
        from_ += channel * static_cast<std::size_t>(bits_ / 8);
        for (int value = 0; value < 256; value++) table_[value] = static_cast<float>((value / 255.0 - mean) / std);
        scale_ = static_cast<float>(1 / (65'535 * std));
        shift_ = static_cast<float>(mean / std);
    }

    const float *operator()(int row, float *to) const {
        const std::uint8_t *pixel = from_ + row * stride_;
        if (bits_ == 8) {
            for (int x = 0; x < width_; x++) to[x] = table_[pixel[x * step_]];
            return to;
        }
        for (int x = 0; x < width_; x++, pixel += 2 * step_) {
            std::uint16_t number;
            std::memcpy(&number, pixel, sizeof number);
            const float product = static_cast<float>(number) * scale_;
            to[x] = product - shift_;
        }
        return to;
    }

  private:
    const std::uint8_t *from_;
    std::ptrdiff_t stride_;
    int width_, step_, bits_;
    float table_[256], scale_, shift_;
};

std::size_t area(Size size) { return static_cast<std::size_t>(size.height) * static_cast<std::size_t>(size.width); }

RowSource rows_of(const float *plane, int width) {
    return [plane, width](int row, float *) { return plane + static_cast<std::ptrdiff_t>(row) * width; };
}

// Width of the average: odd, so that nothing shifts; 1 for less than halving
int window(int source, int target) { return source / target / 2 * 2 + 1; }

// Bilinear samples of a channel of one size into a plane of another
void sample(
    const RowSource &source, Size from, float *target, Size to, bool align_corners, Workspace &memory, Pool &pool) {
    const Axis &rows = memory.axis(2, from.height, to.height, align_corners);
    const Axis &columns = memory.axis(1, from.width, to.width, align_corners);
    pool.in_bands(to.height, pool.size(), [&](std::int64_t begin, std::int64_t end) {
        sample_rows(source, from.width, rows, columns, target, static_cast<int>(begin), static_cast<int>(end));
    });
}

// A channel of the image, normalised, at the network's input size
void resize_whole(
    const RowSource &source, Size from, float *whole, Size size, bool align_corners, Workspace &memory, Pool &pool) {
    if (from == size) {
        pool.in_bands(from.height, pool.size(), [&](std::int64_t begin, std::int64_t end) {
            for (auto y = static_cast<int>(begin); y < end; y++)
                source(y, whole + static_cast<std::ptrdiff_t>(y) * from.width);
        });
        return;
    }
    const int high = window(from.height, size.height), wide = window(from.width, size.width);
    if (high == 1 && wide == 1) {
        sample(source, from, whole, size, align_corners, memory, pool);
        return;
    }
    const Axis &rows = memory.axis(2, from.height, size.height, align_corners);
    const Axis &columns = memory.axis(1, from.width, size.width, align_corners);
    pool.in_bands(size.height, pool.size(), [&](std::int64_t begin, std::int64_t end) {
        Blur blur(source, from, high, wide);
        sample_rows(std::ref(blur), from.width, rows, columns, whole, static_cast<int>(begin), static_cast<int>(end));
    });
}

// Channels one after another become side by side, and bfloat16 if that is the layout
void merge(
    const float *planes, float *result, std::size_t channels, std::size_t count, Layout layout, Workspace &memory,
    Pool &pool) {
    float *const merged = layout == Layout::nhwc ? result : memory.array("merged", channels * count);
    pool.in_bands(static_cast<std::int64_t>(count), pool.size(), [&](std::int64_t begin, std::int64_t end) {
        for (auto pixel = static_cast<std::size_t>(begin); pixel < static_cast<std::size_t>(end); pixel++)
            for (std::size_t channel = 0; channel < channels; channel++)
                merged[pixel * channels + channel] = planes[channel * count + pixel];
        const auto first = begin * static_cast<std::int64_t>(channels),
                   last = end * static_cast<std::int64_t>(channels);
        if (layout == Layout::nhwc_bf16) lpsnet_round(merged, reinterpret_cast<std::uint16_t *>(result), first, last);
    });
}

void sample_bytes(
    const Image &image, const Record &record, const std::vector<Size> &sizes, const std::vector<float *> &targets,
    Layout layout, Workspace &memory, Pool &pool) {
    float scale[3], shift[3];
    for (std::size_t i = 0; i < 3; i++) {
        scale[i] = static_cast<float>(1 / (255 * record.std[i]));
        shift[i] = static_cast<float>(-record.mean[i] / record.std[i]);
    }
    std::vector<std::pair<const Axis *, const Axis *>> axes;
    int widest = 0;
    for (const Size size : sizes) {
        axes.emplace_back(
            &memory.axis(0, image.height, size.height, record.align_corners),
            &memory.axis(0, image.width, size.width, record.align_corners));
        widest = std::max(widest, size.width);
    }
    constexpr std::int64_t parts = 1 << 16;  // units that every target's height is divided into
    pool.in_bands(parts, pool.size(), [&](std::int64_t begin, std::int64_t end) {
        std::vector<float> buffer(3 * static_cast<std::size_t>(image.width) + 1 + 3 * static_cast<std::size_t>(widest));
        for (std::size_t path = 0; path < sizes.size(); path++) {
            const auto &[rows, columns] = axes[path];
            const std::int64_t height = sizes[path].height;
            lpsnet_sample_rows(
                static_cast<const std::uint8_t *>(image.data), image.stride, image.width, rows->before.data(),
                rows->next.data(), rows->weight.data(), columns->before.data(), columns->next.data(),
                columns->weight.data(), scale, shift, targets[path], static_cast<std::int64_t>(layout), height,
                sizes[path].width, height * begin / parts, height * end / parts, buffer.data());
        }
    });
}

}  // namespace

Size path_size(Size size, Ratio ratio) {
    const auto scaled = [&](std::int64_t length) {
        return static_cast<int>(std::max<std::int64_t>(1, length * ratio.numerator / ratio.denominator));
    };
    return {scaled(size.height), scaled(size.width)};
}

Image check_image(Image image, const Record &record) {
    const std::string got = std::to_string(image.height) + " x " + std::to_string(image.width) + " x " +
                            std::to_string(image.channels) + " of " + std::to_string(image.bits) + " bits";
    if (!image.data || image.height < 1 || image.width < 1)
        throw Error("an image has at least one pixel; got " + got + (image.data ? "" : " without data"));
    if (static_cast<std::int64_t>(image.height) * image.width > max_pixels)
        throw Error("an image has at most 2^30 pixels; got " + got + "; segment it in parts");
    if (image.channels != static_cast<int>(record.channels.size()) || image.bits != record.bits)
        throw Error(
            "the model takes " + std::to_string(record.channels.size()) + " channels of " +
            std::to_string(record.bits) + " bits; got " + got);
    const std::ptrdiff_t row = static_cast<std::ptrdiff_t>(image.width) * image.channels * (image.bits / 8);
    if (image.stride == 0) image.stride = row;
    if (image.stride < row)
        throw Error(
            "the stride of an image is at least its row of " + std::to_string(row) + " bytes; got " +
            std::to_string(image.stride));
    return image;
}

std::vector<const void *> prepare(
    const Image &image, const Record &record, Size size, const std::vector<Ratio> &ratios, Layout layout,
    Workspace &memory, Pool &pool) {
    const Size own{image.height, image.width};
    const std::size_t channels = record.channels.size();
    std::vector<Size> sizes;
    std::vector<float *> results;
    for (const Ratio ratio : ratios) {
        sizes.push_back(path_size(size, ratio));
        results.push_back(memory.array("path " + std::to_string(sizes.size()), channels * area(sizes.back())));
    }
    if (size == own && record.is_rgb()) {
        sample_bytes(image, record, sizes, results, layout, memory, pool);
        return {results.begin(), results.end()};
    }
    std::vector<float *> planes = results;
    if (layout != Layout::nchw)
        for (std::size_t path = 0; path < sizes.size(); path++)
            planes[path] = memory.array("planes " + std::to_string(path), channels * area(sizes[path]));
    const auto same = static_cast<std::size_t>(std::find(sizes.begin(), sizes.end(), size) - sizes.begin());
    for (std::size_t channel = 0; channel < channels; channel++) {
        const ChannelRows rows(image, record, channel);
        float *const whole =
            same < sizes.size() ? planes[same] + channel * area(size) : memory.array("whole", area(size));
        resize_whole(std::cref(rows), own, whole, size, record.align_corners, memory, pool);
        for (std::size_t path = 0; path < sizes.size(); path++)
            if (path != same)
                sample(
                    rows_of(whole, size.width), size, planes[path] + channel * area(sizes[path]), sizes[path],
                    record.align_corners, memory, pool);
    }
    for (std::size_t path = 0; path < sizes.size() && layout != Layout::nchw; path++)
        merge(planes[path], results[path], channels, area(sizes[path]), layout, memory, pool);
    return {results.begin(), results.end()};
}

}  // namespace lpsnet
