// Resizing one channel of an image in float32, to the bits of OpenCV 5's warpAffine and blur on the same processor.
//
// Where the processor has AVX2, OpenCV computes a + w * (b - a) with one rounding (FMA), so these loops do; elsewhere
// with two. A source row is blended horizontally once and kept for the next target row, which mostly needs it again.
#include <algorithm>
#include <cmath>
#include <vector>

#include "sampling.hpp"

#if defined(__x86_64__) && defined(__GNUC__)
#define LPSNET_TWO_VERSIONS 1
#define WITH_FMA __attribute__((target("avx2,fma")))
#else
#define LPSNET_TWO_VERSIONS 0
#define WITH_FMA
#endif

namespace lpsnet {
namespace {

void columns_plain(
    const float *row, const std::int32_t *before, const std::int32_t *next, const float *weight, float *to, int count) {
    for (int x = 0; x < count; x++) {
        const float low = row[before[x]], product = weight[x] * (row[next[x]] - low);
        to[x] = low + product;
    }
}

WITH_FMA void columns_fma(
    const float *row, const std::int32_t *before, const std::int32_t *next, const float *weight, float *to, int count) {
    for (int x = 0; x < count; x++) {
        const float low = row[before[x]];
        to[x] = __builtin_fmaf(weight[x], row[next[x]] - low, low);
    }
}

void rows_plain(
    const float *__restrict upper, const float *__restrict lower, float weight, float *__restrict to, int count) {
    for (int x = 0; x < count; x++) {
        const float product = weight * (lower[x] - upper[x]);
        to[x] = upper[x] + product;
    }
}

WITH_FMA void rows_fma(
    const float *__restrict upper, const float *__restrict lower, float weight, float *__restrict to, int count) {
    for (int x = 0; x < count; x++) to[x] = __builtin_fmaf(weight, lower[x] - upper[x], upper[x]);
}

int reflected(int place, int length) {
    if (length == 1) return 0;
    while (place < 0 || place >= length) place = place < 0 ? -place : 2 * (length - 1) - place;
    return place;
}

// Twice the same code, for processors with and without AVX2. Sums of float32 in float64 are exact, in whatever order.
#define BLUR_LOOPS(TARGET, NAME)                                                                                    \
    TARGET void NAME##_three(const float *__restrict from, double *__restrict sums, int count) {                    \
        for (int x = 0; x < count; x++)                                                                             \
            sums[x] =                                                                                               \
                static_cast<double>(from[x]) + static_cast<double>(from[x + 1]) + static_cast<double>(from[x + 2]); \
    }                                                                                                               \
    TARGET void NAME##_add(const double *__restrict newest, double *__restrict sum, int count) {                    \
        for (int x = 0; x < count; x++) sum[x] += newest[x];                                                        \
    }                                                                                                               \
    TARGET void NAME##_step(                                                                                        \
        const double *__restrict newest, const double *__restrict oldest, double *__restrict sum,                   \
        float *__restrict to, double scale, int count) {                                                            \
        for (int x = 0; x < count; x++) {                                                                           \
            const double here = sum[x] + newest[x];                                                                 \
            to[x] = static_cast<float>(here * scale);                                                               \
            sum[x] = here - oldest[x];                                                                              \
        }                                                                                                           \
    }

BLUR_LOOPS(, plain)
BLUR_LOOPS(WITH_FMA, wide)

// Sums over `window` neighbours of every pixel
void row_sums(const float *padded, int width, int window, double *sums) {
    double sum = 0;
    for (int x = 0; x < window; x++) sum += padded[x];
    sums[0] = sum;
    for (int x = 1; x < width; x++) {
        sum += static_cast<double>(padded[x + window - 1]) - static_cast<double>(padded[x - 1]);
        sums[x] = sum;
    }
}

}  // namespace

bool has_fma() {
#if LPSNET_TWO_VERSIONS
    static const bool found = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    return found;
#elif defined(__aarch64__)
    return true;
#else
    return false;
#endif
}

void sample_rows(
    const RowSource &source, int width, const Axis &rows, const Axis &columns, float *target, int begin, int end) {
    const auto blend_columns = has_fma() ? columns_fma : columns_plain;
    const auto blend_rows = has_fma() ? rows_fma : rows_plain;
    const int count = static_cast<int>(columns.before.size());
    std::vector<float> scratch(static_cast<std::size_t>(width));
    std::vector<float> kept[2] = {std::vector<float>(columns.before.size()), std::vector<float>(columns.before.size())};
    int kept_row[2] = {-1, -1};
    // The blended source row, in a slot that the other row of this target row does not use
    const auto blended = [&](int row, int other) {
        int slot = kept_row[0] == row ? 0 : kept_row[1] == row ? 1 : -1;
        if (slot < 0) {
            slot = kept_row[0] == other ? 1 : 0;
            blend_columns(
                source(row, scratch.data()), columns.before.data(), columns.next.data(), columns.weight.data(),
                kept[slot].data(), count);
            kept_row[slot] = row;
        }
        return kept[slot].data();
    };
    for (int y = begin; y < end; y++) {
        const auto at = static_cast<std::size_t>(y);
        const int above = rows.before[at], below = rows.next[at];
        const float *const upper = blended(above, below);
        const float *const lower = blended(below, above);
        blend_rows(upper, lower, rows.weight[at], target + static_cast<std::ptrdiff_t>(y) * count, count);
    }
}

Blur::Blur(RowSource source, Size size, int window_height, int window_width)
    : source_(std::move(source)),
      size_(size),
      window_height_(window_height),
      window_width_(window_width),
      padded_(static_cast<std::size_t>(size.width + window_width - 1)),
      ring_(static_cast<std::size_t>(size.width) * static_cast<std::size_t>(window_height)),
      sum_(static_cast<std::size_t>(size.width), 0.0) {}

double *Blur::sums_of(int row) {
    const int place = (row % window_height_ + window_height_) % window_height_;  // a row may lie above the image
    return ring_.data() + static_cast<std::size_t>(size_.width) * static_cast<std::size_t>(place);
}

const float *Blur::operator()(int row, float *scratch) {
    const int radius = window_height_ / 2, margin = window_width_ / 2, width = size_.width;
    const auto sum_three = has_fma() ? wide_three : plain_three;
    const auto add = has_fma() ? wide_add : plain_add;
    const auto step = has_fma() ? wide_step : plain_step;
    const double scale = 1.0 / (static_cast<double>(window_height_) * window_width_);
    if (!has_begun_) next_ = row - radius, first_ = row, has_begun_ = true;
    for (; next_ <= row + radius; next_++) {
        float *const inner = padded_.data() + margin;
        const float *const given = source_(reflected(next_, size_.height), inner);
        if (given != inner) std::copy(given, given + width, inner);
        for (int x = 0; x < margin; x++) {
            padded_[static_cast<std::size_t>(x)] = inner[reflected(x - margin, width)];
            inner[width + x] = inner[reflected(width + x, width)];
        }
        double *const newest = sums_of(next_);
        if (window_width_ == 3)
            sum_three(padded_.data(), newest, width);
        else
            row_sums(padded_.data(), width, window_width_, newest);
        const int y = next_ - radius;  // the row that is now complete
        if (y < first_)
            add(newest, sum_.data(), width);
        else
            step(newest, sums_of(y - radius), sum_.data(), scratch, scale, width);
    }
    return scratch;
}

}  // namespace lpsnet
