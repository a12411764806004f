// Tables for the Triton kernels, for tensors on any one device. Nothing here reads or writes elements.

#include "python/bindings.hpp"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "python/arguments.hpp"
#include "python/device_tensors.hpp"
#include "python/exchange.hpp"
#include "python/no_collection.hpp"
#include "launch/score_tables.hpp"
#include "python/slice_arguments.hpp"
#include "launch/slice_tables.hpp"
#include "python/sources.hpp"
#include "python/sum_arguments.hpp"
#include "python/torch_tensors.hpp"

namespace py = pybind11;
using py::literals::operator""_a;

namespace gsprune {

namespace {

using Table = py::array_t<std::int64_t>;
using TileSizes = std::vector<std::pair<std::int64_t, std::int64_t>>;

std::vector<TileSize> read_tiles(const TileSizes& sizes) {
    std::vector<TileSize> tiles;
    for (const auto& [rows, columns] : sizes) {
        if (rows < 1 || columns < 1) throw py::value_error("`tiles` must be >= 1 in both directions");
        tiles.push_back({rows, columns});
    }
    if (tiles.empty()) throw py::value_error("`tiles` must not be empty");
    return tiles;
}

constexpr const char* table_name = "gsprune.table";
constexpr const char* results_name = "gsprune.results";
constexpr const char* exchange_name = "gsprune.exchange";

/// Wraps a C++ object that Python only passes on. (Making an object of a pybind11 class crashes when memory runs out.)
template <class T>
py::capsule as_capsule(std::unique_ptr<T> owned, const char* name) {
    py::capsule capsule(owned.get(), name, [](void* object) { delete static_cast<T*>(object); });
    static_cast<void>(owned.release());
    return capsule;
}

template <class T>
T& from_capsule(const py::capsule& capsule, const char* name) {
    auto* object = static_cast<T*>(PyCapsule_GetPointer(capsule.ptr(), name));
    if (object == nullptr) throw py::error_already_set();
    return *object;
}

/// Moves the numbers into an array, without a copy.
Table as_array(std::vector<std::int64_t> table) {
    auto owned = std::make_unique<std::vector<std::int64_t>>(std::move(table));
    const std::vector<std::int64_t>& numbers = *owned;
    const py::capsule owner = as_capsule(std::move(owned), table_name);
    return Table(static_cast<py::ssize_t>(numbers.size()), numbers.data(), owner);
}

dlpack::Device device_of_first(const py::list& tensors) {
    return tensors.empty() ? dlpack::cpu : device_of(tensors[0], {"tensors", 0});
}

/// New tensors that no one has taken yet.
struct Results {
    std::vector<NewTensor> tensors;
    bool is_taken = false;
};

StepLimits read_limits(std::int64_t max_steps, std::int64_t busy_tiles) {
    if (max_steps < 1 || busy_tiles < 1) throw py::value_error("`max_steps` and `busy_tiles` must be >= 1");
    return {max_steps, busy_tiles};
}

py::object make_score_tables(const py::list& tensors, const py::list& axes, const py::object& others,
                             const std::string& statistic, const TileSizes& tiles, std::int64_t fold_outputs,
                             std::int64_t max_steps, std::int64_t busy_tiles) {
    if (fold_outputs < 1) throw py::value_error("`fold_outputs` must be >= 1");
    const ScoreTiling tiling{read_tiles(tiles), fold_outputs, read_limits(max_steps, busy_tiles)};
    const Statistic summand = parse_statistic(statistic);
    const SumArguments arguments = read_sum_arguments(tensors, axes, others, summand, device_of_first(tensors));
    ScoreTables made = score_tables(arguments.jobs, tiling);
    return as_namespace(
        py::dict("table"_a = as_array(std::move(made.table)), "num_jobs"_a = made.num_jobs, "owners"_a = made.owners,
                 "fold_base"_a = made.fold_base, "num_folds"_a = made.num_folds, "fold_owners"_a = made.fold_owners,
                 "programs"_a = made.programs, "fold_programs"_a = made.fold_programs,
                 "num_partials"_a = made.num_partials, "num_sums"_a = made.num_sums, "copies"_a = arguments.copies));
}

py::object make_slice_tables(const py::list& tensors, const py::list& patterns, const py::list& pattern_of,
                             const TileSizes& tiles, std::int64_t max_columns, std::int64_t max_steps,
                             std::int64_t busy_tiles) {
    const SliceTiling tiling{read_tiles(tiles), max_columns, read_limits(max_steps, busy_tiles)};
    check_length(pattern_of.size(), tensors.size(), "pattern_of");
    const NoCollection no_collection;  // a few hundred new objects would trigger a collection
    const Patterns resolved(patterns);
    const dlpack::Device device = device_of_first(tensors);
    std::vector<SliceJob> jobs(tensors.size());
    std::vector<dlpack::DataType> types(tensors.size());
    for (std::size_t i = 0; i < jobs.size(); ++i) {
        read_slice_job(jobs[i], types[i], tensors[i], pattern_of[i], i, resolved, device);
    }
    Sources sources(device);
    for (std::size_t i = 0; i < jobs.size(); ++i) sources.add_dense(jobs[i].source, tensors[i], {"tensors", i});
    const py::object where = tensors.empty() ? py::none() : py::object(tensors[0].attr("device"));
    std::vector<WantedTensor> wanted;
    wanted.reserve(jobs.size());
    for (std::size_t i = 0; i < jobs.size(); ++i) {
        wanted.push_back({&jobs[i].target, types[i], tensors[i], jobs[i].pattern});
    }
    auto results = std::make_unique<Results>();
    results->tensors = new_device_tensors(wanted, resolved.all().size(), where);
    sources.read_addresses();
    SliceTables made = slice_tables(jobs, resolved.all(), tiling);
    return as_namespace(py::dict("results"_a = as_capsule(std::move(results), results_name),
                                 "table"_a = as_array(std::move(made.table)), "num_jobs"_a = made.num_jobs,
                                 "keep_base"_a = made.keep_base, "owners"_a = made.owners, "programs"_a = made.programs,
                                 "copies"_a = sources.copies()));
}

py::list take_results(const py::capsule& capsule) {
    const NoCollection no_collection;
    auto& results = from_capsule<Results>(capsule, results_name);
    if (std::exchange(results.is_taken, true)) throw std::runtime_error("`results` were taken before");
    py::list made(results.tensors.size());
    for (std::size_t i = 0; i < made.size(); ++i) made[i] = results.tensors[i].hand_over();
    return made;
}

/// An `Exchange` of tensors on any one device, with replacements made by the caller.
class PreparedExchange {
public:
    /// Copies the lists, because the caller's may change before `install`.
    PreparedExchange(const py::list& tensors, std::size_t num_owned, const py::list& entries)
        : exchange_(copy_of(tensors), num_owned, copy_of(entries)) {
        views_.reserve(exchange_.tensors().size());
        read([this](std::size_t, const View& view) { views_.push_back(view); });
    }

    void install(const py::list& replacements) {
        check_length(replacements.size(), views_.size(), "replacements");
        if (std::exchange(is_used_, true)) throw std::runtime_error("`exchange` was installed before");
        read([this](std::size_t i, const View& now) {
            if (now.data == views_[i].data && equal_layout(now, views_[i])) return;
            throw std::runtime_error("`tensors[" + text(i) + "]` was changed while it was sliced");
        });
        const NoCollection no_collection;
        exchange_.install(replacements, [this](std::size_t i) -> const View& { return views_[i]; });
    }

private:
    template <class Use>
    void read(const Use& use) const {
        const py::list& tensors = exchange_.tensors();
        const dlpack::Device device = device_of_first(tensors);
        for (std::size_t i = 0; i < tensors.size(); ++i) use(i, read_tensor(tensors[i], {"tensors", i}, device).view);
    }

    static py::list copy_of(const py::list& list) {
        PyObject* copy = PyList_GetSlice(list.ptr(), 0, PY_SSIZE_T_MAX);
        if (copy == nullptr) throw py::error_already_set();
        return py::reinterpret_steal<py::list>(copy);
    }

    Exchange exchange_;
    std::vector<View> views_;
    bool is_used_ = false;
};

py::capsule prepare_exchange(const py::list& tensors, std::size_t num_owned, const py::list& entries) {
    return as_capsule(std::make_unique<PreparedExchange>(tensors, num_owned, entries), exchange_name);
}

void install_exchange(const py::capsule& exchange, const py::list& replacements) {
    from_capsule<PreparedExchange>(exchange, exchange_name).install(replacements);
}

}  // namespace

void bind_launch(py::module_& module) {
    module.def("score_tables", &make_score_tables, py::arg("tensors"), py::arg("axes"), py::arg("others"),
               py::arg("statistic"), py::arg("tiles"), py::arg("fold_outputs"), py::arg("max_steps"),
               py::arg("busy_tiles"),
               "The fields of `ScoreTables`, and `copies` of tensors that must outlive the launch.");
    module.def("slice_tables", &make_slice_tables, py::arg("tensors"), py::arg("patterns"), py::arg("pattern_of"),
               py::arg("tiles"), py::arg("max_columns"), py::arg("max_steps"), py::arg("busy_tiles"),
               "The fields of `SliceTables`, new unfilled tensors as `results`, and `copies` of tensors that must"
               " outlive the launch.");
    module.def("take_results", &take_results, py::arg("results"), "Return the new tensors; to be called once.");
    module.def("prepare_exchange", &prepare_exchange, py::arg("tensors"), py::arg("num_owned"), py::arg("entries"),
               "An argument for `install_exchange`, which keeps the tensors' memory alive.");
    module.def("install_exchange", &install_exchange, py::arg("exchange"), py::arg("replacements"),
               "Give the tensors the storage of their replacements and set every (dictionary, key, value), or change"
               " nothing on failure.");
}

}  // namespace gsprune
