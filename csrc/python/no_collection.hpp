#pragma once

#include <Python.h>

namespace gsprune {

/// Disables garbage collection during a scope. A collection may run Python code, in which signals are handled and other
/// threads run. Needs the GIL.
class NoCollection {
public:
    NoCollection() noexcept : was_enabled_(PyGC_Disable() != 0) {}
    ~NoCollection() {
        if (was_enabled_) PyGC_Enable();
    }
    NoCollection(const NoCollection&) = delete;
    NoCollection& operator=(const NoCollection&) = delete;

private:
    bool was_enabled_;
};

}  // namespace gsprune
