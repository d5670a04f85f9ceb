// Segments a camera or a video with OpenCV's VideoCapture: segment_video MODEL SOURCE OUT [RUNTIME [THREADS]]
//
// SOURCE is the number of a camera (0 is the first) or a video file. OUT is a video file of overlays, or - for none.
// Ends at the end of the video, or with Ctrl-C; prints the time of an image at the end of every second.
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

#include <lpsnet/lpsnet.hpp>
#include <opencv2/imgproc.hpp>
#include <opencv2/videoio.hpp>

static volatile std::sig_atomic_t is_over = 0;

int main(int count, char **words) try {
    if (count < 4 || count > 6) {
        std::fprintf(stderr, "usage: %s MODEL SOURCE OUT [RUNTIME [THREADS]]\n", words[0]);
        return 2;
    }
    lpsnet::Options options;
    if (count > 4) options.runtime = words[4];
    if (count > 5) options.num_threads = std::atoi(words[5]);
    const lpsnet::Segmenter segment(words[1], options);
    const std::string source = words[2], out = words[3];
    const bool is_camera = source.find_first_not_of("0123456789") == std::string::npos;
    cv::VideoCapture capture;
    if (!(is_camera ? capture.open(std::atoi(source.c_str())) : capture.open(source)))
        throw lpsnet::Error("no camera or video can be opened at " + source);
    std::signal(SIGINT, [](int) { is_over = 1; });

    cv::VideoWriter writer;
    cv::Mat frame, rgb, drawn;
    using Clock = std::chrono::steady_clock;
    auto said = Clock::now();
    double busy_ms = 0;
    int num_images = 0, num_all = 0;
    while (!is_over && capture.read(frame)) {
        cv::cvtColor(frame, rgb, cv::COLOR_BGR2RGB);
        const lpsnet::Image image{rgb.data, rgb.rows, rgb.cols, static_cast<std::ptrdiff_t>(rgb.step)};
        const auto begin = Clock::now();
        const lpsnet::Labels labels = segment(image);
        busy_ms += std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
        num_images++, num_all++;
        if (out != "-") {
            lpsnet::Picture overlay = lpsnet::overlay(image, labels.ids.data(), segment.record());
            cv::cvtColor(cv::Mat(rgb.rows, rgb.cols, CV_8UC3, overlay.pixels.data()), drawn, cv::COLOR_RGB2BGR);
            const double rate = capture.get(cv::CAP_PROP_FPS);
            if (!writer.isOpened() &&
                !writer.open(out, cv::VideoWriter::fourcc('m', 'p', '4', 'v'), rate > 0 ? rate : 25, drawn.size()))
                throw lpsnet::Error(out + " cannot be written");
            writer.write(drawn);
        }
        if (Clock::now() - said > std::chrono::seconds(1)) {
            std::printf("%.1f ms an image\n", busy_ms / num_images);
            busy_ms = num_images = 0, said = Clock::now();
        }
    }
    std::printf("%d images with %s\n", num_all, segment.engine().c_str());
    return 0;
} catch (const std::exception &error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
}
