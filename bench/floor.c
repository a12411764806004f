/* The machine's fastest way to read memory and to copy it, with which the benches compare. Built by floors.py. */
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

/* Reads every byte once; the result keeps the compiler from leaving it out. */
uint64_t read_all(const uint64_t* from, int64_t num_bytes) {
    uint64_t a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0;
    for (int64_t i = 0; i + 8 <= num_bytes / 8; i += 8) {
        a |= from[i], b |= from[i + 1], c |= from[i + 2], d |= from[i + 3];
        e |= from[i + 4], f |= from[i + 5], g |= from[i + 6], h |= from[i + 7];
    }
    return a | b | c | d | e | f | g | h;
}

/* Past the caches where the machine can; `to` is aligned to 64 bytes, the last 63 bytes may be left out. */
void copy_all(char* to, const char* from, int64_t num_bytes) {
#if defined(__AVX512F__)
    for (int64_t i = 0; i + 64 <= num_bytes; i += 64) {
        _mm512_stream_si512((__m512i*)(to + i), _mm512_loadu_si512(from + i));
    }
    _mm_sfence();
#elif defined(__AVX2__)
    for (int64_t i = 0; i + 32 <= num_bytes; i += 32) {
        _mm256_stream_si256((__m256i*)(to + i), _mm256_loadu_si256((const __m256i*)(from + i)));
    }
    _mm_sfence();
#else
    memcpy(to, from, (size_t)num_bytes);
#endif
}

/* Through the caches, which is faster as long as everything fits. */
void copy_cached(char* to, const char* from, int64_t num_bytes) { memcpy(to, from, (size_t)num_bytes); }
