// Binary PPM and PGM files of 8 bits: a short header of numbers in text, then the pixels.
#include <algorithm>
#include <fstream>

#include "internal.hpp"

namespace lpsnet {
namespace {

constexpr std::int64_t max_length = 65'536;

// The next number of the header; comments run from # to the end of their line
std::int64_t read_number(std::string_view &rest, const std::string &name) {
    const std::string why = name + " is not a PPM image of 8 bits: ";
    for (bool is_comment = false; !rest.empty(); rest.remove_prefix(1)) {
        const char letter = rest.front();
        if (letter == '#') is_comment = true;
        if (letter == '\n' || letter == '\r') is_comment = false;
        const bool is_space = letter == ' ' || (letter >= '\t' && letter <= '\r');
        if (!is_comment && !is_space) break;
    }
    std::int64_t number = -1;
    for (; !rest.empty() && rest.front() >= '0' && rest.front() <= '9'; rest.remove_prefix(1)) {
        number = std::max<std::int64_t>(number, 0) * 10 + (rest.front() - '0');
        if (number > max_length) throw Error(why + "a number in its header is too large");
    }
    if (number < 0) throw Error(why + "its header lacks a number");
    return number;
}

void write(const std::string &path, const std::string &header, const std::vector<std::uint8_t> &bytes) {
    std::ofstream file(path, std::ios::binary);
    file << header;
    file.write(reinterpret_cast<const char *>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    file.close();
    if (!file) throw Error(path + " cannot be written");
}

}  // namespace

Picture parse_ppm(const std::uint8_t *data, std::size_t length, const std::string &name) {
    std::string_view rest(reinterpret_cast<const char *>(data), length);
    if (rest.substr(0, 2) != "P6") throw Error(name + " is not a binary PPM image: it does not begin with P6");
    rest.remove_prefix(2);
    const std::int64_t width = read_number(rest, name), height = read_number(rest, name);
    const std::int64_t largest = read_number(rest, name);
    if (width < 1 || height < 1 || largest != 255)
        throw Error(name + " is not a PPM image of 8 bits and at least one pixel");
    if (rest.empty() || static_cast<std::int64_t>(rest.size()) - 1 < 3 * width * height)
        throw Error(
            name + " is cut off: " + std::to_string(width) + " x " + std::to_string(height) + " pixels are not in it");
    const auto first = rest.begin() + 1;
    return {static_cast<int>(height), static_cast<int>(width), {first, first + 3 * width * height}};
}

Picture read_ppm(const std::string &path) {
    const std::string content = read_file(path, "image");
    return parse_ppm(reinterpret_cast<const std::uint8_t *>(content.data()), content.size(), path);
}

void write_ppm(const std::string &path, const Picture &picture) {
    const std::string size = std::to_string(picture.width) + " " + std::to_string(picture.height);
    write(path, "P6\n" + size + "\n255\n", picture.pixels);
}

void write_pgm(const std::string &path, const Labels &labels) {
    write(path, "P5\n" + std::to_string(labels.width) + " " + std::to_string(labels.height) + "\n255\n", labels.ids);
}

}  // namespace lpsnet
