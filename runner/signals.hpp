// Signals: a clean end on Ctrl-C, a word when a model file is cut short while in use, and no death by a
// closed pipe.
#pragma once

namespace gg::runner {

/// Ignores SIGPIPE (writing then fails with EPIPE) and answers SIGBUS in a model file with an error message
/// and exit code 1.
void install_signal_handlers();

/// From here on, the first Ctrl-C only makes interrupted() true; the second kills at once, as ever.
void catch_interrupt();
bool interrupted();

}  // namespace gg::runner
