#include "python/bindings.hpp"

#include <pybind11/stl.h>

#include "python/cut_plan.hpp"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "python/arguments.hpp"
#include "python/exchange.hpp"
#include "python/no_collection.hpp"
#include "parallel/tasks.hpp"
#include "slice/slice.hpp"
#include "python/slice_arguments.hpp"
#include "python/torch_tensors.hpp"

namespace py = pybind11;

namespace gsprune {

namespace {

/// The slices of one call: checked, then allocated, then filled while torch makes the tensor objects.
class Slices {
public:
    Slices(const py::list& tensors, const py::list& patterns, const py::list& pattern_of, int num_threads)
        : tensors_(tensors),
          patterns_(patterns),
          num_threads_(num_threads),
          jobs_(tensors.size()),
          types_(tensors.size()),
          made_(tensors.size()) {
        check_length(pattern_of.size(), tensors.size(), "pattern_of");
        std::int64_t num_bytes = 0;
        for (std::size_t i = 0; i < tensors.size(); ++i) {
            SliceJob& job = jobs_[i];
            read_slice_job(job, types_[i], tensors[i], pattern_of[i], i, patterns_, dlpack::cpu);
            const std::int64_t before = num_bytes;
            num_bytes += job.target.numel() * job.target.itemsize;
            if (before < min_parallel_bytes && num_bytes >= min_parallel_bytes) expect_tasks(num_threads);
        }
    }

    /// Allocates the largest slices first, so that the pool's blocks fit more tensors.
    void allocate() {
        new_.reserve(jobs_.size());
        order_ = slice_order(jobs_);
        for (const std::size_t i : order_) new_.push_back(new_cpu_tensor(jobs_[i].target, types_[i], tensors_[i]));
    }

    [[nodiscard]] SliceTasks begin(Isa isa) const {
        return SliceTasks(jobs_, order_, patterns_.all(), isa, num_threads_);
    }

    /// The tensors. They live at least as long as this object, because other threads may be filling them.
    const py::list& make() {
        for (std::size_t i = 0; i < order_.size(); ++i) made_[order_[i]] = new_[i].hand_over();
        return made_;
    }

    [[nodiscard]] const std::vector<SliceJob>& jobs() const noexcept { return jobs_; }

private:
    py::list tensors_;
    Patterns patterns_;
    int num_threads_;
    std::vector<SliceJob> jobs_;
    std::vector<dlpack::DataType> types_;
    std::vector<std::size_t> order_;
    std::vector<NewTensor> new_;  // in the order of `order_`
    py::list made_;
};

py::list slice_tensors(const py::list& tensors, const py::list& patterns, const py::list& pattern_of, int num_threads,
                       const std::string& isa) {
    check_threads(num_threads);
    const Isa instructions = parse_isa(isa);
    Slices slices(tensors, patterns, pattern_of, num_threads);
    slices.allocate();
    SliceTasks run = slices.begin(instructions);
    const py::list made = slices.make();
    {
        const py::gil_scoped_release unlocked;
        run.finish();
    }
    return made;
}

/// The slices are filled before they are visible. From reading the addresses until then the GIL is held and no Python
/// code runs, so no tensor's memory can be freed.
void rewrite_tensors(const py::list& tensors, const py::list& patterns, const py::list& pattern_of,
                     std::size_t num_owned, const py::list& entries, int num_threads, const std::string& isa) {
    check_threads(num_threads);
    const Isa instructions = parse_isa(isa);
    const NoCollection no_collection;
    Exchange exchange(tensors, num_owned, entries);
    Slices slices(tensors, patterns, pattern_of, num_threads);
    slices.allocate();
    SliceTasks run = slices.begin(instructions);
    const py::list& made = slices.make();
    run.finish();
    exchange.install(made, [&slices](std::size_t i) -> const View& { return slices.jobs()[i].source; });
}

}  // namespace

void bind_slice(py::module_& module) {
    module.def("plan_cuts", &plan_cuts, py::arg("cuts"), py::arg("keeps"), py::arg("starts"), py::arg("modules"),
               py::arg("states"), "Plan a step: the tensors to slice and the integers to set. Changes nothing.");
    module.def("slice", &slice_tensors, py::arg("tensors"), py::arg("patterns"), py::arg("pattern_of"),
               py::arg("num_threads"), py::arg("isa"), "The kept part of every tensor in new tensors.");
    module.def(
        "rewrite", &rewrite_tensors, py::arg("tensors"), py::arg("patterns"), py::arg("pattern_of"),
        py::arg("num_owned"), py::arg("entries"), py::arg("num_threads"), py::arg("isa"),
        "Replace every tensor by its slice and set every (dictionary, key, value), or change nothing on failure.");
}

}  // namespace gsprune
