// The loops of one instruction set, in the order in which they build on each other.
#include "gg/host/kernels/lanes.inl"

#include "gg/host/kernels/dot.inl"

#include "gg/host/kernels/rows.inl"

#include "gg/host/kernels/attend.inl"
