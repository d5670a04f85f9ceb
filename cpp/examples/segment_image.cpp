// Segments an image: segment_image MODEL IMAGE OUT [RUNTIME [THREADS]]
//
// IMAGE is a PPM file, or a PNG file if this was built with libpng. Writes OUT.labels.pgm, the class of every pixel,
// and OUT.overlay.ppm, the image under the colours of its classes; prints the share of each class.
#include <array>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

#include <lpsnet/lpsnet.hpp>

#if LPSNET_PNG
#include <png.h>
#endif

static lpsnet::Picture read_image(const std::string &path) {
#if LPSNET_PNG
    if (path.size() > 4 && path.substr(path.size() - 4) == ".png") {
        png_image header{};
        header.version = PNG_IMAGE_VERSION;
        lpsnet::Picture picture;
        bool done = png_image_begin_read_from_file(&header, path.c_str()) != 0;
        if (done && header.format & (PNG_FORMAT_FLAG_ALPHA | PNG_FORMAT_FLAG_LINEAR)) {
            png_image_free(&header);
            throw lpsnet::Error(path + " is transparent or of 16 bits; save it as 8-bit RGB");
        }
        if (done) {
            header.format = PNG_FORMAT_RGB;
            picture = {static_cast<int>(header.height), static_cast<int>(header.width), {}};
            picture.pixels.resize(PNG_IMAGE_SIZE(header));
            done = png_image_finish_read(&header, nullptr, picture.pixels.data(), 0, nullptr) != 0;
        }
        if (!done) throw lpsnet::Error(path + " cannot be read: " + header.message);
        return picture;
    }
#endif
    return lpsnet::read_ppm(path);
}

int main(int count, char **words) try {
    if (count < 4 || count > 6) {
        std::fprintf(stderr, "usage: %s MODEL IMAGE OUT [RUNTIME [THREADS]]\n", words[0]);
        return 2;
    }
    lpsnet::Options options;
    if (count > 4) options.runtime = words[4];
    if (count > 5) options.num_threads = std::atoi(words[5]);
    const lpsnet::Picture image = read_image(words[2]);
    const lpsnet::Segmenter segment(words[1], options);
    const lpsnet::Labels labels = segment(image.view());

    const std::string out = words[3];
    lpsnet::write_pgm(out + ".labels.pgm", labels);
    lpsnet::write_ppm(out + ".overlay.ppm", lpsnet::overlay(image.view(), labels.ids.data(), segment.record()));

    std::array<std::size_t, 256> pixels{};
    for (const std::uint8_t label : labels.ids) pixels[label]++;
    for (std::size_t label = 0; label < segment.record().class_names.size(); label++)
        if (pixels[label])
            std::printf(
                "%5.1f %%  %s\n", 100.0 * static_cast<double>(pixels[label]) / static_cast<double>(labels.ids.size()),
                segment.record().class_names[label].c_str());
    std::printf("%s; wrote %s.labels.pgm and %s.overlay.ppm\n", segment.engine().c_str(), out.c_str(), out.c_str());
    return 0;
} catch (const std::exception &error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
}
