// Intel's OpenVINO, with the settings and the surgery of lpsnet/inference/engines/openvino.py: the same library then
// chooses the same kernels, and gives the same bits.
#include <algorithm>
#include <cctype>
#include <exception>

#include <openvino/op/constant.hpp>
#include <openvino/op/convert.hpp>
#include <openvino/op/parameter.hpp>
#include <openvino/op/transpose.hpp>
#include <openvino/openvino.hpp>

#include "internal.hpp"

namespace lpsnet {
namespace {

using Model = std::shared_ptr<ov::Model>;

ov::PartialShape nchw(ov::Dimension channels, Size size) {
    const auto length = [](int pixels) { return pixels ? ov::Dimension(pixels) : ov::Dimension::dynamic(); };
    return {ov::Dimension(1), channels, length(size.height), length(size.width)};
}

ov::element::Type number_type(Layout layout) {
    return layout == Layout::nhwc_bf16 ? ov::element::bf16 : ov::element::f32;
}

// The arithmetic of most convolutions, as OpenVINO reports it; of most operations if there are none. It is the end of
// the kernel's name, e.g. brgconv_avx512_bf16
std::string used_precision(const ov::CompiledModel &compiled) {
    std::map<std::string, int> used[2];  // of other operations, of convolutions
    for (const auto &operation : compiled.get_runtime_model()->get_ordered_ops()) {
        const auto &facts = operation->get_rt_info();
        const auto kind = facts.at("layerType").as<std::string>(), kernel = facts.at("primitiveType").as<std::string>();
        if (kind == "Const" || kind == "Input" || kind == "Output") continue;
        std::string end = kernel.substr(kernel.rfind('_') + 1);
        std::transform(end.begin(), end.end(), end.begin(), [](unsigned char letter) { return std::tolower(letter); });
        used[kind.find("Convolution") != std::string::npos][end == "i8" || end == "u8" ? "int8" : end]++;
    }
    const auto &counts = used[used[1].empty() ? 0 : 1];
    const auto most = std::max_element(
        counts.begin(), counts.end(), [](const auto &a, const auto &b) { return a.second < b.second; });
    return most == counts.end() ? "f32" : most->first;
}

// Outputs of the operations that resize the model's input
ov::OutputVector resized_images(const Model &model) {
    ov::OutputVector found;
    for (const auto &target : model->input(0).get_target_inputs())
        if (std::string(target.get_node()->get_type_name()) == "Interpolate")
            found.push_back(target.get_node()->shared_from_this()->output(0));
    // The set that they come from is in the order of addresses, another one in every run
    std::sort(found.begin(), found.end(), [](const auto &a, const auto &b) {
        return a.get_node()->get_friendly_name() < b.get_node()->get_friendly_name();
    });
    return found;
}

// The model with an input N x h x w x 3 (or N x C x h x w) for every path in place of the image; null if it is not of
// that kind. OpenVINO computes in NHWC, so such inputs need no reordering.
Model split_at_paths(const Model &model, const EngineOptions &options, Layout layout) {
    const ov::PartialShape whole = model->input(0).get_partial_shape();
    if (model->inputs().size() != 1 || whole.size() != 4) return nullptr;
    const auto own = [&](std::size_t axis, int asked, int tried) {
        return whole[axis].is_static() ? static_cast<int>(whole[axis].get_length()) : asked ? asked : tried;
    };
    const Size tried{own(2, options.size.height, tried_size.height), own(3, options.size.width, tried_size.width)};
    if (options.size != Size{} && tried != options.size) return nullptr;
    const bool is_fixed = options.size != Size{} || (whole[2].is_static() && whole[3].is_static());
    const auto channels = whole[1].is_static() ? whole[1] : ov::Dimension(3);

    const Model probe = model->clone();
    probe->reshape(nchw(channels, tried));
    std::vector<Size> sizes;
    for (const auto &output : resized_images(probe)) {
        const ov::PartialShape shape = output.get_partial_shape();
        if (shape.is_dynamic() || shape.size() != 4) return nullptr;
        sizes.push_back({static_cast<int>(shape[2].get_length()), static_cast<int>(shape[3].get_length())});
    }
    const auto chosen = choose_paths(sizes, options.record->ratios, tried);
    if (!chosen) return nullptr;

    const ov::OutputVector ports = resized_images(model);
    ov::ParameterVector parameters;
    for (std::size_t path = 0; path < chosen->size(); path++) {
        const int index = (*chosen)[path];
        const Size size = is_fixed ? path_size(tried, options.record->ratios[path]) : Size{};
        ov::PartialShape shape = nchw(channels, size);
        if (layout != Layout::nchw) shape = {shape[0], shape[2], shape[3], shape[1]};
        const auto parameter = std::make_shared<ov::op::v0::Parameter>(number_type(layout), shape);
        ov::Output<ov::Node> image = parameter->output(0);
        if (layout != Layout::nchw) {
            const auto order = ov::op::v0::Constant::create(ov::element::i64, {4}, {0, 3, 1, 2});
            image = std::make_shared<ov::op::v0::Convert>(
                std::make_shared<ov::op::v1::Transpose>(parameter, order), ov::element::f32);
        }
        const ov::Output<ov::Node> replaced =
            index < 0 ? ov::Output<ov::Node>(model->input(0)) : ports[static_cast<std::size_t>(index)];
        for (auto target : replaced.get_target_inputs()) target.replace_source_output(image);
        parameters.push_back(parameter);
    }
    const auto split = std::make_shared<ov::Model>(model->get_results(), parameters);
    const ov::NodeVector left = split->get_ordered_ops();
    for (const auto &parameter : parameters) {
        const auto targets = parameter->output(0).get_target_inputs();
        const bool is_used = std::any_of(targets.begin(), targets.end(), [&](const auto &target) {
            return std::any_of(
                left.begin(), left.end(), [&](const auto &node) { return node.get() == target.get_node(); });
        });
        if (!is_used) return nullptr;
    }
    return split;
}

class OpenVinoRequest : public Request {
  public:
    OpenVinoRequest(ov::CompiledModel &compiled, const EngineOptions &options, Layout layout)
        : request_(compiled.create_infer_request()),
          path_(options.path),
          layout_(layout),
          channels_(options.record->channels.size()),
          classes_(options.record->class_names.size()) {
        for (const auto &port : compiled.inputs()) shapes_.push_back(port.get_partial_shape());
    }

    LogitsView run(const std::vector<const void *> &inputs, const std::vector<Size> &sizes) override try {
        if (inputs.size() != shapes_.size())
            throw Error(path_ + " takes " + std::to_string(shapes_.size()) + " inputs; a network here takes one image");
        for (std::size_t i = 0; i < inputs.size(); i++) {
            const auto height = static_cast<std::size_t>(sizes[i].height),
                       width = static_cast<std::size_t>(sizes[i].width);
            const ov::Shape shape = layout_ == Layout::nchw ? ov::Shape{1, channels_, height, width}
                                                            : ov::Shape{1, height, width, channels_};
            if (!shapes_[i].compatible(ov::PartialShape(shape))) {
                const std::string wanted = shapes_[i].to_string(), got = ov::PartialShape(shape).to_string();
                throw Error(
                    path_ + " takes " + wanted + ", its record and the image make " + got + "; export it again");
            }
            // The tensor only reads this memory
            request_.set_input_tensor(i, ov::Tensor(number_type(layout_), shape, const_cast<void *>(inputs[i])));
        }
        request_.infer();
        const ov::Tensor logits = request_.get_output_tensor(0);
        const ov::Shape shape = logits.get_shape();
        if (logits.get_element_type() != ov::element::f32 || shape.size() != 4 || shape[0] != 1 ||
            shape[1] != classes_ || shape[2] == 0 || shape[3] == 0 || !logits.is_continuous())
            throw Error(
                path_ + " gives logits of " + logits.get_element_type().to_string() + " " +
                ov::PartialShape(shape).to_string() + ", but its record names " + std::to_string(classes_) +
                " classes; export it again");
        return {
            static_cast<const float *>(logits.data()), static_cast<int>(shape[1]), static_cast<int>(shape[2]),
            static_cast<int>(shape[3])};
    } catch (const Error &) {
        throw;
    } catch (const std::exception &error) {
        throw Error("OpenVINO cannot run " + path_ + ": " + one_line(error.what()));
    }

  private:
    ov::InferRequest request_;
    std::string path_;
    Layout layout_;
    std::size_t channels_, classes_;
    std::vector<ov::PartialShape> shapes_;
};

class OpenVino : public Engine {
  public:
    explicit OpenVino(const EngineOptions &options) : options_(options) {
        const bool is_bf16 = options.precision == "bf16";
        layout = !options.record->is_rgb() ? Layout::nchw : is_bf16 ? Layout::nhwc_bf16 : Layout::nhwc;
        Model model = core_.read_model(options.path);
        if (model->inputs().size() != 1 || model->input(0).get_element_type() != ov::element::f32)
            throw Error(options.path + " takes other inputs than one image of floats");
        if (options.path_inputs && !options.record->ratios.empty()) {
            Model split = split_at_paths(model, options, layout);
            path_inputs = split != nullptr;
            if (!split) model = core_.read_model(options.path);  // the other one may be half changed
            if (split) model = split;
        }
        if (!path_inputs) {
            layout = Layout::nchw;
            if (options.size != Size{}) fix_size(model);
        }
        ov::AnyMap settings{
            // By its own choice it computes a network of f32 in bf16 where it can
            ov::hint::inference_precision(is_bf16 ? ov::element::bf16 : ov::element::f32),
            ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
            ov::num_streams(1),
        };
        if (options.num_threads) settings.insert(ov::inference_num_threads(options.num_threads));
        compiled_ = core_.compile_model(model, "CPU", settings);
        precision = used_precision(compiled_);
        if (precision != options.precision && precision != "int8")
            throw Error(
                options.precision + " was asked for, but OpenVINO would compute " + options.path + " in " + precision +
                " here");
        const std::string version = ov::get_openvino_version().buildNumber;
        name = "openvino " + version.substr(0, version.find('-'));
        options_.content = nullptr;
    }

    std::unique_ptr<Request> request() override {
        return std::make_unique<OpenVinoRequest>(compiled_, options_, layout);
    }

  private:
    void fix_size(const Model &model) const {
        const ov::PartialShape shape = model->input(0).get_partial_shape();
        const ov::PartialShape wanted = nchw(shape.size() == 4 ? shape[1] : ov::Dimension::dynamic(), options_.size);
        if (shape.size() != 4 || !shape[2].compatible(wanted[2]) || !shape[3].compatible(wanted[3]))
            throw Error(
                options_.path + " was exported for " + shape.to_string() + ", not for " +
                std::to_string(options_.size.height) + " x " + std::to_string(options_.size.width) +
                "; export it again");
        model->reshape(wanted);
    }

    EngineOptions options_;
    ov::Core core_;
    ov::CompiledModel compiled_;
};

}  // namespace

std::unique_ptr<Engine> open_openvino(const EngineOptions &options) try {
    return std::make_unique<OpenVino>(options);
} catch (const Error &) {
    throw;
} catch (const std::exception &error) {
    throw Error("OpenVINO cannot load " + options.path + ": " + one_line(error.what()));
}

}  // namespace lpsnet
