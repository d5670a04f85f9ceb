// What the files of the library share and its users do not see.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "lpsnet/lpsnet.hpp"

namespace lpsnet {

inline constexpr int min_input = 32;  // pixels; the smallest height and width of a network's input

// Text of a file or an engine in one line of at most 200 bytes, without control characters.
std::string one_line(std::string_view text);

// --- json.cpp

// A JSON value. Object members are in the order of the file.
struct Json {
    enum class Kind { null, boolean, number, text, array, object };
    Kind kind = Kind::null;
    bool boolean = false;
    double number = 0;
    std::string text;
    std::vector<Json> items;                            // of an array
    std::vector<std::pair<std::string, Json>> members;  // of an object
    const Json *find(std::string_view key) const;       // nullptr if it is no object or has no such member
};

Json parse_json(std::string_view text);  // Error if it is not one JSON value

// --- record.cpp

// A field of a protocol buffer: `value` of a varint, `content` of other types; `whole` includes the field's own key.
struct Field {
    std::uint32_t number = 0;
    int wire_type = 0;
    std::uint64_t value = 0;
    std::string_view content, whole;
};
inline constexpr int wire_varint = 0, wire_bytes = 2;

// The next field of `rest`, which is shortened by it; nullopt at its end, Error if none begins there.
std::optional<Field> next_field(std::string_view &rest);

std::string read_file(const std::string &path, const char *what);
Record record_of(std::string_view onnx, const std::string &path);
Record parse_record(std::string_view json, const std::string &path);

// --- threads.cpp

// Threads that wait for parts of a loop.
class Pool {
  public:
    explicit Pool(int num_threads);  // those that `in_bands` uses at most, with the caller's
    ~Pool();
    int size() const;
    // Calls `fill(begin, end)` for parts of 0 to `length`, `num_bands` at once, and returns when all are done.
    void in_bands(std::int64_t length, int num_bands, const std::function<void(std::int64_t, std::int64_t)> &fill);

  private:
    struct State;
    std::unique_ptr<State> state_;
};

// --- axes.cpp: coordinates of resizing along one axis

// Per target pixel: the two source pixels around it and the interpolation weight of the second.
struct Axis {
    std::vector<std::int32_t> before, next;
    std::vector<float> weight;
    std::vector<std::int32_t> starts;  // per cell between two source pixels its first target pixel; then their number
};

Axis exact_axis(int source, int target, bool align_corners);                     // as lpsnet/sampling.py: `cells`
Axis warp_axis(int source, int target, bool align_corners, bool is_horizontal);  // as OpenCV's warpAffine

// Memory that is reused for images of the same size, and coordinates.
struct Workspace {
    std::map<std::tuple<int, int, int>, Axis> axes;
    std::map<std::string, std::vector<float>> arrays;
    float *array(const std::string &name, std::size_t size);
    void trim();  // forgets coordinates of many sizes; references to them end
    const Axis &axis(int kind, int source, int target, bool align_corners);  // kind: 0 exact, 1 warp x, 2 warp y
};

// --- image.cpp

// Channel after channel; or the channels of a pixel side by side, in float32 or in bfloat16
enum class Layout { nchw, nhwc, nhwc_bf16 };

Size path_size(Size size, Ratio ratio);
Image check_image(Image image, const Record &record);  // with its stride filled in

// The inputs of the network's paths for a checked image: per ratio 1 x C x h x w numbers in `layout`, in the workspace.
std::vector<const void *> prepare(
    const Image &image, const Record &record, Size size, const std::vector<Ratio> &ratios, Layout layout,
    Workspace &memory, Pool &pool);

// --- labels.cpp

struct LogitsView {
    const float *data = nullptr;
    int classes = 0, height = 0, width = 0;
};

void label_map(
    const LogitsView &logits, Size size, bool align_corners, std::uint8_t *labels, Workspace &memory, Pool &pool);

// --- engines

struct EngineOptions {
    std::string path;
    const std::string *content = nullptr;  // of the file
    const Record *record = nullptr;
    Size size;  // 0 x 0: sizes differ between calls
    bool path_inputs = true;
    std::string precision = "f32";
    int num_threads = 0;  // 0: the engine's choice
};

// One caller's use of an engine at a time.
class Request {
  public:
    virtual ~Request() = default;
    virtual LogitsView run(const std::vector<const void *> &inputs, const std::vector<Size> &sizes) = 0;
};

class Engine {
  public:
    virtual ~Engine() = default;
    virtual std::unique_ptr<Request> request() = 0;
    std::string name;          // and version
    std::string precision;     // really used
    bool path_inputs = false;  // whether each path has its own input in place of the image
    Layout layout = Layout::nchw;
};

std::unique_ptr<Engine> open_openvino(const EngineOptions &options);
std::unique_ptr<Engine> open_onnxruntime(const EngineOptions &options);

// Of the tensors that a model resizes its image to, those of its paths: see find_path_inputs in onnx_graph.py. The
// index into `found` for every ratio, -1 for the image itself; nullopt if they are others.
std::optional<std::vector<int>> choose_paths(
    const std::vector<Size> &found, const std::vector<Ratio> &ratios, Size tried);
inline constexpr Size tried_size{211, 307};  // where a model's own is free: small, and tells ratios apart

}  // namespace lpsnet
