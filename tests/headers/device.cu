// Device code that uses the shared headers, all of which device.py includes: decodes one block a thread.
#include "gg/format/q4_1.hpp"

__global__ void decode(const unsigned char* blocks, float* out) {
    using Format = gg::format::Q4_1;
    const unsigned block = blockIdx.x * blockDim.x + threadIdx.x;
    Format::decode(blocks + block * Format::bytes, out + block * Format::elements);
}
