// ONNX Runtime by its C interface, on the processor, with the settings of lpsnet/inference/engines/onnxruntime.py.
#include <onnxruntime_c_api.h>

#include <algorithm>
#include <exception>

#include "onnx_graph.hpp"

namespace lpsnet {
namespace {

const OrtApi &ort() {
    // An older library than the header: the functions used here are in all since 1.12
    static const OrtApi *const api = OrtGetApiBase()->GetApi(std::min<std::uint32_t>(ORT_API_VERSION, 12));
    if (!api) throw Error("this ONNX Runtime is older than 1.12; install a newer one");
    return *api;
}

void check(OrtStatus *status, const std::string &what) {
    if (!status) return;
    const std::string reason = one_line(ort().GetErrorMessage(status));
    ort().ReleaseStatus(status);
    throw Error("ONNX Runtime cannot " + what + ": " + reason);
}

template <class Object, void (ORT_API_CALL *OrtApi::*release)(Object *)>
struct Release {
    void operator()(Object *object) const { (ort().*release)(object); }
};
template <class Object, void (ORT_API_CALL *OrtApi::*release)(Object *)>
using Owned = std::unique_ptr<Object, Release<Object, release>>;

using Session = Owned<OrtSession, &OrtApi::ReleaseSession>;
using Value = Owned<OrtValue, &OrtApi::ReleaseValue>;
using Shape = std::vector<std::int64_t>;

// Never released: sessions may outlive it when a program ends
const OrtEnv &environment() {
    static const OrtEnv *const found = [] {
        OrtEnv *made = nullptr;
        check(ort().CreateEnv(ORT_LOGGING_LEVEL_FATAL, "lpsnet", &made), "start");
        check(ort().DisableTelemetryEvents(made), "start");
        return made;
    }();
    return *found;
}

Session load(const std::string &model, int num_threads, Size size, const std::string &path) {
    const std::string what = "load " + path;
    OrtSessionOptions *made = nullptr;
    check(ort().CreateSessionOptions(&made), what);
    const Owned<OrtSessionOptions, &OrtApi::ReleaseSessionOptions> settings(made);
    check(ort().SetSessionGraphOptimizationLevel(made, ORT_ENABLE_ALL), what);
    check(ort().SetSessionLogSeverityLevel(made, ORT_LOGGING_LEVEL_FATAL), what);
    check(ort().SetInterOpNumThreads(made, 1), what);
    if (num_threads) check(ort().SetIntraOpNumThreads(made, num_threads), what);
    // Else its threads spin after every run and slow down what comes next
    check(ort().AddSessionConfigEntry(made, "session.force_spinning_stop", "1"), what);
    if (size != Size{}) {
        check(ort().AddFreeDimensionOverrideByName(made, "height", size.height), what);
        check(ort().AddFreeDimensionOverrideByName(made, "width", size.width), what);
    }
    OrtSession *session = nullptr;
    check(ort().CreateSessionFromArray(&environment(), model.data(), model.size(), made, &session), what);
    return Session(session);
}

std::string name_of(const OrtSession *session, std::size_t number, bool is_input) {
    OrtAllocator *allocator = nullptr;
    check(ort().GetAllocatorWithDefaultOptions(&allocator), "allocate");
    char *name = nullptr;
    const auto get = is_input ? ort().SessionGetInputName : ort().SessionGetOutputName;
    check(get(session, number, allocator, &name), "name its inputs");
    const std::string found = name;
    check(ort().AllocatorFree(allocator, name), "allocate");
    return found;
}

// Type and dimensions of a tensor; -1 where one is free
std::pair<ONNXTensorElementDataType, Shape> described(const OrtTensorTypeAndShapeInfo *info) {
    ONNXTensorElementDataType kind{};
    std::size_t count = 0;
    check(ort().GetTensorElementType(info, &kind), "describe a tensor");
    check(ort().GetDimensionsCount(info, &count), "describe a tensor");
    Shape shape(count);
    check(ort().GetDimensions(info, shape.data(), count), "describe a tensor");
    return {kind, shape};
}

Shape input_shape(const OrtSession *session, std::size_t number, const std::string &path) {
    OrtTypeInfo *made = nullptr;
    check(ort().SessionGetInputTypeInfo(session, number, &made), "describe its inputs");
    const Owned<OrtTypeInfo, &OrtApi::ReleaseTypeInfo> type(made);
    const OrtTensorTypeAndShapeInfo *info = nullptr;
    check(ort().CastTypeInfoToTensorInfo(made, &info), "describe its inputs");
    if (!info || described(info).first != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT)
        throw Error(path + " takes other inputs than tensors of float32");
    return described(info).second;
}

Value input_value(const void *data, const Shape &shape) {
    OrtMemoryInfo *made = nullptr;
    check(ort().CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &made), "allocate");
    const Owned<OrtMemoryInfo, &OrtApi::ReleaseMemoryInfo> memory(made);
    std::size_t bytes = sizeof(float);
    for (const std::int64_t length : shape) bytes *= static_cast<std::size_t>(length);
    OrtValue *value = nullptr;
    check(
        ort().CreateTensorWithDataAsOrtValue(
            made, const_cast<void *>(data), bytes, shape.data(), shape.size(), ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
            &value),
        "take an image");
    return Value(value);
}

std::vector<Value> run(
    const OrtSession *session, const std::vector<std::string> &inputs, const std::vector<Value> &values,
    const std::vector<std::string> &outputs, const std::string &path) {
    std::vector<const char *> input_names, output_names;
    std::vector<const OrtValue *> given;
    for (const auto &name : inputs) input_names.push_back(name.c_str());
    for (const auto &name : outputs) output_names.push_back(name.c_str());
    for (const auto &value : values) given.push_back(value.get());
    std::vector<OrtValue *> made(outputs.size(), nullptr);
    // Several runs of one session at once are allowed
    check(
        ort().Run(
            const_cast<OrtSession *>(session), nullptr, input_names.data(), given.data(), given.size(),
            output_names.data(), output_names.size(), made.data()),
        "run " + path);
    std::vector<Value> results;
    for (OrtValue *value : made) results.emplace_back(value);
    return results;
}

std::pair<ONNXTensorElementDataType, Shape> shape_of(const OrtValue *value) {
    OrtTensorTypeAndShapeInfo *made = nullptr;
    check(ort().GetTensorTypeAndShape(value, &made), "describe a tensor");
    const Owned<OrtTensorTypeAndShapeInfo, &OrtApi::ReleaseTensorTypeAndShapeInfo> info(made);
    return described(made);
}

class OnnxRuntimeRequest : public Request {
  public:
    OnnxRuntimeRequest(const OrtSession *session, const EngineOptions &options)
        : session_(session),
          path_(options.path),
          channels_(static_cast<std::int64_t>(options.record->channels.size())),
          classes_(static_cast<std::int64_t>(options.record->class_names.size())),
          output_(name_of(session, 0, false)) {
        std::size_t count = 0;
        check(ort().SessionGetInputCount(session, &count), "describe its inputs");
        for (std::size_t i = 0; i < count; i++) {
            names_.push_back(name_of(session, i, true));
            shapes_.push_back(input_shape(session, i, path_));
        }
    }

    LogitsView run(const std::vector<const void *> &inputs, const std::vector<Size> &sizes) override {
        if (inputs.size() != names_.size())
            throw Error(path_ + " takes " + std::to_string(names_.size()) + " inputs; a network here takes one image");
        std::vector<Value> values;
        for (std::size_t i = 0; i < inputs.size(); i++) {
            const Shape shape = {1, channels_, sizes[i].height, sizes[i].width};
            for (std::size_t axis = 0; axis < shape.size(); axis++)
                if (shapes_[i].size() != 4 || (shapes_[i][axis] != -1 && shapes_[i][axis] != shape[axis]))
                    throw Error(
                        path_ +
                        " takes images of other channels or another size than its record and this image make; "
                        "export it again");
            values.push_back(input_value(inputs[i], shape));
        }
        logits_ = std::move(lpsnet::run(session_, names_, values, {output_}, path_)[0]);
        const auto [kind, shape] = shape_of(logits_.get());
        if (kind != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT || shape.size() != 4 || shape[0] != 1 || shape[1] != classes_ ||
            shape[2] < 1 || shape[3] < 1)
            throw Error(
                path_ + " gives other logits than float32 of the " + std::to_string(classes_) +
                " classes that its record names; export it again");
        void *data = nullptr;
        check(ort().GetTensorMutableData(logits_.get(), &data), "give its logits");
        return {
            static_cast<const float *>(data), static_cast<int>(shape[1]), static_cast<int>(shape[2]),
            static_cast<int>(shape[3])};
    }

  private:
    const OrtSession *session_;
    std::string path_;
    std::int64_t channels_, classes_;
    std::string output_;
    std::vector<std::string> names_;
    std::vector<Shape> shapes_;
    Value logits_;  // of the last run
};

// Sizes of tensors of a model's front for a black image
std::vector<Size> measured(const std::string &model, const std::vector<std::string> &names, const std::string &path) {
    const Session session = load(model, 1, Size{}, path);
    const Shape shape = input_shape(session.get(), 0, path);
    std::size_t count = 1;
    for (const std::int64_t length : shape) count *= static_cast<std::size_t>(std::max<std::int64_t>(length, 1));
    const std::vector<float> black(count, 0.0F);
    std::vector<Value> values;
    values.push_back(input_value(black.data(), shape));
    std::vector<Size> sizes;
    for (const Value &value : run(session.get(), {name_of(session.get(), 0, true)}, values, names, path)) {
        const Shape own = shape_of(value.get()).second;
        sizes.push_back(own.size() == 4 ? Size{static_cast<int>(own[2]), static_cast<int>(own[3])} : Size{});
    }
    return sizes;
}

class OnnxRuntime : public Engine {
  public:
    explicit OnnxRuntime(const EngineOptions &options) : options_(options) {
        if (options.precision != "f32")
            throw Error(options.precision + " was asked for, and ONNX Runtime has none for processors; OpenVINO may");
        std::optional<std::string> split;
        if (options.path_inputs && !options.record->ratios.empty()) {
            const auto measure = [&](const std::string &front, const std::vector<std::string> &names) {
                return measured(front, names, options.path);
            };
            try {
                split = split_at_paths(*options.content, options.record->ratios, options.size, measure);
                if (split) session_ = load(*split, options.num_threads, Size{}, options.path);
            } catch (const Error &) {  // errors of the file itself are met again below
                split.reset();
            }
        }
        path_inputs = split.has_value();
        if (!path_inputs) session_ = load(*options.content, options.num_threads, options.size, options.path);
        name = std::string("onnxruntime ") + OrtGetApiBase()->GetVersionString();
        precision = is_quantised(*options.content) ? "int8" : "f32";
        options_.content = nullptr;
    }

    std::unique_ptr<Request> request() override {
        return std::make_unique<OnnxRuntimeRequest>(session_.get(), options_);
    }

  private:
    EngineOptions options_;
    Session session_;
};

}  // namespace

std::unique_ptr<Engine> open_onnxruntime(const EngineOptions &options) {
    return std::make_unique<OnnxRuntime>(options);
}

}  // namespace lpsnet
