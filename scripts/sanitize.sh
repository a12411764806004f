#!/bin/sh
# Builds the core without Python under AddressSanitizer and UndefinedBehaviorSanitizer, then under ThreadSanitizer, and
# runs its C++ tests; then compiles it for aarch64 where a cross compiler is installed. Any report fails the script.
# Usage: scripts/sanitize.sh [rounds]
set -eu

cd "$(dirname "$0")/.."
compiler=${CXX:-g++}
rounds=${1:-30}
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT

core=$(ls csrc/*/*.cpp | grep -v csrc/python/)
flags="-std=c++17 -O1 -g1 -ffp-contract=off -fno-omit-frame-pointer -Wall -Wextra -Wconversion -Werror -Icsrc -pthread"

for sanitizers in address,undefined thread; do
    echo "== $sanitizers"
    # shellcheck disable=SC2086
    for source in $core tests/core/cpp/driver.cpp; do
        "$compiler" $flags -fsanitize=$sanitizers -fno-sanitize-recover=all -c "$source" -o "$build/$(echo "$source" | tr / _).o"
    done
    "$compiler" -fsanitize=$sanitizers "$build"/*.o -pthread -o "$build/driver"
    "$build/driver" "$rounds"
done

cross=aarch64-linux-gnu-g++
if command -v $cross >/dev/null; then
    echo "== $cross"
    # shellcheck disable=SC2086
    for source in $core; do $cross $flags -c "$source" -o "$build/aarch64.o"; done
    echo "compiles"
else
    echo "== aarch64 skipped: $cross is not installed"
fi
