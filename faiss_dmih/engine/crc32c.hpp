// CRC-32C (Castagnoli), as in iSCSI and ext4: of data, continuing from the CRC of what lies before.
// The processor's instruction takes 8 bytes in a cycle; three streams at once hide its latency.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dmih {

uint32_t crc32c(const void* data, size_t size, uint32_t before = 0);

// The same by table, for processors without the instruction.
uint32_t crc32c_portable(const void* data, size_t size, uint32_t before = 0);

}  // namespace dmih
