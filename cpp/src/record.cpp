// The record of a model file, read without an engine.
//
// ONNX is a protocol buffer: fields with a number, a wire type and, if variable, a length. The fields that are needed
// are picked and the others skipped. No length stated in a file is trusted.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>

#include "internal.hpp"

namespace lpsnet {

namespace {

constexpr std::uint32_t model_graph = 7, model_metadata = 14, entry_key = 1, entry_value = 2;  // of onnx.proto
constexpr std::size_t max_text = 16'000'000;        // bytes of the record; it takes some kilobytes
constexpr std::uintmax_t max_file = 2'147'483'647;  // bytes; the limit of protocol buffers
constexpr int max_classes = 255, max_channels = 16, max_length = 65'536, max_paths = 64;

std::uint64_t read_varint(std::string_view &rest) {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
        if (rest.empty()) throw Error("it ends early");
        const auto byte = static_cast<unsigned char>(rest.front());
        rest.remove_prefix(1);
        if (shift < 64) value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
        if (byte < 0x80) return value;
    }
    throw Error("a number in it has no end");
}

}  // namespace

std::string one_line(std::string_view text) {
    std::string line;
    for (const char letter : text) {
        const bool is_space = static_cast<unsigned char>(letter) <= ' ' || letter == '\x7f';
        if (!is_space)
            line += letter;
        else if (!line.empty() && line.back() != ' ')
            line += ' ';
        if (line.size() > 400) break;
    }
    while (!line.empty() && line.back() == ' ') line.pop_back();
    if (line.size() > 200) line = line.substr(0, 197) + "...";
    return line;
}

std::optional<Field> next_field(std::string_view &rest) {
    if (rest.empty()) return std::nullopt;
    const std::string_view from = rest;
    const std::uint64_t key = read_varint(rest);
    Field field;
    field.wire_type = static_cast<int>(key & 7);
    if (key >> 3 == 0 || key >> 3 > UINT32_MAX) throw Error("no field begins where one should");
    field.number = static_cast<std::uint32_t>(key >> 3);
    std::uint64_t length = 0;
    switch (field.wire_type) {
        case 0: field.value = read_varint(rest); break;
        case 1: length = 8; break;
        case wire_bytes: length = read_varint(rest); break;
        case 5: length = 4; break;
        default: throw Error("no field begins where one should");
    }
    if (length > rest.size()) throw Error("it ends early");
    field.content = rest.substr(0, static_cast<std::size_t>(length));
    rest.remove_prefix(static_cast<std::size_t>(length));
    field.whole = from.substr(0, from.size() - rest.size());
    return field;
}

std::string read_file(const std::string &path, const char *what) {
    std::error_code error;
    const auto status = std::filesystem::status(path, error);
    if (!std::filesystem::exists(status)) throw Error("no " + std::string(what) + " at " + path);
    if (std::filesystem::is_directory(status)) throw Error(path + " is a folder; give the " + what + " in it");
    if (!std::filesystem::is_regular_file(status)) throw Error(path + " is a device, pipe or socket, not a file");
    const std::uintmax_t size = std::filesystem::file_size(path, error);
    if (error) throw Error(path + " cannot be read: " + error.message());
    if (size == 0) throw Error(path + " is an empty file");
    if (size > max_file) throw Error(path + " has more than 2 GiB, which no " + what + " has");
    std::string content(static_cast<std::size_t>(size), '\0');
    std::ifstream file(path, std::ios::binary);
    if (!file.read(content.data(), static_cast<std::streamsize>(size))) throw Error(path + " cannot be read");
    return content;
}

Record record_of(std::string_view onnx, const std::string &path) {
    std::optional<std::string_view> found;
    bool has_graph = false;
    try {
        while (const auto field = next_field(onnx)) {
            has_graph |= field->number == model_graph;
            if (field->number != model_metadata || field->wire_type != wire_bytes || field->content.size() > max_text)
                continue;
            std::string_view entry = field->content, key, value;
            while (const auto part = next_field(entry)) {
                if (part->wire_type != wire_bytes) continue;
                if (part->number == entry_key) key = part->content;
                if (part->number == entry_value) value = part->content;
            }
            if (key != "lpsnet") continue;
            if (found) throw Error("it has two records");
            found = value;
        }
        if (!has_graph) throw Error("it has no graph");
    } catch (const Error &error) {
        throw Error(path + " is not a whole ONNX file: " + error.what() + "; copy or export it again");
    }
    if (!found)
        throw Error(path + " holds no lpsnet record: it was made by another program, or its metadata was removed");
    return parse_record(*found, path);
}

Record read_record(const std::string &path) { return record_of(read_file(path, "model file"), path); }

bool Record::is_rgb() const { return bits == 8 && channels == std::vector<std::string>{"red", "green", "blue"}; }

namespace {

using Kind = Json::Kind;

const Json &member(const Json &object, const char *key, Kind kind) {
    const Json *const value = object.find(key);
    if (!value || value->kind != kind) throw Error(std::string(key) + " is missing or of another type");
    return *value;
}

std::int64_t whole_number(const Json &value, std::int64_t low, std::int64_t high, const char *what) {
    const bool fits = value.kind == Kind::number && value.number >= static_cast<double>(low) &&
                      value.number <= static_cast<double>(high) && std::floor(value.number) == value.number;
    if (!fits)
        throw Error(
            std::string(what) + " is a whole number from " + std::to_string(low) + " to " + std::to_string(high));
    return static_cast<std::int64_t>(value.number);
}

std::vector<std::string> names(const Json &list, int most, const char *what) {
    std::vector<std::string> found;
    std::set<std::string> seen;
    if (list.items.empty() || list.items.size() > static_cast<std::size_t>(most))
        throw Error(std::string(what) + ": 1 to " + std::to_string(most) + " are possible");
    for (const Json &item : list.items) {
        const bool is_plain = std::none_of(item.text.begin(), item.text.end(), [](char letter) {
            return static_cast<unsigned char>(letter) < ' ' || letter == '\x7f';
        });
        if (item.kind != Kind::text || !is_plain || item.text.find_first_not_of(' ') == std::string::npos)
            throw Error(std::string(what) + ": each has a name, without control characters");
        if (!seen.insert(item.text).second) throw Error(std::string(what) + ": a name is there twice");
        found.push_back(item.text);
    }
    return found;
}

// R of an architecture in its one-line form, e.g. B=1,3,3,10,10;C=8,24,48,96,96;R=3/4,1/4
std::vector<Ratio> ratios_of(std::string_view text) {
    const auto part_of = [](std::string_view &rest, char end) {
        const std::string_view part = rest.substr(0, rest.find(end));
        rest.remove_prefix(std::min(rest.size(), part.size() + 1));
        return part;
    };
    const auto number_of = [](std::string_view digits) {
        std::int64_t number = 0;
        const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
        if (error != std::errc() || end != digits.data() + digits.size() || number < 1 || number > 1'000'000)
            throw Error("architecture: a ratio is a fraction such as 3/4");
        return number;
    };
    std::vector<Ratio> ratios;
    for (std::string_view rest = text; !rest.empty();) {
        std::string_view field = part_of(rest, ';');
        if (field.substr(0, 2) != "R=") continue;
        for (field.remove_prefix(2); !field.empty();) {
            std::string_view ratio = part_of(field, ',');
            const std::int64_t numerator = number_of(part_of(ratio, '/'));
            ratios.push_back({numerator, ratio.empty() ? 1 : number_of(ratio)});
            if (ratios.back().numerator > 64 * ratios.back().denominator || ratios.size() > max_paths)
                throw Error("architecture: a ratio is at most 64, of at most 64 paths");
        }
    }
    if (ratios.empty()) throw Error("architecture is written as B=...;C=...;R=3/4,1/4");
    std::stable_sort(ratios.begin(), ratios.end(), [](Ratio a, Ratio b) {
        return a.numerator * b.denominator > b.numerator * a.denominator;
    });
    return ratios;
}

void read_normalisation(const Json &root, Record &record) {
    const Json *const given = root.find("normalisation");
    record.mean = {0.485, 0.456, 0.406};
    record.std = {0.229, 0.224, 0.225};
    if (given) {
        for (const auto &[key, into] : {std::pair("mean", &record.mean), std::pair("std", &record.std)}) {
            if (!given->find(key)) continue;
            into->clear();
            for (const Json &item : member(*given, key, Kind::array).items) {
                if (item.kind != Kind::number || !std::isfinite(item.number))
                    throw Error(std::string("normalisation: ") + key + " holds numbers");
                into->push_back(item.number);
            }
        }
        if (const Json *largest = given->find("max_value")) {
            const auto number = whole_number(*largest, 255, 65'535, "max_value");
            if (number != 255 && number != 65'535) throw Error("max_value is 255 or 65535");
            record.bits = number == 255 ? 8 : 16;
        }
    }
    const std::size_t count = record.channels.size();
    if (record.mean.size() != count || record.std.size() != count)
        throw Error("each of " + std::to_string(count) + " channels has a mean and a deviation");
    for (const double deviation : record.std)
        if (!(deviation > 0)) throw Error("deviations are greater than 0");
}

}  // namespace

Record parse_record(std::string_view json, const std::string &path) {
    try {
        const Json root = parse_json(json);
        if (root.kind != Kind::object) throw Error("it is no JSON object");
        if (const Json *format = root.find("format"))
            whole_number(*format, 1, 1, "its format, which this version reads,");
        Record record;
        const Json &space = member(root, "label_space", Kind::object);
        record.label_space = member(space, "name", Kind::text).text;
        record.class_names = names(member(space, "names", Kind::array), max_classes, "classes");
        for (const Json &item : member(space, "colours", Kind::array).items) {
            if (item.kind != Kind::array || item.items.size() != 3) throw Error("a colour is red, green and blue");
            std::uint8_t rgb[3];
            for (int i = 0; i < 3; i++)
                rgb[i] = static_cast<std::uint8_t>(
                    whole_number(item.items[static_cast<std::size_t>(i)], 0, 255, "a colour"));
            record.class_colours.push_back({rgb[0], rgb[1], rgb[2]});
        }
        if (record.class_colours.size() != record.class_names.size()) throw Error("each class has one colour");
        record.channels = {"red", "green", "blue"};
        if (root.find("channels"))
            record.channels = names(member(root, "channels", Kind::array), max_channels, "channels");
        read_normalisation(root, record);
        if (const Json *size = root.find("input_size"); size && size->kind != Kind::null) {
            if (size->kind != Kind::array || size->items.size() != 2) throw Error("input_size is height and width");
            record.input_size = {
                static_cast<int>(whole_number(size->items[0], 1, max_length, "a height")),
                static_cast<int>(whole_number(size->items[1], 1, max_length, "a width"))};
        }
        if (root.find("align_corners")) record.align_corners = member(root, "align_corners", Kind::boolean).boolean;
        if (const Json *triple = root.find("architecture"); triple && triple->kind != Kind::null)
            record.ratios = ratios_of(member(root, "architecture", Kind::text).text);
        if (const Json *licence = root.find("licence"); licence && licence->kind == Kind::text)
            record.licence = one_line(licence->text);
        return record;
    } catch (const Error &error) {
        throw Error("the record in " + path + " cannot be used: " + error.what());
    }
}

}  // namespace lpsnet
