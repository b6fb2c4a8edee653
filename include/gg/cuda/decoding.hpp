// Steps of one to eight sessions of a model together: each draws a token, appends it, and all are computed in
// one launch of a graph, which ends in the draw of the tokens after. The host learns a token as soon as it is
// drawn, while the step that appends it runs.
//
//   list of rows ──> [embed, layers, head, draw] ──> list of rows at the next position ──> ...
//
// As long as the same sessions go on, the list stays on the device from step to step. Otherwise it is written
// anew, and if a session has no token drawn ahead, one draw comes before the step.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "gg/cuda/engine.hpp"
#include "gg/model/session.hpp"

namespace gg::cuda {

template <class Family>
class CudaSession;

template <class Family>
class Decoding {
  public:
    using Session = CudaSession<Family>;

    explicit Decoding(Engine<Family>& engine) : engine_(engine) {}

    /// One step of each session; at most eight, each once. A session that cannot go on gets its error, and
    /// the others go on. Throws cuda_error.
    std::vector<Decoded> decode(std::span<Session* const> sessions) {
        std::vector<Decoded> out(sessions.size());
        std::vector<Session*> ready;
        std::vector<Decoded*> results;
        for (std::size_t i = 0; i < sessions.size(); ++i) {
            try {
                sessions[i]->require_step();
                ready.push_back(sessions[i]);
                results.push_back(&out[i]);
            } catch (const Error& error) {
                out[i].error = error;
            }
        }
        if (ready.empty()) return out;
        engine_.use_device();
        const int variant = ready.size() == 1 ? 0 : decode_variants - 1;
        if (!goes_on(ready, variant)) begin(ready, variant);
        engine_.enqueue_step(variant, static_cast<int>(ready.size()), true);
        for (Session* session : ready) session->sampler_->enqueued();
        engine_.mark();
        engine_.wait_for_earlier_mark();
        for (std::size_t i = 0; i < ready.size(); ++i) take(*ready[i], *results[i]);
        return out;
    }

  private:
    /// Whether the list on the device is that of the sessions' next step.
    bool goes_on(const std::vector<Session*>& sessions, int variant) const {
        if (sessions != sessions_ || written_ != engine_.rows_written(variant)) return false;
        for (const Session* session : sessions)
            if (!session->sampler_->goes_on()) return false;
        return true;
    }

    /// Writes the list, with a token drawn for each.
    void begin(const std::vector<Session*>& sessions, int variant) {
        bool ahead = true;
        for (const Session* session : sessions) ahead = ahead && session->sampler_->goes_on();
        if (ahead) engine_.synchronise();
        std::vector<Row> rows;
        for (Session* session : sessions) {
            const int position = session->position(), index = static_cast<int>(rows.size());
            if (!ahead) session->sampler_->prepare(engine_, session->history_.tokens());
            rows.push_back(ahead ? session->row(std::max(session->sampler_->peek().id, 0), position, index)
                                 : session->row(0, position - 1, index));
        }
        sessions_.clear();
        written_ = engine_.upload_rows(variant, rows);
        if (!ahead) {
            engine_.enqueue_draw(engine_.step(variant).row_list(), static_cast<int>(rows.size()), true);
            for (Session* session : sessions) session->sampler_->enqueued();
        }
        engine_.mark();
        sessions_ = sessions;
    }

    /// Takes what was drawn for a session.
    void take(Session& session, Decoded& out) {
        engine_.note_overflows(session.sampler_->peek().overflows);
        try {
            out.id = session.sampler_->take();
            session.history_.append({&out.id, 1});
            session.history_.set_logits();
        } catch (const Error& error) {
            session.history_.begin(1);  // the step computes what follows no token
            session.history_.lose_logits();
            out.error = error;
        }
    }

    Engine<Family>& engine_;
    std::vector<Session*> sessions_;  ///< whose next step the list holds
    std::uint64_t written_ = 0;       ///< the upload that the list began with
};

}  // namespace gg::cuda
