#pragma once

#include "internal.hpp"

namespace lpsnet {

// Sizes of the tensors `names` that an ONNX model computes from one black image of 1 x C x H x W
using Measure = std::function<std::vector<Size>(const std::string &model, const std::vector<std::string> &names)>;

// The part of an ONNX model after the resizing of its image, with an input for every path, byte for byte that of
// lpsnet/inference/onnx_graph.py. nullopt if the model is not of that kind or for another size; Error if it is damaged.
std::optional<std::string> split_at_paths(
    std::string_view model, const std::vector<Ratio> &ratios, Size size, const Measure &measure);

// Whether a model computes with whole numbers: some node quantises
bool is_quantised(std::string_view model);

}  // namespace lpsnet
