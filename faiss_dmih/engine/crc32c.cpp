#include "crc32c.hpp"

#include <array>
#include <cstring>

#if defined(__SSE4_2__)
#include <nmmintrin.h>
#elif defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#endif

namespace dmih {
namespace {

constexpr uint32_t kPolynomial = 0x82F63B78;  // reflected

constexpr std::array<uint32_t, 256> byte_table() {
    std::array<uint32_t, 256> table{};
    for (uint32_t byte = 0; byte < 256; ++byte) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? kPolynomial : 0);
        table[byte] = crc;
    }
    return table;
}

constexpr std::array<uint32_t, 256> kBytes = byte_table();

uint32_t bytewise(uint32_t state, const uint8_t* data, size_t size) {
    for (size_t i = 0; i < size; ++i) state = state >> 8 ^ kBytes[(state ^ data[i]) & 0xFF];
    return state;
}

#if defined(__SSE4_2__) || defined(__ARM_FEATURE_CRC32)

uint64_t step(uint64_t state, const uint8_t* data) {
    uint64_t word;
    std::memcpy(&word, data, 8);
#if defined(__SSE4_2__)
    return _mm_crc32_u64(state, word);
#else
    return __crc32cd(static_cast<uint32_t>(state), word);
#endif
}

constexpr size_t kStream = 4096;

// What kStream zeros make of a state. That is linear in its bits: a table for each of its bytes.
class Zeros {
public:
    Zeros() {
        const uint8_t zeros[8] = {};
        for (uint32_t bit = 0; bit < 32; ++bit) {
            uint64_t state = uint64_t{1} << bit;
            for (size_t i = 0; i < kStream; i += 8) state = step(state, zeros);
            std::array<uint32_t, 256>& table = of_[bit / 8];
            for (uint32_t byte = 0; byte < 256; ++byte)
                if (byte >> bit % 8 & 1) table[byte] ^= static_cast<uint32_t>(state);
        }
    }
    uint32_t operator()(uint32_t state) const {
        return of_[0][state & 0xFF] ^ of_[1][state >> 8 & 0xFF] ^ of_[2][state >> 16 & 0xFF] ^
               of_[3][state >> 24];
    }

private:
    std::array<std::array<uint32_t, 256>, 4> of_{};
};

uint32_t advance(uint32_t state, const uint8_t* data, size_t size) {
    static const Zeros zeros;
    for (; size >= 3 * kStream; size -= 3 * kStream, data += 3 * kStream) {
        uint64_t a = state, b = 0, c = 0;
        for (size_t i = 0; i < kStream; i += 8) {
            a = step(a, data + i);
            b = step(b, data + kStream + i);
            c = step(c, data + 2 * kStream + i);
        }
        const uint32_t ab = zeros(static_cast<uint32_t>(a)) ^ static_cast<uint32_t>(b);
        state = zeros(ab) ^ static_cast<uint32_t>(c);
    }
    uint64_t wide = state;
    for (; size >= 8; size -= 8, data += 8) wide = step(wide, data);
    return bytewise(static_cast<uint32_t>(wide), data, size);
}

#else

uint32_t advance(uint32_t state, const uint8_t* data, size_t size) {
    return bytewise(state, data, size);
}

#endif

}  // namespace

uint32_t crc32c(const void* data, size_t size, uint32_t before) {
    return ~advance(~before, static_cast<const uint8_t*>(data), size);
}

uint32_t crc32c_portable(const void* data, size_t size, uint32_t before) {
    return ~bytewise(~before, static_cast<const uint8_t*>(data), size);
}

}  // namespace dmih
