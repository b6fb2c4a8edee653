// The chain of decode_chain_test.cu with delays that differ from block to block and from run to run.
#define GG_JITTER
#define GG_CHAIN chain_jitter
#include "cuda/decode_chain.cuh"
