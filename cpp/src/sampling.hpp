#pragma once

#include "internal.hpp"

namespace lpsnet {

// Gives a row of a channel, normalised: its own memory, or the caller's that is as wide as the row.
using RowSource = std::function<const float *(int row, float *scratch)>;

bool has_fma();  // whether OpenCV computes with one rounding where these loops do

// Rows `begin` to before `end` of a target whose pixels lie at those places of a source of `width` columns.
void sample_rows(
    const RowSource &source, int width, const Axis &rows, const Axis &columns, float *target, int begin, int end);

// A source of rows averaged over a window of odd height and width, mirrored at the borders. Rows are asked for from the
// top down, each once.
class Blur {
  public:
    Blur(RowSource source, Size size, int window_height, int window_width);
    const float *operator()(int row, float *scratch);

  private:
    double *sums_of(int row);

    RowSource source_;
    Size size_;
    int window_height_, window_width_, next_ = 0, first_ = 0;
    bool has_begun_ = false;
    std::vector<float> padded_;
    std::vector<double> ring_, sum_;  // sums of the last rows of the window; of all of them
};

}  // namespace lpsnet
