// Runs an lpsnet model file from C++: an image in, the class of every pixel out. No Python.
//
//     lpsnet::Segmenter segment("model.onnx");
//     lpsnet::Labels labels = segment({pixels, height, width});
//
// The labels are those of Python's `lpsnet.Segmenter` with the same engine. Errors are `lpsnet::Error`, whose message
// is one line. The C interface, for other languages, is lpsnet.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(_WIN32)
#define LPSNET_API
#else
#define LPSNET_API __attribute__((visibility("default")))
#endif

namespace lpsnet {

inline constexpr int ignore_index = 255;  // in label maps: no class. A network never gives it.

class LPSNET_API Error : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

// Somebody's image, not copied: H x W x C numbers of 8 or 16 bits with the channels of a pixel side by side, RGB not
// BGR unless the model's record names other channels.
struct Image {
    const void *data = nullptr;
    int height = 0, width = 0;   // at least 1 x 1
    std::ptrdiff_t stride = 0;   // bytes from row to row; 0: rows follow each other without a gap
    int channels = 3, bits = 8;  // bits: 8 or 16
};

// The class of every pixel: H x W ids, 0 to K - 1.
struct Labels {
    int height = 0, width = 0;
    std::vector<std::uint8_t> ids;
    std::uint8_t at(int y, int x) const { return ids[static_cast<std::size_t>(y) * width + x]; }
};

// The network's own output, K x h x w, before it is resized to the image.
struct Logits {
    int classes = 0, height = 0, width = 0;
    std::vector<float> values;
};

// An image of one's own: H x W x 3 RGB, without gaps.
struct Picture {
    int height = 0, width = 0;
    std::vector<std::uint8_t> pixels;
    Image view() const { return {pixels.data(), height, width}; }
};

struct Colour {
    std::uint8_t red = 0, green = 0, blue = 0;
};

struct Ratio {
    std::int64_t numerator = 1, denominator = 1;
};

struct Size {
    int height = 0, width = 0;
    friend bool operator==(Size a, Size b) { return a.height == b.height && a.width == b.width; }
    friend bool operator!=(Size a, Size b) { return !(a == b); }
};

// What the model file says about itself.
struct LPSNET_API Record {
    std::string label_space;               // name of the classes, e.g. "cityscapes"
    std::vector<std::string> class_names;  // in the order of their ids
    std::vector<Colour> class_colours;
    std::vector<std::string> channels;  // of the images it takes: red, green, blue unless said otherwise
    int bits = 8;                       // of a channel: 8 or 16
    std::vector<double> mean, std;      // a number x of an image becomes (x / (2^bits - 1) - mean) / std
    Size input_size;                    // that the network runs at; 0 x 0: every image's own size
    bool align_corners = true;          // the convention of resizing
    std::vector<Ratio> ratios;          // of the network's paths, largest first; none for another program's network
    std::string licence;                // terms of the weights

    bool is_rgb() const;  // red, green and blue of 8 bits
};

// The record in an ONNX file; neither an engine nor the weights are loaded.
LPSNET_API Record read_record(const std::string &path);

struct Options {
    std::string runtime;      // "openvino" or "onnxruntime"; empty: the first of `engines()`
    std::string precision;    // "f32", also for int8 files, or "bf16" by OpenVINO; empty: f32
    int num_threads = 0;      // 0: the engine's choice
    Size input_size;          // that the network runs at, at least 32 x 32; 0 x 0: that of the record
    bool path_inputs = true;  // images may be resized for the network's paths before they reach the engine
};

// The engines this library was built with.
LPSNET_API std::vector<std::string> engines();

// A loaded model. May be called from several threads at once.
class LPSNET_API Segmenter {
  public:
    explicit Segmenter(const std::string &model, const Options &options = {});
    ~Segmenter();
    Segmenter(Segmenter &&) noexcept;
    Segmenter &operator=(Segmenter &&) noexcept;

    Labels operator()(const Image &image) const;
    void segment(const Image &image, std::uint8_t *labels) const;  // into height x width bytes of the caller's
    Logits logits(const Image &image) const;

    const Record &record() const;
    std::string engine() const;     // and its version
    std::string precision() const;  // of the arithmetic really used, as the engine reports it: "f32", "bf16" or "int8"
    Size input_size() const;        // 0 x 0: every image's own
    bool path_inputs() const;

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

// An RGB image of 8 bits under the colours of its classes; `opacity` of the colours, 0 to 1.
LPSNET_API Picture overlay(const Image &rgb, const std::uint8_t *labels, const Record &record, double opacity = 0.55);

// Binary PPM (P6) and PGM (P5), 8 bits: the plainest of image files.
LPSNET_API Picture read_ppm(const std::string &path);
LPSNET_API Picture parse_ppm(const std::uint8_t *data, std::size_t length, const std::string &name);
LPSNET_API void write_ppm(const std::string &path, const Picture &picture);
LPSNET_API void write_pgm(const std::string &path, const Labels &labels);

}  // namespace lpsnet
