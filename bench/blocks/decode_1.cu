#include "decode.cuh"

void gg::bench::bench_decode_1(Bench& bench) {
    bench_decode<1>(bench);
}
