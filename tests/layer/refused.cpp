// Compositions that must not compile, each for the reason that CMakeLists.txt expects. GG_CASE 0 compiles.
#include "gg/block/attention.hpp"
#include "gg/block/gelu.hpp"
#include "gg/block/mixture_of_experts.hpp"
#include "gg/block/rms_norm.hpp"
#include "gg/block/rope.hpp"
#include "gg/block/swiglu.hpp"
#include "gg/layer/layer.hpp"

#if GG_CASE == 0
template struct gg::Attention<gg::Bias, gg::YarnRope, gg::Sinks, gg::SlidingWindow>;
template struct gg::MixtureOfExperts<gg::ClampedSwiglu, gg::Bias>;
template struct gg::Residual<gg::RmsNorm, gg::Attention<>>;
#elif GG_CASE == 1
template struct gg::Attention<gg::Rope, gg::YarnRope>;
#elif GG_CASE == 2
template struct gg::MixtureOfExperts<gg::GeluTanh>;
#elif GG_CASE == 3
template struct gg::Residual<gg::RmsNorm>;
#endif
