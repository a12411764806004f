// Scores, slices and selects random tensors on several threads and compares with loops that leave no room for error.
// scripts/sanitize.sh builds it with the sanitizers; it needs no Python.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "memory/block_pool.hpp"
#include "parallel/tasks.hpp"
#include "score/axis_sums.hpp"
#include "select/select.hpp"
#include "slice/slice.hpp"

#include "table_kernels.hpp"

namespace {

using gsprune::Isa;
using Random = std::mt19937_64;

void check(bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "FAILED: %s\n", what);
    std::exit(1);
}

std::int64_t draw(Random& random, std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random);
}

void slice_all(const std::vector<gsprune::SliceJob>& jobs, const std::vector<gsprune::SlicePattern>& patterns, Isa isa,
               int num_threads, std::int64_t stream_from) {
    gsprune::SliceTasks(jobs, gsprune::slice_order(jobs), patterns, isa, num_threads, stream_from).finish();
}

std::vector<Isa> available_isas() {
    std::vector<Isa> isas{Isa::plain};
    if (gsprune::best_isa() >= Isa::avx2) isas.push_back(Isa::avx2);
    return isas;
}

/// A tensor in memory of exactly its size, so that reading past its end is seen.
struct Tensor {
    gsprune::View view;
    std::unique_ptr<std::byte[]> memory;

    Tensor(Random& random, std::int64_t itemsize, std::int64_t largest) {
        view.ndim = static_cast<int>(draw(random, 1, 4));
        view.itemsize = itemsize;
        gsprune::Order order{};
        for (int dim = 0; dim < view.ndim; ++dim) {
            const auto d = static_cast<std::size_t>(dim);
            view.shape[d] = draw(random, 1, dim == 0 ? largest : largest / 4);
            order[d] = dim;
        }
        std::shuffle(order.begin(), order.begin() + view.ndim, random);
        gsprune::set_dense_strides(view, order);
        const auto num_bytes = static_cast<std::size_t>(view.numel() * itemsize);
        memory.reset(new std::byte[num_bytes]);
        view.data = memory.get();
        fill(random);
    }

    void fill(Random& random) {
        for (std::int64_t i = 0; i < view.numel(); ++i) {
            const float value = std::uniform_real_distribution<float>(-1.0F, 1.0F)(random);
            if (view.itemsize == 4) {
                std::memcpy(view.data + 4 * i, &value, 4);
            } else {
                for (std::int64_t byte = 0; byte < view.itemsize; ++byte) {
                    view.data[view.itemsize * i + byte] = static_cast<std::byte>(draw(random, 0, 255));
                }
            }
        }
    }
};

/// Visits every index of a shape.
template <class Visit>
void for_each_index(const gsprune::View& view, Visit visit) {
    std::array<std::int64_t, gsprune::max_dims> index{};
    for (std::int64_t i = 0; i < view.numel(); ++i) {
        visit(index);
        for (int dim = view.ndim - 1; dim >= 0; --dim) {
            const auto d = static_cast<std::size_t>(dim);
            if (++index[d] < view.shape[d]) break;
            index[d] = 0;
        }
    }
}

const std::byte* at(const gsprune::View& view, const std::array<std::int64_t, gsprune::max_dims>& index) {
    std::int64_t offset = 0;
    for (std::size_t dim = 0; dim < static_cast<std::size_t>(view.ndim); ++dim)
        offset += index[dim] * view.strides[dim];
    return view.data + offset * view.itemsize;
}

void test_scores(Random& random, Isa isa, int num_threads) {
    Tensor tensor(random, 4, 60);
    gsprune::SumJob job;
    job.values = tensor.view;
    job.others = tensor.view;
    job.dtype = gsprune::DType::float32;
    std::vector<std::vector<double>> sums;
    std::vector<std::vector<double>> expected;
    for (int axis = 0; axis < tensor.view.ndim; ++axis) {
        job.axes.push_back(axis);
        const auto size = static_cast<std::size_t>(tensor.view.shape[static_cast<std::size_t>(axis)]);
        sums.emplace_back(size, NAN);
        expected.emplace_back(size, 0.0);
    }
    for (auto& vector : sums) job.results.push_back(vector.data());
    gsprune::axis_sums({job}, gsprune::Statistic::product, isa, num_threads);
    for_each_index(tensor.view, [&](const auto& index) {
        float value = 0.0F;
        std::memcpy(&value, at(tensor.view, index), sizeof value);
        for (std::size_t axis = 0; axis < expected.size(); ++axis) {
            expected[axis][static_cast<std::size_t>(index[axis])] +=
                static_cast<double>(value) * static_cast<double>(value);
        }
    });
    for (std::size_t axis = 0; axis < expected.size(); ++axis) {
        for (std::size_t i = 0; i < expected[axis].size(); ++i) {
            check(std::fabs(sums[axis][i] - expected[axis][i]) <= 1e-9 * expected[axis][i], "sums");
        }
    }
}

std::vector<std::int64_t> draw_positions(Random& random, std::int64_t size, std::int64_t percent) {
    std::vector<std::int64_t> positions;
    for (std::int64_t i = 0; i < size; ++i) {
        if (draw(random, 1, 100) <= percent) positions.push_back(i);
    }
    if (positions.empty()) positions.push_back(draw(random, 0, size - 1));
    return positions;
}

/// A tensor of which every axis is sliced, with memory for the slice.
struct Slicing {
    Tensor tensor;
    std::vector<std::vector<std::int64_t>> positions;
    std::vector<gsprune::Keep> keeps;
    gsprune::SlicePattern pattern;
    gsprune::SliceJob job;
    std::unique_ptr<std::byte[]> memory;

    Slicing(Random& random, std::int64_t itemsize, std::int64_t largest) : tensor(random, itemsize, largest) {
        const auto ndim = static_cast<std::size_t>(tensor.view.ndim);
        positions.resize(ndim);
        keeps.resize(ndim);
        job = {tensor.view, tensor.view, 0};
        for (std::size_t axis = 0; axis < ndim; ++axis) {
            positions[axis] = draw_positions(random, tensor.view.shape[axis], draw(random, 1, 110));
            const auto count = static_cast<std::int64_t>(positions[axis].size());
            check(gsprune::resolve_keep(positions[axis].data(), count, keeps[axis]) == -1, "positions are sorted");
            pattern.push_back({static_cast<int>(axis), &keeps[axis]});
            job.target.shape[axis] = count;
        }
        gsprune::set_dense_strides(job.target, gsprune::memory_order(job.source));
        const auto num_bytes = static_cast<std::size_t>(job.target.numel() * job.target.itemsize);
        memory.reset(new std::byte[num_bytes]);
        job.target.data = memory.get();
        std::memset(job.target.data, 0xAB, num_bytes);
    }

    void check_filled(const char* what) const {
        for_each_index(job.target, [&](const auto& index) {
            auto source = index;
            for (std::size_t axis = 0; axis < positions.size(); ++axis) {
                source[axis] = positions[axis][static_cast<std::size_t>(index[axis])];
            }
            const auto size = static_cast<std::size_t>(job.target.itemsize);
            check(std::memcmp(at(job.target, index), at(job.source, source), size) == 0, what);
        });
    }
};

std::int64_t draw_itemsize(Random& random) { return std::int64_t{1} << draw(random, 0, 4); }

void test_slice(Random& random, Isa isa, int num_threads, std::int64_t largest) {
    const Slicing slicing(random, draw_itemsize(random), largest);
    const std::int64_t stream_from = draw(random, 0, 1) == 0 ? 0 : gsprune::min_stream_bytes();
    slice_all({slicing.job}, {slicing.pattern}, isa, num_threads, stream_from);
    slicing.check_filled("slice");
}

/// Several tensors of one pattern each, two of them alike, by the table of one launch.
void test_slice_tables(Random& random) {
    const gsprune::SliceTiling tiling{
        {{1, 64}, {4, 16}, {16, 4}}, std::int64_t{1} << 20U, {draw(random, 1, 4), draw(random, 1, 40)}};
    std::vector<Slicing> slicings;
    for (int i = 0; i < 3; ++i) slicings.emplace_back(random, draw_itemsize(random), 30);
    std::vector<gsprune::SliceJob> jobs;
    std::vector<gsprune::SlicePattern> patterns;
    for (const Slicing& slicing : slicings) {
        jobs.push_back(slicing.job);
        jobs.back().pattern = patterns.size();
        patterns.push_back(slicing.pattern);
    }
    const std::unique_ptr<std::byte[]> copy(
        new std::byte[static_cast<std::size_t>(slicings[0].job.target.numel() * slicings[0].job.target.itemsize)]);
    jobs.push_back(jobs[0]);
    jobs.back().target.data = copy.get();
    run_slice_kernel(gsprune::slice_tables(jobs, patterns, tiling), tiling.tiles);
    for (const Slicing& slicing : slicings) slicing.check_filled("slice by a table");
    const auto num_bytes = static_cast<std::size_t>(jobs[0].target.numel() * jobs[0].target.itemsize);
    check(std::memcmp(copy.get(), jobs[0].target.data, num_bytes) == 0, "slices of a kind");
}

void test_score_tables(Random& random) {
    const gsprune::ScoreTiling tiling{{{4, 16}, {16, 4}}, 8, {draw(random, 1, 4), draw(random, 1, 40)}};
    std::vector<Tensor> tensors;
    std::vector<gsprune::SumJob> jobs(3);
    for (gsprune::SumJob& job : jobs) {
        tensors.emplace_back(random, 4, 60);
        job.values = tensors.back().view;
        job.dtype = gsprune::DType::float32;
        for (int axis = 0; axis < job.values.ndim; ++axis) {
            if (draw(random, 0, 3) > 0) job.axes.push_back(axis);
        }
        std::shuffle(job.axes.begin(), job.axes.end(), random);
    }
    const std::vector<double> found = run_score_kernels(gsprune::score_tables(jobs, tiling), tiling);
    std::vector<double> expected(found.size(), NAN);
    std::size_t next = 0;
    for (gsprune::SumJob& job : jobs) {
        for (const int axis : job.axes) {
            job.results.push_back(expected.data() + next);
            next += static_cast<std::size_t>(job.values.shape[static_cast<std::size_t>(axis)]);
        }
    }
    check(next == expected.size(), "sums of a table are one array");
    gsprune::axis_sums(jobs, gsprune::Statistic::abs, Isa::plain, 1);
    for (std::size_t i = 0; i < found.size(); ++i) {
        check(std::fabs(found[i] - expected[i]) <= 1e-9 * expected[i], "sums by a table");
    }
}

/// Bytes that end with their block of the heap, `offset` bytes behind its start.
struct Edge {
    std::int64_t offset;
    std::int64_t num_bytes;
    std::unique_ptr<std::byte[]> memory;

    Edge(std::int64_t offset_, std::int64_t num_bytes_)
        : offset(offset_),
          num_bytes(num_bytes_),
          memory(new std::byte[static_cast<std::size_t>(offset_ + num_bytes_)]) {
        for (std::int64_t i = 0; i < offset + num_bytes; ++i) memory[static_cast<std::size_t>(i)] = std::byte{0xAB};
    }

    [[nodiscard]] std::byte* data() const { return memory.get() + offset; }
};

/// A few rows of `width` units, sliced from one edge to another, at odd addresses.
void test_slice_at_edges(Random& random, Isa isa, std::int64_t itemsize, std::int64_t width, std::int64_t percent) {
    const std::int64_t num_rows = draw(random, 1, 6);
    const std::int64_t unit = draw(random, 1, 3);
    const std::vector<std::int64_t> positions = draw_positions(random, width, percent);
    const auto count = static_cast<std::int64_t>(positions.size());
    const std::int64_t kept_bytes = num_rows * count * unit * itemsize;
    const Edge source(draw(random, 0, 70), num_rows * width * unit * itemsize);
    const Edge target(draw(random, 0, 1) == 0 ? 0 : draw(random, 1, 70), kept_bytes);
    for (std::int64_t i = 0; i < source.num_bytes; ++i) source.data()[i] = static_cast<std::byte>(random());
    gsprune::Keep keep;
    gsprune::resolve_keep(positions.data(), count, keep);
    gsprune::SliceJob job;
    job.source = {source.data(), 3, itemsize, {num_rows, width, unit}, {width * unit, unit, 1}};
    job.target = {target.data(), 3, itemsize, {num_rows, count, unit}, {count * unit, unit, 1}};
    job.pattern = 0;
    slice_all({job}, {{{1, &keep}}}, isa, 2, draw(random, 0, 1) == 0 ? 0 : gsprune::min_stream_bytes());
    for (std::int64_t i = 0; i < target.offset; ++i) {
        check(target.memory[static_cast<std::size_t>(i)] == std::byte{0xAB}, "nothing before the target is written");
    }
    const std::int64_t bytes = unit * itemsize;
    for (std::int64_t i = 0; i < num_rows * count; ++i) {
        const std::int64_t from = i / count * width + positions[static_cast<std::size_t>(i % count)];
        const auto size = static_cast<std::size_t>(bytes);
        check(std::memcmp(target.data() + i * bytes, source.data() + from * bytes, size) == 0, "slice at edges");
    }
}

void test_slices_at_edges() {
    Random random(4);
    constexpr std::int64_t percents[] = {2, 10, 30, 50, 70, 90, 95, 100};
    for (const Isa isa : available_isas()) {
        for (const std::int64_t itemsize : {1, 2, 4, 8, 16}) {
            for (std::int64_t width = 1; width <= 200; ++width) {
                test_slice_at_edges(random, isa, itemsize, width, percents[draw(random, 0, 7)]);
            }
        }
    }
}

void test_selection(Random& random) {
    const std::int64_t count = draw(random, 1, 300);
    std::vector<float> scores(static_cast<std::size_t>(count));
    for (float& score : scores) score = static_cast<float>(draw(random, -3, 3));
    const std::int64_t num_kept = draw(random, 0, count);
    std::vector<std::uint64_t> keys(scores.size());
    const std::int64_t bounds[] = {0, count};
    const auto keep = std::make_unique<bool[]>(scores.size());
    gsprune::select_groups(scores.data(), bounds, 1, &num_kept, keys.data(), keep.get());
    check(std::count(keep.get(), keep.get() + count, true) == num_kept, "as many kept as asked for");
}

/// Blocks of all sizes, many at once: each keeps what is written at its ends for as long as it is held.
void test_blocks(Random& random, int num_steps) {
    struct Held {
        unsigned char* memory;
        std::size_t size, checked;
        unsigned char mark;
    };
    std::vector<Held> held;
    const auto release = [&](std::size_t which) {
        const Held block = held[which];
        for (std::size_t i = 0; i < block.checked; ++i) {
            check(block.memory[i] == block.mark && block.memory[block.size - 1 - i] == block.mark, "a block's bytes");
        }
        gsprune::release_block(block.memory);
        held[which] = held.back();
        held.pop_back();
    };
    for (int step = 0; step < num_steps; ++step) {
        if (!held.empty() && draw(random, 0, 60) < static_cast<std::int64_t>(held.size())) {
            release(static_cast<std::size_t>(draw(random, 0, static_cast<std::int64_t>(held.size()) - 1)));
            continue;
        }
        const auto size = static_cast<std::size_t>(draw(random, 1, std::int64_t{1} << draw(random, 0, 23)));
        auto* memory = static_cast<unsigned char*>(gsprune::acquire_block(size));
        check(reinterpret_cast<std::uintptr_t>(memory) % 64 == 0, "a block's alignment");
        held.push_back({memory, size, std::min<std::size_t>(size, 100), static_cast<unsigned char>(step)});
        std::memset(memory, held.back().mark, held.back().checked);
        std::memset(memory + size - held.back().checked, held.back().mark, held.back().checked);
    }
    while (!held.empty()) release(held.size() - 1);
}

/// Every task of a run is done once; one that is given up does none any more, and both leave the helpers to the next.
void test_runs(Random& random) {
    const std::int64_t num_tasks = draw(random, 0, 200);
    const int num_threads = static_cast<int>(draw(random, 1, 4));
    std::vector<std::atomic<int>> counts(static_cast<std::size_t>(num_tasks));
    auto body = [&](std::int64_t task) noexcept { counts[static_cast<std::size_t>(task)].fetch_add(1); };
    const bool is_finished = draw(random, 0, 1) == 1;
    if (draw(random, 0, 1) == 1) gsprune::expect_tasks(num_threads);
    if (draw(random, 0, 9) == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));  // expectations are over
    {
        gsprune::Tasks run(num_tasks, num_threads, gsprune::task_body(body), &body);
        if (draw(random, 0, 1) == 1) gsprune::expect_tasks(num_threads);  // in vain: the helpers are taken
        if (is_finished) run.finish();
    }
    for (const std::atomic<int>& count : counts) {
        check(count == 1 || (count == 0 && !is_finished), "tasks are done once");
    }
}

void test_everything(std::uint64_t seed, int rounds) {
    Random random(seed);
    for (int round = 0; round < rounds; ++round) {
        for (const Isa isa : available_isas()) {
            const int num_threads = static_cast<int>(draw(random, 1, 4));
            test_scores(random, isa, num_threads);
            test_slice(random, isa, num_threads, 60);
        }
        test_slice_tables(random);
        test_score_tables(random);
        test_selection(random);
        for (int i = 0; i < 20; ++i) test_runs(random);
        test_blocks(random, 200);
    }
    for (const Isa isa : available_isas()) test_slice(random, isa, 3, 400);
}

}  // namespace

int main(int argc, char** argv) {
    const int rounds = argc > 1 ? std::atoi(argv[1]) : 30;
    test_everything(1, rounds);
    test_slices_at_edges();
    // Two callers at once: one gets the workers, the other works alone.
    std::thread other([rounds] { test_everything(2, rounds); });
    test_everything(3, rounds);
    other.join();
    gsprune::trim_reserve();
    const gsprune::PoolUse use = gsprune::pool_use();
    check(use.in_use == 0 && use.in_reserve == 0, "every block has come back");
    std::puts("ok");
    return 0;
}
