// Where the pixels of a resized image lie in the image, along one axis.
//
// Compiled without contraction of a * b + c into one rounding: the bits must be those of NumPy, which rounds twice, and
// of OpenCV, which rounds once where `std::fma` stands.
#include <algorithm>
#include <cmath>

#include "sampling.hpp"

namespace lpsnet {
namespace {

// Distance between target pixels and the position of the first, both in source pixels
std::pair<double, double> spacing(int source, int target, bool align_corners) {
    if (align_corners) return {target > 1 ? static_cast<double>(source - 1) / (target - 1) : 0.0, 0.0};
    const double step = static_cast<double>(source) / target;
    return {step, step / 2 - 0.5};
}

}  // namespace

Axis exact_axis(int source, int target, bool align_corners) {
    const auto [step, first] = spacing(source, target, align_corners);
    Axis axis;
    const auto count = static_cast<std::size_t>(target);
    axis.before.resize(count), axis.next.resize(count), axis.weight.resize(count);
    for (int pixel = 0; pixel < target; pixel++) {
        const double product = step * pixel;
        const double place = std::clamp(first + product, 0.0, static_cast<double>(source - 1));
        const int lower = std::min(static_cast<int>(place), std::max(source - 2, 0));
        const auto at = static_cast<std::size_t>(pixel);
        axis.before[at] = lower;
        axis.next[at] = std::min(lower + 1, source - 1);
        axis.weight[at] = static_cast<float>(place - lower);
    }
    const int num_cells = std::max(1, source - 1);
    for (int cell = 0; cell < num_cells; cell++)
        axis.starts.push_back(
            static_cast<std::int32_t>(
                std::lower_bound(axis.before.begin(), axis.before.end(), cell) - axis.before.begin()));
    axis.starts.push_back(target);
    return axis;
}

// OpenCV 5 computes places in float32: columns by one rounding while whole vectors of them are left, else, and rows, by
// two.
Axis warp_axis(int source, int target, bool align_corners, bool is_horizontal) {
    const auto [wide_step, wide_first] = spacing(source, target, align_corners);
    const auto step = static_cast<float>(wide_step), first = static_cast<float>(wide_first);
    const int unrolled = has_fma() ? 16 : 8;  // columns at a time with AVX2, and with 128 bits
    const int in_vectors = is_horizontal && has_fma() ? target / unrolled * unrolled : 0;
    Axis axis;
    const auto count = static_cast<std::size_t>(target);
    axis.before.resize(count), axis.next.resize(count), axis.weight.resize(count);
    for (int pixel = 0; pixel < target; pixel++) {
        const float product = step * static_cast<float>(pixel);
        const float place = pixel < in_vectors ? std::fma(step, static_cast<float>(pixel), first) : product + first;
        const int lower = static_cast<int>(std::floor(place));
        const auto at = static_cast<std::size_t>(pixel);
        axis.before[at] = std::clamp(lower, 0, source - 1);
        axis.next[at] = std::clamp(lower + 1, 0, source - 1);
        axis.weight[at] = place - static_cast<float>(lower);
    }
    return axis;
}

float *Workspace::array(const std::string &name, std::size_t size) {
    std::vector<float> &found = arrays[name];
    if (found.size() < size) found.resize(size);
    return found.data();
}

void Workspace::trim() {
    if (axes.size() > 64) axes.clear();
}

const Axis &Workspace::axis(int kind, int source, int target, bool align_corners) {
    const auto [place, is_new] = axes.try_emplace({kind, source, target});
    if (is_new)
        place->second =
            kind == 0 ? exact_axis(source, target, align_corners) : warp_axis(source, target, align_corners, kind == 1);
    return place->second;
}

}  // namespace lpsnet
