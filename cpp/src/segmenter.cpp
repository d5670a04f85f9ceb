// The segmenter: what lpsnet/inference/segmenter.py does.
#include <algorithm>
#include <mutex>
#include <thread>

#include "internal.hpp"

namespace lpsnet {
namespace {

struct Runtime {
    const char *name;
    std::unique_ptr<Engine> (*open)(const EngineOptions &);
};

const std::vector<Runtime> &runtimes() {
    static const std::vector<Runtime> table = {
#if LPSNET_OPENVINO
        {"openvino", open_openvino},
#endif
#if LPSNET_ONNXRUNTIME
        {"onnxruntime", open_onnxruntime},
#endif
    };
    return table;
}

const Runtime &find_runtime(const std::string &name) {
    if (name.empty() && !runtimes().empty()) return runtimes().front();
    std::string known;
    for (const Runtime &runtime : runtimes()) {
        if (runtime.name == name) return runtime;
        known += std::string(known.empty() ? "" : ", ") + runtime.name;
    }
    throw Error("there is no runtime '" + one_line(name) + "' in this library; it was built with " + known);
}

Size check_size(Size size) {
    if (size == Size{}) return size;
    if (std::min(size.height, size.width) < min_input || std::max(size.height, size.width) > 65'536)
        throw Error(
            "input_size is height and width in pixels, each 32 to 65536; got " + std::to_string(size.height) + " x " +
            std::to_string(size.width));
    return size;
}

// What one caller needs at a time
struct Slot {
    Workspace memory;
    std::unique_ptr<Request> request;
};

}  // namespace

std::optional<std::vector<int>> choose_paths(
    const std::vector<Size> &found, const std::vector<Ratio> &ratios, Size tried) {
    std::vector<bool> is_taken(found.size(), false);
    std::vector<int> chosen;
    for (const Ratio ratio : ratios) {
        int index = -1;
        if (ratio.numerator != ratio.denominator) {
            const Size wanted = path_size(tried, ratio);
            for (std::size_t i = 0; i < found.size() && index < 0; i++)
                if (!is_taken[i] && found[i] == wanted) index = static_cast<int>(i);
            if (index < 0) return std::nullopt;
            is_taken[static_cast<std::size_t>(index)] = true;
        }
        chosen.push_back(index);
    }
    const bool are_all_taken = std::find(is_taken.begin(), is_taken.end(), false) == is_taken.end();
    if (found.empty() || !are_all_taken) return std::nullopt;
    return chosen;
}

std::vector<std::string> engines() {
    std::vector<std::string> names;
    for (const Runtime &runtime : runtimes()) names.emplace_back(runtime.name);
    return names;
}

struct Segmenter::Impl {
    Record record;
    Size size;
    std::vector<Ratio> ratios;
    std::unique_ptr<Engine> engine;
    std::unique_ptr<Pool> pool;
    std::mutex mutex;
    std::vector<std::unique_ptr<Slot>> free;  // as many are made as there are callers at once

    // Calls `use(logits, image, slot)` with the network's output for the image.
    template <class Use>
    void run(const Image &given, Use use) {
        const Image image = check_image(given, record);
        const Size at =
            size != Size{} ? size : Size{std::max(image.height, min_input), std::max(image.width, min_input)};
        std::unique_ptr<Slot> slot = take();
        slot->memory.trim();
        std::vector<Size> sizes;
        for (const Ratio ratio : ratios) sizes.push_back(path_size(at, ratio));
        const auto inputs = prepare(image, record, at, ratios, engine->layout, slot->memory, *pool);
        use(slot->request->run(inputs, sizes), image, *slot);
        const std::lock_guard lock(mutex);
        free.push_back(std::move(slot));
    }

    std::unique_ptr<Slot> take() {
        {
            const std::lock_guard lock(mutex);
            if (!free.empty()) {
                std::unique_ptr<Slot> slot = std::move(free.back());
                free.pop_back();
                return slot;
            }
        }
        auto slot = std::make_unique<Slot>();
        slot->request = engine->request();
        return slot;
    }
};

Segmenter::Segmenter(const std::string &model, const Options &options) : impl_(std::make_unique<Impl>()) {
    const Runtime &runtime = find_runtime(options.runtime);
    if (options.num_threads < 0 || options.num_threads > 1024)
        throw Error(
            "num_threads is 1 to 1024, or 0 for the engine's choice; got " + std::to_string(options.num_threads));
    const std::string content = read_file(model, "model file");
    impl_->record = record_of(content, model);
    const Size asked = check_size(options.input_size);
    impl_->size = asked != Size{} ? asked : impl_->record.input_size;
    EngineOptions how;
    how.path = model, how.content = &content, how.record = &impl_->record, how.size = impl_->size;
    if (!options.precision.empty()) how.precision = options.precision;
    if (how.precision != "f32" && how.precision != "bf16")
        throw Error("precision is f32 or bf16; got '" + one_line(options.precision) + "'");
    how.path_inputs = options.path_inputs, how.num_threads = options.num_threads;
    impl_->engine = runtime.open(how);
    impl_->ratios = impl_->engine->path_inputs ? impl_->record.ratios : std::vector<Ratio>{{1, 1}};
    const int threads =
        options.num_threads ? options.num_threads : static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
    impl_->pool = std::make_unique<Pool>(threads);
}

Segmenter::~Segmenter() = default;
Segmenter::Segmenter(Segmenter &&) noexcept = default;
Segmenter &Segmenter::operator=(Segmenter &&) noexcept = default;

void Segmenter::segment(const Image &image, std::uint8_t *labels) const {
    if (!labels) throw Error("a label map needs height x width bytes; got none");
    impl_->run(image, [&](const LogitsView &logits, const Image &, Slot &slot) {
        label_map(logits, {image.height, image.width}, impl_->record.align_corners, labels, slot.memory, *impl_->pool);
    });
}

Labels Segmenter::operator()(const Image &image) const {
    Labels labels;
    impl_->run(image, [&](const LogitsView &logits, const Image &checked, Slot &slot) {
        labels = {checked.height, checked.width, {}};
        labels.ids.resize(static_cast<std::size_t>(checked.height) * static_cast<std::size_t>(checked.width));
        label_map(
            logits, {checked.height, checked.width}, impl_->record.align_corners, labels.ids.data(), slot.memory,
            *impl_->pool);
    });
    return labels;
}

Logits Segmenter::logits(const Image &image) const {
    Logits found;
    impl_->run(image, [&](const LogitsView &logits, const Image &, Slot &) {
        found = {logits.classes, logits.height, logits.width, {}};
        const auto count = static_cast<std::size_t>(logits.classes) * static_cast<std::size_t>(logits.height) *
                           static_cast<std::size_t>(logits.width);
        found.values.assign(logits.data, logits.data + count);
    });
    return found;
}

const Record &Segmenter::record() const { return impl_->record; }
std::string Segmenter::engine() const { return impl_->engine->name; }
std::string Segmenter::precision() const { return impl_->engine->precision; }
Size Segmenter::input_size() const { return impl_->size; }
bool Segmenter::path_inputs() const { return impl_->engine->path_inputs; }

}  // namespace lpsnet
