#pragma once

#include <pybind11/pybind11.h>

#include <stdexcept>
#include <vector>

#include "python/arguments.hpp"
#include "python/torch_tensors.hpp"
#include "tensor/dlpack.hpp"
#include "tensor/views.hpp"

namespace gsprune {

/// Tensors that a kernel reads, all of them dense. Their addresses are read last, because making other tensors may run
/// Python code (of modes or subclasses) that moves them.
class Sources {
public:
    explicit Sources(const dlpack::Device& device) : device_(device) {}

    /// `view` is the view of `tensor`; it must outlive this object.
    void add(View& view, pybind11::handle tensor, const ArgumentName& name) {
        sources_.push_back({&view, pybind11::reinterpret_borrow<pybind11::object>(tensor), name});
    }

    /// Adds a dense copy with the dimensions in `order`.
    void add_copy(View& view, pybind11::handle tensor, const Order& order) {
        set_dense_strides(view, order);
        const pybind11::object copy = empty_tensor(view, tensor, tensor.attr("device"));
        copy.attr("copy_")(tensor.attr("detach")());
        copies_.append(copy);
    }

    /// Adds the tensor, or a copy if it has gaps or overlaps.
    void add_dense(View& view, pybind11::handle tensor, const ArgumentName& name) {
        const Order order = memory_order(view);
        if (view.numel() == 0 || is_dense(view, order)) {
            add(view, tensor, name);
        } else {
            add_copy(view, tensor, order);
        }
    }

    /// Call this after the last tensor has been made. Throws std::runtime_error if a tensor has changed its layout.
    void read_addresses() const {
        for (const Source& source : sources_) {
            const View now = read_tensor(source.tensor, source.name, device_).view;
            if (!equal_layout(now, *source.view)) {
                throw std::runtime_error("`" + source.name.text() +
                                         "` changed its layout while the launch was prepared");
            }
            source.view->data = now.data;
        }
    }

    /// These must outlive the kernel.
    [[nodiscard]] const pybind11::list& copies() const noexcept { return copies_; }

private:
    struct Source {
        View* view;
        pybind11::object tensor;
        ArgumentName name;
    };

    dlpack::Device device_;
    std::vector<Source> sources_;
    pybind11::list copies_;
};

}  // namespace gsprune
