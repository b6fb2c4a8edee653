#include "decode.cuh"

void gg::bench::bench_decode_8(Bench& bench) {
    bench_decode<8>(bench);
}
