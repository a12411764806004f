/* The machine's fastest ways to read memory and to copy it, with which the benches compare. Built by floors.py. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
typedef __m512i Vector;
#define LOAD(from) _mm512_loadu_si512((const void*)(from))
#define STORE(to, value) _mm512_store_si512((void*)(to), value)
#define STREAM(to, value) _mm512_stream_si512((void*)(to), value)
#define FENCE() _mm_sfence()
#define PAUSE() _mm_pause()
#define ASK(from) _mm_prefetch((const char*)(from), _MM_HINT_NTA)
#elif defined(__AVX2__)
typedef __m256i Vector;
#define LOAD(from) _mm256_loadu_si256((const __m256i*)(from))
#define STORE(to, value) _mm256_store_si256((__m256i*)(to), value)
#define STREAM(to, value) _mm256_stream_si256((__m256i*)(to), value)
#define FENCE() _mm_sfence()
#define PAUSE() _mm_pause()
#define ASK(from) _mm_prefetch((const char*)(from), _MM_HINT_NTA)
#else
typedef struct {
    char bytes[64];
} Vector;
#define LOAD(from) (*(const Vector*)(from))
#define STORE(to, value) (*(Vector*)(to) = (value))
#define STREAM STORE
#define FENCE() atomic_thread_fence(memory_order_seq_cst)
#define PAUSE() (void)0
#define ASK(from) __builtin_prefetch(from)
#endif

enum { line = 64, together = 8, ahead = 2048, longest_wait = 100000 };

static volatile uint64_t seen_bits; /* keeps the compiler from leaving the reading out */

static void read_part(const char* from, int64_t num_bytes) {
    const uint64_t* words = (const uint64_t*)from;
    uint64_t a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0;
    for (int64_t i = 0; i + 8 <= num_bytes / 8; i += 8) {
        a |= words[i], b |= words[i + 1], c |= words[i + 2], d |= words[i + 3];
        e |= words[i + 4], f |= words[i + 5], g |= words[i + 6], h |= words[i + 7];
    }
    seen_bits = a | b | c | d | e | f | g | h;
}

/* Copies: addresses are multiples of a line, so are sizes. */
typedef void (*Copy)(char* to, const char* from, int64_t num_bytes);

static void by_the_library(char* to, const char* from, int64_t num_bytes) { memcpy(to, from, (size_t)num_bytes); }

static void through_the_caches(char* to, const char* from, int64_t num_bytes) {
    for (int64_t i = 0; i < num_bytes; i += (int64_t)sizeof(Vector)) STORE(to + i, LOAD(from + i));
}

static void past_the_caches(char* to, const char* from, int64_t num_bytes) {
    for (int64_t i = 0; i < num_bytes; i += (int64_t)sizeof(Vector)) STREAM(to + i, LOAD(from + i));
    FENCE();
}

/* Reading and writing take turns, and what is read is asked for ahead of time and not kept. */
static void in_bursts(char* to, const char* from, int64_t num_bytes) {
    enum { burst = together * (int)sizeof(Vector) };
    int64_t done = 0;
    for (; done + burst <= num_bytes; done += burst) {
        Vector values[together];
        for (int i = 0; i < burst; i += line) ASK(from + done + ahead + i);
        for (int i = 0; i < together; ++i) values[i] = LOAD(from + done + i * (int64_t)sizeof(Vector));
        for (int i = 0; i < together; ++i) STREAM(to + done + i * (int64_t)sizeof(Vector), values[i]);
    }
    past_the_caches(to + done, from + done, num_bytes - done);
}

static const Copy copies[] = {by_the_library, through_the_caches, past_the_caches, in_bursts};

static struct {
    char* to;
    const char* from;
    int64_t read_bytes, copied_bytes;
    Copy copy;
} work;

static int64_t edge(int64_t num_bytes, int part, int parts) { return num_bytes * part / parts / line * line; }

static void copy_part(int64_t offset, int64_t num_bytes, int part, int parts) {
    const int64_t begin = offset + edge(num_bytes, part, parts), end = offset + edge(num_bytes, part + 1, parts);
    if (end > begin) work.copy(work.to + begin, work.from + begin, end - begin);
}

/* A thread copies first what it has just read: it may still be in its own caches. */
static void do_part(int part, int parts) {
    const int64_t begin = edge(work.read_bytes, part, parts);
    read_part(work.from + begin, edge(work.read_bytes, part + 1, parts) - begin);
    const int64_t both = edge(work.read_bytes < work.copied_bytes ? work.read_bytes : work.copied_bytes, 1, 1);
    copy_part(0, both, part, parts);
    copy_part(both, work.copied_bytes - both, part, parts);
}

/* The second thread spins for the next round, the fastest way to be there in time, and sleeps when none comes. */
static atomic_uint asked, done;
static atomic_int asleep;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t woken = PTHREAD_COND_INITIALIZER;

static void sleep_until_asked(unsigned served) {
    pthread_mutex_lock(&mutex);
    atomic_store(&asleep, 1);
    while (atomic_load(&asked) == served) pthread_cond_wait(&woken, &mutex);
    atomic_store(&asleep, 0);
    pthread_mutex_unlock(&mutex);
}

static void* help(void* unused) {
    (void)unused;
    for (unsigned served = 0;; ++served) {
        for (int i = 0; i < longest_wait && atomic_load(&asked) == served; ++i) PAUSE();
        if (atomic_load(&asked) == served) sleep_until_asked(served);
        do_part(1, 2);
        atomic_store(&done, served + 1);
    }
    return NULL;
}

static void start_helper(void) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, help, NULL) == 0) pthread_detach(thread);
}

/* Reads the first `read_bytes` of `from` once and copies the first `copied_bytes`. The last line may be left out. */
void read_and_copy(char* to, const char* from, int64_t read_bytes, int64_t copied_bytes, int copy, int num_threads) {
    static pthread_once_t started = PTHREAD_ONCE_INIT;
    work.to = to, work.from = from, work.copy = copies[copy];
    work.read_bytes = read_bytes, work.copied_bytes = copied_bytes;
    if (num_threads < 2) {
        do_part(0, 1);
        return;
    }
    pthread_once(&started, start_helper);
    const unsigned number = atomic_fetch_add(&asked, 1) + 1;
    if (atomic_load(&asleep)) {
        pthread_mutex_lock(&mutex);
        pthread_cond_signal(&woken);
        pthread_mutex_unlock(&mutex);
    }
    do_part(0, 2);
    while (atomic_load(&done) != number) PAUSE();
}
