#include <algorithm>
#include <cstring>

#include "slice/kernels.hpp"

#ifdef GSPRUNE_HAS_AVX

#include <immintrin.h>

// Callers must check that the processor has these instructions.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC target("avx2")
#endif

namespace gsprune {

namespace {

constexpr std::int64_t vector_bytes = 32;
using Vector = __m256i;

inline Vector load(const std::byte* source) noexcept {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source));
}

inline void store(std::byte* target, Vector vector) noexcept {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(target), vector);
}

// Far enough ahead to hide the latency of memory. Hardware prefetchers stop at the end of a page.
constexpr std::int64_t prefetch_bytes = 2048;

/// Copies fewer bytes than a vector has, in two blocks of a fixed size that may overlap.
inline void copy_few(const std::byte* source, std::byte* target, std::int64_t num_bytes) noexcept {
    const auto copy_two = [=](auto block) {
        decltype(block) last;
        constexpr auto size = static_cast<std::int64_t>(sizeof block);
        std::memcpy(&block, source, sizeof block);
        std::memcpy(&last, source + num_bytes - size, sizeof last);
        std::memcpy(target, &block, sizeof block);
        std::memcpy(target + num_bytes - size, &last, sizeof last);
    };
    if (num_bytes >= 16) return copy_two(__m128i{});
    if (num_bytes >= 8) return copy_two(std::uint64_t{});
    if (num_bytes >= 4) return copy_two(std::uint32_t{});
    if (num_bytes >= 2) return copy_two(std::uint16_t{});
    if (num_bytes == 1) *target = *source;
}

/// Reads contiguous bytes.
class RunPicker {
public:
    static constexpr std::int64_t lane_bytes = 1;

    explicit RunPicker(const std::byte* source) noexcept : source_(source) {}

    [[nodiscard]] const std::byte* place(std::int64_t i) const noexcept { return source_ + i; }
    [[nodiscard]] Vector whole(std::int64_t i) const noexcept { return load(source_ + i); }

    void few(std::int64_t i, std::int64_t num_bytes, std::byte* target) const noexcept {
        copy_few(source_ + i, target, num_bytes);
    }

private:
    const std::byte* source_;
};

/// Gathers lanes of four bytes at strictly ascending positions.
class LanePicker {
public:
    static constexpr std::int64_t lane_bytes = 4;

    /// `end` is the end of the tensor.
    LanePicker(const std::byte* source, const std::byte* end, const std::uint16_t* positions) noexcept
        : source_(source), positions_(positions), last_pair_((end - source) / lane_bytes - 2 * lanes) {}

    [[nodiscard]] const std::byte* place(std::int64_t i) const noexcept { return source_ + positions_[i] * lane_bytes; }

    void few(std::int64_t i, std::int64_t num_lanes, std::byte* target) const noexcept {
        for (std::int64_t lane = 0; lane < num_lanes; ++lane) {
            std::memcpy(target + lane * lane_bytes, place(i + lane), lane_bytes);
        }
    }

    /// Gathers one vector, usually from the two source vectors that begin at its first lane. A permutation uses the
    /// three low bits of an offset; the fourth bit, moved to the sign, selects one of the two.
    [[nodiscard]] Vector whole(std::int64_t i) const noexcept {
        const int span = positions_[i + lanes - 1] - positions_[i];
        // A run needs one load. The branch repeats in every row, so it is predicted. With 5 % of the channels removed,
        // slices take a quarter of the time.
        if (span == lanes - 1) return load(place(i));
        if (span >= 2 * lanes || positions_[i] > last_pair_) return pick_each(i);
        const __m128i narrow = _mm_loadu_si128(reinterpret_cast<const __m128i*>(positions_ + i));
        const Vector offsets = _mm256_cvtepu16_epi32(_mm_sub_epi16(narrow, _mm_broadcastw_epi16(narrow)));
        const Vector front = _mm256_permutevar8x32_epi32(load(place(i)), offsets);
        const Vector back = _mm256_permutevar8x32_epi32(load(place(i) + vector_bytes), offsets);
        const __m256 in_back = _mm256_castsi256_ps(_mm256_slli_epi32(offsets, 28));
        return _mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps(front), _mm256_castsi256_ps(back), in_back));
    }

private:
    static constexpr std::int64_t lanes = vector_bytes / lane_bytes;

    [[nodiscard]] Vector pick_each(std::int64_t i) const noexcept {
        const auto at = [&](std::int64_t lane) {
            int value = 0;
            std::memcpy(&value, place(i + lane), sizeof value);
            return value;
        };
        return _mm256_setr_epi32(at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7));
    }

    const std::byte* source_;
    const std::uint16_t* positions_;
    std::int64_t last_pair_;  // the last position with two whole vectors in the tensor
};

/// Copies `num_lanes` lanes from lane `i` on; the last vector may overlap the one before.
template <class Picker>
inline void copy(const Picker pick, std::int64_t i, std::int64_t num_lanes, std::byte* target) noexcept {
    constexpr std::int64_t lanes = vector_bytes / Picker::lane_bytes;
    const std::int64_t last = num_lanes - lanes;
    if (last < 0) return pick.few(i, num_lanes, target);
    for (std::int64_t lane = 0; lane < last; lane += lanes) {
        store(target + lane * Picker::lane_bytes, pick.whole(i + lane));
    }
    store(target + last * Picker::lane_bytes, pick.whole(i + last));
}

#include "slice/pieces.inc"

/// Writes pieces one after the other.
class Writer {
public:
    explicit Writer(std::byte* target) noexcept : next_(target) {}

    template <class Picker>
    void add(const Picker pick, std::int64_t num_lanes) noexcept {
        copy(pick, 0, num_lanes, next_);
        next_ += num_lanes * Picker::lane_bytes;
    }

    void finish() const noexcept {}

private:
    std::byte* next_;
};

/// A `Writer` with non-temporal stores of whole cache lines; a line with several pieces is assembled in `line_` first.
/// Reads and writes alternate line by line, because with larger units they wait for each other.
class StreamingWriter {
public:
    explicit StreamingWriter(std::byte* target) noexcept
        : head_(static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(target) % line_bytes)),
          fill_(head_),
          next_(target - head_) {}

    template <class Picker>
    void add(const Picker pick, std::int64_t num_lanes) noexcept {
        constexpr std::int64_t lane_bytes = Picker::lane_bytes;
        constexpr std::int64_t lanes_of_line = line_bytes / lane_bytes;
        std::int64_t i = 0;
        if (fill_ != 0) {
            i = std::min(lanes_of_line - fill_ / lane_bytes, num_lanes);
            copy(pick, 0, i, line_ + fill_);
            fill_ += i * lane_bytes;
            if (fill_ < line_bytes) return;
            flush();
        }
        for (; i + lanes_of_line <= num_lanes; i += lanes_of_line) {
            // The source is not read again, so it must not evict other data from the caches. Steps of IMPALA at tau 4
            // and 8 take a tenth less time than with a T0 hint (Zen 3).
            _mm_prefetch(pick.place(i) + prefetch_bytes, _MM_HINT_NTA);
            stream(pick.whole(i), pick.whole(i + lanes_of_line / 2));
        }
        fill_ = (num_lanes - i) * lane_bytes;
        copy(pick, i, num_lanes - i, line_);
    }

    /// Writes the last, incomplete line.
    void finish() const noexcept {
        if (fill_ > head_) std::memcpy(next_ + head_, line_ + head_, static_cast<std::size_t>(fill_ - head_));
        _mm_sfence();
    }

private:
    void stream(Vector front, Vector back) noexcept {
        _mm256_stream_si256(reinterpret_cast<__m256i*>(next_), front);
        _mm256_stream_si256(reinterpret_cast<__m256i*>(next_ + vector_bytes), back);
        next_ += line_bytes;
    }

    void flush() noexcept {
        if (head_ == 0) {
            stream(load(line_), load(line_ + vector_bytes));
        } else {  // the beginning of the first line belongs to another task
            std::memcpy(next_ + head_, line_ + head_, static_cast<std::size_t>(line_bytes - head_));
            head_ = 0;
            next_ += line_bytes;
        }
        fill_ = 0;
    }

    std::int64_t head_;  // bytes before `target` in the first line; 0 once the line is written
    std::int64_t fill_;  // bytes of the present line before the next write
    std::byte* next_;
    alignas(line_bytes) std::byte line_[line_bytes];
};

template <class Writer>
void write_pieces(const RowProgram& program, const std::byte* source, std::byte* target, std::int64_t first,
                  std::int64_t last) noexcept {
    Writer writer(target + first);
    if (program.positions.empty()) {
        for_each_piece(program, source, first, last,
                       [&](const std::byte* piece, std::int64_t skipped, std::int64_t, std::int64_t num_bytes) {
                           writer.add(RunPicker(piece + skipped), num_bytes);
                       });
    } else {
        const std::byte* end = source + program.source_bytes;
        const std::uint16_t* positions = program.positions.data();
        for_each_piece(program, source, first / LanePicker::lane_bytes, last / LanePicker::lane_bytes,
                       [&](const std::byte* piece, std::int64_t, std::int64_t lane, std::int64_t num_lanes) {
                           writer.add(LanePicker(piece, end, positions + lane), num_lanes);
                       });
    }
    writer.finish();
}

}  // namespace

void avx2_slice_kernel(const RowProgram& program, const std::byte* source, std::byte* target, std::int64_t first,
                       std::int64_t last, bool stream) noexcept {
    const auto address = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(target));
    if (stream && address % program.lane_bytes == 0) {
        write_pieces<StreamingWriter>(program, source, target, first, last);
    } else {
        write_pieces<Writer>(program, source, target, first, last);
    }
}

}  // namespace gsprune

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif
