// A few threads that wait for parts of a loop: starting them anew for every image would take as long as the loop.
#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

#include "internal.hpp"

namespace lpsnet {

struct Pool::State {
    std::mutex mutex;
    std::condition_variable work;
    std::deque<std::function<void()>> waiting;
    std::vector<std::thread> threads;
    bool is_over = false;

    void serve() {
        for (;;) {
            std::unique_lock lock(mutex);
            work.wait(lock, [&] { return is_over || !waiting.empty(); });
            if (waiting.empty()) return;
            const auto task = std::move(waiting.front());
            waiting.pop_front();
            lock.unlock();
            task();
        }
    }
};

Pool::Pool(int num_threads) : state_(std::make_unique<State>()) {
    for (int i = 1; i < num_threads; i++) state_->threads.emplace_back([state = state_.get()] { state->serve(); });
}

Pool::~Pool() {
    {
        const std::lock_guard lock(state_->mutex);
        state_->is_over = true;
    }
    state_->work.notify_all();
    for (auto &thread : state_->threads) thread.join();
}

int Pool::size() const { return static_cast<int>(state_->threads.size()) + 1; }

void Pool::in_bands(std::int64_t length, int num_bands, const std::function<void(std::int64_t, std::int64_t)> &fill) {
    const std::int64_t bands = std::max<std::int64_t>(1, std::min<std::int64_t>({num_bands, size(), length}));
    std::mutex mutex;
    std::condition_variable done;
    std::int64_t left = bands - 1;
    std::exception_ptr error;
    const auto part = [&](std::int64_t band) {
        try {
            fill(length * band / bands, length * (band + 1) / bands);
        } catch (...) {
            const std::lock_guard lock(mutex);
            error = std::current_exception();
        }
    };
    for (std::int64_t band = 1; band < bands; band++) {
        const std::lock_guard lock(state_->mutex);
        state_->waiting.emplace_back([&, band] {
            part(band);
            const std::lock_guard finished(mutex);
            if (--left == 0) done.notify_one();
        });
        state_->work.notify_one();
    }
    part(0);
    std::unique_lock lock(mutex);
    done.wait(lock, [&] { return left == 0; });
    if (error) std::rethrow_exception(error);
}

}  // namespace lpsnet
