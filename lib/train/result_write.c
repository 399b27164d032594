/* Results as JSON: the numbers a Committed message carries and TensorBoard shows. */
#include "base/json_write.h"
#include "train/objective.h"

void sft_result_write(const struct sft_result *result, struct strbuf *out)
{
    struct json_writer w = {.out = out};

    json_open(&w, NULL, '{');
    json_number(&w, "loss_first", result->first_loss);
    json_number(&w, "loss", result->last_loss);
    json_number(&w, "gradient_norm", result->gradient_norm);
    json_signed(&w, "updates", result->updates);
    json_signed(&w, "skipped_updates", result->skipped);
    json_signed(&w, "frames", result->frames);
    if (result->chosen.offered) {
        json_signed(&w, "rollouts_offered", result->chosen.offered);
        json_signed(&w, "rollouts_chosen", result->chosen.chosen);
        json_signed(&w, "rollouts_chosen_successes", result->chosen.successes);     /* what the choice did not look at, if by
                                                                                     * score */
    }
    json_close(&w, '}');
}

static void judgement_write(struct json_writer *w, const char *key, const struct prm_judgement *j)
{
    char name[64];
    const struct { const char *what; double value; } rows[] = {
        {"auc_25", j->auc_quarter}, {"auc_50", j->auc_mid}, {"auc_75", j->auc_three_quarters}, {"auc_last", j->auc_last},
        {"time_correlation", j->time_correlation}, {"success_last", j->success_last}, {"failure_last", j->failure_last},
        {"bce", j->bce}, {"calibration", j->calibration},
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        snprintf(name, sizeof name, "%s_%s", key, rows[i].what);
        json_number(w, name, rows[i].value);
    }
}

void prm_result_write(const struct prm_result *result, struct strbuf *out)
{
    struct json_writer w = {.out = out};

    json_open(&w, NULL, '{');
    json_number(&w, "loss_first", result->first_loss);
    json_number(&w, "loss", result->last_loss);
    json_signed(&w, "updates", result->updates);
    json_signed(&w, "skipped_updates", result->skipped);
    json_signed(&w, "held_out", result->prm.episodes);
    judgement_write(&w, "prm", &result->prm);
    judgement_write(&w, "blind", &result->blind);
    judgement_write(&w, "clock", &result->clock);
    json_number(&w, "gate", result->gate_passed);
    json_close(&w, '}');
}

void ppo_result_write(const struct ppo_result *r, struct strbuf *out)
{
    struct json_writer w = {.out = out};
    const struct { const char *name; double value; } rows[] = {
        {"success", r->success}, {"length", r->length}, {"reward", r->reward}, {"episodes", r->episodes}, {"steps", r->steps},
        {"filtered", r->filtered}, {"loss", r->loss}, {"policy_loss", r->policy_loss}, {"value_loss", r->value_loss},
        {"kl_loss", r->kl_loss}, {"ratio_mean", r->ratio_mean}, {"ratio_max", r->ratio_max},
        {"clip_fraction", r->clip_fraction}, {"approx_kl", r->approx_kl}, {"reference_kl", r->ref_kl}, {"entropy", r->entropy},
        {"importance_mean", r->importance_mean}, {"other_ids", r->other_ids},
        {"explained_variance", r->explained_variance}, {"gradient_norm", r->gradient_norm},
        {"value_gradient_norm", r->value_gradient_norm}, {"lr", r->lr}, {"w_progress", r->w_progress},
        {"logp_gap_mean", r->logp_gap_mean}, {"logp_gap_p99", r->logp_gap_p99}, {"logp_gap_max", r->logp_gap_max},
        {"logp_gap_tokens", (double)r->logp_gap_tokens},
        {"updates", (double)r->updates}, {"value_updates", (double)r->value_updates}, {"skipped_updates", (double)r->skipped},
        {"braked", r->braked}, {"warmup", r->warmup},
    };

    json_open(&w, NULL, '{');
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
        json_number(&w, rows[i].name, rows[i].value);
    json_close(&w, '}');
}
