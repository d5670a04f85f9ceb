// Damaged model files, records and PPM images, and images of random shapes: lpsnet_fuzz MODEL COUNT [SEED]
//
// Built with AddressSanitizer and UndefinedBehaviorSanitizer (-DLPSNET_SANITIZE=ON). Each case either works or throws
// an `Error` of one line; anything else ends the program with its number. No engine is run: those are not ours to
// harden.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <memory>
#include <random>
#include <string>

#include "onnx_graph.hpp"

using lpsnet::Error;

namespace {

std::mt19937_64 random_bits;
long num_split = 0;  // graphs that were cut

std::size_t below(std::size_t count) { return count ? random_bits() % count : 0; }
int between(int low, int high) { return low + static_cast<int>(below(static_cast<std::size_t>(high - low + 1))); }

// One to four changes, half of them in the first and last kilobytes: most of a model file is weights
std::string damaged(std::string text, bool is_text) {
    static const char *const words[] = {"1e999",    "-1",   "99999999999999999999",
                                        "null",     "[",    "{",
                                        "\"",       "\\u",  "\\ud800",
                                        "0.5",      "255",  "256",
                                        "[[[[[[[[", "R=",   "/0",
                                        ",",        ":",    "true",
                                        "\x80",     "65535"};
    for (int changes = between(1, 4); changes > 0; changes--) {
        const std::size_t near = std::min<std::size_t>(text.size(), 3000);
        const std::size_t at = below(2) ? below(text.size()) : below(2) ? below(near) : text.size() - below(near);
        const std::size_t count = std::min(text.size() - std::min(at, text.size()), below(below(8) ? 8 : 2000));
        switch (below(is_text ? 7 : 6)) {
            case 0:
                if (at < text.size()) text[at] = static_cast<char>(random_bits());
                break;
            case 1:
                if (at < text.size()) text[at] = static_cast<char>(text[at] ^ (1 << below(8)));
                break;
            case 2:
                if (at <= text.size()) text.resize(at);
                break;
            case 3:
                if (at <= text.size()) text.erase(at, count);
                break;
            case 4:
                if (at <= text.size()) text.insert(at, text.substr(at, count));
                break;
            case 5:
                if (at <= text.size()) text.insert(at, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", below(11));
                break;
            default:
                if (at <= text.size()) text.replace(at, std::min<std::size_t>(count, 4), words[below(20)]);
                break;
        }
    }
    return text;
}

// A copy of its own without a byte to spare, so that any read past the end is noticed
struct Exact {
    explicit Exact(const std::string &text) : size(text.size()), data(new char[text.size()]) {
        std::memcpy(data.get(), text.data(), size);
    }
    std::string_view view() const { return {data.get(), size}; }
    std::size_t size;
    std::unique_ptr<char[]> data;
};

void image_case(const lpsnet::Record &like) {
    lpsnet::Record record = like;
    if (below(3) == 0) {
        const int count = between(1, 6);
        record.channels.assign(static_cast<std::size_t>(count), "band");
        record.mean.assign(record.channels.size(), 0.4), record.std.assign(record.channels.size(), 0.2);
        record.bits = below(2) ? 8 : 16;
    }
    record.align_corners = below(2) != 0;
    const int most = below(10) ? 90 : 400;
    lpsnet::Image image;
    image.height = between(1, most), image.width = between(1, most);
    image.channels = static_cast<int>(record.channels.size()), image.bits = record.bits;
    const std::ptrdiff_t row = static_cast<std::ptrdiff_t>(image.width) * image.channels * image.bits / 8;
    image.stride = row + between(0, 5);
    if (below(20) == 0) image.stride = row - 1;
    if (below(20) == 0) image.channels += 1;
    if (below(30) == 0) image.height = between(-2, 0);
    const std::ptrdiff_t step = image.stride ? image.stride : row;
    const auto bytes = static_cast<std::size_t>(std::max(0, image.height - 1) * step + row);
    const std::unique_ptr<std::uint8_t[]> pixels(new std::uint8_t[bytes]);
    for (std::size_t i = 0; i < bytes; i++) pixels[i] = static_cast<std::uint8_t>(random_bits());
    image.data = pixels.get();
    image = lpsnet::check_image(image, record);

    static lpsnet::Pool pool(2);
    lpsnet::Workspace memory;
    const lpsnet::Size size = below(2) ? lpsnet::Size{between(32, 150), between(32, 150)}
                                       : lpsnet::Size{std::max(32, image.height), std::max(32, image.width)};
    const std::vector<lpsnet::Ratio> ratios =
        below(2) ? std::vector<lpsnet::Ratio>{{1, 1}} : std::vector<lpsnet::Ratio>{{9, 8}, {3, 4}, {1, 4}};
    const lpsnet::Layout layouts[] = {lpsnet::Layout::nchw, lpsnet::Layout::nhwc, lpsnet::Layout::nhwc_bf16};
    const auto layout = layouts[record.is_rgb() ? below(3) : 0];
    const auto inputs = lpsnet::prepare(image, record, size, ratios, layout, memory, pool);
    double sum = 0;
    for (std::size_t path = 0; path < inputs.size(); path++) {
        const lpsnet::Size own = lpsnet::path_size(size, ratios[path]);
        const std::size_t count =
            record.channels.size() * static_cast<std::size_t>(own.height) * static_cast<std::size_t>(own.width);
        const std::size_t bytes_each = layout == lpsnet::Layout::nhwc_bf16 ? 2 : 4;
        const auto *const numbers = static_cast<const std::uint8_t *>(inputs[path]);
        for (std::size_t i = 0; i < count * bytes_each; i++) sum += numbers[i];
    }
    if (!(sum >= 0)) std::abort();

    lpsnet::LogitsView logits;
    logits.classes = between(1, below(8) ? 20 : 255), logits.height = between(1, 12), logits.width = between(1, 12);
    std::vector<float> numbers(static_cast<std::size_t>(logits.classes * logits.height * logits.width));
    for (float &number : numbers) number = static_cast<float>(between(-20, 20)) / static_cast<float>(between(1, 3));
    logits.data = numbers.data();
    const auto area = static_cast<std::size_t>(image.height) * static_cast<std::size_t>(image.width);
    const std::unique_ptr<std::uint8_t[]> labels(new std::uint8_t[area]);
    lpsnet::label_map(logits, {image.height, image.width}, record.align_corners, labels.get(), memory, pool);
    for (std::size_t i = 0; i < area; i++)
        if (labels[i] >= logits.classes) std::abort();
    record.class_colours.resize(255);
    if (record.is_rgb()) lpsnet::overlay(image, labels.get(), record, between(0, 4) / 4.0);
}

// The surgery on a graph; the engine's part of it, the sizes of resized images, is made up
void graph_case(std::string_view model, const lpsnet::Record &record) {
    const lpsnet::Size size = below(2) ? lpsnet::Size{} : lpsnet::Size{between(32, 300), between(32, 300)};
    const auto measure = [&](const std::string &front, const std::vector<std::string> &names) {
        std::string_view rest = front;
        while (lpsnet::next_field(rest)) {
        }
        std::vector<lpsnet::Size> sizes;
        for (std::size_t i = 0; i < names.size(); i++)
            sizes.push_back(
                lpsnet::path_size(
                    size == lpsnet::Size{} ? lpsnet::tried_size : size,
                    record.ratios[std::min(i, record.ratios.size() - 1)]));
        return sizes;
    };
    if (lpsnet::split_at_paths(model, record.ratios, size, measure)) num_split++;
    lpsnet::is_quantised(model);
}

}  // namespace

int main(int count, char **words) try {
    if (count < 3) return std::fprintf(stderr, "usage: %s MODEL COUNT [SEED]\n", words[0]), 2;
    const long cases = std::atol(words[2]);
    random_bits.seed(count > 3 ? static_cast<std::uint64_t>(std::atoll(words[3])) : 0);
    const std::string model = lpsnet::read_file(words[1], "model file");
    const lpsnet::Record record = lpsnet::record_of(model, words[1]);
    const std::size_t begin = model.find("{\"format\""), end = model.find("\"lpsnet_version\"", begin);
    if (begin == std::string::npos || end == std::string::npos)
        return std::fprintf(stderr, "%s has no record in its usual form\n", words[1]), 2;
    const std::string json = model.substr(begin, model.find('}', end) + 1 - begin);
    lpsnet::parse_record(json, "the record");
    std::string ppm = "P6\n# a comment\n7 5\n255\n";
    for (int i = 0; i < 7 * 5 * 3; i++) ppm += static_cast<char>(i * 37);

    long refused[5] = {}, tried[5] = {};
    const int num_kinds = static_cast<int>(std::size(tried));
    for (long number = 0; number < cases; number++) {
        const int kind = static_cast<int>(number % num_kinds);
        tried[kind]++;
        try {
            if (kind == 0) lpsnet::record_of(Exact(damaged(model, false)).view(), "model");
            if (kind == 1) lpsnet::parse_record(Exact(damaged(json, true)).view(), "model");
            if (kind == 2) {
                const Exact file(damaged(ppm, below(2) != 0));
                lpsnet::parse_ppm(reinterpret_cast<const std::uint8_t *>(file.data.get()), file.size, "image");
            }
            if (kind == 3) image_case(record);
            if (kind == 4) graph_case(Exact(damaged(model, false)).view(), record);
        } catch (const Error &error) {
            refused[kind]++;
            if (std::strlen(error.what()) == 0 || std::strchr(error.what(), '\n'))
                return std::fprintf(stderr, "case %ld: a message of several lines: %s\n", number, error.what()), 1;
        } catch (const std::exception &error) {
            return std::fprintf(stderr, "case %ld: %s\n", number, error.what()), 1;
        }
    }
    const char *const names[] = {"model files", "records", "PPM images", "images", "graphs"};
    for (int kind = 0; kind < num_kinds; kind++)
        std::printf("%s: %ld, refused %ld\n", names[kind], tried[kind], refused[kind]);
    std::printf("graphs cut: %ld\n%ld cases, none crashed\n", num_split, cases);
} catch (const Error &error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
}
