// A reader of JSON (RFC 8259), for the record of a model file. The text may be damaged or hostile: nesting is bounded,
// and every read is checked against its end.
#include <charconv>

#include "internal.hpp"

namespace lpsnet {
namespace {

constexpr int max_depth = 64;

class Reader {
  public:
    explicit Reader(std::string_view text) : text_(text) {}

    Json whole() {
        Json value = read(0);
        skip_space();
        if (at_ != text_.size()) fail("more follows it");
        return value;
    }

  private:
    std::string_view text_;
    std::size_t at_ = 0;

    [[noreturn]] void fail(const char *why) const {
        throw Error("not JSON: " + std::string(why) + " at byte " + std::to_string(at_));
    }

    char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

    void skip_space() {
        while (at_ < text_.size() && std::string_view(" \t\r\n").find(text_[at_]) != std::string_view::npos) at_++;
    }

    bool take(std::string_view word) {
        if (text_.substr(at_, word.size()) != word) return false;
        at_ += word.size();
        return true;
    }

    Json read(int depth) {
        if (depth > max_depth) fail("nested too deeply");
        skip_space();
        Json value;
        if (take("{")) {
            value.kind = Json::Kind::object;
            read_items("}", [&] {
                skip_space();
                std::string key = read_text();
                skip_space();
                if (!take(":")) fail("a colon is missing");
                value.members.emplace_back(std::move(key), read(depth + 1));
            });
        } else if (take("[")) {
            value.kind = Json::Kind::array;
            read_items("]", [&] { value.items.push_back(read(depth + 1)); });
        } else if (peek() == '"') {
            value.kind = Json::Kind::text;
            value.text = read_text();
        } else if (take("true")) {
            value.kind = Json::Kind::boolean;
            value.boolean = true;
        } else if (take("false")) {
            value.kind = Json::Kind::boolean;
        } else if (!take("null")) {
            value.kind = Json::Kind::number;
            value.number = read_number();
        }
        return value;
    }

    template <class Item>
    void read_items(std::string_view end, Item item) {
        skip_space();
        if (take(end)) return;
        for (;;) {
            item();
            skip_space();
            if (take(end)) return;
            if (!take(",")) fail("a comma is missing");
        }
    }

    double read_number() {
        // from_chars, as strtod would follow the program's locale, where 0.485 may be written 0,485
        const char *const first = text_.data() + at_, *const last = text_.data() + text_.size();
        double number = 0;
        if (peek() != '-' && (peek() < '0' || peek() > '9')) fail("no value");  // inf and nan are not JSON
        const auto [end, error] = std::from_chars(first, last, number);
        if (error != std::errc() || end == first) fail("no number");
        at_ += static_cast<std::size_t>(end - first);
        return number;
    }

    std::string read_text() {
        if (!take("\"")) fail("no text");
        std::string text;
        for (;;) {
            if (at_ >= text_.size()) fail("a text has no end");
            const char letter = text_[at_++];
            if (letter == '"') return text;
            if (static_cast<unsigned char>(letter) < 0x20) fail("a control character in a text");
            if (letter != '\\') {
                text += letter;
                continue;
            }
            const char kind = peek();
            at_++;
            const std::size_t known = std::string_view("\"\\/bfnrt").find(kind);
            if (kind == 'u')
                append_utf8(text, read_code_point());
            else if (kind != '\0' && known != std::string_view::npos)
                text += "\"\\/\b\f\n\r\t"[known];
            else
                fail("an unknown escape");
        }
    }

    std::uint32_t read_code_point() {
        const std::uint32_t first = read_unit();
        if (first < 0xD800 || first > 0xDFFF) return first;
        if (first > 0xDBFF || !take("\\u")) fail("half a character");
        const std::uint32_t second = read_unit();
        if (second < 0xDC00 || second > 0xDFFF) fail("half a character");
        return 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
    }

    std::uint32_t read_unit() {
        std::uint32_t unit = 0;
        const std::string_view digits = text_.substr(std::min(at_, text_.size()), 4);
        const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), unit, 16);
        if (error != std::errc() || digits.size() < 4 || end != digits.data() + 4) fail("an unknown escape");
        at_ += 4;
        return unit;
    }

    static void append_utf8(std::string &text, std::uint32_t code) {
        const int more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
        const std::uint32_t heads[] = {0, 0xC0, 0xE0, 0xF0};
        text += static_cast<char>(heads[more] | (code >> (6 * more)));
        for (int part = more - 1; part >= 0; part--) text += static_cast<char>(0x80 | ((code >> (6 * part)) & 0x3F));
    }
};

}  // namespace

const Json *Json::find(std::string_view key) const {
    for (const auto &[name, value] : members)
        if (name == key) return &value;
    return nullptr;
}

Json parse_json(std::string_view text) { return Reader(text).whole(); }

}  // namespace lpsnet
